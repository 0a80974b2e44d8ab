//! Why commands are refused.

use alloc::format;
use alloc::string::String;

use super::super::event::Command;
use super::super::plan::Plan;
use super::super::state::{Phase, Progress};

/// Returns true for a command that begins something or takes it further, which what is suspended does not do. An approval
/// of the next position is noted: it moves nothing by itself.
pub(super) const fn moves_on(command: Command, phase: &Phase) -> bool {
    match (command, phase) {
        (Command::Approve, Phase::Waiting(_))
        | (Command::Promote, Phase::Progressing(_))
        | (Command::Retry, Phase::Failed { .. }) => true,
        (
            Command::Pause | Command::Resume | Command::Approve | Command::Abort | Command::Promote | Command::Retry,
            _,
        ) => false,
    }
}

/// Returns why such a command is refused.
pub(super) fn suspended(plan: &Plan) -> String {
    let name = plan.name();
    format!("{name} is suspended: nothing is started or moved on before suspend is taken out of its spec")
}

/// Returns why a command makes no sense in a phase.
pub(super) fn refusal(plan: &Plan, phase: &Phase, command: Command) -> String {
    let name = plan.name();
    if let (Command::Retry, Phase::Failed { canary, seen, .. }) = (command, phase) {
        return format!("{name} is Failed and its workload asks for {seen}: ask for {canary} to try it again");
    }
    let paused = matches!(phase, Phase::Progressing(Progress { paused: true, .. }));
    let now = if paused { "Progressing and paused" } else { phase.as_str() };
    let unready = match phase {
        Phase::Progressing(Progress { unready: Some(unready), .. }) => Some(&unready.reason),
        Phase::Progressing(_)
        | Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Waiting(_)
        | Phase::Promoting(_)
        | Phase::Finalising { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => None,
    };
    match (command, unready) {
        (Command::Promote, Some(reason)) => format!("{name} cannot be promoted: its canary is not ready: {reason}"),
        (Command::Promote, None) => format!("{name} is {now}: there is no rollout to promote"),
        (Command::Pause, _) => format!("{name} is {now}: only a rollout in progress can be paused"),
        (Command::Resume, _) => format!("{name} is {now}: only a paused rollout can be resumed"),
        (Command::Approve, _) => format!("{name} is {now}: no gate waits for approval"),
        (Command::Abort, _) => format!("{name} is {now}: there is no rollout to abort"),
        (Command::Retry, _) => format!("{name} is {now}: only a failed rollout can be retried"),
    }
}
