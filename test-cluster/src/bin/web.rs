//! The web service that Pods of tests run, as image `wingbeat.test/web`: it answers at `$POD_IP:$PORT` (8080), over HTTP/1 and
//! HTTP/2, in the words of the demo's service.
//!
//! | path | answer |
//! |---|---|
//! | `/version` | the version: `$VERSION`, else the image's tag |
//! | `/healthz` | 200, or the status that was set by `POST /healthz/NNN` |
//! | `/status/NNN` | this status |
//! | `/delay/SECONDS` | 200, this much later |
//! | `POST /answer/NNN` | this, and from now on the same for any other path |
//! | `POST /slow/SECONDS` | 200, and from now on any other path is answered this much later |
//! | `/idle` | for how many milliseconds no other path was asked for |
//! | any other | 200, or `$STATUS`: a release that fails |
//!
//! But for `version`, `healthz` and `idle`, the body is JSON. It ends at SIGTERM, with code 0.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Where it listens if `$PORT` does not say.
const DEFAULT_PORT: u16 = 8080;
/// Response header that names the version: that of the demo's service.
const REVISION_HEADER: &str = "x-revision";
/// The longest that an answer is delayed. Longer ones are as good as none.
const MAX_DELAY: Duration = Duration::from_hours(1);

/// The service.
struct Web {
    version: String,
    health: AtomicU16,
    /// What requests for nothing in particular are answered with.
    status: AtomicU16,
    /// By how many milliseconds they are answered later.
    delay: AtomicU64,
    /// When the last of them came: milliseconds after it began.
    last: AtomicU64,
    began: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let address: IpAddr = variable("POD_IP").unwrap_or_else(|| "127.0.0.1".to_owned()).parse().context("POD_IP")?;
    let port = variable("PORT").map_or(Ok(DEFAULT_PORT), |port| port.parse()).context("PORT")?;
    let image = variable("IMAGE").unwrap_or_default();
    let tag = image.rsplit_once(':').map(|(_, tag)| tag.to_owned());
    let version = variable("VERSION").or(tag).unwrap_or_default();
    let status: StatusCode =
        variable("STATUS").map_or(Ok(StatusCode::OK), |status| status.parse()).context("STATUS")?;
    let ok = StatusCode::OK.as_u16();
    let web = Arc::new(Web {
        version,
        health: AtomicU16::new(ok),
        status: AtomicU16::new(status.as_u16()),
        delay: AtomicU64::new(0),
        last: AtomicU64::new(0),
        began: Instant::now(),
    });
    let listener = TcpListener::bind((address, port)).await;
    let listener = listener.with_context(|| format!("cannot listen at {address}:{port}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(web.clone(), stream));
                }
            }
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn serve(web: Arc<Web>, stream: TcpStream) {
    // A Nagle delay would be mistaken for latency.
    let _unsupported = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let web = web.clone();
        async move { Ok::<_, Infallible>(web.answer(&request).await) }
    });
    let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}

impl Web {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let path = path.trim_matches('/');
        let (first, argument) = path.split_once('/').unwrap_or((path, ""));
        let status = argument.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        match (first, status) {
            ("version", _) => self.respond(StatusCode::OK, Some(&self.version)),
            ("healthz", Some(status)) if request.method() == Method::POST => {
                self.health.store(status.as_u16(), Ordering::Relaxed);
                self.respond(StatusCode::OK, Some(status.as_str()))
            }
            ("healthz", _) => {
                let health = StatusCode::from_u16(self.health.load(Ordering::Relaxed)).unwrap_or_default();
                self.respond(health, Some(health.as_str()))
            }
            ("status", Some(status)) => self.respond(status, None),
            ("delay", _) => {
                tokio::time::sleep(delay(argument)).await;
                self.respond(StatusCode::OK, None)
            }
            ("slow", _) if request.method() == Method::POST => {
                self.delay.store(millis(delay(argument)), Ordering::Relaxed);
                self.respond(StatusCode::OK, None)
            }
            ("idle", _) => {
                let idle = millis(self.began.elapsed()).saturating_sub(self.last.load(Ordering::Relaxed));
                self.respond(StatusCode::OK, Some(&idle.to_string()))
            }
            ("answer", Some(status)) if request.method() == Method::POST => {
                self.status.store(status.as_u16(), Ordering::Relaxed);
                self.respond(status, None)
            }
            _ => {
                self.last.store(millis(self.began.elapsed()), Ordering::Relaxed);
                let delay = self.delay.load(Ordering::Relaxed);
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                self.respond(StatusCode::from_u16(self.status.load(Ordering::Relaxed)).unwrap_or_default(), None)
            }
        }
    }

    /// Returns a response with this text, or with JSON that tells version and status.
    fn respond(&self, status: StatusCode, text: Option<&str>) -> Response<Full<Bytes>> {
        let json = || serde_json::json!({"revision": self.version, "status": status.as_u16()}).to_string();
        let body = text.map_or_else(json, str::to_owned);
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        if let Ok(value) = self.version.parse() {
            response.headers_mut().insert(REVISION_HEADER, value);
        }
        response
    }
}

/// Returns the delay that a path asks for.
fn delay(argument: &str) -> Duration {
    let delay = argument.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    delay.unwrap_or_default().min(MAX_DELAY)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
