use std::sync::Arc;

use wingbeat_api::desired_state::{CanaryConfig, DesiredState, Service, Targeting, Workload};
use wingbeat_api::query::{Origin, Query};
use wingbeat_core::analysis::judge::{Comparison, JudgeConfig, Mode};
use wingbeat_core::analysis::replay::Replay;
use wingbeat_core::analysis::signal::SignalMode;
use wingbeat_core::analysis::threshold::Range;
use wingbeat_core::id::{Revision, RolloutId};
use wingbeat_core::matching::assignment::Assignment;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::outcome::Outcome;
use wingbeat_core::rollout::{Command, Pace, Plan, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_proto::convert;
use wingbeat_proto::v1::{ClusterReport, Count, ReportRequest, ReportResponse};
use wingbeat_xds_server::client_event::{ClientEventKind, Nack};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::lineage::Adoption;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::TrafficPolicy;
use wingbeat_xds_server::model::{Model, ModelFront, ServedHost, Split};
use wingbeat_xds_server::render::{Renderer, render};
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::version::Version;

use super::*;
use crate::engine::canary::Canary;
use crate::engine::commit::MAX_WAITING_COMMANDS;
use crate::immediate::Immediate;
use crate::rollout_end::End;
use crate::store::Write;
use crate::store::memory::{Crash, Memory};
use crate::view::EventView;

mod adoption;
mod changes;
mod commits;
mod crashes;
mod disk;
mod epochs;
mod recording;
mod refusals;
mod rollouts;
mod rules;
mod scopes;
mod sources;

/// An engine, a filter that reports to it, and a clock that only the test moves.
struct World {
    engine: Immediate,
    store: Memory,
    now: Timestamp,
    sequence: u64,
    primary: (u64, u64),
    canary: (u64, u64),
    /// Requests to the canary that found no room.
    uncounted: u64,
    texts: Vec<String>,
    /// What was rendered of all changes.
    renderer: Renderer,
}

/// Reports as somebody on this machine does, where each node has a source of its own.
fn report(engine: &mut Immediate, request: &ReportRequest, now: Timestamp) -> Result<ReportResponse, ReportRefusal> {
    engine.report(&request.node_id, request, now)
}

fn name() -> CanaryName {
    CanaryName::new("prod", "backend")
}

fn plan_input() -> PlanInput {
    PlanInput {
        name: Some(name()),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        step_weight: Some(10),
        max_weight: Some(50),
        ..PlanInput::default()
    }
}

/// The usual setup, under another plan.
fn planned(revision: &str, input: &PlanInput) -> DesiredState {
    let mut desired = desired_state(revision);
    desired.canaries.get_mut(&name()).unwrap().plan = Plan::try_new(input).unwrap();
    desired
}

/// The wanted revision, by checks that decide in intervals; the hard guard alone judges.
fn by_checks(revision: &str) -> DesiredState {
    let mut desired = planned(revision, &PlanInput { pace: Pace::Checks, ..plan_input() });
    desired.canaries.get_mut(&name()).unwrap().judge.mode = Mode::Guard;
    desired
}

fn desired_state(revision: &str) -> DesiredState {
    let plan = Plan::try_new(&plan_input());
    let endpoints = |port| vec![("127.0.0.1".to_owned(), port)];
    let config = CanaryConfig {
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
            traffic: TrafficPolicy::default(),
        },
        audience: Targeting::Chance,
        hooks: Vec::new(),
        metric_providers: Vec::new(),
        alerts: Vec::new(),
    };
    DesiredState { canaries: BTreeMap::from([(name(), config)]), ..DesiredState::default() }
}

impl Engine {
    /// Returns all that is to be served.
    fn model(&self) -> Model {
        let ModelFront { listeners, filter } = self.around.front();
        let mut model = Model { listeners, filter, ..Model::default() };
        for served in self.canaries.served().values().map(|served| ServedHost::clone(served)) {
            if served.adoption != Adoption::Adopted {
                for listener in served.listeners {
                    model.unadopted.entry(listener).or_default().insert(served.name.clone(), served.adoption);
                }
            }
            model.clusters.extend(served.clusters);
            model.hosts.extend(served.host);
        }
        model
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self::over(Memory::default());
        world.engine.configure(desired_state("1"), world.now);
        world
    }

    fn over(store: Memory) -> Self {
        Self {
            engine: Immediate::open(Box::new(store.clone()), [1; 32]).unwrap(),
            store,
            now: Timestamp::from_millis(1_000_000),
            sequence: 0,
            primary: (0, 0),
            canary: (0, 0),
            uncounted: 0,
            texts: Vec::new(),
            renderer: Renderer::default(),
        }
    }

    /// The control plane dies and comes back over what it has stored.
    fn restart(self) -> Self {
        let engine = Immediate::open(Box::new(self.store.clone()), [2; 32]).unwrap();
        Self { engine, renderer: Renderer::default(), ..self }
    }

    fn rollout(&mut self) {
        self.engine.configure(desired_state("2"), self.now);
        self.tick();
    }

    /// A tenth of a second of traffic: `(requests, errors)` of both arms.
    fn traffic(&mut self, primary: (u64, u64), canary: (u64, u64)) -> ReportResponse {
        self.primary = (self.primary.0 + primary.0, self.primary.1 + primary.1);
        self.canary = (self.canary.0 + canary.0, self.canary.1 + canary.1);
        self.now = self.now.plus(Span::from_millis(100));
        self.sequence += 1;
        let request = self.request();
        let response = report(&mut self.engine, &request, self.now).unwrap();
        self.tick();
        response
    }

    /// Returns the parts of reports that were left out so far.
    fn left_out(&mut self) -> u64 {
        self.engine.status(true, self.now).foreign_reports
    }

    /// Returns true for each rollout that ended since this was asked last if it was promoted.
    fn ended(&mut self) -> Vec<bool> {
        self.engine.ended().iter().map(|ended| ended.end.promoted).collect()
    }

    /// A tick, after which what it comes to is served and, if that is an abort, stored.
    fn tick(&mut self) {
        self.engine.tick(self.now);
        if self.serve() {
            self.engine.tick(self.now);
        }
        self.engine.canaries.check();
        self.engine.check_timers();
        self.engine.policies.check(&self.engine.canaries, self.now);
        self.texts.extend(self.engine.take_events().into_iter().map(|told| told.text));
    }

    /// Serves what changed. Returns true if anything may have.
    fn serve(&mut self) -> bool {
        let Some(change) = self.engine.take_route_changes() else { return false };
        assert_eq!(self.renderer.render(change), render(&self.engine.model()), "as if it was served from nothing");
        true
    }

    fn request(&self) -> ReportRequest {
        let canary = &self.engine.canaries.all()[&name()];
        let (rev, epoch) = (canary.state.rev.get(), canary.epoch().get());
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
                epoch,
                first_sequence: 1,
                ..ClusterReport::default()
            }
        };
        let uncounted = self.uncounted;
        ReportRequest {
            node_id: "edge-1".into(),
            boot_id: 1,
            worker_id: 2,
            sequence: self.sequence,
            clusters: vec![cluster("1", self.primary), ClusterReport { uncounted, ..cluster("2", self.canary) }],
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
        self.engine.canaries.all()[&name()].state.phase.as_str()
    }

    fn counted(&mut self) -> u64 {
        let board = self.engine.status(true, self.now);
        board.canaries.values().next().map_or(0, |view| view.measured().canary.requests)
    }
}

/// What a worker sends at once, before its tick, waits for its next regular report, also across a restart.
#[test]
fn an_urgent_report_is_complete_with_the_next_regular_one() {
    let mut world = World::new();
    world.rollout();
    world.traffic((190, 1), (10, 0));
    world.now = world.now.plus(Span::from_millis(900));
    world.tick();
    world.sequence += 1;
    world.canary = (world.canary.0 + 1, world.canary.1 + 1);
    let request = ReportRequest { urgent: true, ..world.request() };
    report(&mut world.engine, &request, world.now).unwrap();
    assert_eq!(world.engine.windows.held().len(), 1);
    world.now = world.now.plus(Span::from_millis(100));
    world.tick();
    let mut world = world.restart();
    world.engine.configure(desired_state("2"), world.now);
    assert_eq!(world.engine.windows.held().len(), 1, "written down with the windows");
    world.traffic((190, 1), (10, 0));
    assert_eq!(world.engine.windows.held(), []);
    let complete = |(_, batch): &(CanaryName, Batch)| batch.complete().judged.canary.started;
    assert_eq!(world.engine.windows.open().iter().map(complete).sum::<u64>(), 11);
    let arrived = |(_, batch): &(CanaryName, Batch)| batch.judged.canary.started;
    assert_eq!(world.engine.windows.open().iter().map(arrived).sum::<u64>(), 10, "the guard has seen the other one");
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
    let ended = world.engine.ended();
    assert!(matches!(ended[..], [RolloutEnd { end: End { promoted: false, took: Some(_), .. }, .. }]), "{ended:?}");
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
    assert_eq!(world.ended(), [true]);
    assert!(world.ended().is_empty());
    // A restarted engine does not know when the rollouts before it began, and has counted none.
    let mut world = world.restart();
    world.rollout();
    assert!(world.ended().is_empty());
}

#[test]
fn repeated_reports_count_once_and_none_is_lost_in_a_restart() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..3 {
        world.traffic((95, 0), (5, 0));
        let again = world.request();
        report(&mut world.engine, &again, world.now).unwrap();
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
    let rev = world.engine.canaries.all()[&name()].state.rev;
    let mut world = world.restart();
    assert!(world.engine.is_learning());
    world.rollout();
    assert_eq!((world.weight(), world.phase()), (BasisPoints::from_percent(10), "Progressing"));
    assert_eq!(world.engine.canaries.all()[&name()].state.rev, rev);
}

#[test]
fn traffic_that_does_not_split_as_routed_moves_nothing_and_hides_no_harm() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..600 {
        world.traffic((98, 0), (2, 0));
    }
    assert_eq!(world.weight(), BasisPoints::from_percent(10), "a fifth of what the routes say");
    let verdict = world.engine.status(true, world.now).canaries.values().next().unwrap().verdict.clone().unwrap();
    assert_eq!(verdict.kind, "no-data");
    for _ in 0..20 {
        world.traffic((98, 0), (2, 2));
    }
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn traffic_that_stops_is_in_policy_from_reports_that_do() {
    let word = |world: &mut World| {
        let verdict = world.engine.status(true, world.now).canaries.values().next().unwrap().verdict.clone().unwrap();
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

/// Where evidence decides, metrics of others are asked for at each look: what they say counts, that they say nothing does
/// not.
#[test]
fn metrics_of_others_are_asked_for_beside_the_evidence() {
    let asking = |revision: &str| {
        let mut desired = desired_state(revision);
        let config = desired.canaries.get_mut(&name()).unwrap();
        let (step_weight, max_weight) = (Some(10), Some(50));
        let input = PlanInput { step_weight, max_weight, target: "backend".into(), ..PlanInput::default() };
        let (interval, metrics) = (Some(Span::from_secs(1)), vec!["lag".into()]);
        let input = PlanInput { name: Some(name()), threshold: Some(2), interval, metrics, ..input };
        config.plan = Plan::try_new(&input).unwrap();
        config.metric_providers = vec![MetricProvider::Prometheus(Arc::new(Query {
            metric: "lag".into(),
            origin: Origin::Inline,
            address: "http://127.0.0.1:9090".parse().unwrap(),
            headers: http::HeaderMap::new(),
            query: "lag".into(),
            mode: SignalMode::Judge,
            range: Range { min: None, max: Some(5.0) },
        }))];
        desired
    };
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(asking(revision), world.now);
    }
    let ask = |world: &mut World, answer: Answer| {
        for _ in 0..100 {
            if let [call] = world.engine.calls(world.now).as_slice() {
                assert!(matches!(&call.target, CallTarget::Prometheus(query) if query.metric == "lag"));
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
    let view = world.engine.status(true, world.now).canaries.values().next().unwrap().clone();
    assert_eq!((view.failed_checks, view.phase.as_str()), (1, "Progressing"));
    assert_eq!(
        (view.metrics.get("lag"), view.alpha.outside.as_slice()),
        (Some(&wingbeat_api::number::Number::new(7.0)), &["metric lag".to_owned()][..])
    );
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

#[test]
fn commands_leave_events() {
    let mut world = World::new();
    world.rollout();
    world.engine.take_events();
    let name = name();
    for (id, command, told) in [
        ("1", Command::Pause, "Paused backend.prod by command"),
        ("2", Command::Resume, "Resumed backend.prod by command"),
        ("3", Command::Abort, "Rolling back backend.prod aborted by command"),
        ("4", Command::Retry, "Retrying backend.prod by command"),
        ("5", Command::Promote, "Skipping the remaining steps of backend.prod by command"),
    ] {
        assert_eq!(world.engine.command(&name, command, id, world.now), Ok(()), "{id}");
        let texts: Vec<String> = world.engine.take_events().into_iter().map(|told| told.text).collect();
        assert!(texts.iter().any(|text| text.contains(told)), "{texts:?}");
        assert_eq!(world.engine.command(&name, command, id, world.now), Ok(()), "the same one again");
        assert_eq!(world.engine.take_events().len(), 0);
    }
}

/// Whoever is called may know a rollout by it.
#[test]
fn hooks_are_told_the_same_checksum_as_long_as_the_revision_is_the_same() {
    let described = |world: &World| world.engine.describe(&name()).unwrap();
    let mut world = World::new();
    let (_, first) = described(&world);
    world.rollout();
    let (phase, checksum) = described(&world);
    assert_eq!(phase, "Progressing");
    assert_ne!(checksum, first);
    world.traffic((90, 0), (10, 0));
    let mut world = world.restart();
    world.rollout();
    world.engine.stop_learning();
    assert_eq!(described(&world), ("Progressing".to_owned(), checksum.clone()));
    assert_eq!(world.engine.command(&name(), Command::Promote, "1", world.now), Ok(()));
    assert_eq!(described(&world), ("Promoting".to_owned(), checksum.clone()));
    for _ in 0..3 {
        world.tick();
    }
    assert_eq!(described(&world), ("Succeeded".to_owned(), checksum));
    world.engine.configure(desired_state("1"), world.now);
    world.tick();
    assert_eq!(described(&world), ("Progressing".to_owned(), first));
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
    assert!(report(&mut world.engine, &more_errors_than_requests, world.now).is_err());
    let mut backwards = world.request();
    backwards.clusters[0].stratum = 77;
    assert!(report(&mut world.engine, &backwards, world.now).is_err());
    assert_eq!(world.phase(), "Progressing");
}
