//! What comes in between: other revisions, aborts, changed plans, restarts and commands.

use wingbeat_core::id::{Rev, Revision};
use wingbeat_core::rollout::{Answer, Command, Effect, Event, Plan, PlanInput, Readiness, Routes, safety};
use wingbeat_core::weight::BasisPoints;

use crate::world::{World, advance, by_checks, down, harm, input, percent, revision, running};

#[test]
fn going_back_to_the_primary_is_no_rollout() {
    let mut world = running();
    world.feed(&revision("1"));
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
    assert_eq!(world.phase(), "Succeeded");
    world.feed(&revision("2"));
    world.verdict(harm());
    assert_eq!(world.feed(&revision("1")), []);
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
    let Routes::Shared { primary, canary, .. } = world.routes() else { panic!("a rollout is on") };
    assert_eq!((primary.as_str(), canary.as_str()), ("1", "3"));
}

#[test]
fn an_abort_that_was_served_is_never_taken_back() {
    let mut world = running();
    let served = world.state.rev.next();
    world.feed(&Event::RevSeen(served));
    assert_eq!(world.phase(), "Failed");
    assert_eq!(world.state.rev, served);
    let before = world.state.clone();
    world.feed(&Event::RevSeen(served));
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
    assert_eq!(world.state.rev, served.next(), "the abort's rev is left to it");
    world.verdict(advance());
    world.interval();
    world.feed(&Event::RevSeen(world.state.rev.next()));
    assert_eq!(world.phase(), "Progressing", "this one was never served");
    world.feed(&Event::RevSeen(served));
    assert_eq!(world.phase(), "Failed");
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
    assert!(safety::may_abort_unstored(&before, &world.state));
    let failed = world.state.clone();
    world.feed(&Event::Command(Command::Retry));
    assert!(!safety::may_abort_unstored(&failed, &world.state));
}

#[test]
fn a_rev_that_no_abort_can_have_is_not_believed() {
    let mut world = running();
    let before = world.state.clone();
    for rev in [before.rev.next().next(), Rev::new(u64::MAX), Rev::default()] {
        world.feed(&Event::RevSeen(rev));
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
    world.plan = Plan::try_new(&input).expect("another plan");
    assert_eq!(world.weight(), percent(5));
    world.verdict(advance());
    world.interval();
    assert_eq!(world.weight(), percent(40));
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
