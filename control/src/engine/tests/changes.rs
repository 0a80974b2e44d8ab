//! What is written anew in the middle of a rollout, and revisions that go.

use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::rollout::{Cause, Phase};

use super::*;
use crate::view::CanaryView;

/// By checks, and with an α that is not the usual one.
fn by_checks_at_one_percent(revision: &str) -> DesiredState {
    let mut desired = by_checks(revision);
    desired.canaries.get_mut(&name()).unwrap().judge.alpha = 0.01;
    desired
}

fn view(world: &mut World) -> CanaryView {
    let board = world.engine.status(true, world.now);
    board.canaries.values().next().unwrap().as_ref().clone()
}

fn in_force(view: &CanaryView) -> Option<String> {
    view.conditions.iter().find(|condition| condition.kind == "InForce").map(|condition| condition.message.clone())
}

/// Status shows what is in force, which a restart does not change (B3).
#[test]
fn a_mode_that_changes_in_mid_run_waits_for_the_next_rollout() {
    let mut world = World::new();
    world.rollout();
    world.texts.clear();
    world.engine.configure(by_checks_at_one_percent("2"), world.now);
    world.tick();
    let told = "spec.analysis.judge.mode, spec.analysis.judge.alpha is in force as it was when the rollout began, the \
                change waits for the next one";
    assert_eq!(world.texts, [format!("The spec of backend.prod changed during a rollout: {told}")]);
    for _ in 0..2 {
        let shown = view(&mut world);
        assert_eq!((shown.mode.as_str(), in_force(&shown).as_deref()), ("sequential", Some(told)));
        assert!((shown.alpha.total - 0.0005).abs() < 1e-9, "{:?}", shown.alpha);
        world = world.restart();
        world.engine.configure(by_checks_at_one_percent("2"), world.now);
        world.engine.stop_learning();
        world.tick();
    }
    // Evidence goes on deciding: no interval by itself lets the share rise.
    for _ in 0..30 {
        world.now = world.now.plus(Span::from_millis(100));
        world.tick();
    }
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    world.engine.command(&name(), Command::Retry, "2", world.now).unwrap();
    world.tick();
    let shown = view(&mut world);
    assert_eq!((shown.mode.as_str(), in_force(&shown)), ("guard", None));
}

#[test]
fn who_gets_the_canary_does_not_change_in_mid_run() {
    let to_users = |revision: &str| {
        let mut desired = desired_state(revision);
        let config = desired.canaries.get_mut(&name()).unwrap();
        config.audience = Targeting::Users(Identity::Cookie("uid".into()));
        config.judge.comparison = Comparison::Affinity;
        config.service.timeout = Some(Span::from_secs(3));
        desired
    };
    let by_bucket = |world: &World| {
        let model = world.engine.model();
        let Split::Weighted { by_bucket, .. } = model.hosts[0].split else { panic!("{:?}", model.hosts[0].split) };
        (by_bucket, model.hosts[0].timeout)
    };
    let mut world = World::new();
    world.rollout();
    world.engine.configure(to_users("2"), world.now);
    world.tick();
    assert_eq!(by_bucket(&world), (false, Some(Span::from_secs(3))), "the timeout changes at once");
    assert!(in_force(&view(&mut world)).is_some_and(|told| told.starts_with("spec.analysis.affinity is in force")));
    // Written as it was, nothing waits any more.
    world.engine.configure(desired_state("2"), world.now);
    assert_eq!(in_force(&view(&mut world)), None);
    world.engine.configure(to_users("2"), world.now);
    world.engine.configure(to_users("1"), world.now);
    world.engine.configure(to_users("2"), world.now);
    world.tick();
    assert!(by_bucket(&world).0, "the next rollout has it");
}

/// It fails under the load that it gets when it takes over.
#[test]
fn a_canary_that_breaks_in_its_promotion_is_out() {
    let input = PlanInput { max_weight: Some(20), step_weight_promotion: Some(10), ..plan_input() };
    let mut world = World::new();
    world.engine.configure(planned("2", &input), world.now);
    world.tick();
    for _ in 0..3_000 {
        let canary = u64::from(world.weight().get() / 100);
        world.traffic((100 - canary, 0), (canary, 0));
        if world.phase() == "Promoting" {
            break;
        }
    }
    assert_eq!(world.phase(), "Promoting");
    // Also after a restart.
    let mut world = world.restart();
    world.engine.configure(planned("2", &input), world.now);
    world.engine.stop_learning();
    for _ in 0..10 {
        let canary = u64::from(world.weight().get() / 100);
        world.traffic((100 - canary, 0), (canary, canary));
    }
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO), "{:?}", world.texts);
}

/// What is gone is not promoted, whatever let it go (A11).
#[test]
fn a_revision_that_goes_while_it_is_promoted_halts_the_promotion() {
    let promoting = |revisions: &[&str]| {
        let mut desired = desired_state("2");
        let config = desired.canaries.get_mut(&name()).unwrap();
        config.workload.revisions.retain(|revision, _| revisions.contains(&revision.as_str()));
        desired
    };
    let mut world = World::new();
    world.rollout();
    let all = |bound: &[&str]| bound.iter().map(|revision| Revision::new(*revision)).collect();
    assert_eq!(view(&mut world).in_use, InUse { bound: all(&["1"]), on_trial: Some(Revision::new("2")) });
    world.engine.command(&name(), Command::Promote, "1", world.now).unwrap();
    assert_eq!(view(&mut world).in_use, InUse { bound: all(&["1", "2"]), on_trial: None });
    world.engine.alerts();
    world.engine.configure(promoting(&["1"]), world.now);
    for _ in 0..20 {
        world.now = world.now.plus(Span::from_millis(500));
        world.tick();
    }
    assert_eq!(world.phase(), "Promoting");
    let told = "canary deployment backend.prod not ready: revision 2 has no endpoints";
    assert_eq!(world.texts.iter().filter(|text| *text == told).count(), 1, "{:?}", world.texts);
    let alerts: Vec<String> = world.engine.alerts().into_iter().map(|alerted| alerted.alert.text).collect();
    assert_eq!(alerts, ["Promotion is halted: revision 2 has no endpoints"]);
    let ready = view(&mut world).conditions.into_iter().find(|condition| condition.kind == "Ready").unwrap();
    assert_eq!(ready.message, "revision 2 has no endpoints");
    world.engine.configure(promoting(&["1", "2"]), world.now);
    world.tick();
    world.tick();
    world.tick();
    assert_eq!(world.phase(), "Succeeded");
}

#[test]
fn a_change_that_is_taken_back_is_shown_as_that_and_counted_as_nothing_else() {
    let mut world = World::new();
    world.rollout();
    world.engine.configure(desired_state("1"), world.now);
    world.tick();
    let state = &world.engine.canaries.all()[&name()].state;
    assert!(matches!(&state.phase, Phase::Failed { cause: Cause::TakenBack, .. }), "{:?}", state.phase);
    let promoted = view(&mut world).conditions[0].clone();
    assert_eq!((promoted.status.as_str(), promoted.reason.as_str()), ("False", "Failed"));
    assert_eq!(promoted.message, "Canary taken back: the change was taken back, the workload asks for 1 again");
    assert!(world.ended().is_empty());
    world.tick();
    assert!(!world.engine.canaries.busy().contains(&name()), "it is at rest");
}

/// Rules of the service: chance decides among those that match, and the others stay with the primary (B10).
#[test]
fn a_share_of_those_that_match_is_chosen_by_the_filters() {
    let served = |revision: &str| {
        let prefix = StringMatch { prefix: Some("/api".to_owned()), ..StringMatch::default() };
        let entry = EntryInput { uri: Some(prefix), ..EntryInput::default() };
        let mut desired = desired_state(revision);
        let config = desired.canaries.get_mut(&name()).unwrap();
        config.audience = Targeting::Served(Entries::try_new(&[entry]).unwrap());
        desired
    };
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(served(revision), world.now);
        world.tick();
    }
    let Split::Header { value, .. } = world.engine.model().hosts[0].split.clone() else {
        panic!("{:?}", world.engine.model().hosts[0].split)
    };
    let request = ReportRequest { automaton_format: AUTOMATON_FORMAT, ..world.request() };
    let policy = report(&mut world.engine, &request, world.now).unwrap().policy.unwrap();
    let divisions = convert::policy::divisions(&policy).unwrap();
    let [(_, Assignment::Rules { token, holdback, rules })] = divisions.as_slice() else { panic!("{divisions:?}") };
    assert_eq!((token, *holdback), (&value, BasisPoints::from_percent(90)), "a tenth of those that match");
    let path = |path: &str| {
        let request = wingbeat_core::matching::request::Request { path: path.into(), ..Default::default() };
        rules.first_match(&request)
    };
    assert_eq!((path("/api/v1"), path("/other")), (Some(0), None));
}

/// Previews come and go under names of their own: of those that are gone nothing stays for ever.
#[test]
fn what_is_kept_of_canaries_that_are_gone_ends() {
    let preview = |number: u64| {
        let mut desired = desired_state("1");
        let called = CanaryName::new("prod", format!("preview-{number}"));
        let mut config = desired.canaries.remove(&name()).unwrap();
        config.plan = Plan::try_new(&PlanInput { name: Some(called.clone()), ..plan_input() }).unwrap();
        config.service.hosts = vec![format!("{}.local", called.name)];
        desired.canaries.insert(called, config);
        desired
    };
    let kept = |world: &World| {
        let entries = world.store.clone().load().unwrap();
        entries.keys().filter(|key| key.starts_with("canary/")).count()
    };
    let mut world = World::over(Memory::default());
    for number in 0..100 {
        world.engine.configure(preview(number), world.now);
        world.tick();
        world.now = world.now.plus(Span::from_secs(24 * 3_600));
        world.tick();
        if number % 7 == 0 {
            // Not all of them are there from the start: files are read one by one.
            world = world.restart();
            world.engine.configure(preview(number), world.now);
            world.engine.stop_learning();
            world.tick();
        }
    }
    assert_eq!(kept(&world), 32, "one is there, and 31 have been gone for thirty days at most");
    // One that returns in time is known, one that does not is new.
    for (number, is_known) in [(80, true), (50, false)] {
        world.engine.configure(preview(number), world.now);
        let canary = &world.engine.canaries.all()[&CanaryName::new("prod", format!("preview-{number}"))];
        assert_eq!(canary.state.changed < world.now, is_known, "{number}");
    }
}

/// One that was away for a day and returned is not forgotten for it when it is away again much later, though nothing else
/// was ever written of it.
#[test]
fn who_has_returned_is_away_from_when_it_goes_again() {
    let mut world = World::over(Memory::default());
    let days = |world: &mut World, desired: DesiredState, days: u64| {
        world.engine.configure(desired, world.now);
        world.engine.stop_learning();
        for _ in 0..3 {
            world.now = world.now.plus(Span::from_secs(10));
            world.tick();
        }
        world.now = world.now.plus(Span::from_secs(days * 24 * 3_600));
    };
    days(&mut world, desired_state("1"), 1);
    days(&mut world, DesiredState::default(), 1);
    days(&mut world, desired_state("1"), 40);
    let mut world = world.restart();
    days(&mut world, DesiredState::default(), 1);
    days(&mut world, desired_state("2"), 0);
    assert_eq!(world.phase(), "Progressing", "the first revision is the primary still");
}

/// Nobody knows what became of a share while its canary was not configured: the step begins anew.
#[test]
fn a_step_begins_anew_with_a_canary_that_returns() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..5 {
        world.traffic((90, 0), (10, 0));
    }
    let weight = world.weight();
    world.engine.configure(DesiredState::default(), world.now);
    world.now = world.now.plus(Span::from_secs(3_600));
    world.tick();
    world.engine.configure(desired_state("2"), world.now);
    let canary = &world.engine.canaries.all()[&name()];
    let Phase::Progressing(progress) = &canary.state.phase else { panic!("{canary:?}") };
    assert_eq!(progress.clock.elapsed(world.now), Span::ZERO);
    assert_eq!(world.weight(), weight);
}
