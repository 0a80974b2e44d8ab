//! When a change of the spec holds while a rollout is on.
//!
//! | it holds | of |
//! |---|---|
//! | now | names, hooks, metrics, intervals, limits of patience, suspension: what is read anew at every look |
//! | at the next step | weights and iterations: the share that the canary has stays as it is |
//! | for the next rollout | what makes earlier evidence and earlier steps comparable with later ones |

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Handover, Pace, Plan, Share, Strategy};

/// What of a plan stays as it was when the rollout began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanTerms {
    pace: Pace,
    strategy: Strategy,
    /// In force only as long as the written strategy is another one: its positions mean something else.
    shares: Vec<Share>,
    handover: Handover,
}

/// Says of each field of a spec when a change of it holds, and notes which changes wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amendment {
    waiting: Vec<&'static str>,
}

impl Amendment {
    /// A change holds at once.
    pub fn now<T>(&mut self, written: T) -> T {
        written
    }

    /// A change holds at the next step: the state keeps what the present one has.
    pub fn next_step<T>(&mut self, written: T) -> T {
        self.now(written)
    }

    /// A change holds for the next rollout.
    pub fn next_rollout<T: PartialEq>(&mut self, field: &'static str, in_force: T, written: &T) -> T {
        if in_force != *written && !self.waiting.contains(&field) {
            self.waiting.push(field);
        }
        in_force
    }

    /// Returns the fields whose changes wait for the next rollout.
    pub fn waiting(self) -> Vec<&'static str> {
        self.waiting
    }
}

impl Plan {
    /// Returns what a rollout that begins now keeps of the plan.
    pub fn terms(&self) -> PlanTerms {
        let (pace, strategy, handover) = (self.pace, self.strategy, self.handover);
        PlanTerms { pace, strategy, shares: self.shares.clone(), handover }
    }

    /// Returns the plan that is in force in a rollout that began under these terms.
    #[must_use]
    pub fn under(self, terms: &PlanTerms, amendment: &mut Amendment) -> Self {
        // Both are taken apart and put together field by field: a new field does not compile before it is said here
        // when a change of it holds.
        let PlanTerms { pace, strategy, shares, handover } = terms.clone();
        let same_strategy = strategy == self.strategy;
        let Self {
            name,
            target,
            kind,
            interval,
            threshold,
            pace: written_pace,
            strategy: written_strategy,
            shares: written_shares,
            handover: written_handover,
            promotion_step,
            deadline,
            skip_analysis,
            suspended,
            hooks,
            metrics,
            asks,
            no_data,
        } = self;
        Self {
            name: amendment.now(name),
            target: amendment.now(target),
            kind: amendment.now(kind),
            interval: amendment.now(interval),
            threshold: amendment.now(threshold),
            pace: amendment.next_rollout("analysis.judge.mode", pace, &written_pace),
            strategy: amendment.next_rollout("analysis.match", strategy, &written_strategy),
            shares: if same_strategy {
                amendment.next_step(written_shares)
            } else {
                amendment.next_rollout("analysis.iterations", shares, &written_shares)
            },
            handover: amendment.next_rollout("provider", handover, &written_handover),
            promotion_step: amendment.next_step(promotion_step),
            deadline: amendment.now(deadline),
            skip_analysis: amendment.now(skip_analysis),
            suspended: amendment.now(suspended),
            hooks: amendment.now(hooks),
            metrics: amendment.now(metrics),
            asks: amendment.now(asks),
            no_data: amendment.now(no_data),
        }
    }
}
