//! Quantiles are true: what the controller shows of requests is what Envoy's own access log says of the same ones.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use wingbeat_api::desired_state::Targeting;
use wingbeat_control::view::ArmView;
use wingbeat_core::matching::bucket::mix;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::{PATIENCE, reached};
use wingbeat_test_support::simulation::draw::Draw;
use wingbeat_xds_server::model::{AccessLog, LogFormat};

/// Requests of each law, in both arms together.
const REQUESTS: u64 = 4_000;
/// Requests of each law a second.
const RATE: u32 = 200;
/// The canary is so much slower: arms that were mixed would show.
const SLOWER: f64 = 1.5;
/// Requests that waited so long, in microseconds, waited for a new connection: that is no latency of an arm (P6).
const CONNECTING_US: f64 = 200.0;
/// What is promised.
const BOUND: f64 = 0.01;

/// How long a service takes. No quantile that is compared lies at a jump of its law: there, one request that was
/// preempted between the log's clock and the filter's moves it by the width of the gap.
#[derive(Debug, Clone, Copy)]
enum Law {
    /// Four in five take 2 ms, the others 40 ms.
    TwoPoint,
    /// The logarithm is normal, with median 20 ms and deviation 0.7.
    LogNormal,
    /// 5 ms, and for one in fifty 20 times as much.
    Tail,
}

impl Law {
    const ALL: [Self; 3] = [Self::TwoPoint, Self::LogNormal, Self::Tail];

    const fn name(self) -> &'static str {
        match self {
            Self::TwoPoint => "two-point",
            Self::LogNormal => "lognormal",
            Self::Tail => "tail",
        }
    }

    /// Returns milliseconds.
    fn draw(self, draw: &mut Draw) -> f64 {
        let two = |often: f64, (usual, rare): (f64, f64), share: f64| if share < often { usual } else { rare };
        match self {
            Self::TwoPoint => two(0.8, (2.0, 40.0), draw.share()),
            Self::LogNormal => draw.log_normal(20.0, 0.7),
            Self::Tail => two(0.98, (5.0, 100.0), draw.share()),
        }
    }
}

/// Starts a service that takes as long as the law says, times a factor.
async fn service(law: Law, factor: f64, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Arc::<AtomicU64>::default();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let served = served.clone();
            tokio::spawn(serve(connection, move || {
                let mut draw = Draw::new(mix(seed, served.fetch_add(1, Ordering::Relaxed)));
                Duration::from_secs_f64(law.draw(&mut draw) * factor / 1_000.0)
            }));
        }
    });
    address
}

/// Speaks HTTP/2: requests of a worker share a connection, and few wait for a new one.
async fn serve(connection: TcpStream, delay: impl Fn() -> Duration) {
    connection.set_nodelay(true).expect("an option of TCP");
    let answer = service_fn(|_: Request<Incoming>| {
        let delay = delay();
        async move {
            tokio::time::sleep(delay).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    let _ended = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), answer).await;
}

/// What the access log says of an arm's requests, in microseconds, ascending, without waits for new connections.
///
/// The filter is between both: it sees a request after Envoy has it, and the end of the response before that is sent on. On a busy
/// machine Envoy takes some 50 µs for either, 1 % of 5 ms.
#[derive(Debug, Default)]
struct Lengths {
    /// From the first byte to the service to the last one from it.
    inner: Vec<f64>,
    /// From the end of the request to the end of the response, for the user.
    outer: Vec<f64>,
}

/// By host and revision.
type Logged = BTreeMap<(String, String), Lengths>;

/// Reads the requests by host and revision.
fn read(log: &Path) -> Logged {
    let mut logged = Logged::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        // The last line may be written in part.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let text = |field: &str| line.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (host, cluster) = (text("host"), text("cluster"));
        let took = |field: &str| line.get(field).and_then(Value::as_f64).expect("nanoseconds") / 1e3;
        let revision = cluster.rsplit('/').next().unwrap_or_default().to_owned();
        let waited = match text("waited").as_str() {
            "-" => 0.0,
            waited => micros(waited),
        };
        let new_connection = if waited > CONNECTING_US { waited } else { 0.0 };
        let lengths = logged.entry((host, revision)).or_default();
        lengths.inner.push(took("served"));
        lengths.outer.push(took("took") - new_connection);
    }
    for Lengths { inner, outer } in logged.values_mut() {
        inner.sort_by(f64::total_cmp);
        outer.sort_by(f64::total_cmp);
    }
    logged
}

/// Takes what Envoy writes for a duration, like `12.345ms`.
fn micros(text: &str) -> f64 {
    let units = [("ms", 1e3), ("us", 1.0), ("ns", 1e-3), ("s", 1e6)];
    let in_unit = |(unit, micros)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * micros);
    units.into_iter().find_map(in_unit).expect("a duration")
}

/// Returns the smallest of these that at least the share `q` of them does not exceed.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands")]
fn nearest_rank(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    *sorted.get(rank.max(1) - 1).expect("requests")
}

fn count(requests: &[f64]) -> u64 {
    u64::try_from(requests.len()).expect("few")
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_quantiles_are_those_of_its_access_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let fields = [
        ("host", "%REQ(:AUTHORITY)%"),
        ("cluster", "%UPSTREAM_CLUSTER_RAW%"),
        // As the filter measures: from the end of the request, its headers, to the end of the response.
        ("took", "%COMMON_DURATION(DS_RX_END:DS_TX_END:ns)%"),
        ("served", "%COMMON_DURATION(US_TX_BEG:US_RX_END:ns)%"),
        ("waited", "%CEL(upstream.cx_pool_ready_duration)%"),
    ];
    let format = LogFormat::Json(fields.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    let log = AccessLog { path: file.display().to_string(), format };
    let mut tests = Vec::new();
    for (seed, law) in (1..).zip(Law::ALL) {
        let primary = service(law, 1.0, seed).await;
        let canary = service(law, SLOWER, seed << 8).await;
        let test = Test::new(law.name(), Targeting::Chance);
        tests.push(Test { primary: Some(primary), canary: Some(canary), http2: true, ..test });
    }
    let probe = format!("GET / HTTP/1.1\r\nhost: {}.local\r\nconnection: close\r\n\r\n", Law::Tail.name());
    let lab = Lab::open_logging(&tests, (Law::Tail.name(), probe.as_bytes()), Some(&log)).await;
    let loads = Law::ALL.map(|law| {
        let host = format!("{}.local", law.name());
        Load::start(LoadConfig { target: lab.entry(), host, rate: RATE, patience: None, visitors: ANYONE })
    });
    reached(|| loads.iter().all(|load| load.tally().finished >= REQUESTS)).await;
    for load in loads {
        assert_eq!(load.stop(PATIENCE).await.failed, []);
    }
    // Envoy writes its log every ten seconds, and workers report on their tick.
    let arms = |law: Law| {
        let (name, arms) = (law.name(), lab.arms(law.name()));
        [("1.4.0", arms.primary), ("1.4.1", arms.canary)]
            .map(|(revision, arm)| ((format!("{name}.local"), revision.to_owned()), arm))
    };
    reached(|| {
        let logged = read(&file);
        Law::ALL
            .iter()
            .flat_map(|law| arms(*law))
            .all(|(key, arm)| logged.get(&key).map_or(0, |it| count(&it.outer)) == arm.requests)
    })
    .await;
    let logged = read(&file);
    let mut worst = 0.0_f64;
    println!("law        arm      quantile  service    user       reported   error");
    for (law, (key, arm)) in Law::ALL.iter().flat_map(|law| arms(*law).map(|arm| (law, arm))) {
        let Lengths { inner, outer } = &logged[&key];
        let ArmView { p50_ms, p90_ms, p99_ms, .. } = arm;
        for (q, name, reported) in [(0.5, "p50", p50_ms), (0.9, "p90", p90_ms), (0.99, "p99", p99_ms)] {
            let (inner, outer) = (nearest_rank(inner, q) / 1e3, nearest_rank(outer, q) / 1e3);
            let reported = reported.expect("there were requests");
            let exact = reported.max(inner).min(outer);
            let error = (reported - exact) / exact;
            let word = if error.abs() <= BOUND { "PASS" } else { "FAIL" };
            println!(
                "{:<10} {:<8} {name:<9} {inner:>7.3} ms {outer:>7.3} ms {reported:>7.3} ms {:>+6.2} % ≤ 1 % {word}",
                law.name(),
                key.1,
                error * 100.0
            );
            worst = worst.max(error.abs());
        }
    }
    assert!(worst <= BOUND, "{worst}");
}
