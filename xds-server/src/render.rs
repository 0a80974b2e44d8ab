//! Puts a [`Model`] into Envoy's messages. The same model gives the same bytes.

use std::collections::BTreeSet;

use envoy_types::pb::google::protobuf::Duration;
use wingbeat_core::time::Span;

use crate::model::{FILTER, Model, VirtualHost};
use crate::resource::{Kind, Resource};
use crate::snapshot::Snapshot;

pub(crate) use extension::CONTROL_CLUSTER;

mod cluster;
mod extension;

mod listener;
mod route;

/// Returns the snapshot that serves this model.
pub fn render(model: &Model) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for cluster in &model.clusters {
        let name = cluster.name.as_str();
        snapshot.add(Kind::Cluster, Resource::new(name, &cluster::cluster(cluster)));
        if let Some(endpoints) = cluster::endpoints(cluster) {
            snapshot.add(Kind::Endpoints, Resource::new(name, &endpoints));
        }
    }
    let names: BTreeSet<&str> = model.listeners.iter().map(|listener| listener.name.as_str()).collect();
    for listener in &model.listeners {
        let message = listener::listener(listener, model.filter.is_some());
        let node_clusters = listener.node_clusters.clone();
        snapshot.add(Kind::Listener, Resource { node_clusters, ..Resource::new(&listener.name, &message) });
    }
    for name in names {
        let on_listener = |host: &&VirtualHost| host.listeners.iter().any(|listener| listener == name);
        let hosts: Vec<&VirtualHost> = model.hosts.iter().filter(on_listener).collect();
        let refers_to = hosts.iter().flat_map(|host| host.split.clusters()).map(ToString::to_string).collect();
        snapshot.add(Kind::Routes, Resource { refers_to, ..Resource::new(name, &route::routes(name, &hosts)) });
    }
    if let Some(module) = &model.filter {
        snapshot.add(Kind::Extension, Resource::new(FILTER, &extension::filter(module)));
    }
    snapshot
}

fn duration(span: Span) -> Duration {
    let (secs, nanos) = (span.as_nanos() / 1_000_000_000, span.as_nanos() % 1_000_000_000);
    Duration { seconds: i64::try_from(secs).unwrap_or(i64::MAX), nanos: i32::try_from(nanos).unwrap_or_default() }
}
