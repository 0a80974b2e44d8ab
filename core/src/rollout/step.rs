//! The step from one state to the next. Total: no event in no state is a surprise.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use crate::id::Revision;
use crate::rollout::event::{Command, Effect, Event, Severity};
use crate::rollout::plan::Plan;
use crate::rollout::project::project;
use crate::rollout::state::{Phase, Progress, State, StepClock};
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To be stored before anything else is done.
    pub state: State,
    /// To be done then, in this order.
    pub effects: Vec<Effect>,
}

/// Takes an event. An event that changes nothing returns the same state and no effects.
pub fn step(plan: &Plan, state: &State, event: &Event, now: Timestamp) -> Step {
    let (phase, effects) = match event {
        Event::Revision(revision) => on_revision(plan, state, revision),
        Event::Verdict(verdict) => on_verdict(plan, &state.phase, verdict, now),
        Event::Flowing(flowing) => (on_flowing(&state.phase, *flowing, now), Vec::new()),
        Event::Command(command) => on_command(plan, &state.phase, *command),
        Event::PrimaryReady => on_primary_ready(plan, &state.phase),
        // An abort raises the rev by one: what is further ahead is no abort of ours, and a peer may make it up.
        Event::RevSeen(rev) if *rev == state.rev.next() => on_later_rev(plan, &state.phase),
        Event::RevSeen(_) | Event::Tick => (state.phase.clone(), Vec::new()),
    };
    let mut next = State { phase, ..state.clone() };
    if let (Phase::Progressing(new), old) = (&next.phase, &state.phase)
        && !matches!(old, Phase::Progressing(old) if old.canary == new.canary)
    {
        next.rollout = next.rollout.next();
    }
    if project(&next).routes != project(state).routes {
        next.rev = next.rev.next();
    }
    if next.phase.as_str() != state.phase.as_str() || next.rev != state.rev {
        next.changed = now;
    }
    Step { state: next, effects }
}

fn on_revision(plan: &Plan, state: &State, seen: &Revision) -> (Phase, Vec<Effect>) {
    let name = plan.name();
    match &state.phase {
        Phase::Initializing => {
            (Phase::Initialized { primary: seen.clone() }, vec![normal(format!("Initialization done! {name}"))])
        }
        Phase::Initialized { primary } | Phase::Succeeded { primary } if primary != seen => start(plan, primary, seen),
        // A revision that failed is not tried again by itself; once the workload went back, it may come again.
        Phase::Failed { primary, canary, reason, seen: before } if before != seen => {
            if primary != seen {
                return start(plan, primary, seen);
            }
            let (primary, canary, reason) = (primary.clone(), canary.clone(), reason.clone());
            (Phase::Failed { primary, canary, reason, seen: seen.clone() }, Vec::new())
        }
        Phase::Progressing(progress) if progress.primary == *seen => (
            Phase::Succeeded { primary: seen.clone() },
            vec![normal(format!(
                "Rollout of {}.{} ended: the workload went back to its primary",
                plan.target(),
                name.namespace
            ))],
        ),
        Phase::Progressing(progress) if progress.canary != *seen => {
            let restarting =
                format!("New revision detected! Restarting analysis for {}.{}", plan.target(), name.namespace);
            let (phase, mut effects) = start(plan, &progress.primary, seen);
            // One text for it, as in Flagger, and the start of the analysis after it.
            effects.splice(..1, [normal(restarting)]);
            (phase, effects)
        }
        // A promotion is finished first; the revision is seen again after it.
        Phase::Initialized { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. }
        | Phase::Progressing(_)
        | Phase::Promoting { .. } => (state.phase.clone(), Vec::new()),
    }
}

fn start(plan: &Plan, primary: &Revision, canary: &Revision) -> (Phase, Vec<Effect>) {
    let target = format!("{}.{}", plan.target(), plan.name().namespace);
    let progress = Progress {
        primary: primary.clone(),
        canary: canary.clone(),
        step: 0,
        weight: plan.weight(0).unwrap_or_default(),
        clock: StepClock::Standing(Span::ZERO),
        paused: false,
    };
    let effects = vec![
        normal(format!("New revision detected! Scaling up {target}")),
        normal(format!("Starting canary analysis for {target}")),
        advance(plan, 0),
    ];
    (Phase::Progressing(progress), effects)
}

fn on_verdict(plan: &Plan, phase: &Phase, verdict: &Verdict, now: Timestamp) -> (Phase, Vec<Effect>) {
    let Phase::Progressing(progress) = phase else { return (phase.clone(), Vec::new()) };
    match verdict {
        Verdict::Rollback(reason) => fail(plan, &progress.primary, &progress.canary, reason),
        Verdict::Advance(_) if progress.paused || progress.clock.elapsed(now) < plan.interval() => {
            (phase.clone(), Vec::new())
        }
        Verdict::Advance(_) if progress.step.saturating_add(1) < plan.steps() => {
            let step = progress.step.saturating_add(1);
            let weight = plan.weight(step).unwrap_or(progress.weight);
            let next = Progress { step, weight, clock: StepClock::Standing(Span::ZERO), ..progress.clone() };
            (Phase::Progressing(next), vec![advance(plan, step)])
        }
        Verdict::Advance(_) => promote(plan, progress),
        // Absence is not success, and neither is "not yet".
        Verdict::Continue(_) | Verdict::NoData(_) => (phase.clone(), Vec::new()),
    }
}

fn on_flowing(phase: &Phase, flowing: bool, now: Timestamp) -> Phase {
    match phase {
        Phase::Progressing(progress) => {
            Phase::Progressing(Progress { clock: progress.clock.run(flowing, now), ..progress.clone() })
        }
        Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Promoting { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => phase.clone(),
    }
}

fn on_command(plan: &Plan, phase: &Phase, command: Command) -> (Phase, Vec<Effect>) {
    match (command, phase) {
        (Command::Pause, Phase::Progressing(progress)) if !progress.paused => {
            (Phase::Progressing(Progress { paused: true, ..progress.clone() }), Vec::new())
        }
        (Command::Resume, Phase::Progressing(progress)) if progress.paused => {
            (Phase::Progressing(Progress { paused: false, ..progress.clone() }), Vec::new())
        }
        (
            Command::Abort,
            Phase::Progressing(Progress { primary, canary, .. }) | Phase::Promoting { primary, canary, .. },
        ) => fail(plan, primary, canary, "aborted by command"),
        (Command::Promote, Phase::Progressing(progress)) => promote(plan, progress),
        (Command::Retry, Phase::Failed { primary, canary, .. }) => start(plan, primary, canary),
        (Command::Pause | Command::Resume | Command::Abort | Command::Promote | Command::Retry, _) => {
            (phase.clone(), vec![Effect::Refuse(refusal(plan, phase, command))])
        }
    }
}

fn refusal(plan: &Plan, phase: &Phase, command: Command) -> String {
    let name = plan.name();
    let paused = matches!(phase, Phase::Progressing(Progress { paused: true, .. }));
    let now = if paused { "Progressing and paused" } else { phase.as_str() };
    match command {
        Command::Pause => format!("{name} is {now}: only a rollout in progress can be paused"),
        Command::Resume => format!("{name} is {now}: only a paused rollout can be resumed"),
        Command::Abort => format!("{name} is {now}: there is no rollout to abort"),
        Command::Promote => format!("{name} is {now}: there is no rollout to promote"),
        Command::Retry => format!("{name} is {now}: only a failed rollout can be retried"),
    }
}

fn on_primary_ready(plan: &Plan, phase: &Phase) -> (Phase, Vec<Effect>) {
    let Phase::Promoting { canary, .. } = phase else { return (phase.clone(), Vec::new()) };
    let target = format!("{}.{}", plan.target(), plan.name().namespace);
    let effects = vec![
        normal("Routing all traffic to primary".to_string()),
        normal(format!("Promotion completed! Scaling down {target}")),
    ];
    (Phase::Succeeded { primary: canary.clone() }, effects)
}

/// An abort is served before it is stored; one that was not stored in time is found in what the proxies serve.
fn on_later_rev(plan: &Plan, phase: &Phase) -> (Phase, Vec<Effect>) {
    match phase {
        Phase::Progressing(Progress { primary, canary, .. }) | Phase::Promoting { primary, canary, .. } => {
            fail(plan, primary, canary, "an abort was served before it could be stored")
        }
        Phase::Initializing | Phase::Initialized { .. } | Phase::Succeeded { .. } | Phase::Failed { .. } => {
            (phase.clone(), Vec::new())
        }
    }
}

fn fail(plan: &Plan, primary: &Revision, canary: &Revision, reason: &str) -> (Phase, Vec<Effect>) {
    let name = plan.name();
    let phase = Phase::Failed {
        primary: primary.clone(),
        canary: canary.clone(),
        seen: canary.clone(),
        reason: reason.to_string(),
    };
    let effects =
        vec![warning(format!("Rolling back {name} {reason}")), warning(format!("Canary failed! Scaling down {name}"))];
    (phase, effects)
}

fn promote(plan: &Plan, progress: &Progress) -> (Phase, Vec<Effect>) {
    let (target, namespace) = (plan.target(), &plan.name().namespace);
    let effects = vec![
        normal(format!("Copying {target}.{namespace} template spec to {target}-primary.{namespace}")),
        Effect::Promote(progress.canary.clone()),
    ];
    let (primary, canary) = (progress.primary.clone(), progress.canary.clone());
    (Phase::Promoting { primary, canary, weight: progress.weight }, effects)
}

fn advance(plan: &Plan, step: usize) -> Effect {
    let weight = plan.weight(step).unwrap_or_default();
    normal(format!("Advance {} canary weight {weight}", plan.name()))
}

fn normal(text: String) -> Effect {
    Effect::Emit(Severity::Normal, text)
}

fn warning(text: String) -> Effect {
    Effect::Emit(Severity::Warning, text)
}
