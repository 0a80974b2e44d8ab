//! What the filter costs: CPU time of Envoy per proxied request.
//!
//! Envoy has a core for itself and is never idle: a process that waits for each request costs as much by waking as by
//! working, and how much depends on when the request comes. Users and services are on the other cores, and as plain as
//! they can be.
//!
//! Short slices of the same load, in turn, on two hosts of one Envoy: one without a rollout, and one that is judged by
//! weight or divided by the guide's two rules. Round by round, the filter is taken away and installed. What it costs where
//! it has nothing to do is the host without a rollout, with and without the filter: `ratio_off`. What it costs where it
//! judges is the other host's cost in proportion to the first's, with the filter, divided by the same without it: two
//! Envoys differ by more than what is measured, and so does one of them from minute to minute, but not two hosts of one
//! within a second. The plain ratios, which have no such control, are printed beside.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wingbeat_api::desired_state::Targeting;
use wingbeat_benches::{print, quantile};
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::Envoy;
use wingbeat_demo::visitor;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::reached;

const ROUNDS: usize = 12;
/// How often the two hosts take turns in half a round.
const TURNS: usize = 4;
/// Users at a time, each with a connection of its own.
const USERS: usize = 16;
/// Requests of a slice, and those before it that open connections.
const REQUESTS: u64 = 6_000;
const OPENING: u64 = 2_000;
/// Requests after which V8 has compiled what is called often.
const WARM_UP: u64 = 20_000;
/// What services answer: users know the end of it.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const END: &[u8] = b"\r\n\r\nok";

/// Returns the CPU time that a process has used, in nanoseconds.
fn used(envoy: &Envoy) -> anyhow::Result<u64> {
    let pid = envoy.pid().context("Envoy runs")?;
    let mut sum: u64 = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Has a process, with all of its threads, run on these cores only.
fn pin(process: u32, cores: &str) -> anyhow::Result<()> {
    let done = Command::new("taskset").args(["-a", "-c", "-p", cores, &process.to_string()]).output();
    let done = done.context("cannot run taskset, of util-linux")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Starts a service.
async fn service() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection));
        }
    });
    Ok(address)
}

/// Answers all requests of a connection. They have no bodies, and come one after the other.
async fn serve(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut request = Vec::new();
    while connection.read_buf(&mut request).await? > 0 {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            connection.write_all(ANSWER).await?;
        }
    }
    Ok(())
}

/// What users share.
struct Users {
    entry: SocketAddr,
    requests: Vec<Vec<u8>>,
    answered: AtomicU64,
    enough: AtomicBool,
}

impl Users {
    /// Sends requests, each when the one before is answered, until it is enough.
    async fn ask(self: Arc<Self>) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(self.entry).await?;
        connection.set_nodelay(true)?;
        let mut answer = Vec::new();
        for request in self.requests.iter().cycle() {
            answer.clear();
            connection.write_all(request).await?;
            while !answer.ends_with(END) {
                ensure!(connection.read_buf(&mut answer).await? > 0, "Envoy closed the connection");
            }
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            self.answered.fetch_add(1, Ordering::Relaxed);
            if self.enough.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Returns the requests of the demo's audience.
fn requests(host: &str) -> Vec<Vec<u8>> {
    let request = |visitor: &visitor::Visitor| {
        let headers: Vec<String> = visitor.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: {host}.local\r\n{}\r\n", headers.concat()).into_bytes()
    };
    visitor::AUDIENCE.iter().map(request).collect()
}

/// Returns nanoseconds of CPU per request, after some that do not count.
async fn slice(lab: &Lab, host: &str, before: u64) -> anyhow::Result<f64> {
    let (answered, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let users = Arc::new(Users { entry: lab.entry(), requests: requests(host), answered, enough });
    let mut all: JoinSet<_> = (0..USERS).map(|_| users.clone().ask()).collect();
    let measured = async {
        reached(|| users.answered() >= before).await;
        let (before, started) = (used(lab.envoy())?, users.answered());
        reached(|| users.answered() >= started + REQUESTS).await;
        let (after, ended) = (used(lab.envoy())?, users.answered());
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
        Ok((after - before) as f64 / (ended - started) as f64)
    };
    // No user leaves before it is enough, unless something is wrong.
    let nanos: anyhow::Result<f64> = tokio::select! {
        nanos = measured => nanos,
        Some(left) = all.join_next() => left?.and_then(|()| bail!("a user left")),
    };
    users.enough.store(true, Ordering::Relaxed);
    while let Some(left) = all.join_next().await {
        left??;
    }
    nanos
}

/// Returns the cost of a request to each of two hosts: medians of all turns.
async fn take_turns(lab: &Lab, hosts: [&str; 2]) -> anyhow::Result<[f64; 2]> {
    for host in hosts {
        slice(lab, host, WARM_UP).await?;
    }
    let mut costs = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        // Whoever comes first comes second in the next turn.
        for place in 0..2 {
            let which = (turn + place) % 2;
            if let (Some(host), Some(costs)) = (hosts.get(which), costs.get_mut(which)) {
                costs.push(slice(lab, host, OPENING).await?);
            }
        }
    }
    Ok(costs.map(|mut costs| quantile(&mut costs, 0.5)))
}

/// What the filter costs, in proportion to what a request costs without it.
struct Ratios {
    /// Where no rollout runs.
    off: f64,
    /// Where one runs, by the other host as control.
    on: f64,
    /// Where one runs, without control.
    plain: f64,
    /// Not a ratio: microseconds of a request without the filter.
    without_us: f64,
}

async fn measure(lab: &Lab, host: &str) -> anyhow::Result<Ratios> {
    let mut rounds = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let mut costs = [[0.0; 2]; 2];
        // Whoever comes first comes second in the next round.
        for place in 0..2 {
            let with = (round + place) % 2;
            lab.install((with == 1).then_some(wingbeat::FILTER)).await;
            if let Some(costs) = costs.get_mut(with) {
                *costs = take_turns(lab, ["settled", host]).await?;
            }
        }
        let [[settled_without, without], [settled, with]] = costs;
        let plain = with / without;
        let off = settled / settled_without;
        for (all, round) in rounds.iter_mut().zip([off, plain / off, plain, without / 1e3]) {
            all.push(round);
        }
    }
    ensure!(lab.canary(host).requests > REQUESTS, "{host} is counted");
    let [off, on, plain, without_us] = rounds.map(|mut all| quantile(&mut all, 0.5));
    Ok(Ratios { off, on, plain, without_us })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let canary = Entries::try_new(&visitor::rules()).ok().context("the guide's rules")?;
    let rules = Rules { served: Entries::default(), canary };
    let probe = |name: &str| {
        format!("GET / HTTP/1.1\r\nhost: {name}.local\r\ncookie: type=insider\r\nconnection: close\r\n\r\n")
    };
    let service = Some(service().await?);
    let plain = |name: &str, audience| Test { primary: service, canary: service, ..Test::new(name, audience) };
    let settled = Test { settled: true, ..plain("settled", Targeting::Chance) };
    let weighted = Test { weight: 5, ..plain("weighted", Targeting::Chance) };
    let matched = plain("matched", Targeting::Rules { rules, holdback: BasisPoints::ZERO });
    // A host that is divided by rules costs every host that is judged a call: hence two Envoys.
    let by_weight = Lab::open(&[settled.clone(), weighted], ("weighted", probe("weighted").as_bytes())).await;
    let by_rules = Lab::open(&[settled, matched], ("matched", probe("matched").as_bytes())).await;

    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > 1, "Envoy needs a core for itself: there is one");
    pin(std::process::id(), &format!("1-{}", cores - 1))?;
    for lab in [&by_weight, &by_rules] {
        pin(lab.envoy().pid().context("Envoy runs")?, "0")?;
    }

    let judged = measure(&by_weight, "weighted").await?;
    let ab = measure(&by_rules, "matched").await?;
    Ok(print(&json!({
        "rounds": ROUNDS,
        "requests_a_round": TURNS * usize::try_from(REQUESTS)?,
        "without_filter_us": judged.without_us,
        "ratio_off": judged.off,
        "ratio_off_beside_ab": ab.off,
        "ratio_judged": judged.on,
        "ratio_judged_plain": judged.plain,
        "ratio_ab": ab.on,
        "ratio_ab_plain": ab.plain,
    }))?)
}
