//! How a canary's rollouts are taken into its chronicle.

use wingbeat_core::analysis::window::Batch;
use wingbeat_core::id::Arm;
use wingbeat_core::rollout::{Phase, State, project};
use wingbeat_core::time::Timestamp;

use crate::engine::canary::Canary;
use crate::engine::canary::chronicle::{Ending, Past, Timeline};

impl Canary {
    /// Takes a window into the timeline.
    pub(in crate::engine) fn chart(&mut self, batch: &Batch) {
        if let Some(timeline) = &mut self.chronicle.timeline {
            timeline.observe(batch);
        }
    }

    /// Notes how far the evidence is, and ends a point of the timeline where one is over.
    pub(in crate::engine) fn sample(&mut self, now: Timestamp) {
        let weight = self.routes().canary_weight();
        let harm = self.assessed.as_ref().map(|assessed| assessed.evidence.harm()).filter(|harm| harm.is_finite());
        let harm = harm.filter(|_| self.is_judged());
        if let Some(timeline) = self.chronicle.timeline.as_mut().filter(|_| self.state.has_rollout()) {
            timeline.sample(weight, harm, now);
        }
    }

    /// Follows a change of the state. What was counted until now is of the rollout before.
    pub(super) fn follow_change(&mut self, before: &State, now: Timestamp) {
        if let Some((ending, reason)) = Ending::of(before, &self.state) {
            let counts = Arm::ALL.map(|arm| {
                let counts = self.totals.arm(arm);
                (counts.judged_and_hangs(), counts.errors_and_hangs())
            });
            let harm = self.assessed.as_ref().map(|assessed| assessed.evidence.harm()).filter(|harm| harm.is_finite());
            let timeline = self.chronicle.timeline.as_mut();
            let highest = timeline.map(|timeline| timeline.end(before, harm, now)).unwrap_or_default();
            self.chronicle.ended(Past {
                rollout: before.rollout,
                began: self.began,
                ended: now,
                ending,
                reason: reason.to_owned(),
                primary: before.primary().cloned(),
                canary: before.canary().cloned(),
                attempt: before.attempt(),
                highest,
                counts,
            });
        } else if before.rev != self.state.rev
            && let Some(timeline) = &mut self.chronicle.timeline
        {
            // A share has a point of its own, however short it lasted.
            timeline.close(project(before).routes.canary_weight(), now);
        }
        if before.rollout != self.state.rollout {
            self.chronicle.timeline = Some(Timeline::new(self.state.rollout, now));
            self.chronicle.reached = 0;
        }
        match &self.state.phase {
            Phase::Progressing(progress) => self.chronicle.reached = progress.position,
            Phase::Promoting(_) | Phase::Finalising { .. } | Phase::Succeeded { .. } => {
                self.chronicle.reached = self.config.plan.positions();
            }
            Phase::Initializing | Phase::Initialized { .. } | Phase::Waiting(_) | Phase::Failed { .. } => {}
        }
    }
}
