//! A5: a canary's Pods go after their requests. Pods take 20 s to be ready, and 500 ms to answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wingbeat_e2e::gateway::broken::ask;
use wingbeat_test_cluster::Cluster;

use crate::pods::{Pods, Seen};
use crate::report::Report;
use crate::scene::{CANARY, GRACE, PHASE, RATE, REPLICAS, Scene, release, scaled_down, seconds};

/// Time for a Pod to be ready.
const READY: Duration = Duration::from_secs(20);
/// Has a Pod answer this much later.
const SLOW: &str = "POST /slow/0.5";
/// The primary takes its Pods one after the other.
const DEADLINE_SECS: u64 = 240;
/// For how long users are watched after the rollout.
const AFTERWARDS: Duration = Duration::from_mins(1);
/// From the last request of a Pod to its SIGTERM, in seconds, at least.
const DRAIN: f64 = 3.0;
/// How often a Pod is asked when its last request came.
const INTERVAL: Duration = Duration::from_millis(50);

/// When Pods became slow, by their names.
type Slowed = Arc<Mutex<BTreeMap<String, Instant>>>;

/// The end of a Pod.
#[derive(Debug)]
struct End {
    name: String,
    last_request: Instant,
    /// Its process was still there.
    alive: Instant,
}

/// Rolls out, and watches each Pod of the canary to its end.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let analysis = json!({"interval": "2s", "threshold": 3, "stepWeights": [20, 50], "judge": {"mode": "guard"}});
    let scene = Scene::new("a5", &analysis).ready_after(READY)?;
    let scene = scene.canary("/spec", "progressDeadlineSeconds", json!(DEADLINE_SECS))?;
    let gateway = scene.open(cluster).await;
    let (pods, slowed) = (Arc::new(Pods::watch(&gateway)?), Slowed::default());
    let slowing = tokio::spawn(slow_down(pods.clone(), slowed.clone()));
    let are_slow = |all: &[Seen]| all.iter().filter(|pod| since(&slowed, pod).is_some()).count() == REPLICAS;
    pods.until("the primary is slow", "backend-primary", are_slow).await?;
    let (began, users) = (Instant::now(), gateway.users_at(RATE));

    release(&gateway, "1.4.1").await;
    let promoted = Ends::follow(&pods, "1.4.1").await?;
    gateway.until_phase("Progressing", PHASE).await;
    gateway.until_phase("Succeeded", PHASE).await;
    tokio::time::sleep(AFTERWARDS).await;
    report.users("a5_failed", "a rollout of slow Pods, and the minute after it: users", &users.tally(), 0)?;
    promoted.show("promoted", &pods, report).await?;

    users.mark();
    let said = gateway.said().len();
    release(&gateway, "1.4.2").await;
    let aborted = Ends::follow(&pods, "1.4.2").await?;
    gateway.until_said(said, "canary weight 20").await;
    gateway.kubectl(&["annotate", CANARY, "wingbeat.dev/command=abort/kube-lines"]).await;
    gateway.until_phase("Failed", PHASE).await;
    scaled_down(&gateway).await;
    aborted.show("aborted", &pods, report).await?;
    report.users("a5_failed", "another one, aborted at 20 %: users", &users.stop(GRACE).await, 0)?;
    slowing.abort();
    for pod in pods.of("backend").into_iter().chain(pods.of("backend-primary")) {
        let was_slow = |ready: Instant| ready < began || since(&slowed, &pod).is_some_and(|since| since < ready);
        ensure!(pod.ready.is_none_or(was_slow), "{} was ready before it was slow", pod.name);
    }
    report.explain(&gateway)
}

/// The Pods of a canary, watched to their ends.
struct Ends(JoinSet<anyhow::Result<End>>);

impl Ends {
    /// Watches those of a version, once they are there.
    async fn follow(pods: &Arc<Pods>, version: &str) -> anyhow::Result<Self> {
        let is_canary = |pod: &Seen| pod.image.ends_with(version) && pod.address.is_some();
        let are_there = |all: &[Seen]| all.iter().filter(|pod| is_canary(pod)).count() == REPLICAS;
        let canaries = pods.until("the canary's Pods", "backend", are_there).await?;
        let mut ends = JoinSet::new();
        for pod in canaries.into_iter().filter(is_canary) {
            ends.spawn(follow(pods.clone(), pod));
        }
        Ok(Self(ends))
    }

    /// Shows for how long they had no requests before they had to go.
    async fn show(self, what: &str, pods: &Pods, report: &mut Report) -> anyhow::Result<()> {
        let (mut to_term, mut to_deletion) = (f64::INFINITY, f64::INFINITY);
        let ended = tokio::time::timeout(PHASE, self.0.join_all()).await.context("the canary's Pods do not go")?;
        for end in ended {
            let End { name, last_request, alive } = end?;
            let pod = pods.of("backend").into_iter().find(|pod| pod.name == name).context("it was seen")?;
            to_term = to_term.min(seconds(last_request, alive));
            to_deletion = to_deletion.min(seconds(last_request, pod.deleted.context("it was deleted")?));
        }
        report.least("a5_drained_least_s", to_term);
        let what = format!("{what}: from a canary Pod's last request");
        let figure = format!("{to_term:.1} s to SIGTERM, {to_deletion:.1} s to its deletion, at least");
        report.row(&what, &figure, "≥ 3 s to SIGTERM", to_term >= DRAIN)
    }
}

fn since(slowed: &Slowed, pod: &Seen) -> Option<Instant> {
    slowed.lock().unwrap_or_else(PoisonError::into_inner).get(&pod.name).copied()
}

/// Has all Pods answer late, from before they are ready.
async fn slow_down(pods: Arc<Pods>, slowed: Slowed) {
    let mut poll = tokio::time::interval(INTERVAL);
    loop {
        poll.tick().await;
        for pod in pods.of("backend").into_iter().chain(pods.of("backend-primary")) {
            let Some(address) = pod.address.as_ref().filter(|_| pod.gone.is_none() && since(&slowed, &pod).is_none())
            else {
                continue;
            };
            // It may not listen yet.
            if ask(address, SLOW).await.is_ok() {
                slowed.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.name, Instant::now());
            }
        }
    }
}

/// Asks a Pod when its last request came, until its process has ended.
async fn follow(pods: Arc<Pods>, pod: Seen) -> anyhow::Result<End> {
    let address = pod.address.context("an address")?;
    let mut poll = tokio::time::interval(INTERVAL);
    let mut last = None;
    loop {
        poll.tick().await;
        let asked = Instant::now();
        match ask(&address, "GET /idle").await {
            Ok(idle) => {
                let now = Instant::now();
                let idle = Duration::from_millis(idle.parse()?);
                last = Some((now.checked_sub(idle).unwrap_or(now), asked));
            }
            // It does not listen yet, or not any more.
            Err(_) => {
                let is_deleted = pods.of("backend").iter().any(|it| it.name == pod.name && it.deleted.is_some());
                if let Some((last_request, alive)) = last.filter(|_| is_deleted) {
                    return Ok(End { name: pod.name, last_request, alive });
                }
            }
        }
    }
}
