//! What is held of one worker.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::limits::MAX_ENTRIES;
use super::refused::Refused;
use super::report::{Report, Reported, Trust};
use crate::counts::{Cohorts, Counts, MAX_PODS_OF_WORKER};
use crate::id::{ClusterName, Epoch, NodeId};
use crate::outcome::Stratum;
use crate::time::Timestamp;

/// Bytes of a bin of a histogram, about.
const BYTES_OF_BIN: usize = 16;

/// Bytes of what is counted of a pod beside its address, about.
const BYTES_OF_POD: usize = 96;

/// What is known of one worker, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub(super) node: NodeId,
    /// Who it is authenticated as, or where it connects from.
    pub(super) source: String,
    /// The highest sequence received.
    pub(super) received: u64,
    pub(super) last_report: Timestamp,
    entries: Vec<Entry>,
    /// The highest sequence that is written down. Of a worker that was read again, everything is.
    #[serde(skip)]
    pub(super) durable: u64,
    /// The ledger's latest change of it.
    #[serde(skip)]
    pub(super) changed: u64,
    /// The latest change of it that is written down; nothing where there is no record of it.
    #[serde(skip)]
    pub(super) written: Option<u64>,
    /// What its counts take, about.
    #[serde(skip)]
    pub(super) bytes: usize,
}

/// What is held of one cluster, stratum and epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    cluster: ClusterName,
    stratum: Stratum,
    epoch: Epoch,
    /// The worker counts from zero again with a higher one.
    first_sequence: u64,
    counts: Counts,
}

impl Worker {
    pub(super) fn new(report: &Report<'_>, now: Timestamp) -> Self {
        Self {
            node: report.node.clone(),
            source: report.source.into(),
            received: 0,
            last_report: now,
            entries: Vec::new(),
            durable: 0,
            changed: 0,
            written: None,
            bytes: 0,
        }
    }

    pub(super) fn check(&self, report: &Report<'_>) -> Result<(), Refused> {
        if self.node != *report.node {
            return Err(Refused::OtherNode { owner: self.node.clone() });
        }
        let mut count = self.entries.len();
        for reported in report.entries {
            match self.entry(reported) {
                Some(held) if report.sequence > self.received && held.fell(reported) => {
                    return Err(Refused::Backwards {
                        cluster: reported.cluster.clone(),
                        before: held.counts.started,
                        now: reported.counts.started,
                    });
                }
                Some(held) => held.check_pods(reported)?,
                None => count += 1,
            }
        }
        if count > MAX_ENTRIES {
            return Err(Refused::TooManyEntries { count });
        }
        Ok(())
    }

    /// Returns true if something of this entry may have been said in a report that was acknowledged and is not held:
    /// this report leaves out what did not change since.
    pub(super) fn lacks(&self, report: &Report<'_>, reported: &Reported) -> bool {
        reported.first_sequence <= report.since
            && self.entry(reported).is_none_or(|held| held.first_sequence < reported.first_sequence)
    }

    /// Returns what was not known before, if anything.
    pub(super) fn take_in(&mut self, sequence: u64, reported: &Reported, trust: Trust, change: u64) -> Option<Counts> {
        let Reported { cluster, stratum, epoch, first_sequence, counts } = reported;
        let Some(held) = self.entries.iter_mut().find(|held| held.is_of(reported)) else {
            self.entries.push(Entry {
                cluster: cluster.clone(),
                stratum: *stratum,
                epoch: *epoch,
                first_sequence: *first_sequence,
                counts: counts.clone(),
            });
            self.changed = change;
            let is_baseline = trust == Trust::Baseline && sequence > *first_sequence;
            return (!is_baseline).then(|| counts.clone());
        };
        match first_sequence.cmp(&held.first_sequence) {
            Ordering::Less => None,
            Ordering::Greater => {
                (held.first_sequence, held.counts) = (*first_sequence, counts.clone());
                self.changed = change;
                Some(counts.clone())
            }
            Ordering::Equal => {
                let before = held.counts.clone();
                held.counts.max_merge(counts);
                if held.counts == before {
                    return None;
                }
                self.changed = change;
                Some(held.counts.since(&before))
            }
        }
    }

    /// Forgets what is held of an epoch. Returns true if anything was.
    pub(super) fn close(&mut self, epoch: Epoch) -> bool {
        let before = self.entries.len();
        self.entries.retain(|held| held.epoch != epoch);
        self.entries.len() != before
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the epochs of which something is held.
    pub(super) fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.entries.iter().map(|held| held.epoch)
    }

    /// Returns the highest sequence up to which nothing has to be sent again.
    pub(super) fn acknowledged(&self) -> u64 {
        if self.has_changes() { self.durable } else { self.received }
    }

    /// Returns true if something of it is not written down.
    pub(super) fn has_changes(&self) -> bool {
        self.written.is_none_or(|written| self.changed > written)
    }

    /// Reckons anew what its counts take. Returns what they took before, and what they take.
    pub(super) fn resize(&mut self) -> (usize, usize) {
        let bytes = self.entries.iter().map(Entry::bytes).sum();
        (core::mem::replace(&mut self.bytes, bytes), bytes)
    }

    fn entry(&self, reported: &Reported) -> Option<&Entry> {
        self.entries.iter().find(|held| held.is_of(reported))
    }
}

impl Entry {
    fn is_of(&self, reported: &Reported) -> bool {
        self.epoch == reported.epoch && self.stratum == reported.stratum && self.cluster == reported.cluster
    }

    /// Refuses more pods than a worker tells apart: in cumulative counts, none of them ever goes.
    fn check_pods(&self, reported: &Reported) -> Result<(), Refused> {
        if reported.first_sequence != self.first_sequence {
            return Ok(());
        }
        let new = reported.counts.pods.keys().filter(|pod| !self.counts.pods.contains_key(*pod)).count();
        let count = self.counts.pods.len().saturating_add(new);
        if new > 0 && count > MAX_PODS_OF_WORKER {
            return Err(Refused::TooManyPods { cluster: self.cluster.clone(), count });
        }
        Ok(())
    }

    /// Returns about how many bytes it takes.
    fn bytes(&self) -> usize {
        let bins = self.counts.latency.bins().saturating_add(self.counts.cohorts.latency.bins());
        let pods: usize = self.counts.pods.keys().map(|pod| pod.len().saturating_add(BYTES_OF_POD)).sum();
        size_of::<Self>().saturating_add(bins.saturating_mul(BYTES_OF_BIN)).saturating_add(pods)
    }

    /// Returns true if a count that only ever rises is lower than it was.
    fn fell(&self, reported: &Reported) -> bool {
        if reported.first_sequence != self.first_sequence {
            return false;
        }
        let (before, now) = (&self.counts, &reported.counts);
        now.started < before.started
            || now.finished < before.finished
            || now.overdue < before.overdue
            || now.streams < before.streams
            || now.sized < before.sized
            || now.uncounted < before.uncounted
            || cohorts_fell(&before.cohorts, &now.cohorts)
            || now.outcomes.iter().zip(before.outcomes).any(|(&now, before)| now < before)
    }
}

fn cohorts_fell(before: &Cohorts, now: &Cohorts) -> bool {
    match now.rev.cmp(&before.rev) {
        Ordering::Less => true,
        Ordering::Equal => now.finished < before.finished || now.errors < before.errors || now.overdue < before.overdue,
        // At a new rev they start again.
        Ordering::Greater => false,
    }
}
