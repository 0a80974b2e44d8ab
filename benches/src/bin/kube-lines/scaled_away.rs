//! A6: a canary whose Pods somebody takes away gets no requests.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wingbeat_test_cluster::Cluster;

use crate::audit::{millis, received};
use crate::proxies::Weights;
use crate::report::Report;
use crate::scene::{CANARY, GRACE, PHASE, RATE, Scene, TARGET, release};

/// No request is led to it any more within this time, in milliseconds.
const OUT: f64 = 1_000.0;
/// So many requests may fail.
const FAILED: usize = 300;
/// For how long users are watched afterwards.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// How who scales to zero by the scale subresource is named: an API server notes no field manager then.
const BY_SCALE: &str = "Who scales by the scale subresource, as `kubectl scale` does,";

/// Scales the target to zero while it has 30 % of the requests: as people do, and as who edits the Deployment.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let patch = json!({"spec": {"replicas": 0}}).to_string();
    for (name, what, command, who) in [
        ("a6", "kubectl scale", vec!["scale", TARGET, "--replicas=0"], BY_SCALE),
        ("a6-patch", "kubectl patch", vec!["patch", TARGET, "--patch", &patch], "kubectl-patch"),
    ] {
        take_away(cluster, report, name, what, &command, who).await?;
    }
    Ok(())
}

async fn take_away(
    cluster: &Arc<Cluster>,
    report: &mut Report,
    name: &str,
    what: &str,
    command: &[&str],
    who: &str,
) -> anyhow::Result<()> {
    let analysis = json!({"interval": "20s", "threshold": 3, "stepWeights": [30, 50], "judge": {"mode": "guard"}});
    let gateway = Scene::new(name, &analysis).open(cluster).await;
    let users = gateway.users_at(RATE);
    let weights = Weights::watch(&gateway)?;
    release(&gateway, "1.4.1").await;
    weights.until(30).await?;
    let from = gateway.audit_end();
    gateway.kubectl(command).await;
    let out = weights.until(0).await?;
    let out = millis(received(&gateway, from, "deployments").await?, out);
    let scaled = |field: &str| format!("{{.status.conditions[?(@.type==\"Scaled\")].{field}}}");
    gateway.until_within("it is told", CANARY, &scaled("status"), "False", PHASE).await;
    let message = gateway.words(CANARY, &scaled("message")).await.join(" ");
    tokio::time::sleep(AFTERWARDS).await;
    let tally = users.stop(GRACE).await;
    let last = weights.seen().last().copied();
    let what = format!("target without Pods at 30 %, by {what}");
    report.worst("a6_out_ms", out);
    report.row(&format!("{what}: weight 0 at Envoy"), &format!("{out:.0} ms"), "≤ 1 s", out <= OUT)?;
    let figure = format!("{} % {AFTERWARDS:?} later", last.unwrap_or_default());
    report.row(&format!("{what}: and stays so"), &figure, "0 %", last == Some(0))?;
    report.users("a6_failed", &format!("{what}: users"), &tally, FAILED)?;
    let names = message.starts_with(&format!("{who} gave the target 0 Pods"));
    report.row(&format!("{what}: condition Scaled"), &message, &format!("names {who}"), names)?;
    report.explain(&gateway)
}
