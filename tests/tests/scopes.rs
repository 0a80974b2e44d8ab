//! Envoys that listeners are for, and others: each is served, told and heard on its own canaries alone.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::{ANYONE, AUDIENCE};
use wingbeat_e2e::control::free;
use wingbeat_e2e::fleet::Fleet;
use wingbeat_e2e::{PATIENCE, config, send};
use wingbeat_proto::v1::{Policy, ReportRequest};
use wingbeat_xds_server::server::Peer;

/// A share by chance, of which each step takes long: what ends is a rollback.
const WEIGHTED: &str = "interval: 1m, stepWeight: 20, maxWeight: 60";
/// An A/B test that goes on for long.
const BY_RULES: &str = "interval: 1s, iterations: 600, match: [{headers: {cookie: {exact: type=insider}}}]";

/// Applies a canary with two revisions on some of the listeners.
fn apply(fleet: &Fleet, name: &str, wanted: &str, services: &[Service; 2], analysis: &str, listeners: &str) {
    let revisions = [("1", &services[0]), ("2", &services[1])];
    let revisions = BTreeMap::from(revisions.map(|(revision, service)| (revision.to_owned(), service.address())));
    let text = fleet.document(name, wanted, &revisions, analysis, "");
    let everywhere = "listeners: [edge-1, edge-2]";
    assert!(text.contains(everywhere), "{text}");
    fleet.apply(name, text.replace(everywhere, &format!("listeners: [{listeners}]"))).expect("it is managed");
}

/// Returns what a filter of this node would be told.
async fn policy(fleet: &Fleet, node_cluster: &str) -> Policy {
    let request = ReportRequest {
        node_id: format!("probe-{node_cluster}"),
        node_cluster: node_cluster.to_owned(),
        boot_id: 1,
        worker_id: 1,
        sequence: 1,
        automaton_format: AUTOMATON_FORMAT,
        ..ReportRequest::default()
    };
    let peer = Peer::Uncertified(IpAddr::V4(Ipv4Addr::LOCALHOST));
    fleet.handle().report(peer, request).await.expect("it is taken").policy.expect("it has none")
}

async fn dump(fleet: &Fleet, edge: usize) -> String {
    config(fleet.envoy(edge).expect("it is there"), "?include_eds").await
}

/// Sends requests on one connection until Envoy ends it. Returns the statuses of the answers.
async fn ask_until_the_end(entry: SocketAddr) -> std::io::Result<Vec<u16>> {
    let mut connection = BufReader::new(TcpStream::connect(entry).await?);
    let mut statuses = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    loop {
        pace.tick().await;
        // What is sent on a connection that has ended meanwhile is sent to nobody.
        let _ended = connection.write_all(b"GET / HTTP/1.1\r\nhost: pay.local\r\n\r\n").await;
        let (mut length, mut first) = (0, String::new());
        if connection.read_line(&mut first).await.unwrap_or_default() == 0 {
            return Ok(statuses);
        }
        statuses.push(first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default());
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).await?;
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().unwrap_or_default();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        connection.read_exact(&mut vec![0; length]).await?;
    }
}

/// Waits until what an Envoy holds is as wanted.
async fn holds(fleet: &Fleet, edge: usize, what: &str, wanted: impl Fn(&str) -> bool) {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let held = async {
        while !wanted(&dump(fleet, edge).await) {
            poll.tick().await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    assert!(held.is_ok(), "edge {edge}: {what}: {}", dump(fleet, edge).await);
}

/// Two Envoys of different `node.cluster`, a canary behind each. The second one's listener `spare` moves to the first one
/// and back in mid-rollout, under requests.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_each_has_what_its_listeners_lead_to_and_nothing_else() {
    let mut fleet = Fleet::start(2).await.expect("a fleet");
    let entries = [0, 1].map(|edge| fleet.entry(edge).expect("it has a place"));
    let spare = free().await;
    let listen = |fleet: &Fleet, node: &str| {
        let listeners =
            [("edge-1", entries[0], &["edge-1"][..]), ("edge-2", entries[1], &["edge-2"]), ("spare", spare, &[node])];
        fleet.listen(&listeners).expect("they are managed");
    };
    listen(&fleet, "edge-2");
    let start = async |name| Service::start(name, 1, Behaviour::default()).await.expect("a service");
    let shop = [start("1").await, start("2").await];
    let pay = [start("1").await, start("2").await];
    let canaries = |fleet: &Fleet, wanted: &str| {
        apply(fleet, "shop", wanted, &shop, WEIGHTED, "edge-1");
        apply(fleet, "pay", wanted, &pay, BY_RULES, "edge-2, spare");
    };
    canaries(&fleet, "1");
    for name in ["shop", "pay"] {
        fleet.shows(name, PATIENCE, |view| view.phase == "Initialized").await.expect("it serves");
    }
    for edge in [0, 1] {
        fleet.join(edge).await.expect("Envoy starts");
    }
    let users = [fleet.users(0, "shop", 200, None, ANYONE), fleet.users(1, "pay", 200, None, AUDIENCE)];
    canaries(&fleet, "2");
    for name in ["shop", "pay"] {
        let shown = fleet.shows(name, PATIENCE, |view| {
            let is_judged = view.verdict.as_ref().is_some_and(|verdict| verdict.kind != "no-data");
            view.weight > 0.0 && is_judged && view.measured().canary.requests > 0
        });
        assert!(shown.await.is_some(), "{name} is judged: {:?}", fleet.view(name));
    }

    // Neither Envoy nor its filter has anything of the other canary.
    let dumps = [dump(&fleet, 0).await, dump(&fleet, 1).await];
    let token = {
        let (_, header) = dumps[1].split_once("x-wingbeat-arm").expect("an A/B test goes by the arm header");
        let (_, exact) = header.split_once("\"exact\": \"").expect("its value");
        exact.split('"').next().expect("its end").to_owned()
    };
    assert!(token.len() >= 16, "{token}");
    let policies = [policy(&fleet, "edge-1").await, policy(&fleet, "edge-2").await];
    for (edge, own, other) in [(0, "prod/shop", "prod/pay"), (1, "prod/pay", "prod/shop")] {
        assert!(dumps[edge].contains(own) && !dumps[edge].contains(other), "edge {edge}: {}", dumps[edge]);
        let told = format!("{:?}", policies[edge]);
        assert!(told.contains(own) && !told.contains(other), "edge {edge}: {told}");
    }
    assert!(!dumps[0].contains(&token) && !format!("{:?}", policies[0]).contains(&token));
    assert!(format!("{:?}", policies[1]).contains(&token), "{:?}", policies[1]);

    // A listener moves to the first Envoy and back, and nobody of those that use the others notices.
    let request = b"GET / HTTP/1.1\r\nhost: pay.local\r\nconnection: close\r\n\r\n";
    for _ in 0..2 {
        listen(&fleet, "edge-1");
        holds(&fleet, 0, "it gains the listener", |dump| dump.contains("prod/pay/1") && dump.contains("\"spare\""))
            .await;
        holds(&fleet, 1, "it loses the listener", |dump| !dump.contains("\"spare\"")).await;
        let served = async { while send(spare, request).await.status != Some(200) {} };
        tokio::time::timeout(PATIENCE, served).await.expect("the listener serves where it is now");
        let kept = tokio::spawn(ask_until_the_end(spare));
        listen(&fleet, "edge-2");
        let statuses = kept.await.expect("it ends").expect("Envoy answers");
        assert!(statuses.len() > 1 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
        holds(&fleet, 0, "it loses what it led to", |dump| !dump.contains("prod/pay/1")).await;
        holds(&fleet, 1, "it has it back", |dump| dump.contains("\"spare\"")).await;
    }

    // One breaks, and leaves; the other goes on.
    let mut lost = Vec::new();
    for users in &users {
        lost.push(users.tally().failed.len());
    }
    assert_eq!(lost, [0, 0]);
    shop[1].behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
    let failed = fleet.shows("shop", PATIENCE, |view| view.phase == "Failed").await;
    assert!(failed.is_some(), "it is rolled back: {:?}", fleet.view("shop"));
    let view = fleet.view("pay").expect("it is shown");
    assert_eq!((view.phase.as_str(), view.weight > 0.0), ("Progressing", true), "{view:?}");
    let [of_shop, of_pay] = users;
    let (shop, pay) = (of_shop.stop(PATIENCE).await, of_pay.stop(PATIENCE).await);
    assert!(shop.failed.iter().all(|revision| revision.as_deref() == Some("2")), "{:?}", shop.failed);
    assert_eq!((pay.failed.len(), pay.finished), (0, pay.sent));
    assert!(pay.sent > 100 && shop.sent > 100);
    assert_eq!(fleet.refusals(), 0);
}
