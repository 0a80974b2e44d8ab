//! What a `service` changes of requests and responses, as the upstreams of both arms see it, with and without the
//! filter; and what is not counted.
#![expect(clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wingbeat_api::Set;
use wingbeat_api::desired_state::Targeting;
use wingbeat_core::id::CanaryName;
use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::{reached, request_head};
use wingbeat_xds_server::model::http::HttpOptions;

/// How often each kind of request is sent.
const EACH: u64 = 40;

/// Starts a revision that answers with the head of the request, its lines behind a name.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, name));
        }
    });
    address
}

async fn answer(mut connection: TcpStream, name: &str) {
    while let Some(head) = request_head(&mut connection).await {
        let status = if head.contains("/missing") { 404 } else { 200 };
        let body = format!("{name}\n{head}");
        let answer = format!(
            "HTTP/1.1 {status} x\r\nx-powered-by: echo\r\nx-kept: 1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Returns what comes back, in lower case; the head of the request as the upstream saw it is in the body.
async fn ask(entry: SocketAddr, method: &str, host: &str, path: &str, headers: &str) -> String {
    let mut connection = TcpStream::connect(entry).await.expect("Envoy accepts");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n{headers}\r\n");
    connection.write_all(head.as_bytes()).await.expect("Envoy reads");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("Envoy answers");
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

/// Returns how HTTP is changed by a service with these fields, as users write them.
fn options(service: &str) -> HttpOptions {
    let text = format!(
        "
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {{name: a}}
spec:
  targetRef: {{kind: Workload, name: a}}
  service: {{hosts: [a.local], listeners: [a], {service}}}
  analysis: {{interval: 1s, stepWeight: 5}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {{name: a}}
spec: {{revision: '1', revisions: {{'1': {{endpoints: ['127.0.0.1:1']}}}}}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {{name: a}}
spec: {{address: 127.0.0.1, port: 1}}
"
    );
    let set = Set::of(&[("a.yaml".to_owned(), text)].into());
    assert_eq!(set.report.errors, []);
    set.desired_state(None).canaries.remove(&CanaryName::new("default", "a")).expect("it is there").service.http
}

fn probe(host: &str, headers: &str) -> Vec<u8> {
    format!("GET /probe HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// Waits until all that was sent before is counted, and returns how many requests were: what is not found tells how far
/// the counts are.
async fn counted(lab: &Lab, host: &str) -> u64 {
    let found = || {
        let arms = lab.arms(host);
        [&arms.primary, &arms.canary].map(|arm| arm.outcomes.get("client_fault").copied().unwrap_or_default())
    };
    let sum = || found().iter().sum::<u64>();
    let before = sum();
    for _ in 0..EACH {
        ask(lab.entry(), "GET", host, "/missing", "").await;
    }
    reached(|| sum() == before + EACH).await;
    let arms = lab.arms(host);
    arms.primary.requests + arms.canary.requests
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_requests_and_responses_are_changed_for_both_arms() {
    let everything = "
    match: [{uri: {prefix: /api/}}, {uri: {exact: /old}}],
    rewrite: {uri: /v2/, authority: inside.local},
    headers: {
      request: {set: {x-team: blue, x-asked: '%REQ(:PATH)%'}, add: {x-more: two}, remove: [x-secret]},
      response: {set: {x-kept: '2'}, add: {x-served: 'by us, 100 %%'}, remove: [x-powered-by]}},
    corsPolicy: {allowOrigins: [{exact: 'https://a.example'}, {regex: 'https://[a-z]+[.]b[.]example'}],
      allowMethods: [GET, PUT], allowHeaders: [x-team], exposeHeaders: [x-served], maxAge: 10m, allowCredentials: true}";
    let by_regex = r"rewrite: {uriRegexRewrite: {match: '^/user/(\d+)/(.*)$', rewrite: '/\2/of/\1'}}";
    let (primary, canary) = (Some(echo("primary").await), Some(echo("canary").await));
    let test = |name: &str, service: &str, settled: bool| Test {
        primary,
        canary,
        http: options(service),
        settled,
        ..Test::new(name, Targeting::Chance)
    };
    let tests = [test("judged", everything, false), test("settled", everything, true), test("regex", by_regex, false)];
    let lab = Lab::open(&tests, ("judged", &probe("judged", ""))).await;
    let entry = lab.entry();
    for (filter, hosts) in [(Some(wingbeat::FILTER), ["judged", "settled"]), (None, ["judged", "settled"])] {
        if filter.is_none() {
            lab.install(None).await;
        }
        for host in hosts {
            let mut arms = Vec::new();
            for _ in 0..EACH {
                let sent = "x-secret: 1\r\nx-more: one\r\nx-team: red\r\norigin: https://a.example\r\n";
                let answer = ask(entry, "GET", host, "/api/x?q=1", sent).await;
                let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
                for line in [
                    "get /v2/x?q=1 http/1.1",
                    "host: inside.local",
                    "x-team: blue",
                    "x-asked: /api/x?q=1",
                    "x-more: one",
                    "x-more: two",
                ] {
                    assert_eq!(body.lines().filter(|it| *it == line).count(), 1, "{line} in {answer}");
                }
                assert!(!body.contains("x-secret") && !body.contains("red"), "{answer}");
                for line in [
                    "x-kept: 2",
                    "x-served: by us, 100 %",
                    "access-control-allow-origin: https://a.example",
                    "access-control-expose-headers: x-served",
                ] {
                    assert_eq!(head.lines().filter(|it| *it == line).count(), 1, "{line} in {answer}");
                }
                assert!(!head.contains("x-powered-by"), "{answer}");
                arms.extend(body.lines().next().map(str::to_owned));
            }
            arms.sort_unstable();
            arms.dedup();
            let both = if host == "judged" { vec!["canary", "primary"] } else { vec!["primary"] };
            assert_eq!(arms, both, "{host}");
            assert!(ask(entry, "GET", host, "/old", "").await.contains("\nget /v2/ http/1.1"));
            let other = ask(entry, "GET", host, "/elsewhere", "origin: https://evil.example\r\n").await;
            assert!(other.contains("\nget /elsewhere http/1.1") && other.contains("host: inside.local"), "{other}");
            assert!(!other.contains("access-control"), "{other}");
            let asks = "origin: https://z.b.example\r\naccess-control-request-method: PUT\r\n";
            let before = ask(entry, "OPTIONS", host, "/api/x", asks).await;
            for line in [
                "access-control-allow-origin: https://z.b.example",
                "access-control-allow-methods: get,put",
                "access-control-allow-headers: x-team",
                "access-control-allow-credentials: true",
                "access-control-max-age: 600",
            ] {
                assert!(before.lines().any(|it| it == line), "{line} in {before}");
            }
            assert!(!before.contains("options /"), "no upstream has seen it: {before}");
        }
    }
    assert!(ask(entry, "GET", "regex", "/user/7/cart?x", "").await.contains("\nget /cart/of/7?x http/1.1"));
    assert!(ask(entry, "GET", "regex", "/7/cart", "").await.contains("\nget /7/cart http/1.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_what_browsers_ask_beforehand_is_not_counted() {
    let (primary, canary) = (Some(echo("primary").await), Some(echo("canary").await));
    let http = options("corsPolicy: {allowOrigin: ['*'], allowMethods: [GET]}");
    let test = Test { primary, canary, http, ..Test::new("pages", Targeting::Chance) };
    let lab = Lab::open(&[test], ("pages", &probe("pages", ""))).await;
    let before = counted(&lab, "pages").await;
    for _ in 0..EACH {
        let asks = "origin: https://a.example\r\naccess-control-request-method: GET\r\n";
        let answer = ask(lab.entry(), "OPTIONS", "pages", "/", asks).await;
        assert!(answer.starts_with("http/1.1 200") && answer.contains("access-control-allow-origin"), "{answer}");
    }
    assert_eq!(counted(&lab, "pages").await, before + EACH, "but for those that tell how far the counts are");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_health_checks_are_served_and_not_counted() {
    let (primary, canary) = (Some(echo("primary").await), Some(echo("canary").await));
    let tester = EntryInput {
        headers: [("x-tester".to_owned(), StringMatch { exact: Some("1".to_owned()), ..StringMatch::default() })]
            .into(),
        ..EntryInput::default()
    };
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[tester]).expect("a rule") };
    let mut counting = options("port: 1");
    counting.health_checks.user_agents.clear();
    counting.health_checks.paths = vec!["/ping".to_owned()];
    let test = |name: &str, audience: Targeting| Test { primary, canary, ..Test::new(name, audience) };
    let tests = [
        test("chance", Targeting::Chance),
        test("users", Targeting::Users(Identity::Header("x-user".to_owned()))),
        test("rules", Targeting::Rules { rules, holdback: BasisPoints::ZERO }),
        Test { http: counting, ..test("own", Targeting::Chance) },
    ];
    let lab = Lab::open(&tests, ("rules", &probe("rules", "x-tester: 1\r\n"))).await;
    let entry = lab.entry();
    let checks = [("/", "user-agent: kube-probe/1.33\r\n"), ("/", "user-agent: Envoy/HC\r\n"), ("/healthz?full", "")];
    for host in ["chance", "users", "rules"] {
        let before = counted(&lab, host).await;
        let mut arms = Vec::new();
        for _ in 0..EACH {
            for (path, headers) in checks {
                let answer = ask(entry, "GET", host, path, &format!("x-tester: 1\r\nx-user: 7\r\n{headers}")).await;
                assert!(answer.starts_with("http/1.1 200"), "{answer}");
                arms.extend(answer.split("\r\n\r\n").nth(1).and_then(|body| body.lines().next()).map(str::to_owned));
            }
        }
        arms.sort_unstable();
        arms.dedup();
        let served_by = if host == "rules" { vec!["primary"] } else { vec!["canary", "primary"] };
        assert_eq!(arms, served_by, "{host}: chance decides, or whoever serves");
        assert_eq!(counted(&lab, host).await, before + EACH, "{host}: but for those that tell how far the counts are");
        // What only looks like one counts.
        for (path, headers) in [("/healthzone", ""), ("/", "user-agent: a kube-probe/1\r\n"), ("/ping", "")] {
            ask(entry, "GET", host, path, headers).await;
        }
        assert_eq!(counted(&lab, host).await, before + 2 * EACH + 3, "{host}");
    }
    let before = counted(&lab, "own").await;
    for (path, headers) in [("/ping", ""), ("/healthz", ""), ("/", "user-agent: kube-probe/1\r\n")] {
        ask(entry, "GET", "own", path, headers).await;
    }
    assert_eq!(counted(&lab, "own").await, before + EACH + 2, "all but /ping");
}
