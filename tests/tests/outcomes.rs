//! How requests end, through a real Envoy: each in its class, each once.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wingbeat_api::desired_state::Targeting;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::visitor;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::{reached, send};
use wingbeat_xds_server::model::Retries;

/// How often each kind of request is sent.
const EACH: u64 = 12;
/// How long a stream lasts.
const STREAM: Duration = Duration::from_millis(3_200);

/// An upstream that does to each request what its path says, and counts them.
struct Upstream {
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

/// Insiders get the canary.
fn insiders() -> Targeting {
    let [_, cookie] = visitor::rules();
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[cookie]).expect("rules") };
    Targeting::Rules { rules, holdback: BasisPoints::ZERO }
}

fn insider(name: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {name}.local\r\ncookie: type=insider\r\nconnection: close\r\n\r\n")
        .into_bytes()
}

impl Upstream {
    /// Speaks HTTP/1.1, by hand: a library would not misbehave.
    async fn http1() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let counter = counter.clone();
                tokio::spawn(async move { answer_by_hand(connection, &counter).await });
            }
        });
        Self { address, received }
    }

    /// Speaks gRPC's HTTP/2: statuses in trailers, or in the only headers.
    async fn grpc() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let counter = counter.clone();
                let serve = service_fn(move |request: Request<hyper::body::Incoming>| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    async move { Ok::<_, Infallible>(answer_grpc(request.uri().path())) }
                });
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder.serve_connection(TokioIo::new(connection), serve).await;
                });
            }
        });
        Self { address, received }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn answer_by_hand(mut connection: TcpStream, counter: &AtomicU64) {
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
        held.clear();
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let status = |code: &str| format!("HTTP/1.1 {code} x\r\ncontent-length: 2\r\n\r\nok");
        let answer = match path {
            "/reset" => return,
            "/cut" => {
                let _gone = connection.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nten bytes.").await;
                return;
            }
            "/hang" => std::future::pending().await,
            "/events" | "/socket" => {
                let head = if path == "/events" {
                    "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
                } else {
                    "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
                };
                let _gone = connection.write_all(head.as_bytes()).await;
                tokio::time::sleep(STREAM).await;
                return;
            }
            // Fails every other time: a retry helps.
            "/flaky" => status(if number.is_multiple_of(2) { "503" } else { "200" }),
            path => status(path.trim_start_matches("/status/")),
        };
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>>>;

/// `/trailers/N`, `/only/N` (the status is in the only headers), `/plain/N` (no gRPC, the status is that of HTTP), `/broken`
/// (the stream is reset in mid-message).
fn answer_grpc(path: &str) -> Response<Frames> {
    let data = || Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")));
    let (kind, status) = path.trim_start_matches('/').split_once('/').unwrap_or((path, "0"));
    let content_type = if kind == "plain" { "application/json" } else { "application/grpc" };
    let mut response = Response::builder().header("content-type", content_type);
    let status: hyper::header::HeaderValue = status.parse().expect("a status");
    let frames = match kind {
        "plain" => {
            response = response.status(status.to_str().unwrap_or_default());
            vec![data()]
        }
        "only" => {
            response = response.header("grpc-status", status);
            Vec::new()
        }
        "trailers" => {
            let trailers = HeaderMap::from_iter([(hyper::header::HeaderName::from_static("grpc-status"), status)]);
            vec![data(), Ok(Frame::trailers(trailers))]
        }
        _ => vec![data(), Err(std::io::Error::other("broken"))],
    };
    response.body(StreamBody::new(stream::iter(frames))).expect("a response")
}

/// Waits until so many requests of a canary are counted, whatever became of them, and returns the classes.
async fn classes(lab: &Lab, name: &str, sent: u64) -> BTreeMap<String, u64> {
    reached(|| lab.canary(name).outcomes.values().sum::<u64>() >= sent).await;
    lab.canary(name).outcomes
}

fn expected<const N: usize>(classes: [(&str, u64); N]) -> BTreeMap<String, u64> {
    classes.map(|(class, count)| (class.to_owned(), count)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_every_request_is_in_one_class() {
    let upstream = Upstream::http1().await;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port").local_addr().expect("an address");
    let test = |name: &str, canary| Test { canary: Some(canary), ..Test::new(name, insiders()) };
    let retries = Retries { attempts: 2, per_try_timeout: None, retry_on: "connect-failure,503".to_owned() };
    let tests = [
        test("plain", upstream.address),
        Test { timeout: Some(Span::from_millis(200)), ..test("limited", upstream.address) },
        test("closed", closed),
        Test { retries: Some(retries), ..test("retried", upstream.address) },
    ];
    let lab = Lab::open(&tests, ("plain", &insider("plain", "/status/200"))).await;
    let before = upstream.received();
    assert_eq!(classes(&lab, "plain", before).await, expected([("success", before)]), "those that found out who flows");
    for path in ["/status/201", "/status/302", "/status/404", "/status/503", "/reset", "/cut"] {
        for _ in 0..EACH {
            send(lab.entry(), &insider("plain", path)).await;
        }
    }
    let all = expected([
        ("success", before + EACH),
        ("redirect", EACH),
        ("client_fault", EACH),
        ("server_fault", EACH),
        ("reset", EACH),
        ("truncated", EACH),
    ]);
    assert_eq!(classes(&lab, "plain", before + 6 * EACH).await, all);
    assert_eq!(upstream.received(), before + 6 * EACH);

    for (name, path) in [("limited", "/hang"), ("closed", "/status/200")] {
        for _ in 0..EACH {
            send(lab.entry(), &insider(name, path)).await;
        }
    }
    assert_eq!(classes(&lab, "limited", EACH).await, expected([("timeout", EACH)]));
    assert_eq!(classes(&lab, "closed", EACH).await, expected([("connect_failure", EACH)]));

    let tries = upstream.received();
    for _ in 0..EACH {
        // The upstream fails every other one of all that it gets.
        let aligned = if upstream.received().is_multiple_of(2) { "/flaky" } else { "/status/200" };
        send(lab.entry(), &insider("retried", aligned)).await;
    }
    let retried = upstream.received() - tries - EACH;
    assert!(retried > 0, "some were tried again");
    assert_eq!(classes(&lab, "retried", EACH).await, expected([("success", EACH)]), "a request is counted once");
    assert_eq!(lab.canary("retried").retried, retried);

    // Clients that leave before an answer.
    for _ in 0..EACH {
        let mut connection = TcpStream::connect(lab.entry()).await.expect("Envoy accepts");
        let received = upstream.received();
        connection.write_all(&insider("plain", "/hang")).await.expect("Envoy reads");
        reached(|| upstream.received() > received).await;
    }
    let mut all = all;
    all.insert("disconnect_before_response".to_owned(), EACH);
    assert_eq!(classes(&lab, "plain", before + 7 * EACH).await, all);
}

/// Waits at the canary as a user with an address of its own.
async fn hang(entry: SocketAddr, user: u64) {
    let from = SocketAddr::from(([127, 0, 1, u8::try_from(user).expect("few users")], 0));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(from).expect("all of 127/8 is loopback");
    let mut connection = socket.connect(entry).await.expect("Envoy accepts");
    let get = insider("hangs", "/hang");
    // Every other one has a body.
    let post = b"POST /hang HTTP/1.1\r\nhost: hangs.local\r\ncookie: type=insider\r\ncontent-length: 2\r\n\r\nok";
    let request = if user.is_multiple_of(2) { get.as_slice() } else { post.as_slice() };
    connection.write_all(request).await.expect("Envoy reads");
    let _gone = connection.read_to_end(&mut Vec::new()).await;
}

/// Streams that last longer than any request should, at a canary: what hangs is seen, and they are not.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_streams_are_neither_overdue_nor_slow() {
    let upstream = Upstream::http1().await;
    let test = |name: &str| Test { canary: Some(upstream.address), ..Test::new(name, insiders()) };
    let lab = Lab::open(&[test("streams"), test("hangs")], ("streams", &insider("streams", "/status/200"))).await;
    let before = upstream.received();
    let upgrade = b"GET /socket HTTP/1.1\r\nhost: streams.local\r\ncookie: type=insider\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\n\r\n";
    let events = insider("streams", "/events");
    let mut users = tokio::task::JoinSet::new();
    // Of one client not every hang would count, where a rule gives it the canary.
    for user in 1..=EACH {
        users.spawn(hang(lab.entry(), user));
    }
    for request in [upgrade.to_vec(), events] {
        for _ in 0..EACH {
            let (entry, request) = (lab.entry(), request.clone());
            users.spawn(async move { drop(send(entry, &request).await) });
        }
    }
    reached(|| lab.canary("hangs").overdue == EACH).await;
    let all = classes(&lab, "streams", before + 2 * EACH).await;
    assert_eq!(all, expected([("success", before + 2 * EACH)]));
    let (streams, hangs) = (lab.canary("streams"), lab.canary("hangs"));
    assert_eq!((streams.overdue, hangs.overdue), (0, EACH));
    assert!(streams.p99_ms.is_some_and(|p99| p99 < 1_000.0), "{streams:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_grpc_statuses_are_read_where_they_are() {
    let upstream = Upstream::grpc().await;
    let tests = [Test { canary: Some(upstream.address), http2: true, ..Test::new("grpc", insiders()) }];
    let probe = insider("grpc", "/trailers/0");
    let lab = Lab::open(&tests, ("grpc", &probe)).await;
    let before = upstream.received();
    let connection = TokioIo::new(TcpStream::connect(lab.entry()).await.expect("Envoy accepts"));
    let (mut client, driver) = http2::handshake(TokioExecutor::new(), connection).await.expect("HTTP/2");
    tokio::spawn(driver);
    let mut statuses = Vec::new();
    let plain = ["/plain/200", "/plain/404", "/plain/503"];
    for path in ["/trailers/0", "/trailers/5", "/trailers/14", "/only/12", "/broken"].into_iter().chain(plain) {
        for _ in 0..EACH {
            let request = Request::post(format!("http://grpc.local{path}"))
                .header("cookie", "type=insider")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Empty::<Bytes>::new())
                .expect("a request");
            let response = client.send_request(request).await.expect("a response");
            if !path.starts_with("/plain") {
                statuses.push(response.status().as_u16());
            }
            let _broken = response.into_body().collect().await;
        }
    }
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // One cluster carries both, and each response is what it says it is.
    let all = expected([
        ("success", before + 2 * EACH),
        ("client_fault", 2 * EACH),
        ("server_fault", 3 * EACH),
        ("truncated", EACH),
    ]);
    assert_eq!(classes(&lab, "grpc", before + 8 * EACH).await, all);
}
