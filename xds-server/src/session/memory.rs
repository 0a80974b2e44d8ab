//! Tables of routes that differ from what is served, for clients that come back with them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::resource::{Resource, Version};

/// So many sets of tables are remembered, the latest ones. A table is up to some hundred kilobytes; its hosts are shared.
const REMEMBERED: usize = 16;

/// What clients have accepted instead of what is served, shared by all streams. A client whose stream breaks while it
/// refuses a host says only the version of what it holds.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<VecDeque<Remembered>>>);

#[derive(Debug)]
struct Remembered {
    /// Version of them all.
    version: Version,
    tables: Vec<Arc<Resource>>,
}

impl Memory {
    /// Remembers the tables that a client holds.
    pub(super) fn remember(&self, tables: Vec<Arc<Resource>>) {
        let version = Version::of_all(&tables);
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.iter().all(|known| known.version != version) {
            remembered.truncate(REMEMBERED - 1);
            remembered.push_front(Remembered { version, tables });
        }
    }

    /// Returns the tables that together have this version.
    pub(super) fn all(&self, version: Version) -> Vec<Arc<Resource>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.iter().find(|known| known.version == version);
        found.map(|known| known.tables.clone()).unwrap_or_default()
    }

    /// Returns the table of this name and version.
    pub(super) fn one(&self, name: &str, version: Version) -> Option<Arc<Resource>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = remembered.iter().flat_map(|known| &known.tables);
        tables.find(|table| table.name == name && table.version == version).cloned()
    }
}
