//! A/B rules and sticky users, carried out by the filter in a real Envoy.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use wingbeat_controller::setup::{Audience, Managed, Setup};
use wingbeat_core::analysis::judge::Comparison;
use wingbeat_core::id::CanaryName;
use wingbeat_core::matching::division::Identity;
use wingbeat_core::matching::request::Request;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::rollout::{Plan, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::scene::{Scenario, Scene};
use wingbeat_demo::stage::{CANARY, NAMESPACE, PRIMARY, Stage};
use wingbeat_demo::summary::Ended;
use wingbeat_e2e::{Answer, send};
use wingbeat_test_support::corpus::{self, Row};

fn scene(scenario: Scenario) -> Scene {
    Scene {
        scenario,
        rps: 400,
        weight: 50,
        canary_errors: 1.0,
        primary_errors: 0.0,
        latency: Duration::ZERO,
        patience: None,
        fault_after: Duration::from_millis(500),
        max_duration: Duration::from_mins(1),
        seed: 4,
        envoy: None,
    }
}

async fn stage() -> Stage {
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    Stage::build(&scene(Scenario::NoTraffic), &binary, wingbeat::FILTER).await.expect("a stage")
}

/// What differs between canaries that share two revisions.
struct Test {
    name: String,
    host: String,
    audience: Audience,
}

/// Manages these canaries, each at its own host; the wanted revision is `revision`.
fn setup(stage: &Stage, tests: &[Test], revision: &str) -> Setup {
    let template = stage.setup(&scene(Scenario::NoTraffic), revision, wingbeat::FILTER).expect("a setup");
    let shared = template.canaries.values().next().expect("one").clone();
    let canaries = tests.iter().map(|test| {
        let name = CanaryName::new(NAMESPACE, &test.name);
        let by_rules = matches!(test.audience, Audience::Rules { .. });
        let input = PlanInput {
            name: Some(name.clone()),
            target: test.name.clone(),
            interval: Some(Span::from_secs(60)),
            step_weight: (!by_rules).then_some(50),
            max_weight: (!by_rules).then_some(50),
            matches: by_rules,
            iterations: by_rules.then_some(10),
            ..PlanInput::default()
        };
        let mut managed =
            Managed { plan: Plan::try_new(&input).expect("a plan"), audience: test.audience.clone(), ..shared.clone() };
        managed.judge.comparison = Comparison::Absolute;
        managed.service.hosts = vec![test.host.clone()];
        (name, managed)
    });
    Setup { canaries: canaries.collect::<BTreeMap<_, _>>(), ..template.clone() }
}

/// Rolls the canaries out and waits until all workers know whom to mark, which `probe` finds out.
async fn rolled_out(stage: &Stage, tests: &[Test], probe: (&str, &[u8])) {
    stage.handle().configure(setup(stage, tests, PRIMARY)).expect("they are managed");
    stage.handle().configure(setup(stage, tests, CANARY)).expect("they are rolled out");
    let flows = || {
        let board = stage.handle().board();
        let view = board.canaries.get(&(NAMESPACE.to_owned(), probe.0.to_owned()));
        view.and_then(|view| view.verdict.as_ref()).is_some_and(|verdict| verdict.kind != "no-data")
    };
    for _ in 0..2_000 {
        if flows() {
            return;
        }
        send(stage.entry(), probe.1).await;
    }
    assert!(flows(), "{:?}", stage.handle().board());
}

/// Returns the bytes of a request.
fn bytes(request: &Request, host: &str) -> Vec<u8> {
    let mut bytes = [&request.method[..], b" ", &request.path, b" HTTP/1.1\r\nconnection: close\r\nhost: "].concat();
    bytes.extend_from_slice(host.as_bytes());
    for (name, value) in &request.headers {
        bytes.extend_from_slice(&[b"\r\n", name.as_bytes(), b": ", value].concat());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

fn answered_by(revision: &str) -> Answer {
    Answer { status: Some(200), revision: Some(revision.to_owned()) }
}

/// Every row has a host of its own; those that are about the host or the scheme are left to the native engine, and so
/// is what Envoy refuses by itself: a fragment in a path.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_the_corpus_holds_in_the_filter() {
    let suits = |row: &Row| {
        let about_host = row.rules.iter().any(|rule| rule.authority.is_some() || rule.scheme.is_some());
        !about_host && !row.request.path.contains(&b'#')
    };
    let rows: Vec<Row> = corpus::rows().into_iter().filter(suits).collect();
    let host = |number: usize| format!("row-{number}.local");
    let tests: Vec<Test> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let rules = Rules { served: Entries::default(), canary: Entries::try_new(&row.rules).expect("rules") };
            let audience = Audience::Rules { rules, holdback: BasisPoints::ZERO };
            Test { name: format!("row-{number}"), host: host(number), audience }
        })
        .collect();
    let stage = stage().await;
    let first = rows.iter().position(|row| row.rule.is_some()).expect("one matches");
    let probe = rows.get(first).map(|row| bytes(&row.request, &host(first))).expect("it is there");
    rolled_out(&stage, &tests, (&format!("row-{first}"), &probe)).await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let expected = answered_by(if row.rule.is_some() { CANARY } else { PRIMARY });
        // Several connections, so that both workers answer.
        for _ in 0..4 {
            let answer = send(stage.entry(), &bytes(&row.request, &host(number))).await;
            if answer != expected {
                wrong.push((row.name.clone(), answer));
            }
        }
    }
    assert_eq!(wrong, []);
    assert!(rows.len() >= 54, "{} rows", rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_users_keep_their_arm() {
    let test = |name: &str, identity| Test {
        name: name.to_owned(),
        host: format!("{name}.local"),
        audience: Audience::Users(identity),
    };
    let tests =
        [test("cookie", Identity::Cookie("uid".to_owned())), test("header", Identity::Header("x-user".to_owned()))];
    let stage = stage().await;
    let by = |host: &str, header: (&str, String)| {
        let headers = vec![(header.0.to_owned(), header.1.into_bytes())];
        bytes(&Request { method: b"GET".to_vec(), path: b"/".to_vec(), headers, ..Request::default() }, host)
    };
    // Whoever has no name falls to either arm, and so makes the share flow.
    rolled_out(&stage, &tests, ("cookie", &by("cookie.local", ("x-none", String::new())))).await;
    let mut shares = Vec::new();
    for name in ["cookie", "header"] {
        let mut canary = 0;
        for user in 0..100 {
            let header = match name {
                "cookie" => ("cookie", format!("a=b; uid=user-{user}")),
                _ => ("x-user", format!("user-{user}")),
            };
            let request = by(&format!("{name}.local"), header);
            let first = send(stage.entry(), &request).await;
            for _ in 0..3 {
                assert_eq!(send(stage.entry(), &request).await, first, "user {user}");
            }
            canary += u32::from(first == answered_by(CANARY));
        }
        shares.push(canary);
    }
    // Half of 100 by the hash: five standard deviations are 25.
    assert!(shares.iter().all(|share| (25..=75).contains(share)), "{shares:?}");
}

/// What clients may send, where the filter reads it: no worker is lost, and the rules go on.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_strange_headers_do_not_disturb_rules() {
    let insider = || Request {
        method: b"GET".to_vec(),
        path: b"/".to_vec(),
        headers: vec![("cookie".to_owned(), b"type=insider".to_vec())],
        ..Request::default()
    };
    let [_, cookie] = wingbeat_demo::visitor::rules();
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[cookie]).expect("rules") };
    let audience = Audience::Rules { rules, holdback: BasisPoints::ZERO };
    let tests = [Test { name: "insiders".to_owned(), host: "insiders.local".to_owned(), audience }];
    let stage = stage().await;
    let probe = bytes(&insider(), "insiders.local");
    rolled_out(&stage, &tests, ("insiders", &probe)).await;
    let long = format!("cookie: a={}", "x".repeat(50_000)).into_bytes();
    let many = ["cookie: a=b; c=d"; 90].join("\r\n").into_bytes();
    let kinds: [(&[u8], Option<&str>); 9] = [
        (b"x-text: caf\xe9 \xff\xfe", Some(PRIMARY)),
        (b"cookie: \xff\xfe=\x80; type=insider", Some(CANARY)),
        (b"cookie: a=\xff\r\ncookie: type=insider", Some(CANARY)),
        (&long, Some(PRIMARY)),
        (&many, Some(PRIMARY)),
        (b"x-empty:\r\ncookie:\r\nuser-agent: ", Some(PRIMARY)),
        (b"x-wingbeat-arm: canary\r\nx-wingbeat-arm: \xff\r\nx-wingbeat-bucket: -1", Some(PRIMARY)),
        // Envoy refuses names that are no tokens itself.
        (b"x-\xff\xfe: a", None),
        (b"caf\xc3: a", None),
    ];
    for (lines, revision) in kinds {
        let request = [b"GET / HTTP/1.1\r\nhost: insiders.local\r\nconnection: close\r\n", lines, b"\r\n\r\n"].concat();
        let shown = String::from_utf8_lossy(lines.get(..lines.len().min(60)).unwrap_or_default());
        for _ in 0..8 {
            let answer = send(stage.entry(), &request).await;
            let expected = revision.map_or(Answer { status: Some(400), revision: None }, answered_by);
            assert_eq!(answer, expected, "{shown}");
        }
    }
    for _ in 0..8 {
        assert_eq!(send(stage.entry(), &probe).await, answered_by(CANARY), "both workers still match");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_an_ab_test_that_testers_break_is_rolled_back() {
    let played = scene(Scenario::Ab).play(wingbeat::FILTER, &|_: &str| {}).await.expect("the scene is played");
    assert!(played.as_it_should, "{played:?}");
    assert_eq!((played.summary.result, played.summary.misrouted), (Ended::RolledBack, 0));
}
