//! What filters reported, written down together: the ledger, open windows, and what the judges have seen.

use wingbeat_core::analysis::ledger::{Worker, WorkerKey};
use wingbeat_core::analysis::window::{Batch, WrittenHeld};
use wingbeat_core::id::{CanaryName, Epoch};
use wingbeat_core::time::Timestamp;

use crate::engine::canary::Evidence;
use crate::engine::entries::{BASELINES_KEY, CLOCK_KEY, HELD_KEY, LEDGER_PREFIX, WINDOWS_KEY};
use crate::engine::persisted::{encode, evidence_key};
use crate::store::Write;

/// A checkpoint as of one moment. Whoever stores it encodes it: with many rollouts that takes longer than reports can be kept
/// waiting.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) now: Timestamp,
    /// What is obsolete first: of a canary whose next rollout is on already, there is evidence again.
    pub(super) first: Vec<Write>,
    pub(super) changed: Vec<(WorkerKey, Worker)>,
    pub(super) removed: Vec<WorkerKey>,
    pub(super) windows: Vec<(CanaryName, Batch)>,
    pub(super) baselines: Vec<Epoch>,
    pub(super) held: Vec<WrittenHeld>,
    pub(super) evidence: Vec<(CanaryName, Evidence)>,
}

impl Checkpoint {
    /// Returns what is written, in one transaction: what the ledger calls durable is in the evidence or in an open window, and
    /// nowhere else.
    pub(super) fn encode(self) -> Vec<Write> {
        let mut writes = self.first;
        for (key, worker) in &self.changed {
            writes.extend(encode(&format!("{LEDGER_PREFIX}{key}"), worker));
        }
        writes.extend(self.removed.iter().map(|key| Write::Delete(format!("{LEDGER_PREFIX}{key}"))));
        writes.extend(encode(WINDOWS_KEY, &self.windows));
        writes.extend(encode(CLOCK_KEY, &self.now));
        writes.extend(encode(BASELINES_KEY, &self.baselines));
        writes.extend(encode(HELD_KEY, &self.held));
        // Each is given back as soon as it is encoded: what is still shared when its canary changes is copied.
        for (name, evidence) in self.evidence {
            writes.extend(encode(&evidence_key(&name), &evidence));
        }
        writes
    }
}
