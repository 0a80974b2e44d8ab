//! Questions to somebody outside, which the engine has and others ask.

use std::sync::Arc;

use wingbeat_api::hook::Hook;
use wingbeat_api::query::Query;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::Ticket;

/// A question to somebody outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whose rollout it is.
    pub canary: CanaryName,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// Who is asked.
    pub whom: CallTarget,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum CallTarget {
    /// A hook.
    Hook {
        /// Which one.
        hook: Hook,
        /// Flagger's name for the phase.
        phase: String,
        /// Stays the same as long as the revision does.
        checksum: String,
    },
    /// A Prometheus, for a metric.
    Prometheus(Arc<Query>),
}
