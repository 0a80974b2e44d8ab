//! Load at a constant rate, whatever the answers: users do not wait for each other.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use crate::names::{CANARY, PRIMARY};
use crate::service::REVISION_HEADER;
use crate::visitor::{FAILING_PATH, Visitor};

/// Connections that users keep while they need none, where all come from one address. More are needed when requests wait, and
/// closed when they do not any more: otherwise a moment's delay would leave thousands of them at Envoy for a minute and a half.
const IDLE_CONNECTIONS: usize = 512;
/// The same of each address, where they come from several.
const IDLE_OF_AN_ADDRESS: usize = 2;

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
    /// Who sends them, in turn.
    pub visitors: &'static [Visitor],
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

/// Whom the rules concern, as far as the load watches it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rules {
    /// Nobody: chance decides.
    #[default]
    Off,
    /// Routes may be on their way: nobody who does not match may reach the canary.
    Changing,
    /// They are in force: also, all who match reach the canary.
    On,
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
    /// Requests that were answered by an arm that is not theirs.
    misrouted: AtomicU64,
    /// Testers ask for errors.
    failing: AtomicBool,
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
    rules: Rules,
}

/// What became of a request, and who answered.
struct Ended {
    fine: bool,
    revision: Option<String>,
}

impl Load {
    /// Starts sending, all from one address.
    pub fn start(config: LoadConfig) -> Self {
        Self::spawn(config, vec![client(None, IDLE_CONNECTIONS)])
    }

    /// Starts sending from so many addresses of the loopback network, in turn: as many clients. Linux has all of them.
    pub fn start_from(config: LoadConfig, addresses: u8) -> Self {
        let clients = (1..=addresses).map(|host| client(Some(IpAddr::from([127, 0, 1, host])), IDLE_OF_AN_ADDRESS));
        Self::spawn(config, clients.collect())
    }

    fn spawn(config: LoadConfig, clients: Vec<Http>) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(pace(config, clients, shared.clone()));
        Self { shared, task }
    }

    /// Forgets what came back so far: what is sent from now on counts.
    pub fn mark(&self) {
        let mut state = self.shared.lock();
        state.generation += 1;
        state.tally = Tally::default();
        state.in_flight = 0;
    }

    /// Watches from now on whether requests get the arm that is theirs.
    pub fn watch(&self, rules: Rules) {
        self.shared.lock().rules = rules;
    }

    /// Returns how many requests were answered by an arm that is not theirs.
    pub fn misrouted(&self) -> u64 {
        self.shared.misrouted.load(Ordering::Relaxed)
    }

    /// Lets testers ask for errors, or not.
    pub fn ask_for_errors(&self, ask: bool) {
        self.shared.failing.store(ask, Ordering::Relaxed);
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

    fn begin(&self) -> (u64, Rules) {
        let mut state = self.lock();
        state.tally.sent += 1;
        state.in_flight += 1;
        (state.generation, state.rules)
    }

    /// Takes a request that ended, with what held when it was sent.
    fn end(&self, (generation, rules): (u64, Rules), visitor: &Visitor, ended: Ended) {
        let mut state = self.lock();
        let astray = match (rules, visitor.matches, ended.revision.as_deref()) {
            (Rules::Changing | Rules::On, false, Some(CANARY)) => true,
            // What was sent by rules that have changed since is not held against them.
            (Rules::On, true, Some(PRIMARY)) => state.rules == Rules::On,
            _ => false,
        };
        self.misrouted.fetch_add(astray.into(), Ordering::Relaxed);
        if state.generation != generation {
            return;
        }
        state.in_flight = state.in_flight.saturating_sub(1);
        state.tally.finished += 1;
        if !ended.fine {
            state.tally.failed.push(ended.revision);
        }
    }
}

type Http = Client<HttpConnector, Empty<Bytes>>;

fn client(address: Option<IpAddr>, idle: usize) -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_local_address(address);
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(idle).build(connector)
}

/// Sends what is due, and catches up with what a late timer missed: the rate holds on average.
async fn pace(config: LoadConfig, clients: Vec<Http>, shared: Arc<Shared>) {
    let config = Arc::new(config);
    let mut requests = JoinSet::new();
    let started = now();
    let mut sent = 0_u64;
    let mut visitors = clients.iter().cycle().zip(config.visitors.iter().cycle());
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
            let Some((client, visitor)) = visitors.next() else { continue };
            let (client, config, shared) = (client.clone(), config.clone(), shared.clone());
            requests.spawn(async move {
                let began = shared.begin();
                let path = if visitor.tester && shared.failing.load(Ordering::Relaxed) { FAILING_PATH } else { "/" };
                let ended = send(&client, &config, visitor, path).await;
                shared.end(began, visitor, ended);
            });
        }
        while requests.try_join_next().is_some() {}
    }
}

fn due(started: Instant, rate: u32) -> u64 {
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(rate.into()) / 1_000_000
}

async fn send(client: &Http, config: &LoadConfig, visitor: &Visitor, path: &str) -> Ended {
    let lost = Ended { fine: false, revision: None };
    let mut request = Request::builder().uri(format!("http://{}{path}", config.target)).header("host", &config.host);
    for (name, value) in visitor.headers {
        request = request.header(*name, *value);
    }
    let Ok(request) = request.body(Empty::new()) else { return lost };
    let exchange = async {
        let response = client.request(request).await.ok()?;
        let (status, revision) = (response.status(), revision(&response));
        response.into_body().collect().await.ok()?;
        Some(Ended { fine: status < StatusCode::INTERNAL_SERVER_ERROR, revision })
    };
    let exchanged = match config.patience {
        Some(patience) => tokio::time::timeout(patience, exchange).await.ok().flatten(),
        None => exchange.await,
    };
    exchanged.unwrap_or(lost)
}

fn revision<B>(response: &hyper::Response<B>) -> Option<String> {
    response.headers().get(REVISION_HEADER)?.to_str().ok().map(str::to_owned)
}
