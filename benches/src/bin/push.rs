//! How fast a change of the routes takes effect: from the decision to the first request that follows it, on one Envoy.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use wingbeat_benches::{print, quantile};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::{Control, free, model};
use wingbeat_xds_server::model::{Model, Split};
use wingbeat_xds_server::render::render;

const FLIPS: usize = 100;
/// Requests come this often: a change is seen half a millisecond late at most.
const RATE: u32 = 2_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services =
        [Service::start("1", 1, Behaviour::default()).await?, Service::start("2", 2, Behaviour::default()).await?];
    let [one, two] = &services;
    let (control, entry) = (Control::start(None).await, free().await);
    // Both clusters are there all the time, as in a rollout; the routes change.
    let flipped = |to: usize| -> anyhow::Result<Model> {
        let (mut both, other) = (model(entry, one, 1, true), model(entry, two, 2, true));
        both.clusters.extend(other.clusters);
        let cluster = both.clusters.get(to).context("there are two")?.name.clone();
        for host in &mut both.hosts {
            std::sync::Arc::make_mut(host).split = Split::Single(cluster.clone());
        }
        Ok(both)
    };
    control.store().publish(render(&flipped(0)?));
    let _envoy = control.envoy(false, None, entry).await?;
    let host = "backend.local".to_owned();
    let users = Load::start(LoadConfig { target: entry, host, rate: RATE, patience: None, visitors: ANYONE });
    let mut took = Vec::new();
    for flip in 0..FLIPS {
        let to = (flip + 1) % 2;
        // Long enough that what was on its way to the other revision has arrived.
        let before = users.tally().finished;
        while users.tally().finished < before + 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let service = services.get(to).context("there are two")?;
        let decided = service.behave(Behaviour::default());
        control.store().publish(render(&flipped(to)?));
        let mut poll = tokio::time::interval(Duration::from_millis(1));
        let first = loop {
            poll.tick().await;
            if let Some(first) = service.first_since_change() {
                break first;
            }
        };
        took.push(first.duration_since(decided).as_secs_f64() * 1e3);
    }
    let tally = users.stop(Duration::from_secs(5)).await;
    Ok(print(&json!({
        "flips": FLIPS,
        "median_ms": quantile(&mut took, 0.5),
        "p99_ms": quantile(&mut took, 0.99),
        "worst_ms": quantile(&mut took, 1.0),
        "requests": tally.sent,
        "lost": tally.failed.len(),
    }))?)
}
