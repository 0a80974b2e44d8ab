//! What holds across every step, whatever happens. Written once; checked by tests on random histories.

use super::event::{Command, Event};
use super::plan::{Handover, Plan, Share};
use super::project::{Routes, project};
use super::question::question;
use super::recovery::may_abort_unstored;
use super::state::{Phase, State};
use crate::weight::BasisPoints;

/// Returns the rule that a step broke, if any.
pub fn broken(plan: &Plan, before: &State, event: &Event, after: &State) -> Option<&'static str> {
    let (old, new) = (project(before), project(after));
    let rules = [
        (after.rev >= before.rev, "the rev never falls"),
        (after.rollout >= before.rollout, "the number of the rollout never falls"),
        (after.changed >= before.changed, "time never runs backwards"),
        ((new.rev == old.rev) == new.serves_as(&old), "routes change with the rev, and only with it"),
        (
            new.rev == old.rev
                || new.rev == old.rev.next()
                || leaves_aborts_out(before, after)
                || *event == Event::RevObserved(new.rev),
            "a step raises the rev by one; only the first routes after a restart leave out an abort's two, and an abort has its own",
        ),
        (
            !matches!(event, Event::Command(Command::Abort)) || !has_canary(new.routes) || is_refused(before, after),
            "an abort takes everything from the canary at once, or is refused",
        ),
        (!rises(old.routes, new.routes) || may_rise(event), "only time and answers raise the canary's share"),
        (
            skips_nothing(plan, before, after),
            "a rollout goes up one position at a time, and back only to the first weight or to nothing",
        ),
        (
            promotes_by_steps(plan, before, after),
            "in a promotion the share moves one way and by at most a step, and nothing else promotes",
        ),
        (
            after.failed_checks() >= before.failed_checks() || after.rollout != before.rollout || has_ended(after),
            "failed checks are not forgotten within a rollout",
        ),
        (
            !plan.is_suspended() || stands(before, after),
            "what is suspended begins nothing and moves nowhere, but may fail",
        ),
        (
            question(plan, after).is_none_or(|asked| {
                question(plan, before).is_none_or(|open| open == asked || open.ticket != asked.ticket)
            }),
            "one ticket names one question",
        ),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
}

/// Returns true if nothing began and nothing moved on. What is seen for the first time is served.
fn stands(before: &State, after: &State) -> bool {
    match (&before.phase, &after.phase) {
        (Phase::Initializing, Phase::Initialized { .. }) | (_, Phase::Failed { .. }) => true,
        (
            old,
            new @ (Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }),
        ) => {
            let same_phase = core::mem::discriminant(old) == core::mem::discriminant(new);
            same_phase && before.rollout == after.rollout && project(before).serves_as(&project(after))
        }
    }
}

const fn has_canary(routes: Routes) -> bool {
    match routes {
        Routes::Nowhere | Routes::Settled(_) => false,
        Routes::Shared { share } => share.has_users() || matches!(share, Share::Mirrored(_)),
    }
}

fn leaves_aborts_out(before: &State, after: &State) -> bool {
    before.resumed == Some(before.rev)
        && after.rev == before.unstored_abort().next().next()
        && !may_abort_unstored(before, after)
}

fn is_refused(before: &State, after: &State) -> bool {
    before == after
}

fn rises(old: Routes, new: Routes) -> bool {
    match new {
        Routes::Shared { share } => share.shown() > old.canary_weight(),
        Routes::Nowhere | Routes::Settled(_) => false,
    }
}

const fn may_rise(event: &Event) -> bool {
    match event {
        Event::Tick(_) | Event::Answer(..) => true,
        Event::Revision(_) | Event::Command(_) | Event::RevObserved(_) => false,
    }
}

fn skips_nothing(plan: &Plan, before: &State, after: &State) -> bool {
    match (&before.phase, &after.phase) {
        (Phase::Progressing(old), Phase::Progressing(new)) if before.rollout == after.rollout => {
            let back = new.share.shown() < old.share.shown() && plan.first_weight() == Some((new.position, new.share));
            let stays = (new.position, new.share) == (old.position, old.share);
            let withdrawn = (new.position, new.share) == (0, Share::Nothing);
            stays || plan.next(old.position, old.share) == Some((new.position, new.share)) || back || withdrawn
        }
        (_, Phase::Progressing(new)) => new.position == 0 && new.share == Share::Nothing,
        (
            _,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. },
        ) => true,
    }
}

fn promotes_by_steps(plan: &Plan, before: &State, after: &State) -> bool {
    match (&before.phase, &after.phase) {
        (Phase::Progressing(old), Phase::Promoting(new)) => {
            // One that takes the place of a primary that is gone has everything at once.
            let is_rescue = new.handover == Handover::Copy && new.share == Share::Everything;
            (&old.primary, &old.canary) == (&new.primary, &new.canary) && (is_rescue || old.share == new.share)
        }
        (Phase::Promoting(old), Phase::Promoting(new)) => {
            let step = plan.promotion_step().unwrap_or(BasisPoints::ZERO);
            let (was, is) = (old.share.shown(), new.share.shown());
            let moves = match new.handover {
                Handover::Relabel => was <= is && is <= was.plus(step),
                // Or to nothing, at once: the target's pods are of another revision.
                Handover::Copy => is.is_zero() || (is <= was && was <= is.plus(step)),
            };
            moves && (&old.canary, old.handover) == (&new.canary, new.handover)
        }
        // The last step, by which the promoted revision gets everything.
        (Phase::Promoting(old), Phase::Finalising { primary, .. }) => {
            let step = plan.promotion_step().filter(|_| old.moves_by_steps());
            let left = match old.handover {
                Handover::Relabel => old.share.shown().complement(),
                Handover::Copy => old.share.shown(),
            };
            old.canary == *primary && step.is_none_or(|step| left <= step)
        }
        (Phase::Promoting(old), Phase::Succeeded { primary, .. }) => old.skipped && old.canary == *primary,
        (
            Phase::Finalising { primary: old, .. },
            Phase::Finalising { primary, .. } | Phase::Succeeded { primary, .. },
        )
        | (Phase::Succeeded { primary: old, .. }, Phase::Succeeded { primary, .. }) => old == primary,
        (
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. },
            Phase::Promoting(_) | Phase::Finalising { .. } | Phase::Succeeded { .. },
        ) => false,
        (
            _,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Failed { .. },
        ) => true,
    }
}

const fn has_ended(state: &State) -> bool {
    matches!(state.phase, Phase::Finalising { .. } | Phase::Succeeded { .. } | Phase::Waiting(_))
}
