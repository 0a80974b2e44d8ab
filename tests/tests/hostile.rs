//! What clients may send, through a real Envoy: no worker is lost, and every request is in one class.
#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_api::desired_state::Targeting;
use wingbeat_core::matching::assignment::{ARM_HEADER, BUCKET_HEADER, Identity};
use wingbeat_core::matching::request::Request;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::names::{CANARY, HOST, PRIMARY};
use wingbeat_demo::scene::{Scenario, Scene};
use wingbeat_demo::service::Behaviour;
use wingbeat_demo::stage::Stage;
use wingbeat_e2e::lab::{Lab, Test, answered_by, bytes};
use wingbeat_e2e::{reached, send};

const WEIGHT: u8 = 50;
/// How often each kind of request is sent.
const EACH: u64 = 40;

async fn stage() -> Stage {
    let scene = Scene {
        scenario: Scenario::NoTraffic,
        rps: 100,
        weight: WEIGHT,
        canary_errors: 1.0,
        primary_errors: 0.0,
        latency: Duration::ZERO,
        patience: None,
        fault_after: Duration::ZERO,
        max_duration: Duration::from_mins(1),
        seed: 5,
        envoy: None,
    };
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    let stage = Stage::build(&scene, &binary, wingbeat::FILTER).await.expect("a stage");
    let setup = stage.desired_state(&scene, CANARY, wingbeat::FILTER).expect("a setup");
    stage.handle().configure(setup).expect("a rollout");
    // The filter counts from the first request that Envoy serves by the rollout's routes.
    reached(|| stage.view().is_some_and(|view| view.weight > 0.0)).await;
    let mut tries = 0;
    while stage.canary().first_request().is_none() {
        send(stage.entry(), &request(b"")).await;
        tries += 1;
        assert!(tries < 1_000, "the canary gets a share");
    }
    let before = counted(&stage);
    reached(|| counted(&stage) > before).await;
    stage
}

/// A request with more header lines.
fn request(headers: &[u8]) -> Vec<u8> {
    let mut request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n").into_bytes();
    request.extend_from_slice(headers);
    request.extend_from_slice(b"\r\n");
    request
}

/// Requests in any class, of both arms.
fn counted(stage: &Stage) -> u64 {
    let arms = stage.view().map(|view| view.measured()).unwrap_or_default();
    [arms.primary, arms.canary].iter().map(|arm| arm.requests + arm.disconnects).sum()
}

async fn settled(stage: &Stage) -> u64 {
    // Silent workers report nothing: what has not come within ten ticks is not on its way.
    let mut before = counted(stage);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = counted(stage);
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_strange_headers_cost_no_worker_and_no_count() {
    let stage = stage().await;
    let start = settled(&stage).await;
    let long = format!("cookie: a={}\r\n", "x".repeat(50_000)).into_bytes();
    let many = "cookie: a=b; c=d\r\n".repeat(90).into_bytes();
    let kinds: [&[u8]; 7] = [
        b"x-text: caf\xe9 \xff\xfe\r\n",
        b"cookie: \xff\xfe=\x80; a=\xc3\r\n",
        &long,
        &many,
        b"x-empty:\r\ncookie:\r\nuser-agent: \r\n",
        b"x-wingbeat-arm: canary\r\nx-wingbeat-bucket: 9999\r\n",
        b"x-wingbeat-arm: \xff\r\nx-wingbeat-arm: canary\r\nx-wingbeat-bucket: -1\r\n",
    ];
    let mut sent = 0;
    for headers in kinds {
        for _ in 0..EACH {
            assert_eq!(
                send(stage.entry(), &request(headers)).await.status,
                Some(200),
                "{:?}",
                String::from_utf8_lossy(headers)
            );
            sent += 1;
        }
    }
    // What is beyond Envoy's own limits it answers by itself; no filter that looks at requests sees it.
    let longer = format!("cookie: a={}\r\n", "x".repeat(60 * 1_024)).into_bytes();
    let more = "cookie: a=b\r\n".repeat(200).into_bytes();
    for headers in [longer, more] {
        for _ in 0..EACH {
            assert_eq!(send(stage.entry(), &request(&headers)).await.status, Some(431));
        }
    }
    assert_eq!(settled(&stage).await, start + sent, "every request is in one class");
    // Both workers still count.
    for _ in 0..100 {
        assert_eq!(send(stage.entry(), &request(b"")).await.status, Some(200));
    }
    assert_eq!(settled(&stage).await, start + sent + 100);
}

/// Where routes go by the marks that the filter sets, what clients send in their place decides nothing: not even the true
/// value of a rollout.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_forged_headers_steer_nobody() {
    let [_, cookie] = wingbeat_demo::visitor::rules();
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[cookie]).expect("rules") };
    let tests = [
        Test::new("insiders", Targeting::Rules { rules, holdback: BasisPoints::ZERO }),
        Test::new("users", Targeting::Users(Identity::Cookie("uid".to_owned()))),
    ];
    let by = |host: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        bytes(&Request { method: b"GET".to_vec(), path: b"/".to_vec(), headers, ..Request::default() }, host)
    };
    let insider = ("cookie", "type=insider");
    let lab = Lab::open(&tests, ("insiders", &by("insiders.local", &[insider]))).await;
    let routes = lab.config("dynamic_route_configs").await;
    let matcher = routes.split_once(ARM_HEADER).expect("a route by the arm").1;
    let secret = matcher.split_once("\"exact\": \"").and_then(|(_, rest)| rest.split_once('"')).expect("its value").0;
    for value in ["canary", "1", "", secret] {
        // Several connections, so that both workers answer.
        for _ in 0..8 {
            let forged = (ARM_HEADER, value);
            let [other, matching] = [vec![forged], vec![forged, insider]].map(|it| by("insiders.local", &it));
            assert_eq!(send(lab.entry(), &other).await, answered_by(PRIMARY), "{value}");
            assert_eq!(send(lab.entry(), &matching).await, answered_by(CANARY), "{value}");
        }
    }
    let mut by_canary = 0;
    for user in 0..40 {
        let user = format!("uid=user-{user}");
        let own = send(lab.entry(), &by("users.local", &[("cookie", &user)])).await;
        by_canary += u32::from(own == answered_by(CANARY));
        for bucket in ["0", "9999", "-1"] {
            let forged = by("users.local", &[("cookie", &user), (BUCKET_HEADER, bucket)]);
            assert_eq!(send(lab.entry(), &forged).await, own, "{user} in bucket {bucket}");
        }
    }
    assert!((1..40).contains(&by_canary), "both arms have users");
    for bucket in ["0", "9999"] {
        let mut by_canary = 0;
        for _ in 0..100 {
            let answer = send(lab.entry(), &by("users.local", &[(BUCKET_HEADER, bucket)])).await;
            by_canary += u32::from(answer == answered_by(CANARY));
        }
        // Who names no user gets an arm by chance: five standard deviations around half of 100.
        assert!((25..=75).contains(&by_canary), "{by_canary} of 100 in bucket {bucket} reached the canary");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_clients_that_leave_are_counted_apart() {
    let stage = stage().await;
    let before = stage.view().map(|view| view.measured()).unwrap_or_default();
    stage.canary().behave(Behaviour { delay: Duration::from_millis(400), ..Behaviour::default() });
    for _ in 0..EACH {
        let mut connection = TcpStream::connect(stage.entry()).await.expect("Envoy accepts");
        connection.write_all(&request(b"")).await.expect("Envoy reads");
        // The primary answers at once; the canary does not in this time.
        let mut first = [0; 1];
        let _late = tokio::time::timeout(Duration::from_millis(100), connection.read(&mut first)).await;
    }
    let left = stage.canary().received_since_change();
    assert!(left > 0, "some went to the canary");
    let now = || stage.view().map(|view| view.measured()).unwrap_or_default();
    reached(|| now().canary.disconnects - before.canary.disconnects >= left).await;
    assert_eq!(now().canary.disconnects - before.canary.disconnects, left);
    assert_eq!(now().canary.errors, before.canary.errors, "a client that leaves is no error of the server");
}
