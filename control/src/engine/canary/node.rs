//! What is known of a node that serves the canary.

use wingbeat_core::id::{NodeId, Rev};
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::timeouts::NODE_TIMEOUT;

/// What is known of a node.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Node {
    /// The latest rev that it served a request by.
    pub(in crate::engine) rev: Rev,
    /// When it reported last.
    pub(in crate::engine) last: Timestamp,
    /// How often it reports.
    pub(in crate::engine) tick: Span,
    /// Whose source its reports are.
    pub(in crate::engine) source: NodeId,
    /// Requests of this rollout that it did not count.
    pub(in crate::engine) uncounted: u64,
}

impl Node {
    /// Returns true if it said nothing for [`NODE_TIMEOUT`], or for two of its ticks where that is longer.
    pub(in crate::engine) fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.last) > NODE_TIMEOUT.max(self.tick.times(2))
    }
}
