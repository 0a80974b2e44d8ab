//! The main job, through a real Envoy: a bad canary leaves, a good one stays, and nothing is lost in counting.
#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::names::{CANARY, HOST, PRIMARY};
use wingbeat_demo::scene::{Outcome, Scenario, Scene};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::stage::Stage;
use wingbeat_demo::summary::Ended;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::reached;

/// The promise is one second on a machine that does nothing else; a loaded one gets more.
const LOADED: u64 = 2_000;
/// An answer stands still for a second before it counts as such: the promise is three seconds.
const STALLED_LOADED: u64 = 4_000;

fn scene(scenario: Scenario) -> Scene {
    Scene {
        scenario,
        rps: 500,
        weight: 10,
        canary_errors: 1.0,
        primary_errors: 0.0,
        latency: Duration::from_secs(1),
        patience: None,
        fault_after: Duration::from_millis(500),
        max_duration: Duration::from_mins(1),
        seed: 3,
        envoy: None,
    }
}

fn quiet(_: &str) {}

async fn play(scene: Scene) -> Outcome {
    scene.play(wingbeat::FILTER, &|_| {}).await.expect("the scene is played to its end")
}

async fn rolled_back(scene: Scene) {
    rolled_back_within(scene, LOADED).await;
}

async fn rolled_back_within(scene: Scene, limit: u64) {
    let played = play(scene).await;
    assert!(played.as_it_should, "{played:?}");
    assert_eq!(played.summary.result, Ended::RolledBack);
    assert_eq!((played.summary.false_verdicts, played.summary.failed_requests_primary), (0, 0));
    let last = played.summary.fault_to_last_canary_request_ms;
    assert!(last.is_some_and(|millis| millis < limit), "{played:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_failing_canary_leaves() {
    rolled_back(scene(Scenario::Errors)).await;
}

/// Envoys of about Istio 1.28 and 1.31; every other test runs on the newest.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_failing_canary_leaves_on_older_versions() {
    for version in ["1.36.4", "1.39.3"] {
        let binary = Binary::locate(None, version, &quiet).await.expect("an Envoy");
        let envoy = Some(binary.path().to_owned());
        rolled_back(Scene { envoy: envoy.clone(), ..scene(Scenario::Errors) }).await;
        rolled_back(Scene { envoy, ..scene(Scenario::Hang) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_canary_that_was_broken_all_along_leaves() {
    rolled_back(Scene { fault_after: Duration::ZERO, ..scene(Scenario::Errors) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_hanging_canary_leaves_however_patient_users_are() {
    rolled_back(scene(Scenario::Hang)).await;
    rolled_back(Scene { patience: Some(Duration::from_millis(500)), ..scene(Scenario::Hang) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_canary_whose_answers_stop_leaves() {
    rolled_back_within(scene(Scenario::Stall), STALLED_LOADED).await;
}

fn load(stage: &Stage) -> Load {
    Load::start(LoadConfig {
        target: stage.entry(),
        host: HOST.to_owned(),
        rate: 500,
        patience: None,
        visitors: ANYONE,
    })
}

/// HTTP/2 alone is no gRPC: plain answers over it are what their status says, and a canary that fails is told from them.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_failing_canary_leaves_over_http2() {
    let scene = scene(Scenario::Errors);
    let binary = Binary::locate(None, DEFAULT_VERSION, &quiet).await.expect("an Envoy");
    let stage = Stage::build(&scene, &binary, wingbeat::FILTER).await.expect("a stage");
    for revision in [PRIMARY, CANARY] {
        let mut setup = stage.desired_state(&scene, revision, wingbeat::FILTER).expect("a setup");
        setup.canaries.values_mut().for_each(|managed| managed.workload.http2 = true);
        stage.handle().configure(setup).expect("it is taken");
    }
    let load = load(&stage);
    let errors =
        || stage.view().map(|view| view.measured()).map_or((0, 0), |arms| (arms.primary.errors, arms.canary.errors));
    reached(|| stage.canary().received_since_change() >= 100).await;
    assert_eq!(errors(), (0, 0));
    let since = stage.canary().behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
    reached(|| stage.view().is_some_and(|view| view.phase == "Failed")).await;
    load.stop(Duration::from_secs(10)).await;
    let last = stage.canary().last_request().map(|last| last.duration_since(since));
    assert!(last.is_some_and(|last| last < Duration::from_millis(LOADED)), "{last:?}");
    assert_eq!(errors().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_healthy_canary_is_promoted() {
    let played = play(Scene { weight: 50, ..scene(Scenario::Promote) }).await;
    assert!(played.as_it_should, "{played:?}");
    assert_eq!((played.summary.result, played.summary.failed_requests), (Ended::Promoted, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_every_request_is_counted_once() {
    let scene = Scene { weight: 50, ..scene(Scenario::NoTraffic) };
    let binary = Binary::locate(None, DEFAULT_VERSION, &quiet).await.expect("an Envoy");
    let stage = Stage::build(&scene, &binary, wingbeat::FILTER).await.expect("a stage");
    let setup = stage.desired_state(&scene, CANARY, wingbeat::FILTER).expect("a setup");
    stage.handle().configure(setup).expect("a rollout");
    let received = || [stage.primary(), stage.canary()].map(Service::received_since_change);
    let counted = || {
        let arms = stage.view().map(|view| view.measured()).unwrap_or_default();
        [arms.primary, arms.canary].map(|arm| (arm.requests, arm.errors))
    };
    // What is reported again is what is not durable yet: it may change nothing.
    let reported = async || {
        let reports = stage.handle().status().reports;
        reached(|| stage.handle().status().reports >= reports + 10).await;
    };
    // Until every worker has the routes, requests of the primary are of no rollout.
    let first = load(&stage);
    reached(|| stage.canary().received_since_change() >= 50).await;
    first.stop(Duration::from_secs(10)).await;
    reached(|| counted()[1].0 >= received()[1]).await;
    reported().await;
    let before = counted();
    assert_eq!(before[1], (received()[1], 0), "all of the canary's are of the rollout");
    assert!(before[0].0 <= received()[0], "{before:?} of {:?}", received());

    // A few errors, below what anyone would roll back, with the primary failing the same way.
    for service in [stage.primary(), stage.canary()] {
        service.behave(Behaviour { error_share: 0.002, ..Behaviour::default() });
    }
    let load = load(&stage);
    reached(|| stage.canary().received_since_change() >= 1_000).await;
    let tally = load.stop(Duration::from_secs(10)).await;
    let failed = |arm: &str| tally.failed.iter().filter(|by| by.as_deref() == Some(arm)).count() as u64;
    let errors = [failed(PRIMARY), failed(CANARY)];
    let expected = std::array::from_fn(|arm| (before[arm].0 + received()[arm], before[arm].1 + errors[arm]));
    reached(|| counted().iter().zip(&expected).all(|(counted, expected)| counted.0 >= expected.0)).await;
    reported().await;
    assert_eq!(counted(), expected, "primary and canary: requests and errors");
    assert_eq!((tally.sent, tally.failed.len() as u64), (tally.finished, errors.iter().sum()));
}
