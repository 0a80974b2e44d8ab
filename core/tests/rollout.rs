//! The rollout machine against Flagger's wording, and against random events.
#![expect(clippy::expect_used, reason = "tests")]

use proptest::prelude::*;
use wingbeat_core::id::{CanaryName, Rev, Revision};
use wingbeat_core::rollout::{Command, Effect, Event, Plan, PlanInput, Routes, State, project, step};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;

fn input() -> PlanInput {
    PlanInput {
        name: Some(CanaryName::new("prod", "backend")),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        step_weight: Some(5),
        max_weight: Some(50),
        ..PlanInput::default()
    }
}

fn plan() -> Plan {
    Plan::try_new(&input()).expect("the guide's plan")
}

/// A canary with a clock that only the test moves.
struct World {
    plan: Plan,
    state: State,
    now: Timestamp,
    texts: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { plan: plan(), state: State::default(), now: Timestamp::from_millis(1), texts: Vec::new() };
        world.feed(&Event::Revision(Revision::new("1")));
        world.texts.clear();
        world
    }

    fn feed(&mut self, event: &Event) -> Vec<Effect> {
        let stepped = step(&self.plan, &self.state, event, self.now);
        self.state = stepped.state;
        self.texts.extend(stepped.effects.iter().filter_map(|effect| match effect {
            Effect::Emit(_, text) => Some(text.clone()),
            Effect::Promote(_) | Effect::Refuse(_) => None,
        }));
        stepped.effects
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Span::from_millis(millis));
    }

    fn weight(&self) -> BasisPoints {
        project(&self.state).routes.canary_weight()
    }

    fn routes(&self) -> Routes {
        project(&self.state).routes
    }
}

fn advance() -> Event {
    Event::Verdict(Verdict::Advance(String::new()))
}

fn harm() -> Event {
    Event::Verdict(Verdict::Rollback("the canary fails".into()))
}

fn revision(name: &str) -> Event {
    Event::Revision(Revision::new(name))
}

#[test]
fn the_first_revision_serves_without_a_rollout() {
    let world = World::new();
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
    assert_eq!(world.state.phase.as_str(), "Initialized");
}

#[test]
fn a_healthy_canary_takes_the_guides_way() {
    let mut world = World::new();
    world.feed(&revision("2"));
    for _ in 0..10 {
        world.feed(&Event::Flowing(true));
        world.pass(1_000);
        world.feed(&advance());
    }
    assert_eq!(world.state.phase.as_str(), "Promoting");
    world.feed(&Event::PrimaryReady);
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
    assert_eq!(world.state.phase.as_str(), "Succeeded");
}

#[test]
fn a_step_lasts_its_interval_of_flowing_time() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.pass(10_000);
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(5), "nothing flowed yet");
    world.feed(&Event::Flowing(true));
    world.pass(600);
    world.feed(&Event::Flowing(false));
    world.pass(60_000);
    world.feed(&Event::Flowing(true));
    world.pass(399);
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(5), "999 ms flowed");
    world.pass(1);
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
}

#[test]
fn absence_is_not_success() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&Event::Flowing(true));
    for _ in 0..100 {
        world.pass(1_000);
        world.feed(&Event::Verdict(Verdict::NoData("no traffic".into())));
        world.feed(&Event::Verdict(Verdict::Continue("12 more requests".into())));
        world.feed(&Event::Tick);
    }
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
}

#[test]
fn harm_ends_the_rollout_at_once() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.texts.clear();
    let rev = world.state.rev;
    world.feed(&harm());
    assert_eq!(world.texts, ["Rolling back backend.prod the canary fails", "Canary failed! Scaling down backend.prod"]);
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
    assert_eq!(world.state.rev, rev.next());
    // Seen again, the failed revision starts nothing; a retry does, and so does another one.
    let before = world.state.clone();
    assert_eq!(world.feed(&revision("2")), []);
    assert_eq!(world.state, before);
    world.feed(&Event::Command(Command::Retry));
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
}

#[test]
fn pausing_freezes_the_weight_but_not_the_guard() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&Event::Flowing(true));
    world.feed(&Event::Command(Command::Pause));
    world.pass(5_000);
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
    world.feed(&harm());
    assert_eq!(world.weight(), BasisPoints::ZERO);
}

#[test]
fn going_back_to_the_primary_is_no_rollout() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&revision("1"));
    assert_eq!(world.routes(), Routes::Settled(Revision::new("1")));
    assert_eq!(world.state.phase.as_str(), "Succeeded");
    world.feed(&revision("2"));
    world.feed(&harm());
    assert_eq!(world.feed(&revision("1")), []);
}

#[test]
fn a_new_revision_in_mid_run_starts_over() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&Event::Flowing(true));
    world.pass(1_000);
    world.feed(&advance());
    let rollout = world.state.rollout;
    world.texts.clear();
    world.feed(&revision("3"));
    assert_eq!(
        world.texts,
        [
            "New revision detected! Restarting analysis for backend.prod",
            "Starting canary analysis for backend.prod",
            "Advance backend.prod canary weight 5",
        ]
    );
    assert_eq!(world.state.rollout, rollout.next());
    let Routes::Weighted { primary, canary, .. } = world.routes() else { panic!("a rollout is on") };
    assert_eq!((primary.as_str(), canary.as_str()), ("1", "3"));
}

#[test]
fn an_abort_that_was_served_is_never_taken_back() {
    let mut world = World::new();
    world.feed(&revision("2"));
    let served = world.state.rev.next();
    world.feed(&Event::RevSeen(served));
    assert_eq!(world.state.phase.as_str(), "Failed");
    assert_eq!(world.state.rev, served);
    let before = world.state.clone();
    world.feed(&Event::RevSeen(served));
    assert_eq!(world.state, before);
}

#[test]
fn a_rev_that_no_abort_can_have_is_not_believed() {
    let mut world = World::new();
    world.feed(&revision("2"));
    let before = world.state.clone();
    for rev in [before.rev.next().next(), Rev::new(u64::MAX), Rev::default()] {
        world.feed(&Event::RevSeen(rev));
        assert_eq!(world.state, before);
    }
}

#[test]
fn a_failed_revision_may_come_again_after_the_workload_went_back() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&harm());
    world.feed(&revision("1"));
    assert_eq!(world.state.phase.as_str(), "Failed");
    world.feed(&revision("2"));
    assert_eq!(world.state.phase.as_str(), "Progressing");
}

#[test]
fn a_plan_that_changes_in_mid_run_changes_the_next_step() {
    let mut world = World::new();
    world.feed(&revision("2"));
    let input = PlanInput { step_weight: None, max_weight: None, step_weights: vec![20, 40], ..input() };
    world.plan = Plan::try_new(&input).expect("another plan");
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
    world.feed(&Event::Flowing(true));
    world.pass(1_000);
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(40));
}

#[test]
fn a_restart_starts_the_steps_clock_anew() {
    let mut world = World::new();
    world.feed(&revision("2"));
    world.feed(&Event::Flowing(true));
    world.pass(60_000);
    world.state = world.state.clone().resumed();
    world.feed(&advance());
    assert_eq!(world.weight(), BasisPoints::from_percent(5));
}

#[test]
fn impossible_commands_are_refused_with_a_reason() {
    let mut world = World::new();
    for (command, says) in [
        (Command::Pause, "only a rollout in progress can be paused"),
        (Command::Resume, "only a paused rollout can be resumed"),
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

fn any_event() -> impl Strategy<Value = Event> {
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Abort),
        Just(Command::Promote),
        Just(Command::Retry),
    ];
    prop_oneof![
        3 => (1..4_u8).prop_map(|n| revision(&n.to_string())),
        6 => any::<bool>().prop_map(Event::Flowing),
        12 => Just(advance()),
        1 => Just(harm()),
        2 => Just(Event::Verdict(Verdict::NoData(String::new()))),
        2 => command.prop_map(Event::Command),
        2 => Just(Event::PrimaryReady),
        1 => (0..40_u64).prop_map(|rev| Event::RevSeen(Rev::new(rev))),
        2 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens(events in prop::collection::vec((any_event(), 0..2_000_u64), 1..60)) {
        let mut world = World::new();
        for (event, millis) in events {
            world.pass(millis);
            let (before, weight) = (world.state.clone(), world.weight());
            world.feed(&event);
            let after = world.state.clone();
            // Routes change with the rev, and only with it.
            let changed = project(&after).routes != project(&before).routes;
            let rev_rose = after.rev > before.rev;
            prop_assert!(rev_rose || !changed);
            prop_assert!(changed || !rev_rose);
            prop_assert!(after.rev >= before.rev && after.rollout >= before.rollout);
            // The share rises by one step at a time, and only by an advance or a start.
            if world.weight() > weight {
                let rose = world.weight().minus(weight);
                prop_assert!(rose <= BasisPoints::from_percent(5));
                let may = matches!(event, Event::Verdict(Verdict::Advance(_)) | Event::Revision(_) | Event::Command(Command::Retry));
                prop_assert!(may, "{:?} raised the share", event);
            }
            prop_assert!(world.weight() <= BasisPoints::from_percent(50));
            // An abort takes everything away at once.
            if event == Event::Command(Command::Abort) {
                prop_assert_eq!(world.weight(), BasisPoints::ZERO);
            }
            // What is stored comes back as it was, and projects the same.
            let stored = serde_json::to_string(&after).unwrap();
            let restored: State = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&restored, &after);
            // The same event again at the same time changes nothing, but for a step that may follow at once.
            if !matches!(event, Event::Verdict(_) | Event::Command(_)) {
                let again = step(&world.plan, &after, &event, world.now);
                prop_assert_eq!(&again.state, &after);
                prop_assert_eq!(again.effects, []);
            }
        }
    }
}
