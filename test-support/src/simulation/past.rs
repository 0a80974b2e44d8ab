//! What both arms, or the primary, went through before a fault delays nobody: outages, and the halving of what is known.

use wingbeat_core::analysis::window::{Batch, WINDOW};
use wingbeat_core::time::{Span, Timestamp};

use crate::simulation::draw::Draw;
use crate::simulation::line::{Effort, Line, each, quantile};
use crate::simulation::rollout::{Rollout, World, shipped};
use crate::simulation::traffic::{Answers, Law, Traffic};

const NAME: &str = "judge-late";

const RPS: f64 = 1_000.0;
const BASE: f64 = 0.01;

/// What is not seen within this time is not waited for.
const LONGEST: Span = Span::from_secs(600);

/// A fault is found so many times as late at most as without the outages.
const LATER: f64 = 4.0;

/// A canary that fails everything is found within this time.
const BROKEN: Span = Span::from_secs(1);

/// The same fault just before and just after a halving differs in time by so much: chance alone moves medians of 400 by a
/// tenth.
const ALIKE: f64 = 1.25;

/// An outage of both arms: seconds, once in so many by chance, and the share that fails in it.
pub type Outage = (f64, f64, f64);

/// Without, long, mild, and frequent.
pub const OUTAGES: [Option<Outage>; 4] = [None, Some((3.0, 60.0, 0.5)), Some((5.0, 30.0, 0.1)), Some((2.0, 20.0, 1.0))];

/// The rows of the table.
pub fn rows(effort: Effort) -> Vec<Line> {
    let outages = [0.05, 1.0].into_iter().flat_map(|rate| after_outages(effort.of(100), rate));
    outages.chain([after_halving(effort.of(400).max(100))]).collect()
}

/// Two arms that are out together at times.
struct Out {
    traffic: Traffic,
    draw: Draw,
    outage: Option<Outage>,
    until: Timestamp,
    canary: f64,
}

impl World for Out {
    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        let mut rate = BASE;
        if let Some((length, every, failing)) = self.outage {
            if self.draw.share() < WINDOW.as_secs_f64() / every {
                self.until = end.plus(Span::from_millis((1e3 * length) as u64));
            }
            if end <= self.until {
                rate = failing;
            }
        }
        self.traffic.primary.errors = rate;
        self.traffic.canary.errors = rate.max(self.canary);
        self.traffic.window(share, end)
    }
}

/// A canary begins to fail after five minutes of a service with outages.
pub fn after_outages(runs: u64, rate: f64) -> Vec<Line> {
    let found = |outage: Option<Outage>| {
        let mut millis = each(runs, |seed| {
            let traffic = Traffic::new(seed, RPS, Answers::failing(BASE), Answers::failing(BASE));
            let world = Out { traffic, draw: Draw::new(!seed), outage, until: Timestamp::EPOCH, canary: 0.0 };
            let mut rollout = Rollout::new(world, shipped());
            rollout.step(5);
            rollout.last(Span::from_secs(300));
            rollout.world.canary = rate;
            rollout.until_rolled_back(LONGEST).map_or(LONGEST, |(span, _)| span).as_millis()
        });
        [0.5, 0.9].map(|share| Span::from_millis(quantile(&mut millis, share)))
    };
    let [quiet, _] = found(None);
    let line = |outage: &Option<Outage>| {
        let [median, late] = found(*outage);
        let most = if rate >= 1.0 { BROKEN } else { Span::from_millis((LATER * quiet.as_millis() as f64) as u64) };
        let before = outage.map_or_else(
            || "without outages".to_owned(),
            |(length, every, failing)| format!("outages of {length} s once in {every} s, {} % fail", 100.0 * failing),
        );
        let what = format!("errors 1 → {} % after 300 s, {before}", 100.0 * rate);
        Line::new(NAME, what, format!("median {median}, p90 {late}"), format!("median ≤ {most}"), median <= most)
    };
    OUTAGES.iter().map(line).collect()
}

/// The slowest 2 % take three times as long, from one second before a halving of the reference, or after it.
pub fn after_halving(runs: u64) -> Line {
    let law = Law::of(20_000.0);
    let mut found = [49, 51].map(|healthy| {
        let mut millis = each(runs, |seed| {
            let same = || Answers::taking(0.0, law);
            let mut rollout = Rollout::new(Traffic::new(seed, 100.0, same(), same()), shipped());
            rollout.step(50);
            // The primary was alone for ten seconds.
            rollout.last(Span::from_secs(healthy));
            rollout.world.canary.latency = Some(Law { tail: (0.05, 20.0), ..law });
            rollout.until_rolled_back(LONGEST).map_or(LONGEST, |(span, _)| span).as_millis()
        });
        quantile(&mut millis, 0.5)
    });
    found.sort_unstable();
    let [sooner, later] = found.map(Span::from_millis);
    let what = "5 % of latencies × 20 from a second before, and from a second after what is known is halved, 100 rps";
    let most = ALIKE * sooner.as_secs_f64();
    Line::new(NAME, what, format!("median {sooner}, and {later}"), format!("≤ {ALIKE} ×"), later.as_secs_f64() <= most)
}
