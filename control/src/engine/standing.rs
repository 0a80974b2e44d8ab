//! Where canaries stand, for whoever keeps the objects that follow from it. What is told is stored: nothing is made of a step
//! that a restart would not find.

use std::collections::BTreeSet;
use std::sync::Arc;

use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::State;

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

    pub(super) fn take(&mut self) -> BTreeSet<CanaryName> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn forget(&mut self, name: &CanaryName) {
        self.0.remove(name);
    }
}
