//! What the arms of a canary are at the proxies.
//!
//! The projection of a state says where requests go by arm; a platform says which cluster an arm is. Where revisions have a
//! cluster each, a promotion gives the arms other clusters, and nothing is copied ([`Handover::Relabel`]); where an arm is a
//! Service of its own, the arms stay what they are and what is behind them changes ([`Handover::Copy`]).
//!
//! [`Handover::Relabel`]: wingbeat_core::rollout::Handover::Relabel
//! [`Handover::Copy`]: wingbeat_core::rollout::Handover::Copy

use wingbeat_api::desired_state::cluster_name;
use wingbeat_core::id::{Arm, ClusterName};
use wingbeat_core::rollout::{Plan, Revisions};

/// The cluster of each arm that requests may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    primary: Option<ClusterName>,
    canary: Option<ClusterName>,
}

impl Targets {
    /// Returns the clusters of these revisions: each has one of its own.
    pub fn of_revisions(plan: &Plan, revisions: &Revisions) -> Self {
        let cluster = |arm| revisions.of(arm).map(|revision| cluster_name(plan, revision));
        Self { primary: cluster(Arm::Primary), canary: cluster(Arm::Canary) }
    }

    /// Returns the cluster of an arm.
    pub const fn of(&self, arm: Arm) -> Option<&ClusterName> {
        match arm {
            Arm::Primary => self.primary.as_ref(),
            Arm::Canary => self.canary.as_ref(),
        }
    }
}
