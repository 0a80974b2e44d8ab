//! What waits at a canary while a step of it is stored.

use std::collections::VecDeque;

use wingbeat_core::id::Rev;
use wingbeat_core::rollout::Command;

/// Names a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub(super) u64);

/// Names a command whose answer is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandTicket(pub(super) u64);

/// The step of a canary that is being stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proposed {
    pub(super) id: CommitId,
    /// The rev of its routes. No other routes may have it, also if the step is never adopted: it may be what is stored.
    pub(super) rev: Rev,
    /// Whether a restart that finds it knows an abort that took its place.
    pub(super) may_be_aborted: bool,
}

/// A command that waits.
#[derive(Debug, Clone)]
pub(super) struct WaitingCommand {
    pub(super) command: Command,
    pub(super) id: String,
    pub(super) ticket: CommandTicket,
}

/// Commands that wait, in order.
pub(super) type WaitingCommands = VecDeque<WaitingCommand>;
