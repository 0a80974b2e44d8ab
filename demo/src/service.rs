//! A small web service that can be told to fail. Both revisions of the demo are one of these.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use wingbeat_core::matching::bucket::mix;

use crate::clock::now;

/// Response header that names the revision.
pub const REVISION_HEADER: &str = "x-revision";

/// How requests are served.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Behaviour {
    /// This share of requests is answered with 500.
    pub error_share: f64,
    /// Answers are this late.
    pub delay: Duration,
    /// Requests are taken and never answered.
    pub hang: bool,
    /// Answers begin and then stop.
    pub stall: bool,
    /// Requests are not answered: over HTTP/1 their connection ends, over HTTP/2 their stream does.
    pub reset: bool,
    /// Answers are gRPC, of this status.
    pub grpc: Option<u16>,
}

/// A running service. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    revision: String,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    received: u64,
    first: Option<Instant>,
    first_since: Option<Instant>,
    last: Option<Instant>,
    marked: u64,
}

impl Service {
    /// Starts a revision on a free port of loopback. The seed decides which requests fail.
    pub async fn start(revision: &str, seed: u64, behaviour: Behaviour) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { behaviour, ..State::default() });
        let shared = Arc::new(Shared { revision: revision.to_owned(), seed, state });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves like this from now on, counts receipts from here, and returns the time of the change.
    pub fn behave(&self, behaviour: Behaviour) -> Instant {
        let mut state = self.shared.lock();
        state.behaviour = behaviour;
        state.marked = state.received;
        state.first_since = None;
        now()
    }

    /// Returns how it serves.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.lock().behaviour
    }

    /// Returns how many requests came since the behaviour changed.
    pub fn received_since_change(&self) -> u64 {
        let state = self.shared.lock();
        state.received.saturating_sub(state.marked)
    }

    /// Returns when the first request came since the behaviour changed.
    pub fn first_since_change(&self) -> Option<Instant> {
        self.shared.lock().first_since
    }

    /// Returns when the first request came.
    pub fn first_request(&self) -> Option<Instant> {
        self.shared.lock().first
    }

    /// Returns when the latest request came.
    pub fn last_request(&self) -> Option<Instant> {
        self.shared.lock().last
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and returns how to serve it, and whether it fails.
    fn receive(&self) -> (Behaviour, bool) {
        let mut state = self.lock();
        let at = now();
        state.received += 1;
        state.first.get_or_insert(at);
        state.first_since.get_or_insert(at);
        state.last = Some(at);
        let fails = chance(self.seed, state.received) < state.behaviour.error_share;
        (state.behaviour, fails)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // A Nagle delay would be mistaken for latency.
                let _unsupported = stream.set_nodelay(true);
                let shared = shared.clone();
                connections.spawn(async move {
                    let serve = service_fn(move |request| answer(shared.clone(), request));
                    let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), serve).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What is answered.
type Answer = Either<Full<Bytes>, Stalled>;

/// A body of which the first half comes.
#[derive(Debug)]
struct Stalled {
    first: Option<Bytes>,
    whole: u64,
}

impl Stalled {
    fn of(body: &Bytes) -> Self {
        Self { first: Some(body.slice(..body.len() / 2)), whole: body.len() as u64 }
    }
}

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.first.take().map_or(Poll::Pending, |first| Poll::Ready(Some(Ok(Frame::data(first)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> std::io::Result<Response<Answer>> {
    let (behaviour, fails) = shared.receive();
    if behaviour.reset {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    if behaviour.hang {
        std::future::pending::<()>().await;
    }
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    let asked = request.uri().path().strip_prefix("/status/").and_then(|code| code.parse().ok());
    let status = match (fails, asked.and_then(|code| StatusCode::from_u16(code).ok())) {
        (true, _) => StatusCode::INTERNAL_SERVER_ERROR,
        (false, Some(status)) => status,
        (false, None) => StatusCode::OK,
    };
    let body = serde_json::json!({"revision": shared.revision, "status": status.as_u16()});
    let body = Bytes::from(body.to_string());
    let body = if behaviour.stall { Either::Right(Stalled::of(&body)) } else { Either::Left(Full::new(body)) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(value) = shared.revision.parse() {
        response.headers_mut().insert(REVISION_HEADER, value);
    }
    if let Some(status) = behaviour.grpc {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", status.into());
    }
    Ok(response)
}

/// Returns a number in `0..1` that depends on nothing but its arguments.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
pub(crate) fn chance(seed: u64, n: u64) -> f64 {
    (mix(seed, n) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_even_and_repeatable() {
        let hits = (0..100_000).filter(|n| chance(7, *n) < 0.05).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
        assert_eq!(chance(7, 3).to_bits(), chance(7, 3).to_bits());
    }
}
