//! Where canaries stand, for whoever keeps the objects that follow from it. What is told is stored: nothing is made of a step
//! that a restart would not find.

use std::collections::BTreeSet;
use std::sync::Arc;

use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::State;

use crate::engine::Engine;

/// Where a canary stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// What is in force of its spec.
    pub config: Arc<CanaryConfig>,
}

/// Canaries that stand elsewhere than when that was asked for last. At most as many as are managed; of those that no cluster
/// runs, none.
#[derive(Debug, Default)]
pub(super) struct Standings(BTreeSet<CanaryName>);

impl Standings {
    pub(super) fn note(&mut self, name: &CanaryName) {
        if !self.0.contains(name) {
            self.0.insert(name.clone());
        }
    }

    pub(super) fn forget(&mut self, name: &CanaryName) {
        self.0.remove(name);
    }
}

impl Engine {
    /// Returns where those canaries stand of which that may be different since it was asked last, where a cluster runs them.
    /// One whose abort is not stored yet is among them once it is.
    pub fn standings(&mut self) -> Vec<(CanaryName, Standing)> {
        let names = std::mem::take(&mut self.standings.0).into_iter();
        let standing = |name: CanaryName| {
            let canary = self.canaries.get(&name).filter(|canary| !canary.unstored)?;
            Some((name, Standing { state: canary.state.clone(), config: canary.config.clone() }))
        };
        names.filter_map(standing).collect()
    }

    /// Notes that a canary may stand elsewhere.
    pub(super) fn note_standing(&mut self, name: &CanaryName) {
        if self.canaries.get(name).is_some_and(|canary| canary.observed.is_some()) {
            self.standings.note(name);
        }
    }
}
