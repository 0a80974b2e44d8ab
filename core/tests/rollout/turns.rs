//! What comes in between: other revisions, aborts, changed plans, restarts and commands.

use wingbeat_core::id::{Rev, Revision};
use wingbeat_core::rollout::{
    AlertLevel, Answer, Cause, Command, Effect, Event, HookInput, HookKind, Pace, Phase, Plan, PlanInput, Readiness,
    Revisions, Strategy, project, question, recovery,
};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::weight::BasisPoints;

use crate::world::{World, advance, by_checks, down, harm, hooks, input, percent, revision, running, settled};

/// It did not succeed, and whoever listens is told that nobody promoted anything (B17).
#[test]
fn a_change_that_is_taken_back_ends_its_rollout_without_promotion() {
    let input = PlanInput { hooks: hooks(&[HookKind::PostRollout]), ..input() };
    let mut world = World::new(&input);
    world.feed(&revision("2"));
    world.tick();
    world.tick();
    world.take_texts();
    world.feed(&revision("1"));
    assert_eq!(world.served(), settled("1"));
    assert!(matches!(&world.state.phase, Phase::Failed { cause: Cause::TakenBack, .. }), "{:?}", world.state.phase);
    world.settle();
    assert_eq!(
        world.take_texts(),
        [
            "Rolling back backend.prod the change was taken back, the workload asks for 1 again",
            "Canary taken back! Scaling down backend.prod",
            "Post-rollout check the-post-rollout passed",
        ]
    );
    let alert = "Canary taken back: the workload asks for 1 again.".to_owned();
    assert_eq!(world.alerts.last(), Some(&(AlertLevel::Warn, alert)));
    assert_eq!(world.asked.last().map(String::as_str), Some("the-post-rollout in Failed"));
    // There is nothing to retry, until the workload asks for it again.
    let refused = world.feed(&Event::Command(Command::Retry));
    let why = "backend.prod is Failed and its workload asks for 1: ask for 2 to try it again";
    assert_eq!(refused, [Effect::Refuse(why.to_owned())]);
    world.feed(&revision("2"));
    assert_eq!((world.phase(), world.state.attempt()), ("Progressing", 2));
    // A workload that goes back after a rollback takes nothing back.
    world.verdict(harm());
    assert_eq!(world.feed(&revision("1")), []);
    assert!(matches!(&world.state.phase, Phase::Failed { cause: Cause::RolledBack, .. }));
}

#[test]
fn a_change_may_be_taken_back_before_it_was_confirmed() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::ConfirmRollout]), ..input() });
    world.feed(&revision("2"));
    assert_eq!(world.phase(), "Waiting");
    world.feed(&revision("1"));
    assert!(matches!(&world.state.phase, Phase::Failed { cause: Cause::TakenBack, .. }));
}

#[test]
fn a_new_revision_in_mid_run_starts_over() {
    let mut world = World::new(&by_checks());
    world.feed(&revision("2"));
    world.interval();
    world.answers.insert("request-success-rate".into(), Answer::Failed("halt".into()));
    world.interval();
    assert_eq!(world.state.failed_checks(), 1);
    let rollout = world.state.rollout;
    world.take_texts();
    world.answers.clear();
    world.feed(&revision("3"));
    assert_eq!((world.weight(), world.state.failed_checks()), (BasisPoints::ZERO, 0));
    world.interval();
    assert_eq!(
        world.texts,
        [
            "New revision detected! Restarting analysis for backend.prod",
            "Starting canary analysis for backend.prod",
            "Advance backend.prod canary weight 5",
        ]
    );
    assert_eq!(world.state.rollout, rollout.next());
    let Revisions { primary, canary } = project(&world.state).revisions;
    assert_eq!((primary, canary), (Some(Revision::new("1")), Some(Revision::new("3"))));
}

#[test]
fn an_abort_that_was_served_is_never_taken_back() {
    let mut world = running();
    let served = world.state.rev.next();
    world.feed(&Event::RevObserved(served));
    assert_eq!(world.phase(), "Failed");
    assert_eq!(world.state.rev, served);
    let before = world.state.clone();
    world.feed(&Event::RevObserved(served));
    assert_eq!(world.state, before);
}

#[test]
fn an_unstored_abort_is_known_however_late_it_shows() {
    let mut world = running();
    let served = world.state.rev.next();
    world.state = world.state.clone().resumed();
    // Nobody has shown it yet, and the rollout goes on.
    world.verdict(advance());
    world.interval();
    assert_eq!(world.state.rev, served.next().next(), "an abort's revs are left to it");
    world.verdict(advance());
    world.interval();
    world.feed(&Event::RevObserved(world.state.rev.next()));
    assert_eq!(world.phase(), "Progressing", "this one was never served");
    world.feed(&Event::RevObserved(served));
    assert_eq!(world.phase(), "Failed");
    // One that took the place of a step while that was being stored has the rev after the step's.
    for (steps, rev) in [(0, served.next()), (0, served.next().next().next()), (1, served.next())] {
        let mut world = running();
        world.state = world.state.clone().resumed();
        for _ in 0..steps {
            world.verdict(advance());
            world.interval();
        }
        world.feed(&Event::RevObserved(rev));
        assert_eq!(world.phase(), "Failed", "{steps} steps, {rev:?}");
    }
    // An abort of the restarted controller has the same rev: the next one has to know it, too.
    let mut world = running();
    let served = world.state.rev.next();
    world.state = world.state.clone().resumed();
    world.verdict(harm());
    assert_eq!((world.phase(), world.state.rev), ("Failed", served));
}

#[test]
fn only_an_abort_of_a_judged_canary_may_be_served_first() {
    let mut world = running();
    let before = world.state.clone();
    world.verdict(harm());
    assert!(recovery::may_abort_unstored(&before, &world.state));
    let failed = world.state.clone();
    world.feed(&Event::Command(Command::Retry));
    assert!(!recovery::may_abort_unstored(&failed, &world.state));
}

#[test]
fn a_rev_that_no_abort_can_have_is_not_believed() {
    let mut world = running();
    let before = world.state.clone();
    for rev in [before.rev.next().next(), Rev::new(u64::MAX), Rev::default()] {
        world.feed(&Event::RevObserved(rev));
        assert_eq!(world.state, before);
    }
}

#[test]
fn a_failed_revision_may_come_again_after_the_workload_went_back() {
    let mut world = running();
    world.verdict(harm());
    world.feed(&revision("1"));
    assert_eq!(world.phase(), "Failed");
    world.feed(&revision("2"));
    assert_eq!((world.phase(), world.state.attempt()), ("Progressing", 2));
}

#[test]
fn a_plan_that_changes_in_mid_run_changes_the_next_step() {
    let mut world = running();
    let input = PlanInput { step_weight: None, max_weight: None, step_weights: vec![20, 40], ..input() };
    world.rewrite(&input);
    assert_eq!(world.weight(), percent(5));
    for weight in [20, 40] {
        world.verdict(advance());
        world.tick();
        world.interval();
        assert_eq!(world.weight(), percent(weight), "no weight is left out");
    }
}

/// A position is where its share is: fewer steps than were taken already are no reason to promote.
#[test]
fn a_shorter_plan_leaves_no_step_out() {
    let listed = |weights: &[i64]| PlanInput {
        step_weight: None,
        max_weight: None,
        step_weights: weights.to_vec(),
        ..by_checks()
    };
    let mut world = World::new(&listed(&[1, 2, 3, 4, 5]));
    world.feed(&revision("2"));
    for _ in 0..4 {
        world.interval();
    }
    assert_eq!(world.weight(), percent(4));
    world.rewrite(&listed(&[2, 50, 80]));
    for weight in [50, 80] {
        world.interval();
        assert_eq!((world.weight(), world.phase()), (percent(weight), "Progressing"));
    }
    let green =
        |iterations| PlanInput { step_weight: None, max_weight: None, iterations: Some(iterations), ..by_checks() };
    let mut world = World::new(&green(9));
    world.feed(&revision("2"));
    for _ in 0..6 {
        world.interval();
    }
    world.rewrite(&green(2));
    world.interval();
    assert_eq!((world.weight(), world.phase()), (percent(100), "Progressing"), "the switch is not left out");
}

/// What makes evidence comparable stays as it was; what is read anew at every look changes (B3).
#[test]
fn what_a_rollout_began_under_stays_in_force_to_its_end() {
    let mut world = running();
    let other = PlanInput {
        pace: Pace::Checks,
        step_weight: None,
        max_weight: None,
        iterations: Some(3),
        matches: true,
        interval: Some(Span::from_secs(2)),
        hooks: hooks(&[HookKind::Rollout]),
        ..input()
    };
    assert_eq!(world.rewrite(&other), ["analysis.judge.mode", "analysis.match", "analysis.iterations"]);
    let plan = &world.plan;
    assert_eq!((plan.pace(), plan.strategy(), plan.positions()), (Pace::Evidence, Strategy::Weighted, 11));
    assert_eq!((plan.interval(), plan.hooks(HookKind::Rollout).count()), (Span::from_secs(2), 1));
    world.facts.verdict = advance();
    while world.phase() != "Succeeded" {
        world.interval();
        assert!(world.now < Timestamp::from_millis(60_000), "stuck in {}", world.phase());
    }
    assert_eq!((world.plan.pace(), world.plan.strategy()), (Pace::Checks, Strategy::AbTesting), "for the next one");
    assert_eq!(world.rewrite(&input()), [""; 0], "nothing waits where no rollout is on");
}

/// An answer belongs to what was asked, not to a place in a list (B2).
#[test]
fn the_late_answer_of_a_hook_that_is_gone_opens_no_gate() {
    let gate = |name: &str| HookInput { name: name.into(), kind: "confirm-promotion".into(), mute_alert: false };
    let with = |names: &[&str]| PlanInput {
        hooks: names.iter().map(|name| gate(name)).collect(),
        step_weight: Some(50),
        ..by_checks()
    };
    let at_the_gate = |input: &PlanInput| {
        let mut world = World::new(input);
        world.feed(&revision("2"));
        world.interval();
        world.pass(1_000);
        world.feed(&Event::Tick(world.facts.clone()));
        world.settle_until("strict");
        let open = question(&world.plan, &world.state).expect("the gate is asked");
        (world, open.ticket)
    };
    // By name, by what is behind the name, and by what stands before it in the list.
    let renamed = Plan::try_new(&with(&["lax"])).expect("a plan");
    let moved = Plan::try_new(&with(&["strict"])).expect("a plan").asking([7].into_iter(), [].into_iter());
    let grown = Plan::try_new(&with(&["new", "strict"])).expect("a plan");
    for plan in [renamed, moved, grown] {
        let (mut world, late) = at_the_gate(&with(&["strict"]));
        world.rewrite_as(plan);
        let before = world.state.clone();
        world.feed(&Event::Answer(late, Answer::Passed));
        assert_eq!(world.state, before);
        for name in ["lax", "strict"] {
            world.answers.insert(name.into(), Answer::Failed("no".into()));
        }
        for _ in 0..3 {
            world.interval();
        }
        assert_eq!(world.phase(), "WaitingPromotion", "the present gate decides, and is asked");
    }
    // A gate that is gone holds nothing up, and neither does a look in the middle of which it went.
    let (mut world, _) = at_the_gate(&with(&["strict"]));
    world.rewrite(&with(&[]));
    for _ in 0..4 {
        world.interval();
    }
    assert_eq!(world.phase(), "Succeeded");
}

#[test]
fn a_post_rollout_hook_that_comes_later_is_not_told_of_earlier_rollouts() {
    let with = PlanInput { hooks: hooks(&[HookKind::PostRollout]), ..input() };
    let mut world = World::new(&with);
    world.feed(&revision("2"));
    world.feed(&Event::Command(Command::Abort));
    assert!(question(&world.plan, &world.state).is_some());
    world.rewrite(&input());
    world.feed(&Event::Tick(world.facts.clone()));
    world.rewrite(&with);
    assert_eq!(question(&world.plan, &world.state), None);
}

#[test]
fn a_restart_starts_the_steps_clock_anew() {
    let mut world = running();
    world.pass(60_000);
    world.state = world.state.clone().resumed();
    world.verdict(advance());
    assert_eq!(world.weight(), percent(5));
}

#[test]
fn promotion_by_command_skips_steps_but_not_readiness() {
    let mut world = running();
    world.facts.canary = down("0 of 1 updated replicas are available", false);
    world.tick();
    let refused = world.feed(&Event::Command(Command::Promote));
    assert!(matches!(refused.as_slice(), [Effect::Refuse(why)] if why.contains("its canary is not ready")));
    world.facts.canary = Readiness::Ready;
    world.tick();
    world.feed(&Event::Command(Command::Promote));
    assert_eq!(world.phase(), "Promoting");
}

#[test]
fn impossible_commands_are_refused_with_a_reason() {
    let mut world = World::new(&input());
    for (command, says) in [
        (Command::Pause, "only a rollout in progress can be paused"),
        (Command::Resume, "only a paused rollout can be resumed"),
        (Command::Approve, "no gate waits for approval"),
        (Command::Abort, "there is no rollout to abort"),
        (Command::Promote, "there is no rollout to promote"),
        (Command::Retry, "only a failed rollout can be retried"),
    ] {
        let before = world.state.clone();
        let effects = world.feed(&Event::Command(command));
        assert_eq!(effects, [Effect::Refuse(format!("backend.prod is Initialized: {says}"))]);
        assert_eq!(world.state, before);
    }
}
