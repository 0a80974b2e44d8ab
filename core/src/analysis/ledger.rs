//! Exactly-once bookkeeping of what workers report.
//!
//! Reports are cumulative per worker, cluster, stratum and [`Epoch`], so the ledger keeps the highest count seen of
//! everything and hands on differences. A report that is lost, repeated or late then costs nothing; a restart costs what
//! came in since the last checkpoint, and workers send that again until it is durable.
//!
//! An epoch is one rollout. Only epochs that are open are taken in, and closing one forgets all that is held of it: the
//! counts of one rollout are never charged to another, and what is held is bounded by the workers that carry traffic
//! of rollouts in progress. Where entries of an open epoch were lost or given up, the first complete report of a worker
//! that may have been counted before is a *baseline*: it sets the counts and adds nothing.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::counts::Counts;
use crate::id::{ClusterName, Epoch, NodeId};
use crate::outcome::Stratum;
use crate::time::{Span, Timestamp};

pub use limits::{
    EXPIRE_AFTER, MAX_BYTES, MAX_BYTES_OF_SOURCE, MAX_ENTRIES, MAX_REMOVED, MAX_SOURCES, MAX_WORKERS,
    MAX_WORKERS_OF_SOURCE,
};
pub use refused::Refused;
pub use report::{Report, Reported, Trust};
pub use worker::Worker;
pub use worker_key::WorkerKey;

mod limits;
mod refused;
mod report;
mod worker;
mod worker_key;

/// Checkpoints that may be under way to the disk at once.
const MAX_PENDING: usize = 8;

/// Takes reports in and tells apart what is new.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    epochs: BTreeMap<Epoch, Trust>,
    workers: BTreeMap<WorkerKey, Worker>,
    sources: BTreeMap<String, Source>,
    /// What the counts of all sources take.
    bytes: usize,
    /// Counts the changes of workers, so that a checkpoint knows which ones it contains.
    changes: u64,
    /// Workers that were written down and are not held any more: no more than are on disk.
    removed: BTreeSet<WorkerKey>,
    last_checkpoint: u64,
    pending: VecDeque<Pending>,
}

/// What is held of one source.
#[derive(Debug, Clone, Default)]
struct Source {
    /// Its workers in the order of their last reports.
    order: BTreeSet<(Timestamp, WorkerKey)>,
    /// What their counts take.
    bytes: usize,
}

/// A checkpoint that is not known to be on disk.
#[derive(Debug, Clone)]
struct Pending {
    id: u64,
    /// The highest sequence and the latest change of each worker that it contains.
    contained: Vec<(WorkerKey, u64, u64)>,
    removed: Vec<WorkerKey>,
}

/// What one report added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// What was not known before. Empty for repeated and late reports.
    pub deltas: Vec<Delta>,
    /// The highest sequence received of this worker.
    pub received: u64,
    /// The highest one whose contents need not be sent again.
    pub durable: u64,
    /// True if nothing was taken in, since the report leaves out what is not held here: the worker has to send all
    /// that it has.
    pub incomplete: bool,
}

/// New requests of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The cluster that they went to.
    pub cluster: ClusterName,
    /// Where they came from.
    pub stratum: Stratum,
    /// The rollout that they belong to.
    pub epoch: Epoch,
    /// The Envoy that sent them.
    pub node: NodeId,
    /// How many, and how they ended.
    pub counts: Counts,
}

/// What changed in the ledger since what is known to be written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of the checkpoint, for [`Ledger::mark_durable`].
    pub id: u64,
    /// Workers as they are now.
    pub changed: Vec<(WorkerKey, Worker)>,
    /// Workers whose record is to be deleted, up to [`MAX_REMOVED`] of them.
    pub removed: Vec<WorkerKey>,
}

impl Ledger {
    /// Returns a ledger that knows no one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the ledger as it was written down. No epoch is open yet: what is held of one that is not opened by
    /// [`Ledger::retain_open`] is forgotten.
    pub fn restore(workers: impl IntoIterator<Item = (WorkerKey, Worker)>) -> Self {
        let mut ledger = Self::default();
        for (key, mut worker) in workers {
            (worker.durable, worker.written) = (worker.received, Some(worker.changed));
            let source = ledger.sources.entry(worker.source.clone()).or_default();
            source.order.insert((worker.last_report, key));
            let (_, bytes) = worker.resize();
            source.bytes = source.bytes.saturating_add(bytes);
            ledger.bytes = ledger.bytes.saturating_add(bytes);
            ledger.workers.insert(key, worker);
        }
        ledger
    }

    /// Takes in an epoch from now on. One that is open stays as it is.
    pub fn open(&mut self, epoch: Epoch, trust: Trust) {
        self.epochs.entry(epoch).or_insert(trust);
    }

    /// Returns true if an epoch is taken in.
    pub fn is_open(&self, epoch: Epoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// Forgets an epoch and all that is held of it.
    pub fn close(&mut self, epoch: Epoch) {
        if self.epochs.remove(&epoch).is_some() {
            self.forget(epoch);
        }
    }

    /// Forgets what is held of epochs that are not open.
    pub fn retain_open(&mut self) {
        let held: BTreeSet<Epoch> = self.workers.values().flat_map(Worker::epochs).collect();
        for epoch in held {
            if !self.is_open(epoch) {
                self.forget(epoch);
            }
        }
    }

    /// Takes in a report: all of it, or nothing if any part is refused. Entries of epochs that are not open are left
    /// out by the caller.
    ///
    /// A jump is never refused for its size: a worker that could not reach the control plane for an hour has an hour to
    /// tell.
    pub fn ingest(&mut self, report: &Report<'_>, now: Timestamp) -> Result<Ingested, Refused> {
        check_report(report.entries)?;
        match self.workers.get(&report.key) {
            Some(known) => known.check(report)?,
            // Of who carries no traffic of a rollout nothing is held, and nothing has to be sent again.
            None if report.entries.is_empty() => {
                return Ok(Ingested { received: report.sequence, durable: report.sequence, ..Ingested::default() });
            }
            None => {}
        }
        let known = self.workers.get(&report.key);
        let lacks =
            |reported| known.map_or_else(|| reported_before(report, reported), |known| known.lacks(report, reported));
        if report.entries.iter().any(lacks) {
            let received = known.map_or(0, |known| known.received);
            return Ok(Ingested { received, incomplete: true, ..Ingested::default() });
        }
        let is_known = known.is_some();
        if !is_known {
            self.make_room(report.source, now)?;
        }
        let worker = self.workers.entry(report.key).or_insert_with(|| Worker::new(report, now));
        if !is_known && self.removed.remove(&report.key) {
            // Its record is still there.
            worker.written = Some(worker.changed);
        }
        worker.received = worker.received.max(report.sequence);
        let before = worker.last_report;
        worker.last_report = before.max(now);
        let source = self.sources.entry(worker.source.clone()).or_default();
        source.order.remove(&(before, report.key));
        source.order.insert((worker.last_report, report.key));
        let mut deltas = Vec::new();
        self.changes = self.changes.saturating_add(1);
        for reported in report.entries {
            let trust = self.epochs.get(&reported.epoch).copied().unwrap_or(Trust::Baseline);
            if let Some(counts) = worker.take_in(report.sequence, reported, trust, self.changes) {
                let Reported { cluster, stratum, epoch, .. } = reported.clone();
                deltas.push(Delta { cluster, stratum, epoch, node: report.node.clone(), counts });
            }
        }
        let (before, bytes) = worker.resize();
        source.bytes = source.bytes.saturating_sub(before).saturating_add(bytes);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(bytes);
        let ingested =
            Ingested { deltas, received: worker.received, durable: worker.acknowledged(), incomplete: false };
        if source.bytes > MAX_BYTES_OF_SOURCE || self.bytes > MAX_BYTES {
            let source = worker.source.clone();
            self.keep_to_the_bytes(&source, report.key);
        }
        Ok(ingested)
    }

    /// Gives up workers that are silent for longer than [`EXPIRE_AFTER`].
    pub fn expire(&mut self, now: Timestamp) {
        let silent: Vec<WorkerKey> = self
            .sources
            .values()
            .flat_map(|source| source.order.iter().take_while(|(last, _)| now.since(*last) > EXPIRE_AFTER))
            .map(|(_, key)| *key)
            .collect();
        silent.into_iter().for_each(|key| self.give_up(key));
    }

    /// Returns what is to be written down. Call [`Ledger::mark_durable`] with its number when it is on disk; what is
    /// never confirmed is in the next one again.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.last_checkpoint = self.last_checkpoint.saturating_add(1);
        let changed = self.workers.iter().filter(|(_, worker)| worker.has_changes());
        let changed: Vec<(WorkerKey, Worker)> = changed.map(|(key, worker)| (*key, worker.clone())).collect();
        let removed: Vec<WorkerKey> = self.removed.iter().take(MAX_REMOVED).copied().collect();
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            id: self.last_checkpoint,
            contained: changed.iter().map(|(key, worker)| (*key, worker.received, worker.changed)).collect(),
            removed: removed.clone(),
        });
        Checkpoint { id: self.last_checkpoint, changed, removed }
    }

    /// Notes that a checkpoint is on disk: what it contains need not be sent again.
    pub fn mark_durable(&mut self, checkpoint: u64) {
        let Some(place) = self.pending.iter().position(|pending| pending.id == checkpoint) else { return };
        // Those before it were overtaken.
        let Some(pending) = self.pending.drain(..=place).next_back() else { return };
        for (key, sequence, changed) in pending.contained {
            if let Some(worker) = self.workers.get_mut(&key) {
                worker.durable = worker.durable.max(sequence);
                worker.written = worker.written.max(Some(changed));
            } else {
                self.removed.insert(key);
            }
        }
        for key in pending.removed {
            self.removed.remove(&key);
        }
    }

    /// Returns true if there is something to be written down.
    pub fn has_changes(&self) -> bool {
        !self.removed.is_empty() || self.workers.values().any(Worker::has_changes)
    }

    /// Returns the open epochs of which not everything is held any more, to be written down with a checkpoint.
    pub fn baselines(&self) -> Vec<Epoch> {
        let incomplete = self.epochs.iter().filter(|(_, trust)| **trust == Trust::Baseline);
        incomplete.map(|(epoch, _)| *epoch).collect()
    }

    /// Returns how many workers are held.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns how many sources have counted something in an epoch and reported at most `span` before the latest that did.
    /// Looks at every worker.
    pub fn sources_in(&self, epoch: Epoch, span: Span) -> usize {
        let active = self.active(span);
        let workers = self.workers.iter().filter(|(key, _)| active.contains(key)).map(|(_, worker)| worker);
        let sources = workers.filter(|worker| worker.epochs().any(|its| its == epoch));
        sources.map(|worker| worker.source.as_str()).collect::<BTreeSet<&str>>().len()
    }

    /// Returns the workers that reported at most `span` before the latest that did.
    pub fn active(&self, span: Span) -> BTreeSet<WorkerKey> {
        let latest = self.workers.values().map(|worker| worker.last_report).max().unwrap_or_default();
        let active = self.workers.iter().filter(|(_, worker)| latest.since(worker.last_report) <= span);
        active.map(|(key, _)| *key).collect()
    }

    /// Makes room for one more worker of `source`: at its own cost where it has many, else at that of the source with
    /// the most of them.
    fn make_room(&mut self, source: &str, now: Timestamp) -> Result<(), Refused> {
        self.expire_if_full(now);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(source) {
            return Err(Refused::Full);
        }
        let own = self.sources.get(source).map_or(0, |source| source.order.len());
        let payer = if own >= MAX_WORKERS_OF_SOURCE {
            self.sources.get(source)
        } else if self.workers.len() >= MAX_WORKERS {
            self.sources.values().max_by_key(|source| source.order.len())
        } else {
            return Ok(());
        };
        let (_, key) = payer.and_then(|source| source.order.first()).copied().ok_or(Refused::Full)?;
        self.give_up(key);
        Ok(())
    }

    /// Gives workers up until what the source of this worker holds, and what all hold, is within its bound. The worker, which
    /// has just reported, stays.
    fn keep_to_the_bytes(&mut self, source: &str, reporter: WorkerKey) {
        loop {
            let own = self.sources.get(source).filter(|source| source.bytes > MAX_BYTES_OF_SOURCE);
            let all = || self.sources.values().max_by_key(|source| source.bytes).filter(|_| self.bytes > MAX_BYTES);
            let Some(payer) = own.or_else(all) else { return };
            let other = payer.order.iter().map(|(_, key)| *key).find(|key| *key != reporter);
            let Some(other) = other else { return };
            self.give_up(other);
        }
    }

    fn expire_if_full(&mut self, now: Timestamp) {
        if self.sources.len() >= MAX_SOURCES || self.workers.len() >= MAX_WORKERS {
            self.expire(now);
        }
    }

    /// Forgets a worker. Who is not held may have been counted before from now on, in all epochs that it had part in.
    fn give_up(&mut self, key: WorkerKey) {
        let Some(worker) = self.remove(key) else { return };
        for epoch in worker.epochs() {
            if let Some(trust) = self.epochs.get_mut(&epoch) {
                *trust = Trust::Baseline;
            }
        }
    }

    fn remove(&mut self, key: WorkerKey) -> Option<Worker> {
        let worker = self.workers.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(worker.bytes);
        if let Some(source) = self.sources.get_mut(&worker.source) {
            source.order.remove(&(worker.last_report, key));
            source.bytes = source.bytes.saturating_sub(worker.bytes);
            if source.order.is_empty() {
                self.sources.remove(&worker.source);
            }
        }
        if worker.written.is_some() {
            self.removed.insert(key);
        }
        Some(worker)
    }

    fn forget(&mut self, epoch: Epoch) {
        let mut empty = Vec::new();
        self.changes = self.changes.saturating_add(1);
        for (key, worker) in &mut self.workers {
            if worker.close(epoch) {
                // To be written down without it.
                worker.changed = self.changes;
                let (before, bytes) = worker.resize();
                self.bytes = self.bytes.saturating_sub(before).saturating_add(bytes);
                if let Some(source) = self.sources.get_mut(&worker.source) {
                    source.bytes = source.bytes.saturating_sub(before).saturating_add(bytes);
                }
                if worker.is_empty() {
                    empty.push(*key);
                }
            }
        }
        for key in empty {
            self.remove(key);
        }
    }
}

/// Returns true if something of this entry may have been said in a report that was acknowledged.
const fn reported_before(report: &Report<'_>, reported: &Reported) -> bool {
    reported.first_sequence <= report.since
}

/// Checks what needs no knowledge of earlier reports.
fn check_report(entries: &[Reported]) -> Result<(), Refused> {
    if entries.len() > MAX_ENTRIES {
        return Err(Refused::TooManyEntries { count: entries.len() });
    }
    let mut seen = BTreeSet::new();
    for Reported { cluster, stratum, epoch, counts, .. } in entries {
        if !seen.insert((cluster, stratum, epoch)) {
            return Err(Refused::Twice { cluster: cluster.clone() });
        }
        counts.check().map_err(|absurd| Refused::Absurd { cluster: cluster.clone(), absurd })?;
    }
    Ok(())
}
