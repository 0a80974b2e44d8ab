//! Whether a workload can serve.

use alloc::string::String;

use serde::{Deserialize, Serialize};

/// Whether a workload can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot yet.
    NotReady {
        /// Why.
        reason: String,
        /// True if waiting longer will not help.
        hopeless: bool,
    },
}

impl Readiness {
    /// Returns true if the workload can serve.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
