//! How a rollout begins: a revision is seen, hooks confirm it, the first round is due.

use super::super::event::AlertLevel;
use super::super::messages;
use super::super::plan::{Handover, HookKind, Pace, Share};
use super::super::round::{Round, Stage};
use super::super::state::{Phase, Progress, StepClock, Waiting};
use super::TransitionBuilder;
use crate::id::Revision;
use crate::time::Span;

impl TransitionBuilder<'_> {
    pub(super) fn revision(&mut self, seen: &Revision) {
        let plan = self.plan;
        match self.state.phase.clone() {
            Phase::Initializing => {
                self.state.phase = Phase::Initialized { primary: seen.clone() };
                self.normal(messages::initialized(plan));
                self.described_alert(AlertLevel::Info, messages::initialized_alert(plan));
            }
            // What is suspended begins nothing and changes nothing; the revision is seen again afterwards.
            _ if plan.is_suspended() => {}
            // Where what was promoted is gone, the way out is another revision.
            Phase::Initialized { primary }
            | Phase::Succeeded { primary, .. }
            | Phase::Finalising { primary, unready: Some(_), .. }
                if primary != *seen =>
            {
                self.begin(primary, seen.clone(), 1);
            }
            // A revision that failed is not tried again by itself; once the workload went back, it may come again.
            Phase::Failed { primary, canary, seen: before, attempt, .. } if before != *seen => {
                if primary != *seen {
                    let attempt = if canary == *seen { attempt.saturating_add(1) } else { 1 };
                    self.begin(primary, seen.clone(), attempt);
                } else if let Phase::Failed { seen: noted, .. } = &mut self.state.phase {
                    noted.clone_from(seen);
                }
            }
            Phase::Waiting(waiting) if waiting.primary == *seen => self.taken_back(),
            Phase::Waiting(waiting) if waiting.canary != *seen => {
                self.begin(waiting.primary, seen.clone(), 1);
            }
            Phase::Progressing(progress) if progress.primary == *seen => self.taken_back(),
            Phase::Progressing(progress) if progress.canary != *seen => {
                self.normal(messages::restarting(plan));
                self.start(progress.primary, seen.clone(), 1);
            }
            // Where pods of the target serve as the canary, these are of a revision that nobody judged from now on.
            Phase::Promoting(mut promotion)
                if promotion.handover == Handover::Copy
                    && promotion.canary != *seen
                    && promotion.share != Share::Nothing =>
            {
                promotion.share = Share::Nothing;
                self.state.phase = Phase::Promoting(promotion);
            }
            // A promotion is finished first; the revision is seen again after it.
            Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// Begins a rollout, or asks first whether it may.
    pub(super) fn begin(&mut self, primary: Revision, canary: Revision, attempt: u32) {
        let Some(first) = Stage::hooks(self.plan, HookKind::ConfirmRollout, 0) else {
            self.confirmed(primary, canary, attempt);
            return;
        };
        self.state.rollout = self.state.rollout.next();
        let round = Round::new(self.now).next(self.plan, self.now).at(first);
        self.state.phase = Phase::Waiting(Waiting { primary, canary, attempt, round, announced: false });
    }

    /// Begins a rollout that nobody objects to.
    pub(super) fn confirmed(&mut self, primary: Revision, canary: Revision, attempt: u32) {
        self.normal(messages::scaling_up(self.plan));
        self.described_alert(AlertLevel::Info, "New revision detected, progressing canary analysis.");
        self.start(primary, canary, attempt);
    }

    fn start(&mut self, primary: Revision, canary: Revision, attempt: u32) {
        let due = match self.plan.pace() {
            Pace::Evidence => self.now,
            Pace::Checks => self.now.plus(self.plan.interval()),
        };
        self.state.rollout = self.state.rollout.next();
        self.state.phase = Phase::Progressing(Progress {
            primary,
            canary,
            attempt,
            position: 0,
            share: Share::Nothing,
            clock: StepClock::Standing(Span::ZERO),
            round: Round::new(due),
            failed_checks: 0,
            uncounted: false,
            doubt: None,
            paused: false,
            gate: None,
            approved: None,
            unready: None,
            primary_unready: None,
        });
    }
}
