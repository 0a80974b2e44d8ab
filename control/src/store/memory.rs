//! State in memory, for one process or a test. Can be told to fail.

use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Entries, Store, StoreError, Write};

/// Entries that outlive the engine as long as someone holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    entries: Entries,
    full: bool,
    /// How keys of entries begin that are not taken.
    refused: Option<String>,
    writes: u64,
    crash: Option<Crash>,
    dead: bool,
}

/// The end of a process at one of its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// The write at which it dies, counted from zero.
    pub at: u64,
    /// True if the write was completed.
    pub after: bool,
}

impl Memory {
    /// Makes every write fail, or succeed again.
    pub fn set_full(&self, full: bool) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).full = full;
    }
}

impl Memory {
    /// Makes every write fail that is of an entry whose key begins like this, too.
    pub fn refuse(&self, prefix: Option<String>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).refused = prefix;
    }

    /// Plans the end of the process that writes here.
    pub fn crash(&self, crash: Option<Crash>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).crash = crash;
    }

    /// Returns true if the process has died; the next one writes again.
    pub fn take_dead(&self) -> bool {
        std::mem::take(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner).dead)
    }

    /// Returns the number of writes so far.
    pub fn writes(&self) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).writes
    }
}

impl Held {
    fn refuses(&self, key: &str) -> bool {
        self.refused.as_ref().is_some_and(|prefix| key.starts_with(prefix))
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<Entries, StoreError> {
        Ok(self.held.lock().unwrap_or_else(PoisonError::into_inner).entries.clone())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.full || writes.iter().any(|write| held.refuses(write.key())) {
            return Err(StoreError::Write { path: "memory".to_owned(), why: "it was told to fail".to_owned() });
        }
        let write = held.writes;
        held.writes = write.saturating_add(1);
        let crash = held.crash.filter(|crash| crash.at == write);
        held.dead |= crash.is_some();
        // Whatever a dead process still tries has no effect.
        if !held.dead || crash.is_some_and(|crash| crash.after) {
            for write in writes {
                match write {
                    Write::Put(key, value) => drop(held.entries.insert(key.clone(), value.clone())),
                    Write::Delete(key) => drop(held.entries.remove(key)),
                }
            }
        }
        Ok(())
    }
}
