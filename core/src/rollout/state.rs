//! The state of a canary: everything that must survive a restart.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{Rev, Revision, RolloutId};
use crate::time::{Span, Timestamp};
use crate::weight::BasisPoints;

/// What is stored of a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Raised by every change of the routes.
    pub rev: Rev,
    /// The latest rollout; the next one gets the next number.
    pub rollout: RolloutId,
    /// When the phase or the weight changed last.
    pub changed: Timestamp,
    /// Where the canary stands.
    pub phase: Phase,
}

/// Where a canary stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No revision was seen yet.
    #[default]
    Initializing,
    /// The first revision seen serves; there was no rollout.
    Initialized {
        /// The revision that serves.
        primary: Revision,
    },
    /// A canary is under judgement.
    Progressing(Progress),
    /// The canary passed and becomes the primary.
    Promoting {
        /// The revision that served so far.
        primary: Revision,
        /// The revision that passed.
        canary: Revision,
        /// Its share, which stays until the primary can take everything.
        weight: BasisPoints,
    },
    /// The canary became the primary.
    Succeeded {
        /// The revision that serves.
        primary: Revision,
    },
    /// The canary was taken out of traffic.
    Failed {
        /// The revision that serves.
        primary: Revision,
        /// The revision that failed.
        canary: Revision,
        /// The revision that the workload asked for last. As long as it asks for the same, nothing starts.
        seen: Revision,
        /// Why.
        reason: String,
    },
}

/// A rollout in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The revision that serves.
    pub primary: Revision,
    /// The revision under judgement.
    pub canary: Revision,
    /// The step, by its place in the plan.
    pub step: usize,
    /// The canary's share. A plan that changes in mid-run changes the next step, not this one.
    pub weight: BasisPoints,
    /// How long the step has lasted.
    pub clock: StepClock,
    /// True while the weight is frozen by command.
    pub paused: bool,
}

/// The time of a step: it starts when the new share flows, and stands while nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepClock {
    /// It stands at this length.
    Standing(Span),
    /// It runs: the step began to flow at a time that puts it at `now - since`.
    Running {
        /// When the clock would have started had it never stood.
        since: Timestamp,
    },
}

impl StepClock {
    /// Returns how long the step has lasted.
    pub const fn elapsed(self, now: Timestamp) -> Span {
        match self {
            Self::Standing(span) => span,
            Self::Running { since } => now.since(since),
        }
    }

    /// Returns the clock, running or standing from now on.
    #[must_use]
    pub const fn run(self, run: bool, now: Timestamp) -> Self {
        match (self, run) {
            (Self::Standing(span), true) => Self::Running { since: now.minus(span) },
            (Self::Running { since }, false) => Self::Standing(now.since(since)),
            (Self::Standing(_), false) | (Self::Running { .. }, true) => self,
        }
    }
}

impl State {
    /// Returns the state as a restarted controller takes it up: the step's clock begins anew, since nobody saw
    /// whether its share flowed in between.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        if let Phase::Progressing(progress) = &mut self.phase {
            progress.clock = StepClock::Standing(Span::ZERO);
        }
        self
    }

    /// Returns the revision that serves, if any was seen.
    pub const fn primary(&self) -> Option<&Revision> {
        match &self.phase {
            Phase::Initializing => None,
            Phase::Initialized { primary }
            | Phase::Succeeded { primary }
            | Phase::Promoting { primary, .. }
            | Phase::Failed { primary, .. } => Some(primary),
            Phase::Progressing(progress) => Some(&progress.primary),
        }
    }
}

impl Phase {
    /// Returns Flagger's name for the phase.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Initializing => "Initializing",
            Self::Initialized { .. } => "Initialized",
            Self::Progressing(_) => "Progressing",
            Self::Promoting { .. } => "Promoting",
            Self::Succeeded { .. } => "Succeeded",
            Self::Failed { .. } => "Failed",
        }
    }
}
