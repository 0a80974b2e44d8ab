//! What clients hold that differs from what is served, for those that come back with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::resource::{Resource, version_of_all};
use crate::version::Version;

/// Sets of resources that are cached; beyond, the oldest is dropped. A table of routes is up to some hundred kilobytes, and its
/// hosts are shared; so are clusters and listeners.
const MAX_ENTRIES: usize = 32;

/// What clients have accepted instead of what is served, shared by all streams. A client whose stream breaks while it
/// refuses something says only the version of what it holds.
#[derive(Debug, Clone, Default)]
pub struct ResumeCache(Arc<Mutex<VecDeque<ResumeEntry>>>);

#[derive(Debug)]
struct ResumeEntry {
    /// Version of them all.
    version: Version,
    resources: Vec<Arc<Resource>>,
}

impl ResumeCache {
    /// Remembers all that a client holds of a type.
    pub(super) fn record(&self, resources: Vec<Arc<Resource>>) {
        let version = version_of_all(&resources);
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.iter().all(|known| known.version != version) {
            remembered.truncate(MAX_ENTRIES - 1);
            remembered.push_front(ResumeEntry { version, resources });
        }
    }

    /// Returns the resources that together have this version.
    pub(super) fn all(&self, version: Version) -> Vec<Arc<Resource>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.iter().find(|known| known.version == version);
        found.map(|known| known.resources.clone()).unwrap_or_default()
    }

    /// Returns the resource of this name and version.
    pub(super) fn one(&self, name: &str, version: Version) -> Option<Arc<Resource>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resources = remembered.iter().flat_map(|known| &known.resources);
        resources.find(|resource| resource.name == name && resource.version == version).cloned()
    }
}
