//! What is served: the routes that the states imply, with the clusters that they lead to.

use std::sync::Arc;

use wingbeat_api::desired_state::{CanaryConfig, Targeting, cluster_name};
use wingbeat_core::id::{Arm, ClusterName};
use wingbeat_core::rollout::{Projection, Routes, Share, project};
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::{Cluster, Model, Split, VirtualHost};

use crate::engine::around::Around;
use crate::engine::canary::Canary;
use crate::targets::Targets;

/// What is served of one canary.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    clusters: Vec<Arc<Cluster>>,
    host: Option<Arc<VirtualHost>>,
}

impl Served {
    /// Returns the cluster that the routes lead to and that there is none of, if one is missing. Proxies are not sent such
    /// routes, and keep those that they have.
    pub(super) fn missing(&self) -> Option<&ClusterName> {
        let needed = self.host.as_deref().map(|host| host.split.clusters()).unwrap_or_default();
        needed.into_iter().find(|name| self.clusters.iter().all(|cluster| cluster.name != **name))
    }

    /// Makes it what the canary implies now. What is the same stays the very same, for those who compare.
    pub(super) fn renew(&mut self, canary: &Canary) {
        let host = host(canary);
        if self.host.as_deref() != host.as_ref() {
            self.host = host.map(Arc::new);
        }
        let before = std::mem::take(&mut self.clusters);
        let same = |cluster: &Cluster| before.iter().find(|known| known.as_ref() == cluster).cloned();
        let clusters = clusters(&canary.config);
        self.clusters = clusters.map(|cluster| same(&cluster).unwrap_or_else(|| Arc::new(cluster))).collect();
    }
}

/// Returns the model that serves all of these.
pub(super) fn model<'a>(around: &Around, served: impl Iterator<Item = &'a Served>) -> Model {
    let mut model = Model { listeners: around.listeners.clone(), filter: around.filter.clone(), ..Model::default() };
    for served in served {
        model.clusters.extend(served.clusters.iter().cloned());
        model.hosts.extend(served.host.iter().cloned());
    }
    model
}

fn host(canary: &Canary) -> Option<VirtualHost> {
    let plan = &canary.config.plan;
    let Projection { routes, revisions, .. } = project(&canary.state);
    let targets = Targets::of_revisions(plan, &revisions);
    let (split, filter) = match routes {
        Routes::Nowhere => return None,
        Routes::Settled(arm) => (Split::Single(targets.of(arm)?.clone()), canary.is_counted()),
        Routes::Shared { share } => {
            let (primary, under_judgement) = (targets.of(Arm::Primary)?, targets.of(Arm::Canary)?);
            (split(canary, primary.clone(), under_judgement.clone(), share), true)
        }
    };
    Some(VirtualHost {
        name: format!("{}/{}", plan.name().namespace, plan.name().name),
        domains: canary.config.service.hosts.clone(),
        listeners: canary.config.service.listeners.clone(),
        timeout: canary.config.service.timeout,
        retries: canary.config.service.retries.clone(),
        http: canary.config.service.http.clone(),
        split,
        rev: canary.state.rev,
        filter,
    })
}

fn split(canary: &Canary, primary: ClusterName, under_judgement: ClusterName, share: Share) -> Split {
    match share {
        // Filters choose the requests among those that match, and mark them.
        Share::Weight(_) | Share::Everything if matches!(canary.config.audience, Targeting::Served(_)) => {
            Split::Header { primary, canary: under_judgement, value: canary.arm_token() }
        }
        Share::Nothing => {
            Split::Weighted { primary, canary: under_judgement, weight: BasisPoints::ZERO, by_bucket: false }
        }
        Share::Weight(weight) => {
            let by_bucket = matches!(canary.config.audience, Targeting::Users(_));
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
fn clusters(config: &CanaryConfig) -> impl Iterator<Item = Cluster> {
    config.workload.revisions.iter().map(|(revision, endpoints)| Cluster {
        name: cluster_name(&config.plan, revision),
        listeners: config.service.listeners.clone(),
        endpoints: endpoints.clone(),
        http2: config.workload.http2,
        traffic: config.service.traffic.clone(),
    })
}
