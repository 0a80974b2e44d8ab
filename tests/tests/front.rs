//! Envoy as a front proxy with our configuration: what clients may send, and how upstreams are used.
#![expect(clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use wingbeat_core::id::ClusterName;
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_e2e::control::{Control, free, hosts};
use wingbeat_e2e::rig::VERSIONS;
use wingbeat_e2e::{reached, request_head, send};
use wingbeat_xds_server::bootstrap::Bootstrap;
use wingbeat_xds_server::model::http::{NewPath, PathRewrite, TextMatch};
use wingbeat_xds_server::model::{Model, Retries, Split};
use wingbeat_xds_server::render::render;

/// An upstream that keeps the heads of requests, in lower case.
#[derive(Debug, Clone, Default)]
struct Heads(Arc<Mutex<Vec<String>>>);

impl Heads {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (address, heads) = (listener.local_addr().expect("an address"), self.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(heads.clone().answer(connection));
            }
        });
        address
    }

    async fn answer(self, mut connection: TcpStream) {
        while let Some(head) = request_head(&mut connection).await {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(head.to_ascii_lowercase());
            if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn request(host: &str, headers: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// Changes a host of a model.
fn host(model: &mut Model, name: &str, change: impl Fn(&mut wingbeat_xds_server::model::VirtualHost)) {
    let named = format!("prod/{name}");
    model.hosts.iter_mut().filter(|host| host.name == named).for_each(|host| change(Arc::make_mut(host)));
}

/// Changes a cluster of a model.
fn cluster(model: &mut Model, name: &str, change: impl Fn(&mut wingbeat_xds_server::model::Cluster)) {
    let named = model.clusters.iter_mut().filter(|cluster| cluster.name.as_str() == name);
    named.for_each(|cluster| change(Arc::make_mut(cluster)));
}

/// Sends so many requests at a time, and returns how many were answered with 200.
async fn at_once(entry: SocketAddr, host: &str, requests: usize) -> usize {
    let sent = (0..requests).map(|_| {
        let request = request(host, "");
        tokio::spawn(async move { send(entry, &request).await.status })
    });
    let mut right = 0;
    for answer in sent.collect::<Vec<_>>() {
        right += usize::from(answer.await.expect("no panic") == Some(200));
    }
    right
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_of_all_versions_is_a_front_proxy() {
    let (heads, copies) = (Heads::default(), Heads::default());
    let (primary, canary) = (heads.start().await, copies.start().await);
    for version in VERSIONS {
        let (control, entry) = (Control::start(None).await, free().await);
        let mut model = hosts(entry, &[("shop", &[primary]), ("copied", &[primary]), ("canary", &[canary])]);
        let mirrored = Split::Mirror {
            primary: ClusterName::new("copied"),
            canary: ClusterName::new("canary"),
            share: BasisPoints::FULL,
        };
        host(&mut model, "copied", |host| host.split = mirrored.clone());
        // Far more than 100 instructions of RE2.
        let pattern = format!("/({}|x)", "[a-z0-9]+/?".repeat(80));
        host(&mut model, "canary", |host| {
            let path = TextMatch::Regex(pattern.clone());
            host.http.rewrites =
                vec![PathRewrite { path, ignore_case: false, to: NewPath::Replaced("/v2".to_owned()) }];
        });
        control.store().publish(render(&model));
        // A name: the server listens on 127.0.0.1, and the name may stand for ::1 first.
        let bootstrap = Bootstrap { host: "localhost".to_owned(), ..control.bootstrap() };
        let _envoy = control.envoy_by(version, &bootstrap, entry).await.expect("Envoy starts");
        reached_ok(entry, &request("shop", "")).await;

        for (sent, what) in [
            ("GET / HTTP/1.0\r\nhost: shop.local\r\n\r\n", "HTTP/1.0"),
            ("GET / HTTP/1.1\r\nhost: shop.local.\r\nconnection: close\r\n\r\n", "a dot at the end"),
            ("GET / HTTP/1.1\r\nhost: shop.local.:80\r\nconnection: close\r\n\r\n", "a dot before the port"),
        ] {
            assert_eq!(send(entry, sent.as_bytes()).await.status, Some(200), "{version}: {what}");
        }
        let seen = heads.all().pop().expect("a request");
        // Envoy has the machine's address stand in for loopback.
        assert!(seen.contains("\r\nx-forwarded-for: "), "{version}: {seen}");
        send(entry, &request("shop", "x-forwarded-for: 203.0.113.7\r\n")).await;
        let seen = heads.all().pop().expect("a request");
        assert!(seen.contains("\r\nx-forwarded-for: 203.0.113.7,"), "{version}: {seen}");

        let before = copies.all().len();
        assert_eq!(send(entry, &request("copied", "")).await.status, Some(200));
        reached(|| copies.all().len() > before).await;
        let copy = copies.all().pop().expect("a copy");
        assert!(copy.contains("\r\nhost: copied.local\r\n"), "{version}: {copy}");
        assert_eq!(send(entry, &request("canary", "")).await.status, Some(200), "{version}: a long regex is taken");
    }
}

/// Waits until a request is answered with 200.
async fn reached_ok(entry: SocketAddr, request: &[u8]) {
    let served = async { while send(entry, request).await.status != Some(200) {} };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
}

/// What clients ask of Envoy is not done: nobody would count it.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_clients_cannot_ask_for_retries() {
    let failing = Behaviour { error_share: 1.0, ..Behaviour::default() };
    let service = Service::start("1", 1, failing).await.expect("a service");
    for version in VERSIONS {
        let (control, entry) = (Control::start(None).await, free().await);
        control.store().publish(render(&hosts(entry, &[("shop", &[service.address()])])));
        let _envoy = control.envoy_by(version, &control.bootstrap(), entry).await.expect("Envoy starts");
        let plain = request("shop", "");
        let served = async { while send(entry, &plain).await.status != Some(500) {} };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
        service.behave(failing);
        let asking = "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-envoy-retry-grpc-on: internal\r\n";
        for _ in 0..10 {
            assert_eq!(send(entry, &request("shop", asking)).await.status, Some(500));
        }
        assert_eq!(service.received_since_change(), 10, "{version}");
    }
}

/// Envoy's own limit of three retries at a time would leave half of the requests without one.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_retries_and_connections_are_limited_only_where_a_policy_says_so() {
    let behaviour =
        Behaviour { error_share: 0.5, delay: Duration::from_millis(50), hang: false, ..Behaviour::default() };
    let flaky = Service::start("1", 1, behaviour).await.expect("a service");
    let slow = Behaviour { error_share: 0.0, delay: Duration::from_millis(500), hang: false, ..Behaviour::default() };
    let slow = Service::start("1", 1, slow).await.expect("a service");
    let (flaky, slow) = ([flaky.address()], [slow.address()]);
    let (control, entry) = (Control::start(None).await, free().await);
    let all = [("free", &flaky[..]), ("few-retries", &flaky[..]), ("one-connection", &slow[..]), ("slow", &slow[..])];
    let mut model = hosts(entry, &all);
    for name in ["free", "few-retries"] {
        host(&mut model, name, |host| {
            host.retries = Some(Retries { attempts: 4, per_try_timeout: None, retry_on: "5xx".to_owned() });
        });
    }
    cluster(&mut model, "few-retries", |cluster| cluster.traffic.max_retries = Some(3));
    cluster(&mut model, "one-connection", |cluster| {
        cluster.traffic.max_connections = Some(1);
        cluster.traffic.max_pending_requests = Some(1);
    });
    control.store().publish(render(&model));
    let _envoy = control.envoy(false, None, entry).await.expect("Envoy starts");
    reached_ok(entry, &request("free", "")).await;
    // One in 32 fails five times.
    let free = at_once(entry, "free", 100).await;
    assert!(free >= 85, "{free} of 100");
    let few = at_once(entry, "few-retries", 100).await;
    assert!(few < 80, "{few} of 100");
    let one = at_once(entry, "one-connection", 20).await;
    assert!((1..20).contains(&one), "{one} of 20");
    assert_eq!(at_once(entry, "slow", 20).await, 20);
}

/// An endpoint that cannot be connected to: with retries nobody notices it, without them only the first few do.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_dead_endpoint_is_left_out() {
    let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
    let endpoints = [free().await, service.address()];
    let (control, entry) = (Control::start(None).await, free().await);
    let mut model = hosts(entry, &[("plain", &endpoints), ("retried", &endpoints), ("ready", &[service.address()])]);
    host(&mut model, "retried", |host| {
        host.retries = Some(Retries { attempts: 1, per_try_timeout: None, retry_on: "connect-failure".to_owned() });
    });
    // Never ejected: what is seen is that retries go elsewhere.
    cluster(&mut model, "retried", |cluster| cluster.traffic.outliers.consecutive_local = 0);
    control.store().publish(render(&model));
    let _envoy = control.envoy(false, None, entry).await.expect("Envoy starts");
    reached_ok(entry, &request("ready", "")).await;
    let mut failed = [0, 0];
    for _ in 0..100 {
        for (name, failed) in ["plain", "retried"].into_iter().zip(&mut failed) {
            *failed += usize::from(send(entry, &request(name, "")).await.status != Some(200));
        }
    }
    assert!((1..=10).contains(&failed[0]), "{failed:?}");
    assert!(failed[1] <= 3, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_streams_are_cut_where_a_listener_says_so() {
    let slow = Behaviour { error_share: 0.0, delay: Duration::from_secs(3), hang: false, ..Behaviour::default() };
    let service = Service::start("1", 1, slow).await.expect("a service");
    for (idle, status) in [(Some(Span::from_secs(1)), 504), (None, 200)] {
        let (control, entry) = (Control::start(None).await, free().await);
        let mut model = hosts(entry, &[("shop", &[service.address()])]);
        model.listeners.iter_mut().for_each(|listener| listener.front.stream_idle_timeout = idle);
        control.store().publish(render(&model));
        let _envoy = control.envoy(false, None, entry).await.expect("Envoy starts");
        let served = async { while send(entry, &request("shop", "")).await.status == Some(404) {} };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
        assert_eq!(send(entry, &request("shop", "")).await.status, Some(status), "{idle:?}");
    }
}
