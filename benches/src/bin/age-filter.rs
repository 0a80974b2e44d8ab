//! Whether a filter ages: thousands of rollouts through one Envoy, and then a canary that fails every request, in turn with
//! the same at Envoys that are new.
//!
//! Each rollout has a revision of its own, an epoch of its own, routes that reach Envoy, and requests that are counted;
//! then it is promoted or aborted. Hosts have theirs at a time. `ROLLOUTS` says how many. Memory is that of Envoy, with
//! the filter's modules in it, and what this process has allocated, which is control plane, services and users at once:
//! once a tenth of the rollouts are over, so that what is filled once does not count, and at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use wingbeat_benches::{asked, memory, print, quantile, row};
use wingbeat_controller::verb::Verb;
use wingbeat_demo::clock::now;
use wingbeat_demo::service::Behaviour;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::fleet::Fleet;
use wingbeat_e2e::reached;
use wingbeat_e2e::rollouts::{Ended, Fault, Host, Spec};

/// Rollouts where nothing else is said.
const ROLLOUTS: u64 = 10_000;
/// Hosts that have rollouts at a time.
const HOSTS: u64 = 20;
/// From the beginning of a host's rollout to that of its next one, at least. As fast as it goes, requests would wait for a
/// core and users open connection after connection: what is held would tell how busy the machine is, and not how old.
const PACE: Duration = Duration::from_secs(1);
/// Requests a second of users of each, half of them the canary's.
const RATE: u32 = 60;
/// One rollout in so many is promoted, the others are aborted.
const PROMOTED: u64 = 10;
/// Envoys that are new, and how often a canary breaks at each: as often at the one that is not.
const NEW: usize = 8;
const TURNS: usize = 5;
/// Requests a second of users of the canary that breaks, a tenth of them its own.
const RATE_AT_FAULT: u32 = 500;
/// KiB that the modules of an Envoy may hold: three of them, and a page of wasm is 64 KiB.
const MOST_OF_MODULES: u64 = 1_024;
/// From the first share to the fault.
const HEALTHY_AT_FIRST: Duration = Duration::from_millis(600);

/// What is held at a moment, in KiB.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Resident memory of Envoy, what it has allocated, and what of it are the filter's modules.
    envoy: u64,
    envoy_allocated: u64,
    modules: u64,
    /// What this process has allocated.
    here: u64,
    state: u64,
    /// Envoy's log.
    log: u64,
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum / 1_024)
}

impl Held {
    async fn by(fleet: &Fleet) -> anyhow::Result<Self> {
        let envoy = fleet.envoy(0).context("it runs")?;
        let (process, admin) = (envoy.pid().context("it runs")?, envoy.admin().context("it runs")?);
        Ok(Self {
            envoy: memory::resident(process)?,
            envoy_allocated: memory::allocated(admin).await? / 1_024,
            modules: memory::modules(process)?,
            here: memory::allocated_here().unwrap_or_default() / 1_024,
            state: size(fleet.state())?,
            log: envoy.log().len() as u64 / 1_024,
        })
    }
}

fn spec(name: String, analysis: &str) -> Spec {
    let (analysis, patience) = (analysis.to_owned(), None);
    Spec { name, analysis, http2: false, mirrored: false, fault: Fault::Status, patience, visitors: ANYONE }
}

/// Has a host live through so many rollouts, each of which counts some requests.
async fn live(fleet: &Fleet, host: &mut Host, rollouts: u64) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..rollouts {
        pace.tick().await;
        host.begin(fleet, Behaviour::default()).await?;
        let counted = || fleet.view(host.name()).is_some_and(|view| view.measured().canary.requests > 0);
        reached(counted).await;
        host.end(fleet, if number % PROMOTED == 0 { Verb::Promote } else { Verb::Abort }).await?;
    }
    Ok(())
}

/// Breaks a canary. Returns the milliseconds to its last request.
async fn break_one(fleet: &Fleet, host: &mut Host) -> anyhow::Result<f64> {
    host.load(fleet, 0, RATE_AT_FAULT).await;
    let began = host.begin(fleet, Behaviour::default()).await?;
    tokio::time::sleep(HEALTHY_AT_FIRST).await;
    let played = host.broken(fleet, began).await?;
    ensure!(played.ended == Ended::RolledBack, "{:?}: {}", played.ended, played.reason());
    host.load(fleet, 0, 0).await;
    Ok(played.out.context("it is out")?.as_secs_f64() * 1e3)
}

const BREAKS: &str = "interval: 1m, stepWeight: 10, maxWeight: 50";

async fn new_host(fleet: &Fleet) -> anyhow::Result<Host> {
    Host::open(fleet, spec("breaks".to_owned(), BREAKS)).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rollouts = asked("ROLLOUTS").unwrap_or(ROLLOUTS);
    let each = rollouts.div_ceil(HOSTS);
    let mut old = Fleet::start(1).await?;
    old.join(0).await?;
    let mut hosts = Vec::new();
    for number in 0..HOSTS {
        let mut host =
            Host::open(&old, spec(format!("host-{number}"), "interval: 10m, stepWeight: 50, maxWeight: 50")).await?;
        host.load(&old, 0, RATE).await;
        hosts.push(host);
    }
    let started = now();
    let some = each.div_ceil(10);
    try_join_all(hosts.iter_mut().map(|host| live(&old, host, some))).await?;
    let (before, first) = (Held::by(&old).await?, started.elapsed());
    let rest: Instant = now();
    try_join_all(hosts.iter_mut().map(|host| live(&old, host, each - some))).await?;
    let (after, rest) = (Held::by(&old).await?, rest.elapsed());
    for host in hosts {
        host.close(&old).await?;
    }
    let mut aged = new_host(&old).await?;
    let (mut at_old, mut at_new) = (Vec::new(), Vec::new());
    for _ in 0..NEW {
        let mut new = Fleet::start(1).await?;
        new.join(0).await?;
        let mut fresh = new_host(&new).await?;
        for turn in 0..TURNS {
            // Whoever comes first comes second in the next turn.
            for place in 0..2 {
                if (turn + place) % 2 == 0 {
                    at_old.push(break_one(&old, &mut aged).await?);
                } else {
                    at_new.push(break_one(&new, &mut fresh).await?);
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "KiB and counts")]
    let ratio = |after: u64, before: u64| after as f64 / before as f64;
    let (out_old, out_new) = (quantile(&mut at_old, 0.5), quantile(&mut at_new, 0.5));
    let out = out_old / out_new;
    let done = each * HOSTS;
    row(
        "fault to last canary request, old Envoy beside new ones, medians",
        &format!("{out_old:.0} ms beside {out_new:.0} ms"),
        "ratio ≤ 1.2",
        out <= 1.2,
    )?;
    for (what, after, before) in [
        ("resident memory of Envoy, after all rollouts beside a tenth of them", after.envoy, before.envoy),
        ("allocated by Envoy", after.envoy_allocated, before.envoy_allocated),
        ("allocated by control plane, services and users", after.here, before.here),
        ("state folder", after.state, before.state),
    ] {
        let figure = format!("{after} KiB beside {before} KiB");
        row(what, &figure, "ratio ≤ 1.2", ratio(after, before) <= 1.2)?;
    }
    row(
        "memory of the filter's modules",
        &format!("{} KiB beside {} KiB", after.modules, before.modules),
        "1 MiB",
        after.modules <= MOST_OF_MODULES,
    )?;
    row("Envoy's log", &format!("{} KiB beside {} KiB", after.log, before.log), "none", true)?;
    Ok(print(&json!({
        "rollouts": done,
        "rollouts_a_second_first_tenth": ratio(some * HOSTS, 1) / first.as_secs_f64(),
        "rollouts_a_second_then": ratio((each - some) * HOSTS, 1) / rest.as_secs_f64(),
        "out_old_ms": out_old,
        "out_new_ms": out_new,
        "out_old_worst_ms": quantile(&mut at_old, 1.0),
        "out_new_worst_ms": quantile(&mut at_new, 1.0),
        "out_ratio": out,
        "envoy_ratio": ratio(after.envoy, before.envoy),
        "envoy_allocated_ratio": ratio(after.envoy_allocated, before.envoy_allocated),
        "modules_kib": after.modules,
        "here_ratio": ratio(after.here, before.here),
        "state_ratio": ratio(after.state, before.state),
    }))?)
}
