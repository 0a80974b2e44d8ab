//! Calls to hooks and metric servers, which the engine asks for and the controller makes.

use std::sync::Arc;

use wingbeat_api::hook::Hook;
use wingbeat_api::query::Query;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::Ticket;

/// A call to a hook or a metric server.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The canary of the rollout.
    pub canary: CanaryName,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// Who is asked.
    pub target: CallTarget,
    /// When to ask.
    pub turn: CallTurn,
}

/// When to ask a question that is not on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallTurn {
    /// At once.
    Now,
    /// Not yet: a step is being stored, which may have answered it. What is on its way stays on its way.
    Later,
}

/// The target of a call.
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
