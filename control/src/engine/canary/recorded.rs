//! A canary as it is stored, and what is in force of what is written.

use std::collections::VecDeque;
use std::sync::Arc;

use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_core::id::{Epoch, Rev, RolloutId};
use wingbeat_core::rollout::{Effect, Phase, State};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::version::Version;

use crate::engine::adoption::adoption_in;
use crate::engine::canary::Canary;
use crate::engine::persisted::PersistedCanary;
use crate::engine::step_event::{MAX_STEP_EVENTS, StepEvent};
use crate::terms::Terms;

/// Command ids that are remembered, so that a repeated command acts once.
const MAX_COMMAND_IDS: usize = 256;

impl Canary {
    /// Returns the canary as it is stored.
    pub(in crate::engine) fn record(&self) -> PersistedCanary {
        self.record_of(self.state.clone(), self.commands.clone())
    }

    /// Returns the canary as it is stored in another state.
    pub(in crate::engine) fn record_of(&self, state: State, commands: VecDeque<String>) -> PersistedCanary {
        // A rollout that begins with this state begins under what is written.
        let goes_on = state.rollout == self.state.rollout;
        let terms = state.has_rollout().then(|| if goes_on { self.terms() } else { Terms::of(&self.written) });
        let first_rev = self.first_rev_in(&state);
        let adoption = adoption_in(self.adoption, &state);
        let secret = self.secret.clone();
        PersistedCanary { state, commands, secret, first_rev, terms, adoption, events: self.events.clone() }
    }

    /// Returns what is stored with a step that has this to tell, and what steps just before it had: where a cluster runs it, an event
    /// that is written again is the same object.
    pub(in crate::engine) fn step_events(
        &self,
        effects: &[Effect],
        rollout: RolloutId,
        now: Timestamp,
    ) -> Vec<StepEvent> {
        if self.observed.is_none() {
            return Vec::new();
        }
        let before = self.events.iter().filter(|event| event.is_recent(now)).cloned();
        let mut events: Vec<StepEvent> = before.chain(StepEvent::of(effects, rollout, now)).collect();
        events.drain(..events.len().saturating_sub(MAX_STEP_EVENTS));
        events
    }

    /// Returns what filters and ledger know the latest rollout by.
    pub(in crate::engine) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The secret is part of it: a canary whose state was lost begins to count its rollouts again, and these are others.
    pub(in crate::engine) fn made_epoch(&self) -> Epoch {
        let version = Version::of([b"epoch", self.secret.as_bytes(), &self.key().to_le_bytes()]);
        Epoch::new(version.get().max(1))
    }

    /// Returns the rev of the first routes of the latest rollout, once the canary is in this state.
    pub(in crate::engine) fn first_rev_in(&self, next: &State) -> Rev {
        let begins = next.rollout != self.state.rollout || !self.is_counted();
        let is_counted = matches!(next.phase, Phase::Progressing(_) | Phase::Promoting(_));
        if begins && is_counted { next.rev } else { self.first_rev }
    }

    /// Takes over what is written now. While a rollout is on, a part of it waits for the next one. Returns the fields
    /// that began to wait.
    pub(in crate::engine) fn rewrite(&mut self, written: Arc<CanaryConfig>) -> Vec<&'static str> {
        let before = std::mem::take(&mut self.waiting);
        self.written = written;
        if self.state.has_rollout() {
            let (config, waiting) = self.terms().amend(&self.written);
            (self.config, self.waiting) = (Arc::new(config), waiting);
        } else {
            self.begin_terms();
        }
        self.waiting.iter().filter(|field| !before.contains(field)).copied().collect()
    }

    /// What is written is in force from now on.
    pub(super) fn begin_terms(&mut self) {
        self.config = self.written.clone();
        self.waiting.clear();
    }

    /// Returns what the rollout keeps of what was written when it began: what is in force has it.
    fn terms(&self) -> Terms {
        Terms::of(&self.config)
    }

    /// Returns true if a command of this id was carried out.
    pub(in crate::engine) fn knows(&self, id: &str) -> bool {
        self.commands.iter().any(|known| known == id)
    }

    /// Returns the ids of commands with one more.
    pub(in crate::engine) fn commands_with(&self, id: &str) -> VecDeque<String> {
        let mut commands = self.commands.clone();
        while commands.len() >= MAX_COMMAND_IDS {
            commands.pop_front();
        }
        commands.push_back(id.to_owned());
        commands
    }
}
