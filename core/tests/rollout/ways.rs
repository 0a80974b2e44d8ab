//! Ways of a rollout from its beginning to its end, as plans say.

use wingbeat_core::rollout::{
    AlertLevel, Event, Handover, HookKind, NoData, Pace, PlanInput, Readiness, Routes, Share,
};
use wingbeat_core::verdict::{Doubt, Verdict};
use wingbeat_core::weight::BasisPoints;

use crate::world::{World, advance, by_checks, harm, hooks, input, percent, revision, running, settled};

#[test]
fn the_first_revision_serves_without_a_rollout() {
    let world = World::new(&input());
    assert_eq!(world.served(), settled("1"));
    assert_eq!(world.phase(), "Initialized");
}

#[test]
fn a_healthy_canary_takes_the_guides_way() {
    for input in [input(), by_checks()] {
        let mut world = World::new(&input);
        world.facts.verdict = advance();
        world.feed(&revision("2"));
        let mut intervals = 0;
        while world.phase() != "Succeeded" {
            if input.pace == Pace::Evidence {
                // The new share is seen to flow, which starts the step's clock.
                world.tick();
            }
            world.interval();
            intervals += 1;
            assert!(intervals < 20, "stuck in {}", world.phase());
        }
        let advances = (1..=10).map(|step| format!("Advance backend.prod canary weight {}", step * 5));
        let mut expected = vec![
            "New revision detected! Scaling up backend.prod".to_owned(),
            "Starting canary analysis for backend.prod".to_owned(),
        ];
        expected.extend(advances);
        expected.extend(
            [
                "Copying backend.prod template spec to backend-primary.prod",
                "Routing all traffic to primary",
                "Promotion completed! Scaling down backend.prod",
            ]
            .map(str::to_owned),
        );
        assert_eq!(world.texts, expected);
        assert_eq!(world.served(), settled("2"));
        if input.pace == Pace::Checks {
            // Flagger's timeline, after the detection: ten weights, Copying, Routing, Completed, one tick each.
            assert_eq!(intervals, 13);
        }
        assert_eq!(
            world.alerts,
            [
                (AlertLevel::Info, "New revision detected, progressing canary analysis.".to_owned()),
                (AlertLevel::Info, "Canary analysis completed successfully, promotion finished.".to_owned()),
            ]
        );
    }
}

#[test]
fn a_b_tests_count_their_iterations() {
    let input = PlanInput { step_weight: None, max_weight: None, iterations: Some(10), matches: true, ..by_checks() };
    let mut world = World::new(&input);
    world.feed(&revision("2"));
    world.interval();
    assert_eq!(world.weight(), percent(100), "as the guide shows it");
    assert!(matches!(world.routes(), Routes::Shared { share: Share::Matched }));
    let rev = world.state.rev;
    for _ in 0..11 {
        world.interval();
    }
    assert_eq!(world.phase(), "Finalising", "ten iterations, Copying and Routing, one tick each");
    world.interval();
    assert_eq!(world.phase(), "Succeeded");
    assert_eq!(world.state.rev.get(), rev.get() + 1, "iterations change no route");
    let mut expected = vec![
        "New revision detected! Scaling up backend.prod".to_owned(),
        "Starting canary analysis for backend.prod".to_owned(),
    ];
    expected.extend((1..=10).map(|n| format!("Advance backend.prod canary iteration {n}/10")));
    expected.extend(
        [
            "Copying backend.prod template spec to backend-primary.prod",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down backend.prod",
        ]
        .map(str::to_owned),
    );
    assert_eq!(world.texts, expected);
}

#[test]
fn an_a_b_test_by_evidence_first_measures_the_primary_for_an_interval() {
    let input = PlanInput { step_weight: None, max_weight: None, iterations: Some(2), matches: true, ..input() };
    let mut world = World::new(&input);
    world.feed(&revision("2"));
    let share = |world: &World| match world.routes() {
        Routes::Shared { share } => share,
        other @ (Routes::Nowhere | Routes::Settled(_)) => panic!("{other:?}"),
    };
    for _ in 0..3 {
        world.tick();
        assert_eq!(share(&world), Share::Nothing);
        world.pass(400);
    }
    world.tick();
    assert_eq!(share(&world), Share::Matched);
}

#[test]
fn a_suspected_canary_goes_back_to_the_first_weight_and_may_rise_again() {
    let mut world = running();
    world.facts.verdict = advance();
    while world.weight() < BasisPoints::from_percent(20) {
        world.pass(100);
        world.tick();
    }
    world.take_texts();
    world.facts.doubt = Some(Doubt::OnePod);
    world.facts.verdict = Verdict::Continue("suspect".into());
    world.tick();
    world.pass(9_000);
    world.tick();
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
    assert_eq!(
        world.take_texts(),
        ["Halt backend.prod advancement: one pod may be bad by itself, canary weight back to 5"],
        "told once"
    );
    world.facts.doubt = None;
    world.facts.verdict = advance();
    for _ in 0..12 {
        world.pass(100);
        world.tick();
    }
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
}

#[test]
fn no_data_holds_or_fails_as_the_plan_says() {
    for (no_data, failed) in [(None, 0), (Some(NoData::Hold), 0), (Some(NoData::Fail), 2)] {
        let mut world = World::new(&PlanInput { no_data, threshold: Some(5), ..input() });
        world.feed(&revision("2"));
        world.tick();
        world.tick();
        world.take_texts();
        world.facts.verdict = Verdict::NoData("no traffic at all in this step".into());
        for _ in 0..24 {
            world.pass(100);
            world.tick();
        }
        assert_eq!(world.state.failed_checks(), failed, "{no_data:?}");
        let said = "Halt backend.prod advancement no data: no traffic at all in this step";
        assert_eq!(world.take_texts(), vec![said; failed as usize]);
    }
}

#[test]
fn blue_green_switches_after_its_iterations() {
    let plain = PlanInput { step_weight: None, max_weight: None, iterations: Some(2), ..by_checks() };
    for (mirror, switch) in
        [(false, "Routing all traffic to canary"), (true, "Stop traffic mirroring and route all traffic to canary")]
    {
        let mut world = World::new(&PlanInput { mirror, ..plain.clone() });
        world.feed(&revision("2"));
        let mut shares = Vec::new();
        for _ in 0..6 {
            world.interval();
            shares.push(world.weight());
        }
        let zero = BasisPoints::ZERO;
        assert_eq!(shares, [zero, zero, percent(100), percent(100), zero, zero]);
        assert_eq!(
            world.texts[2..],
            [
                "Advance backend.prod canary iteration 1/2",
                "Advance backend.prod canary iteration 2/2",
                switch,
                "Copying backend.prod template spec to backend-primary.prod",
                "Routing all traffic to primary",
                "Promotion completed! Scaling down backend.prod",
            ]
        );
    }
}

#[test]
fn blue_green_by_evidence_needs_no_users_before_the_switch() {
    let input = PlanInput { step_weight: None, max_weight: None, iterations: Some(2), ..input() };
    let mut world = World::new(&input);
    world.feed(&revision("2"));
    for _ in 0..4 {
        world.interval();
    }
    assert_eq!(world.weight(), percent(100));
    world.interval();
    assert_eq!(world.phase(), "Progressing", "from the switch on, there are users, and nothing was measured");
    world.verdict(advance());
    assert_eq!(world.phase(), "Promoting");
}

#[test]
fn mirroring_comes_before_the_first_weight() {
    let mut world = World::new(&PlanInput { mirror: true, mirror_weight: Some(30), ..by_checks() });
    world.feed(&revision("2"));
    world.interval();
    assert!(matches!(world.routes(), Routes::Shared { share: Share::Mirrored(share) } if share == percent(30)));
    world.interval();
    assert_eq!(
        world.texts[2..],
        ["Advance backend.prod canary weight 0", "Advance backend.prod canary weight 5"].map(str::to_owned)
    );
}

#[test]
fn promotion_goes_by_steps_where_the_plan_says_so() {
    let mut world = World::new(&PlanInput { step_weight: Some(50), step_weight_promotion: Some(20), ..by_checks() });
    world.feed(&revision("2"));
    for _ in 0..2 {
        world.interval();
    }
    world.take_texts();
    let mut weights = Vec::new();
    while world.phase() != "Succeeded" {
        world.interval();
        weights.push(world.weight().get() / 100);
    }
    assert_eq!(weights, [70, 90, 0, 0]);
    assert_eq!(
        world.texts,
        [
            "Advance backend.prod primary weight 70",
            "Advance backend.prod primary weight 90",
            "Advance backend.prod primary weight 100",
            "Promotion completed! Scaling down backend.prod",
        ]
    );
}

/// Harm that is not decided on while the canary takes over: until it is, nothing moves.
#[test]
fn a_canary_in_doubt_takes_over_nothing_more() {
    let input = PlanInput { step_weight: Some(50), step_weight_promotion: Some(10), ..input() };
    let mut world = World::new(&input);
    world.facts.intact = true;
    world.feed(&revision("2"));
    world.facts.verdict = advance();
    for _ in 0..20 {
        if world.weight() < percent(60) {
            world.interval();
        }
    }
    assert_eq!((world.phase(), world.weight()), ("Promoting", percent(60)));
    for (doubt, uncounted) in [(Some(Doubt::OnePod), false), (Some(Doubt::Harm), false), (None, true)] {
        let before = world.weight();
        (world.facts.doubt, world.facts.uncounted) = (doubt, uncounted);
        world.facts.verdict = Verdict::Continue("suspect".into());
        for _ in 0..60 {
            world.interval();
        }
        assert_eq!((world.phase(), world.weight()), ("Promoting", before));
        (world.facts.doubt, world.facts.uncounted) = (None, false);
        world.facts.verdict = advance();
        world.tick();
        assert!(world.weight() > before);
    }
    world.facts.doubt = Some(Doubt::OnePod);
    world.interval();
    world.verdict(harm());
    assert_eq!((world.phase(), world.served()), ("Failed", settled("1")));
}

/// A fault that shows under load, when the canary has most of the requests already.
#[test]
fn a_canary_that_breaks_while_it_takes_over_by_steps_is_rolled_back() {
    let promoting = |handover| {
        let input = PlanInput { step_weight: Some(50), step_weight_promotion: Some(20), handover, ..by_checks() };
        let mut world = World::new(&input);
        world.facts.intact = true;
        world.feed(&revision("2"));
        while world.phase() != "Promoting" {
            world.interval();
        }
        world.interval();
        world.take_texts();
        world.facts.verdict = Verdict::Rollback("the canary fails".into());
        world
    };
    let mut world = promoting(Handover::Relabel);
    assert_eq!(world.weight(), percent(70));
    world.tick();
    assert_eq!((world.phase(), world.served()), ("Failed", settled("1")));
    assert!(world.texts[0].contains("the canary fails"), "{:?}", world.texts);
    // The revision that served before lost its endpoints: nothing is better than what is.
    let mut world = promoting(Handover::Relabel);
    world.facts.intact = false;
    world.tick();
    assert_eq!((world.phase(), world.weight()), ("Promoting", percent(70)));
    // What serves as the primary is a mix of both.
    let mut world = promoting(Handover::Copy);
    world.tick();
    assert_eq!(world.phase(), "Promoting");
}

/// A proxy that was cut off shows an abort of before a restart.
#[test]
fn a_late_abort_takes_back_nothing_that_is_half_replaced() {
    for (intact, phase) in [(true, "Failed"), (false, "Promoting")] {
        let mut world = World::new(&PlanInput { handover: Handover::Copy, ..by_checks() });
        world.feed(&revision("2"));
        world.interval();
        world.state = world.state.clone().resumed();
        let abort = world.state.unstored_abort();
        while world.phase() != "Promoting" {
            world.interval();
        }
        world.facts.intact = intact;
        world.facts.primary = Readiness::NotReady { reason: "1 of 2 pods".into(), hopeless: false };
        world.tick();
        world.take_texts();
        world.feed(&Event::RevObserved(abort));
        assert_eq!((world.phase(), world.texts.is_empty()), (phase, false), "{intact}: {:?}", world.texts);
    }
}

/// The share that a promotion goes through, by its kind (B1).
#[test]
fn a_promotion_moves_the_share_by_its_step_and_never_more() {
    let weights = |input: PlanInput| {
        let mut world = World::new(&PlanInput { step_weight_promotion: Some(10), ..input });
        world.feed(&revision("2"));
        let mut weights = Vec::new();
        for _ in 0..40 {
            world.interval();
            if world.phase() == "Promoting" {
                weights.push(world.weight().get() / 100);
            }
        }
        assert_eq!(world.phase(), "Succeeded");
        (weights, world.texts.into_iter().filter(|text| text.contains("primary")).collect::<Vec<_>>())
    };
    let to_20 = PlanInput { step_weight: Some(20), max_weight: Some(20), ..by_checks() };
    let (shares, texts) = weights(to_20.clone());
    assert_eq!(shares, [20, 30, 40, 50, 60, 70, 80, 90], "not 90 at once");
    assert_eq!(texts[1], "Advance backend.prod primary weight 30");
    let (shares, texts) = weights(PlanInput { step_weight: Some(40), max_weight: Some(40), ..by_checks() });
    assert_eq!((shares.len(), texts.len()), (6, 7));
    let (shares, texts) = weights(PlanInput { handover: Handover::Copy, ..to_20 });
    assert_eq!(shares, [20, 10], "the primary takes over, the canary's share falls");
    assert_eq!(texts[1..], ["Advance backend.prod primary weight 90", "Advance backend.prod primary weight 100"]);
    // Whom rules choose is chosen as a whole, and what has everything moves no more.
    let tested = PlanInput { step_weight: None, max_weight: None, iterations: Some(1), matches: true, ..by_checks() };
    assert_eq!(weights(tested.clone()).1[1], "Routing all traffic to primary");
    let green = PlanInput { matches: false, ..tested };
    assert_eq!(weights(green.clone()).1[1], "Routing all traffic to primary");
    assert_eq!(weights(PlanInput { handover: Handover::Copy, ..green }).0, [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]);
}

#[test]
fn analysis_can_be_skipped() {
    let mut world = World::new(&PlanInput { skip_analysis: true, ..by_checks() });
    world.feed(&revision("2"));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(
        world.texts,
        [
            "New revision detected! Scaling up backend.prod",
            "Copying backend.prod template spec to backend-primary.prod",
            "Promotion completed! Canary analysis was skipped for backend.prod",
        ]
    );
    assert_eq!(world.served(), settled("2"));
}

#[test]
fn hooks_are_told_of_the_end_where_the_analysis_is_skipped() {
    let hooks = hooks(&[HookKind::PreRollout, HookKind::Rollout, HookKind::PostRollout]);
    let mut world = World::new(&PlanInput { skip_analysis: true, hooks, ..by_checks() });
    world.feed(&revision("2"));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(world.asked, ["the-post-rollout in Succeeded"]);
    assert_eq!(world.texts.last().map(String::as_str), Some("Post-rollout check the-post-rollout passed"));
}
