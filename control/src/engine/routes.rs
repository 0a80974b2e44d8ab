//! What is served: the routes that the states imply, with the clusters that they lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_api::desired_state::Targeting;
use wingbeat_core::id::{Arm, CanaryName, ClusterName};
use wingbeat_core::rollout::{Projection, Routes, Share, project};
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::{Cluster, ServedHost, Split, VirtualHost};

use crate::engine::canary::Canary;
use crate::targets::Targets;

/// What is served of each canary, and of which it is another one than was served last.
#[derive(Debug, Default)]
pub(super) struct ServedHosts {
    by_name: BTreeMap<CanaryName, Arc<ServedHost>>,
    changed: BTreeSet<CanaryName>,
    /// The clusters that routes lead to and that there are none of.
    missing: BTreeMap<CanaryName, ClusterName>,
}

impl ServedHosts {
    /// Makes what is served of a canary what it implies now. What is the same stays the very same, for those who compare.
    pub(super) fn renew(&mut self, name: &CanaryName, canary: &Canary) {
        let before = self.by_name.get(name);
        let known_host =
            |host: &VirtualHost| before.and_then(|before| before.host.as_ref()).filter(|it| ***it == *host);
        let host = host(canary).map(|host| known_host(&host).cloned().unwrap_or_else(|| Arc::new(host)));
        let known_cluster = |cluster: &Cluster| before?.clusters.iter().find(|known| known.as_ref() == cluster);
        let clusters = clusters(canary);
        let clusters = clusters.map(|cluster| known_cluster(&cluster).cloned().unwrap_or_else(|| Arc::new(cluster)));
        let served = ServedHost {
            name: host_name(name),
            listeners: canary.config.service.listeners.clone(),
            clusters: clusters.collect(),
            host,
            adoption: canary.adoption,
        };
        if before.is_none_or(|before| **before != served) {
            match missing(&served) {
                Some(cluster) => self.missing.insert(name.clone(), cluster),
                None => self.missing.remove(name),
            };
            self.by_name.insert(name.clone(), Arc::new(served));
            self.changed.insert(name.clone());
        }
    }

    pub(super) fn remove(&mut self, name: &CanaryName) {
        self.by_name.remove(name);
        self.missing.remove(name);
        self.changed.insert(name.clone());
    }

    /// Returns the cluster that a canary's routes lead to and that there is none of, if one is missing. Proxies are not sent
    /// such routes, and keep those that they have.
    pub(super) fn missing(&self, name: &CanaryName) -> Option<&ClusterName> {
        self.missing.get(name)
    }

    /// Returns true if something is another one since that was asked for last.
    pub(super) fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns what is another one since this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeMap<Arc<str>, Option<Arc<ServedHost>>> {
        // A key sorts as the name does.
        let key = |name: &CanaryName| format!("{}\0{}", name.namespace, name.name).into();
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|name| (key(&name), self.by_name.get(&name).cloned())).collect()
    }

    #[cfg(test)]
    pub(super) const fn all(&self) -> &BTreeMap<CanaryName, Arc<ServedHost>> {
        &self.by_name
    }
}

fn missing(served: &ServedHost) -> Option<ClusterName> {
    let needed = served.host.as_deref().map(|host| host.split.clusters()).unwrap_or_default();
    needed.into_iter().find(|name| served.clusters.iter().all(|cluster| cluster.name != **name)).cloned()
}

fn host_name(of: &CanaryName) -> String {
    format!("{}/{}", of.namespace, of.name)
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
        name: host_name(plan.name()),
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

fn clusters(canary: &Canary) -> impl Iterator<Item = Cluster> {
    let config = &canary.config;
    canary.revision_clusters().into_iter().map(|(name, endpoints)| Cluster {
        name,
        listeners: config.service.listeners.clone(),
        endpoints,
        http2: config.workload.http2,
        traffic: config.service.traffic.clone(),
    })
}
