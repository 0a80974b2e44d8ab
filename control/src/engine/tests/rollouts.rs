//! What is shown of rollouts: bounded, true to what was counted, and gone in time.

use super::*;
use crate::view::{PointView, RolloutsView};

fn shown(world: &World) -> RolloutsView {
    world.engine.rollouts(&name(), world.now).unwrap()
}

fn requests(points: &[PointView]) -> u64 {
    points.iter().map(|point| point.canary.requests).sum()
}

#[test]
fn a_rollout_that_fails_is_shown_over_time_and_afterwards() {
    let mut world = World::new();
    assert_eq!(shown(&world), RolloutsView { steps: shown(&world).steps, ..RolloutsView::default() }, "none began");
    world.engine.configure(by_checks("2"), world.now);
    world.tick();
    for _ in 0..45 {
        world.traffic((90, 0), (10, 0));
    }
    let during = shown(&world);
    let weights: Vec<f64> = during.steps.iter().map(|step| step.weight).collect();
    assert_eq!(weights, [10.0, 20.0, 30.0, 40.0, 50.0]);
    assert!(during.position >= 2 && during.clock.is_some() && during.past.is_empty(), "{during:?}");
    let series = during.series.unwrap();
    assert!(series.points.iter().any(|point| point.canary.p99_ms.is_some() && point.harm.is_some()), "{series:?}");
    assert!(series.points.is_sorted_by(|a, b| a.t_ms < b.t_ms && a.weight <= b.weight), "{series:?}");

    for _ in 0..10 {
        world.traffic((90, 0), (10, 10));
    }
    assert_eq!(world.phase(), "Failed");
    let after = shown(&world);
    let past = &after.past[0];
    assert_eq!((past.result.as_str(), after.position), ("rolled-back", during.position), "{past:?}");
    assert_eq!((past.primary_revision.as_deref(), past.canary_revision.as_deref()), (Some("1"), Some("2")));
    assert!(past.canary.errors >= 10 && past.primary.errors == 0 && past.highest_weight >= 20.0, "{past:?}");
    let points = after.series.unwrap().points;
    assert_eq!(requests(&points), past.canary.requests, "each request is in one point");
    assert!(
        points.iter().filter_map(|point| point.harm).fold(0.0, f64::max) >= series.decisive,
        "what decided is seen"
    );

    // The next attempt begins a series of its own, and the one before stays in the history.
    world.engine.command(&name(), Command::Retry, "again", world.now).unwrap();
    world.traffic((90, 0), (10, 0));
    let next = shown(&world);
    assert!(next.series.is_some_and(|series| series.rollout > past.rollout) && next.past.len() == 1);
    world.engine.command(&name(), Command::Abort, "end", world.now).unwrap();
    world.tick();
    assert_eq!(shown(&world).past[0].attempt, 2, "the latest comes first");
}

#[test]
fn a_long_rollout_has_no_more_points_than_a_short_one() {
    let mut world = World::new();
    world.rollout();
    world.engine.command(&name(), Command::Pause, "stay", world.now).unwrap();
    for _ in 0..3_000 {
        world.traffic((19, 0), (1, 0));
    }
    let series = shown(&world).series.unwrap();
    assert!((60..=121).contains(&series.points.len()), "{} points", series.points.len());
    assert!(series.span_ms >= 4_000, "{} ms", series.span_ms);
    assert!(requests(&series.points) >= 2_900, "{}", requests(&series.points));
    let canary = &series.points[0].canary;
    assert!(canary.p50_ms.is_some_and(|p50| p50 > 0.0), "{canary:?}");
}

#[test]
fn a_promoted_canary_is_past_all_steps() {
    let mut world = World::new();
    world.engine.configure(by_checks("2"), world.now);
    world.tick();
    for _ in 0..3_000 {
        if world.phase() == "Succeeded" {
            break;
        }
        world.traffic((90, 0), (10, 0));
    }
    let after = shown(&world);
    assert_eq!((world.phase(), after.past[0].result.as_str()), ("Succeeded", "promoted"));
    assert_eq!(after.position, 6);
}

/// What ended long ago, of canaries that many others came after, is in the history and has no points any more.
#[test]
fn points_are_kept_of_a_few_ended_rollouts() {
    let mut world = World::new();
    let names: Vec<CanaryName> =
        (0..300).map(|number| CanaryName::new("prod", format!("canary-{number:03}"))).collect();
    let configured = |revision: &str| {
        let canaries = names.iter().map(|name| {
            let mut config = desired_state(revision).canaries.remove(&super::name()).unwrap();
            config.plan =
                Plan::try_new(&PlanInput { name: Some(name.clone()), target: name.name.to_string(), ..plan_input() })
                    .unwrap();
            config.service.hosts = vec![format!("{}.local", name.name)];
            (name.clone(), config)
        });
        DesiredState { canaries: canaries.collect(), ..DesiredState::default() }
    };
    world.engine.configure(configured("1"), world.now);
    world.engine.configure(configured("2"), world.now);
    for name in &names {
        world.now = world.now.plus(Span::from_millis(10));
        world.engine.command(name, Command::Abort, "end", world.now).unwrap();
        world.tick();
    }
    let all: Vec<RolloutsView> = names.iter().map(|name| world.engine.rollouts(name, world.now).unwrap()).collect();
    assert!(all.iter().all(|rollouts| rollouts.past.len() == 1));
    assert_eq!(all.iter().filter(|rollouts| rollouts.series.is_some()).count(), 256);
    assert!(
        all.first().is_some_and(|first| first.series.is_none()) && all.last().is_some_and(|last| last.series.is_some())
    );
}
