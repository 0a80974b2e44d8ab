//! A15: no share is above the highest one, and after an abort there is none, whoever scales what.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use wingbeat_benches::asked;
use wingbeat_e2e::gateway::Gateway;
use wingbeat_test_cluster::Cluster;

use crate::audit::{millis, received};
use crate::proxies::Weights;
use crate::report::Report;
use crate::scene::{CANARY, GRACE, PHASE, PRIMARY, RATE, Scene, TARGET, release, scaled_down};

/// No request is led to the canary any more within this time after an abort, in milliseconds.
const OUT: f64 = 1_000.0;
/// The sizes of the primary after it.
const SIZES: [&str; 3] = ["3", "10", "3"];

/// Rolls out by steps that do not meet the highest weight, and aborts the next one.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let rest = Duration::from_secs(asked("REST").unwrap_or(60));
    let analysis =
        json!({"interval": "2s", "threshold": 3, "stepWeight": 20, "maxWeight": 50, "judge": {"mode": "guard"}});
    let gateway = Scene::new("a15", &analysis).open(cluster).await;
    let users = gateway.users_at(RATE);
    let weights = Weights::watch(&gateway)?;
    weights.until(0).await?;
    release(&gateway, "1.4.1").await;
    gateway.until_phase("Progressing", PHASE).await;
    gateway.until_phase("Succeeded", PHASE).await;
    scaled_down(&gateway).await;
    let seen = weights.seen();
    report.row(
        "stepWeight 20, maxWeight 50: weights at Envoy",
        &format!("{seen:?}"),
        "0, 20, 40, 50, 0",
        seen == [0, 20, 40, 50, 0],
    )?;

    release(&gateway, "1.4.2").await;
    weights.until(20).await?;
    let from = gateway.audit_end();
    gateway.kubectl(&["annotate", CANARY, "wingbeat.dev/command=abort/kube-lines"]).await;
    let out = weights.until(0).await?;
    let out = millis(received(&gateway, from, "canaries").await?, out);
    report.worst("a15_out_ms", out);
    report.row("abort at 20 %: weight 0 at Envoy", &format!("{out:.0} ms"), "≤ 1 s", out <= OUT)?;
    gateway.until_phase("Failed", PHASE).await;
    scaled_down(&gateway).await;
    let (since, generation, began) = (weights.seen().len(), generation(&gateway).await, Instant::now());
    for (turn, size) in (1_u32..).zip(SIZES) {
        gateway.kubectl(&["scale", PRIMARY, &format!("--replicas={size}")]).await;
        gateway.until_within("the primary is as large", PRIMARY, "{.status.readyReplicas}", size, PHASE).await;
        tokio::time::sleep_until(began + rest * turn / 3).await;
    }
    let seen = weights.seen().split_off(since);
    let replicas = gateway.words(TARGET, "{.spec.replicas}").await.concat();
    let is_kept = generation == self::generation(&gateway).await && replicas == "0";
    let tally = users.stop(GRACE).await;
    let what = format!("for {rest:?} after it, primary 3→10→3");
    report.row(&format!("{what}: weights at Envoy"), &format!("{seen:?}"), "no other", seen.is_empty())?;
    let figure = format!("{replicas} Pods, {}", if is_kept { "never written" } else { "written" });
    report.row(&format!("{what}: the target has"), &figure, "0 Pods", is_kept)?;
    report.users("a15_failed", "a promotion, an abort, and after it: users", &tally, 0)?;
    report.explain(&gateway)
}

/// Returns which version of its spec the target has: whoever writes a size makes another one.
async fn generation(gateway: &Gateway) -> String {
    gateway.words(TARGET, "{.metadata.generation}").await.concat()
}
