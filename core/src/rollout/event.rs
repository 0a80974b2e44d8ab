//! What happens to a rollout, and what follows from it.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::readiness::Readiness;
use super::round::{Answer, Ticket};
use crate::id::{Rev, Revision};
use crate::verdict::{Counted, Doubt, Verdict};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The workload asks for this revision.
    Revision(Revision),
    /// Time has passed, and this is how things stand.
    Tick(Facts),
    /// Someone commands.
    Command(Command),
    /// A question was answered. An answer to anything but the question that is open is dropped.
    Answer(Ticket, Answer),
    /// A proxy serves a later rev than the one that was stored: an abort was served but not written down.
    RevObserved(Rev),
}

/// How things stand. Given anew at every tick, so that nothing depends on having heard of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The workload of the revision that serves; where a promotion copies the canary, of the one that it becomes.
    pub primary: Readiness,
    /// The workload of the revision under judgement.
    pub canary: Readiness,
    /// True while every proxy that carries traffic serves the current routes.
    pub propagation: bool,
    /// The judge's word.
    pub verdict: Verdict,
    /// Whether the canary had requests in this step to speak of.
    pub counted: Counted,
    /// True if the judge has ruled out harm at this share and the plan lets a step end early for it.
    pub safe: bool,
    /// What stands against it that the canary is given more.
    pub doubt: Option<Doubt>,
    /// True while so many requests were not counted that they could hide harm: nothing rises.
    pub uncounted: bool,
    /// True while the revision that served before the rollout can take all requests back at once: it is unchanged
    /// and as large as it was (P27).
    pub intact: bool,
    /// True if no pod of the primary's workload has served for some seconds.
    pub primary_gone: bool,
    /// True while no pod of the canary's workload serves.
    pub canary_gone: bool,
}

/// What can be commanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Freezes the share; harm is still acted on.
    Pause,
    /// Ends a pause.
    Resume,
    /// Opens the one gate that waits.
    Approve,
    /// Ends the rollout: back to the primary.
    Abort,
    /// Skips the remaining steps, not readiness.
    Promote,
    /// Starts the failed revision again.
    Retry,
}

/// What is to be told once the state is stored. Losing one loses a message, never a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Goes to the log of events, in Flagger's words.
    Emit(Severity, String),
    /// Goes to the channels that people are alerted by.
    Alert(Alert),
    /// Says why a command was not carried out.
    Refuse(String),
}

/// A message to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// How serious it is.
    pub level: AlertLevel,
    /// The text.
    pub text: String,
    /// True if the plan in short goes with it.
    pub described: bool,
}

/// How an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// As planned.
    Normal,
    /// Someone should look.
    Warning,
}

/// How serious an alert is. Channels are set to a lowest level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// As planned.
    Info,
    /// Someone is waited for.
    Warn,
    /// Something failed.
    Error,
}

impl Facts {
    /// Returns the facts of a workload that stands, of which nothing was measured.
    pub fn unmeasured() -> Self {
        Self {
            primary: Readiness::Ready,
            canary: Readiness::Ready,
            propagation: false,
            verdict: Verdict::NoData(String::new()),
            counted: Counted::Missing(1),
            safe: false,
            doubt: None,
            uncounted: false,
            intact: true,
            primary_gone: false,
            canary_gone: false,
        }
    }
}
