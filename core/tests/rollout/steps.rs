//! What ends a step, what holds it, and what is out of order.

use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{AlertLevel, Answer, Command, Effect, Event, Handover, HookKind, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_core::verdict::{Counted, Doubt, Verdict};
use wingbeat_core::weight::BasisPoints;

use crate::world::{World, advance, by_checks, down, harm, hooks, input, percent, revision, running, settled};

#[test]
fn a_step_lasts_its_interval_of_flowing_time() {
    let mut world = running();
    world.facts.propagation = false;
    world.verdict(advance());
    world.pass(10_000);
    world.tick();
    assert_eq!(world.weight(), percent(5), "nothing flowed yet");
    world.facts.propagation = true;
    world.tick();
    world.pass(600);
    world.facts.propagation = false;
    world.tick();
    world.pass(60_000);
    world.facts.propagation = true;
    world.tick();
    world.pass(399);
    world.tick();
    assert_eq!(world.weight(), percent(5), "999 ms flowed");
    world.pass(1);
    world.tick();
    assert_eq!(world.weight(), percent(10));
}

#[test]
fn proven_safety_ends_a_step_early() {
    let mut world = running();
    world.pass(200);
    world.verdict(advance());
    assert_eq!(world.weight(), percent(5));
    world.facts.safe = true;
    world.tick();
    assert_eq!(world.weight(), percent(10));
}

/// One bad reading is one failed check, and a closed gate is asked once an interval, however early harm is ruled out.
#[test]
fn proven_safety_asks_nobody_twice_in_an_interval() {
    let kinds = [HookKind::Rollout, HookKind::ConfirmTrafficIncrease];
    for (hook, counts) in [("the-rollout", true), ("the-confirm-traffic-increase", false)] {
        let mut world = World::new(&PlanInput { hooks: hooks(&kinds), threshold: Some(5), ..input() });
        world.feed(&revision("2"));
        world.tick();
        world.tick();
        assert_eq!(world.weight(), percent(5));
        world.answers.insert(hook.into(), Answer::Failed("no".into()));
        world.asked.clear();
        world.facts.safe = true;
        world.facts.verdict = advance();
        for _ in 0..30 {
            world.pass(100);
            world.tick();
        }
        let asked = world.asked.iter().filter(|asked| asked.starts_with(hook)).count();
        assert!((3..=4).contains(&asked), "{hook}: {asked} times in three intervals");
        let failed = usize::try_from(world.state.failed_checks()).unwrap();
        assert_eq!((world.phase(), failed), ("Progressing", if counts { asked } else { 0 }));
        world.answers.clear();
        world.pass(1_000);
        world.tick();
        world.tick();
        assert_eq!(world.weight(), percent(10));
    }
}

/// What filters had no room to count may be what fails, whoever decides.
#[test]
fn no_step_ends_while_harm_may_be_hidden_or_undecided() {
    let alone = PlanInput { metrics: Vec::new(), ..by_checks() };
    for input in [input(), by_checks(), alone] {
        let mut world = World::new(&input);
        world.feed(&revision("2"));
        world.facts.verdict = advance();
        world.facts.counted = Counted::Sufficient;
        for _ in 0..10 {
            if world.weight() < percent(10) {
                world.interval();
            }
        }
        for (uncounted, doubt, why) in [
            (true, None, "filters had no room to count some requests"),
            (false, Some(Doubt::Harm), "the canary may do harm, more requests decide"),
        ] {
            let before = world.weight();
            (world.facts.uncounted, world.facts.doubt) = (uncounted, doubt);
            world.take_texts();
            for _ in 0..10 {
                world.interval();
            }
            assert_eq!((world.phase(), world.weight(), world.state.failed_checks()), ("Progressing", before, 0));
            let text = format!("Halt backend.prod advancement {why}");
            assert!(world.texts.contains(&text), "{:?}", world.texts);
            (world.facts.uncounted, world.facts.doubt) = (false, None);
            world.interval();
            world.interval();
            assert!(world.weight() > before);
        }
    }
}

#[test]
fn absence_is_not_success() {
    let mut world = running();
    for _ in 0..100 {
        world.pass(1_000);
        world.verdict(Verdict::NoData("no traffic".into()));
        world.verdict(Verdict::Continue("12 more requests".into()));
    }
    assert_eq!(world.weight(), percent(5));
}

/// Flagger's checks decide, and there are none: what nobody has seen anything of does not go on, nor does it fail.
#[test]
fn a_step_without_checks_waits_for_requests() {
    for kinds in [&[][..], &[HookKind::Rollback, HookKind::Rollout]] {
        let input = PlanInput { metrics: Vec::new(), hooks: hooks(kinds), ..by_checks() };
        let mut world = World::new(&input);
        world.feed(&revision("2"));
        world.facts.counted = Counted::Missing(20);
        world.facts.verdict = Verdict::NoData("no traffic".into());
        for _ in 0..3 {
            world.interval();
            world.tick();
        }
        world.take_texts();
        world.asked.clear();
        for _ in 0..50 {
            world.interval();
            world.tick();
        }
        assert_eq!((world.weight(), world.state.failed_checks(), world.phase()), (percent(5), 0, "Progressing"));
        let text = "Halt backend.prod advancement too few requests: 20 more of the canary are needed";
        assert!(world.texts.iter().any(|told| told == text), "{:?}", world.texts);
        assert_eq!(
            world.asked.iter().any(|asked| asked.starts_with("the-rollback")),
            !kinds.is_empty(),
            "asked all along"
        );
        world.facts.counted = Counted::Sufficient;
        world.interval();
        world.tick();
        world.interval();
        world.tick();
        assert!(world.weight() > percent(5), "{:?}", world.state);
    }
}

/// A metric of next to no requests has neither passed nor failed.
#[test]
fn too_few_requests_hold_a_check() {
    let mut world = World::new(&by_checks());
    world.feed(&revision("2"));
    world.interval();
    world.answers.insert("request-success-rate".into(), Answer::TooFew("3 of 20".into()));
    for _ in 0..50 {
        world.interval();
    }
    assert_eq!((world.weight(), world.state.failed_checks()), (percent(5), 0));
    world.answers.clear();
    world.interval();
    assert_eq!(world.weight(), percent(10));
}

#[test]
fn harm_ends_the_rollout_at_once() {
    let mut world = running();
    let rev = world.state.rev;
    world.verdict(harm());
    assert_eq!(world.texts, ["Rolling back backend.prod the canary fails", "Canary failed! Scaling down backend.prod"]);
    assert_eq!(world.served(), settled("1"));
    assert_eq!(world.state.rev, rev.next());
    // Seen again, the failed revision starts nothing; a retry does, with a budget of its own.
    let before = world.state.clone();
    assert_eq!(world.feed(&revision("2")), []);
    assert_eq!(world.state, before);
    world.facts.verdict = Verdict::NoData(String::new());
    world.feed(&Event::Command(Command::Retry));
    assert_eq!((world.phase(), world.state.attempt()), ("Progressing", 2));
    world.feed(&revision("3"));
    assert_eq!(world.state.attempt(), 1);
}

#[test]
fn pausing_freezes_the_weight_but_not_the_guard() {
    let mut world = running();
    world.feed(&Event::Command(Command::Pause));
    world.pass(5_000);
    world.verdict(advance());
    assert_eq!(world.weight(), percent(5));
    world.verdict(harm());
    assert_eq!(world.weight(), BasisPoints::ZERO);
}

#[test]
fn what_is_suspended_neither_begins_nor_moves() {
    let mut world = World::new(&PlanInput { suspend: true, ..input() });
    world.feed(&revision("2"));
    assert_eq!(world.phase(), "Initialized");
    let mut world = running();
    world.rewrite(&PlanInput { suspend: true, ..input() });
    world.facts.verdict = advance();
    for _ in 0..5 {
        world.interval();
    }
    assert_eq!(world.weight(), percent(5));
    world.rewrite(&input());
    world.tick();
    assert_eq!(world.weight(), percent(10));
}

/// Nor does it begin because a hook confirms it, because the spec loses that hook, or because somebody asks for it.
#[test]
fn what_is_suspended_is_not_confirmed_and_not_tried_again() {
    let asking = PlanInput { hooks: hooks(&[HookKind::ConfirmRollout]), ..input() };
    let suspended = |input: &PlanInput| PlanInput { suspend: true, ..input.clone() };
    let mut world = World::new(&asking);
    world.feed(&revision("2"));
    world.rewrite(&suspended(&asking));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!((world.phase(), world.asked.len()), ("Waiting", 0));
    let refused = world.feed(&Event::Command(Command::Approve));
    let text = "backend.prod is suspended: nothing is started or moved on before suspend is taken out of its spec";
    assert_eq!(refused, [Effect::Refuse(text.into())]);
    world.rewrite(&suspended(&input()));
    world.interval();
    assert_eq!(world.phase(), "Waiting");
    world.rewrite(&asking);
    world.interval();
    assert_eq!(world.phase(), "Progressing");
    world.tick();
    world.verdict(harm());
    assert_eq!(world.phase(), "Failed");
    world.rewrite(&suspended(&asking));
    assert_eq!(world.feed(&Event::Command(Command::Retry)), [Effect::Refuse(text.into())]);
    world.rewrite(&asking);
    assert_eq!(world.feed(&Event::Command(Command::Retry)), []);
    assert_eq!(world.phase(), "Waiting");
}

/// A promotion stands where it is: no request moves, and nothing ends. What fails is rolled back all the same.
#[test]
fn a_suspended_promotion_stands_and_may_be_rolled_back() {
    let promoting = PlanInput {
        step_weight_promotion: Some(10),
        handover: Handover::Relabel,
        step_weights: vec![50],
        step_weight: None,
        max_weight: None,
        ..input()
    };
    let suspended = PlanInput { suspend: true, ..promoting.clone() };
    let begin = || {
        let mut world = World::new(&promoting);
        world.feed(&revision("2"));
        world.facts.verdict = advance();
        world.facts.intact = true;
        while world.phase() != "Promoting" {
            world.interval();
        }
        world.rewrite(&suspended);
        world
    };
    let mut world = begin();
    let before = world.routes();
    for _ in 0..30 {
        world.interval();
    }
    assert_eq!((world.phase(), world.routes()), ("Promoting", before));
    world.verdict(harm());
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));

    let mut world = begin();
    world.rewrite(&promoting);
    while world.phase() != "Finalising" {
        world.interval();
    }
    world.rewrite(&suspended);
    for _ in 0..5 {
        world.interval();
    }
    assert_eq!(world.phase(), "Finalising");
    world.rewrite(&promoting);
    world.interval();
    assert_eq!(world.phase(), "Succeeded");
}

#[test]
fn a_suspended_rollout_is_aborted_and_not_promoted_by_command() {
    let mut world = running();
    world.rewrite(&PlanInput { suspend: true, ..input() });
    assert!(matches!(world.feed(&Event::Command(Command::Promote)).as_slice(), [Effect::Refuse(_)]));
    assert_eq!((world.phase(), world.weight()), ("Progressing", percent(5)));
    world.feed(&Event::Command(Command::Abort));
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
}

#[test]
fn a_canary_that_does_not_become_ready_meets_its_deadline() {
    let mut world = World::new(&PlanInput { progress_deadline: Some(Span::from_secs(60)), ..input() });
    world.facts.canary =
        down("waiting for rollout to finish: 0 of 1 (readyThreshold 100%) updated replicas are available", false);
    world.feed(&revision("2"));
    for _ in 0..60 {
        world.interval();
    }
    assert_eq!((world.phase(), world.state.failed_checks()), ("Progressing", 0));
    world.interval();
    let reason = "waiting for rollout to finish: 0 of 1 (readyThreshold 100%) updated replicas are available";
    assert_eq!(
        world.texts,
        [
            "New revision detected! Scaling up backend.prod".to_owned(),
            format!("canary deployment backend.prod not ready: {reason}"),
            format!("Rolling back backend.prod progress deadline exceeded {reason}"),
            "Canary failed! Scaling down backend.prod".to_owned(),
        ]
    );
    assert_eq!(world.alerts.last(), Some(&(AlertLevel::Error, format!("Progress deadline exceeded {reason}"))));
}

#[test]
fn a_broken_primary_blocks_no_fix() {
    let mut world = running();
    world.facts.primary = down("0 of 2 replicas are available", false);
    world.verdict(advance());
    world.interval();
    assert_eq!(world.weight(), percent(5), "nothing moves");
    world.feed(&revision("3"));
    assert_eq!(world.state.canary(), Some(&Revision::new("3")));
    world.facts.canary = down("crash loop", true);
    world.interval();
    assert_eq!(world.phase(), "Progressing", "there is no better place to go");
    assert!(world.alerts.contains(&(AlertLevel::Error, "Neither primary nor canary is healthy.".to_owned())));
}

#[test]
fn a_promotion_that_fails_stays_on_the_canary_when_there_is_no_way_back() {
    for (intact, serves) in [(false, "2"), (true, "1")] {
        let mut world = World::new(&PlanInput { step_weight: Some(50), handover: Handover::Copy, ..by_checks() });
        world.feed(&revision("2"));
        for _ in 0..2 {
            world.interval();
        }
        assert_eq!(world.phase(), "Promoting");
        world.facts.primary = down("deployment \"backend-primary\" exceeded its progress deadline", true);
        world.facts.intact = intact;
        world.interval();
        assert_eq!(world.phase(), "Failed");
        assert_eq!(world.served(), settled(serves));
    }
}

/// A promotion onto nothing is none: it halts, is told once, and goes back in time where that is possible (A11).
#[test]
fn a_promotion_of_a_revision_that_is_gone_halts_and_is_told() {
    for (intact, ends) in [(true, "Failed"), (false, "Promoting")] {
        let input = PlanInput { step_weight: Some(50), progress_deadline: Some(Span::from_secs(60)), ..by_checks() };
        let mut world = World::new(&input);
        world.feed(&revision("2"));
        for _ in 0..2 {
            world.interval();
        }
        assert_eq!((world.phase(), world.weight()), ("Promoting", percent(50)));
        world.take_texts();
        world.facts.canary = down("revision 2 has no endpoints", false);
        world.facts.intact = intact;
        for _ in 0..60 {
            world.interval();
        }
        assert_eq!((world.phase(), world.weight()), ("Promoting", percent(50)), "nothing moves");
        let told = "canary deployment backend.prod not ready: revision 2 has no endpoints";
        assert_eq!(world.take_texts(), [told]);
        let halted = (AlertLevel::Error, "Promotion is halted: revision 2 has no endpoints".to_owned());
        assert_eq!(world.alerts.last(), Some(&halted));
        world.interval();
        assert_eq!(world.phase(), ends, "{:?}", world.texts);
    }
}

#[test]
fn a_promotion_does_not_end_on_a_revision_that_is_gone() {
    let mut world = World::new(&PlanInput { step_weight: Some(50), ..by_checks() });
    world.feed(&revision("2"));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(world.phase(), "Finalising");
    world.take_texts();
    world.facts.primary = down("revision 2 has no endpoints", false);
    for _ in 0..5 {
        world.interval();
    }
    assert_eq!(world.phase(), "Finalising");
    assert_eq!(world.take_texts(), ["backend-primary.prod not ready: revision 2 has no endpoints"]);
    assert!(world.alerts.iter().any(|(_, text)| text == "Promotion is halted: revision 2 has no endpoints"));
    let mut mended = World { state: world.state.clone(), ..World::new(&by_checks()) };
    mended.now = world.now;
    mended.interval();
    assert_eq!(mended.phase(), "Succeeded");
    // Another revision is the way out where it does not come back.
    world.feed(&revision("3"));
    assert_eq!((world.phase(), world.state.canary()), ("Progressing", Some(&Revision::new("3"))));
}
