//! A10: an API server that fails some reads, and loses its etcd for a moment, starts no rollout.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::Instant;
use wingbeat_benches::asked;
use wingbeat_e2e::gateway::{Gateway, Role};
use wingbeat_test_cluster::Cluster;

use crate::admin::Admin;
use crate::audit::our_writes;
use crate::faulty_api::FaultyApi;
use crate::report::Report;
use crate::scene::{CANARY, PHASE, PRIMARY, Scene, TARGET, prepare};

/// A label of both is another one as often as this, which has them read again.
const EDITED: Duration = Duration::from_secs(1);
/// So often etcd is killed and started.
const RESTARTS: u32 = 2;
/// Times of what a rollout would change.
const GENERATION: &str = "{.metadata.generation}";
/// Where the two objects are.
const EDITS: [&str; 2] = ["configmaps/settings", "secrets/token"];

/// Reads one of three ConfigMaps and Secrets in vain for a time, in which etcd is restarted twice.
pub(crate) async fn show(cluster: &Arc<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    let hiccups = Duration::from_secs(asked("HICCUPS").unwrap_or(60));
    let role = Role::of_test("a10");
    prepare(cluster, &role).await;
    let kubeconfig = cluster.kubeconfig_of(&role.namespace, "wingbeat").await?;
    let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let api = FaultyApi::before(&mut kubeconfig).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string())?;
    let role = Role { flags: vec!["--kubeconfig".to_owned(), file.display().to_string()], ..role };
    let gateway = scene(&role.namespace)?.open_as(cluster, role).await;
    gateway.until_quiet().await;

    let admin = Admin::of(cluster).await?;
    let (from, said, before) = (gateway.audit_end(), gateway.said().len(), state(&gateway).await);
    let events = gateway.events().await;
    api.fail(true);
    let began = Instant::now();
    let mut edits: u64 = 0;
    for part in 1..=RESTARTS + 1 {
        let until = began + hiccups * part / (RESTARTS + 1);
        while Instant::now() < until {
            edit(&admin, gateway.namespace(), edits).await?;
            edits += 1;
            tokio::time::sleep(EDITED).await;
        }
        if part <= RESTARTS {
            cluster.kill_etcd().await?;
            cluster.start_etcd().await?;
        }
    }
    api.fail(false);
    let (reads, failed) = api.reads();
    ensure!(failed > 0, "no read failed, of {reads} at {} for {edits} edits", api.address());
    gateway.until_quiet().await;
    let told = told(&gateway).await;
    let told: Vec<&String> = told.iter().filter(|(note, _)| !events.contains_key(*note)).map(|(_, it)| it).collect();
    let rollouts = gateway.said().split_off(said).matches("New revision detected!").count();
    let after = state(&gateway).await;
    let writes: Vec<String> = our_writes(&gateway, from, "deployments").into_iter().map(|write| write.what).collect();
    let what = format!(
        "{failed} of {reads} reads of ConfigMaps and Secrets failed in {hiccups:?}, etcd restarted {RESTARTS} times"
    );
    report.add("a10_rollouts", rollouts);
    let holds = rollouts == 0 && before == after && writes.is_empty();
    let figure = format!("{rollouts}, {after:?}, {} writes to Deployments", writes.len());
    report.row(&format!("{what}: rollouts"), &figure, "0, as before", holds)?;
    report.add("a10_events", told.len());
    let holds = told.len() <= 1 && told.iter().all(|event| event.starts_with("Warning"));
    report.row(&format!("{what}: events"), &format!("{} {told:?}", told.len()), "≤ 1 Warning", holds)?;

    // As a control: what is a change starts one, as before.
    let said = gateway.said().len();
    let patch = json!({"data": {"version": "two"}}).to_string();
    gateway.kubectl(&["patch", "configmap/settings", "--type=merge", "--patch", &patch]).await;
    gateway.until_said(said, "New revision detected! Scaling up").await;
    gateway.until_phase("Progressing", PHASE).await;
    report.explain(&gateway)
}

/// Returns a Deployment whose Pods read a ConfigMap and a Secret.
fn scene(namespace: &str) -> anyhow::Result<Scene> {
    let analysis = json!({"interval": "1s", "threshold": 3, "stepWeights": [50], "judge": {"mode": "guard"}});
    let object = |kind: &str, name: &str, data: &str, content: Value| {
        let metadata = json!({"name": name, "namespace": namespace});
        json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, data: content})
    };
    let read = |variable: &str, from: &str, name: &str, key: &str| {
        let reference = json!({"name": name, "key": key});
        json!({"name": variable, "valueFrom": {from: reference}})
    };
    let scene = Scene::new(namespace, &analysis)
        .with(object("ConfigMap", "settings", "data", json!({"version": "one"})))
        .with(object("Secret", "token", "stringData", json!({"token": "s3cr3t"})));
    scene.with_env(&[
        read("VERSION", "configMapKeyRef", "settings", "version"),
        read("TOKEN", "secretKeyRef", "token", "token"),
    ])
}

/// Gives both another label, which is no change of a release.
async fn edit(admin: &Admin, namespace: &str, number: u64) -> anyhow::Result<()> {
    let patch = json!({"metadata": {"labels": {"edited": number.to_string()}}});
    for object in EDITS {
        admin.merge(&format!("/api/v1/namespaces/{namespace}/{object}"), &patch).await?;
    }
    Ok(())
}

/// Returns the phase, and the generations of target and primary.
async fn state(gateway: &Gateway) -> [String; 3] {
    let [phase, target, primary] = [
        gateway.words(CANARY, "{.status.phase}").await,
        gateway.words(TARGET, GENERATION).await,
        gateway.words(PRIMARY, GENERATION).await,
    ];
    [phase.concat(), target.concat(), primary.concat()]
}

/// Returns the controller's events: their types and texts, by their texts.
async fn told(gateway: &Gateway) -> BTreeMap<String, String> {
    let path = r#"--output=jsonpath={range .items[?(@.reportingController=="wingbeat")]}{.type} {.note}{"\n"}{end}"#;
    let listed = gateway.kubectl(&["get", "events.events.k8s.io", path]).await;
    let notes = listed.lines().filter_map(|line| Some((line.split_once(' ')?.1.to_owned(), line.to_owned())));
    notes.collect()
}
