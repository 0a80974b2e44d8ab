//! What a state implies for the routes. Level-triggered: derived again whenever anything changes.

use super::plan::Share;
use super::state::{Phase, State};
use crate::id::{Rev, Revision};
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
    /// Shared, and judged.
    Shared {
        /// The revision that serves.
        primary: Revision,
        /// The revision under judgement.
        canary: Revision,
        /// What the canary is given.
        share: Share,
    },
}

impl Routes {
    /// Returns the canary's share as it is shown.
    pub const fn canary_weight(&self) -> BasisPoints {
        match self {
            Self::Nowhere | Self::Settled(_) => BasisPoints::ZERO,
            Self::Shared { share, .. } => share.shown(),
        }
    }
}

/// Returns what is to be served in this state.
pub fn project(state: &State) -> Projection {
    let routes = match &state.phase {
        Phase::Initializing => Routes::Nowhere,
        Phase::Failed { canary, on_canary: true, .. } => Routes::Settled(canary.clone()),
        Phase::Initialized { primary }
        | Phase::Finalising { primary, .. }
        | Phase::Succeeded { primary, .. }
        | Phase::Failed { primary, on_canary: false, .. } => Routes::Settled(primary.clone()),
        Phase::Waiting(waiting) => Routes::Settled(waiting.primary.clone()),
        Phase::Progressing(progress) => {
            Routes::Shared { primary: progress.primary.clone(), canary: progress.canary.clone(), share: progress.share }
        }
        Phase::Promoting(promotion) => Routes::Shared {
            primary: promotion.primary.clone(),
            canary: promotion.canary.clone(),
            share: promotion.share,
        },
    };
    Projection { rev: state.rev, routes }
}
