//! What is served: the routes that the states imply, with the clusters that they lead to.

use std::collections::BTreeMap;

use wingbeat_core::id::{CanaryName, ClusterName};
use wingbeat_core::rollout::{Plan, Routes, Share};
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::{Cluster, Model, Split, VirtualHost};

use crate::engine::canary::Canary;
use crate::setup::{Audience, Setup, Workload, cluster_name};

/// Returns the model that serves these canaries.
pub(super) fn model(setup: &Setup, canaries: &BTreeMap<CanaryName, Canary>) -> Model {
    let mut model = Model { listeners: setup.listeners.clone(), filter: setup.filter.clone(), ..Model::default() };
    for (name, canary) in canaries {
        let plan = &canary.managed.plan;
        model.clusters.extend(clusters(plan, &canary.managed.workload));
        let (split, filter) = match canary.routes() {
            Routes::Nowhere => continue,
            Routes::Settled(revision) => (Split::Single(cluster_name(plan, &revision)), false),
            Routes::Shared { primary, canary: under_judgement, share } => {
                (split(canary, cluster_name(plan, &primary), cluster_name(plan, &under_judgement), share), true)
            }
        };
        model.hosts.push(VirtualHost {
            name: format!("{}/{}", name.namespace, name.name),
            domains: canary.managed.service.hosts.clone(),
            listeners: canary.managed.service.listeners.clone(),
            timeout: canary.managed.service.timeout,
            retries: canary.managed.service.retries.clone(),
            split,
            rev: canary.state.rev,
            filter,
        });
    }
    model
}

fn split(canary: &Canary, primary: ClusterName, under_judgement: ClusterName, share: Share) -> Split {
    match share {
        Share::Nothing => {
            Split::Weighted { primary, canary: under_judgement, weight: BasisPoints::ZERO, by_bucket: false }
        }
        Share::Weight(weight) => {
            let by_bucket = matches!(canary.managed.audience, Audience::Users(_));
            Split::Weighted { primary, canary: under_judgement, weight, by_bucket }
        }
        Share::Everything => {
            Split::Weighted { primary, canary: under_judgement, weight: BasisPoints::FULL, by_bucket: false }
        }
        Share::Mirrored(share) => Split::Mirror { primary, canary: under_judgement, share },
        Share::Matched => Split::Header { primary, canary: under_judgement, value: canary.arm_token() },
    }
}

/// Every revision has its cluster, also those without traffic: a route never waits for one.
fn clusters<'a>(plan: &'a Plan, workload: &'a Workload) -> impl Iterator<Item = Cluster> + 'a {
    workload.revisions.iter().map(|(revision, endpoints)| Cluster {
        name: cluster_name(plan, revision),
        endpoints: endpoints.clone(),
        http2: workload.http2,
    })
}
