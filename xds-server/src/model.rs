//! What is to be served, in words of routing.

use std::collections::BTreeMap;
use std::sync::Arc;

use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;

pub mod http;
pub mod traffic;

use crate::lineage::{Adoption, Unadopted};

use http::HttpOptions;
use traffic::{Front, TrafficPolicy};

/// Name of the filter in listeners, of its ECDS resource, and of our namespace in route metadata.
pub const FILTER: &str = "wingbeat";

/// Everything that the Envoys are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// Where the Envoys listen.
    pub listeners: Vec<Listener>,
    /// What is routed.
    pub hosts: Vec<Arc<VirtualHost>>,
    /// Where it is routed to.
    pub clusters: Vec<Arc<Cluster>>,
    /// The filter's module; without it, listeners have no filter.
    pub filter: Option<Arc<[u8]>>,
    /// Whose routes are not to take the place of another state's.
    pub unadopted: Unadopted,
}

/// What the Envoys are told in another way than before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelChange {
    /// What all hosts share, if it is another.
    pub front: Option<ModelFront>,
    /// Hosts by a key of whoever makes the change, in whose order they are in route tables; nothing for one that is gone.
    pub hosts: BTreeMap<Arc<str>, Option<Arc<ServedHost>>>,
}

/// What all hosts share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFront {
    /// Where the Envoys listen.
    pub listeners: Vec<Listener>,
    /// The filter's module; without it, listeners have no filter.
    pub filter: Option<Arc<[u8]>>,
}

/// A host with the clusters that its routes lead to, or may at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedHost {
    /// Its name.
    pub name: String,
    /// Names of the listeners that it is, or may be, part of.
    pub listeners: Vec<String>,
    /// What is routed, once that is known.
    pub host: Option<Arc<VirtualHost>>,
    /// Where it is routed to.
    pub clusters: Vec<Arc<Cluster>>,
    /// Whether its routes may take the place of another state's.
    pub adoption: Adoption,
}

impl From<&Model> for ModelChange {
    /// Returns the change from nothing to all of it.
    fn from(model: &Model) -> Self {
        let front = ModelFront { listeners: model.listeners.clone(), filter: model.filter.clone() };
        let host = |host: &Arc<VirtualHost>| {
            let adoption = model.unadopted.values().find_map(|hosts| hosts.get(&host.name)).copied();
            ServedHost {
                name: host.name.clone(),
                listeners: host.listeners.clone(),
                host: Some(host.clone()),
                clusters: Vec::new(),
                adoption: adoption.unwrap_or_default(),
            }
        };
        let clusters = ServedHost { clusters: model.clusters.clone(), ..ServedHost::default() };
        let hosts = model.hosts.iter().map(host).chain([clusters]);
        // Their order is that of the model.
        let hosts = hosts.enumerate().map(|(place, served)| (format!("{place:08}").into(), Some(Arc::new(served))));
        Self { front: Some(front), hosts: hosts.collect() }
    }
}

/// A listener, with a route configuration of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique.
    pub name: String,
    /// IP address to bind.
    pub address: String,
    /// Port to bind.
    pub port: u16,
    /// Values of `node.cluster` that it is for; empty: all.
    pub node_clusters: Vec<String>,
    /// Where its requests are logged; none: nowhere.
    pub access_log: Option<AccessLog>,
    /// How it speaks with clients.
    pub front: Front,
}

/// A file that Envoy writes a line to for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The file, on Envoy's machine.
    pub path: String,
    /// What a line says.
    pub format: LogFormat,
}

/// What a line of an access log says, in Envoy's command operators like `%DURATION%`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Envoy's default.
    #[default]
    Default,
    /// A text. Lines end by themselves.
    Text(String),
    /// A JSON object, by field. A value that is one operator keeps its type.
    Json(BTreeMap<String, String>),
}

/// A host of one or more listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualHost {
    /// `NAMESPACE/CANARY`.
    pub name: String,
    /// Domains that it answers to.
    pub domains: Vec<String>,
    /// Names of the listeners that it is part of.
    pub listeners: Vec<String>,
    /// Longest time for a request; none means no limit.
    pub timeout: Option<Span>,
    /// Whether failed requests are tried again.
    pub retries: Option<Retries>,
    /// How requests and responses are changed.
    pub http: HttpOptions,
    /// How requests are divided.
    pub split: Split,
    /// Travels as metadata of every route.
    pub rev: Rev,
    /// True while a rollout runs: the filter sees the requests.
    pub filter: bool,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Tries beyond the first.
    pub attempts: u32,
    /// Longest time for one try.
    pub per_try_timeout: Option<Span>,
    /// Envoy's `retry_on`, with statuses among its conditions as Istio has them.
    pub retry_on: String,
}

/// How requests are divided between the arms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// All to one cluster.
    Single(ClusterName),
    /// By chance, or by the bucket header where the filter sets it.
    Weighted {
        /// Cluster of the primary.
        primary: ClusterName,
        /// Cluster of the canary.
        canary: ClusterName,
        /// Share of the canary.
        weight: BasisPoints,
        /// True if the bucket header decides.
        by_bucket: bool,
    },
    /// Those that carry the arm header with this value to the canary.
    Header {
        /// Cluster of the primary.
        primary: ClusterName,
        /// Cluster of the canary.
        canary: ClusterName,
        /// A random token of the rollout.
        value: String,
    },
    /// All to the primary, a share of them copied to the canary.
    Mirror {
        /// Cluster of the primary.
        primary: ClusterName,
        /// Cluster that gets the copies.
        canary: ClusterName,
        /// Share of requests that are copied.
        share: BasisPoints,
    },
}

impl Split {
    /// Returns the clusters that requests may go to.
    pub fn clusters(&self) -> Vec<&ClusterName> {
        match self {
            Self::Single(cluster) => vec![cluster],
            Self::Weighted { primary, canary, .. }
            | Self::Header { primary, canary, .. }
            | Self::Mirror { primary, canary, .. } => vec![primary, canary],
        }
    }
}

/// A cluster: one revision of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `NAMESPACE/WORKLOAD/REVISION`.
    pub name: ClusterName,
    /// Names of the listeners whose hosts lead to it, or may at any time.
    pub listeners: Vec<String>,
    /// Host (an IP address or a name) and port of each endpoint.
    pub endpoints: Vec<(String, u16)>,
    /// True if the upstream speaks HTTP/2.
    pub http2: bool,
    /// How it is used.
    pub traffic: TrafficPolicy,
}
