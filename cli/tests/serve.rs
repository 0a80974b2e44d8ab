//! `wingbeat serve` with a real Envoy: a rollout from a file, and a control plane that is killed again and again.
#![expect(clippy::expect_used, reason = "tests")]

use std::cell::Cell;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use wingbeat_demo::clock::now;
use wingbeat_demo::service::Behaviour;
use wingbeat_test_support::server::{Server, until};
use wingbeat_xds_server::bootstrap::Bootstrap;

use crate::site::{Site, serve, serve_with};

mod site;

/// 5 steps of a tenth.
const STEP: u64 = 10;
const ANALYSIS: &str = "interval: 300ms, stepWeight: 10, maxWeight: 50, judge: {mode: guard}";

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_serve_rolls_out_what_the_file_asks_for() {
    let site = Site::build(ANALYSIS).await;
    let server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let _envoy = site.envoy(server.xds).await;
    let users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    // A broken file changes nothing.
    let file = site.path().join("canary.yaml");
    std::fs::write(&file, "kind: [").expect("the file is written");
    site.write("2");
    until("a rollout begins", || server.phase() == "Progressing").await;
    assert_eq!(server.client(&["pause", "prod/backend"]).0, Some(0));
    assert!(server.client(&["describe", "prod/backend"]).1.contains("Paused"));
    let (code, said) = server.client(&["pause", "prod/backend"]);
    assert!(code == Some(1) && said.contains("only a rollout in progress can be paused"), "{said}");
    assert_eq!(server.client(&["resume", "prod/backend"]).0, Some(0));
    until("the rollout ends", || server.phase() == "Succeeded").await;
    let (_, events) = server.client(&["events", "prod/backend"]);
    for text in [
        "New revision detected! Scaling up backend.prod",
        "Advance backend.prod canary weight 50",
        "Promotion completed! Scaling down backend.prod",
    ] {
        assert!(events.contains(text), "{text} is missing in:\n{events}");
    }
    for (path, holds) in [("/", "<title>Wingbeat</title>"), ("/readyz", "OK"), ("/metrics", "flagger_canary_status")] {
        let body = reqwest::get(format!("http://{}{path}", server.http)).await.expect("an answer").text().await;
        assert!(body.expect("a text").contains(holds), "{path}");
    }
    let (_, listed) = server.client(&["get", "-A"]);
    assert!(listed.starts_with("NAMESPACE   NAME      STATUS      WEIGHT   LASTTRANSITIONTIME\n"), "{listed}");
    // The next revision fails everything, and is taken back.
    site.write("1");
    until("the old revision comes again", || server.phase() == "Progressing").await;
    site.old.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
    until("it is rolled back", || server.phase() == "Failed").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert!(tally.failed.iter().all(|revision| revision.as_deref() == Some("1")), "only the broken revision failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_killed_control_plane_goes_on_where_it_was() {
    const KILLS: u64 = 20;
    let (seed, mut random) = random();
    println!("SEED={seed}");
    let site = Site::build(ANALYSIS).await;
    let mut server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let xds = server.xds;
    let _envoy = site.envoy(server.xds).await;
    let users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    let mut asked = "1";
    let mut seen = Vec::new();
    let mut caught = 0;
    for kill in 0..KILLS {
        if server.phase() != "Progressing" {
            asked = if asked == "1" { "2" } else { "1" };
            site.write(asked);
            until("a rollout begins", || server.phase() == "Progressing").await;
        }
        // A restarted one first listens to what proxies show. Every second kill is after that, with a rollout on its way
        // again: without these, kills in quick succession would let nothing move, and show nothing.
        if kill % 2 == 1 {
            let from = weight(&server);
            until("the rollout goes on", || server.phase() != "Progressing" || weight(&server) > from).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(20..720))).await;
        note(&server, &mut seen);
        caught += u64::from(server.phase() == "Progressing");
        drop(server);
        // While it is dead, users are served by the last routes.
        let before = users.tally();
        until("users are served without a control plane", || users.tally().finished > before.finished + 20).await;
        server = serve(&site.path(), xds);
        note(&server, &mut seen);
    }
    until("the rollout ends", || server.phase() == "Succeeded").await;
    println!(
        "{KILLS} kills at random moments (seed {seed}), {caught} of them in mid-rollout; rev and weight as seen: {seen:?}"
    );
    assert!(caught >= KILLS / 2, "{caught} kills in mid-rollout");
    // A rev has one weight, whoever serves it, and the weights are the plan's.
    assert!(seen.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0 || a == b)), "{seen:?}");
    assert!(seen.iter().all(|(_, weight)| weight % STEP == 0 && *weight <= 50), "{seen:?}");
    assert!(seen.iter().any(|(_, weight)| *weight > STEP), "some rollout went on after a kill: {seen:?}");
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed.len(), 0, "nobody lost a request");
}

/// An abort that is served and cannot be written down, because the disk is full; then the control plane is killed. The
/// next one finds the abort in what the proxies serve: nobody's request reaches the canary again.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_an_abort_that_was_served_is_not_taken_back_by_a_kill() {
    const ROUNDS: u64 = 3;
    let (seed, mut random) = random();
    println!("SEED={seed}");
    let site = Site::build(ANALYSIS).await;
    let mut server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let xds = server.xds;
    let _envoy = site.envoy(xds).await;
    let users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    site.write("2");
    for round in 1..=ROUNDS {
        until("a rollout is on", || weight(&server) >= STEP).await;
        server.fill_disk(true);
        site.new.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
        until("it is rolled back", || server.phase() == "Failed").await;
        until("it is told that this is not stored", || server.condition("Stored").is_some()).await;
        let more_users = async |more: u64| {
            let before = users.tally().finished;
            until("users are served", || users.tally().finished >= before + more).await;
        };
        // What was on its way has arrived once a hundred users in a row were served by others: on a busy machine, the routes
        // take some time to be in force.
        let last = Cell::new((0, 0));
        until("nobody is sent there any more", || {
            let (received, finished) = (site.new.received_since_change(), users.tally().finished);
            if received != last.get().0 {
                last.set((received, finished));
            }
            finished >= last.get().1 + 100
        })
        .await;
        let (reached_it, _) = last.get();
        more_users(random.random_range(1..300)).await;
        let killed = now();
        drop(server);
        // While nobody is there, the last routes are served.
        more_users(random.random_range(100..300)).await;
        let started = now();
        server = serve(&site.path(), xds);
        until("the abort is found", || server.phase() == "Failed").await;
        let found = now();
        more_users(300).await;
        // Whose fault it would be: a proxy's that was slow, or that of the control plane which took the abort back.
        let last = site.new.last_request().map(|last| (last > killed, last > started, last > found));
        assert_eq!(
            site.new.received_since_change(),
            reached_it,
            "round {round}, seed {seed}: the canary came back (after the kill, the start, the find: {last:?})"
        );
        let (_, events) = server.client(&["events", "prod/backend"]);
        let told = "Rolling back backend.prod an abort was served before it could be stored";
        assert!(events.contains(told), "round {round}, seed {seed}: {events}");
        assert_eq!(server.condition("Stored"), None);
        site.new.behave(Behaviour::default());
        assert_eq!(server.client(&["retry", "prod/backend"]).0, Some(0));
    }
    let tally = users.stop(Duration::from_secs(5)).await;
    assert!(tally.failed.iter().all(|revision| revision.as_deref() == Some("2")), "only the broken revision failed");
    println!("{ROUNDS} kills between serving an abort and writing it down (seed {seed}): adopted each time");
}

/// The state folder is lost while an Envoy gives a tenth to a revision that fails everything, and which the file names: the
/// Envoy keeps its routes to the last byte until somebody approves what the file says.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_lost_state_takes_nothing_over_that_proxies_show() {
    for delta in [false, true] {
        let site = Site::build("interval: 2s, stepWeight: 10, maxWeight: 50, judge: {mode: guard}").await;
        let server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
        let xds = server.xds;
        let envoy = site.envoy_by(&Bootstrap { delta, ..Site::bootstrap(xds) }).await;
        let admin = envoy.admin().expect("it has an administration interface");
        let routes = async || {
            let dump = reqwest::get(format!("http://{admin}/config_dump?resource=dynamic_route_configs")).await;
            dump.expect("Envoy answers").text().await.expect("a text")
        };
        let users = site.users();
        until("the first revision serves", || server.phase() == "Initialized").await;
        site.write("2");
        until("a tenth goes to the second", || weight(&server) >= STEP && site.new.received_since_change() > 0).await;
        drop(server);
        std::fs::remove_dir_all(site.path().join("state")).expect("the state is there");
        site.new.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
        let held = routes().await;
        assert!(held.contains("prod/backend/1") && held.contains("prod/backend/2"), "{held}");
        let mut server = serve(&site.path(), xds);
        for again in [false, true] {
            if again {
                drop(server);
                server = serve(&site.path(), xds);
            }
            until("it is told", || server.condition("Adopted").is_some()).await;
            let told = server.condition("Adopted").expect("it is shown");
            assert!(told.contains("`wingbeat approve prod/backend` makes revision 2 the primary"), "{told}");
            let before = users.tally().finished;
            until("users are served", || users.tally().finished >= before + 600).await;
            assert_eq!(routes().await, held, "delta: {delta}");
        }
        let tally = users.tally();
        let (failed, all) = (tally.failed.len(), tally.finished);
        assert!(u64::try_from(failed).expect("a number") * 5 < all, "{failed} of {all}");
        let (code, said) = server.client(&["approve", "prod/backend"]);
        assert_eq!(code, Some(0), "{said}");
        let arrived = async { while routes().await.contains("prod/backend/1") {} };
        tokio::time::timeout(Duration::from_mins(1), arrived).await.expect("what was approved is served");
        assert_eq!(server.condition("Adopted"), None);
        let tally = users.stop(Duration::from_secs(5)).await;
        assert!(
            tally.failed.iter().all(|revision| revision.as_deref() == Some("2")),
            "only the broken revision failed"
        );
    }
}

/// Returns numbers that are different in each run, with the seed that repeats them as `SEED`.
fn random() -> (u64, StdRng) {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    (seed, StdRng::seed_from_u64(seed))
}

/// Returns the canary's weight in a rollout, in percent.
fn weight(server: &Server) -> u64 {
    let Some(canary) = server.canary().filter(|_| server.phase() == "Progressing") else { return 0 };
    let weight = canary.get("weight").and_then(Value::as_f64).expect("a weight");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "percent")]
    let weight = weight as u64;
    weight
}

/// Notes rev and weight, if the server answers.
fn note(server: &Server, seen: &mut Vec<(u64, u64)>) {
    let Some(canary) = server.canary() else { return };
    let rev = canary.get("rev").and_then(Value::as_u64).expect("a rev");
    let weight = canary.get("weight").and_then(Value::as_f64).expect("a weight");
    if canary.get("phase").and_then(Value::as_str) == Some("Progressing") {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "percent")]
        seen.push((rev, weight as u64));
        seen.dedup();
    }
}

/// An Envoy that is not on this machine, as far as the server can tell: both ends have an address of the network.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_reports_from_elsewhere_need_the_token() {
    // It is in the environment of every test, and so of its Envoys.
    const NAME: &str = "CARGO_PKG_NAME";
    let site = Site::build(ANALYSIS).await;
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    probe.connect("192.0.2.1:9").expect("a route: nothing is sent");
    let address = std::net::SocketAddr::new(probe.local_addr().expect("an address").ip(), 0);
    let token = std::env::var(NAME).expect("cargo sets it");
    let server = serve_with(&site.path(), address, &["--allow-plaintext", "--token", &token]);
    let shows = async |holds: &dyn Fn(&str) -> bool| {
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        let shown = async {
            loop {
                let response = reqwest::get(format!("http://{}/metrics", server.http)).await.expect("an answer");
                let metrics = response.text().await.expect("a text");
                if holds(&metrics) {
                    return metrics;
                }
                poll.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), shown).await.expect("it comes about")
    };
    let silent = site.envoy(server.xds).await;
    let none = r#"wingbeat_refused_peers_total{cause="anonymous"} 0"#;
    let metrics = shows(&|metrics| metrics.lines().all(|line| line != none)).await;
    assert!(metrics.contains("wingbeat_reports_total 0"), "none of its reports is taken: {metrics}");
    drop(silent);
    let _envoy = site.envoy_that_says(server.xds, Some(format!("Bearer %ENVIRONMENT({NAME})%"))).await;
    shows(&|metrics| !metrics.contains("wingbeat_reports_total 0")).await;
}
