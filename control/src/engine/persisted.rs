//! What is stored, and how it is read again.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use wingbeat_core::analysis::ledger::Worker;
use wingbeat_core::analysis::window::{Batch, WrittenHeld};
use wingbeat_core::id::{CanaryName, Epoch, Rev};
use wingbeat_core::rollout::State;
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::lineage::{Adoption, Lineage};

use crate::engine::step_event::StepEvent;
use crate::store::{Entries, StoreError, Write};
use crate::terms::Terms;

/// The version of what is stored.
const STORED_VERSION: u32 = 3;

/// The oldest version of what is stored that is read.
const OLDEST_READ: u32 = 1;

/// Something that is read from the store.
pub(super) trait StoredFormat: for<'de> Deserialize<'de> {
    /// The version in which it got its form. What was written before is left aside: the rest is read all the same.
    const SINCE: u32 = OLDEST_READ;
}

impl StoredFormat for PersistedCanary {}
impl StoredFormat for Worker {
    /// Before, the ledger was one entry, and knew no epochs.
    const SINCE: u32 = 3;
}
impl StoredFormat for Vec<(CanaryName, Batch)> {}
impl StoredFormat for Timestamp {}
impl StoredFormat for Lineage {}
impl StoredFormat for BTreeSet<Epoch> {}
impl StoredFormat for Vec<WrittenHeld> {}

/// A canary as it is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct PersistedCanary {
    pub(super) state: State,
    /// The ids of commands that were carried out.
    pub(super) commands: VecDeque<String>,
    /// Arm headers are made from it: who does not know it cannot forge one.
    #[serde(default)]
    pub(super) secret: String,
    /// The rev of the first routes of the latest rollout; 0 where an earlier version began it.
    #[serde(default)]
    pub(super) first_rev: Rev,
    /// What a rollout keeps of the spec under which it began, while one is on.
    #[serde(default)]
    pub(super) terms: Option<Terms>,
    /// Whether its routes may take the place of another state's; where an earlier version stored it, they may.
    #[serde(default)]
    pub(super) adoption: Adoption,
    /// What the latest steps have to tell, where a cluster runs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<StepEvent>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored<T> {
    version: u32,
    content: T,
}

/// An entry whose content may have any shape.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

/// Why stored state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry of it.
    #[error(
        "the stored entry {key} has version {found}, this program reads {OLDEST_READ} to {STORED_VERSION}: use the program that wrote it, or a later one"
    )]
    Version {
        /// The entry.
        key: String,
        /// Its version.
        found: u32,
    },
    /// An entry that is not what it should be.
    #[error(
        "the stored entry {key} is damaged ({why}): restore the state from a backup, or move it away to start anew"
    )]
    Damaged {
        /// The entry.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// Returns a canary as an entry of the store.
pub(super) fn entry(name: &CanaryName, record: &PersistedCanary) -> Result<Write, StoreError> {
    let key = record_key(name);
    let entry = encode(&key, record);
    entry.ok_or_else(|| StoreError::Write { path: key, why: "it cannot be encoded".to_owned() })
}

/// Returns where a canary is stored.
pub(super) fn record_key(name: &CanaryName) -> String {
    format!("canary/{}/{}", name.namespace, name.name)
}

/// Returns where it is stored since when no document names a canary; nothing is there while one does.
pub(super) fn away_key(name: &CanaryName) -> String {
    format!("away/{}/{}", name.namespace, name.name)
}

/// Returns where the evidence on a canary is stored.
pub(super) fn evidence_key(name: &CanaryName) -> String {
    format!("evidence/{}/{}", name.namespace, name.name)
}

/// Returns an entry of the store.
pub(super) fn encode<T: Serialize>(key: &str, content: &T) -> Option<Write> {
    let bytes = serde_json::to_vec(&Stored { version: STORED_VERSION, content }).ok()?;
    Some(Write::Put(key.to_owned(), bytes))
}

/// Reads an entry of the store, if it is there.
pub(super) fn read<T: StoredFormat>(entries: &Entries, key: &str) -> Result<Option<T>, OpenError> {
    let Some(bytes) = entries.get(key) else { return Ok(None) };
    let damaged = |error: serde_json::Error| OpenError::Damaged { key: key.to_owned(), why: error.to_string() };
    // The version first: content of another version may have any shape. Nothing is made of it: there may be tens of
    // thousands of entries, and who starts again waits for each.
    let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if !(OLDEST_READ..=STORED_VERSION).contains(&version) {
        return Err(OpenError::Version { key: key.to_owned(), found: version });
    }
    if version < T::SINCE {
        tracing::warn!(key, version, "what an earlier version has written here is not used any more");
        return Ok(None);
    }
    let stored: Stored<T> = serde_json::from_slice(bytes).map_err(damaged)?;
    Ok(Some(stored.content))
}

/// Reads an entry that others can do without. One that is damaged stays where it is until it is written again, and is
/// told; one of a later version is refused like any other.
pub(super) fn read_or_leave_aside<T: StoredFormat>(entries: &Entries, key: &str) -> Result<Option<T>, OpenError> {
    match read(entries, key) {
        Err(error @ OpenError::Damaged { .. }) => {
            tracing::error!(%error, "left aside");
            Ok(None)
        }
        read => read,
    }
}
