//! Rollouts in a real Kubernetes in whose midst the controller is killed, paused or asked to end, or etcd is away: how long nobody
//! leads, what it costs users, and whether each rollout ends as it should.
//!
//! `SEED` says when it is killed, `RANDOM` how often that is at a moment of its own (12), `LANES` how many rollouts run at a time (4),
//! `PAUSE` for how many seconds a leader is paused, and etcd (60), and `TAKEOVERS` how often another replica takes over (5).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use wingbeat_benches::{asked, print, quantile, row, seed};
use wingbeat_e2e::etcd_away::{Away, analysis, breaks};
use wingbeat_e2e::gateway::{Gateway, Kind};
use wingbeat_e2e::kills::{Case, Moment, Outcome, RATE, Successor, choose};
use wingbeat_e2e::takeover::{ended, killed, paused};
use wingbeat_test_cluster::{Cluster, Options};

/// In which a rollout of ten steps of half a second is under way.
const UNDER_WAY_MILLIS: u64 = 14_000;
/// Of a kind of write, it is killed after one of the first so many.
const MAX_COUNT: u64 = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let seed = seed()?;
    let mut figures = json!({"seed": seed});
    kills(&mut figures, seed).await?;
    takeovers(&mut figures).await?;
    etcd(&mut figures).await?;
    Ok(print(&figures)?)
}

/// Returns all cases: healthy and broken ones in turn.
fn cases(seed: u64) -> Vec<Case> {
    let number = |index: u64, below: u64| choose(seed, index, below);
    let count = |index: u64| u32::try_from(1 + number(index, MAX_COUNT)).unwrap_or(1);
    let case = |is_healthy: bool, kills: Vec<Moment>, successor: Successor| Case { is_healthy, kills, successor };
    let mut cases = Vec::new();
    for (index, kind) in (0..).zip(Kind::OF_ROLLOUT) {
        for is_healthy in [true, false] {
            cases.push(case(is_healthy, vec![Moment::After(kind, 1)], Successor::Container));
        }
        cases.push(case(true, vec![Moment::After(kind, count(index))], Successor::Container));
        cases.push(case(false, vec![Moment::After(kind, 1)], Successor::Pod));
    }
    for index in 0..asked("RANDOM").unwrap_or(12) {
        let at = |index: u64| Moment::At(Duration::from_millis(number(index, UNDER_WAY_MILLIS)));
        let is_healthy = index % 2 == 0;
        cases.push(case(is_healthy, vec![at(100 + index), at(200 + index)], Successor::Container));
    }
    cases
}

/// Carries all cases out, some at a time, each in a namespace with a controller and an Envoy of its own.
async fn kills(figures: &mut Value, seed: u64) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start(Options::default()).await?);
    let cases = cases(seed);
    let lanes = usize::try_from(asked("LANES").unwrap_or(4)).unwrap_or(1).max(1);
    let lane = async |lane: usize| {
        let mut gateway = Gateway::start_in(cluster.clone(), &format!("lane-{lane}")).await;
        let users = gateway.users_at(RATE);
        let mut outcomes = Vec::new();
        for (number, case) in cases.iter().enumerate().filter(|(number, _)| number / 2 % lanes == lane) {
            let number = u64::try_from(number).unwrap_or_default();
            let outcome = case.run(&mut gateway, &users, number).await;
            let outcome = outcome.with_context(|| format!("{case:?}:\n{}", gateway.said()))?;
            row(&format!("{case:?}"), &format!("{outcome:?}"), "ends right", is_right(case, &outcome))?;
            outcomes.push((case.clone(), outcome));
        }
        anyhow::Ok(outcomes)
    };
    let done = futures::future::join_all((0..lanes).map(lane)).await;
    let mut outcomes = Vec::new();
    for lane in done {
        outcomes.extend(lane?);
    }
    let sum = |of: &dyn Fn(&Case, &Outcome) -> usize| -> usize { outcomes.iter().map(|(case, it)| of(case, it)).sum() };
    let away = |successor: Successor| -> Vec<f64> {
        let of = outcomes.iter().filter(|(case, _)| case.successor == successor);
        of.flat_map(|(_, outcome)| outcome.away.iter().map(Duration::as_secs_f64)).collect()
    };
    let (mut container, mut pod) = (away(Successor::Container), away(Successor::Pod));
    let own = json!({
        "rollouts": outcomes.len(),
        "kills": container.len() + pod.len(),
        "healthy_requests": sum(&|case, it| if case.is_healthy { usize::try_from(it.finished).unwrap_or(0) } else { 0 }),
        "healthy_failed": sum(&|case, it| if case.is_healthy { it.failed } else { 0 }),
        "failed_after_rollback": sum(&|case, it| if case.is_healthy { 0 } else { it.failed_afterwards }),
        "ended_wrong": sum(&|case, it| usize::from(!is_right(case, it))),
        "events_missing": sum(&|_, it| it.missing.len()),
        "restarted_median_s": quantile(&mut container, 0.5),
        "restarted_worst_s": quantile(&mut container, 1.0),
        "replaced_worst_s": quantile(&mut pod, 1.0),
    });
    merge(figures, own);
    Ok(())
}

fn is_right(case: &Case, outcome: &Outcome) -> bool {
    outcome.failed_afterwards == 0 && (outcome.failed == 0 || !case.is_healthy)
}

/// Has other replicas take over, after a leader was killed, asked to end, and paused.
async fn takeovers(figures: &mut Value) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start(Options::default()).await?);
    let mut gateway = Gateway::start_in(cluster, "takeovers").await;
    let users = gateway.users_at(RATE);
    let (mut after_kill, mut after_term) = (Vec::new(), Vec::new());
    for round in 0..asked("TAKEOVERS").unwrap_or(5) {
        after_kill.push(killed(&mut gateway, &format!("killed-{round}")).await.as_secs_f64());
        after_term.push(ended(&mut gateway, &format!("ended-{round}")).await.as_secs_f64());
    }
    let late = paused(&mut gateway, "paused", Duration::from_secs(asked("PAUSE").unwrap_or(60))).await;
    gateway.assert_allowed();
    let tally = users.stop(Duration::from_secs(5)).await;
    let own = json!({
        "after_kill_worst_s": quantile(&mut after_kill, 1.0),
        "after_term_worst_s": quantile(&mut after_term, 1.0),
        "takeover_failed": tally.failed.len(),
        "late_writes": late.late.len(),
    });
    merge(figures, own);
    Ok(())
}

/// Has canaries break while etcd is away.
async fn etcd(figures: &mut Value) -> anyhow::Result<()> {
    let duration = Duration::from_secs(asked("PAUSE").unwrap_or(60));
    for (name, away) in [("paused", Away::Paused), ("killed", Away::Killed)] {
        let cluster = Arc::new(Cluster::start(Options::default()).await?);
        let gateway = Gateway::begin(cluster, &format!("etcd-{name}"), analysis()).await;
        gateway.until_phase("Initialized", Duration::from_mins(2)).await;
        let outcome = breaks(&gateway, away, duration, "bad").await;
        let own = json!({
            format!("etcd_{name}_out_ms"): outcome.out.as_secs_f64() * 1e3,
            format!("etcd_{name}_failed_afterwards"): outcome.failed_afterwards,
            format!("etcd_{name}_stored_s"): outcome.stored.as_secs_f64(),
        });
        merge(figures, own);
    }
    Ok(())
}

fn merge(figures: &mut Value, more: Value) {
    if let (Some(figures), Value::Object(more)) = (figures.as_object_mut(), more) {
        figures.extend(more);
    }
}
