//! Load at a constant rate, whatever the answers: users do not wait for each other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::service::REVISION_HEADER;

/// What is sent.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// The Envoy.
    pub target: SocketAddr,
    /// `Host` of the requests.
    pub host: String,
    /// Requests a second.
    pub rate: u32,
    /// Users give up after this time; none means never.
    pub patience: Option<Duration>,
}

/// What came back. Counts since the start, or since [`Load::mark`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that came back, or did not in time.
    pub finished: u64,
    /// Of these: 5xx, reset or given up, with the revision where a response named one.
    pub failed: Vec<Option<String>>,
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Nothing more is to be sent, and nothing more is.
    paused: AtomicBool,
    idle: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    in_flight: u64,
    /// Requests that were sent before the mark do not count after it.
    generation: u64,
}

enum Ended {
    Fine,
    Failed(Option<String>),
}

impl Load {
    /// Starts sending.
    pub fn start(config: LoadConfig) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(pace(config, shared.clone()));
        Self { shared, task }
    }

    /// Forgets what came back so far: what is sent from now on counts.
    pub fn mark(&self) {
        let mut state = self.shared.lock();
        state.generation += 1;
        state.tally = Tally::default();
        state.in_flight = 0;
    }

    /// Returns what came back so far.
    pub fn tally(&self) -> Tally {
        self.shared.lock().tally.clone()
    }

    /// Stops sending and returns what came back; users who still wait after the grace have lost their request.
    pub async fn stop(self, grace: Duration) -> Tally {
        self.shared.paused.store(true, Ordering::Relaxed);
        let answered = async {
            let mut poll = tokio::time::interval(Duration::from_millis(5));
            while !self.shared.idle.load(Ordering::Relaxed) {
                poll.tick().await;
            }
        };
        let _some_wait_for_ever = tokio::time::timeout(grace, answered).await;
        self.task.abort();
        let mut state = self.shared.lock();
        let waiting = usize::try_from(state.in_flight).unwrap_or(usize::MAX);
        let mut tally = std::mem::take(&mut state.tally);
        tally.failed.extend(std::iter::repeat_n(None, waiting));
        tally.finished = tally.finished.saturating_add(state.in_flight);
        tally
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.tally.sent += 1;
        state.in_flight += 1;
        state.generation
    }

    fn end(&self, generation: u64, ended: Ended) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        state.in_flight = state.in_flight.saturating_sub(1);
        state.tally.finished += 1;
        if let Ended::Failed(revision) = ended {
            state.tally.failed.push(revision);
        }
    }
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Sends what is due, and catches up with what a late timer missed: the rate holds on average.
async fn pace(config: LoadConfig, shared: Arc<Shared>) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Http = Client::builder(TokioExecutor::new()).build(connector);
    let config = Arc::new(config);
    let mut requests = JoinSet::new();
    let started = now();
    let mut sent = 0_u64;
    let mut timer = tokio::time::interval(Duration::from_millis(1));
    loop {
        timer.tick().await;
        if shared.paused.load(Ordering::Relaxed) {
            while requests.join_next().await.is_some() {}
            shared.idle.store(true, Ordering::Relaxed);
            return;
        }
        while sent < due(started, config.rate) {
            sent += 1;
            let (client, config, shared) = (client.clone(), config.clone(), shared.clone());
            requests.spawn(async move {
                let generation = shared.begin();
                let ended = send(&client, &config).await;
                shared.end(generation, ended);
            });
        }
        while requests.try_join_next().is_some() {}
    }
}

fn due(started: Instant, rate: u32) -> u64 {
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(rate.into()) / 1_000_000
}

async fn send(client: &Http, config: &LoadConfig) -> Ended {
    let request = Request::builder().uri(format!("http://{}/", config.target)).header("host", &config.host);
    let Ok(request) = request.body(Empty::new()) else { return Ended::Failed(None) };
    let exchange = async {
        let response = client.request(request).await.ok()?;
        let (status, revision) = (response.status(), revision(&response));
        response.into_body().collect().await.ok()?;
        Some((status, revision))
    };
    let exchanged = match config.patience {
        Some(patience) => tokio::time::timeout(patience, exchange).await.ok().flatten(),
        None => exchange.await,
    };
    match exchanged {
        Some((status, revision)) if status >= StatusCode::INTERNAL_SERVER_ERROR => Ended::Failed(revision),
        Some(_) => Ended::Fine,
        None => Ended::Failed(None),
    }
}

fn revision<B>(response: &hyper::Response<B>) -> Option<String> {
    response.headers().get(REVISION_HEADER)?.to_str().ok().map(str::to_owned)
}
