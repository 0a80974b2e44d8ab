//! The ledger against workers that count honestly, and a network and a disk that lose, repeat and reorder: sums are those
//! of the workers, to the last bin.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use wingbeat_core::analysis::ledger::{EXPIRE_AFTER, Ledger, Report, Reported, Trust, Worker as Written, WorkerKey};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{BootId, ClusterName, Epoch, NodeId, WorkerId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};

const CLUSTERS: [&str; 2] = ["prod/backend/1", "prod/backend/2"];
const WORKERS: usize = 3;
/// Reports that wait in the network; the oldest is lost beyond it.
const WAITING: usize = 32;

#[derive(Debug, Arbitrary)]
enum Happening {
    Serve {
        worker: u8,
        cluster: bool,
        latency_us: u16,
        outcome: u8,
    },
    Send {
        worker: u8,
    },
    /// A waiting report arrives; it may arrive again.
    Deliver {
        which: u8,
        again: bool,
        replied: bool,
    },
    Lose {
        which: u8,
    },
    Checkpoint {
        reaches_disk: bool,
    },
    /// The controller is killed and started again.
    Crash,
    /// The worker dies with what it did not tell; another one takes its place.
    Die {
        worker: u8,
    },
    /// Everyone is silent for so long that their places are given up.
    Expire,
    /// The rollout ends and the next one begins.
    NextEpoch,
}

/// A worker that counts as the filter does.
#[derive(Debug, Default)]
struct Worker {
    key: WorkerKey,
    sequence: u64,
    /// The first report that tells of this epoch.
    first: u64,
    truth: [Counts; 2],
    /// What was counted when each report was made, from the durable one on.
    sent: Vec<(u64, [Counts; 2])>,
    sends_all: bool,
}

/// A report on its way.
#[derive(Debug, Clone)]
struct Sent {
    worker: usize,
    key: WorkerKey,
    sequence: u64,
    since: u64,
    entries: Vec<Reported>,
}

/// The control plane, and what it has made of differences.
#[derive(Debug)]
struct Plane {
    ledger: Ledger,
    totals: [Counts; 2],
    disk: Disk,
    epoch: Epoch,
    now: Timestamp,
}

/// What is written down in one transaction.
#[derive(Debug, Clone, Default)]
struct Disk {
    workers: BTreeMap<WorkerKey, Written>,
    totals: [Counts; 2],
    baselines: Vec<Epoch>,
}

/// What may be said of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sums {
    /// They are those of the workers.
    Exact,
    /// What died with its worker, or was told before its place was given up, may be missing. Nothing is doubled.
    AtMost,
}

/// Plays a history.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|place| Worker::new(place, 0)).collect();
    let mut plane = Plane::new();
    let mut network: Vec<Sent> = Vec::new();
    let (mut sums, mut deaths, mut dead) = (Sums::Exact, 0_u64, <[Counts; 2]>::default());
    while !input.is_empty() {
        let Ok(happening) = Happening::arbitrary(&mut input) else { break };
        match happening {
            Happening::Serve { worker, cluster, latency_us, outcome } => {
                if let Some(worker) = workers.get_mut(usize::from(worker) % WORKERS) {
                    worker.serve(cluster, latency_us, outcome);
                }
            }
            Happening::Send { worker } => {
                let place = usize::from(worker) % WORKERS;
                if network.len() >= WAITING {
                    network.remove(0);
                }
                network.extend(workers.get_mut(place).map(|worker| worker.report(place, plane.epoch)));
            }
            Happening::Deliver { which, again, replied } => {
                let at = usize::from(which) % network.len().max(1);
                let Some(sent) = network.get(at).cloned() else { continue };
                let answer = plane.take(&sent);
                let worker = workers.get_mut(sent.worker).filter(|worker| worker.key == sent.key);
                if let (Some(worker), true) = (worker, replied) {
                    worker.answered(answer);
                }
                if !again {
                    network.remove(at);
                }
            }
            Happening::Lose { which } => {
                let at = usize::from(which) % network.len().max(1);
                if at < network.len() {
                    network.remove(at);
                }
            }
            Happening::Checkpoint { reaches_disk } => plane.checkpoint(reaches_disk),
            Happening::Crash => plane.crash(),
            Happening::Die { worker } => {
                let place = usize::from(worker) % WORKERS;
                deaths = deaths.saturating_add(1);
                if let Some(worker) = workers.get_mut(place) {
                    for (dead, truth) in dead.iter_mut().zip(&worker.truth) {
                        dead.merge(truth);
                    }
                    *worker = Worker::new(place, deaths);
                    sums = Sums::AtMost;
                }
            }
            Happening::Expire => {
                sums = Sums::AtMost;
                // No call takes so long.
                network.clear();
                plane.now = plane.now.plus(EXPIRE_AFTER).plus(Span::from_secs(1));
                plane.ledger.expire(plane.now);
                plane.checkpoint(true);
            }
            Happening::NextEpoch => {
                plane.next_epoch();
                (sums, dead) = (Sums::Exact, Default::default());
                workers.iter_mut().for_each(Worker::begin_epoch);
            }
        }
        plane.holds(&workers, &dead);
    }
    // Once the network works again, two rounds suffice: one may be answered by asking for all.
    for _ in 0..2 {
        for (place, worker) in workers.iter_mut().enumerate() {
            let answer = plane.take(&worker.report(place, plane.epoch));
            worker.answered(answer);
        }
    }
    plane.holds(&workers, &dead);
    if sums == Sums::Exact {
        let truth = truth(&workers, &<[Counts; 2]>::default());
        assert_eq!(plane.totals, truth, "what was counted is what was served");
    }
}

fn truth(workers: &[Worker], dead: &[Counts; 2]) -> [Counts; 2] {
    let mut truth = dead.clone();
    for worker in workers {
        for (sum, counts) in truth.iter_mut().zip(&worker.truth) {
            sum.merge(counts);
        }
    }
    truth
}

impl Worker {
    fn new(place: usize, life: u64) -> Self {
        let worker = u64::try_from(place).unwrap_or_default();
        let key = WorkerKey { boot: BootId::new(life), worker: WorkerId::new(worker) };
        Self { key, first: 1, ..Self::default() }
    }

    fn serve(&mut self, cluster: bool, latency_us: u16, outcome: u8) {
        let Some(counts) = self.truth.get_mut(usize::from(cluster)) else { return };
        let classes = Outcome::ALL.len();
        let Some(count) = counts.outcomes.get_mut(usize::from(outcome) % classes) else { return };
        *count = count.saturating_add(1);
        counts.started = counts.started.saturating_add(1);
        counts.finished = counts.finished.saturating_add(1);
        counts.latency.record(latency_us.into());
        counts.latency_sum_us = counts.latency_sum_us.saturating_add(latency_us.into());
    }

    /// Only what changed since the durable mark.
    fn report(&mut self, place: usize, epoch: Epoch) -> Sent {
        self.sequence = self.sequence.saturating_add(1);
        if self.sent.is_empty() || self.sends_all {
            self.sent = vec![(0, Default::default())];
        }
        self.sends_all = false;
        let (since, durable) = self.sent.first().cloned().unwrap_or_default();
        self.sent.push((self.sequence, self.truth.clone()));
        let entry = |(name, (now, durable)): (&&str, (&Counts, &Counts))| {
            let mut counts = now.clone();
            counts.latency = now.latency.iter().filter(|&(bin, count)| durable.latency.get(bin) != count).collect();
            let cluster = ClusterName::new(*name);
            Reported { cluster, stratum: Stratum::Judged, epoch, first_sequence: self.first, counts }
        };
        let entries = CLUSTERS.iter().zip(self.truth.iter().zip(&durable)).map(entry).collect();
        Sent { worker: place, key: self.key, sequence: self.sequence, since, entries }
    }

    fn answered(&mut self, (durable, incomplete): (u64, bool)) {
        self.sends_all |= incomplete;
        self.sent.retain(|&(sequence, _)| sequence >= durable);
    }

    fn begin_epoch(&mut self) {
        self.truth = Default::default();
        self.sent.iter_mut().for_each(|(_, counts)| *counts = Default::default());
        self.first = self.sequence.saturating_add(1);
    }
}

impl Plane {
    fn new() -> Self {
        let epoch = Epoch::new(1);
        let mut ledger = Ledger::new();
        ledger.open(epoch, Trust::Complete);
        Self { ledger, totals: Default::default(), disk: Disk::default(), epoch, now: Timestamp::EPOCH }
    }

    /// Takes a report, as the engine does: what is of no rollout in progress is left out. Returns the durable mark, and
    /// whether all is to be sent again.
    fn take(&mut self, sent: &Sent) -> (u64, bool) {
        let node = NodeId::new("a");
        let entries: Vec<Reported> =
            sent.entries.iter().filter(|entry| self.ledger.is_open(entry.epoch)).cloned().collect();
        let Sent { key, sequence, since, .. } = *sent;
        let report = Report { source: "a", node: &node, key, sequence, since, entries: &entries };
        let ingested = match self.ledger.ingest(&report, self.now) {
            Ok(ingested) => ingested,
            Err(refused) => {
                assert_eq!(refused.to_string(), "", "an honest worker is refused");
                return (0, false);
            }
        };
        assert!(ingested.durable <= ingested.received, "durable is what was received: {ingested:?}");
        for delta in &ingested.deltas {
            assert_eq!(delta.epoch, self.epoch, "counts of one rollout are never another's");
            let place = CLUSTERS.iter().position(|name| *name == delta.cluster.as_str());
            if let Some(total) = place.and_then(|place| self.totals.get_mut(place)) {
                total.merge(&delta.counts);
            }
        }
        (ingested.durable, ingested.incomplete)
    }

    fn checkpoint(&mut self, reaches_disk: bool) {
        let checkpoint = self.ledger.checkpoint();
        if !reaches_disk {
            return;
        }
        for (key, worker) in &checkpoint.changed {
            let text = serde_json::to_string(worker).unwrap_or_default();
            let read: Option<Written> = serde_json::from_str(&text).ok();
            assert!(read.is_some(), "what is written down is read again");
            self.disk.workers.extend(read.map(|read| (*key, read)));
        }
        for key in &checkpoint.removed {
            self.disk.workers.remove(key);
        }
        self.disk.totals = self.totals.clone();
        self.disk.baselines = self.ledger.baselines();
        self.ledger.mark_durable(checkpoint.id);
    }

    fn crash(&mut self) {
        self.ledger = Ledger::restore(self.disk.workers.clone());
        let is_incomplete = self.disk.baselines.contains(&self.epoch);
        self.ledger.open(self.epoch, if is_incomplete { Trust::Baseline } else { Trust::Complete });
        self.ledger.retain_open();
        self.totals = self.disk.totals.clone();
    }

    fn next_epoch(&mut self) {
        self.ledger.close(self.epoch);
        self.epoch = Epoch::new(self.epoch.get().saturating_add(1));
        self.ledger.open(self.epoch, Trust::Complete);
        self.totals = Default::default();
        // The end of a rollout is stored before anything is done about it.
        self.checkpoint(true);
    }

    /// Nothing is counted twice, at any time.
    fn holds(&self, workers: &[Worker], dead: &[Counts; 2]) {
        for (total, truth) in self.totals.iter().zip(truth(workers, dead)) {
            assert!(total.started <= truth.started && total.finished <= truth.finished, "{total:?} of {truth:?}");
            let outcomes = total.outcomes.iter().zip(&truth.outcomes);
            assert!(outcomes.into_iter().all(|(total, truth)| total <= truth), "{total:?} of {truth:?}");
            assert!(total.latency.iter().all(|(bin, count)| count <= truth.latency.get(bin)), "{total:?} of {truth:?}");
        }
    }
}
