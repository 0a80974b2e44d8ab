use std::sync::Arc;
use wingbeat_core::analysis::judge::{Comparison, JudgeConfig, Mode};
use wingbeat_core::analysis::replay::Replay;
use wingbeat_core::analysis::signal::SignalMode;

use wingbeat_core::analysis::threshold::Range;
use wingbeat_core::id::{ClusterName, RolloutId};
use wingbeat_core::matching::division::Division;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::outcome::Outcome;
use wingbeat_core::rollout::{Pace, Plan, PlanInput};
use wingbeat_core::weight::BasisPoints;
use wingbeat_proto::v1::{ClusterReport, Count};
use wingbeat_xds_server::model::Split;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::resource::Kind;
use wingbeat_xds_server::server::Happened;
use wingbeat_xds_server::session::Nack;

use super::*;
use crate::outbound::prometheus::{Origin, Query};
use crate::setup::{Audience, Managed, Service, Workload};
use crate::store::memory::{Crash, Memory};
use crate::view::EventView;

/// An engine, a filter that reports to it, and a clock that only the test moves.
struct World {
    engine: Engine,
    store: Memory,
    now: Timestamp,
    sequence: u64,
    primary: (u64, u64),
    canary: (u64, u64),
    texts: Vec<String>,
}

fn name() -> CanaryName {
    CanaryName::new("prod", "backend")
}

fn setup(revision: &str) -> Setup {
    let plan = Plan::try_new(&PlanInput {
        name: Some(name()),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        step_weight: Some(10),
        max_weight: Some(50),
        ..PlanInput::default()
    });
    let endpoints = |port| vec![("127.0.0.1".to_owned(), port)];
    let managed = Managed {
        plan: plan.unwrap(),
        judge: JudgeConfig::default(),
        workload: Workload {
            revision: Revision::new(revision),
            revisions: BTreeMap::from([(Revision::new("1"), endpoints(1)), (Revision::new("2"), endpoints(2))]),
            http2: false,
        },
        service: Service {
            hosts: vec!["backend.local".into()],
            listeners: vec!["public".into()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
        },
        audience: Audience::Chance,
        hooks: Vec::new(),
        measures: Vec::new(),
        alerts: Vec::new(),
    };
    Setup { canaries: BTreeMap::from([(name(), managed)]), ..Setup::default() }
}

impl World {
    fn new() -> Self {
        let mut world = Self::over(Memory::default());
        world.engine.configure(setup("1"), world.now);
        world
    }

    fn over(store: Memory) -> Self {
        Self {
            engine: Engine::open(Box::new(store.clone()), [1; 32]).unwrap(),
            store,
            now: Timestamp::from_millis(1_000_000),
            sequence: 0,
            primary: (0, 0),
            canary: (0, 0),
            texts: Vec::new(),
        }
    }

    /// The control plane dies and comes back over what it has stored.
    fn restart(self) -> Self {
        Self { engine: Engine::open(Box::new(self.store.clone()), [2; 32]).unwrap(), ..self }
    }

    fn rollout(&mut self) {
        self.engine.configure(setup("2"), self.now);
        self.tick();
    }

    /// A tenth of a second of traffic: `(requests, errors)` of both arms.
    fn traffic(&mut self, primary: (u64, u64), canary: (u64, u64)) -> ReportResponse {
        self.primary = (self.primary.0 + primary.0, self.primary.1 + primary.1);
        self.canary = (self.canary.0 + canary.0, self.canary.1 + canary.1);
        self.now = self.now.plus(Span::from_millis(100));
        self.sequence += 1;
        let request = self.request();
        let response = self.engine.report(&request, self.now).unwrap();
        self.tick();
        response
    }

    /// Returns the values of a metric.
    fn metric(&mut self, name: &str) -> Vec<String> {
        let text = crate::metrics::render(&self.engine.board(true, self.now)).unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
    }

    fn tick(&mut self) {
        self.engine.tick(self.now);
        self.engine.roster.check();
        self.texts.extend(self.engine.told().into_iter().map(|told| told.text));
    }

    fn request(&self) -> ReportRequest {
        let rev = self.engine.roster.all()[&name()].state.rev.get();
        let cluster = |revision: &str, (requests, errors): (u64, u64)| {
            let mut outcomes = vec![0; Outcome::ALL.len()];
            outcomes[Outcome::Success.index()] = requests - errors;
            outcomes[Outcome::ServerFault.index()] = errors;
            ClusterReport {
                cluster: format!("prod/backend/{revision}"),
                started: requests,
                finished: requests,
                outcomes,
                latency: vec![Count { key: 700, count: requests }],
                rev,
                rev_started: requests,
                ..ClusterReport::default()
            }
        };
        ReportRequest {
            node_id: "edge-1".into(),
            boot_id: 1,
            worker_id: 2,
            sequence: self.sequence,
            clusters: vec![cluster("1", self.primary), cluster("2", self.canary)],
            ..ReportRequest::default()
        }
    }

    fn weight(&self) -> BasisPoints {
        match self.engine.model().hosts.first().map(|host| host.split.clone()) {
            Some(Split::Weighted { weight, .. }) => weight,
            Some(Split::Single(_) | Split::Header { .. } | Split::Mirror { .. }) | None => BasisPoints::ZERO,
        }
    }

    fn phase(&self) -> &'static str {
        self.engine.roster.all()[&name()].state.phase.as_str()
    }

    fn counted(&mut self) -> u64 {
        let board = self.engine.board(true, self.now);
        board.canaries.values().next().map_or(0, |view| view.measured().canary.requests)
    }
}

#[test]
fn a_canary_that_fails_everything_is_out_after_two_windows() {
    let mut world = World::new();
    world.rollout();
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
    for _ in 0..4 {
        world.traffic((95, 0), (5, 5));
    }
    assert_eq!((world.weight(), world.phase()), (BasisPoints::ZERO, "Failed"));
    assert_eq!(world.texts.last().map(String::as_str), Some("Canary failed! Scaling down backend.prod"));
    assert_eq!(world.metric("flagger_canary_failures_total"), ["1"]);
    assert_eq!(world.metric("flagger_canary_duration_seconds_count"), ["1"]);
}

#[test]
fn a_healthy_canary_is_promoted_in_the_end() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..3_000 {
        let canary = u64::from(world.weight().get() / 100);
        world.traffic((100 - canary, 0), (canary, 0));
        if world.phase() == "Succeeded" {
            break;
        }
    }
    assert_eq!(world.phase(), "Succeeded");
    assert_eq!(world.texts.last().map(String::as_str), Some("Promotion completed! Scaling down backend.prod"));
    assert_eq!(world.metric("flagger_canary_successes_total"), ["1"]);
    assert!(world.metric("flagger_canary_failures_total").is_empty());
    // A restarted engine does not know when the rollouts before it began, and has counted none.
    let mut world = world.restart();
    world.rollout();
    assert!(world.metric("flagger_canary_successes_total").is_empty());
}

#[test]
fn repeated_reports_count_once_and_none_is_lost_in_a_restart() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..3 {
        world.traffic((95, 0), (5, 0));
        let again = world.request();
        world.engine.report(&again, world.now).unwrap();
    }
    world.now = world.now.plus(Span::from_secs(2));
    world.tick();
    assert_eq!(world.counted(), 15);
    let durable = world.traffic((95, 0), (5, 0)).durable;
    assert_eq!(durable, 3, "what was written down need not be sent again");
    let mut world = world.restart();
    world.rollout();
    // Totals and evidence go on where the mark is; what is not durable comes again, and nothing else.
    let response = world.traffic((95, 0), (5, 0));
    world.now = world.now.plus(Span::from_millis(400));
    world.tick();
    assert_eq!((response.durable, world.counted()), (3, 25));
}

#[test]
fn a_restart_goes_on_with_the_rollout() {
    let mut world = World::new();
    world.rollout();
    let rev = world.engine.roster.all()[&name()].state.rev;
    let mut world = world.restart();
    assert!(world.engine.is_learning());
    world.rollout();
    assert_eq!((world.weight(), world.phase()), (BasisPoints::from_percent(10), "Progressing"));
    assert_eq!(world.engine.roster.all()[&name()].state.rev, rev);
}

#[test]
fn traffic_that_does_not_split_as_routed_moves_nothing_and_hides_no_harm() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..600 {
        world.traffic((98, 0), (2, 0));
    }
    assert_eq!(world.weight(), BasisPoints::from_percent(10), "a fifth of what the routes say");
    let verdict = world.engine.board(true, world.now).canaries.values().next().unwrap().verdict.clone().unwrap();
    assert_eq!(verdict.kind, "no-data");
    for _ in 0..20 {
        world.traffic((98, 0), (2, 2));
    }
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn traffic_that_stops_is_told_from_reports_that_do() {
    let word = |world: &mut World| {
        let verdict = world.engine.board(true, world.now).canaries.values().next().unwrap().verdict.clone().unwrap();
        (verdict.kind, verdict.reason)
    };
    let mut world = World::new();
    world.rollout();
    for _ in 0..10 {
        world.traffic((95, 0), (5, 0));
    }
    for _ in 0..130 {
        world.traffic((0, 0), (0, 0));
    }
    let (kind, reason) = word(&mut world);
    assert_eq!(kind, "no-data");
    assert!(reason.starts_with("traffic stopped: the last request was reported 1"), "{reason}");
    for _ in 0..60 {
        world.now = world.now.plus(Span::from_millis(200));
        world.tick();
    }
    assert_eq!(
        word(&mut world),
        ("no-data".to_owned(), "reports are stale: no proxy has reported for 12 s".to_owned())
    );
}

#[test]
fn one_request_a_second_is_enough_to_find_a_broken_canary_also_over_restarts() {
    let mut world = World::new();
    world.rollout();
    for second in 0..90 {
        world.now = world.now.plus(Span::from_millis(900));
        world.tick();
        let to_canary = second % 2;
        world.traffic((1 - to_canary, 0), (to_canary, to_canary));
        if second == 15 || second == 30 {
            world = world.restart();
            world.rollout();
            assert_eq!(world.phase(), "Progressing");
        }
    }
    assert_eq!((world.weight(), world.phase()), (BasisPoints::ZERO, "Failed"));
}

#[test]
fn a_full_disk_freezes_steps_but_not_an_abort() {
    let mut world = World::new();
    world.store.set_full(true);
    world.rollout();
    assert_eq!(world.weight(), BasisPoints::ZERO, "what cannot be stored is not begun");
    let stored = |world: &mut World| {
        let board = world.engine.board(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        view.conditions.iter().find(|condition| condition.kind == "Stored").map(|condition| condition.message.clone())
    };
    assert!(stored(&mut world).is_some_and(|why| why.contains("memory cannot be written")));
    world.store.set_full(false);
    world.now = world.now.plus(Span::from_millis(50));
    world.tick();
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
    assert_eq!(stored(&mut world), None);
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    assert_eq!(world.weight(), BasisPoints::ZERO);
    // Once there is room, it is stored, and a restart does not take it back.
    world.store.set_full(false);
    world.now = world.now.plus(Span::from_millis(50));
    world.tick();
    let mut world = world.restart();
    world.rollout();
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn an_abort_that_could_not_be_stored_is_found_in_what_the_proxies_serve() {
    let mut world = World::new();
    world.rollout();
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    // As long as it is not stored, the filters go on counting: requests show that it is served.
    let counting = |world: &World| {
        let host = &world.engine.model().hosts[0];
        (
            host.filter,
            matches!(host.split, Split::Single(_)),
            world.engine.roster.owner(&ClusterName::new("prod/backend/1")).is_some(),
        )
    };
    assert_eq!(counting(&world), (true, true, true));
    let request = world.request();
    world.store.set_full(false);
    let mut stored = World { engine: world.engine, ..World::over(world.store.clone()) };
    stored.now = world.now.plus(Span::from_millis(50));
    let before = world.store.writes();
    world.store.crash(Some(Crash { at: before, after: false }));
    stored.tick();
    assert_eq!(counting(&stored), (false, true, false), "once it is stored, they rest");
    assert!(world.store.take_dead(), "but the process died before it was");
    world.store.crash(None);
    let mut world = World { engine: stored.engine, ..world }.restart();
    world.rollout();
    assert_eq!(world.phase(), "Progressing");
    world.sequence += 1;
    let request = ReportRequest { sequence: world.sequence, ..request };
    let one = ClusterReport { started: 1, finished: 1, rev_started: 1, ..request.clusters[0].clone() };
    let mut outcomes = vec![0; Outcome::ALL.len()];
    outcomes[0] = 1;
    let request = ReportRequest { clusters: vec![ClusterReport { outcomes, latency: Vec::new(), ..one }], ..request };
    world.engine.report(&request, world.now).unwrap();
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
}

/// Where evidence decides, metrics of others are asked for at each look: what they say counts, that they say nothing does
/// not.
#[test]
fn metrics_of_others_are_asked_for_beside_the_evidence() {
    let asking = |revision: &str| {
        let mut setup = setup(revision);
        let managed = setup.canaries.get_mut(&name()).unwrap();
        let (step_weight, max_weight) = (Some(10), Some(50));
        let input = PlanInput { step_weight, max_weight, target: "backend".into(), ..PlanInput::default() };
        let (interval, metrics) = (Some(Span::from_secs(1)), vec!["lag".into()]);
        let input = PlanInput { name: Some(name()), threshold: Some(2), interval, metrics, ..input };
        managed.plan = Plan::try_new(&input).unwrap();
        managed.measures = vec![Measure::Prometheus(Arc::new(Query {
            metric: "lag".into(),
            origin: Origin::Inline,
            address: "http://127.0.0.1:9090".parse().unwrap(),
            headers: reqwest::header::HeaderMap::new(),
            query: "lag".into(),
            mode: SignalMode::Judge,
            range: Range { min: None, max: Some(5.0) },
        }))];
        setup
    };
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(asking(revision), world.now);
    }
    let ask = |world: &mut World, answer: Answer| {
        for _ in 0..100 {
            if let [call] = world.engine.calls().as_slice() {
                assert!(matches!(&call.whom, Whom::Prometheus(query) if query.metric == "lag"));
                world.engine.measured(&name(), "lag".into(), 7.0);
                world.engine.answer(&name(), call.ticket, answer, world.now);
                return;
            }
            world.traffic((90, 0), (10, 0));
        }
        panic!("it was never asked");
    };
    ask(&mut world, Answer::Passed);
    ask(&mut world, Answer::Unknown("nobody there".into()));
    ask(&mut world, Answer::Failed("too much".into()));
    let view = world.engine.board(true, world.now).canaries.values().next().unwrap().clone();
    assert_eq!((view.failed_checks, view.phase.as_str()), (1, "Progressing"));
    assert_eq!((view.metrics.get("lag"), view.alpha.outside.as_slice()), (Some(&7.0), &["metric lag".to_owned()][..]));
    ask(&mut world, Answer::Failed("too much".into()));
    for _ in 0..20 {
        world.traffic((90, 0), (10, 0));
    }
    assert_eq!(world.phase(), "Failed");
    let told: Vec<&str> = world.texts.iter().map(String::as_str).filter(|text| !text.starts_with("Advance")).collect();
    assert_eq!(
        told[told.len() - 4..],
        [
            "too much",
            "too much",
            "Rolling back backend.prod failed checks threshold reached 2",
            "Canary failed! Scaling down backend.prod"
        ]
    );
}

/// Flagger's pace needs no traffic to go on: until the proxies have shown what they serve, it does not.
#[test]
fn nothing_moves_before_the_proxies_have_shown_what_they_serve() {
    let by_checks = |revision: &str| {
        let mut setup = setup(revision);
        let interval = Some(Span::from_secs(1));
        let (step_weight, max_weight, pace) = (Some(10), Some(50), Pace::Checks);
        let input =
            PlanInput { interval, step_weight, max_weight, pace, target: "backend".into(), ..PlanInput::default() };
        let managed = setup.canaries.get_mut(&name()).unwrap();
        managed.plan = Plan::try_new(&PlanInput { name: Some(name()), ..input }).unwrap();
        managed.judge.mode = Mode::Guard;
        setup
    };
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(by_checks(revision), world.now);
    }
    for _ in 0..25 {
        world.traffic((90, 0), (10, 0));
    }
    let before = world.weight();
    assert!(!before.is_zero());
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    let aborted = world.request();
    world.store.set_full(false);
    let mut world = world.restart();
    world.engine.configure(by_checks("2"), world.now);
    for _ in 0..20 {
        world.now = world.now.plus(Span::from_millis(100));
        world.tick();
    }
    // Threads of Envoy that serve nobody ask for the policy, and show nothing.
    let empty = ReportRequest { worker_id: 9, clusters: Vec::new(), ..world.request() };
    world.engine.report(&empty, world.now).unwrap();
    world.tick();
    assert_eq!((world.engine.is_learning(), world.weight()), (true, before));
    let refused = world.engine.command(&name(), Command::Promote, "2", world.now).unwrap_err();
    assert!(refused.contains("try again in a second"), "{refused}");
    // Whoever has waited long enough goes on; the abort still shows when it comes.
    world.engine.stop_learning();
    for _ in 0..20 {
        world.now = world.now.plus(Span::from_millis(100));
        world.tick();
    }
    assert!(world.weight() > before, "{:?}", world.weight());
    world.sequence += 1;
    world.primary.0 += 5;
    let request = ReportRequest { sequence: world.sequence, ..world.request() };
    let rev = aborted.clusters[0].rev;
    let clusters = request.clusters.into_iter().map(|cluster| ClusterReport { rev, ..cluster }).collect();
    world.engine.report(&ReportRequest { clusters, ..request }, world.now).unwrap();
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
}

#[test]
fn commands_leave_events() {
    let mut world = World::new();
    world.rollout();
    world.engine.told();
    let name = name();
    for (id, command, told) in [
        ("1", Command::Pause, "Paused backend.prod by command"),
        ("2", Command::Resume, "Resumed backend.prod by command"),
        ("3", Command::Abort, "Rolling back backend.prod aborted by command"),
        ("4", Command::Retry, "Retrying backend.prod by command"),
        ("5", Command::Promote, "Skipping the remaining steps of backend.prod by command"),
    ] {
        assert_eq!(world.engine.command(&name, command, id, world.now), Ok(()), "{id}");
        let texts: Vec<String> = world.engine.told().into_iter().map(|told| told.text).collect();
        assert!(texts.iter().any(|text| text.contains(told)), "{texts:?}");
        assert_eq!(world.engine.command(&name, command, id, world.now), Ok(()), "the same one again");
        assert_eq!(world.engine.told().len(), 0);
    }
}

/// As many as are kept, the latest ones; what a full disk did not take is stored when there is room.
#[test]
fn events_outlive_the_process() {
    let event = |id: u64| EventView { id, message: format!("event {id}"), ..EventView::default() };
    let mut world = World::new();
    assert_eq!(world.engine.remembered(), []);
    let events: Vec<EventView> = (1..=1_500).map(event).collect();
    world.engine.remember(&events[..1_400], world.now);
    world.store.set_full(true);
    world.engine.remember(&events[1_400..1_450], world.now);
    world.engine.remember(&events[1_450..], world.now);
    world.store.set_full(false);
    // Not at once: each attempt takes its time.
    world.engine.remember(&[], world.now.plus(Span::from_millis(999)));
    let mut early = Engine::open(Box::new(world.store.clone()), [1; 32]).unwrap();
    assert_eq!(early.remembered().last().map(|event| event.id), Some(1_400));
    world.engine.remember(&[], world.now.plus(Span::from_secs(1)));
    let mut world = world.restart();
    let remembered = world.engine.remembered();
    assert_eq!(remembered.len(), 1_000);
    assert_eq!(remembered, events[500..]);
}

#[test]
fn a_command_acts_once() {
    let mut world = World::new();
    world.rollout();
    assert_eq!(world.engine.command(&name(), Command::Abort, "same", world.now), Ok(()));
    assert_eq!(world.engine.command(&name(), Command::Abort, "same", world.now), Ok(()));
    let refused = world.engine.command(&name(), Command::Abort, "another", world.now);
    assert_eq!(refused, Err("backend.prod is Failed: there is no rollout to abort".to_owned()));
}

#[test]
fn absurd_reports_change_nothing() {
    let mut world = World::new();
    world.rollout();
    world.traffic((95, 0), (5, 0));
    let mut more_errors_than_requests = world.request();
    more_errors_than_requests.clusters[1].outcomes[3] = u64::MAX;
    more_errors_than_requests.sequence += 1;
    assert!(world.engine.report(&more_errors_than_requests, world.now).is_err());
    let mut backwards = world.request();
    backwards.clusters[0].stratum = 77;
    assert!(world.engine.report(&backwards, world.now).is_err());
    assert_eq!(world.phase(), "Progressing");
}

#[test]
fn state_of_a_later_version_is_refused_by_name() {
    let mut store = Memory::default();
    let later = br#"{"version": 9, "content": {"anything": true}}"#;
    store.put(&[("canary/prod/backend".to_owned(), later.to_vec())]).unwrap();
    let refused = Engine::open(Box::new(store.clone()), [1; 32]).unwrap_err().to_string();
    assert!(refused.contains("canary/prod/backend has version 9"), "{refused}");
    store.put(&[("canary/prod/backend".to_owned(), b"{".to_vec())]).unwrap();
    let damaged = Engine::open(Box::new(store), [1; 32]).unwrap_err().to_string();
    assert!(damaged.contains("canary/prod/backend is damaged"), "{damaged}");
}

#[test]
fn state_of_the_version_before_is_read_and_its_evidence_left_aside() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..20 {
        world.traffic((90, 0), (10, 0));
    }
    let aged = |(key, bytes): (&String, &Vec<u8>)| {
        let mut entry: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        entry["version"] = 1.into();
        if key.starts_with("evidence/") {
            entry["content"] = serde_json::json!({"judge": "of another shape"});
        }
        (key.clone(), serde_json::to_vec(&entry).unwrap())
    };
    let entries: Vec<_> = world.store.load().unwrap().iter().map(aged).collect();
    assert!(entries.iter().any(|(key, _)| key.starts_with("evidence/")));
    world.store.put(&entries).unwrap();
    let (before, mut world) = (world.weight(), world.restart());
    world.engine.configure(setup("2"), world.now);
    world.engine.stop_learning();
    assert_eq!((world.phase(), world.weight()), ("Progressing", before));
    assert_eq!(world.counted(), 0, "evidence is gathered anew");
}

/// What a whole rollout came to, seen from the proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    phase: &'static str,
    /// The shares that were served, without repeats.
    weights: Vec<u16>,
    writes: u64,
    crashed: bool,
}

/// A rollout from its start to its end, by a control plane that dies at one of its writes and comes back.
fn live(crash: Option<Crash>, broken_from: Option<u16>) -> Life {
    let mut world = World::new();
    let before = world.store.writes();
    world.store.crash(crash.map(|crash| Crash { at: before + crash.at, ..crash }));
    world.rollout();
    let (mut weights, mut crashed) = (Vec::new(), false);
    for _ in 0..4_000 {
        // What the dead one has sent to the proxies stays with them; the next one answers once it has learnt.
        if world.store.take_dead() {
            world.store.crash(None);
            crashed = true;
            world = world.restart();
            world.rollout();
        }
        let weight = world.weight().get() / 100;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        if matches!(world.phase(), "Succeeded" | "Failed") && !world.store.take_dead() {
            break;
        }
        let canary = u64::from(weight);
        let bad = if broken_from.is_some_and(|from| weight >= from) { canary } else { 0 };
        world.traffic((100 - canary, 0), (canary, bad));
    }
    Life { phase: world.phase(), weights, writes: world.store.writes() - before, crashed }
}

#[test]
fn crash_matrix() {
    let mut points = 0;
    for (broken_from, phase, shares) in
        [(None, "Succeeded", &[0, 10, 20, 30, 40, 50][..]), (Some(20), "Failed", &[0, 10, 20][..])]
    {
        let undisturbed = live(None, broken_from);
        assert_eq!(undisturbed.phase, phase);
        for at in 0..undisturbed.writes {
            for after in [false, true] {
                points += 1;
                let life = live(Some(Crash { at, after }), broken_from);
                assert!(life.crashed, "write {at} came about");
                assert_eq!(life.phase, phase, "killed at write {at}, completed: {after}: {life:?}");
                // The plan's shares in the plan's order: repeated, never skipped, never back once it ended.
                let (last, run) = life.weights.split_last().unwrap();
                let peak = run.iter().max().unwrap();
                assert!(run.windows(2).all(|pair| pair[1] <= pair[0] + 10), "{life:?}");
                assert_eq!((*last, *peak), (0, *shares.last().unwrap()), "{life:?}");
            }
        }
    }
    println!("crash matrix: {points} points, all converge");
    assert!(points > 50, "{points}");
}

/// The wanted revision goes to insiders only.
fn by_rules(revision: &str) -> Setup {
    let plan = Plan::try_new(&PlanInput {
        name: Some(name()),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        matches: true,
        iterations: Some(3),
        ..PlanInput::default()
    });
    let regex = StringMatch { regex: Some(".*insider.*".to_owned()), ..StringMatch::default() };
    let entry = EntryInput { headers: [("cookie".to_owned(), regex)].into(), ..EntryInput::default() };
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[entry]).unwrap() };
    let mut setup = setup(revision);
    let managed = setup.canaries.get_mut(&name()).unwrap();
    managed.plan = plan.unwrap();
    managed.judge.comparison = Comparison::Absolute;
    managed.audience = Audience::Rules { rules, holdback: BasisPoints::ZERO };
    setup
}

/// Runs an A/B test up to its switch: before it, matching requests are measured at the primary for an interval.
fn switched(world: &mut World) -> String {
    let mut version = 0;
    for _ in 0..30 {
        world.now = world.now.plus(Span::from_millis(100));
        world.sequence += 1;
        world.primary.0 += 50;
        let known = ReportRequest { policy_version: version, automaton_format: AUTOMATON_FORMAT, ..world.request() };
        let response = world.engine.report(&known, world.now).unwrap();
        if let Some(policy) = response.policy {
            version = policy.version;
            let divisions = convert::policy::divisions(&policy).unwrap();
            assert!(matches!(&divisions[..], [(_, Division::Rules { holdback: BasisPoints::FULL, .. })]));
        }
        world.tick();
        if let Split::Header { value, .. } = world.engine.model().hosts[0].split.clone() {
            return value;
        }
    }
    panic!("the test does not begin: {:?}", world.engine.model().hosts[0].split);
}

#[test]
fn an_ab_test_counts_from_when_every_worker_knows_the_rules() {
    let mut world = World::new();
    world.engine.configure(by_rules("1"), world.now);
    world.engine.configure(by_rules("2"), world.now);
    world.tick();
    let token = switched(&mut world);
    let report = |world: &mut World, worker_id, version, format| {
        world.now = world.now.plus(Span::from_millis(100));
        world.sequence += 1;
        world.canary.0 += 50;
        let request = ReportRequest { worker_id, policy_version: version, automaton_format: format, ..world.request() };
        let response = world.engine.report(&request, world.now).unwrap();
        world.tick();
        let board = world.engine.board(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        (response.policy, view.verdict.clone().map(|verdict| (verdict.kind, verdict.reason)).unwrap_or_default())
    };
    // A filter that runs other automata is told what to count, and no rules.
    let (plain, (kind, why)) = report(&mut world, 2, 0, AUTOMATON_FORMAT + 1);
    let plain = plain.unwrap();
    assert_eq!((plain.hosts.len(), plain.clusters.len(), kind.as_str()), (0, 2, "no-data"));
    assert!(why.contains("edge-1"), "{why}");
    let (same, _) = report(&mut world, 2, plain.version, AUTOMATON_FORMAT + 1);
    assert_eq!(same, None, "nor is it told again");
    // The right one gets them, once.
    let (policy, (kind, _)) = report(&mut world, 2, plain.version, AUTOMATON_FORMAT);
    let policy = policy.unwrap();
    let read = convert::policy::divisions(&policy).unwrap();
    assert!(
        matches!(&read[..], [(host, Division::Rules { token: sent, .. })] if host == "prod/backend" && *sent == token)
    );
    assert_eq!(kind, "no-data");
    let (none, (kind, why)) = report(&mut world, 2, policy.version, AUTOMATON_FORMAT);
    assert!(none.is_none() && kind != "no-data", "{why}");
    // Another worker comes without: the clock stands until it has them, or is gone.
    let (_, (kind, _)) = report(&mut world, 3, 0, AUTOMATON_FORMAT);
    assert_eq!(kind, "no-data");
    let (_, (kind, _)) = report(&mut world, 3, policy.version, AUTOMATON_FORMAT);
    assert_ne!(kind, "no-data");
}

#[test]
fn filters_keep_cohorts_only_for_a_rollout_that_may_be_cut_short() {
    let policy = |world: &mut World| {
        world.sequence += 1;
        let request = ReportRequest { automaton_format: AUTOMATON_FORMAT, ..world.request() };
        world.engine.report(&request, world.now).unwrap().policy.unwrap()
    };
    let early = |revision| {
        let mut setup = setup(revision);
        let managed = setup.canaries.get_mut(&name()).unwrap();
        managed.judge = JudgeConfig { early_promotion: true, ..JudgeConfig::default() };
        setup
    };
    let mut world = World::new();
    world.rollout();
    let ordinary = policy(&mut world);
    assert!(!ordinary.cohorts);
    for cluster in &ordinary.clusters {
        let told = (cluster.canary.as_str(), cluster.overdue_ms, cluster.slow_us);
        assert_eq!(told, ("prod/backend", 1_000, 5_000), "nothing is known of the primary yet");
    }
    let mut world = World::over(Memory::default());
    world.engine.configure(early("1"), world.now);
    world.tick();
    assert!(!policy(&mut world).cohorts, "no rollout");
    world.engine.configure(early("2"), world.now);
    world.tick();
    assert!(policy(&mut world).cohorts);
}

/// Who knows everything but the random numbers cannot forge an arm header; a restart, which draws others, keeps it.
#[test]
fn the_arm_header_is_a_secret_that_survives() {
    let token = |world: &World| {
        let split = world.engine.model().hosts[0].split.clone();
        let Split::Header { value, .. } = split else { panic!("{split:?}") };
        value
    };
    let begin = |random: u8| {
        let mut world = World::over(Memory::default());
        world.engine = Engine::open(Box::new(world.store.clone()), [random; 32]).unwrap();
        for revision in ["1", "2"] {
            world.engine.configure(by_rules(revision), world.now);
        }
        world.tick();
        let token = switched(&mut world);
        (world, token)
    };
    let (world, before) = begin(7);
    assert_ne!(before, begin(8).1);
    let mut world = world.restart();
    world.engine.configure(by_rules("2"), world.now);
    assert_eq!(token(&world), before);
}

fn refused(stream: u64, kind: Kind, name: &str) -> News {
    let nack = Nack { kind, names: vec![name.to_owned()], hosts: None, error: "no".to_owned() };
    News { node: format!("edge-{stream}"), stream, what: Happened::Refused(nack) }
}

/// A hundred Envoys that refuse the same are told once; the condition stays until the last of them accepts or leaves.
#[test]
fn refusals_are_told_once_and_shown_as_long_as_they_last() {
    let mut world = World::new();
    let cluster = "prod/backend/1";
    let programmed = |engine: &mut Engine| {
        let board = engine.board(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        let found = view.conditions.iter().find(|condition| condition.kind == "Programmed");
        (found.map(|condition| condition.message.clone()), board.clients.refusals)
    };
    world.engine.told();
    for stream in 1..=100 {
        world.engine.heard(&refused(stream, Kind::Cluster, cluster), world.now);
    }
    let told: Vec<String> = world.engine.told().into_iter().map(|told| told.text).collect();
    let text = "Envoy edge-1 refuses clusters and goes on with the last good ones: no";
    assert_eq!(told, [text]);
    assert_eq!(programmed(&mut world.engine), (Some(text.to_owned()), 100));
    for stream in 1..=100 {
        assert!(programmed(&mut world.engine).0.is_some());
        let what = if stream % 2 == 0 { Happened::Left } else { Happened::Settled(Kind::Cluster) };
        world.engine.heard(&News { node: String::new(), stream, what }, world.now);
    }
    assert_eq!(programmed(&mut world.engine), (None, 0));
    // What another canary needs is not told of this one.
    world.engine.heard(&refused(1, Kind::Cluster, "prod/other/1"), world.now);
    assert_eq!((world.engine.told().len(), programmed(&mut world.engine).0), (0, None));
}

/// Replays what was recorded, from the lines as they are in files. Returns the last verdict and the lines.
fn replayed(recorded: Vec<Recorded>) -> (String, usize) {
    let config = JudgeConfig { attempt: Some(std::num::NonZeroU32::MIN), ..JudgeConfig::default() };
    let mut replay = Replay::new(config);
    let mut last = String::new();
    let lines = recorded.len();
    for recorded in recorded {
        let text = serde_json::to_string(&recorded.line).unwrap();
        let row = replay.step(&serde_json::from_str(&text).unwrap()).unwrap();
        last = format!("{}: {}", row.verdict, row.reason);
    }
    (last, lines)
}

/// Returns what the judge said last of a rollout.
fn said(world: &World) -> String {
    let assessed = world.engine.roster.all()[&name()].assessed.as_ref().unwrap();
    format!("{}: {}", assessed.verdict.as_str(), assessed.verdict.reason())
}

#[test]
fn a_recording_comes_to_the_verdict_of_the_rollout() {
    for (errors, ends) in [(3, "Failed"), (0, "Succeeded")] {
        let mut world = World::new();
        world.engine.record();
        world.rollout();
        for _ in 0..3_000 {
            let canary = u64::from(world.weight().get() / 100);
            world.traffic((100 - canary, 1), (canary, errors.min(canary)));
            if world.phase() == ends {
                break;
            }
        }
        assert_eq!(world.phase(), ends);
        let (last, lines) = replayed(world.engine.recorded());
        assert_eq!(last, said(&world), "{ends}");
        assert!(lines > 1 && last.starts_with(if errors > 0 { "rollback" } else { "advance" }), "{lines}: {last}");
    }
}

/// A killed control plane goes on with the evidence that it wrote down; what it hands out to be recorded is that, too.
#[test]
fn a_recording_has_nothing_twice_after_a_restart() {
    let mut world = World::new();
    world.engine.record();
    world.rollout();
    let mut all = Vec::new();
    for _ in 0..25 {
        world.traffic((90, 1), (10, 0));
        all.extend(world.engine.recorded());
    }
    let before = all.len();
    let held = world.engine.recorded_to_the_end().len();
    assert!(before > 0 && held > 0, "{before} handed out, {held} not written down");
    let mut world = world.restart();
    world.engine.record();
    world.engine.configure(setup("2"), world.now);
    world.engine.stop_learning();
    for _ in 0..200 {
        world.traffic((90, 1), (10, 3));
        if world.phase() == "Failed" {
            break;
        }
    }
    let after = world.engine.recorded();
    assert!(after.iter().all(|recorded| recorded.resumed));
    all.extend(after);
    assert!(all.windows(2).all(|pair| pair[0].line.t_ms < pair[1].line.t_ms));
    assert_eq!(replayed(all).0, said(&world));
}

#[test]
fn what_is_not_recorded_is_told_once_and_shown() {
    let mut world = World::new();
    world.rollout();
    world.engine.told();
    let loss = |windows| {
        let loss = Loss { rollout: RolloutId::new(1), windows, why: "no room".to_owned() };
        BTreeMap::from([(name(), loss)])
    };
    let condition = |world: &mut World| {
        let board = world.engine.board(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        view.conditions.iter().find(|condition| condition.kind == "Recorded").map(|condition| condition.message.clone())
    };
    for windows in 1..=3 {
        world.engine.not_recorded(loss(windows), world.now);
    }
    let told: Vec<String> = world.engine.told().into_iter().map(|told| told.text).collect();
    assert_eq!(told, ["Recording of backend.prod fails and the rollout goes on: no room"]);
    let shown = condition(&mut world).unwrap();
    assert_eq!(shown, "3 windows of the rollout are not in its recording: no room");
    world.engine.not_recorded(BTreeMap::new(), world.now);
    assert_eq!(condition(&mut world), None);
}

/// Of hosts that are refused together, the one to blame is told, and no other.
#[test]
fn only_the_host_that_is_to_blame_is_told() {
    let mut world = World::new();
    world.engine.told();
    let nack = |stream, hosts: &[&str]| {
        let hosts = Some(hosts.iter().map(ToString::to_string).collect());
        let nack = Nack { kind: Kind::Routes, names: vec!["public".to_owned()], hosts, error: "no".to_owned() };
        News { node: format!("edge-{stream}"), stream, what: Happened::Refused(nack) }
    };
    let refuses = |stream, hosts: &[&str]| News {
        node: String::new(),
        stream,
        what: Happened::RefusesHosts(hosts.iter().map(ToString::to_string).collect()),
    };
    let shown = |world: &mut World| {
        let board = world.engine.board(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        view.conditions.iter().any(|condition| condition.kind == "Programmed")
    };
    for (hosts, is_told) in [(&[][..], false), (&["prod/other"], false), (&["prod/backend"], true)] {
        world.engine.heard(&nack(1, hosts), world.now);
        let mine = world.engine.told().iter().filter(|told| told.canary == name()).count();
        assert_eq!((mine, shown(&mut world)), (usize::from(is_told), is_told), "{hosts:?}");
    }
    world.engine.heard(&nack(2, &["prod/backend"]), world.now);
    assert_eq!(world.engine.told().len(), 0, "it is known");
    world.engine.heard(&refuses(1, &["prod/other"]), world.now);
    assert!(shown(&mut world), "the other Envoy still refuses it");
    world.engine.heard(&refuses(2, &[]), world.now);
    assert!(!shown(&mut world));
    assert_eq!(world.engine.board(true, Timestamp::EPOCH).clients.refusals, 1);
    world.engine.heard(&News { node: String::new(), stream: 1, what: Happened::Settled(Kind::Routes) }, world.now);
    assert_eq!(world.engine.board(true, Timestamp::EPOCH).clients.refusals, 0);
}
