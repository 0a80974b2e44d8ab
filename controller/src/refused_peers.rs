//! Peers that were refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wingbeat_xds_server::server::Cause;

/// How many peers were refused since the server started, by cause. Clones share what is counted.
#[derive(Debug, Clone, Default)]
pub struct RefusedPeers(Arc<[AtomicU64; Cause::ALL.len()]>);

impl RefusedPeers {
    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.0.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns each cause with its number.
    pub fn each(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.into_iter().zip(self.0.iter().map(|counter| counter.load(Ordering::Relaxed)))
    }
}
