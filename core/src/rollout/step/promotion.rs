//! From "passed" to "serves".

use alloc::format;

use super::super::event::{AlertLevel, Facts};
use super::super::messages;
use super::super::plan::{Handover, Pace, Share};
use super::super::readiness::Readiness;
use super::super::recovery::{Action, Health, RolloutStage, act};
use super::super::state::{Phase, Progress, Promotion, Unready};
use super::TransitionBuilder;
use crate::id::Revision;
use crate::time::Timestamp;
use crate::verdict::Verdict;

impl TransitionBuilder<'_> {
    /// Returns true if a canary may take the place of a primary that is gone. One that nobody judged is better than none.
    pub(super) fn may_rescue(&self, progress: &Progress) -> bool {
        self.plan.handover() == Handover::Copy && !progress.paused && !self.plan.is_suspended()
    }

    /// The primary is gone and the canary serves: it gets all requests and is promoted. Waiting for the primary would serve
    /// errors, and keep out the revision that mends it.
    pub(super) fn rescue(&mut self, progress: Progress) {
        self.warning(messages::rescued(self.plan));
        self.alert(AlertLevel::Error, messages::rescued_alert());
        self.promote(Progress { share: Share::Everything, ..progress }, false);
    }

    pub(super) fn promote(&mut self, progress: Progress, skipped: bool) {
        self.normal(messages::copying(self.plan));
        let due = self.next_tick();
        let Progress { primary, canary, attempt, failed_checks, share, .. } = progress;
        // Nothing is replaced yet.
        let (handover, unready, frozen, intact, late_abort) = (self.plan.handover(), None, false, true, false);
        self.state.phase = Phase::Promoting(Promotion {
            primary,
            canary,
            attempt,
            failed_checks,
            share,
            handover,
            due,
            skipped,
            unready,
            frozen,
            intact,
            late_abort,
        });
    }

    pub(super) fn promotion(&mut self, mut promotion: Promotion, facts: &Facts) {
        let (plan, now) = (self.plan, self.now);
        promotion.intact = facts.intact;
        // The workload that is to have all requests.
        let heir = match promotion.handover {
            Handover::Relabel => &facts.canary,
            Handover::Copy => &facts.primary,
        };
        let unready = Unready::note(promotion.unready.as_ref(), heir, now);
        if let Some(Unready { reason, .. }) = &unready
            && promotion.unready.as_ref().is_none_or(|before| before.reason != *reason)
        {
            match promotion.handover {
                Handover::Relabel => self.promotion_halted(messages::canary_not_ready(plan, reason), reason),
                // The rule while it takes the revision over: nobody is alerted for it.
                Handover::Copy => self.warning(messages::primary_not_ready(plan, reason)),
            }
        }
        promotion.unready = unready;
        let late = promotion.unready.as_ref().is_some_and(|unready| now.since(unready.since) >= plan.deadline());
        let condemned = match &facts.verdict {
            Verdict::Rollback(reason) if promotion.is_judged() => Some(reason),
            Verdict::Rollback(_) | Verdict::Advance(_) | Verdict::Continue(_) | Verdict::NoData(_) => None,
        };
        let health = |readiness: &Readiness, late: bool| match readiness {
            Readiness::NotReady { .. } | Readiness::Ready if condemned.is_some() => Health::Bad,
            Readiness::NotReady { hopeless, .. } if *hopeless || late => Health::Bad,
            Readiness::NotReady { .. } | Readiness::Ready => Health::Good,
        };
        // Where the canary itself becomes the primary, they are the same.
        let canary = match promotion.handover {
            Handover::Relabel => health(heir, late),
            Handover::Copy => health(&facts.canary, false),
        };
        let moment = if facts.intact { RolloutStage::PromotingIntact } else { RolloutStage::Promoting };
        let action = act(moment, health(heir, late), canary);
        let unready = promotion.unready.as_ref().map(|unready| &unready.reason);
        let reason = condemned.or(unready).cloned().unwrap_or_else(|| "the canary failed".into());
        let told = core::mem::replace(&mut promotion.frozen, action == Action::Freeze);
        self.state.phase = Phase::Promoting(promotion.clone());
        match action {
            Action::GoOn => {}
            Action::Freeze => {
                if !told {
                    self.warning(messages::frozen(plan));
                    self.alert(AlertLevel::Error, "Neither primary nor canary is healthy.");
                }
                return;
            }
            Action::Rollback if condemned.is_some() => {
                return self.fail(&reason, AlertLevel::Error, format!("Canary rolled back: {reason}"));
            }
            Action::Rollback => {
                let text = format!("promotion failed: {reason}");
                return self.fail(&text, AlertLevel::Error, format!("Promotion failed, primary not ready: {reason}"));
            }
            Action::StayOnCanary => {
                self.warning(messages::promotion_failed(plan, &reason));
                self.alert(AlertLevel::Error, format!("Promotion failed, primary not ready: {reason}"));
                return self.failed(promotion.primary, promotion.canary, &reason, true);
            }
        }
        // Harm that is not decided on, or that was not counted, is harm until it is known better.
        let doubted = promotion.is_judged() && (facts.doubt.is_some() || facts.uncounted);
        if heir.is_ready() && promotion.due <= now && !plan.is_suspended() && !doubted {
            self.move_traffic(promotion);
        }
    }

    /// The workload that is to have all requests is complete: it takes over, all at once or by steps.
    fn move_traffic(&mut self, mut promotion: Promotion) {
        let plan = self.plan;
        if promotion.skipped {
            return self.succeed(promotion.canary, true);
        }
        let Some(step) = plan.promotion_step().filter(|_| promotion.moves_by_steps()) else {
            self.normal("Routing all traffic to primary");
            return self.finalise(promotion.canary);
        };
        let Some(share) = promotion.handover.next(promotion.share, step) else {
            self.normal(messages::primary_weight(plan, crate::weight::BasisPoints::FULL));
            return self.finalise(promotion.canary);
        };
        let primary = match promotion.handover {
            Handover::Relabel => share.shown(),
            Handover::Copy => share.shown().complement(),
        };
        self.normal(messages::primary_weight(plan, primary));
        promotion.share = share;
        promotion.due = self.now.plus(plan.interval());
        self.state.phase = Phase::Promoting(promotion);
    }

    fn finalise(&mut self, primary: Revision) {
        self.state.phase = Phase::Finalising { primary, due: self.next_tick(), unready: None };
    }

    /// What was promoted has all requests. Nothing ends on a workload that cannot serve.
    pub(super) fn finalising(&mut self, primary: Revision, due: Timestamp, before: Option<&Unready>, facts: &Facts) {
        let unready = Unready::note(before, &facts.primary, self.now);
        match &unready {
            None if due <= self.now && !self.plan.is_suspended() => return self.succeed(primary, false),
            Some(Unready { reason, .. }) if before.is_none_or(|before| before.reason != *reason) => {
                self.promotion_halted(messages::primary_not_ready(self.plan, reason), reason);
            }
            None | Some(_) => {}
        }
        self.state.phase = Phase::Finalising { primary, due, unready };
    }

    fn promotion_halted(&mut self, text: alloc::string::String, reason: &str) {
        self.warning(text);
        self.alert(AlertLevel::Error, messages::promotion_halted(reason));
    }

    pub(super) fn succeed(&mut self, primary: Revision, skipped: bool) {
        self.normal(messages::completed(self.plan, skipped));
        self.alert(AlertLevel::Info, messages::completed_alert(skipped));
        self.state.phase = Phase::Succeeded { primary, ended: self.ended() };
    }

    /// Flagger does one thing per interval; where evidence sets the pace there is nothing to wait for.
    fn next_tick(&self) -> Timestamp {
        match self.plan.pace() {
            Pace::Evidence => self.now,
            Pace::Checks => self.now.plus(self.plan.interval()),
        }
    }
}
