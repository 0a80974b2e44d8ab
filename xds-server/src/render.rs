//! Puts a [`Model`] into Envoy's messages. The same model gives the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::kind::Kind;
use crate::model::{Cluster, FILTER, Listener, Model, VirtualHost};
use crate::resource::{Part, Resource};
use crate::scope::{Scope, Scopes};
use crate::scoped_snapshots::ScopedSnapshots;
use crate::snapshot::{Resources, Snapshot};

pub(crate) use extension::CONTROL_CLUSTER;
pub(crate) use route::routes;

mod access_log;
mod cluster;
mod cors;
mod duration;
mod extension;
mod http;
mod listener;
mod route;

/// Returns what serves this model.
pub fn render(model: &Model) -> ScopedSnapshots {
    Renderer::default().render(model)
}

/// Renders one model after another. Hosts and clusters that are the very same as in the one before are not rendered
/// again, so that a change of one canary among thousands costs little more than that of one alone.
#[derive(Debug, Default)]
pub struct Renderer {
    clusters: RenderCache<Cluster, (Arc<Resource>, Option<Arc<Resource>>)>,
    hosts: RenderCache<VirtualHost, Arc<Part>>,
    filter: RenderCache<[u8], Arc<Resource>>,
    listeners: Resources,
    tables: Resources,
    before: ScopedSnapshots,
}

impl Renderer {
    /// Returns what serves this model.
    pub fn render(&mut self, model: &Model) -> ScopedSnapshots {
        let changed = self.clusters.renew(&model.clusters, |cluster| {
            let name = cluster.name.as_str();
            let endpoints = cluster::endpoints(cluster).map(|endpoints| Arc::new(Resource::new(name, &endpoints)));
            (Arc::new(Resource::new(name, &cluster::cluster(cluster))), endpoints)
        });
        self.hosts.renew(&model.hosts, |host| Arc::new(route::part(host)));
        let listener = |of: &Listener| Resource::new(&of.name, &listener::listener(of, model.filter.is_some()));
        self.listeners = the_same(&self.listeners, model.listeners.iter().map(listener));
        self.tables = the_same(&self.tables, self.tables_of(model));
        let mut extensions = Resources::new();
        if let Some(module) = &model.filter {
            let filter = |module: &[u8]| Arc::new(Resource::new(FILTER, &extension::filter(module)));
            self.filter.renew(std::slice::from_ref(module), filter);
            extensions.extend(self.filter.get(module).map(by_name));
        }
        let extensions = Arc::new(extensions);
        let views = ScopedSnapshots::new(Scopes::of_listeners(&model.listeners), |scope| {
            let mut snapshot = Snapshot::default();
            let [clusters, endpoints] = match self.before.of_scope(scope).filter(|_| !changed) {
                Some(before) => [Kind::Cluster, Kind::Endpoints].map(|kind| before.of(kind).clone()),
                None => self.clusters_of(model, scope),
            };
            snapshot.set(Kind::Cluster, clusters);
            snapshot.set(Kind::Endpoints, endpoints);
            for (kind, all) in [(Kind::Listener, &self.listeners), (Kind::Routes, &self.tables)] {
                let served = all.values().filter(|resource| scope.has(&resource.name));
                snapshot.set(kind, Arc::new(served.map(by_name).collect()));
            }
            snapshot.set(Kind::Extension, extensions.clone());
            let unadopted = model.unadopted.iter().filter(|(listener, _)| scope.has(listener));
            snapshot.hold(unadopted.map(|(listener, hosts)| (listener.clone(), hosts.clone())).collect());
            snapshot
        });
        self.before = views.clone();
        views
    }

    /// Returns the clusters that are served in a scope, and their endpoints.
    fn clusters_of(&self, model: &Model, scope: &Scope) -> [Arc<Resources>; 2] {
        let served = || {
            let clusters = model.clusters.iter().filter(|cluster| scope.serves(&cluster.listeners));
            clusters.filter_map(|cluster| self.clusters.get(cluster))
        };
        let clusters = served().map(|(cluster, _)| by_name(cluster)).collect();
        let endpoints = served().filter_map(|(_, endpoints)| endpoints.as_ref().map(by_name)).collect();
        [Arc::new(clusters), Arc::new(endpoints)]
    }

    /// Returns the route table of each listener, with the hosts in their order.
    fn tables_of(&self, model: &Model) -> impl Iterator<Item = Resource> + use<> {
        let mut parts: BTreeMap<&str, Vec<Arc<Part>>> =
            model.listeners.iter().map(|listener| (listener.name.as_str(), Vec::new())).collect();
        for host in &model.hosts {
            let listeners: BTreeSet<&str> = host.listeners.iter().map(String::as_str).collect();
            for listener in listeners {
                if let Some(parts) = parts.get_mut(listener) {
                    parts.extend(self.hosts.get(host).cloned());
                }
            }
        }
        let tables: Vec<Resource> = parts.into_iter().map(|(listener, parts)| routes(listener, parts)).collect();
        tables.into_iter()
    }
}

/// Returns these by name. Those that were there before stay the very same: they are in the views of many scopes.
fn the_same(before: &Resources, resources: impl IntoIterator<Item = Resource>) -> Resources {
    let same = |resource: Resource| match before.get(&resource.name) {
        Some(known) if **known == resource => known.clone(),
        Some(_) | None => Arc::new(resource),
    };
    resources.into_iter().map(same).map(|resource| by_name(&resource)).collect()
}

fn by_name(resource: &Arc<Resource>) -> (String, Arc<Resource>) {
    (resource.name.clone(), resource.clone())
}

/// What was rendered of the parts of a model, by the place in memory of each: it is held here, so that no other part can
/// come to lie there.
#[derive(Debug)]
struct RenderCache<P: ?Sized, R>(HashMap<usize, (Arc<P>, R)>);

impl<P: ?Sized, R> Default for RenderCache<P, R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<P: ?Sized, R> RenderCache<P, R> {
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
}

fn address<P: ?Sized>(part: &Arc<P>) -> usize {
    Arc::as_ptr(part).cast::<()>().addr()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use prost::Message as _;
    use wingbeat_core::id::{ClusterName, Rev};

    use super::*;
    use crate::model::Split;
    use crate::model::http::HttpOptions;
    use crate::model::traffic::{Front, TrafficPolicy};

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
        Arc::new(Cluster {
            name: ClusterName::new(name),
            listeners: vec!["l".to_owned()],
            endpoints,
            http2: false,
            traffic: TrafficPolicy::default(),
        })
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
        let snapshot = render(&model(&hosts, &[])).of_node("");
        let resource = snapshot.of(Kind::Routes).get("l").unwrap();
        let message = RouteConfiguration::decode(resource.body.clone()).unwrap();
        assert_eq!(message.name, "l");
        assert_eq!(message.virtual_hosts, hosts.map(|host| route::virtual_host(&host)));
        assert_eq!(message.encode_to_vec(), resource.body, "and nothing else");
        assert!(message.ignore_port_in_host_matching);
        let other = render(&model(&[host("a", 2), host("b", 7)], &[])).of_node("");
        assert_ne!(other.of(Kind::Routes).get("l").unwrap().version, resource.version);
    }
}
