//! What the filter counts in each released Envoy: streams, bodies, waits for connections, start cohorts.
#![expect(clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rcgen::generate_simple_self_signed;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use wingbeat_core::counts::Counts;
use wingbeat_core::histogram::{BINS, bin_of};
use wingbeat_core::id::Rev;
use wingbeat_core::outcome::Outcome;
use wingbeat_e2e::control::free;
use wingbeat_e2e::rig::{CANARY, PRIMARY, REV, Rig, Upstreams, VERSIONS, listener, policy, router};
use wingbeat_e2e::{PATIENCE, reached, send};

/// Requests in flight are old after this time: long for an ordinary one, even on a busy machine.
const OLD_MS: u32 = 1_000;
/// How long a long request lasts.
const LONG: Duration = Duration::from_millis(3_200);
/// Time between two events of a stream.
const EVENT: Duration = Duration::from_millis(250);
/// How often each kind of request is sent.
const EACH: u64 = 6;
/// How late a TLS server answers when a connection begins.
const HANDSHAKE: Duration = Duration::from_millis(400);

/// An upstream that does to each request what its path says.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection));
        }
    });
    address
}

async fn serve(mut connection: TcpStream) {
    let mut held = Vec::new();
    loop {
        while !held.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut more = [0; 4_096];
            match connection.read(&mut more).await {
                Ok(read @ 1..) => held.extend_from_slice(more.get(..read).unwrap_or_default()),
                Ok(0) | Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&held).into_owned();
        if head.contains(" /upload ") && !head.ends_with('!') {
            let mut more = [0; 4_096];
            match connection.read(&mut more).await {
                Ok(read @ 1..) => held.extend_from_slice(more.get(..read).unwrap_or_default()),
                Ok(0) | Err(_) => return,
            }
            continue;
        }
        held.clear();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let chunked = "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n";
        let (answer, then) = match path {
            "/ok" | "/upload" => ("HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nok".to_owned(), None),
            "/empty" => ("HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n".to_owned(), None),
            "/chunked" => (format!("{chunked}\r\n0\r\n\r\n"), None),
            "/nothing" => ("HTTP/1.1 204 x\r\n\r\n".to_owned(), None),
            "/broken" => ("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n".to_owned(), None),
            "/events" => {
                (format!("{chunked}content-type: text/event-stream; charset=utf-8\r\n\r\n"), Some("0\r\n\r\n"))
            }
            "/slow" => (format!("{chunked}content-type: text/plain\r\n\r\n"), Some("0\r\n\r\n")),
            "/socket" => ("HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_owned(), Some("")),
            // The response begins, and stops.
            "/stall" => {
                let begun = "HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nten bytes.";
                let _gone = connection.write_all(begun.as_bytes()).await;
                tokio::time::sleep(LONG).await;
                return;
            }
            // The request was taken, and then nothing.
            "/hang" => (String::new(), Some("")),
            _ => return,
        };
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if let Some(end) = then {
            let mut events = tokio::time::interval(EVENT);
            let lasts = async {
                loop {
                    events.tick().await;
                    if !answer.is_empty() && connection.write_all(b"8\r\ndata: x\n\r\n").await.is_err() {
                        return;
                    }
                }
            };
            let _over = tokio::time::timeout(LONG, lasts).await;
            let _gone = connection.write_all(end.as_bytes()).await;
            return;
        }
    }
}

fn request(method: &str, host: &str, path: &str) -> Vec<u8> {
    let upgrade = if path == "/socket" { "upgrade: websocket\r\nconnection: upgrade" } else { "connection: close" };
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{upgrade}\r\n\r\n").into_bytes()
}

async fn plain() -> Upstreams {
    Upstreams { primary: upstream().await, canary: upstream().await, tls: false, listeners: Vec::new() }
}

fn sum(counts: &Counts) -> u64 {
    Outcome::ALL.into_iter().map(|outcome| counts.outcome(outcome)).sum()
}

/// Sends a request whose body takes as long as `LONG`.
async fn upload(entry: SocketAddr) {
    const PARTS: usize = 32;
    let mut connection = TcpStream::connect(entry).await.expect("Envoy accepts");
    connection.set_nodelay(true).expect("an option of TCP");
    let head = format!("POST /upload HTTP/1.1\r\nhost: canary\r\nconnection: close\r\ncontent-length: {PARTS}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.expect("Envoy reads");
    let mut pause = tokio::time::interval(LONG / 32);
    for part in 1..=PARTS {
        pause.tick().await;
        let byte: &[u8] = if part == PARTS { b"!" } else { b"." };
        connection.write_all(byte).await.expect("Envoy reads");
    }
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A response that begins and stops is seen while it stands; a client that takes long to send its request is no hang.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_stalls_are_seen_and_slow_uploads_are_no_hangs() {
    for version in VERSIONS {
        let upstreams = plain().await;
        let rig = Rig::start(version, &upstreams, policy(OLD_MS)).await;
        let entry = rig.entry();
        let stalls = join_all((0..EACH).map(|_| async move { send(entry, &request("GET", "canary", "/stall")).await }));
        let uploads = join_all((0..EACH).map(|_| upload(entry)));
        let seen = reached(|| (rig.counts(CANARY).stalled, rig.counts(CANARY).finished) == (EACH, 0));
        tokio::join!(stalls, uploads, seen);
        reached(|| rig.counts(CANARY).finished == 2 * EACH).await;
        let counts = rig.counts(CANARY);
        println!("{version}: {} stalled, {:?}, {} us", counts.stalled, counts.outcomes, counts.latency_sum_us);
        assert_eq!(counts.check(), Ok(()));
        assert_eq!((counts.outcome(Outcome::Success), counts.outcome(Outcome::Truncated)), (EACH, EACH), "{version}");
        assert_eq!((counts.overdue, counts.stalled, counts.stalled_settled), (0, EACH, EACH), "{version}");
        assert_eq!(counts.judged_and_stalled(), 2 * EACH, "{version}");
        // What the uploads took is no latency: that of the stalls alone is as long.
        let long = bin_of(u64::try_from((LONG / 2).as_micros()).unwrap_or(u64::MAX));
        assert_eq!(counts.latency.count_from(long), EACH, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_streams_are_told_from_hangs() {
    for version in VERSIONS {
        let upstreams = plain().await;
        let rig = Rig::start(version, &upstreams, policy(OLD_MS)).await;
        let paths = ["/events", "/socket", "/slow", "/hang", "/ok"];
        let all = EACH * 5;
        let requests = paths.iter().flat_map(|path| (0..EACH).map(move |_| request("GET", "canary", path)));
        let users = requests.map(|request| {
            let entry = rig.entry();
            tokio::spawn(async move { send(entry, &request).await })
        });
        let users: Vec<_> = users.collect();
        // While they run: what hangs is overdue, and nothing else is.
        reached(|| {
            let counts = rig.counts(CANARY);
            (counts.started, counts.overdue, counts.streams, counts.finished) == (all, EACH, EACH, EACH)
        })
        .await;
        join_all(users).await;
        reached(|| rig.counts(CANARY).finished == all).await;
        let counts = rig.counts(CANARY);
        println!("{version}: {} overdue, {} streams, {:?}", counts.overdue, counts.streams, counts.outcomes);
        assert_eq!(counts.check(), Ok(()));
        assert_eq!((counts.started, sum(&counts)), (all, all), "{version}: every request is in one class");
        assert_eq!((counts.streams, counts.streams_finished), (2 * EACH, 2 * EACH), "{version}");
        assert_eq!((counts.overdue, counts.overdue_finished, counts.overdue_errors), (EACH, EACH, EACH), "{version}");
        assert_eq!(
            (counts.outcome(Outcome::Success), counts.outcome(Outcome::Reset)),
            (4 * EACH, EACH),
            "{version}: WebSockets that the upstream closed among them"
        );
        // The slow bodies and the hangs, which are no streams, and the ordinary ones.
        assert_eq!(
            (counts.latency.count(), counts.latency.count_from(bin_of(3_000_000))),
            (3 * EACH, 2 * EACH),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_bodies_that_are_missing_are_seen() {
    for version in VERSIONS {
        let upstreams = plain().await;
        let rig = Rig::start(version, &upstreams, policy(OLD_MS)).await;
        let kinds = [
            ("GET", "/ok"),
            ("GET", "/empty"),
            ("GET", "/chunked"),
            ("GET", "/nothing"),
            ("HEAD", "/ok"),
            ("GET", "/broken"),
        ];
        for (method, path) in kinds {
            for _ in 0..EACH {
                send(rig.entry(), &request(method, "canary", path)).await;
            }
        }
        for _ in 0..EACH * 32 {
            send(rig.entry(), &request("GET", "primary", "/empty")).await;
        }
        reached(|| rig.counts(CANARY).finished == EACH * 6 && rig.counts(PRIMARY).finished == EACH * 32).await;
        let (primary, canary) = (rig.counts(PRIMARY), rig.counts(CANARY));
        println!("{version}: canary {}/{}, primary {}/{}", canary.empty, canary.sized, primary.empty, primary.sized);
        assert_eq!((canary.sized, canary.empty, sum(&canary)), (EACH * 5, EACH * 4, EACH * 6), "{version}");
        // One in 16 of each of two workers, which also count the canary's.
        assert!(primary.sized.abs_diff(EACH * 2) <= 2 && primary.empty == primary.sized, "{version}: {primary:?}");
        let pods: Vec<_> = canary.pods.values().map(|pod| (pod.finished, pod.errors)).collect();
        assert_eq!(pods, [(EACH * 6, EACH)], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_all_errors_tell_their_pod() {
    for version in VERSIONS {
        let upstreams = plain().await;
        let rig = Rig::start(version, &upstreams, policy(OLD_MS)).await;
        for _ in 0..EACH {
            send(rig.entry(), &request("GET", "primary", "/broken")).await;
            send(rig.entry(), &request("GET", "primary", "/ok")).await;
        }
        reached(|| rig.counts(PRIMARY).finished == EACH * 2).await;
        let pods = rig.counts(PRIMARY).pods;
        let pod = pods.get(&upstreams.primary.to_string()).copied().unwrap_or_default();
        assert_eq!((pods.len(), pod.errors), (1, EACH), "{version}");
        assert!(pod.finished <= 1, "{version}: one in 16 of two workers: {pod:?}");
    }
}

/// Passes connections on, each late, and counts them.
async fn late(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::<AtomicU64>::default();
    let counter = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                tokio::time::sleep(HANDSHAKE).await;
                let mut server = TcpStream::connect(to).await.expect("it listens");
                // Nothing but the beginning is late.
                for side in [&connection, &server] {
                    side.set_nodelay(true).expect("an option of TCP");
                }
                let _ended = copy_bidirectional(&mut connection, &mut server).await;
            });
        }
    });
    (address, connections)
}

/// Both arms answer at once, and need long for a handshake; only the canary's waits are read.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_waiting_for_a_connection_is_no_latency() {
    let certified = generate_simple_self_signed(["backend.local".to_owned()]).expect("a certificate");
    let context = json!({"common_tls_context": {"tls_certificates": [{
        "certificate_chain": {"inline_string": certified.cert.pem()},
        "private_key": {"inline_string": certified.signing_key.serialize_pem()},
    }]}, "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"});
    let chain = json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}});
    let answer = json!({"name": "all", "domains": ["*"], "routes": [{
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
    }]});
    for version in VERSIONS {
        let secure = free().await;
        let ((primary, primary_connections), (canary, canary_connections)) = (late(secure).await, late(secure).await);
        let server = listener("secure", secure, &chain, &[router()], std::slice::from_ref(&answer));
        let upstreams = Upstreams { primary, canary, tls: true, listeners: vec![server] };
        let mut policy = policy(0);
        for cluster in policy.clusters.iter_mut().filter(|cluster| cluster.cluster == CANARY) {
            cluster.slow_us = 5_000;
        }
        let rig = Rig::start(version, &upstreams, policy).await;
        for host in ["primary", "canary"] {
            // Some on warm connections too.
            for _ in 0..EACH * 4 {
                assert_eq!(send(rig.entry(), &request("GET", host, "/ok")).await.status, Some(200), "{version}");
            }
        }
        reached(|| rig.counts(CANARY).finished + rig.counts(PRIMARY).finished == EACH * 8).await;
        let (primary, canary) = (rig.counts(PRIMARY), rig.counts(CANARY));
        let at_least = |counts: &Counts, wait: Duration| {
            counts.latency.count_from(bin_of(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
        };
        println!(
            "{version}: primary {:?}, canary {:?}, connections {primary_connections:?} and {canary_connections:?}",
            primary.latency.quantile(1.0),
            canary.latency.quantile(1.0)
        );
        let cold = primary_connections.load(Ordering::Relaxed);
        assert!((1..=EACH).contains(&cold), "{version}: some were on new connections, most were not: {cold}");
        assert_eq!(at_least(&primary, HANDSHAKE), cold, "{version}: unread, the wait is latency");
        assert!(canary_connections.load(Ordering::Relaxed) > 0);
        assert_eq!((canary.latency.count(), at_least(&canary, HANDSHAKE / 4)), (EACH * 4, 0), "{version}");
        assert!(canary.latency_sum_us < primary.latency_sum_us / 4, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_cohorts_hold_each_request_once() {
    for version in VERSIONS {
        // Longer than any cohort of the other worker stays open: it has told its own when old requests are told.
        let mut policy = policy(2 * OLD_MS);
        policy.cohorts = true;
        let upstreams = plain().await;
        let rig = Rig::start(version, &upstreams, policy).await;
        let entry = rig.entry();
        let users = |path: &'static str, count: u64| {
            join_all((0..count).map(move |_| async move { send(entry, &request("GET", "canary", path)).await }))
        };
        let cohorts = || rig.counts(CANARY).cohorts;
        // From when both workers told a cohort, every request is in one.
        let known = async {
            while rig.telling_cohorts() < 2 {
                users("/ok", 1).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("cohorts are told");
        users("/broken", EACH).await;
        tokio::join!(users("/hang", EACH), users("/slow", EACH), users("/socket", EACH), users("/ok", EACH));
        // Cohorts are told in their order: when those of the old requests are, all before are too.
        reached(|| cohorts().overdue + cohorts().latency.get(BINS - 1) == 2 * EACH).await;
        let before = cohorts();
        assert_eq!((before.errors, before.latency.count()), (EACH, before.finished), "{version}");
        assert_eq!(rig.counts(CANARY).streams, EACH, "{version}");
        users("/ok", EACH).await;
        users("/broken", 1).await;
        reached(|| cohorts().finished > before.finished + EACH).await;
        let after = cohorts();
        println!(
            "{version}: {} finished, {} of them errors, {} overdue, of {} requests",
            after.finished,
            after.errors,
            after.overdue,
            rig.counts(CANARY).finished
        );
        assert_eq!((after.rev, after.finished), (Rev::new(REV), before.finished + EACH + 1), "{version}");
        assert_eq!((after.errors, after.overdue), (EACH + 1, EACH), "{version}");
        assert_eq!(after.latency.count(), after.finished, "{version}");
        assert_eq!(rig.counts(CANARY).check(), Ok(()));
    }
}
