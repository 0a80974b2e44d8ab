//! What the filters are told: which clusters to count, and how long is too long.

use std::collections::BTreeMap;

use prost::Message as _;
use wingbeat_core::id::{Arm, CanaryName};
use wingbeat_proto::v1::{ClusterPolicy, Policy};
use wingbeat_xds_server::resource::Version;

use crate::engine::canary::Canary;

/// Returns the policy. Its version is made from its content: after a restart nobody needs to be told again.
pub(super) fn policy(canaries: &BTreeMap<CanaryName, Canary>) -> Policy {
    let mut policy = Policy::default();
    for (name, canary) in canaries {
        for arm in Arm::ALL {
            let Some(cluster) = canary.cluster(arm) else { continue };
            policy.clusters.push(ClusterPolicy {
                cluster: cluster.to_string(),
                arm: match arm {
                    Arm::Primary => 0,
                    Arm::Canary => 1,
                },
                overdue_ms: u32::try_from(canary.overdue.as_millis()).unwrap_or(u32::MAX),
                retries: canary.managed.service.retries.is_some(),
                virtual_host: format!("{}/{}", name.namespace, name.name),
                ..ClusterPolicy::default()
            });
        }
    }
    policy.version = Version::of([policy.encode_to_vec().as_slice()]).get().max(1);
    policy
}
