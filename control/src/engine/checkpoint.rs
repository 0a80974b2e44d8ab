//! What filters reported, written down together: the ledger, open windows, and what the judges have seen.

use wingbeat_core::analysis::ledger::{Worker, WorkerKey};
use wingbeat_core::analysis::window::{Batch, WrittenHeld};
use wingbeat_core::id::{CanaryName, Epoch};
use wingbeat_core::time::Timestamp;

use crate::engine::Engine;
use crate::engine::canary::{Canary, Evidence};
use crate::engine::commit::{Checkpointed, Purpose};
use crate::engine::entries::{BASELINES_KEY, CLOCK_KEY, HELD_KEY, LEDGER_PREFIX, WINDOWS_KEY};
use crate::engine::persisted::{encode, evidence_key};
use crate::store::Write;

/// A checkpoint as of one moment. With a thousand rollouts, to encode it takes longer than everything else that is done in a
/// second: whoever stores it does.
#[derive(Debug)]
pub(super) struct Checkpoint {
    now: Timestamp,
    /// What is obsolete first: of a canary whose next rollout is on already, there is evidence again.
    first: Vec<Write>,
    changed: Vec<(WorkerKey, Worker)>,
    removed: Vec<WorkerKey>,
    windows: Vec<(CanaryName, Batch)>,
    baselines: Vec<Epoch>,
    held: Vec<WrittenHeld>,
    evidence: Vec<(CanaryName, Evidence)>,
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
        for (name, evidence) in &self.evidence {
            writes.extend(encode(&evidence_key(name), evidence));
        }
        writes
    }
}

impl Engine {
    /// Hands in what was reported, unless an earlier one is under way or nothing can be stored.
    pub(super) fn checkpoint(&mut self, now: Timestamp) {
        let is_under_way = self.commits.has(|purpose| matches!(purpose, Purpose::Checkpoint(_)));
        if is_under_way || self.commits.refuse(now).is_some() {
            return;
        }
        self.ledger.expire(now);
        let ledger = self.ledger.checkpoint();
        self.last_checkpoint = now;
        let obsolete: Vec<String> = std::mem::take(&mut self.obsolete).into_iter().collect();
        let (of_dormant, unconfigured) = self.unconfigured.write();
        let evidence = |(name, canary): (&CanaryName, &Canary)| Some((name.clone(), canary.evidence()?));
        let checkpoint = Checkpoint {
            now,
            first: obsolete.iter().cloned().map(Write::Delete).chain(of_dormant).collect(),
            changed: ledger.changed,
            removed: ledger.removed,
            windows: self.windows.open(),
            baselines: self.ledger.baselines(),
            held: self.windows.held(),
            evidence: self.canaries.judged().filter_map(evidence).collect(),
        };
        // What cannot be written down, the filters keep.
        self.reported_since_checkpoint = false;
        self.records.relieve();
        let recorded = self.records.mark();
        let written = Checkpointed { ledger: ledger.id, obsolete, unconfigured, recorded };
        self.commits.put_checkpoint(Purpose::Checkpoint(Box::new(written)), checkpoint);
    }

    /// Notes that a checkpoint is stored.
    pub(super) fn checkpointed(&mut self, written: &Checkpointed) {
        self.unconfigured.written(&written.unconfigured);
        self.ledger.mark_durable(written.ledger);
        // Of workers that are not held any more, a checkpoint deletes so many.
        self.reported_since_checkpoint |= self.ledger.has_changes();
        self.records.release_to(written.recorded);
    }
}
