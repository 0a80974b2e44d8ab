//! A9: what is no change of a release starts no rollout: an upgrade of the controller or of Kubernetes, another size.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wingbeat_benches::asked;
use wingbeat_e2e::gateway::Gateway;
use wingbeat_test_cluster::Cluster;

use crate::admin::{Admin, ours};
use crate::audit::our_writes;
use crate::report::Report;
use crate::scene::{PHASE, Scene, list, release, small};

/// The target of a canary has so many Pods at first.
const REPLICAS: usize = 1;
/// A hash that no controller computes.
const ANOTHER_HASH: &str = "0123456789";
/// What an object has of an API server, and nobody who writes one.
const OF_SERVER: [&str; 5] = ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"];
/// All targets, by the label that they have.
const TARGETS: [&str; 2] = ["deployments", "--selector=is=target"];
/// A canary that is none of those at rest: its change is a rollout.
const CONTROL: &str = "New revision detected! Scaling up backend.";

/// Does to canaries at rest what is no release.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let count = usize::try_from(asked("CANARIES").unwrap_or(20))?;
    let analysis = json!({"interval": "1s", "threshold": 3, "stepWeights": [50], "judge": {"mode": "guard"}});
    let mut gateway = Scene::new("a9", &analysis).open(cluster).await;
    let admin = Admin::of(cluster).await?;
    let mut items = Vec::new();
    for number in 0..count {
        items.extend(small(gateway.namespace(), &format!("web-{number}"), REPLICAS, gateway.namespace())?);
    }
    gateway.apply(&list(&items)).await;
    let timeout = format!("--timeout={}s", PHASE.as_secs());
    let initialized = "--for=jsonpath={.status.phase}=Initialized";
    gateway.kubectl(&["wait", "canaries.wingbeat.dev", "--all", initialized, &timeout]).await;
    until_sized(&gateway, "{.spec.replicas}", "0").await;
    gateway.until_quiet().await;

    let (from, said) = (gateway.audit_end(), gateway.said().len());
    let states = ours(gateway.namespace(), "canarystates");
    let before = hashes(&admin, &states).await?;
    ensure!(before.len() == count + 1, "{} CanaryStates of {count}", before.len());
    defaulted(&gateway).await?;
    for replicas in ["2", "3", "2"] {
        resize(&gateway, replicas).await;
    }
    gateway.until_quiet().await;
    // Another release of the controller, which computes hashes otherwise, and more that moves while nobody looks.
    gateway.kill_controller().await;
    for (name, _) in &before {
        let patch = json!({"status": {"fence": {"hash": ANOTHER_HASH}}});
        admin.merge(&format!("{states}/{name}/status"), &patch).await?;
    }
    for replicas in ["3", "2"] {
        resize(&gateway, replicas).await;
    }
    let next = gateway.replica().await;
    gateway.follow(next).await;
    gateway.until_quiet().await;
    let after = hashes(&admin, &states).await?;
    let rollouts = gateway.said().split_off(said).matches("New revision detected!").count();
    let writes: Vec<String> = our_writes(&gateway, from, "deployments").into_iter().map(|write| write.what).collect();
    let path = r#"--output=jsonpath={.items[?(@.status.phase!="Initialized")].metadata.name}"#;
    let moved = gateway.kubectl(&["get", "canaries.wingbeat.dev", path]).await;

    // As a control: what is a release starts one.
    let said = gateway.said().len();
    release(&gateway, "1.4.1").await;
    gateway.until_said(said, CONTROL).await;
    let what = format!("{} canaries at rest, another hash, defaults written out, replicas 2→3→2", count + 1);
    report.add("a9_rollouts", rollouts);
    let figure = format!("{rollouts}{}", if moved.is_empty() { String::new() } else { format!(", moved: {moved}") });
    report.row(&format!("{what}: rollouts"), &figure, "0", rollouts == 0 && moved.is_empty())?;
    report.add("a9_writes", writes.len());
    let figure = format!("{} {writes:?}", writes.len());
    report.row(&format!("{what}: writes to Deployments"), &figure, "0", writes.is_empty())?;
    let known = after.iter().filter(|it| before.contains(it)).count();
    let figure = format!("{known} of {}", before.len());
    report.row("hashes that the next controller has put right", &figure, "all", known == before.len())?;
    report.explain(&gateway)
}

/// Returns the names of all CanaryStates, with the hash that each has of its target's template.
async fn hashes(admin: &Admin, states: &str) -> anyhow::Result<Vec<(String, String)>> {
    let all = admin.get(states).await?;
    let items = all.pointer("/items").and_then(Value::as_array).context("a list")?;
    let of = |item: &Value| {
        let text = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Some((text("/metadata/name")?, text("/status/fence/hash")?))
    };
    items.iter().map(|item| of(item).with_context(|| format!("{item} has a name and a hash"))).collect()
}

/// Applies all targets as the API server shows them: with all that it has written out.
async fn defaulted(gateway: &Gateway) -> anyhow::Result<()> {
    let all = gateway.kubectl(&[&["get"], &TARGETS[..], &["--output=json"]].concat()).await;
    let mut all: Value = serde_json::from_str(&all)?;
    let items = all.pointer_mut("/items").and_then(Value::as_array_mut).context("a list")?;
    ensure!(!items.is_empty(), "there is a target");
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("status");
        if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !OF_SERVER.contains(&field.as_str()));
        }
    }
    let items = list(items);
    gateway.apply(&items).await;
    Ok(())
}

/// Gives all targets another size, and waits until Kubernetes has seen it.
async fn resize(gateway: &Gateway, replicas: &str) {
    let replicas_flag = format!("--replicas={replicas}");
    gateway.kubectl(&[&["scale"], &TARGETS[..], &[&replicas_flag]].concat()).await;
    until_sized(gateway, "{.status.replicas}", replicas).await;
}

async fn until_sized(gateway: &Gateway, path: &str, replicas: &str) {
    let (sized, timeout) = (format!("--for=jsonpath={path}={replicas}"), format!("--timeout={}s", PHASE.as_secs()));
    gateway.kubectl(&[&["wait"], &TARGETS[..], &[&sized, &timeout]].concat()).await;
}
