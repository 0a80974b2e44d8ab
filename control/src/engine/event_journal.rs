//! Events that outlive the process: the latest ones, each under a key of its own, so that one more costs one small entry.

use std::collections::BTreeMap;

use wingbeat_core::time::{Span, Timestamp};

use crate::engine::commit::{Commits, Purpose};
use crate::engine::persisted::{StoredFormat, encode, read};
use crate::store::{Entries, Write};
use crate::view::EventView;

/// Events that are stored. A ring: the next one takes the place of the oldest.
pub const MAX_EVENTS: u64 = 1_000;
/// Where they cannot be stored, it is tried again this often.
const RETRY_INTERVAL: Span = Span::from_secs(1);

impl StoredFormat for EventView {}

/// Events that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct EventJournal {
    /// Those that were stored by earlier processes, oldest first.
    remembered: Vec<EventView>,
    /// By key: one that is written again before it was stored takes no second place.
    unstored: BTreeMap<String, Write>,
    failed: Option<Timestamp>,
}

impl EventJournal {
    /// Reads what earlier processes stored. An event that cannot be read is left aside: nothing depends on it.
    pub(super) fn open(entries: &Entries) -> Self {
        let keys = (0..MAX_EVENTS).map(key).filter(|key| entries.contains_key(key));
        let mut remembered: Vec<EventView> = keys.filter_map(|key| read(entries, &key).ok().flatten()).collect();
        remembered.sort_by_key(|event| event.id);
        Self { remembered, ..Self::default() }
    }

    /// Returns the events that earlier processes stored, oldest first, and forgets them.
    pub(super) fn restored(&mut self) -> Vec<EventView> {
        std::mem::take(&mut self.remembered)
    }

    /// Stores events; those that cannot be stored now are stored later, the latest of them.
    pub(super) fn append(&mut self, events: &[EventView], commits: &mut Commits, now: Timestamp) {
        let entries = events.iter().filter_map(|event| Some((key(event.id), encode(&key(event.id), event)?)));
        self.unstored.extend(entries);
        let is_tried = self.failed.is_none_or(|failed| now.since(failed) >= RETRY_INTERVAL);
        if self.unstored.is_empty() || !is_tried || commits.has(|purpose| matches!(purpose, Purpose::Events(_))) {
            return;
        }
        let writes = std::mem::take(&mut self.unstored);
        let entries = writes.values().cloned().collect();
        commits.put(Purpose::Events(writes), entries);
    }

    /// Notes that what was handed in is stored.
    pub(super) fn stored(&mut self) {
        self.failed = None;
    }

    /// Takes back what could not be stored, but for what was written anew.
    pub(super) fn not_stored(&mut self, writes: BTreeMap<String, Write>, now: Timestamp) {
        self.failed = Some(now);
        for (key, write) in writes {
            self.unstored.entry(key).or_insert(write);
        }
    }
}

fn key(id: u64) -> String {
    format!("event/{:04}", id % MAX_EVENTS)
}
