//! A Deployment behind an Envoy in a real Kubernetes, with the controller in the role that it is deployed with: how fast a broken
//! canary is out, and one that answers a second later (from then on to the last request that it gets), what a healthy one costs
//! users, how fast a change is answered, and what all of it costs the API server.
//!
//! `ROUNDS` says how many canaries break (10), and how many are slow, `HEALTHY` for how many seconds healthy rollouts run (200),
//! `CHANGES` how often the Deployment is changed (50).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use wingbeat_benches::{asked, print, quantile};
use wingbeat_e2e::gateway::broken::{fail, last_failure, last_request, slow};
use wingbeat_e2e::gateway::{Gateway, OURS};

const RATE: u32 = 1_000;
/// Time for a phase; it takes some seconds, but a busy machine may be slow.
const PHASE: Duration = Duration::from_mins(2);
/// How long nobody may do anything.
const REST: Duration = Duration::from_mins(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut figures = json!({});
    rollback(&mut figures).await?;
    guide(&mut figures).await?;
    Ok(print(&figures)?)
}

/// Breaks canaries that get a twentieth, has others answer a second later, and then has healthy ones promoted.
async fn rollback(figures: &mut Value) -> anyhow::Result<()> {
    let analysis = json!({"interval": "1s", "threshold": 3, "stepWeights": [5, 50], "judge": {"mode": "guard"}});
    let gateway = Gateway::measured("rollback", analysis).await?;
    let users = gateway.users_at(RATE);
    let (mut took, mut lost, mut after) = (Vec::new(), 0, 0);
    let rounds = asked("ROUNDS").unwrap_or(10);
    for round in 0..rounds {
        let said = gateway.said().len();
        gateway.kubectl(&["set", "image", "deployment/backend", &image("bad", round)]).await;
        gateway.until_said(said, "canary weight 5 ").await;
        let before = users.tally().failed.len();
        let broken = Instant::now();
        for pod in gateway.canaries(&format!("bad-{round}")).await {
            fail(&pod).await;
        }
        let last = last_failure(&users, before).await;
        gateway.until_phase("Failed", PHASE).await;
        took.push(last.duration_since(broken).as_secs_f64() * 1e3);
        let failed = users.tally().failed.len();
        lost += failed - before;
        gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
        after += users.tally().failed.len() - failed;
    }
    let mut slow_took = Vec::new();
    for round in 0..rounds {
        let said = gateway.said().len();
        gateway.kubectl(&["set", "image", "deployment/backend", &image("slow", round)]).await;
        gateway.until_said(said, "canary weight 5 ").await;
        let pods = gateway.canaries(&format!("slow-{round}")).await;
        let broken = Instant::now();
        for pod in &pods {
            slow(pod).await;
        }
        slow_took.push(last_request(&pods).await.duration_since(broken).as_secs_f64() * 1e3);
        gateway.until_phase("Failed", PHASE).await;
        gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    }
    users.mark();
    let (began, healthy) = (Instant::now(), Duration::from_secs(asked("HEALTHY").unwrap_or(200)));
    let mut rollouts = 0;
    while began.elapsed() < healthy {
        gateway.kubectl(&["set", "image", "deployment/backend", &image("good", rollouts)]).await;
        gateway.until_phase("Progressing", PHASE).await;
        gateway.until_phase("Succeeded", PHASE).await;
        gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
        rollouts += 1;
    }
    let tally = users.stop(Duration::from_secs(5)).await;
    let own = json!({
        "rollback_median_ms": quantile(&mut took, 0.5),
        "rollback_worst_ms": quantile(&mut took, 1.0),
        "rollback_lost": lost,
        "failed_after_rollback": after,
        "slow_median_ms": quantile(&mut slow_took, 0.5),
        "slow_worst_ms": quantile(&mut slow_took, 1.0),
        "healthy_rollouts": rollouts,
        "healthy_requests": tally.finished,
        "healthy_failed": tally.failed.len(),
    });
    merge(figures, own);
    Ok(())
}

/// Counts calls at rest and in a rollout of ten steps, and takes the time from a change of the Deployment to the first write.
async fn guide(figures: &mut Value) -> anyhow::Result<()> {
    let analysis = json!({
        "interval": "1s", "threshold": 3, "stepWeight": 5, "maxWeight": 50, "judge": {"mode": "guard"},
        "metrics": [
            {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "30s"},
            {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"},
        ],
    });
    let gateway = Gateway::measured("guide", analysis).await?;
    let users = gateway.users_at(RATE);
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    gateway.until_quiet().await;
    let before = gateway.audit();
    tokio::time::sleep(REST).await;
    let (reads, writes) = gateway.audit().since(&before).reads_and_writes(OURS);
    let rest = reads + writes;
    let before = gateway.audit();
    gateway.kubectl(&["set", "image", "deployment/backend", &image("good", 0)]).await;
    gateway.until_phase("Succeeded", PHASE).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    gateway.until_quiet().await;
    let since = gateway.audit().since(&before);
    let (reads, writes) = since.reads_and_writes(OURS);
    let ours = since.calls().iter().filter(|(call, _)| call.user_agent.starts_with(OURS));
    let by_resource: BTreeMap<String, u64> =
        ours.map(|(call, count)| (format!("{} {}", call.verb, call.resource), *count)).collect();
    let mut react = Vec::new();
    for change in 0..asked("CHANGES").unwrap_or(50) {
        // The controller of Deployments is through with the last one.
        gateway.kubectl(&["rollout", "status", "deployment/backend", "--timeout=60s"]).await;
        let before = gateway.audit_log(0).len().try_into()?;
        gateway.kubectl(&["set", "image", "deployment/backend", &image("change", change)]).await;
        react.push(first_write(&gateway, before).await?);
    }
    let _tally = users.stop(Duration::from_secs(5)).await;
    let own = json!({
        "rest_calls": rest,
        "rollout_reads": reads,
        "rollout_writes": writes,
        "rollout_calls": by_resource,
        "changes": react.len(),
        "react_p50_ms": quantile(&mut react, 0.5),
        "react_p99_ms": quantile(&mut react, 0.99),
    });
    merge(figures, own);
    Ok(())
}

fn merge(figures: &mut Value, more: Value) {
    if let (Some(figures), Value::Object(more)) = (figures.as_object_mut(), more) {
        figures.extend(more);
    }
}

fn image(kind: &str, number: impl std::fmt::Display) -> String {
    format!("web=wingbeat.test/web:{kind}-{number}")
}

/// Returns milliseconds from the change that kubectl made to the controller's first write after it, by the API server's clock.
async fn first_write(gateway: &Gateway, before: u64) -> anyhow::Result<f64> {
    let mut poll = tokio::time::interval(Duration::from_millis(10));
    let found = async {
        loop {
            poll.tick().await;
            let log = gateway.audit_log(before);
            let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let text =
                |event: &Value, at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
            let is_complete = |event: &&Value| text(event, "/stage") == "ResponseComplete";
            let is_write = |event: &&Value| ["create", "update", "patch"].contains(&text(event, "/verb").as_str());
            let writes = || events.iter().filter(is_complete).filter(is_write);
            let change = writes().find(|event| text(event, "/userAgent").starts_with("kubectl/"));
            let Some(changed) = change.and_then(|event| millis(&text(event, "/stageTimestamp"))) else { continue };
            let ours = writes().filter(|event| {
                text(event, "/userAgent").starts_with(OURS) && text(event, "/objectRef/resource") != "leases"
            });
            let first =
                ours.filter_map(|event| millis(&text(event, "/requestReceivedTimestamp"))).find(|at| *at >= changed);
            if let Some(first) = first {
                return first - changed;
            }
        }
    };
    tokio::time::timeout(PHASE, found).await.context("the controller has not written anything")
}

/// Reads a time of the audit log.
fn millis(text: &str) -> Option<f64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of today have 51 bits")]
    Some(time.as_microsecond() as f64 / 1e3)
}
