//! What the filter costs: CPU time of Envoy per proxied request, side by side.
//!
//! Five Envoys with the same load in turn, round by round: two without the filter (what they differ by is noise); with
//! the filter installed and no rollout; judged by weight; divided by the guide's two rules.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wingbeat_benches::{print, quantile};
use wingbeat_controller::setup::{Audience, Setup};
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::weight::BasisPoints;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::scene::Scenario;
use wingbeat_demo::stage::{HOST, PRIMARY, Stage};
use wingbeat_demo::visitor;
use wingbeat_e2e::lab::{Lab, Test, scene};
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?;
    let scene = scene(Scenario::NoTraffic);
    let off = Stage::build(&scene, &binary, wingbeat::FILTER).await?;
    let none = Stage::build(&scene, &binary, wingbeat::FILTER).await?;
    let control = Stage::build(&scene, &binary, wingbeat::FILTER).await?;
    for stage in [&none, &control] {
        let without = Setup { filter: None, ..stage.setup(&scene, PRIMARY, wingbeat::FILTER)? };
        stage.handle().configure(without)?;
    }

    let weighted = Test { weight: 5, ..Test::new("weighted", Audience::Chance) };
    let request = |name: &str| {
        format!("GET / HTTP/1.1\r\nhost: {name}.local\r\ncookie: type=insider\r\nconnection: close\r\n\r\n")
    };
    let judged = Lab::open(&[weighted], ("weighted", request("weighted").as_bytes())).await;
    let canary = Entries::try_new(&visitor::rules()).ok().context("the guide's rules")?;
    let rules = Rules { served: Entries::default(), canary };
    let matched = Test::new("matched", Audience::Rules { rules, holdback: BasisPoints::ZERO });
    let ab = Lab::open(&[matched], ("matched", request("matched").as_bytes())).await;

    let variants = [
        (none.envoy(), none.entry(), HOST),
        (control.envoy(), control.entry(), HOST),
        (off.envoy(), off.entry(), HOST),
        (judged.envoy(), judged.entry(), "weighted.local"),
        (ab.envoy(), ab.entry(), "matched.local"),
    ];
    let mut costs: [Vec<f64>; 5] = Default::default();
    for number in 0..ROUNDS {
        for place in 0..variants.len() {
            // Each round begins with another one.
            let place = (place + number) % variants.len();
            let (Some((envoy, entry, host)), Some(costs)) = (variants.get(place), costs.get_mut(place)) else {
                continue;
            };
            costs.push(round(envoy, *entry, host).await?);
        }
    }
    ensure!(judged.canary("weighted").requests > 0 && ab.canary("matched").requests > 0, "both are counted");
    let [none, control, off, judged, ab] = &mut costs;
    let ratio = |costs: &[f64]| {
        let mut ratios: Vec<f64> = costs.iter().zip(none.iter()).map(|(cost, base)| cost / base).collect();
        quantile(&mut ratios, 0.5)
    };
    let ratios: [Value; 4] = [control.as_slice(), off, judged, ab].map(|costs| json!(ratio(costs)));
    let [ratio_control, ratio_off, ratio_judged, ratio_ab] = ratios;
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
