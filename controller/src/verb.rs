//! What a person or a script asks of a rollout, and why it is not done.

use wingbeat_core::id::CanaryName;

/// What a person or a script asks of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Freezes the weight; the hard guard stays on.
    Pause,
    /// Ends a pause.
    Resume,
    /// Opens the one gate that waits.
    Approve,
    /// Ends the rollout: back to the primary.
    Abort,
    /// Skips the remaining steps, not readiness.
    Promote,
    /// Starts a failed rollout again.
    Retry,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 6] = [Self::Pause, Self::Resume, Self::Approve, Self::Abort, Self::Promote, Self::Retry];

    /// Returns the verb of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }

    /// Returns the verb's name on the command line and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Abort => "abort",
            Self::Promote => "promote",
            Self::Retry => "retry",
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such canary.
    #[error("there is no canary {}/{}", .0.namespace, .0.name)]
    NotFound(CanaryName),
    /// The rollout is in a phase in which this makes no sense.
    #[error("{0}")]
    Conflict(String),
    /// The control plane is stopping, or has more to do than it can.
    #[error("the server is stopping or overloaded")]
    Unavailable,
}
