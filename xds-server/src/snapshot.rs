//! A consistent set of resources, shared by all streams and never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kind::Kind;
use crate::lineage::Unadopted;
use crate::resource::Resource;

/// Resources by name.
pub type Resources = BTreeMap<String, Arc<Resource>>;

/// Everything that is served at one moment. A route that leads to a cluster that is not in here is not served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    clusters: Arc<Resources>,
    endpoints: Arc<Resources>,
    listeners: Arc<Resources>,
    routes: Arc<Resources>,
    extensions: Arc<Resources>,
    unadopted: Arc<Unadopted>,
}

impl Snapshot {
    /// Adds a resource, or replaces the one of this name.
    pub fn add(&mut self, kind: Kind, resource: Resource) {
        self.replace(kind, &resource.name.clone(), Some(Arc::new(resource)));
    }

    /// Replaces the resource of this name, or takes it out.
    pub(crate) fn replace(&mut self, kind: Kind, name: &str, by: Option<Arc<Resource>>) {
        let resources = Arc::make_mut(self.of_mut(kind));
        match by {
            Some(resource) => drop(resources.insert(name.to_owned(), resource)),
            None => drop(resources.remove(name)),
        }
    }

    /// Replaces the resources of a type.
    pub(crate) fn set(&mut self, kind: Kind, resources: Arc<Resources>) {
        *self.of_mut(kind) = resources;
    }

    /// Says whose routes are not to take the place of another state's.
    pub(crate) fn hold(&mut self, unadopted: Unadopted) {
        self.unadopted = Arc::new(unadopted);
    }

    /// Returns whose routes are not to take the place of another state's.
    pub(crate) fn unadopted(&self) -> &Unadopted {
        &self.unadopted
    }

    /// Returns the resources of a type.
    pub const fn of(&self, kind: Kind) -> &Arc<Resources> {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Endpoints => &self.endpoints,
            Kind::Listener => &self.listeners,
            Kind::Routes => &self.routes,
            Kind::Extension => &self.extensions,
        }
    }

    /// Returns the same snapshot, which shares with an earlier one the types that are the same in both: so that a
    /// stream sees at a glance what did not change.
    #[must_use]
    pub fn sharing(mut self, earlier: &Self) -> Self {
        for kind in Kind::ALL {
            if self.of(kind) == earlier.of(kind) {
                *self.of_mut(kind) = earlier.of(kind).clone();
            }
        }
        self
    }

    const fn of_mut(&mut self, kind: Kind) -> &mut Arc<Resources> {
        match kind {
            Kind::Cluster => &mut self.clusters,
            Kind::Endpoints => &mut self.endpoints,
            Kind::Listener => &mut self.listeners,
            Kind::Routes => &mut self.routes,
            Kind::Extension => &mut self.extensions,
        }
    }
}
