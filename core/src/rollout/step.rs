//! The step from one state to the next. Total: no event in no state is a surprise.

use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Alert, AlertLevel, Command, Effect, Event, Severity};
use super::messages;
use super::plan::{HookKind, Plan};
use super::project::project;
use super::recovery::may_abort_unstored;
use super::state::{Cause, Ended, Phase, State};
use crate::id::Revision;
use crate::time::Timestamp;

mod answer;
mod begin;
mod command;
mod progress;
mod promotion;
mod refusal;

/// What an event does to a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// To be stored before anything else is done.
    pub state: State,
    /// To be done then, in this order.
    pub effects: Vec<Effect>,
}

/// Takes an event. An event that changes nothing returns the same state and no effects.
pub fn step(plan: &Plan, state: &State, event: &Event, now: Timestamp) -> Transition {
    let mut taken = TransitionBuilder { plan, now, state: state.clone(), effects: Vec::new() };
    match event {
        Event::Revision(revision) => taken.revision(revision),
        Event::Tick(facts) => taken.tick(facts),
        Event::Command(command) => taken.command(*command),
        Event::Answer(ticket, answer) => taken.answer(ticket, answer),
        // What is further ahead is no abort of ours, and a peer may make it up.
        Event::RevObserved(rev) if state.is_unstored_abort(*rev) => taken.later_rev(),
        Event::RevObserved(_) => {}
    }
    let TransitionBuilder { state: mut next, effects, .. } = taken;
    if !project(&next).serves_as(&project(state)) {
        next.rev = match event {
            // Proxies have these routes already.
            Event::RevObserved(seen) if *seen > state.rev => *seen,
            Event::Revision(_) | Event::Tick(_) | Event::Command(_) | Event::Answer(..) | Event::RevObserved(_) => {
                state.next_rev(may_abort_unstored(state, &next))
            }
        };
    }
    if next.rollout != state.rollout || !matches!(next.phase, Phase::Progressing(_) | Phase::Promoting(_)) {
        next.resumed = None;
    }
    if next.phase.as_str() != state.phase.as_str() || next.rev != state.rev {
        next.changed = now;
    }
    Transition { state: next, effects }
}

/// A transition that is being made.
struct TransitionBuilder<'a> {
    plan: &'a Plan,
    now: Timestamp,
    state: State,
    effects: Vec<Effect>,
}

impl TransitionBuilder<'_> {
    fn normal(&mut self, text: impl Into<String>) {
        self.effects.push(Effect::Emit(Severity::Normal, text.into()));
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.effects.push(Effect::Emit(Severity::Warning, text.into()));
    }

    fn alert(&mut self, level: AlertLevel, text: impl Into<String>) {
        self.effects.push(Effect::Alert(Alert { level, text: text.into(), described: false }));
    }

    fn described_alert(&mut self, level: AlertLevel, text: impl Into<String>) {
        self.effects.push(Effect::Alert(Alert { level, text: text.into(), described: true }));
    }

    fn refuse(&mut self, why: String) {
        self.effects.push(Effect::Refuse(why));
    }

    /// Ends the rollout in favour of the revision that served before.
    fn fail(&mut self, reason: &str, level: AlertLevel, alert: impl Into<String>) {
        let (plan, Some(primary), Some(canary)) =
            (self.plan, self.state.primary().cloned(), self.state.canary().cloned())
        else {
            return;
        };
        self.warning(messages::rolling_back(plan, reason));
        self.alert(level, alert);
        self.warning(messages::failed(plan));
        self.failed(primary, canary, reason, false);
    }

    /// Ends the rollout of a revision that the workload does not ask for any more: it asks for its primary.
    fn taken_back(&mut self) {
        let (plan, Some(primary), Some(canary)) =
            (self.plan, self.state.primary().cloned(), self.state.canary().cloned())
        else {
            return;
        };
        let reason = messages::taken_back(&primary);
        self.warning(messages::rolling_back(plan, &reason));
        self.alert(AlertLevel::Warn, messages::taken_back_alert(&primary));
        self.warning(messages::withdrawn(plan));
        self.failed(primary.clone(), canary, &reason, false);
        if let Phase::Failed { seen, cause, .. } = &mut self.state.phase {
            (*seen, *cause) = (primary, Cause::TakenBack);
        }
    }

    fn failed(&mut self, primary: Revision, canary: Revision, reason: &str, on_canary: bool) {
        self.state.phase = Phase::Failed {
            seen: canary.clone(),
            failed_checks: self.state.failed_checks(),
            attempt: self.state.attempt(),
            primary,
            canary,
            reason: reason.into(),
            cause: Cause::RolledBack,
            on_canary,
            ended: self.ended(),
        };
    }

    /// What is left to do at the end of a rollout.
    fn ended(&self) -> Ended {
        self.plan.hooks(HookKind::PostRollout).next().map_or(Ended::Quiet, |_| Ended::Asking(0))
    }

    /// An abort is served before it is stored; one that was not stored in time is found in what the proxies serve.
    fn later_rev(&mut self) {
        match &mut self.state.phase {
            // Half replaced, the revision that served before cannot take anything back. The rev stays the abort's all the same.
            Phase::Promoting(promotion) if !promotion.intact => {
                // Told once.
                if self.state.resumed.is_some() && !core::mem::replace(&mut promotion.late_abort, true) {
                    self.warning(messages::late_abort(self.plan));
                    self.alert(AlertLevel::Error, messages::late_abort_alert());
                }
            }
            Phase::Progressing(_) | Phase::Promoting(_) => {
                let reason = "an abort was served before it could be stored";
                self.fail(reason, AlertLevel::Error, "An abort was served before it could be stored.");
            }
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn command(&mut self, command: Command) {
        if self.plan.is_suspended() && refusal::moves_on(command, &self.state.phase) {
            return self.refuse(refusal::suspended(self.plan));
        }
        match self.state.phase.clone() {
            Phase::Progressing(progress) => self.command_in_progress(command, progress),
            Phase::Waiting(waiting) => self.command_while_waiting(command, waiting),
            Phase::Promoting(promotion) if command == Command::Abort => self.abort_promotion(&promotion),
            // Who wants another revision by now has to ask for this one again first.
            Phase::Failed { primary, canary, seen, attempt, .. } if command == Command::Retry && seen == canary => {
                self.begin(primary, canary, attempt.saturating_add(1));
            }
            phase @ (Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. }) => self.refuse(refusal::refusal(self.plan, &phase, command)),
        }
    }
}
