//! A7: a primary that crashes again and again does not keep its fix out.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::Instant;
use wingbeat_demo::load::Load;
use wingbeat_e2e::gateway::Gateway;
use wingbeat_test_cluster::Cluster;

use crate::pods::Pods;
use crate::report::Report;
use crate::scene::{GRACE, PHASE, PRIMARY, RATE, REPLICAS, Scene, TARGET, scaled_down, seconds};

/// From when the fix's Pods are ready, in seconds.
const ANSWERED: f64 = 5.0;
/// So many failures are enough to know that nobody is answered.
const NOBODY: usize = 1_000;
/// How often users are asked.
const INTERVAL: Duration = Duration::from_millis(10);

/// When users were answered again.
#[derive(Debug, Default)]
struct Answered {
    first: Cell<Option<Instant>>,
    last_failure: Cell<Option<Instant>>,
}

/// Breaks what the primary needs, and applies a fix that does without.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flag = folder.path().join("crash");
    let crashes = json!({"name": "CRASHES_WITH", "value": flag.display().to_string()});
    let analysis = json!({"interval": "1s", "threshold": 3, "stepWeights": [20, 50], "judge": {"mode": "guard"}});
    let gateway = Scene::new("a7", &analysis).with_env(&[crashes])?.scripted()?.open(cluster).await;
    let users = gateway.users_at(RATE);
    std::fs::write(&flag, "")?;
    let reason = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff";
    gateway.kubectl(&["wait", "pods", "--selector=app=backend-primary", reason, "--timeout=120s"]).await;
    users.mark();
    let broken = |users: &Load| {
        let tally = users.tally();
        (tally.finished, tally.failed.len())
    };
    let failing = async {
        let mut poll = tokio::time::interval(INTERVAL);
        while broken(&users).1 < NOBODY {
            poll.tick().await;
        }
    };
    tokio::time::timeout(PHASE, failing).await.context("users do not fail")?;
    let (finished, failed) = broken(&users);
    ensure!(finished == u64::try_from(failed)?, "{failed} of {finished} failed: somebody serves");
    let ready = gateway.words(PRIMARY, "{.status.readyReplicas}").await.concat();
    ensure!(ready.is_empty() || ready == "0", "{ready} Pods of the primary are ready");
    let pods = Pods::watch(&gateway)?;
    users.mark();
    let applied = Instant::now();
    gateway.kubectl(&["set", "env", TARGET, "CRASHES_WITH-"]).await;
    let answered = Answered::default();
    tokio::select! {
        () = promoted(&gateway) => {}
        () = answered.follow(&users) => {}
    }
    let tally = users.stop(GRACE).await;
    let of_fix = pods.of("backend").into_iter().filter_map(|pod| pod.ready).filter(|ready| *ready > applied);
    let mut fixed: Vec<Instant> = of_fix.collect();
    fixed.sort();
    let fixed = fixed.get(REPLICAS - 1).context("the fix's Pods were never all ready")?;
    let env = gateway.kubectl(&["get", PRIMARY, "--output=jsonpath={.spec.template.spec.containers[0].env}"]).await;
    let first = seconds(*fixed, answered.first.get().context("nobody was answered")?);
    let last = seconds(*fixed, answered.last_failure.get().unwrap_or(*fixed));
    report.worst("a7_answered_s", first);
    let from = "from when the fix's Pods are ready";
    report.row(
        &format!("primary crash-looping, fix applied: first 2xx, {from}"),
        &after(first),
        "≤ 5 s",
        first <= ANSWERED,
    )?;
    report.worst("a7_last_failure_s", last);
    let figure = format!("{} ({} of {} failed since the fix)", after(last), tally.failed.len(), tally.finished);
    report.row(&format!("the last request that fails, {from}"), &figure, "≤ 5 s", last <= ANSWERED)?;
    let is_fixed = !env.contains("CRASHES_WITH");
    report.row("without a command, the fix is", if is_fixed { "promoted" } else { &env }, "promoted", is_fixed)?;
    report.explain(&gateway)
}

/// Returns how many seconds later something is: the first Pod of the fix may be ready before the last one.
fn after(seconds: f64) -> String {
    if seconds < 0.0 { format!("{:.1} s before that", -seconds) } else { format!("{seconds:.1} s") }
}

async fn promoted(gateway: &Gateway) {
    gateway.until_phase("Succeeded", PHASE).await;
    scaled_down(gateway).await;
}

impl Answered {
    /// Notes when the first request is answered, and when the last one fails. It does not end.
    async fn follow(&self, users: &Load) {
        let mut poll = tokio::time::interval(INTERVAL);
        let mut before = 0;
        loop {
            poll.tick().await;
            let tally = users.tally();
            let failed = tally.failed.len();
            if tally.finished > u64::try_from(failed).unwrap_or(u64::MAX) && self.first.get().is_none() {
                self.first.set(Some(Instant::now()));
            }
            if failed > before {
                before = failed;
                self.last_failure.set(Some(Instant::now()));
            }
        }
    }
}
