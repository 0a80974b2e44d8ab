//! What the filter costs: CPU time of Envoy per proxied request, side by side.
//!
//! The same load on one host after the other, round by round: twice without the filter, which shows the noise; with the
//! filter installed, on a host without a rollout; on one that is judged by weight; and, in a second Envoy, without the
//! filter and on a host that is divided by the guide's two rules. Ratios are of one Envoy: two differ by more than what
//! is measured.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_benches::{print, quantile};
use wingbeat_controller::setup::Audience;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::Envoy;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::visitor;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::reached;

const ROUNDS: usize = 15;
const RATE: u32 = 2_000;
const REQUESTS: u64 = 4_000;

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

/// Returns nanoseconds of CPU per request.
async fn round(envoy: &Envoy, entry: SocketAddr, host: &str) -> anyhow::Result<f64> {
    let config =
        LoadConfig { target: entry, host: host.to_owned(), rate: RATE, patience: None, visitors: visitor::AUDIENCE };
    let users = Load::start(config);
    // The first requests open connections.
    reached(|| users.tally().finished >= 500).await;
    let (before, started) = (used(envoy)?, users.tally().finished);
    reached(|| users.tally().finished >= started + REQUESTS).await;
    let (after, ended) = (used(envoy)?, users.tally().finished);
    let tally = users.stop(Duration::from_secs(5)).await;
    ensure!(tally.failed.is_empty(), "requests failed: {tally:?}");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
    Ok((after - before) as f64 / (ended - started) as f64)
}

/// Installs the filter or takes it away, and waits until Envoy has done so.
async fn install(lab: &Lab, filter: bool) -> anyhow::Result<()> {
    lab.install(filter.then_some(wingbeat::FILTER));
    let admin = lab.envoy().admin().context("Envoy has an administration interface")?;
    let request = b"GET /config_dump?resource=dynamic_listeners HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n";
    let installed = async {
        loop {
            let mut connection = TcpStream::connect(admin).await?;
            connection.write_all(request).await?;
            let mut dump = Vec::new();
            connection.read_to_end(&mut dump).await?;
            if String::from_utf8_lossy(&dump).contains("config_discovery") == filter {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), installed).await?
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let canary = Entries::try_new(&visitor::rules()).ok().context("the guide's rules")?;
    let rules = Rules { served: Entries::default(), canary };
    let probe = |name: &str| {
        format!("GET / HTTP/1.1\r\nhost: {name}.local\r\ncookie: type=insider\r\nconnection: close\r\n\r\n")
    };
    let tests = [
        Test { settled: true, ..Test::new("settled", Audience::Chance) },
        Test { weight: 5, ..Test::new("weighted", Audience::Chance) },
    ];
    let weighted = Lab::open(&tests, ("weighted", probe("weighted").as_bytes())).await;
    let tests = [Test::new("matched", Audience::Rules { rules, holdback: BasisPoints::ZERO })];
    let matched = Lab::open(&tests, ("matched", probe("matched").as_bytes())).await;
    let variants = [
        (&weighted, false, "weighted"),
        (&weighted, false, "weighted"),
        (&weighted, true, "settled"),
        (&weighted, true, "weighted"),
        (&matched, false, "matched"),
        (&matched, true, "matched"),
    ];
    let mut costs: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        for ((lab, filter, name), costs) in variants.iter().zip(&mut costs) {
            install(lab, *filter).await?;
            costs.push(round(lab.envoy(), lab.entry(), &format!("{name}.local")).await?);
        }
    }
    for (lab, name) in [(&weighted, "weighted"), (&matched, "matched")] {
        ensure!(lab.canary(name).requests > REQUESTS / 100, "{name} is counted");
    }
    let [none, control, off, judged, none_matched, ab] = &mut costs;
    let ratio = |costs: &[f64], base: &[f64]| {
        let mut ratios: Vec<f64> = costs.iter().zip(base).map(|(cost, base)| cost / base).collect();
        quantile(&mut ratios, 0.5)
    };
    let [ratio_control, ratio_off, ratio_judged] = [control, off, judged].map(|costs| json!(ratio(costs, none)));
    let ratio_ab = ratio(ab, none_matched);
    let micros = quantile(none, 0.5) / 1e3;
    Ok(print(&json!({
        "rounds": ROUNDS,
        "requests_a_round": REQUESTS,
        "without_filter_us": micros,
        "ratio_control": ratio_control,
        "ratio_off": ratio_off,
        "ratio_judged": ratio_judged,
        "ratio_ab": ratio_ab,
    }))?)
}
