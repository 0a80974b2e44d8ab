//! What a state implies for the routes. Level-triggered: derived again whenever anything changes.

use crate::id::{Rev, Revision};
use crate::rollout::state::{Phase, State};
use crate::weight::BasisPoints;

/// What is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Travels with the routes.
    pub rev: Rev,
    /// Where requests go.
    pub routes: Routes,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routes {
    /// No revision is known.
    Nowhere,
    /// All to this revision, and nobody counts.
    Settled(Revision),
    /// By chance, judged.
    Weighted {
        /// The revision that serves.
        primary: Revision,
        /// The revision under judgement.
        canary: Revision,
        /// Its share.
        weight: BasisPoints,
    },
}

impl Routes {
    /// Returns the canary's share.
    pub const fn canary_weight(&self) -> BasisPoints {
        match self {
            Self::Nowhere | Self::Settled(_) => BasisPoints::ZERO,
            Self::Weighted { weight, .. } => *weight,
        }
    }
}

/// Returns what is to be served in this state.
pub fn project(state: &State) -> Projection {
    let routes = match &state.phase {
        Phase::Initializing => Routes::Nowhere,
        Phase::Initialized { primary } | Phase::Succeeded { primary } | Phase::Failed { primary, .. } => {
            Routes::Settled(primary.clone())
        }
        Phase::Progressing(progress) => Routes::Weighted {
            primary: progress.primary.clone(),
            canary: progress.canary.clone(),
            weight: progress.weight,
        },
        Phase::Promoting { primary, canary, weight } => {
            Routes::Weighted { primary: primary.clone(), canary: canary.clone(), weight: *weight }
        }
    };
    Projection { rev: state.rev, routes }
}
