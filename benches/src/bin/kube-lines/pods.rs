//! Pods, as they come and go.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wingbeat_e2e::gateway::Gateway;

use crate::scene::PHASE;

/// What was seen of a Pod, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) name: String,
    /// Its label: `backend` or `backend-primary`.
    app: String,
    pub(crate) image: String,
    /// Where its web service is.
    pub(crate) address: Option<String>,
    pub(crate) ready: Option<Instant>,
    /// When somebody had deleted it: its grace period begins.
    pub(crate) deleted: Option<Instant>,
    pub(crate) gone: Option<Instant>,
}

/// The Pods of a namespace.
#[derive(Debug)]
pub(crate) struct Pods {
    all: Arc<Mutex<BTreeMap<String, Seen>>>,
    task: JoinHandle<()>,
}

impl Pods {
    /// Watches from now on.
    pub(crate) fn watch(gateway: &Gateway) -> anyhow::Result<Self> {
        let cluster = gateway.cluster();
        let mut kubectl = cluster
            .command(cluster.binaries().folder().join("kubectl"))
            .args(["--namespace", gateway.namespace(), "get", "pods", "--output=json", "--watch"])
            .arg("--output-watch-events")
            .stdout(Stdio::piped())
            .spawn()
            .context("kubectl")?;
        let mut lines = BufReader::new(kubectl.stdout.take().context("standard output")?).lines();
        let all = Arc::<Mutex<BTreeMap<String, Seen>>>::default();
        let shared = all.clone();
        let task = tokio::spawn(async move {
            let _watch = kubectl;
            let mut text = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                // An object has one line or several, of which the last one is this.
                let is_whole = line == "}" || (text.is_empty() && line.starts_with('{') && line.ends_with('}'));
                text.push_str(&line);
                if is_whole {
                    if let Ok(event) = serde_json::from_str(&text) {
                        let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        note(&mut all, &event, Instant::now());
                    }
                    text.clear();
                }
            }
        });
        Ok(Self { all, task })
    }

    /// Returns those that are or were there with this label.
    pub(crate) fn of(&self, app: &str) -> Vec<Seen> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|pod| pod.app == app).cloned().collect()
    }

    /// Waits until something holds of those with this label, and returns them.
    pub(crate) async fn until(
        &self,
        what: &str,
        app: &str,
        holds: impl Fn(&[Seen]) -> bool,
    ) -> anyhow::Result<Vec<Seen>> {
        let wait = async {
            let mut poll = tokio::time::interval(Duration::from_millis(10));
            loop {
                poll.tick().await;
                let pods = self.of(app);
                if holds(&pods) {
                    return pods;
                }
            }
        };
        let waited = tokio::time::timeout(PHASE, wait).await;
        waited.with_context(|| format!("{what} does not come: {:?}", self.of(app)))
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(all: &mut BTreeMap<String, Seen>, event: &Value, now: Instant) {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str);
    let Some(name) = text("/object/metadata/name") else { return };
    let pod = all.entry(name.to_owned()).or_default();
    name.clone_into(&mut pod.name);
    text("/object/metadata/labels/app").unwrap_or_default().clone_into(&mut pod.app);
    text("/object/spec/containers/0/image").unwrap_or_default().clone_into(&mut pod.image);
    if let Some(address) = text("/object/status/podIP") {
        pod.address = Some(format!("{address}:8080"));
    }
    let conditions = event.pointer("/object/status/conditions").and_then(Value::as_array);
    let is = |condition: &Value, field: &str, value: &str| condition.get(field).is_some_and(|it| it == value);
    let is_ready = |condition: &Value| is(condition, "type", "Ready") && is(condition, "status", "True");
    if conditions.is_some_and(|all| all.iter().any(is_ready)) {
        pod.ready.get_or_insert(now);
    }
    if text("/object/metadata/deletionTimestamp").is_some() {
        pod.deleted.get_or_insert(now);
    }
    if text("/type") == Some("DELETED") {
        pod.deleted.get_or_insert(now);
        pod.gone.get_or_insert(now);
    }
}
