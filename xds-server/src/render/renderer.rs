//! Renders what changes, and nothing else: a step of one canary costs what is on its listeners and served in its scopes, however
//! many canaries are elsewhere.
//!
//! ```text
//!  ModelChange ─► hosts: each with its part of route tables, its clusters and their endpoints
//!                   │ what became another one
//!                   ├─► route table of each listener that the host is on
//!                   └─► snapshot of each scope that it is served in ─► ScopedSnapshots
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_core::id::ClusterName;

use crate::kind::Kind;
use crate::lineage::{Adoption, Unadopted};
use crate::model::{Cluster, FILTER, Listener, ModelChange, ServedHost};
use crate::render::{cluster, extension, listener, route};
use crate::resource::{Part, Resource};
use crate::scope::{Scope, Scopes};
use crate::scoped_snapshots::ScopedSnapshots;
use crate::snapshot::{Resources, Snapshot};

/// Renders one change after another.
#[derive(Debug, Default)]
pub struct Renderer {
    hosts: BTreeMap<Arc<str>, RenderedHost>,
    /// The keys of the hosts that bring a cluster of this name, in their order. Where several do, the last one that is served in
    /// a scope counts.
    owners: BTreeMap<ClusterName, Vec<Arc<str>>>,
    /// The hosts of each route table, by key.
    tables: BTreeMap<String, BTreeMap<Arc<str>, Arc<Part>>>,
    /// Whose routes are not to take the place of another state's.
    unadopted: Unadopted,
    listeners: Resources,
    routes: Resources,
    extensions: Arc<Resources>,
    served: ScopedSnapshots,
}

/// A host as it travels.
#[derive(Debug, Default)]
struct RenderedHost {
    served: Arc<ServedHost>,
    part: Option<Arc<Part>>,
    clusters: Vec<RenderedCluster>,
}

#[derive(Debug, Clone)]
struct RenderedCluster {
    model: Arc<Cluster>,
    cluster: Arc<Resource>,
    /// None where it finds its endpoints itself.
    endpoints: Option<Arc<Resource>>,
}

/// What is another one than before.
#[derive(Debug, Default)]
struct Changed {
    /// With the names of the listeners that lead to it now, or did before.
    clusters: BTreeMap<ClusterName, Vec<String>>,
    /// Names of listeners.
    tables: BTreeSet<String>,
    unadopted: BTreeSet<String>,
}

impl Renderer {
    /// Takes a change in. Returns what serves all of the model.
    pub fn render(&mut self, change: ModelChange) -> ScopedSnapshots {
        let mut changed = Changed::default();
        for (key, served) in change.hosts {
            self.replace(key, served, &mut changed);
            if change.front.is_some() {
                // Snapshots are made from nothing then: with thousands of hosts, nobody needs to know which are others.
                changed = Changed::default();
            }
        }
        match change.front {
            Some(front) => {
                self.surround(&front.listeners, front.filter.as_deref());
                self.served =
                    ScopedSnapshots::new(Scopes::of_listeners(&front.listeners), |scope| self.snapshot(scope));
            }
            None => {
                for name in &changed.tables {
                    self.renew_table(name);
                }
                let mut served = std::mem::take(&mut self.served);
                served.change(|scope, snapshot| self.follow(scope, snapshot, &changed));
                self.served = served;
            }
        }
        self.served.clone()
    }

    /// Takes a host in, or out. What is the very same in it is not rendered again.
    fn replace(&mut self, key: Arc<str>, served: Option<Arc<ServedHost>>, changed: &mut Changed) {
        let before = self.hosts.remove(&key).unwrap_or_default();
        let after = served.map(|served| RenderedHost::new(served, &before));
        let none = RenderedHost::default();
        let (now, was) = (after.as_ref().unwrap_or(&none), &before);
        if now.part != was.part || now.listeners() != was.listeners() {
            for listener in was.listeners() {
                if let Some(table) = self.tables.get_mut(listener) {
                    table.remove(&key);
                    if table.is_empty() {
                        self.tables.remove(listener);
                    }
                }
            }
            for (listener, part) in now.listeners().iter().filter_map(|listener| Some((listener, now.part.as_ref()?))) {
                self.tables.entry(listener.clone()).or_default().insert(key.clone(), part.clone());
            }
            changed.tables.extend(was.listeners().iter().chain(now.listeners()).cloned());
        }
        if !now.has_clusters_of(was) {
            for name in was.clusters.iter().map(|it| &it.model.name) {
                if let Some(owners) = self.owners.get_mut(name) {
                    owners.retain(|owner| *owner != key);
                    if owners.is_empty() {
                        self.owners.remove(name);
                    }
                }
            }
            for name in now.clusters.iter().map(|it| &it.model.name) {
                let owners = self.owners.entry(name.clone()).or_default();
                if let Err(place) = owners.binary_search(&key) {
                    owners.insert(place, key.clone());
                }
            }
            for RenderedCluster { model, .. } in was.clusters.iter().chain(&now.clusters) {
                changed.clusters.entry(model.name.clone()).or_default().extend(model.listeners.iter().cloned());
            }
        }
        if now.adoption() != was.adoption() {
            self.note_adoption(&was.served, &now.served, changed);
        }
        if let Some(after) = after {
            self.hosts.insert(key, after);
        }
    }

    fn note_adoption(&mut self, was: &ServedHost, now: &ServedHost, changed: &mut Changed) {
        for listener in &was.listeners {
            if let Some(hosts) = self.unadopted.get_mut(listener) {
                hosts.remove(&was.name);
                if hosts.is_empty() {
                    self.unadopted.remove(listener);
                }
            }
        }
        if now.adoption != Adoption::Adopted {
            for listener in &now.listeners {
                self.unadopted.entry(listener.clone()).or_default().insert(now.name.clone(), now.adoption);
            }
        }
        changed.unadopted.extend(was.listeners.iter().chain(&now.listeners).cloned());
    }

    /// Renders what all hosts share.
    fn surround(&mut self, listeners: &[Listener], filter: Option<&[u8]>) {
        let rendered = |of: &Listener| Resource::new(&of.name, &listener::listener(of, filter.is_some()));
        self.listeners =
            listeners.iter().map(rendered).map(|new| the_same(&self.listeners, new)).map(by_name).collect();
        let before = std::mem::take(&mut self.routes);
        let tables = listeners.iter().map(|listener| self.table(&listener.name));
        self.routes = tables.map(|table| the_same(&before, table)).map(by_name).collect();
        let filter = filter.map(|module| Resource::new(FILTER, &extension::filter(module)));
        self.extensions = Arc::new(filter.map(|new| by_name(the_same(&self.extensions, new))).into_iter().collect());
    }

    fn table(&self, listener: &str) -> Resource {
        route::routes(listener, self.tables.get(listener).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    /// Renders the route table of a listener anew, if there is such a listener.
    fn renew_table(&mut self, listener: &str) {
        if self.routes.contains_key(listener) {
            let table = the_same(&self.routes, self.table(listener));
            self.routes.insert(table.name.clone(), table);
        }
    }

    /// Makes what is served in a scope from nothing.
    fn snapshot(&self, scope: &Scope) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let (mut clusters, mut endpoints) = (Resources::new(), Resources::new());
        let all = self.hosts.values().flat_map(|host| &host.clusters);
        for RenderedCluster { cluster, endpoints: own, .. } in all.filter(|it| scope.serves(&it.model.listeners)) {
            clusters.insert(cluster.name.clone(), cluster.clone());
            match own {
                Some(own) => drop(endpoints.insert(own.name.clone(), own.clone())),
                None => drop(endpoints.remove(&cluster.name)),
            }
        }
        snapshot.set(Kind::Cluster, Arc::new(clusters));
        snapshot.set(Kind::Endpoints, Arc::new(endpoints));
        for (kind, all) in [(Kind::Listener, &self.listeners), (Kind::Routes, &self.routes)] {
            let served = all.values().filter(|resource| scope.has(&resource.name));
            snapshot.set(kind, Arc::new(served.cloned().map(by_name).collect()));
        }
        snapshot.set(Kind::Extension, self.extensions.clone());
        snapshot.hold(self.unadopted_in(scope));
        // What stays the same in a scope stays the very same.
        match self.served.of_scope(scope) {
            Some(before) => snapshot.sharing(before),
            None => snapshot,
        }
    }

    /// Has a snapshot follow what changed. It stays the very same where that is not served in its scope.
    fn follow(&self, scope: &Scope, snapshot: &mut Arc<Snapshot>, changed: &Changed) {
        for (name, _) in changed.clusters.iter().filter(|(_, listeners)| scope.serves(listeners)) {
            let served = self.cluster_in(scope, name);
            let endpoints = served.and_then(|served| served.endpoints.as_ref());
            for (kind, now) in [(Kind::Cluster, served.map(|served| &served.cluster)), (Kind::Endpoints, endpoints)] {
                let was = snapshot.of(kind).get(name.as_str());
                if was != now {
                    let now = now.cloned();
                    Arc::make_mut(snapshot).replace(kind, name.as_str(), now);
                }
            }
        }
        for listener in changed.tables.iter().filter(|listener| scope.has(listener)) {
            let now = self.routes.get(listener);
            if snapshot.of(Kind::Routes).get(listener) != now {
                Arc::make_mut(snapshot).replace(Kind::Routes, listener, now.cloned());
            }
        }
        if changed.unadopted.iter().any(|listener| scope.has(listener)) {
            let unadopted = self.unadopted_in(scope);
            if *snapshot.unadopted() != unadopted {
                Arc::make_mut(snapshot).hold(unadopted);
            }
        }
    }

    /// Returns the cluster of this name that is served in a scope.
    fn cluster_in(&self, scope: &Scope, name: &ClusterName) -> Option<&RenderedCluster> {
        let hosts = self.owners.get(name)?.iter().rev().filter_map(|key| self.hosts.get(key));
        let mut clusters = hosts.flat_map(|host| host.clusters.iter().rev());
        clusters.find(|it| it.model.name == *name && scope.serves(&it.model.listeners))
    }

    fn unadopted_in(&self, scope: &Scope) -> Unadopted {
        let served = self.unadopted.iter().filter(|(listener, _)| scope.has(listener));
        served.map(|(listener, hosts)| (listener.clone(), hosts.clone())).collect()
    }
}

impl RenderedHost {
    fn new(served: Arc<ServedHost>, before: &Self) -> Self {
        let part = served.host.as_ref().map(|host| match (&before.served.host, &before.part) {
            (Some(known), Some(part)) if known == host => part.clone(),
            (Some(_) | None, Some(_) | None) => Arc::new(route::part(host)),
        });
        let known = |model: &Arc<Cluster>| before.clusters.iter().find(|known| known.model == *model).cloned();
        let clusters = served.clusters.iter().map(|model| known(model).unwrap_or_else(|| RenderedCluster::new(model)));
        Self { clusters: clusters.collect(), part, served }
    }

    /// Returns the listeners that its host is on.
    fn listeners(&self) -> &[String] {
        self.served.host.as_deref().map_or(&[], |host| host.listeners.as_slice())
    }

    fn adoption(&self) -> (&[String], Adoption) {
        (&self.served.listeners, self.served.adoption)
    }

    fn has_clusters_of(&self, other: &Self) -> bool {
        let same = |(one, another): (&RenderedCluster, &RenderedCluster)| Arc::ptr_eq(&one.cluster, &another.cluster);
        self.clusters.len() == other.clusters.len() && self.clusters.iter().zip(&other.clusters).all(same)
    }
}

impl RenderedCluster {
    fn new(model: &Arc<Cluster>) -> Self {
        let name = model.name.as_str();
        let endpoints = cluster::endpoints(model).map(|endpoints| Arc::new(Resource::new(name, &endpoints)));
        let cluster = Arc::new(Resource::new(name, &cluster::cluster(model)));
        Self { model: model.clone(), cluster, endpoints }
    }
}

/// Returns the resource that was there before, if it is the same: it is in the snapshots of many scopes.
fn the_same(before: &Resources, new: Resource) -> Arc<Resource> {
    match before.get(&new.name) {
        Some(known) if **known == new => known.clone(),
        Some(_) | None => Arc::new(new),
    }
}

fn by_name(resource: Arc<Resource>) -> (String, Arc<Resource>) {
    (resource.name.clone(), resource)
}
