//! A1: who deletes a Canary takes nobody's service away.
//!
//! Users by the Service's name go on being answered to the end, those who come through Envoy as long as there is a route: it ends with
//! the Canary, and they get 404 from then on, which is no failure of a request here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::Instant;
use wingbeat_test_cluster::Cluster;

use crate::pods::{Pods, Seen};
use crate::report::Report;
use crate::scene::{CANARY, GRACE, RATE, REPLICAS, Scene, release, seconds};

/// How long slow Pods take to be ready.
const SLOW: Duration = Duration::from_secs(10);
/// The Canary is gone within this time, in seconds.
const GONE: f64 = 60.0;
/// What is not gone by then is not waited for any longer.
const LATE: &str = "--timeout=180s";

/// When it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    AtRest,
    /// Its canary has 30 % of the requests.
    InRollout,
}

/// Deletes Canaries at rest and in a rollout, of Pods that are ready at once and of slow ones.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    for (name, moment, slow) in [
        ("a1-at-rest", Moment::AtRest, None),
        ("a1-in-rollout", Moment::InRollout, None),
        ("a1-at-rest-slow", Moment::AtRest, Some(SLOW)),
        ("a1-in-rollout-slow", Moment::InRollout, Some(SLOW)),
    ] {
        delete(cluster, report, name, moment, slow).await?;
    }
    Ok(())
}

async fn delete(
    cluster: &Arc<Cluster>,
    report: &mut Report,
    name: &str,
    moment: Moment,
    slow: Option<Duration>,
) -> anyhow::Result<()> {
    let analysis = json!({"interval": "5s", "threshold": 3, "stepWeights": [30, 50], "judge": {"mode": "guard"}});
    let scene = Scene::new(name, &analysis);
    let scene = match slow {
        Some(time) => scene.ready_after(time)?,
        None => scene,
    };
    let gateway = scene.open(cluster).await;
    let by_name = gateway.by_name("backend").await;
    let users = gateway.users_at(RATE);
    if moment == Moment::InRollout {
        let said = gateway.said().len();
        release(&gateway, "1.4.1").await;
        gateway.until_said(said, "canary weight 30").await;
    }
    let pods = Pods::watch(&gateway)?;
    let served = |all: &[Seen]| all.iter().filter(|pod| pod.ready.is_some()).count() == REPLICAS;
    pods.until("the primary serves", "backend-primary", served).await?;
    let deleted = Instant::now();
    gateway.kubectl(&["delete", CANARY, "--wait=false"]).await;
    gateway.kubectl(&["wait", "--for=delete", CANARY, LATE]).await;
    let gone = deleted.elapsed().as_secs_f64();
    let over = |all: &[Seen]| all.iter().all(|pod| pod.gone.is_some());
    let of_primary = pods.until("the primary's Pods are gone", "backend-primary", over).await?;
    let asked = by_name.asked();
    let tally = users.stop(GRACE).await;

    // Those that it had at first are gone.
    let of_target = pods.of("backend").into_iter().filter(|pod| pod.deleted.is_none());
    let mut ready: Vec<Instant> = of_target.filter_map(|pod| pod.ready).collect();
    ready.sort();
    let complete = ready.get(REPLICAS - 1).context("the target's Pods were never all ready")?;
    let first = of_primary.iter().filter_map(|pod| pod.deleted).min().context("no Pod of the primary was deleted")?;
    let lead = seconds(*complete, first);
    ensure!(asked.answered > 100, "hardly anybody asked by name: {asked:?}");

    let what = match moment {
        Moment::AtRest => "deleted at rest",
        Moment::InRollout => "deleted at 30 %",
    };
    let what = slow.map_or_else(|| what.to_owned(), |time| format!("{what}, Pods take {time:?}"));
    report.users("a1_failed", &format!("{what}: through Envoy, while it has a route"), &tally, 0)?;
    let (failed, answered) = (asked.failed.len(), asked.answered);
    report.add("a1_failed", failed);
    let first_reason = asked.failed.first().map(|why| format!(", as {why}")).unwrap_or_default();
    let figure = format!("{failed} of {} requests failed{first_reason}", usize::try_from(answered)? + failed);
    report.row(&format!("{what}: by the Service's name, to the end"), &figure, "0", failed == 0)?;
    report.worst("a1_gone_worst_s", gone);
    report.row(&format!("{what}: the Canary is gone"), &format!("{gone:.1} s"), "≤ 60 s", gone <= GONE)?;
    report.least("a1_lead_least_s", lead);
    let figure = format!("{lead:.1} s before the first Pod of the primary is deleted");
    report.row(&format!("{what}: all {REPLICAS} Pods of the target are ready"), &figure, "before", lead > 0.0)?;
    report.explain(&gateway)
}
