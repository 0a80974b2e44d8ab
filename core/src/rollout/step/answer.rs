//! What follows from the answers of hooks and metrics.

use alloc::format;
use alloc::string::String;

use super::super::event::AlertLevel;
use super::super::messages;
use super::super::plan::{HookKind, NoData, Pace};
use super::super::question::question;
use super::super::round::{Answer, Stage, Ticket};
use super::super::state::{Ended, Gate, Phase, Progress, Waiting};
use super::TransitionBuilder;
use super::progress::hook_of;

impl TransitionBuilder<'_> {
    pub(super) fn answer(&mut self, ticket: &Ticket, answer: &Answer) {
        let open = question(self.plan, &self.state).filter(|question| question.ticket == *ticket);
        if open.is_none() {
            return;
        }
        match self.state.phase.clone() {
            Phase::Waiting(waiting) => self.while_waiting(waiting, answer),
            Phase::Progressing(progress) => self.in_progress(progress, answer),
            Phase::Succeeded { ended: Ended::Asking(place), .. }
            | Phase::Failed { ended: Ended::Asking(place), .. } => {
                self.post_rollout(place, answer);
            }
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn while_waiting(&mut self, waiting: Waiting, answer: &Answer) {
        let Stage::Hook(kind, place) = waiting.round.stage else { return };
        match kind {
            HookKind::Rollback => self.call_off(waiting, place, answer),
            HookKind::ConfirmRollout => self.confirm_rollout(waiting, place, answer),
            HookKind::PreRollout
            | HookKind::Rollout
            | HookKind::ConfirmTrafficIncrease
            | HookKind::ConfirmPromotion
            | HookKind::PostRollout
            | HookKind::Event => {}
        }
    }

    /// A rollout that was not confirmed yet: nobody has had its revision.
    fn call_off(&mut self, mut waiting: Waiting, place: usize, answer: &Answer) {
        let (name, _) = self.hook(HookKind::Rollback, place);
        if *answer == Answer::Passed {
            return self.rolled_back_by(&name);
        }
        let others = Stage::hooks(self.plan, HookKind::Rollback, place.saturating_add(1));
        let next = others.or_else(|| Stage::hooks(self.plan, HookKind::ConfirmRollout, 0));
        waiting.round = waiting.round.at(next.unwrap_or(Stage::Over));
        self.state.phase = Phase::Waiting(waiting);
    }

    fn rolled_back_by(&mut self, hook: &str) {
        self.warning(format!("Rollback check {hook} passed"));
        self.fail("manual webhook invoked", AlertLevel::Warn, "Rolling back manual webhook invoked");
    }

    fn confirm_rollout(&mut self, mut waiting: Waiting, place: usize, answer: &Answer) {
        let kind = HookKind::ConfirmRollout;
        let (name, muted) = self.hook(kind, place);
        match answer {
            Answer::Passed => {
                self.normal(format!("Confirm-rollout check {name} passed"));
                match Stage::hooks(self.plan, kind, place.saturating_add(1)) {
                    Some(next) => waiting.round = waiting.round.at(next),
                    None => return self.confirmed(waiting.primary, waiting.canary, waiting.attempt),
                }
            }
            Answer::Failed(_) | Answer::Unknown(_) | Answer::TooFew(_) => {
                waiting.round = waiting.round.at(Stage::Over);
                if !core::mem::replace(&mut waiting.announced, true) {
                    self.warning(messages::waiting_for_rollout(self.plan, &name));
                    if !muted {
                        self.alert(AlertLevel::Warn, "Canary is waiting for approval.");
                    }
                }
            }
        }
        self.state.phase = Phase::Waiting(waiting);
    }

    fn in_progress(&mut self, progress: Progress, answer: &Answer) {
        let stage = progress.round.stage;
        let Stage::Hook(kind, place) = stage else { return self.metric(progress, stage, answer) };
        let (name, muted) = self.hook(kind, place);
        match (kind, answer) {
            (HookKind::Rollback, Answer::Passed) => self.rolled_back_by(&name),
            (HookKind::Rollback, Answer::Failed(_) | Answer::Unknown(_) | Answer::TooFew(_)) => {
                // Looks by evidence come too often for such news.
                if self.plan.pace() == Pace::Checks {
                    self.normal(format!("Rollback hook {name} not signaling a rollback"));
                }
                self.after(progress, stage);
            }
            (HookKind::PreRollout, Answer::Passed) => {
                self.normal(format!("Pre-rollout check {name} passed"));
                self.after(progress, stage);
            }
            (HookKind::PreRollout, Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why)) => {
                self.halt(progress, answer, messages::pre_rollout_failed(self.plan, &name, why));
            }
            (HookKind::Rollout, Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why)) => {
                self.halt(progress, answer, messages::rollout_failed(self.plan, &name, why));
            }
            (HookKind::ConfirmTrafficIncrease, Answer::Passed) => {
                self.normal(format!("Confirm-traffic-increase check {name} passed"));
                self.after(progress, stage);
            }
            (HookKind::ConfirmPromotion, Answer::Passed) => {
                self.normal(format!("Confirm-promotion check {name} passed"));
                self.after(progress, stage);
            }
            (HookKind::ConfirmTrafficIncrease, Answer::Failed(_) | Answer::Unknown(_) | Answer::TooFew(_)) => {
                self.wait_at(progress, Gate::TrafficIncrease, &name, muted);
            }
            (HookKind::ConfirmPromotion, Answer::Failed(_) | Answer::Unknown(_) | Answer::TooFew(_)) => {
                self.wait_at(progress, Gate::Promotion, &name, muted);
            }
            (HookKind::Rollout, Answer::Passed)
            | (HookKind::ConfirmRollout | HookKind::PostRollout | HookKind::Event, _) => self.after(progress, stage),
        }
    }

    fn metric(&mut self, progress: Progress, stage: Stage, answer: &Answer) {
        match answer {
            Answer::Passed => self.after(progress, stage),
            Answer::Failed(text) => self.end_check(progress, true, text.clone()),
            Answer::Unknown(text) => self.end_check(progress, self.plan.no_data() == NoData::Fail, text.clone()),
            Answer::TooFew(text) => self.end_check(progress, false, text.clone()),
        }
    }

    fn halt(&mut self, progress: Progress, answer: &Answer, text: String) {
        let counts = match answer {
            Answer::Passed | Answer::TooFew(_) => false,
            Answer::Failed(_) => true,
            // What could not be asked has not failed; Flagger counts it all the same.
            Answer::Unknown(_) => self.plan.pace() == Pace::Checks,
        };
        self.end_check(progress, counts, text);
    }

    /// A look that did not pass ends its round.
    pub(super) fn end_check(&mut self, mut progress: Progress, counts: bool, text: String) {
        if counts {
            progress.failed_checks = progress.failed_checks.saturating_add(1);
        }
        progress.round = progress.round.at(Stage::Over);
        self.state.phase = Phase::Progressing(progress);
        self.warning(text);
    }

    fn wait_at(&mut self, mut progress: Progress, gate: Gate, name: &str, muted: bool) {
        debug_assert!(hook_of(gate) != HookKind::ConfirmRollout, "rollouts are confirmed before they are in progress");
        progress.round = progress.round.at(Stage::Over);
        let before = progress.gate.replace(gate);
        self.state.phase = Phase::Progressing(progress);
        if before != Some(gate) {
            self.warning(messages::waiting_at(self.plan, gate, name));
            if !muted {
                self.alert(AlertLevel::Warn, messages::waiting_alert(gate));
            }
        }
    }

    fn post_rollout(&mut self, place: usize, answer: &Answer) {
        let (name, _) = self.hook(HookKind::PostRollout, place);
        match answer {
            Answer::Passed => self.normal(format!("Post-rollout check {name} passed")),
            Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why) => {
                self.warning(format!("Post-rollout hook {name} failed {why}"));
            }
        }
        let next = place.saturating_add(1);
        let left = self.plan.hooks(HookKind::PostRollout).nth(next).map_or(Ended::Quiet, |_| Ended::Asking(next));
        self.left(left);
    }

    pub(super) fn post_rollout_is_over(&mut self) {
        self.left(Ended::Quiet);
    }

    fn left(&mut self, left: Ended) {
        if let Phase::Succeeded { ended, .. } | Phase::Failed { ended, .. } = &mut self.state.phase {
            *ended = left;
        }
    }

    fn hook(&self, kind: HookKind, place: usize) -> (String, bool) {
        self.plan.hooks(kind).nth(place).map_or_else(Default::default, |(_, hook)| (hook.name.clone(), hook.muted))
    }
}
