//! The rollout machine against Flagger's wording and order, and against random events.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use wingbeat_core::id::{CanaryName, Rev, Revision};
use wingbeat_core::rollout::{
    Alert, AlertLevel, Answer, Asked, Command, Effect, Event, Facts, HookInput, HookKind, NoData, Pace, Plan,
    PlanInput, Readiness, Routes, Share, State, invariant, project, question, safety, step,
};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;

fn input() -> PlanInput {
    PlanInput {
        name: Some(CanaryName::new("prod", "backend")),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        threshold: Some(2),
        step_weight: Some(5),
        max_weight: Some(50),
        ..PlanInput::default()
    }
}

fn by_checks() -> PlanInput {
    PlanInput { pace: Pace::Checks, metrics: vec!["request-success-rate".into()], ..input() }
}

fn hooks(kinds: &[HookKind]) -> Vec<HookInput> {
    kinds
        .iter()
        .map(|kind| HookInput { name: format!("the-{}", kind.as_str()), kind: kind.as_str().into(), mute_alert: false })
        .collect()
}

/// A canary with a clock that only the test moves, and hooks that answer as they were told.
struct World {
    plan: Plan,
    state: State,
    now: Timestamp,
    facts: Facts,
    answers: BTreeMap<String, Answer>,
    asked: Vec<String>,
    texts: Vec<String>,
    alerts: Vec<(AlertLevel, String)>,
}

impl World {
    fn new(input: &PlanInput) -> Self {
        let mut world = Self {
            plan: Plan::try_new(input).expect("a good plan"),
            state: State::default(),
            now: Timestamp::from_millis(1),
            facts: Facts { flowing: true, ..Facts::unmeasured() },
            answers: BTreeMap::new(),
            asked: Vec::new(),
            texts: Vec::new(),
            alerts: Vec::new(),
        };
        world.feed(&revision("1"));
        world.texts.clear();
        world.alerts.clear();
        world
    }

    fn feed(&mut self, event: &Event) -> Vec<Effect> {
        let stepped = step(&self.plan, &self.state, event, self.now);
        let broken = invariant::broken(&self.plan, &self.state, event, &stepped.state);
        assert_eq!(broken, None, "{event:?} from {:?} to {:?}", self.state, stepped.state);
        self.state = stepped.state;
        for effect in &stepped.effects {
            match effect {
                Effect::Emit(_, text) => self.texts.push(text.clone()),
                Effect::Alert(Alert { level, text, .. }) => self.alerts.push((*level, text.clone())),
                Effect::Refuse(_) => {}
            }
        }
        stepped.effects
    }

    /// Lets hooks and metrics answer until nothing is asked.
    fn settle(&mut self) {
        while let Some(asked) = question(&self.plan, &self.state) {
            let name = match asked.asked {
                Asked::Hook(place) => hook_name(&self.plan, place),
                Asked::Metric(place) => self.plan.metrics().get(place).expect("the metric is in the plan").clone(),
            };
            self.asked.push(format!("{name} in {}", asked.phase));
            let answer = self.answers.get(&name).cloned().unwrap_or(Answer::Passed);
            let answer = match (name.as_str(), answer) {
                ("the-rollback", Answer::Passed) if !self.answers.contains_key(&name) => Answer::Failed("no".into()),
                (_, answer) => answer,
            };
            self.feed(&Event::Answer(asked.ticket, answer));
        }
    }

    /// One interval passes.
    fn interval(&mut self) {
        self.pass(1_000);
        self.tick();
    }

    fn tick(&mut self) {
        self.feed(&Event::Tick(self.facts.clone()));
        self.settle();
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Span::from_millis(millis));
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.facts.verdict = verdict;
        self.tick();
    }

    fn weight(&self) -> BasisPoints {
        project(&self.state).routes.canary_weight()
    }

    fn routes(&self) -> Routes {
        project(&self.state).routes
    }

    fn phase(&self) -> &'static str {
        self.state.phase.as_str()
    }

    fn take_texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }
}

fn hook_name(plan: &Plan, place: usize) -> String {
    let all = HookKind::ALL.into_iter().flat_map(|kind| plan.hooks(kind));
    all.into_iter().find(|(at, _)| *at == place).expect("the hook is in the plan").1.name.clone()
}

fn advance() -> Verdict {
    Verdict::Advance(String::new())
}

fn harm() -> Verdict {
    Verdict::Rollback("the canary fails".into())
}

fn revision(name: &str) -> Event {
    Event::Revision(Revision::new(name))
}

fn percent(percent: u8) -> BasisPoints {
    BasisPoints::from_percent(percent)
}

fn down(reason: &str, hopeless: bool) -> Readiness {
    Readiness::NotReady { reason: reason.into(), hopeless }
}

/// A rollout by evidence, at its first weight.
fn running() -> World {
    let mut world = World::new(&input());
    world.feed(&revision("2"));
    world.tick();
    world.tick();
    world.take_texts();
    world
}

#[test]
fn the_first_revision_serves_without_a_rollout() {
    let world = World::new(&input());
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
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
        assert_eq!(world.routes(), Routes::Settled(Revision::new("2")));
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
    assert!(matches!(world.routes(), Routes::Shared { share: Share::Matched, .. }));
    let rev = world.state.rev;
    for _ in 0..13 {
        world.interval();
    }
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
        Routes::Shared { share, .. } => share,
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
    world.facts.suspect = true;
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
    world.facts.suspect = false;
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
    assert!(matches!(world.routes(), Routes::Shared { share: Share::Mirrored(share), .. } if share == percent(30)));
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
    assert_eq!(world.routes(), Routes::Settled(Revision::new("2")));
}

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

#[test]
fn a_rollback_hook_that_agrees_rolls_back() {
    let mut world = World::new(&PlanInput { hooks: hooks(&[HookKind::Rollback]), ..input() });
    world.feed(&revision("2"));
    world.tick();
    world.take_texts();
    world.answers.insert("the-rollback".into(), Answer::Passed);
    world.interval();
    assert_eq!(
        world.texts,
        [
            "Rollback check the-rollback passed",
            "Rolling back backend.prod manual webhook invoked",
            "Canary failed! Scaling down backend.prod",
        ]
    );
    assert_eq!(world.alerts.last(), Some(&(AlertLevel::Warn, "Rolling back manual webhook invoked".to_owned())));
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

#[test]
fn a_step_lasts_its_interval_of_flowing_time() {
    let mut world = running();
    world.facts.flowing = false;
    world.verdict(advance());
    world.pass(10_000);
    world.tick();
    assert_eq!(world.weight(), percent(5), "nothing flowed yet");
    world.facts.flowing = true;
    world.tick();
    world.pass(600);
    world.facts.flowing = false;
    world.tick();
    world.pass(60_000);
    world.facts.flowing = true;
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

#[test]
fn harm_ends_the_rollout_at_once() {
    let mut world = running();
    let rev = world.state.rev;
    world.verdict(harm());
    assert_eq!(world.texts, ["Rolling back backend.prod the canary fails", "Canary failed! Scaling down backend.prod"]);
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
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
    world.plan = Plan::try_new(&PlanInput { suspend: true, ..input() }).expect("a plan");
    world.facts.verdict = advance();
    for _ in 0..5 {
        world.interval();
    }
    assert_eq!(world.weight(), percent(5));
    world.plan = Plan::try_new(&input()).expect("a plan");
    world.tick();
    assert_eq!(world.weight(), percent(10));
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
        let mut world = World::new(&PlanInput { step_weight: Some(50), ..by_checks() });
        world.feed(&revision("2"));
        for _ in 0..2 {
            world.interval();
        }
        assert_eq!(world.phase(), "Promoting");
        world.facts.primary = down("deployment \"backend-primary\" exceeded its progress deadline", true);
        world.facts.intact = intact;
        world.interval();
        assert_eq!(world.phase(), "Failed");
        assert_eq!(world.routes(), Routes::Settled(Revision::new(serves)));
    }
}

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

#[derive(Debug, Clone)]
enum Happening {
    Event(Event),
    /// The open question is answered.
    Answer(Answer),
    /// The controller is killed and started again.
    Restart,
}

fn any_readiness() -> impl Strategy<Value = Readiness> {
    prop_oneof![
        6 => Just(Readiness::Ready),
        1 => any::<bool>().prop_map(|hopeless| down("starting", hopeless)),
    ]
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let verdict = prop_oneof![
        12 => Just(advance()),
        1 => Just(harm()),
        2 => Just(Verdict::NoData(String::new())),
        2 => Just(Verdict::Continue(String::new())),
    ];
    let (seldom, mostly) = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    (any_readiness(), any_readiness(), mostly, verdict, (seldom, seldom), any::<bool>()).prop_map(
        |(primary, canary, flowing, verdict, (safe, suspect), intact)| Facts {
            primary,
            canary,
            flowing,
            verdict,
            safe,
            suspect,
            intact,
        },
    )
}

fn happening() -> impl Strategy<Value = Happening> {
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Approve),
        Just(Command::Abort),
        Just(Command::Promote),
        Just(Command::Retry),
    ];
    let answer = prop_oneof![
        6 => Just(Answer::Passed),
        1 => Just(Answer::Failed("no".into())),
        1 => Just(Answer::Unknown("?".into())),
    ];
    prop_oneof![
        2 => (1..4_u8).prop_map(|n| Happening::Event(revision(&n.to_string()))),
        20 => any_facts().prop_map(|facts| Happening::Event(Event::Tick(facts))),
        12 => answer.prop_map(Happening::Answer),
        2 => command.prop_map(|command| Happening::Event(Event::Command(command))),
        1 => (0..40_u64).prop_map(|rev| Happening::Event(Event::RevSeen(Rev::new(rev)))),
        1 => Just(Happening::Restart),
    ]
}

fn any_plan() -> impl Strategy<Value = PlanInput> {
    let shape = prop_oneof![
        Just(input()),
        Just(PlanInput { mirror: true, ..input() }),
        Just(PlanInput {
            step_weight: None,
            step_weights: vec![1, 10, 100],
            step_weight_promotion: Some(30),
            ..input()
        }),
        Just(PlanInput { step_weight: None, max_weight: None, iterations: Some(3), matches: true, ..input() }),
        Just(PlanInput { step_weight: None, max_weight: None, iterations: Some(2), ..input() }),
        Just(PlanInput { skip_analysis: true, ..input() }),
    ];
    let kinds = prop::sample::subsequence(HookKind::ALL.to_vec(), 0..=8);
    (shape, kinds, any::<bool>(), 0..2_usize).prop_map(|(shape, kinds, checks, metrics)| PlanInput {
        hooks: hooks(&kinds),
        pace: if checks { Pace::Checks } else { Pace::Evidence },
        metrics: vec!["request-duration".into(); metrics],
        progress_deadline: Some(Span::from_secs(5)),
        ..shape
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens(plan in any_plan(), happenings in prop::collection::vec((happening(), 0..2_000_u64), 1..80)) {
        let mut world = World::new(&plan);
        for (happening, millis) in happenings {
            world.pass(millis);
            let event = match happening {
                Happening::Event(event) => event,
                Happening::Answer(answer) => match question(&world.plan, &world.state) {
                    Some(open) => Event::Answer(open.ticket, answer),
                    None => continue,
                },
                Happening::Restart => {
                    world.state = world.state.clone().resumed();
                    continue;
                }
            };
            // The invariants are checked within.
            world.feed(&event);
            let after = world.state.clone();
            // What is stored comes back as it was, and projects the same.
            let stored = serde_json::to_string(&after).unwrap();
            let restored: State = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&restored, &after);
            // The same event again at the same time changes nothing, but for a stage that may follow at once.
            if !matches!(event, Event::Tick(_) | Event::Command(_)) {
                let again = step(&world.plan, &after, &event, world.now);
                prop_assert_eq!(&again.state, &after);
                prop_assert_eq!(again.effects, []);
            }
        }
    }

    #[test]
    fn a_rollout_ends_when_everything_passes(plan in any_plan()) {
        let mut world = World::new(&plan);
        world.facts.verdict = advance();
        world.feed(&revision("2"));
        for _ in 0..60 {
            world.settle();
            world.interval();
        }
        prop_assert_eq!(world.phase(), "Succeeded");
        prop_assert_eq!(question(&world.plan, &world.state), None);
    }
}
