//! Rounds: one look at a rollout, as a list of things to be asked one after another.
//!
//! ```text
//!  rollback hooks ► failed checks? ► pre-rollout or rollout hooks ► metrics ► the judge ► gate ► next position
//! ```

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::plan::{HookKind, Pace, Plan};
use crate::id::RolloutId;
use crate::time::Timestamp;

/// One look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Counts the rounds of a rollout.
    pub number: u64,
    /// How far it is.
    pub stage: Stage,
    /// When the next one may begin.
    pub due: Timestamp,
    /// Digest of what the plan asked when it began. Once the plan asks something else, the round is over.
    #[serde(default)]
    asks: u64,
}

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Over; the next one begins when it is due.
    Over,
    /// The position was just reached: its first round begins when it is due, or as soon as harm is ruled out. Those after
    /// it begin when they are due: a check that failed is not asked again at once.
    Entered,
    /// A hook is asked: the one in this place among those of its kind.
    Hook(HookKind, usize),
    /// A metric is looked at.
    Metric(usize),
    /// The judge's word is waited for.
    Judge,
}

/// Names a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub(super) rollout: RolloutId,
    pub(super) round: u64,
    pub(super) stage: Stage,
    /// Digest of what the plan asks: places name something else once hooks or metrics changed.
    pub(super) asks: u64,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes; for a rollback hook: roll back.
    Passed,
    /// No, with the reason. For metrics: the text of the event.
    Failed(String),
    /// There is no answer, with the reason: what cannot be asked has not failed. Counted as failed where Flagger's
    /// checks decide.
    Unknown(String),
    /// What was counted is next to nothing, with what is missing: it has neither passed nor failed, and the next look
    /// asks again.
    TooFew(String),
}

impl Round {
    /// Returns the round before the first one.
    pub const fn new(due: Timestamp) -> Self {
        Self { number: 0, stage: Stage::Over, due, asks: 0 }
    }

    /// Returns the round that begins now. A round that lasts longer than an interval delays the next one: two looks
    /// never overlap.
    #[must_use]
    pub(super) fn next(&self, plan: &Plan, now: Timestamp) -> Self {
        let number = self.number.saturating_add(1);
        Self { number, stage: self.stage, due: now.plus(plan.interval()), asks: plan.asks() }
    }

    /// Returns the same round at another stage.
    #[must_use]
    pub(super) const fn at(&self, stage: Stage) -> Self {
        Self { number: self.number, stage, due: self.due, asks: self.asks }
    }

    /// Returns true if the plan asks something else than when the round began. What was answered so far may have been
    /// asked by nobody any more, and what is new would be left out: the round does not go on.
    pub(super) fn is_outdated(&self, plan: &Plan) -> bool {
        !matches!(self.stage, Stage::Over | Stage::Entered) && self.asks != plan.asks()
    }
}

impl Stage {
    /// Returns the first of these stages, in their order, that the plan has something to do at.
    pub(super) fn hooks(plan: &Plan, kind: HookKind, from: usize) -> Option<Self> {
        plan.hooks(kind).nth(from).map(|_| Self::Hook(kind, from))
    }

    /// Returns the first metric from this place on.
    pub(super) fn metrics(plan: &Plan, from: usize) -> Option<Self> {
        plan.metrics().find(|(place, _)| *place >= from).map(|(place, _)| Self::Metric(place))
    }

    /// Returns where a round goes once its hooks and metrics have passed.
    pub(super) const fn last(plan: &Plan) -> Option<Self> {
        match plan.pace() {
            Pace::Evidence => Some(Self::Judge),
            Pace::Checks => None,
        }
    }
}
