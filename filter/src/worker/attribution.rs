//! Which rollout a request belongs to.
//!
//! The policy names, for each cluster, the rollout that is counted and the rev of its first routes. What was routed by
//! earlier ones belongs to a rollout before, and is not charged to this one, whenever it ends. Routes of a worker only
//! move forward, so the rev of a request has to be read no more once one that began before it was routed by them.

use std::collections::BTreeMap;

use wingbeat_core::matching::assignment::Assignment;
use wingbeat_core::outcome::Stratum;
use wingbeat_proto::v1;

use crate::clients::Clients;
use crate::counters::CounterKey;
use crate::host::{Host, text};
use crate::worker::attributes::{EndedAttributes, Timing};
use crate::worker::in_flight::RequestClass;

/// Requests that wait for the policy that names their cluster: those of the first milliseconds of a rollout. Beyond it
/// they are only counted.
pub(super) const MAX_UNASSIGNED: usize = 1_024;
/// Clusters whose requests beyond that are counted, and clusters that it is known of that a policy was asked for.
pub(super) const MAX_LEFT_OUT: usize = 16;

/// A cluster that the policy names.
#[derive(Debug)]
pub(super) struct CountedCluster {
    pub(super) policy: v1::ClusterPolicy,
    /// Whose requests hung here in this rollout, where shares are bounded.
    pub(super) clients: Clients,
    /// Since when its rollout is known here.
    since_ns: u64,
    /// Start of the earliest request that is known to have been routed by the rollout.
    routed_since_ns: Option<u64>,
    /// A request has told the rev of its route since the last tick: one is enough, and a busy canary must not keep
    /// another from being known to flow.
    pub(super) rev_is_known: bool,
}

/// Which rollout a request belongs to.
pub(super) enum Attribution {
    /// It is counted here.
    Counted(CounterKey),
    /// It was routed by us, and the policy does not name its cluster yet.
    Unassigned {
        /// Where it was sent.
        cluster: String,
        /// The rev of its route.
        rev: u64,
    },
    /// None that is counted.
    None,
}

/// A request that ended before the policy named its cluster.
#[derive(Debug)]
pub(super) struct UnattributedRequest {
    pub(super) cluster: String,
    pub(super) rev: u64,
    pub(super) class: RequestClass,
    pub(super) called: Option<String>,
    pub(super) timing: Timing,
    pub(super) ended: EndedAttributes,
}

/// Requests of a cluster that are only counted.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) cluster: String,
    /// The latest routes that they took. What took earlier ones is of a rollout before.
    pub(super) rev: u64,
    pub(super) requests: u64,
}

/// Requests that ended before the policy named their clusters.
#[derive(Debug, Default)]
pub(super) struct PendingAttribution {
    pub(super) requests: Vec<UnattributedRequest>,
    pub(super) left_out: Vec<LeftOut>,
    /// Clusters that a policy was asked for, with the latest routes there.
    asked: Vec<(String, u64)>,
}

impl PendingAttribution {
    /// Returns true the first time that routes of this rev, or later ones, are seen to lead there.
    pub(super) fn is_new(&mut self, cluster: &str, rev: u64) -> bool {
        if self.asked.iter().any(|(known, latest)| known == cluster && rev <= *latest) {
            return false;
        }
        self.asked.retain(|(known, _)| known != cluster);
        // Those of rollouts that are over need no place.
        if self.asked.len() >= MAX_LEFT_OUT {
            self.asked.clear();
        }
        self.asked.push((cluster.to_owned(), rev));
        true
    }
}

impl LeftOut {
    /// Counts one more.
    pub(super) fn add(&mut self, rev: u64) {
        if rev > self.rev {
            (self.rev, self.requests) = (rev, 1);
        } else if rev == self.rev {
            self.requests = self.requests.saturating_add(1);
        }
    }
}

impl CountedCluster {
    /// Returns the cluster as this policy has it. `before` is what was known by the policy before: the same rollout
    /// goes on with it, and the next one begins with nothing.
    pub(super) fn new(policy: v1::ClusterPolicy, before: Option<&mut Self>, now_ns: u64) -> Self {
        match before.filter(|before| before.policy.epoch == policy.epoch) {
            Some(before) => Self { policy, clients: std::mem::take(&mut before.clients), ..*before },
            None => Self {
                policy,
                clients: Clients::default(),
                since_ns: now_ns,
                routed_since_ns: None,
                rev_is_known: false,
            },
        }
    }

    /// Returns true if the routes of the rollout's own host brought a request here: only their revs are the rollout's. One
    /// that is not compared tells them too, or nobody would know what a proxy serves before the first that matches.
    pub(super) fn is_routed_by(&self, stratum: Stratum, called: Option<&str>) -> bool {
        stratum == Stratum::Judged || called == Some(self.policy.virtual_host.as_str())
    }

    /// Returns true if a request that began at this time belongs to the rollout.
    pub(super) fn owns(&mut self, host: &dyn Host, stratum: Stratum, called: Option<&str>, started_ns: u64) -> bool {
        if self.policy.first_rev == 0 {
            return true;
        }
        if !self.is_routed_by(stratum, called) {
            return started_ns >= self.since_ns;
        }
        if self.routed_since_ns.is_some_and(|since| started_ns >= since) {
            return true;
        }
        let owned = match route_rev(host) {
            Some(rev) => rev >= self.policy.first_rev,
            None => return started_ns >= self.since_ns,
        };
        if owned {
            self.routed_since_ns = Some(self.routed_since_ns.map_or(started_ns, |since| since.min(started_ns)));
        }
        owned
    }

    /// Returns where a request of the host `called` is counted.
    pub(super) fn stratum(&self, class: RequestClass, called: Option<&str>, divided: Option<&Assignment>) -> Stratum {
        if self.policy.virtual_host.is_empty() {
            return Stratum::Judged;
        }
        // Traffic that calls an arm by another name is not what is compared (P7); nor is, where matching requests
        // are held back, the primary's traffic that matches nothing (P12).
        let only_held_back = self.policy.arm == 0 && divided.is_some_and(Assignment::holds_back);
        let compared =
            called == Some(self.policy.virtual_host.as_str()) && (class == RequestClass::HeldBack || !only_held_back);
        if compared { Stratum::Judged } else { Stratum::Direct }
    }
}

/// Returns the rev of the request's route; none if it is not one of ours.
pub(super) fn route_rev(host: &dyn Host) -> Option<u64> {
    text(host, "xds\0route_metadata\0filter_metadata\0wingbeat\0rev")?.parse().ok()
}

/// Returns true if requests of this place are of a rollout that is counted.
pub(super) fn is_live(clusters: &BTreeMap<String, CountedCluster>, place: &CounterKey) -> bool {
    clusters.get(&place.cluster).is_some_and(|counted| counted.policy.epoch == place.epoch)
}

/// Returns the name of the virtual host that the request called.
pub(super) fn virtual_host(host: &dyn Host) -> Option<String> {
    text(host, "xds\0virtual_host_name")
}
