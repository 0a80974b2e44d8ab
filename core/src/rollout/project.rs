//! What a state implies for the routes. Level-triggered: derived again whenever anything changes.

use super::plan::Share;
use super::state::{Phase, State};
use crate::id::{Arm, Rev, Revision};
use crate::weight::BasisPoints;

/// What is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Travels with the routes.
    pub rev: Rev,
    /// Where requests go.
    pub routes: Routes,
    /// What is behind the arms that the routes lead to.
    pub revisions: Revisions,
}

/// Where requests go, by arm. What an arm is at the proxies (the cluster of a revision, a Service) is up to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// No revision is known.
    Nowhere,
    /// All to this arm, and nobody counts.
    Settled(Arm),
    /// Shared among both, and judged.
    Shared {
        /// What the canary is given.
        share: Share,
    },
}

/// The revision behind each arm, as far as routes lead there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revisions {
    /// The revision that serves.
    pub primary: Option<Revision>,
    /// The revision under judgement.
    pub canary: Option<Revision>,
}

impl Routes {
    /// Returns the canary's share as it is shown.
    pub const fn canary_weight(&self) -> BasisPoints {
        match self {
            Self::Nowhere | Self::Settled(_) => BasisPoints::ZERO,
            Self::Shared { share } => share.shown(),
        }
    }

    /// Returns true if requests may go to this arm.
    pub fn lead_to(&self, arm: Arm) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Settled(settled) => *settled == arm,
            Self::Shared { .. } => true,
        }
    }
}

impl Revisions {
    /// Returns the revision behind an arm.
    pub const fn of(&self, arm: Arm) -> Option<&Revision> {
        match arm {
            Arm::Primary => self.primary.as_ref(),
            Arm::Canary => self.canary.as_ref(),
        }
    }
}

impl Projection {
    /// Returns true if requests go to the same revisions in the same way, whatever the revs.
    pub fn serves_as(&self, other: &Self) -> bool {
        self.routes == other.routes && self.revisions == other.revisions
    }
}

/// Returns what is to be served in this state.
pub fn project(state: &State) -> Projection {
    let routes = match &state.phase {
        Phase::Initializing => Routes::Nowhere,
        Phase::Failed { on_canary: true, .. } => Routes::Settled(Arm::Canary),
        Phase::Initialized { .. }
        | Phase::Finalising { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { on_canary: false, .. }
        | Phase::Waiting(_) => Routes::Settled(Arm::Primary),
        Phase::Progressing(progress) => Routes::Shared { share: progress.share },
        Phase::Promoting(promotion) => Routes::Shared { share: promotion.share },
    };
    let behind = |arm, revision: Option<&Revision>| revision.filter(|_| routes.lead_to(arm)).cloned();
    let revisions =
        Revisions { primary: behind(Arm::Primary, state.primary()), canary: behind(Arm::Canary, state.canary()) };
    Projection { rev: state.rev, routes, revisions }
}
