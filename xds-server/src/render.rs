//! Puts a [`Model`] into Envoy's messages. The same model gives the same bytes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Duration;
use wingbeat_core::time::Span;

use crate::model::{Cluster, FILTER, Model, VirtualHost};
use crate::resource::{Kind, Part, Resource};
use crate::snapshot::{Resources, Snapshot};

pub(crate) use extension::CONTROL_CLUSTER;
pub(crate) use route::routes;

mod access_log;
mod cluster;
mod cors;
mod extension;
mod http;
mod listener;
mod route;

/// Returns the snapshot that serves this model.
pub fn render(model: &Model) -> Snapshot {
    Renderer::default().render(model)
}

/// Renders one model after another. Hosts and clusters that are the very same as in the one before are not rendered
/// again, so that a change of one canary among thousands costs little more than that of one alone.
#[derive(Debug, Default)]
pub struct Renderer {
    clusters: Kept<Cluster, (Arc<Resource>, Option<Arc<Resource>>)>,
    hosts: Kept<VirtualHost, Arc<Part>>,
    filter: Kept<[u8], Arc<Resource>>,
    before: Snapshot,
}

impl Renderer {
    /// Returns the snapshot that serves this model.
    pub fn render(&mut self, model: &Model) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let changed = self.clusters.renew(&model.clusters, |cluster| {
            let name = cluster.name.as_str();
            let endpoints = cluster::endpoints(cluster).map(|endpoints| Arc::new(Resource::new(name, &endpoints)));
            (Arc::new(Resource::new(name, &cluster::cluster(cluster))), endpoints)
        });
        if changed {
            let by_name = |resource: &Arc<Resource>| (resource.name.clone(), resource.clone());
            let kept = || self.clusters.of(&model.clusters);
            let clusters: Resources = kept().map(|(cluster, _)| by_name(cluster)).collect();
            let endpoints: Resources = kept().filter_map(|(_, endpoints)| endpoints.as_ref().map(by_name)).collect();
            snapshot.set(Kind::Cluster, Arc::new(clusters));
            snapshot.set(Kind::Endpoints, Arc::new(endpoints));
        } else {
            for kind in [Kind::Cluster, Kind::Endpoints] {
                snapshot.set(kind, self.before.of(kind).clone());
            }
        }
        let names: BTreeSet<&str> = model.listeners.iter().map(|listener| listener.name.as_str()).collect();
        for listener in &model.listeners {
            let message = listener::listener(listener, model.filter.is_some());
            let node_clusters = listener.node_clusters.clone();
            snapshot.add(Kind::Listener, Resource { node_clusters, ..Resource::new(&listener.name, &message) });
        }
        self.hosts.renew(&model.hosts, |host| Arc::new(route::part(host)));
        for name in names {
            let on_listener = |host: &&Arc<VirtualHost>| host.listeners.iter().any(|listener| listener == name);
            let hosts = model.hosts.iter().filter(on_listener);
            let parts = hosts.filter_map(|host| self.hosts.get(host)).cloned().collect();
            snapshot.add(Kind::Routes, routes(name, parts));
        }
        if let Some(module) = &model.filter {
            let filter = |module: &[u8]| Arc::new(Resource::new(FILTER, &extension::filter(module)));
            self.filter.renew(std::slice::from_ref(module), filter);
            let resources = self.filter.get(module).map(|resource| (resource.name.clone(), resource.clone()));
            snapshot.set(Kind::Extension, Arc::new(resources.into_iter().collect()));
        }
        snapshot.hold(model.unadopted.clone());
        self.before = snapshot.clone();
        snapshot
    }
}

/// What was rendered of the parts of a model, by the place in memory of each: it is held here, so that no other part can
/// come to lie there.
#[derive(Debug)]
struct Kept<P: ?Sized, R>(HashMap<usize, (Arc<P>, R)>);

impl<P: ?Sized, R> Default for Kept<P, R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<P: ?Sized, R> Kept<P, R> {
    /// Renders the parts that are new and forgets those that are gone. Returns true if there are any.
    fn renew(&mut self, parts: &[Arc<P>], render: impl Fn(&P) -> R) -> bool {
        let mut before = std::mem::take(&mut self.0);
        let mut changed = false;
        for part in parts {
            let kept = before.remove(&address(part)).unwrap_or_else(|| {
                changed = true;
                (part.clone(), render(part))
            });
            self.0.insert(address(part), kept);
        }
        changed || !before.is_empty()
    }

    fn get(&self, part: &Arc<P>) -> Option<&R> {
        self.0.get(&address(part)).map(|(_, rendered)| rendered)
    }

    /// Returns what was rendered of these, in their order.
    fn of<'a>(&'a self, parts: &'a [Arc<P>]) -> impl Iterator<Item = &'a R> {
        parts.iter().filter_map(|part| self.get(part))
    }
}

fn address<P: ?Sized>(part: &Arc<P>) -> usize {
    Arc::as_ptr(part).cast::<()>().addr()
}

fn duration(span: Span) -> Duration {
    let (secs, nanos) = (span.as_nanos() / 1_000_000_000, span.as_nanos() % 1_000_000_000);
    Duration { seconds: i64::try_from(secs).unwrap_or(i64::MAX), nanos: i32::try_from(nanos).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use prost::Message as _;
    use wingbeat_core::id::{ClusterName, Rev};

    use super::*;
    use crate::model::http::HttpOptions;
    use crate::model::traffic::{Front, TrafficPolicy};
    use crate::model::{Listener, Split};

    fn host(name: &str, rev: u64) -> Arc<VirtualHost> {
        Arc::new(VirtualHost {
            name: name.to_owned(),
            domains: vec![format!("{name}.local")],
            listeners: vec!["l".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            split: Split::Single(ClusterName::new(name)),
            rev: Rev::new(rev),
            filter: true,
        })
    }

    fn cluster(name: &str, port: u16) -> Arc<Cluster> {
        let endpoints = vec![("127.0.0.1".to_owned(), port)];
        Arc::new(Cluster { name: ClusterName::new(name), endpoints, http2: false, traffic: TrafficPolicy::default() })
    }

    fn model(hosts: &[Arc<VirtualHost>], clusters: &[Arc<Cluster>]) -> Model {
        let listener = Listener {
            name: "l".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 80,
            node_clusters: Vec::new(),
            access_log: None,
            front: Front::default(),
        };
        let filter = Some(Arc::from(&b"module"[..]));
        Model {
            listeners: vec![listener],
            hosts: hosts.to_vec(),
            clusters: clusters.to_vec(),
            filter,
            ..Model::default()
        }
    }

    #[test]
    fn one_after_another_renders_as_each_alone() {
        let (a, b, c) = (host("a", 1), host("b", 1), host("c", 1));
        let (one, two) = (cluster("a", 1), cluster("b", 2));
        let models = [
            model(&[a.clone(), b.clone()], &[one.clone(), two.clone()]),
            model(&[a.clone(), b.clone()], &[one.clone(), two.clone()]),
            model(&[a, host("b", 2), c.clone()], &[one.clone(), cluster("b", 3)]),
            model(&[b, c], &[two, cluster("c", 3)]),
            model(&[], &[one]),
            Model::default(),
        ];
        let mut renderer = Renderer::default();
        for model in &models {
            assert_eq!(renderer.render(model), render(model));
        }
    }

    #[test]
    fn what_is_put_together_from_parts_is_envoys_message() {
        let hosts = [host("a", 1), host("b", 7)];
        let snapshot = render(&model(&hosts, &[]));
        let resource = snapshot.of(Kind::Routes).get("l").unwrap();
        let message = RouteConfiguration::decode(resource.body.clone()).unwrap();
        assert_eq!(message.name, "l");
        assert_eq!(message.virtual_hosts, hosts.map(|host| route::virtual_host(&host)));
        assert_eq!(message.encode_to_vec(), resource.body, "and nothing else");
        assert!(message.ignore_port_in_host_matching);
        let other = render(&model(&[host("a", 2), host("b", 7)], &[]));
        assert_ne!(other.of(Kind::Routes).get("l").unwrap().version, resource.version);
    }
}
