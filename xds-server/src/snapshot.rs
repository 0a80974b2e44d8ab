//! A consistent set of resources, shared by all streams and never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resource::{Kind, Resource};

/// Resources by name.
pub type Resources = BTreeMap<String, Arc<Resource>>;

/// Everything that is served at one moment. What refers to something refers to what is in here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    clusters: Resources,
    endpoints: Resources,
    listeners: BTreeMap<String, (Arc<Resource>, Vec<String>)>,
    routes: Resources,
    extensions: Resources,
}

impl Snapshot {
    /// Adds a resource. Listeners go through [`Snapshot::add_listener`].
    pub(crate) fn add(&mut self, kind: Kind, resource: Arc<Resource>) {
        let name = resource.name.clone();
        match kind {
            Kind::Cluster => drop(self.clusters.insert(name, resource)),
            Kind::Endpoints => drop(self.endpoints.insert(name, resource)),
            Kind::Listener => self.add_listener(resource, Vec::new()),
            Kind::Routes => drop(self.routes.insert(name, resource)),
            Kind::Extension => drop(self.extensions.insert(name, resource)),
        }
    }

    /// Adds a listener for nodes of these clusters; of all, if there are none.
    pub(crate) fn add_listener(&mut self, resource: Arc<Resource>, node_clusters: Vec<String>) {
        self.listeners.insert(resource.name.clone(), (resource, node_clusters));
    }

    /// Returns the resources of a type that are for a node of this cluster.
    pub fn resources(&self, kind: Kind, node_cluster: &str) -> Resources {
        match kind {
            Kind::Cluster => self.clusters.clone(),
            Kind::Endpoints => self.endpoints.clone(),
            Kind::Routes => self.routes.clone(),
            Kind::Extension => self.extensions.clone(),
            Kind::Listener => {
                let meant =
                    |clusters: &Vec<String>| clusters.is_empty() || clusters.iter().any(|name| name == node_cluster);
                let meant = self.listeners.iter().filter(|(_, (_, clusters))| meant(clusters));
                meant.map(|(name, (resource, _))| (name.clone(), resource.clone())).collect()
            }
        }
    }
}
