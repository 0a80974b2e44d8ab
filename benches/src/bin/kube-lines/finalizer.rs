//! A3: the finalizer is there once, and nothing keeps it; and who installs definitions again loses nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use wingbeat_demo::port::Port;
use wingbeat_e2e::gateway::{Controller, Gateway, Log, Pod, Role, objects};
use wingbeat_test_cluster::Cluster;

use crate::admin::{Admin, ours};
use crate::audit::our_writes;
use crate::report::Report;
use crate::scene::{CANARY, GRACE, PHASE, RATE, Scene, TARGET, list, prepare, release, scaled_down, small};

/// Where a Canary has its finalizers.
const FINALIZERS: &str = "{.metadata.finalizers[*]}";
/// So often the Canary is changed.
const CHANGES: u64 = 100;
/// A change is taken by then.
const TAKEN: Duration = Duration::from_secs(30);
/// So often the definitions are applied.
const TIMES: usize = 20;
/// In a namespace that is deleted.
const CANARIES: usize = 10;
/// The namespace.
const DOOMED: &str = "doomed";
/// A Canary without its target is gone within this time, in seconds.
const WITHOUT_TARGET: f64 = 5.0;
/// A namespace is gone within this time, in seconds.
const NAMESPACE: f64 = 60.0;
/// What is not gone by then is not waited for any longer.
const LATE: &str = "--timeout=180s";

/// Shows all of it.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    // A rollout that lasts until all of it is applied.
    let analysis =
        json!({"interval": "20s", "threshold": 3, "stepWeights": [10, 20, 30, 40, 50], "judge": {"mode": "guard"}});
    let from = cluster.audit_end()?;
    let gateway = Scene::new("a3", &analysis).open(cluster).await;
    once(cluster, &gateway, from, report).await?;
    definitions(cluster, &gateway, report).await?;
    target_first(&gateway, report).await?;
    report.explain(&gateway)?;
    drop(gateway);
    namespace(cluster, report).await
}

/// Changes the Canary often: its finalizer was written once, and is there once.
async fn once(cluster: &Cluster, gateway: &Gateway, from: u64, report: &mut Report) -> anyhow::Result<()> {
    let admin = Admin::of(cluster).await?;
    let path = |kind: &str| format!("{}/backend", ours(gateway.namespace(), kind));
    for change in 0..CHANGES {
        let patch = json!({"spec": {"analysis": {"threshold": 3 + change % 2}}});
        let changed = admin.merge(&path("canaries"), &patch).await?;
        let generation = changed.pointer("/metadata/generation").and_then(Value::as_u64).context("a generation")?;
        let taken = async {
            let mut poll = tokio::time::interval(Duration::from_millis(5));
            loop {
                poll.tick().await;
                let state = admin.get(&path("canarystates")).await?;
                if state.pointer("/status/acceptedGeneration").and_then(Value::as_u64) >= Some(generation) {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(TAKEN, taken).await.with_context(|| format!("change {change} is not taken"))??;
    }
    let finalizers = gateway.words(CANARY, FINALIZERS).await;
    let writes = our_writes(gateway, from, "canaries");
    let writes = writes.iter().filter(|write| write.subresource.is_empty()).count();
    report.add("a3_finalizer_writes", writes);
    let figure = format!("{finalizers:?}, written {writes} time(s)");
    let holds = finalizers == ["wingbeat.dev/finalizer"] && writes == 1;
    report.row(&format!("finalizers after {CHANGES} changes of the Canary, each taken"), &figure, "one, once", holds)
}

/// Applies the definitions again and again in a rollout, each time over others: the API server serves what is new.
async fn definitions(cluster: &Cluster, gateway: &Gateway, report: &mut Report) -> anyhow::Result<()> {
    let users = gateway.users_at(RATE);
    let (before, said, first) = (uids(gateway).await, gateway.said().len(), version(gateway).await?);
    release(gateway, "1.4.1").await;
    gateway.until_said(said, "canary weight 10").await;
    for time in 0..TIMES {
        for name in ["canaries", "canarystates", "listeners"] {
            let description = format!("As of another release, {time}.");
            let path = "/spec/versions/0/schema/openAPIV3Schema/description";
            let patch = json!([{"op": "add", "path": path, "value": description}]).to_string();
            let definition = format!("customresourcedefinition/{name}.wingbeat.dev");
            gateway.kubectl(&["patch", &definition, "--type=json", "--patch", &patch]).await;
        }
        objects::install(cluster, &[]).await;
    }
    let phase = gateway.words(CANARY, "{.status.phase}").await.concat();
    gateway.until_phase("Succeeded", PHASE).await;
    scaled_down(gateway).await;
    let after = uids(gateway).await;
    let lost: Vec<&String> = before.difference(&after).collect();
    let said = gateway.said().split_off(said);
    let rollouts = said.matches("New revision detected!").count();
    let tally = users.stop(GRACE).await;
    let versions = version(gateway).await? - first;
    ensure!(versions >= TIMES, "the definition of Canaries was another one {versions} times only");
    ensure!(before.len() >= 8, "hardly anything is there: {before:?}");
    let what = format!("definitions applied {TIMES} times in a rollout");
    report.add("a3_objects_lost", lost.len());
    let figure = format!("{} of {} lost {lost:?}", lost.len(), before.len());
    report.row(&format!("{what}: objects"), &figure, "0", lost.is_empty())?;
    let figure = format!("{rollouts}, {phase} to the last time, then Succeeded");
    report.row(&format!("{what}: rollouts"), &figure, "the one", rollouts == 1 && phase == "Progressing")?;
    report.users("a3_failed", &format!("{what}: users"), &tally, 0)
}

/// Returns how often the definition of Canaries was another one.
async fn version(gateway: &Gateway) -> anyhow::Result<usize> {
    let definition = "customresourcedefinition/canaries.wingbeat.dev";
    Ok(gateway.words(definition, "{.metadata.generation}").await.concat().parse()?)
}

/// Returns the objects of the canary, and which ones they are.
async fn uids(gateway: &Gateway) -> BTreeSet<String> {
    const KINDS: &str = "canaries.wingbeat.dev,canarystates.wingbeat.dev,deployments,services";
    let path = r#"{range .items[*]}{.kind}/{.metadata.name}={.metadata.uid}{"\n"}{end}"#;
    let path = format!("--output=jsonpath={path}");
    let listed = gateway.kubectl(&["get", KINDS, &path]).await + &gateway.kubectl(&["get", "listeners", &path]).await;
    listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Deletes the target, and the Canary after it.
async fn target_first(gateway: &Gateway, report: &mut Report) -> anyhow::Result<()> {
    gateway.kubectl(&["delete", TARGET]).await;
    let deleted = Instant::now();
    gateway.kubectl(&["delete", CANARY, LATE]).await;
    let gone = deleted.elapsed().as_secs_f64();
    report.worst("a3_without_target_s", gone);
    report.row("target deleted, then the Canary: gone", &format!("{gone:.1} s"), "≤ 5 s", gone <= WITHOUT_TARGET)
}

/// Deletes a namespace with its Canaries.
async fn namespace(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let role = Role { scope: Some(DOOMED.to_owned()), ..Role::of_test("a3-namespace") };
    prepare(cluster, &role).await;
    let log = Log::default();
    let mut controller = Controller::start(cluster, &role, Pod::make(), &log).await;
    controller.leads().await;
    let entry = Port::hold()?;
    let spec = json!({"address": "127.0.0.1", "port": entry.address().port(), "nodes": [DOOMED]});
    let listener = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "metadata": {"name": DOOMED}, "spec": spec,
    });
    cluster.kubectl(&["create", "namespace", DOOMED]).await?;
    let mut items = vec![listener];
    for number in 0..CANARIES {
        items.extend(small(DOOMED, &format!("web-{number}"), 1, DOOMED)?);
    }
    cluster.apply(&list(&items)).await?;
    let timeout = format!("--timeout={}s", PHASE.as_secs());
    let all = ["--namespace", DOOMED, "wait", "canaries.wingbeat.dev", "--all", &timeout];
    cluster.kubectl(&[&all[..], &["--for=jsonpath={.status.phase}=Initialized"]].concat()).await?;
    let finalizers = format!("--output=jsonpath={{.items[*]{}", FINALIZERS.trim_start_matches('{'));
    let finalizers = cluster.kubectl(&["--namespace", DOOMED, "get", "canaries.wingbeat.dev", &finalizers]).await?;
    let finalizers = finalizers.split_whitespace().count();
    let deleted = Instant::now();
    cluster.kubectl(&["delete", "namespace", DOOMED, LATE]).await?;
    let gone = deleted.elapsed().as_secs_f64();
    report.worst("a3_namespace_s", gone);
    let what = format!("namespace of {CANARIES} canaries deleted: gone");
    let figure = format!("{gone:.1} s ({finalizers} finalizers before)");
    report.row(&what, &figure, "≤ 60 s", gone <= NAMESPACE && finalizers == CANARIES)
}
