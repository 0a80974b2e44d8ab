//! Rollouts that ended.

use wingbeat_core::rollout::{Plan, Strategy};
use wingbeat_core::time::Span;

/// A rollout that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutEnd {
    /// The namespace of its canary.
    pub namespace: String,
    /// The workload.
    pub target: String,
    /// How it went on.
    pub strategy: Strategy,
    /// How it ended.
    pub end: End,
}

/// The end of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// True if the canary was promoted.
    pub promoted: bool,
    /// True if it was promoted without analysis.
    pub skipped: bool,
    /// How long the rollout took; nothing if the server did not see its beginning.
    pub took: Option<Span>,
}

impl RolloutEnd {
    pub(crate) fn of(plan: &Plan, end: End) -> Self {
        let (namespace, target) = (plan.name().namespace.to_string(), plan.target().to_owned());
        Self { namespace, target, strategy: plan.strategy(), end }
    }
}
