//! Many workers: each counts by itself and reports by its tick, or at once on a canary's error. What they report goes
//! through the ledger and the windows, as in the engine.

use wingbeat_core::analysis::judge::{Judge, Sources};
use wingbeat_core::analysis::ledger::{Ledger, Report, Reported, Trust, WorkerKey};
use wingbeat_core::analysis::window::{Batch, EarlyReport, NodeGroup, ReportSource, WINDOW, Windows};
use wingbeat_core::counts::Counts;
use wingbeat_core::histogram::bin_of;
use wingbeat_core::id::{Arm, BootId, CanaryName, ClusterName, Epoch, NodeId, WorkerId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};

use crate::simulation::draw::Draw;
use crate::simulation::rollout::World;
use crate::simulation::traffic::Answers;

/// The rollout that is simulated.
const EPOCH: Epoch = Epoch::new(1);

/// An engine grants so many reports a second …
const REPORTS_PER_SECOND: u64 = 2_000;

/// … by ticks within these bounds, in milliseconds.
const TICK_MS: (u64, u64) = (100, 5_000);

/// A worker reports a canary's error after this time, and at most so often, in milliseconds.
const URGENT_MS: (u64, u64) = (1, 20);

/// Requests that a forger makes up in each report: enough to outweigh all others.
const MANY: u64 = 10_000;

/// And so many of a canary that it wants to look bad: twice what all others send it.
const SOME: u64 = 10;

const STEP: Span = Span::from_millis(1);

/// What a node makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// The canary fails.
    CanaryFails,
    /// It takes ten seconds.
    CanarySlow,
    /// The primary never fails, at any number of requests: whoever fails at all is worse.
    PrimaryPerfect,
    /// The canary never fails: what others see of it drowns.
    CanaryPerfect,
    /// The primary fails: nobody is worse.
    PrimaryFails,
}

/// Workers of several nodes, two each from 100 on.
#[derive(Debug)]
pub struct Fleet {
    draw: Draw,
    /// Requests a second.
    pub rps: f64,
    /// The primary.
    pub primary: Answers,
    /// The canary.
    pub canary: Answers,
    workers: Vec<Worker>,
    nodes: Vec<(NodeId, NodeGroup)>,
    /// By the millisecond of the tick in which they report.
    turns: Vec<Vec<usize>>,
    /// Workers in a hurry, each with when.
    hurried: Vec<(Timestamp, usize)>,
    forgery: Option<Forgery>,
    ledger: Ledger,
    windows: Windows,
    name: CanaryName,
    clusters: [ClusterName; 2],
}

#[derive(Debug, Clone)]
struct Worker {
    node: usize,
    sequence: u64,
    /// What the primary and the canary came to, since the start.
    counts: [Counts; 2],
    has_news: bool,
    hurries: bool,
    /// Its latest report had news.
    had_news: bool,
    last_urgent: Timestamp,
}

impl Fleet {
    /// Returns how often each of so many workers reports.
    pub fn tick(workers: u64) -> Span {
        Span::from_millis((workers * 1_000 / REPORTS_PER_SECOND).clamp(TICK_MS.0, TICK_MS.1))
    }

    /// Returns so many workers that share the load.
    pub fn new(seed: u64, workers: u64, rps: f64, primary: Answers, canary: Answers) -> Self {
        let tick = Self::tick(workers).as_millis();
        let a_node = if workers < 100 { 1 } else { 2 };
        let mut draw = Draw::new(seed);
        let mut turns = vec![Vec::new(); tick as usize];
        for worker in 0..workers as usize {
            if let Some(turn) = turns.get_mut(draw.below(tick) as usize) {
                turn.push(worker);
            }
        }
        let mut ledger = Ledger::new();
        ledger.open(EPOCH, Trust::Complete);
        let worker = |place: u64| Worker {
            node: (place / a_node) as usize,
            sequence: 0,
            counts: [Counts::default(), Counts::default()],
            has_news: false,
            hurries: false,
            had_news: false,
            last_urgent: Timestamp::EPOCH,
        };
        Self {
            draw,
            rps,
            primary,
            canary,
            workers: (0..workers).map(worker).collect(),
            nodes: (0..workers.div_ceil(a_node))
                .map(|node| (NodeId::new(format!("edge-{node}")), NodeGroup(0)))
                .collect(),
            turns,
            hurried: Vec::new(),
            forgery: None,
            ledger,
            windows: Windows::new(),
            name: CanaryName::new("prod", "backend"),
            clusters: ["primary", "canary"].map(|revision| ClusterName::new(format!("prod/backend/{revision}"))),
        }
    }

    /// Lets the first node make things up.
    pub fn with_forger(self, forgery: Forgery) -> Self {
        Self { forgery: Some(forgery), ..self }
    }

    fn serve(&mut self, share: f64, now: Timestamp) {
        let requests = self.draw.poisson(self.rps * STEP.as_secs_f64());
        for _ in 0..requests {
            let place = self.draw.below(self.workers.len() as u64) as usize;
            let to_canary = self.draw.share() < share;
            let answers = if to_canary { &self.canary } else { &self.primary };
            let failed = self.draw.share() < answers.errors;
            let micros = answers.latency.map(|law| law.draw(&mut self.draw) as u64);
            let Some(worker) = self.workers.get_mut(place) else { continue };
            let [primary, canary] = &mut worker.counts;
            let outcome = if failed { Outcome::ServerFault } else { Outcome::Success };
            count(if to_canary { canary } else { primary }, outcome, micros, 1);
            worker.has_news = true;
            if to_canary && failed && !worker.hurries {
                worker.hurries = true;
                let again = worker.last_urgent.plus(Span::from_millis(URGENT_MS.1));
                self.hurried.push((now.plus(Span::from_millis(URGENT_MS.0)).max(again), place));
            }
        }
    }

    /// Lets those report whose turn it is.
    fn report(&mut self, share: f64, now: Timestamp) {
        let turn = (now.as_millis() % self.turns.len() as u64) as usize;
        for place in self.turns.get(turn).cloned().unwrap_or_default() {
            self.send(place, share, now, false);
        }
        let (urgent, later) = self.hurried.iter().partition(|(at, _)| *at <= now);
        self.hurried = later;
        for (_, place) in urgent {
            if let Some(worker) = self.workers.get_mut(place) {
                (worker.hurries, worker.last_urgent) = (false, now);
            }
            self.send(place, share, now, true);
        }
    }

    fn send(&mut self, place: usize, share: f64, now: Timestamp, urgent: bool) {
        let Some(worker) = self.workers.get_mut(place) else { return };
        if let Some(forgery) = self.forgery.filter(|_| worker.node == 0 && share > 0.0) {
            forge(&mut worker.counts, forgery);
            worker.has_news = true;
        }
        // Without news, a worker reports once a second, and at the first tick after a report with news.
        let has_news = std::mem::take(&mut worker.has_news);
        let idles = !urgent && (self.turns.len() >= 1_000 || worker.had_news);
        if !has_news && !idles {
            return;
        }
        worker.had_news = has_news;
        worker.sequence += 1;
        let entry = |(cluster, counts): (&ClusterName, &Counts)| Reported {
            cluster: cluster.clone(),
            stratum: Stratum::Judged,
            epoch: EPOCH,
            first_sequence: 1,
            counts: counts.clone(),
        };
        let entries: Vec<Reported> = self.clusters.iter().zip(&worker.counts).map(entry).collect();
        let key = WorkerKey { boot: BootId::new(worker.node as u64), worker: WorkerId::new(place as u64) };
        let Some((node, node_group)) = self.nodes.get(worker.node) else { return };
        let report =
            Report { source: node.as_str(), node, key, sequence: worker.sequence, since: 0, entries: &entries };
        let ingested = self.ledger.ingest(&report, now).expect("the counts are true");
        let tick = Span::from_millis(self.turns.len() as u64);
        let ahead = urgent.then_some(EarlyReport { worker: (key.boot, key.worker), tick });
        if !urgent {
            self.windows.caught_up(key.boot, key.worker, now);
        }
        for delta in ingested.deltas {
            let arm = if self.clusters.first() == Some(&delta.cluster) { Arm::Primary } else { Arm::Canary };
            let sender = ReportSource { node_group: *node_group, ahead };
            self.windows.add(&self.name, sender, arm, delta.stratum, &delta.counts, now);
        }
    }
}

impl World for Fleet {
    fn meet(&mut self, judge: &mut Judge) {
        judge.expect(Sources::prompt(self.nodes.len()), |_| None, Timestamp::EPOCH);
        for (node, node_group) in &mut self.nodes {
            *node_group = judge.node_group(node, Timestamp::EPOCH);
        }
    }

    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        let mut now = end.minus(WINDOW);
        while now < end {
            self.serve(share, now);
            self.report(share, now);
            now = now.plus(STEP);
        }
        let closed = self.windows.close(end).into_iter().next();
        closed.map_or_else(|| Batch { end, span: WINDOW, ..Batch::default() }, |(_, batch)| batch)
    }
}

fn count(counts: &mut Counts, outcome: Outcome, micros: Option<u64>, times: u64) {
    counts.started += times;
    counts.finished += times;
    if let Some(held) = counts.outcomes.get_mut(outcome.index()) {
        *held += times;
    }
    if let Some(micros) = micros {
        counts.latency.add(bin_of(micros), times);
    }
}

fn forge([primary, canary]: &mut [Counts; 2], forgery: Forgery) {
    match forgery {
        Forgery::CanaryFails => count(canary, Outcome::ServerFault, None, SOME),
        Forgery::CanarySlow => count(canary, Outcome::Success, Some(10_000_000), SOME),
        Forgery::PrimaryPerfect => count(primary, Outcome::Success, None, MANY),
        Forgery::CanaryPerfect => count(canary, Outcome::Success, None, MANY),
        Forgery::PrimaryFails => count(primary, Outcome::ServerFault, None, MANY),
    }
}
