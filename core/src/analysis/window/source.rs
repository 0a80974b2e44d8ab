//! Who reported what a window sums up.

use serde::{Deserialize, Serialize};

use crate::id::{BootId, WorkerId};
use crate::time::Span;

/// A place that a node has among those that report, or shares with others where there are many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeGroup(pub u8);

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportSource {
    /// The node group of the node.
    pub node_group: NodeGroup,
    /// The worker, where it did not wait for its tick.
    pub ahead: Option<EarlyReport>,
}

/// A worker whose report came before its tick, at an error of the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyReport {
    /// The worker.
    pub worker: (BootId, WorkerId),
    /// How often it reports otherwise.
    pub tick: Span,
}

impl From<NodeGroup> for ReportSource {
    /// A worker that reports by its tick.
    fn from(node_group: NodeGroup) -> Self {
        Self { node_group, ahead: None }
    }
}
