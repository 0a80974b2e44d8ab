//! What happens to a rollout, and what follows from it.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{Rev, Revision};
use crate::verdict::Verdict;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The workload asks for this revision.
    Revision(Revision),
    /// Whether the current share reaches the proxies (every one of them serves the current rev).
    Flowing(bool),
    /// The judge's word.
    Verdict(Verdict),
    /// Someone commands.
    Command(Command),
    /// The new primary's workload is complete.
    PrimaryReady,
    /// A proxy serves a later rev than the one that was stored: an abort was served but not written down.
    RevSeen(Rev),
    /// Time has passed.
    Tick,
}

/// What can be commanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Freezes the weight; harm is still acted on.
    Pause,
    /// Ends a pause.
    Resume,
    /// Ends the rollout: back to the primary.
    Abort,
    /// Skips the remaining steps.
    Promote,
    /// Starts the failed revision again.
    Retry,
}

/// What is to be done once the state is stored. Losing one loses a message, never a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tells people, in Flagger's words.
    Emit(Severity, String),
    /// Makes the canary's revision the primary's.
    Promote(Revision),
    /// Says why a command was not carried out.
    Refuse(String),
}

/// How an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// As planned.
    Normal,
    /// Someone should look.
    Warning,
}
