//! State in memory, for one process or a test. Can be told to fail.

use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Entries, Store, StoreError};

/// Entries that outlive the engine as long as someone holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    entries: Entries,
    full: bool,
}

impl Memory {
    /// Makes every write fail, or succeed again.
    pub fn set_full(&self, full: bool) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).full = full;
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<Entries, StoreError> {
        Ok(self.held.lock().unwrap_or_else(PoisonError::into_inner).entries.clone())
    }

    fn put(&mut self, entries: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.full {
            return Err(StoreError::Write { path: "memory".to_owned(), why: "it was told to fail".to_owned() });
        }
        held.entries.extend(entries.iter().cloned());
        Ok(())
    }
}
