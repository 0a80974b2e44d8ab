//! A/B rules and sticky users, carried out by the filter in a real Envoy.

use wingbeat_api::desired_state::Targeting;
use wingbeat_core::matching::assignment::{ARM_HEADER, BUCKET_HEADER, Identity};
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::request::Request;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::names::{CANARY, PRIMARY};
use wingbeat_demo::scene::Scenario;
use wingbeat_demo::summary::Ended;
use wingbeat_e2e::lab::{Lab, Test, answered_by, bytes, scene};
use wingbeat_e2e::{Answer, send};
use wingbeat_test_support::corpus::{self, Row};

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
            let audience = Targeting::Rules { rules, holdback: BasisPoints::ZERO };
            Test::new(&format!("row-{number}"), audience)
        })
        .collect();
    let first = rows.iter().position(|row| row.rule.is_some()).expect("one matches");
    let probe = rows.get(first).map(|row| bytes(&row.request, &host(first))).expect("it is there");
    let lab = Lab::open(&tests, (&format!("row-{first}"), &probe)).await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let expected = answered_by(if row.rule.is_some() { CANARY } else { PRIMARY });
        // Several connections, so that both workers answer.
        for _ in 0..4 {
            let answer = send(lab.entry(), &bytes(&row.request, &host(number))).await;
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
    let tests = [
        Test::new("cookie", Targeting::Users(Identity::Cookie("uid".to_owned()))),
        Test::new("header", Targeting::Users(Identity::Header("x-user".to_owned()))),
    ];
    let by = |host: &str, header: (&str, String)| {
        let headers = vec![(header.0.to_owned(), header.1.into_bytes())];
        bytes(&Request { method: b"GET".to_vec(), path: b"/".to_vec(), headers, ..Request::default() }, host)
    };
    // Whoever has no name falls to either arm, and so makes the share flow.
    let lab = Lab::open(&tests, ("cookie", &by("cookie.local", ("x-none", String::new())))).await;
    let mut shares = Vec::new();
    for name in ["cookie", "header"] {
        let mut canary = 0;
        for user in 0..100 {
            let header = match name {
                "cookie" => ("cookie", format!("a=b; uid=user-{user}")),
                _ => ("x-user", format!("user-{user}")),
            };
            let request = by(&format!("{name}.local"), header);
            let first = send(lab.entry(), &request).await;
            for _ in 0..3 {
                assert_eq!(send(lab.entry(), &request).await, first, "user {user}");
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
    let audience = Targeting::Rules { rules, holdback: BasisPoints::ZERO };
    let tests = [Test::new("insiders", audience)];
    let probe = bytes(&insider(), "insiders.local");
    let lab = Lab::open(&tests, ("insiders", &probe)).await;
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
            let answer = send(lab.entry(), &request).await;
            let expected = revision.map_or(Answer { status: Some(400), revision: None }, answered_by);
            assert_eq!(answer, expected, "{shown}");
        }
    }
    for _ in 0..8 {
        assert_eq!(send(lab.entry(), &probe).await, answered_by(CANARY), "both workers still match");
    }
}

/// With the filter gone nobody sets the marks, and what clients send in their place is not believed: not even the true
/// value of a rollout.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_forged_marks_steer_nobody_without_the_filter() {
    let [_, cookie] = wingbeat_demo::visitor::rules();
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[cookie]).expect("rules") };
    let tests = [
        Test::new("insiders", Targeting::Rules { rules, holdback: BasisPoints::ZERO }),
        Test::new("users", Targeting::Users(Identity::Cookie("uid".to_owned()))),
    ];
    let by = |host: &str, name: &str, value: &str| {
        let headers = vec![(name.to_owned(), value.as_bytes().to_vec())];
        bytes(&Request { method: b"GET".to_vec(), path: b"/".to_vec(), headers, ..Request::default() }, host)
    };
    let insider = by("insiders.local", "cookie", "type=insider");
    let lab = Lab::open(&tests, ("insiders", &insider)).await;
    lab.install(None).await;
    let routes = lab.config("dynamic_route_configs").await;
    let matcher = routes.split_once(ARM_HEADER).expect("a route by the arm").1;
    let secret = matcher.split_once("\"exact\": \"").and_then(|(_, rest)| rest.split_once('"')).expect("its value").0;
    assert_eq!(secret.len(), 16, "{secret}");
    for value in ["canary", "1", "", secret] {
        assert_eq!(send(lab.entry(), &by("insiders.local", ARM_HEADER, value)).await, answered_by(PRIMARY));
    }
    assert_eq!(send(lab.entry(), &insider).await, answered_by(PRIMARY), "nobody is there to match");
    let mut canary = 0;
    for _ in 0..200 {
        let answer = send(lab.entry(), &by("users.local", BUCKET_HEADER, "0")).await;
        canary += u32::from(answer == answered_by(CANARY));
    }
    // Half of 200 by chance: five standard deviations are 35.
    assert!((65..=135).contains(&canary), "{canary} of 200 in one bucket reached the canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_an_ab_test_that_testers_break_is_rolled_back() {
    let played = scene(Scenario::Ab).play(wingbeat::FILTER, &|_| {}).await.expect("the scene is played");
    assert!(played.as_it_should, "{played:?}");
    assert_eq!((played.summary.result, played.summary.misrouted), (Ended::RolledBack, 0));
}

/// A rollout by weight whose service matches a part of its paths: the others never get the canary, whatever its share.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_share_is_one_of_the_requests_that_the_service_matches() {
    let prefix = StringMatch { prefix: Some("/api".to_owned()), ..StringMatch::default() };
    let entry = EntryInput { uri: Some(prefix), ..EntryInput::default() };
    let audience = Targeting::Served(Entries::try_new(&[entry]).expect("rules"));
    let request = |path: &str| {
        let request = Request { method: b"GET".to_vec(), path: path.as_bytes().to_vec(), ..Request::default() };
        bytes(&request, "served.local")
    };
    let lab = Lab::open(&[Test::new("served", audience)], ("served", &request("/api/v1"))).await;
    let mut by_canary = 0;
    for _ in 0..200 {
        assert_eq!(send(lab.entry(), &request("/other")).await, answered_by(PRIMARY));
        by_canary += u32::from(send(lab.entry(), &request("/api/v1")).await == answered_by(CANARY));
    }
    // A half of 200; beyond these bounds it is by chance once in a million times.
    assert!((65..=135).contains(&by_canary), "{by_canary} of 200");
}
