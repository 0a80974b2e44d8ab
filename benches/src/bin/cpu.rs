//! What the filter costs: CPU time of Envoy per proxied request.
//!
//! Short slices of the same load, in turn, on two hosts of one Envoy: one without a rollout, and one that is judged by
//! weight or divided by the guide's two rules. Round by round, the filter is taken away and installed. What it costs where
//! it has nothing to do is the host without a rollout, with and without the filter: `ratio_off`. What it costs where it
//! judges is the other host's cost in proportion to the first's, with the filter, divided by the same without it: two
//! Envoys differ by more than what is measured, and so does one of them from minute to minute, but not two hosts of one
//! within a second. The plain ratios, which have no such control, are printed beside.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wingbeat_benches::{print, quantile};
use wingbeat_controller::setup::Audience;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::Envoy;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::visitor;
use wingbeat_e2e::lab::{Lab, Test};
use wingbeat_e2e::reached;

const ROUNDS: usize = 11;
/// How often the two hosts take turns in half a round.
const TURNS: usize = 6;
const RATE: u32 = 2_000;
/// Requests of a slice, and those before it that open connections.
const REQUESTS: u64 = 600;
const OPENING: u64 = 200;
/// Requests after which V8 has compiled what is called often.
const WARM_UP: u64 = 2_000;

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

/// Returns nanoseconds of CPU per request, after some that do not count.
async fn slice(lab: &Lab, host: &str, before: u64) -> anyhow::Result<f64> {
    let (envoy, host) = (lab.envoy(), format!("{host}.local"));
    let config = LoadConfig { target: lab.entry(), host, rate: RATE, patience: None, visitors: visitor::AUDIENCE };
    let users = Load::start(config);
    reached(|| users.tally().finished >= before).await;
    let (before, started) = (used(envoy)?, users.tally().finished);
    reached(|| users.tally().finished >= started + REQUESTS).await;
    let (after, ended) = (used(envoy)?, users.tally().finished);
    let tally = users.stop(Duration::from_secs(5)).await;
    ensure!(tally.failed.is_empty(), "requests failed: {tally:?}");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
    Ok((after - before) as f64 / (ended - started) as f64)
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
    for _ in 0..ROUNDS {
        lab.install(None).await;
        let [settled_without, without] = take_turns(lab, ["settled", host]).await?;
        lab.install(Some(wingbeat::FILTER)).await;
        let [settled, with] = take_turns(lab, ["settled", host]).await?;
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
    let settled = Test { settled: true, ..Test::new("settled", Audience::Chance) };
    let weighted = Test { weight: 5, ..Test::new("weighted", Audience::Chance) };
    let matched = Test::new("matched", Audience::Rules { rules, holdback: BasisPoints::ZERO });
    // A host that is divided by rules costs every host that is judged a call: hence two Envoys.
    let by_weight = Lab::open(&[settled.clone(), weighted], ("weighted", probe("weighted").as_bytes())).await;
    let by_rules = Lab::open(&[settled, matched], ("matched", probe("matched").as_bytes())).await;

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
