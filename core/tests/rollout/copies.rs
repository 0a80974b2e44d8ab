//! Where the primary's workload takes a revision over, as in a cluster.

use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{
    Command, Event, Handover, PlanInput, PrimaryTemplate, Readiness, Routes, Share, TargetScale, workloads,
};
use wingbeat_core::verdict::Counted;

use crate::world::{World, advance, down, input, percent, revision, settled};

fn copied() -> PlanInput {
    PlanInput { handover: Handover::Copy, ..input() }
}

/// A rollout that is being promoted, whose primary does not run it yet.
fn promoting() -> World {
    let mut world = World::new(&copied());
    world.feed(&revision("2"));
    world.facts.verdict = advance();
    world.facts.counted = Counted::Sufficient;
    while world.phase() == "Progressing" {
        world.pass(1_000);
        world.feed(&Event::Tick(world.facts.clone()));
        world.settle();
    }
    world.facts.primary = down("the template is being written", false);
    assert_eq!((world.phase(), world.weight()), ("Promoting", percent(50)));
    world
}

#[test]
fn a_revision_that_comes_in_mid_promotion_gets_no_requests() {
    let mut world = promoting();
    world.feed(&revision("3"));
    assert_eq!((world.phase(), world.routes()), ("Promoting", Routes::Shared { share: Share::Nothing }));
    assert_eq!(workloads(&world.state).primary, PrimaryTemplate::Of(Revision::new("2")));
    // What is promoted is promoted first.
    world.facts.primary = Readiness::Ready;
    world.interval();
    world.interval();
    assert_eq!(world.served(), settled("2"));
    world.feed(&revision("3"));
    world.interval();
    assert_eq!((world.phase(), world.state.canary().map(ToString::to_string)), ("Progressing", Some("3".to_owned())));
}

#[test]
fn a_canary_takes_the_place_of_a_primary_that_is_gone() {
    let mut world = World::new(&copied());
    world.facts.primary = down("0 of 2 updated replicas are available", false);
    world.facts.primary_gone = true;
    world.facts.canary = down("scaling up", false);
    world.feed(&revision("2"));
    world.interval();
    assert_eq!((world.phase(), world.weight()), ("Progressing", percent(0)), "it is not ready either");
    world.facts.canary = Readiness::Ready;
    world.take_texts();
    world.interval();
    assert_eq!((world.phase(), world.routes()), ("Promoting", Routes::Shared { share: Share::Everything }));
    assert_eq!(workloads(&world.state).target, TargetScale::Up);
    let texts = world.take_texts();
    let text = "No pod of backend-primary.prod serves: backend.prod gets all requests and is promoted without analysis";
    assert_eq!(texts.first().map(String::as_str), Some(text), "{texts:?}");
    world.facts.primary = Readiness::Ready;
    world.facts.primary_gone = false;
    world.interval();
    world.interval();
    assert_eq!((world.phase(), world.served()), ("Succeeded", settled("2")));
}

#[test]
fn what_is_paused_or_a_revision_of_its_own_takes_no_place() {
    for (plan, is_paused) in [(copied(), true), (input(), false)] {
        let mut world = World::new(&plan);
        world.facts.canary = down("scaling up", false);
        world.feed(&revision("2"));
        world.interval();
        if is_paused {
            world.feed(&Event::Command(Command::Pause));
        }
        world.facts.primary = down("0 of 2 updated replicas are available", false);
        world.facts.primary_gone = true;
        world.facts.canary = Readiness::Ready;
        world.interval();
        assert_eq!(world.phase(), "Progressing");
    }
}

#[test]
fn a_promotion_ends_when_the_primary_runs_it() {
    let mut world = promoting();
    world.interval();
    world.interval();
    assert_eq!((world.phase(), world.weight()), ("Promoting", percent(50)), "it does not run it yet");
    world.facts.primary = Readiness::Ready;
    world.interval();
    world.interval();
    assert_eq!((world.phase(), world.served()), ("Succeeded", settled("2")));
}

#[test]
fn a_canary_without_pods_gets_no_requests() {
    let mut world = World::new(&copied());
    world.feed(&revision("2"));
    world.facts.verdict = advance();
    world.facts.counted = Counted::Sufficient;
    while world.weight() < percent(20) {
        world.interval();
    }
    world.facts.canary = down("0 of 1 updated replicas are available", false);
    world.facts.canary_gone = true;
    world.take_texts();
    world.tick();
    assert_eq!((world.phase(), world.routes()), ("Progressing", Routes::Shared { share: Share::Nothing }));
    let text = "Halt backend.prod advancement no pod of backend.prod serves, canary weight back to 0";
    assert_eq!(world.take_texts().last().map(String::as_str), Some(text));
    world.facts.canary = Readiness::Ready;
    world.facts.canary_gone = false;
    world.interval();
    world.interval();
    assert!(world.weight() > percent(0), "it goes on from there");
}
