//! When time alone takes a rollout further.

use super::plan::{Pace, Plan};
use super::round::Stage;
use super::state::{Phase, StepClock, Unready};
use super::{Progress, State};
use crate::time::Timestamp;

/// Returns when a tick may do something that none did until `now`, with the same facts and by this plan; nothing if none will.
pub fn next_timeout(plan: &Plan, state: &State, now: Timestamp) -> Option<Timestamp> {
    let given_up = |unready: &Option<Unready>| unready.as_ref().map(|unready| unready.since.plus(plan.deadline()));
    let times = match &state.phase {
        Phase::Waiting(waiting) => [(waiting.round.stage == Stage::Over).then_some(waiting.round.due), None, None],
        Phase::Progressing(progress) => {
            [Some(progress.round.due), given_up(&progress.unready), measured(plan, progress)]
        }
        Phase::Promoting(promotion) => [Some(promotion.due), given_up(&promotion.unready), None],
        Phase::Finalising { due, .. } => [Some(*due), None, None],
        Phase::Initializing | Phase::Initialized { .. } | Phase::Succeeded { .. } | Phase::Failed { .. } => [None; 3],
    };
    times.into_iter().flatten().filter(|time| *time > now).min()
}

/// Returns when the share will have flowed for an interval, if it goes on.
fn measured(plan: &Plan, progress: &Progress) -> Option<Timestamp> {
    match (plan.pace(), progress.clock) {
        (Pace::Evidence, StepClock::Running { since }) => Some(since.plus(plan.interval())),
        (Pace::Evidence, StepClock::Standing(_)) | (Pace::Checks, _) => None,
    }
}
