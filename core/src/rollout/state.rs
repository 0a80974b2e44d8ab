//! The state of a canary: everything that must survive a restart.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::plan::{Handover, Share};
use super::readiness::Readiness;
use super::round::{Round, Stage};
use crate::id::{Rev, Revision, RolloutId};
use crate::time::{Span, Timestamp};
use crate::verdict::Doubt;

/// What is stored of a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Raised by every change of the routes.
    pub rev: Rev,
    /// The latest rollout; the next one gets the next number.
    pub rollout: RolloutId,
    /// When the phase or the routes changed last.
    pub changed: Timestamp,
    /// The rev as of which a rollout was taken up again by a restarted controller. The rev after it is that of an abort
    /// which was served and not stored, if there was one: no other routes get it.
    #[serde(default)]
    pub resumed: Option<Rev>,
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
    /// A rollout is asked for and waits for the hooks that confirm it.
    Waiting(Waiting),
    /// A canary is under judgement.
    Progressing(Progress),
    /// The canary passed and becomes the primary.
    Promoting(Promotion),
    /// The promoted revision has all requests; the canary's workload is about to go.
    Finalising {
        /// The revision that serves.
        primary: Revision,
        /// When this ends.
        due: Timestamp,
        /// Since when, and why, what was promoted cannot serve.
        #[serde(default)]
        unready: Option<Unready>,
    },
    /// The canary became the primary.
    Succeeded {
        /// The revision that serves.
        primary: Revision,
        /// What is still to be told to hooks.
        ended: Ended,
    },
    /// The rollout failed.
    Failed {
        /// The revision that served before.
        primary: Revision,
        /// The revision that failed.
        canary: Revision,
        /// The revision that the workload asked for last. As long as it asks for the same, nothing starts.
        seen: Revision,
        /// Why.
        reason: String,
        /// What ended it.
        #[serde(default)]
        cause: Cause,
        /// Failed checks, for people to see.
        failed_checks: u32,
        /// Which attempt at this revision it was.
        attempt: u32,
        /// True if the canary keeps all requests, since the primary was already being replaced and cannot serve.
        on_canary: bool,
        /// What is still to be told to hooks.
        ended: Ended,
    },
}

/// A rollout that was not confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The revision that serves.
    pub primary: Revision,
    /// The revision to come.
    pub canary: Revision,
    /// Which attempt at this revision it will be.
    pub attempt: u32,
    /// Asks the hooks.
    pub round: Round,
    /// True once people were told that it waits.
    pub announced: bool,
}

/// A rollout in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The revision that serves.
    pub primary: Revision,
    /// The revision under judgement.
    pub canary: Revision,
    /// Which attempt at this revision it is: each has its own part of the error budget (P21).
    pub attempt: u32,
    /// The position in the plan.
    pub position: usize,
    /// What the canary is given. A plan that changes in mid-run changes the next position, not this one.
    pub share: Share,
    /// How long the position has lasted.
    pub clock: StepClock,
    /// The look that is under way.
    pub round: Round,
    /// Checks that failed so far; successes take none of them back.
    pub failed_checks: u32,
    /// True while so many requests were not counted that they could hide harm.
    #[serde(default)]
    pub uncounted: bool,
    /// What stands against it that the canary is given more.
    #[serde(default)]
    pub doubt: Option<Doubt>,
    /// True while the share is frozen by command.
    pub paused: bool,
    /// The gate that was found closed.
    pub gate: Option<Gate>,
    /// The gate that was opened by command.
    pub approved: Option<Gate>,
    /// Since when, and why, the canary's workload cannot serve.
    pub unready: Option<Unready>,
    /// Why the primary's workload cannot serve.
    pub primary_unready: Option<String>,
}

/// A gate of a rollout in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// Before the weight rises.
    TrafficIncrease,
    /// Before promotion.
    Promotion,
}

/// A workload that cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unready {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// A promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The revision that served so far.
    pub primary: Revision,
    /// The revision that passed.
    pub canary: Revision,
    /// Which attempt it was.
    pub attempt: u32,
    /// Failed checks of the rollout.
    pub failed_checks: u32,
    /// What the canary was given last.
    pub share: Share,
    /// How it becomes the primary.
    #[serde(default)]
    pub handover: Handover,
    /// When the next step is due.
    pub due: Timestamp,
    /// True if there was no analysis.
    pub skipped: bool,
    /// Since when, and why, the primary's workload cannot serve.
    pub unready: Option<Unready>,
    /// True once people were told that both revisions look bad.
    pub frozen: bool,
    /// True while the revision that served before is complete.
    pub intact: bool,
    /// True once people were told that an abort, which was served and not stored, came too late.
    #[serde(default)]
    pub late_abort: bool,
}

/// What ends a rollout without promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Cause {
    /// The canary, or a person who took it for bad.
    #[default]
    RolledBack,
    /// The workload asks for its primary again: there is nothing left to roll out.
    TakenBack,
}

/// What is left to do after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ended {
    /// Nothing.
    #[default]
    Quiet,
    /// The post-rollout hook in this place is to be called.
    Asking(usize),
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
    /// Returns the state as a restarted controller takes it up: nobody followed it, and it may have been aborted unstored.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        if self.may_be_aborted_unstored() {
            self.resumed = Some(self.rev);
        }
        self.unwatched()
    }

    /// Returns the state of a canary that nobody followed for a time: the step's clock begins anew, since nobody saw
    /// whether its share flowed in between. So does a look: the stage that is stored may be one of long ago, and what was asked
    /// before it is not to be skipped.
    #[must_use]
    pub fn unwatched(mut self) -> Self {
        if let Phase::Progressing(progress) = &mut self.phase {
            progress.clock = StepClock::Standing(Span::ZERO);
            match progress.round.stage {
                Stage::Over | Stage::Entered => {}
                Stage::Hook(..) | Stage::Metric(_) | Stage::Judge => progress.round.stage = Stage::Over,
            }
        }
        self
    }

    /// Returns true if a restart goes on from this state as from the other one. Where that one is stored, this one need not be: how
    /// long a position lasts and a look begin anew anyway, and who was asked in it is asked again.
    pub fn resumes_as(&self, stored: &Self) -> bool {
        self.unready() == stored.unready() && self.resumes_as_but_for_unready(stored)
    }

    /// Returns true if nothing else is different than whether, why and since when a workload is not ready.
    pub fn resumes_as_but_for_unready(&self, stored: &Self) -> bool {
        let resumed = |state: &Self| {
            let mut state = state.clone().unwatched();
            if let Phase::Progressing(progress) = &mut state.phase {
                progress.round = Round::new(Timestamp::EPOCH);
            }
            if let Some(unready) = state.phase.unready_mut() {
                *unready = None;
            }
            state
        };
        resumed(self) == resumed(stored)
    }

    /// Returns why, and since when, the workload that is waited for is not ready.
    pub const fn unready(&self) -> Option<&Unready> {
        match &self.phase {
            Phase::Progressing(progress) => progress.unready.as_ref(),
            Phase::Promoting(promotion) => promotion.unready.as_ref(),
            Phase::Finalising { unready, .. } => unready.as_ref(),
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// Returns the rev that an abort has which was served and could not be stored.
    #[must_use]
    pub fn unstored_abort(&self) -> Rev {
        self.resumed.unwrap_or(self.rev).next()
    }

    /// Returns true for a rev that only an abort has which was served and could not be stored.
    ///
    /// From a state of rev r, an abort has r + 1; one that took the place of a step while that was being stored has the rev
    /// after the step's. That is r + 2, or r + 4 where the step was the first one after a restart. What an abort has in
    /// place of later steps is only told from theirs while it is ahead of this state.
    #[must_use]
    pub fn is_unstored_abort(&self, rev: Rev) -> bool {
        let abort = self.unstored_abort();
        let in_place = abort.next();
        let in_place_of_the_first = in_place.next().next();
        let is_in_place = rev == in_place || (rev == in_place_of_the_first && rev > self.rev);
        rev == abort || (self.resumed.is_some() && is_in_place)
    }

    /// Returns the rev of the next routes. The first ones after a restart leave the revs of unstored aborts to these: else
    /// an abort would be taken for them once a proxy shows it.
    pub(super) fn next_rev(&self, abort: bool) -> Rev {
        let next = self.rev.next();
        if self.resumed == Some(self.rev) && !abort { next.next().next() } else { next }
    }

    /// Returns true while a judge's verdict ends the rollout.
    pub const fn is_judged(&self) -> bool {
        match &self.phase {
            Phase::Progressing(_) => true,
            Phase::Promoting(promotion) => promotion.is_judged(),
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => false,
        }
    }

    /// Returns true while an abort may be served before it is stored: the revision that served before is unmodified and
    /// complete, whatever happens to the store.
    pub const fn may_be_aborted_unstored(&self) -> bool {
        match &self.phase {
            Phase::Progressing(_) => true,
            Phase::Promoting(promotion) => promotion.is_judged() && promotion.intact,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => false,
        }
    }

    /// Returns the revision that serves, if any was seen.
    pub const fn primary(&self) -> Option<&Revision> {
        match &self.phase {
            Phase::Initializing => None,
            Phase::Initialized { primary }
            | Phase::Finalising { primary, .. }
            | Phase::Succeeded { primary, .. }
            | Phase::Failed { primary, .. } => Some(primary),
            Phase::Waiting(waiting) => Some(&waiting.primary),
            Phase::Progressing(progress) => Some(&progress.primary),
            Phase::Promoting(promotion) => Some(&promotion.primary),
        }
    }

    /// Returns the revision under judgement, or the one that failed.
    pub const fn canary(&self) -> Option<&Revision> {
        match &self.phase {
            Phase::Initializing | Phase::Initialized { .. } | Phase::Finalising { .. } | Phase::Succeeded { .. } => {
                None
            }
            Phase::Waiting(waiting) => Some(&waiting.canary),
            Phase::Progressing(progress) => Some(&progress.canary),
            Phase::Promoting(promotion) => Some(&promotion.canary),
            Phase::Failed { canary, .. } => Some(canary),
        }
    }

    /// Returns true from when a rollout is asked for to its end.
    pub const fn has_rollout(&self) -> bool {
        match &self.phase {
            Phase::Waiting(_) | Phase::Progressing(_) | Phase::Promoting(_) => true,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => false,
        }
    }

    /// Returns which attempt at the canary's revision this is, counted from one.
    pub const fn attempt(&self) -> u32 {
        match &self.phase {
            Phase::Waiting(Waiting { attempt, .. })
            | Phase::Progressing(Progress { attempt, .. })
            | Phase::Promoting(Promotion { attempt, .. })
            | Phase::Failed { attempt, .. } => *attempt,
            Phase::Initializing | Phase::Initialized { .. } | Phase::Finalising { .. } | Phase::Succeeded { .. } => 1,
        }
    }

    /// Returns the failed checks of the rollout; they stay visible after it failed.
    pub const fn failed_checks(&self) -> u32 {
        match &self.phase {
            Phase::Progressing(Progress { failed_checks, .. })
            | Phase::Promoting(Promotion { failed_checks, .. })
            | Phase::Failed { failed_checks, .. } => *failed_checks,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. } => 0,
        }
    }
}

impl Phase {
    const fn unready_mut(&mut self) -> Option<&mut Option<Unready>> {
        match self {
            Self::Progressing(progress) => Some(&mut progress.unready),
            Self::Promoting(promotion) => Some(&mut promotion.unready),
            Self::Finalising { unready, .. } => Some(unready),
            Self::Initializing
            | Self::Initialized { .. }
            | Self::Waiting(_)
            | Self::Succeeded { .. }
            | Self::Failed { .. } => None,
        }
    }

    /// Returns Flagger's name for the phase.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Initializing => "Initializing",
            Self::Initialized { .. } => "Initialized",
            Self::Waiting(_) => "Waiting",
            Self::Progressing(Progress { gate: Some(Gate::Promotion), .. }) => "WaitingPromotion",
            Self::Progressing(_) => "Progressing",
            Self::Promoting(_) => "Promoting",
            Self::Finalising { .. } => "Finalising",
            Self::Succeeded { .. } => "Succeeded",
            Self::Failed { .. } => "Failed",
        }
    }
}

impl Promotion {
    /// Returns true while both revisions are compared: the canary takes over, and the one that served before serves the
    /// rest. Where the primary's workload is replaced, what serves as it is a mix that says nothing (P18).
    pub const fn is_judged(&self) -> bool {
        matches!(self.handover, Handover::Relabel) && !self.skipped
    }

    /// Returns true if the share can be moved in parts: whom rules choose is chosen as a whole.
    pub(super) const fn moves_by_steps(&self) -> bool {
        match self.share {
            Share::Nothing | Share::Mirrored(_) | Share::Weight(_) => true,
            Share::Everything => matches!(self.handover, Handover::Copy),
            Share::Matched => false,
        }
    }
}

impl Unready {
    /// Returns the note of a workload: since when it cannot serve, and why by now.
    pub(super) fn note(before: Option<&Self>, readiness: &Readiness, now: Timestamp) -> Option<Self> {
        match readiness {
            Readiness::Ready => None,
            Readiness::NotReady { reason, .. } => {
                let since = before.map_or(now, |before| before.since);
                Some(Self { since, reason: reason.clone() })
            }
        }
    }
}
