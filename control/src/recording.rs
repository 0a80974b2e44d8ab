//! What judges saw, to be written down.

use wingbeat_core::analysis::replay::Line;
use wingbeat_core::id::{CanaryName, RolloutId};

/// A window that a judge took in.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedWindow {
    /// Whose.
    pub canary: CanaryName,
    /// Of which rollout.
    pub rollout: RolloutId,
    /// The rollout began before this process, and its evidence was taken over.
    pub resumed: bool,
    /// What the judge saw.
    pub line: Line,
}

/// Windows of a rollout that are not in its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingLoss {
    /// Of which rollout.
    pub rollout: RolloutId,
    /// How many.
    pub windows: u64,
    /// Why the latest of them was lost.
    pub why: String,
}
