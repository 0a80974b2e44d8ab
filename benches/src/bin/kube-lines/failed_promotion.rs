//! A8: a promotion that fails takes nothing away: the canary, which works, keeps the requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wingbeat_test_cluster::Cluster;

use crate::pods::{Pods, Seen};
use crate::report::Report;
use crate::scene::{GRACE, PHASE, RATE, REPLICAS, Scene, TARGET};

/// What the Canary says, in seconds.
const DEADLINE: f64 = 30.0;
/// It has failed so much later at most, in seconds.
const LATE: f64 = 5.0;
/// Both are read in a log, the first a moment later than the second, perhaps: so much, in seconds.
const MOMENT: f64 = 0.1;
/// For how long users and Pods are watched after that.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// Promotes what cannot serve as the primary, with both strategies of Deployments.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    for (name, strategy) in [("a8-rolling-update", "RollingUpdate"), ("a8-recreate", "Recreate")] {
        fail(cluster, report, name, strategy).await?;
    }
    Ok(())
}

async fn fail(cluster: &Arc<Cluster>, report: &mut Report, name: &str, strategy: &str) -> anyhow::Result<()> {
    // What listens in the network of the cluster is reached from there.
    cluster.enter()?;
    let channel = Channel::open().await?;
    let analysis = json!({
        "interval": "1s", "threshold": 3, "stepWeights": [50], "judge": {"mode": "guard"},
        "alerts": [{"name": "on-call", "severity": "error", "providerRef": {"name": "on-call"}}],
    });
    let provider = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "AlertProvider",
        "metadata": {"name": "on-call", "namespace": name},
        "spec": {"type": "slack", "channel": "on-call", "address": channel.url},
    });
    let scene = Scene::new(name, &analysis).with(provider).scripted()?;
    let scene = scene.canary("/spec", "progressDeadlineSeconds", json!(DEADLINE))?;
    let gateway = scene.deployment("/spec", "strategy", json!({"type": strategy}))?.open(cluster).await;
    let users = gateway.users_at(RATE);
    let pods = Pods::watch(&gateway)?;
    let said = gateway.said().len();
    gateway.kubectl(&["set", "env", TARGET, "NEVER_AS_PRIMARY=1"]).await;
    gateway.until_said(said, "Copying backend").await;
    let copied = Instant::now();
    let canaries = names(&pods);
    gateway.until_said(said, "failed, primary not ready").await;
    let failed = copied.elapsed().as_secs_f64();
    gateway.until_phase("Failed", PHASE).await;
    tokio::time::sleep(AFTERWARDS).await;
    let tally = users.stop(GRACE).await;
    let alerts = channel.posted();

    report.users("a8_failed", &format!("{strategy}, never ready as the primary: users"), &tally, 0)?;
    report.worst("a8_failed_after_s", failed);
    let holds = (DEADLINE - MOMENT..=DEADLINE + LATE).contains(&failed);
    report.row(
        &format!("{strategy}: Failed after the copy"),
        &format!("{failed:.1} s"),
        &format!("{DEADLINE} to {} s", DEADLINE + LATE),
        holds,
    )?;
    let left = names(&pods);
    let figure = format!("{} of {}, {AFTERWARDS:?} later", left.len(), canaries.len());
    let holds = left == canaries && left.len() == REPLICAS;
    report.row(&format!("{strategy}: the canary keeps its Pods"), &figure, "all", holds)?;
    report.add("a8_alerts", alerts.len());
    let figure = format!("{} {alerts:?}", alerts.len());
    report.row(&format!("{strategy}: alerts"), &figure, "1", alerts.len() == 1)?;
    report.explain(&gateway)
}

/// Returns the names of the canary's Pods that are ready.
fn names(pods: &Pods) -> Vec<String> {
    let stays = |pod: &Seen| pod.ready.is_some() && pod.deleted.is_none();
    pods.of("backend").into_iter().filter(stays).map(|pod| pod.name).collect()
}

/// Where alerts are posted.
struct Channel {
    url: String,
    posted: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Channel {
    async fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let posted = Arc::<Mutex<Vec<String>>>::default();
        let shared = posted.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                if let Ok(text) = take(connection).await {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
        });
        Ok(Self { url, posted, task })
    }

    /// Returns the texts of all alerts.
    fn posted(&self) -> Vec<String> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes an alert, and returns its text.
async fn take(mut connection: TcpStream) -> anyhow::Result<String> {
    let mut read = Vec::new();
    loop {
        anyhow::ensure!(connection.read_buf(&mut read).await? > 0, "it ended");
        let text = String::from_utf8_lossy(&read);
        let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
        if let Some(body) = body {
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
            let alert = body.pointer("/attachments/0/text").and_then(Value::as_str);
            return Ok(alert.map_or_else(|| body.to_string(), str::to_owned));
        }
    }
}
