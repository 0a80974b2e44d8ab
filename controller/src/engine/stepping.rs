//! Steps of a canary: stored first, then adopted, then told.

use std::collections::VecDeque;

use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Effect, Event, safety, step};
use wingbeat_core::time::Timestamp;

use crate::engine::record::{entry, evidence_key};
use crate::engine::{Alerted, Engine};
use crate::store::{StoreError, Write};

impl Engine {
    /// Takes one canary a step further. Returns why, if a command was refused.
    pub(super) fn feed(&mut self, name: &CanaryName, event: &Event, now: Timestamp) -> Option<String> {
        self.feed_with(name, event, None, now)
    }

    pub(super) fn feed_with(
        &mut self,
        name: &CanaryName,
        event: &Event,
        commands: Option<VecDeque<String>>,
        now: Timestamp,
    ) -> Option<String> {
        let canary = self.roster.get(name).filter(|canary| !canary.is_held_from(event))?;
        let stepped = step(&canary.managed.plan, &canary.state, event, now);
        if stepped.state != canary.state {
            let abort = safety::may_abort_unstored(&canary.state, &stepped.state);
            let end = canary.end_by(&stepped.state, now);
            let reroutes = stepped.state.rev != canary.state.rev;
            let was_judged = canary.is_judged();
            let has_ended = canary.state.has_rollout() && !stepped.state.has_rollout();
            let before = canary.is_counted().then(|| canary.epoch());
            let commands = commands.unwrap_or_else(|| canary.commands.clone());
            let record = canary.record_of(stepped.state, commands);
            let adopts = record.adoption != canary.adoption;
            // An abort is served at once, and stored by a later tick: a disk may hang.
            if !abort && let Err(error) = entry(name, &record).and_then(|entry| self.store(&[entry], now)) {
                // What cannot be written down is not begun.
                return Some(error.to_string());
            }
            self.routes_changed |= reroutes || adopts;
            if let (Some(end), Some(canary)) = (end, self.roster.get(name)) {
                self.rollouts.ended(&canary.managed.plan, end);
            }
            self.roster.change(name, |canary| {
                canary.unstored = abort;
                canary.commands = record.commands;
                canary.first_rev = record.first_rev;
                canary.adoption = record.adoption;
                canary.adopt(record.state, now);
            });
            self.follow_epoch(name, before);
            if has_ended {
                self.keep_chart(name);
            }
            if was_judged && self.roster.get(name).is_some_and(|canary| !canary.is_judged()) {
                // No evidence is kept of a rollout that is over.
                self.records.release();
                self.obsolete.insert(evidence_key(name));
            }
            self.touched(name);
            self.policy_is_stale = true;
        }
        let mut refused = None;
        for effect in stepped.effects {
            match effect {
                Effect::Emit(severity, text) => self.say(name, severity, text, now),
                Effect::Alert(alert) => self.alerts.push(Alerted { canary: name.clone(), alert }),
                Effect::Refuse(why) => refused = Some(why),
            }
        }
        refused
    }

    /// Stores changes. Where that has just failed it is not tried again in the same tick: each attempt takes its time,
    /// and there may be thousands of canaries.
    pub(super) fn store(&mut self, writes: &[Write], now: Timestamp) -> Result<(), StoreError> {
        if let Some((failed, error)) = &self.store_failed
            && *failed == now
        {
            return Err(error.clone());
        }
        let stored = match &self.unstored_lineage {
            Some(lineage) => self.store.commit(&[std::slice::from_ref(lineage), writes].concat()),
            None => self.store.commit(writes),
        };
        if stored.is_ok() {
            self.unstored_lineage = None;
        }
        let failed = stored.as_ref().err().map(|error| (now, error.clone()));
        if failed.is_some() != self.store_failed.is_some() {
            if let Some((_, error)) = &failed {
                tracing::error!(%error, "nothing can be stored: no step is begun, aborts are served");
            } else {
                tracing::warn!("states can be stored again");
            }
            self.views.all_are_stale();
        }
        self.store_failed = failed;
        stored
    }
}
