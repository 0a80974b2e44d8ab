//! What is asked of somebody outside in a state.
//!
//! It is no effect of a step: the caller derives it as often as it likes and puts it to hooks and metrics. After a crash the same
//! question is simply put again; hooks must bear that, as they must with Flagger. An answer carries the [`Ticket`] of its
//! question, and late ones are dropped.

use super::plan::{HookKind, Plan};
use super::round::{Stage, Ticket};
use super::state::{Ended, Phase, Progress, State, Waiting};

/// What is asked at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// What is asked.
    pub asked: QuestionSubject,
    /// The phase that hooks are told.
    pub phase: &'static str,
}

/// Whom a question goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionSubject {
    /// The hook in this place of the spec's list.
    Hook(usize),
    /// The metric in this place of the plan's list.
    Metric(usize),
}

/// Returns what is asked in this state, if anything.
pub fn question(plan: &Plan, state: &State) -> Option<Question> {
    let (round, stage) = match &state.phase {
        Phase::Waiting(Waiting { round, .. }) | Phase::Progressing(Progress { round, .. })
            if round.is_outdated(plan) =>
        {
            return None;
        }
        // What is suspended begins nothing and does not move on: nobody is asked whether it may.
        Phase::Waiting(_) | Phase::Progressing(_) if plan.is_suspended() => return None,
        Phase::Waiting(waiting) => (waiting.round.number, waiting.round.stage),
        Phase::Progressing(progress) if progress.paused => return None,
        Phase::Progressing(progress) => (progress.round.number, progress.round.stage),
        Phase::Succeeded { ended, .. } | Phase::Failed { ended, .. } => match ended {
            Ended::Asking(place) => (u64::MAX, Stage::Hook(HookKind::PostRollout, *place)),
            Ended::Quiet => return None,
        },
        Phase::Initializing | Phase::Initialized { .. } | Phase::Promoting(_) | Phase::Finalising { .. } => {
            return None;
        }
    };
    let asked = match stage {
        Stage::Over | Stage::Entered | Stage::Judge => return None,
        Stage::Hook(kind, place) => QuestionSubject::Hook(plan.hooks(kind).nth(place)?.0),
        Stage::Metric(place) => QuestionSubject::Metric(plan.metrics().find(|(at, _)| *at == place)?.0),
    };
    let ticket = Ticket { rollout: state.rollout, round, stage, asks: plan.asks() };
    Some(Question { ticket, asked, phase: state.phase.as_str() })
}
