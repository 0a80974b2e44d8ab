//! One state-of-the-world stream, as a machine: requests and snapshots in, responses out. It knows no network.
//!
//! ```text
//!  request ─► Session::request ─┐
//!  snapshot ► Session::snapshot ┼─► responses, in an order in which nothing refers to what is not there yet
//! ```
//!
//! Rules of the [xDS protocol](https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol) are named where
//! they apply. Memory is bounded: one response per type is outstanding, and the newest snapshot wins.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resource::{Kind, Resource, Version};
use crate::snapshot::{Resources, Snapshot};

/// What a client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Names that it wants; none may mean all.
    pub names: Vec<String>,
    /// Nonce of the response that this answers; empty in the first request of a type.
    pub nonce: String,
    /// Version that the client holds.
    pub version: String,
    /// Set if the client rejects the response.
    pub error: Option<String>,
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Type of the resources.
    pub kind: Kind,
    /// Version of the set.
    pub version: Version,
    /// To be repeated by the client.
    pub nonce: String,
    /// The resources.
    pub resources: Vec<Arc<Resource>>,
}

/// A client's refusal of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Type of the resources.
    pub kind: Kind,
    /// The version that was refused; it is not sent again.
    pub version: Version,
    /// Why, in the client's words.
    pub error: String,
}

/// What a request came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// To be sent, in this order.
    pub responses: Vec<Response>,
    /// Set if the client refused something.
    pub nack: Option<Nack>,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    node_cluster: String,
    snapshot: Option<Arc<Snapshot>>,
    types: [Subscription; Kind::ALL.len()],
    /// Clusters that are gone, and their endpoints, until routes that may refer to them are replaced.
    lingering: [Resources; 2],
    nonce: u64,
}

#[derive(Debug, Default)]
struct Subscription {
    wanted: Option<Wanted>,
    /// The response that is not answered yet, or was answered last.
    sent: Option<Sent>,
    /// Names came that were not subscribed before: they must be sent even if nothing changed.
    forced: bool,
    accepted: Option<Version>,
    refused: Option<Version>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Names(BTreeSet<String>),
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    version: Version,
    outstanding: bool,
}

impl Session {
    /// Returns the machine of a new stream, of a node of this cluster.
    pub fn new(node_cluster: &str) -> Self {
        Self {
            node_cluster: node_cluster.to_owned(),
            snapshot: None,
            types: Default::default(),
            lingering: Default::default(),
            nonce: 0,
        }
    }

    /// Takes a request.
    pub fn request(&mut self, kind: Kind, request: &Request) -> Reaction {
        let subscription = self.subscription(kind);
        let mut nack = None;
        if let Some(sent) = &mut subscription.sent {
            // "Stale nonces": the client has not seen the latest response yet; its answer to that will come.
            if request.nonce != sent.nonce {
                return Reaction::default();
            }
            if sent.outstanding {
                sent.outstanding = false;
                // "ACK and NACK": told apart by error_detail, not by the version.
                if let Some(error) = &request.error {
                    subscription.refused = Some(sent.version);
                    nack = Some(Nack { kind, version: sent.version, error: error.clone() });
                } else {
                    subscription.accepted = Some(sent.version);
                    subscription.refused = None;
                }
            }
        }
        subscription.subscribe(kind, &request.names);
        self.release();
        Reaction { responses: self.pump(), nack }
    }

    /// Takes a new snapshot.
    pub fn snapshot(&mut self, snapshot: &Arc<Snapshot>) -> Vec<Response> {
        if let Some(old) = self.snapshot.replace(snapshot.clone()) {
            for (held, kind) in self.lingering.iter_mut().zip([Kind::Cluster, Kind::Endpoints]) {
                let new = snapshot.resources(kind, &self.node_cluster);
                held.extend(old.resources(kind, &self.node_cluster));
                held.retain(|name, _| !new.contains_key(name));
            }
        }
        self.release();
        self.pump()
    }

    /// Returns the version of a type that the client has accepted.
    pub fn accepted(&self, kind: Kind) -> Option<Version> {
        self.types.get(kind as usize).and_then(|subscription| subscription.accepted)
    }

    /// Lets go of clusters that are gone once the routes without them are accepted: a route to a cluster that
    /// does not exist answers 503 ("Eventual consistency considerations").
    fn release(&mut self) {
        let routes = self.types.get(Kind::Routes as usize);
        let replaced = match routes {
            Some(Subscription { wanted: Some(_), accepted, .. }) => {
                self.content(Kind::Routes).is_none_or(|(version, _)| *accepted == Some(version))
            }
            // No routes, nothing that refers.
            Some(_) | None => true,
        };
        if replaced {
            self.lingering = Default::default();
        }
    }

    fn pump(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        for kind in Kind::ALL {
            let Some((version, resources)) = self.content(kind) else { continue };
            let subscription = self.subscription(kind);
            if !subscription.is_due(version) {
                continue;
            }
            subscription.forced = false;
            self.nonce = self.nonce.saturating_add(1);
            let nonce = self.nonce.to_string();
            self.subscription(kind).sent = Some(Sent { nonce: nonce.clone(), version, outstanding: true });
            if kind == Kind::Cluster {
                // A cluster that changed warms anew and waits for endpoints, changed or not.
                self.subscription(Kind::Endpoints).forced = true;
            }
            responses.push(Response { kind, version, nonce, resources });
        }
        responses
    }

    /// Returns what the client is to hold of a type, or none if it asked for nothing or nothing is known yet.
    fn content(&self, kind: Kind) -> Option<(Version, Vec<Arc<Resource>>)> {
        let wanted = self.types.get(kind as usize)?.wanted.as_ref()?;
        let mut resources = self.snapshot.as_ref()?.resources(kind, &self.node_cluster);
        let [clusters, endpoints] = &self.lingering;
        match kind {
            Kind::Cluster => resources.extend(clusters.clone()),
            Kind::Endpoints => resources.extend(endpoints.clone()),
            Kind::Listener | Kind::Routes | Kind::Extension => {}
        }
        if let Wanted::Names(names) = wanted {
            resources.retain(|name, _| names.contains(name));
        }
        let resources: Vec<Arc<Resource>> = resources.into_values().collect();
        Some((Version::of_all(&resources), resources))
    }

    fn subscription(&mut self, kind: Kind) -> &mut Subscription {
        // Both lists have the length of `Kind::ALL`.
        let [clusters, endpoints, listeners, routes, extensions] = &mut self.types;
        match kind {
            Kind::Cluster => clusters,
            Kind::Endpoints => endpoints,
            Kind::Listener => listeners,
            Kind::Routes => routes,
            Kind::Extension => extensions,
        }
    }
}

impl Subscription {
    fn subscribe(&mut self, kind: Kind, names: &[String]) {
        let named: BTreeSet<String> = names.iter().filter(|name| *name != "*").cloned().collect();
        let star = names.iter().any(|name| name == "*");
        // "Wildcard": no names at all mean everything, unless the client has named something before.
        let legacy = names.is_empty() && kind.has_wildcard() && !matches!(self.wanted, Some(Wanted::Names(_)));
        let wanted = if star || legacy { Wanted::All } else { Wanted::Names(named) };
        if let (Wanted::Names(new), Some(Wanted::Names(old))) = (&wanted, &self.wanted) {
            self.forced |= !new.is_subset(old);
        }
        self.wanted = Some(wanted);
    }

    fn is_due(&self, version: Version) -> bool {
        match &self.sent {
            None => true,
            Some(sent) if sent.outstanding => false,
            Some(_) if self.refused == Some(version) => false,
            Some(sent) => self.forced || sent.version != version,
        }
    }
}

#[cfg(test)]
mod tests;
