//! What workers sent ahead of their tick, until they report by it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::source::{EarlyReport, NodeGroup};
use crate::counts::Counts;
use crate::id::{Arm, BootId, CanaryName, WorkerId};
use crate::time::{Span, Timestamp};

/// So long after its tick was due, a worker that did not report by it has nothing to add, is gone, or reports at once again
/// and again: what it sent ahead is complete then. A regular report has so long for its way.
const AFTER_TICK: Span = Span::from_millis(100);

/// What waits, by worker. Each worker waits once, for a tick and a little, so that there is no more of it than workers
/// report in that time.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    workers: BTreeMap<(BootId, WorkerId), Waiting>,
    /// When each of them has waited long enough.
    due: BTreeSet<(Timestamp, (BootId, WorkerId))>,
}

#[derive(Debug, Clone)]
struct Waiting {
    due: Timestamp,
    shares: Vec<Share>,
}

/// Counts of one arm of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    pub(super) canary: CanaryName,
    #[serde(rename = "seat")]
    pub(super) node_group: NodeGroup,
    pub(super) arm: Arm,
    pub(super) counts: Counts,
}

/// What waits for one worker, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenHeld {
    boot: BootId,
    worker: WorkerId,
    due: Timestamp,
    shares: Vec<Share>,
}

impl Held {
    /// Holds what a worker sent ahead, with what it sent before.
    pub(super) fn add(
        &mut self,
        ahead: EarlyReport,
        canary: &CanaryName,
        node_group: NodeGroup,
        arm: Arm,
        counts: &Counts,
        arrived: Timestamp,
    ) {
        let waiting = self.workers.entry(ahead.worker).or_insert_with(|| {
            let due = arrived.plus(ahead.tick).plus(AFTER_TICK);
            self.due.insert((due, ahead.worker));
            Waiting { due, shares: Vec::new() }
        });
        let fits = |share: &&mut Share| share.arm == arm && share.canary == *canary;
        match waiting.shares.iter_mut().find(fits) {
            Some(share) => share.counts.merge(counts),
            None => waiting.shares.push(Share { canary: canary.clone(), node_group, arm, counts: counts.clone() }),
        }
    }

    /// Returns what a worker sent ahead, and forgets it.
    pub(super) fn take(&mut self, worker: (BootId, WorkerId)) -> Option<Vec<Share>> {
        let waiting = self.workers.remove(&worker)?;
        self.due.remove(&(waiting.due, worker));
        Some(waiting.shares)
    }

    /// Forgets what is of a canary.
    pub(super) fn forget(&mut self, canary: &CanaryName) {
        self.workers.values_mut().for_each(|waiting| waiting.shares.retain(|share| share.canary != *canary));
    }

    /// Returns what has waited long enough, with since when it has, and forgets it.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(Timestamp, Vec<Share>)> {
        let (due, worker) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        Some((due, self.take(worker)?))
    }

    /// Returns when the next one has.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn written(&self) -> Vec<WrittenHeld> {
        let written = |(&(boot, worker), waiting): (&(BootId, WorkerId), &Waiting)| WrittenHeld {
            boot,
            worker,
            due: waiting.due,
            shares: waiting.shares.clone(),
        };
        self.workers.iter().map(written).collect()
    }

    pub(super) fn restore(written: Vec<WrittenHeld>) -> Self {
        let mut held = Self::default();
        for WrittenHeld { boot, worker, due, shares } in written {
            held.due.insert((due, (boot, worker)));
            held.workers.insert((boot, worker), Waiting { due, shares });
        }
        held
    }
}
