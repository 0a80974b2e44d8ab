//! What is asked, what its answers count for, and what is waited for.

use wingbeat_core::rollout::{AlertLevel, Answer, Command, Effect, Event, HookKind, NoData, PlanInput, question};
use wingbeat_core::weight::BasisPoints;

use crate::world::{World, by_checks, hooks, input, percent, revision};

#[test]
fn failed_checks_end_a_rollout_at_the_next_look() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::PostRollout]), ..by_checks() });
    world.feed(&revision("2"));
    for _ in 0..2 {
        world.interval();
    }
    world.take_texts();
    let text = "Halt backend.prod advancement success rate 69.17% < 99%";
    world.answers.insert("request-success-rate".into(), Answer::Failed(text.into()));
    world.interval();
    world.interval();
    assert_eq!((world.phase(), world.state.failed_checks()), ("Progressing", 2));
    assert_eq!(world.weight(), percent(10), "a failed check keeps the weight");
    world.interval();
    assert_eq!(
        world.texts,
        [
            text,
            text,
            "Rolling back backend.prod failed checks threshold reached 2",
            "Canary failed! Scaling down backend.prod",
            "Post-rollout check the-post-rollout passed",
        ]
    );
    assert_eq!(world.state.failed_checks(), 2, "still there for people to see");
    assert_eq!(world.alerts.last(), Some(&(AlertLevel::Error, "Failed checks threshold reached 2".to_owned())));
}

#[test]
fn successes_take_no_failed_check_back() {
    let mut world = World::new(&by_checks());
    world.feed(&revision("2"));
    world.interval();
    for failed in [true, false, true] {
        let answer = if failed { Answer::Failed("halt".into()) } else { Answer::Passed };
        world.answers.insert("request-success-rate".into(), answer);
        world.interval();
    }
    world.interval();
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn hooks_are_asked_in_flaggers_order() {
    let kinds = [
        HookKind::Event,
        HookKind::PostRollout,
        HookKind::ConfirmPromotion,
        HookKind::ConfirmTrafficIncrease,
        HookKind::Rollback,
        HookKind::Rollout,
        HookKind::PreRollout,
        HookKind::ConfirmRollout,
    ];
    let input = PlanInput { hooks: hooks(&kinds), step_weight: Some(50), ..by_checks() };
    let mut world = World::new(&input);
    world.feed(&revision("2"));
    world.settle();
    for _ in 0..4 {
        world.interval();
    }
    assert_eq!(
        world.asked,
        [
            "the-confirm-rollout in Waiting",
            "the-rollback in Progressing",
            "the-pre-rollout in Progressing",
            "the-confirm-traffic-increase in Progressing",
            "the-rollback in Progressing",
            "the-rollout in Progressing",
            "request-success-rate in Progressing",
            "the-confirm-promotion in Progressing",
            "the-post-rollout in Succeeded",
        ]
    );
    assert_eq!(
        world.texts,
        [
            "Confirm-rollout check the-confirm-rollout passed",
            "New revision detected! Scaling up backend.prod",
            "Starting canary analysis for backend.prod",
            "Rollback hook the-rollback not signaling a rollback",
            "Pre-rollout check the-pre-rollout passed",
            "Confirm-traffic-increase check the-confirm-traffic-increase passed",
            "Advance backend.prod canary weight 50",
            "Rollback hook the-rollback not signaling a rollback",
            "Confirm-promotion check the-confirm-promotion passed",
            "Copying backend.prod template spec to backend-primary.prod",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down backend.prod",
            "Post-rollout check the-post-rollout passed",
        ]
    );
}

#[test]
fn closed_gates_wait_and_say_so_once() {
    let cases = [
        (
            HookKind::ConfirmRollout,
            "Waiting",
            "Halt backend.prod advancement waiting for approval",
            "Canary is waiting for approval.",
        ),
        (
            HookKind::ConfirmTrafficIncrease,
            "Progressing",
            "Halt backend.prod advancement waiting for traffic increase approval",
            "Canary traffic increase is waiting for approval.",
        ),
        (
            HookKind::ConfirmPromotion,
            "WaitingPromotion",
            "Halt backend.prod advancement waiting for promotion approval",
            "Canary promotion is waiting for approval.",
        ),
    ];
    for (kind, phase, text, alert) in cases {
        for by_command in [false, true] {
            let input = PlanInput { hooks: hooks(&[kind]), step_weight: Some(50), ..by_checks() };
            let mut world = World::new(&input);
            let name = format!("the-{}", kind.as_str());
            world.answers.insert(name.clone(), Answer::Failed("403".into()));
            world.feed(&revision("2"));
            world.settle();
            for _ in 0..6 {
                world.interval();
            }
            assert_eq!(world.phase(), phase);
            let text = format!("{text} {name}");
            assert_eq!(world.texts.iter().filter(|told| **told == text).count(), 1, "{:?}", world.texts);
            assert_eq!(world.alerts.iter().filter(|(_, told)| told == alert).count(), 1);
            assert_eq!(world.state.failed_checks(), 0, "a closed gate is no failed check");
            if by_command {
                assert_eq!(
                    world.feed(&Event::Command(Command::Approve)).iter().find(|e| matches!(e, Effect::Refuse(_))),
                    None
                );
                let again = world.feed(&Event::Command(Command::Approve));
                assert!(
                    matches!(again.as_slice(), [Effect::Refuse(why)] if why.contains("no gate waits")),
                    "{again:?}"
                );
            } else {
                world.answers.insert(name, Answer::Passed);
            }
            for _ in 0..8 {
                world.interval();
            }
            assert_eq!(world.phase(), "Succeeded", "{:?}", world.texts);
        }
    }
}

#[test]
fn checks_go_on_while_promotion_waits() {
    let input = PlanInput { hooks: hooks(&[HookKind::ConfirmPromotion]), step_weight: Some(50), ..by_checks() };
    let mut world = World::new(&input);
    world.answers.insert("the-confirm-promotion".into(), Answer::Failed("not yet".into()));
    world.feed(&revision("2"));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(world.phase(), "WaitingPromotion");
    world.answers.insert("request-success-rate".into(), Answer::Failed("halt".into()));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(world.phase(), "Failed");
}

/// What is told where a rollback hook agrees.
const ROLLED_BACK: [&str; 3] = [
    "Rollback check the-rollback passed",
    "Rolling back backend.prod manual webhook invoked",
    "Canary failed! Scaling down backend.prod",
];

#[test]
fn a_rollback_hook_that_agrees_rolls_back() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::Rollback]), ..input() });
    world.feed(&revision("2"));
    world.tick();
    world.take_texts();
    world.answers.insert("the-rollback".into(), Answer::Passed);
    world.interval();
    assert_eq!(world.texts, ROLLED_BACK);
    assert_eq!(world.alerts.last(), Some(&(AlertLevel::Warn, "Rolling back manual webhook invoked".to_owned())));
}

#[test]
fn a_rollback_hook_calls_off_what_waits_for_approval() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::Rollback, HookKind::ConfirmRollout]), ..input() });
    world.answers.insert("the-confirm-rollout".into(), Answer::Failed("no".into()));
    world.answers.insert("the-rollback".into(), Answer::Failed("403".into()));
    world.feed(&revision("2"));
    for _ in 0..3 {
        world.interval();
    }
    assert_eq!(world.state.phase.as_str(), "Waiting");
    assert_eq!(
        world.asked[..3],
        ["the-confirm-rollout in Waiting", "the-rollback in Waiting", "the-confirm-rollout in Waiting"]
    );
    world.take_texts();
    world.answers.insert("the-rollback".into(), Answer::Passed);
    world.interval();
    assert_eq!(world.texts, ROLLED_BACK);
    assert_eq!(world.state.phase.as_str(), "Failed");
}

#[test]
fn what_cannot_be_asked_counts_only_where_checks_decide() {
    for (input, failed) in [(input(), 0), (by_checks(), 2)] {
        let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::PreRollout]), ..input });
        world.answers.insert("the-pre-rollout".into(), Answer::Unknown("connection refused".into()));
        world.feed(&revision("2"));
        for _ in 0..2 {
            world.interval();
        }
        assert_eq!(world.state.failed_checks(), failed);
        assert_eq!(world.weight(), BasisPoints::ZERO, "it is no success either");
        let text = "Halt backend.prod advancement pre-rollout check the-pre-rollout failed connection refused";
        assert!(world.texts.iter().any(|told| told == text), "{:?}", world.texts);
    }
}

#[test]
fn a_metric_without_values_is_a_failed_check_unless_the_plan_holds_for_it() {
    for (no_data, failed) in [(None, 2), (Some(NoData::Hold), 0)] {
        let mut world = World::new(&PlanInput { no_data, threshold: Some(5), ..by_checks() });
        world.feed(&revision("2"));
        world.interval();
        let text = "Halt advancement no values found for envoy metric request-success-rate probably backend.prod is \
                    not receiving traffic: running query failed: no values found";
        world.answers.insert("request-success-rate".into(), Answer::Unknown(text.into()));
        world.interval();
        world.interval();
        assert_eq!((world.phase(), world.state.failed_checks()), ("Progressing", failed), "{no_data:?}");
        assert_eq!(world.weight(), percent(5), "it is no success either");
        assert_eq!(world.texts.iter().filter(|told| *told == text).count(), 2, "{:?}", world.texts);
    }
}

#[test]
fn an_answer_that_comes_late_is_dropped() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::Rollback]), ..input() });
    world.feed(&revision("2"));
    world.feed(&Event::Tick(world.facts.clone()));
    let late = question(&world.plan, &world.state).expect("the rollback hook is asked");
    world.feed(&revision("3"));
    let before = world.state.clone();
    world.feed(&Event::Answer(late.ticket, Answer::Passed));
    assert_eq!(world.state, before);
}

/// One approval opens one gate: what has all requests is not asked for again (B18).
#[test]
fn blue_green_needs_one_approval() {
    for by_command in [false, true] {
        let green = PlanInput { step_weight: None, max_weight: None, iterations: Some(2), ..by_checks() };
        let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::ConfirmPromotion]), ..green });
        world.answers.insert("the-confirm-promotion".into(), Answer::Failed("403".into()));
        world.feed(&revision("2"));
        for _ in 0..5 {
            world.interval();
        }
        assert_eq!((world.phase(), world.weight()), ("WaitingPromotion", BasisPoints::ZERO));
        if by_command {
            world.feed(&Event::Command(Command::Approve));
        } else {
            world.answers.insert("the-confirm-promotion".into(), Answer::Passed);
        }
        for _ in 0..5 {
            world.interval();
        }
        assert_eq!(world.phase(), "Succeeded", "{:?}", world.texts);
        let passed = world.texts.iter().filter(|text| text.contains("Confirm-promotion check")).count();
        assert_eq!(passed, usize::from(!by_command), "asked once, or not at all");
    }
}
