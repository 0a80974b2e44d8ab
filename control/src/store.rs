//! Where state survives a restart.

use std::collections::BTreeMap;

pub mod memory;

/// What is stored, by key.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// Keeps entries. Writes are all or nothing.
pub trait Store: Send {
    /// Returns everything that is stored.
    fn load(&mut self) -> Result<Entries, StoreError>;

    /// Carries all of these out, or none.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Returns true if it takes more room than it needs, and gives it back with one of the next commits: somebody should
    /// commit soon, though there may be nothing to write.
    fn awaits_commit(&self) -> bool {
        false
    }
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The entry with this key has this content from now on.
    Put(String, Vec<u8>),
    /// There is no entry with this key from now on.
    Delete(String),
}

impl Write {
    /// Returns the key of the entry.
    pub const fn key(&self) -> &String {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Returns the bytes of key and content.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Put(key, content) => key.len().saturating_add(content.len()),
            Self::Delete(key) => key.len(),
        }
    }
}

/// Why something could not be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file is not a state of ours, or damaged.
    #[error("{path} is not a state that this version can read ({why}): move it away, or restore it from a backup")]
    Foreign {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another process has the file open.
    #[error("{path} is in use by another process: end that one, or use another --state")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file could not be written: most often the disk is full.
    #[error("{path} cannot be written ({why}): is there room on the disk, and may this user write there?")]
    Write {
        /// The file.
        path: String,
        /// What the system says.
        why: String,
    },
    /// An object of a cluster could not be read or written.
    #[error("{object} is not stored: {why}")]
    Object {
        /// The object, like `CanaryState backend.prod`.
        object: String,
        /// Why, and what to do.
        why: String,
    },
    /// An object of a cluster is not what it was when it was read or written last.
    #[error("{object} is not stored: it was changed by {by}; it was read again, and the next attempt counts")]
    Conflict {
        /// The object.
        object: String,
        /// Who has changed it, as far as is known.
        by: String,
    },
}
