//! What judges saw, on its way to a recording.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::id::{CanaryName, RolloutId};

use crate::recording::{JudgedWindow, RecordingLoss};

/// Windows that are held while nothing can be stored; more are handed out all the same.
const MAX_HELD_WINDOWS: usize = 4_096;

/// What judges saw. It is handed out once it is in evidence that was written down: a judge that goes on after a restart
/// has seen what its recording holds, and nothing twice.
#[derive(Debug, Default)]
pub(super) struct RecordingBuffer {
    pub(super) is_on: bool,
    held: Vec<JudgedWindow>,
    /// How many were handed out before those that are held.
    before: u64,
    released: Vec<JudgedWindow>,
    losses: BTreeMap<CanaryName, RecordingLoss>,
}

impl RecordingBuffer {
    /// Holds what a judge saw.
    pub(super) fn hold(&mut self, recorded: impl IntoIterator<Item = JudgedWindow>) {
        self.held.extend(recorded);
    }

    /// Returns how many were held so far.
    pub(super) fn mark(&self) -> u64 {
        self.before.saturating_add(u64::try_from(self.held.len()).unwrap_or(u64::MAX))
    }

    /// Hands out what was held when this was the mark.
    pub(super) fn release_to(&mut self, mark: u64) {
        let count = usize::try_from(mark.saturating_sub(self.before)).unwrap_or(usize::MAX).min(self.held.len());
        self.before = self.before.max(mark);
        self.released.extend(self.held.drain(..count));
    }

    /// Hands out what is held.
    pub(super) fn release(&mut self) {
        self.release_to(self.mark());
    }

    /// Hands out what is held if it is too much.
    pub(super) fn relieve(&mut self) {
        if self.held.len() > MAX_HELD_WINDOWS {
            self.release();
        }
    }

    /// Returns what was handed out, and forgets it.
    pub(super) fn take(&mut self) -> Vec<JudgedWindow> {
        std::mem::take(&mut self.released)
    }

    /// Takes what is missing now. Returns the canaries for which that changed, with the loss if it is the first one of its
    /// rollout.
    pub(super) fn take_changes(
        &mut self,
        losses: BTreeMap<CanaryName, RecordingLoss>,
    ) -> Vec<(CanaryName, Option<RecordingLoss>)> {
        let before = std::mem::replace(&mut self.losses, losses);
        let names: BTreeSet<&CanaryName> = before.keys().chain(self.losses.keys()).collect();
        let changed = names.into_iter().filter(|name| before.get(name) != self.losses.get(name));
        let first = |name: &CanaryName| {
            let loss = self.losses.get(name)?;
            let known = before.get(name).is_some_and(|before| before.rollout == loss.rollout);
            (!known).then(|| loss.clone())
        };
        changed.map(|name| (name.clone(), first(name))).collect()
    }

    /// Returns what is missing of a rollout.
    pub(super) fn loss(&self, name: &CanaryName, rollout: RolloutId) -> Option<&RecordingLoss> {
        self.losses.get(name).filter(|loss| loss.rollout == rollout)
    }
}
