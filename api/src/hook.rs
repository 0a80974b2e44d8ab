//! Hooks of a spec.

use std::collections::BTreeMap;
use std::time::Duration;

use wingbeat_xds_server::version::Version;

/// A hook of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it is.
    pub url: String,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Attempts beyond the first, on connection errors, 429 and most 5xx.
    pub retries: u32,
    /// Goes along.
    pub metadata: BTreeMap<String, String>,
}

impl Hook {
    /// Returns a digest of where it is and what it is sent.
    pub fn digest(&self) -> u64 {
        Version::of([format!("{self:?}").as_bytes()]).get()
    }
}
