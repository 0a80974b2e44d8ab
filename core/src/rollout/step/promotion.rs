//! From "passed" to "serves".

use alloc::format;

use super::super::event::{AlertLevel, Facts, Readiness};
use super::super::plan::{Pace, Share};
use super::super::safety::{Action, Health, Moment, act};
use super::super::state::{Phase, Progress, Promotion, Unready};
use super::super::words;
use super::Taking;
use crate::id::Revision;
use crate::time::Timestamp;
use crate::weight::BasisPoints;

impl Taking<'_> {
    pub(super) fn promote(&mut self, progress: Progress, skipped: bool) {
        self.normal(words::copying(self.plan));
        let moved = match progress.share {
            // Requests that do not match are still the primary's: all of them have to move.
            Share::Matched => BasisPoints::ZERO,
            Share::Nothing | Share::Mirrored(_) | Share::Weight(_) | Share::Everything => {
                progress.share.shown().complement()
            }
        };
        let due = self.next_tick();
        let Progress { primary, canary, attempt, failed_checks, share, .. } = progress;
        let (unready, frozen, intact) = (None, false, false);
        self.state.phase = Phase::Promoting(Promotion {
            primary,
            canary,
            attempt,
            failed_checks,
            share,
            moved,
            due,
            skipped,
            unready,
            frozen,
            intact,
        });
    }

    pub(super) fn promotion(&mut self, mut promotion: Promotion, facts: &Facts) {
        let (plan, now) = (self.plan, self.now);
        promotion.intact = facts.intact;
        let unready = Unready::note(promotion.unready.as_ref(), &facts.primary, now);
        if let Some(Unready { reason, .. }) = &unready
            && promotion.unready.as_ref().is_none_or(|before| before.reason != *reason)
        {
            self.warning(words::primary_not_ready(plan, reason));
        }
        promotion.unready = unready;
        let late = promotion.unready.as_ref().is_some_and(|unready| now.since(unready.since) >= plan.deadline());
        let health = |readiness: &Readiness, late: bool| match readiness {
            Readiness::NotReady { hopeless, .. } if *hopeless || late => Health::Bad,
            Readiness::NotReady { .. } | Readiness::Ready => Health::Good,
        };
        let moment = if facts.intact { Moment::PromotingIntact } else { Moment::Promoting };
        let action = act(moment, health(&facts.primary, late), health(&facts.canary, false));
        let reason = promotion.unready.as_ref().map_or_else(|| "the canary failed".into(), |it| it.reason.clone());
        let told = core::mem::replace(&mut promotion.frozen, action == Action::Freeze);
        self.state.phase = Phase::Promoting(promotion.clone());
        match action {
            Action::GoOn => {}
            Action::Freeze => {
                if !told {
                    self.warning(words::frozen(plan));
                    self.alert(AlertLevel::Error, "Neither primary nor canary is healthy.");
                }
                return;
            }
            Action::Rollback => {
                let text = format!("promotion failed: {reason}");
                return self.fail(&text, AlertLevel::Error, format!("Promotion failed, primary not ready: {reason}"));
            }
            Action::StayOnCanary => {
                self.warning(words::promotion_failed(plan, &reason));
                self.alert(AlertLevel::Error, format!("Promotion failed, primary not ready: {reason}"));
                return self.failed(promotion.primary, promotion.canary, &reason, true);
            }
        }
        if facts.primary.is_ready() && promotion.due <= now {
            self.move_traffic(promotion);
        }
    }

    /// The promoted revision is complete: it takes over, all at once or by steps.
    fn move_traffic(&mut self, mut promotion: Promotion) {
        let plan = self.plan;
        if promotion.skipped {
            return self.succeed(promotion.canary, true);
        }
        let Some(step) = plan.promotion_step() else {
            self.normal("Routing all traffic to primary");
            self.state.phase = Phase::Finalising { primary: promotion.canary, due: self.next_tick() };
            return;
        };
        promotion.moved = promotion.moved.plus(step);
        self.normal(words::primary_weight(plan, promotion.moved));
        if promotion.moved == BasisPoints::FULL {
            self.state.phase = Phase::Finalising { primary: promotion.canary, due: self.next_tick() };
            return;
        }
        // Requests that matched stay where they are; of the others, the share moves.
        if promotion.share.shown() < promotion.moved {
            promotion.share = Share::Weight(promotion.moved);
        }
        promotion.due = self.now.plus(plan.interval());
        self.state.phase = Phase::Promoting(promotion);
    }

    pub(super) fn succeed(&mut self, primary: Revision, skipped: bool) {
        self.normal(words::completed(self.plan, skipped));
        self.alert(AlertLevel::Info, words::completed_alert(skipped));
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
