//! A thousand Canaries in a real Kubernetes: what the controller costs while they are at rest, how long it takes to begin with
//! them, and what it costs while fifty of them roll out behind a real Envoy.
//!
//! There are no Pods: Deployments are said to be ready as soon as they are scaled, and all endpoints are those of one web service.
//! `CANARIES` says how many there are (1000), `ROLLING` how many of them roll out (50).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wingbeat_benches::{asked, cpu, memory, print};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::port::Port;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::gateway::objects::{install, install_role};
use wingbeat_e2e::gateway::{Controller, Entry, Log, OURS, Pod, Role, Signal, beside};
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_test_cluster::namespace::NODE_ADDRESS;
use wingbeat_test_cluster::{Cluster, Controllers, Options};
use wingbeat_xds_server::bootstrap::Bootstrap;

const NAMESPACE: &str = "scale";
/// As kubectl is given them: it may know another API's from another cluster.
const CANARIES: &str = "canaries.wingbeat.dev";
/// Requests a second to each canary that rolls out.
const RATE: u32 = 20;
/// How long nobody may do anything.
const REST: Duration = Duration::from_mins(1);
/// Without a call for this time, what was to be done is done.
const QUIET: Duration = Duration::from_secs(15);
/// Time for all of them to be initialised, or rolled out.
const DEADLINE: Duration = Duration::from_mins(10);
/// Time for one call.
const CALL: Duration = Duration::from_secs(30);
/// How a patch is merged.
const MERGE: &str = "application/merge-patch+json";
/// Objects that are made at a time.
const AT_A_TIME: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let count = asked("CANARIES").unwrap_or(1_000);
    let rolling = asked("ROLLING").unwrap_or(50).min(count);
    // Nobody makes Pods.
    let options = Options { controllers: Controllers::ServiceAccounts, ..Options::default() };
    let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?;
    let cluster = Arc::new(Cluster::start(options).await?);
    cluster.enter()?;
    install(&cluster, &[]).await;
    let role = Role { namespace: NAMESPACE.to_owned(), scope: None, flags: Vec::new() };
    install_role(&cluster, &role).await;
    let api = Connection::open(&Access::Kubeconfig(cluster.kubeconfig().to_owned()), "wingbeat-bench").await?;
    let _web =
        cluster.command(beside("wingbeat-test-web")).env("POD_IP", NODE_ADDRESS).stdout(Stdio::null()).spawn()?;
    let workloads = keep_ready(cluster.clone(), api.clone());
    tokio::select! {
        figures = measure(&cluster, &api, &role, &envoy, count, rolling) => Ok(print(&figures?)?),
        ended = workloads => ended.context("who has Deployments ready"),
    }
}

/// Measures the controller with so many Canaries, of which so many roll out.
async fn measure(
    cluster: &Cluster,
    api: &Connection,
    role: &Role,
    envoy: &Binary,
    count: u64,
    rolling: u64,
) -> anyhow::Result<Value> {
    let entry = Port::hold()?;
    let listener = json!({"address": "127.0.0.1", "port": entry.address().port(), "default": true});
    create(api, "/apis/wingbeat.dev/v1alpha1/listeners", "wingbeat.dev/v1alpha1", "Listener", "http", listener).await?;

    let log = Log::default();
    let (mut controller, leader) = start(cluster, role, &log).await;
    let xds = Entry::open().await;
    xds.lead_to(leader);
    let bootstrap = Bootstrap {
        node_id: "edge-1".to_owned(),
        node_cluster: NAMESPACE.to_owned(),
        host: xds.address().ip().to_string(),
        port: xds.address().port(),
        admin: None,
        delta: false,
        tls: None,
        authorization: None,
    };
    let _envoy = envoy.start(bootstrap.render(), entry.address()).await?;
    let began = Instant::now();
    populate(api, count).await?;
    wait_for(cluster, "Initialized").await?;
    let initialised = began.elapsed();
    // What comes after, as the size of each target, is no rest.
    tokio::time::timeout(DEADLINE, cluster.until_quiet(OURS, QUIET)).await.context("it is never quiet")??;

    let (rest, before) = (Cost::begin(cluster, &controller)?, cluster.audit()?);
    tokio::time::sleep(REST).await;
    let rest = rest.end(cluster, &controller)?;
    let since = cluster.audit()?.since(&before);
    let ours = since.calls().iter().filter(|(call, _)| call.user_agent.starts_with(OURS));
    let by_resource: BTreeMap<String, u64> =
        ours.map(|(call, count)| (format!("{} {}", call.verb, call.resource), *count)).collect();
    let rss = memory::resident(controller.pid())? / 1_024;

    // As Kubernetes has it end: it hands its Lease back.
    controller.signal(Signal::TERM);
    controller.ended().await;
    let began = Instant::now();
    let (controller, leader) = start(cluster, role, &log).await;
    let synced = began.elapsed();
    xds.lead_to(leader);

    let users: Vec<Load> = (0..rolling)
        .map(|number| {
            Load::start(LoadConfig {
                target: entry.address(),
                host: format!("{}.{NAMESPACE}", name(number)),
                rate: RATE,
                patience: Some(Duration::from_secs(5)),
                visitors: ANYONE,
            })
        })
        .collect();
    let before = Cost::begin(cluster, &controller)?;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}});
    for number in 0..rolling {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{}", name(number));
        call(api, "PATCH", &path, MERGE, &patch).await?;
    }
    let rolled = Instant::now();
    for number in 0..rolling {
        let canary = format!("{CANARIES}/{}", name(number));
        wait(cluster, &canary, "Succeeded").await?;
    }
    let took = rolled.elapsed();
    let cost = before.end(cluster, &controller)?;
    let (mut finished, mut failed) = (0, 0);
    for load in users {
        let tally = load.stop(Duration::from_secs(5)).await;
        finished += tally.finished;
        failed += tally.failed.len();
    }
    Ok(json!({
        "canaries": count,
        "initialised_secs": initialised.as_secs_f64(),
        "rest_cores": rest.cores,
        "rest_calls": rest.calls,
        "rest_by_resource": by_resource,
        "rss_mib": rss,
        "synced_secs": synced.as_secs_f64(),
        "rolling": rolling,
        "rolled_secs": took.as_secs_f64(),
        "rolling_cores": cost.cores,
        "rolling_requests": finished,
        "rolling_failed": failed,
    }))
}

fn name(number: u64) -> String {
    format!("web-{number}")
}

/// Starts a controller, and waits until it knows all of the cluster and serves it. Returns where Envoys connect.
async fn start(cluster: &Cluster, role: &Role, log: &Log) -> (Controller, SocketAddr) {
    let mut controller = Controller::start(cluster, role, Pod::make(), log).await;
    let (xds, _) = controller.leads().await;
    (controller, xds)
}

/// What the controller takes from a moment on.
struct Cost {
    began: Instant,
    cpu: Duration,
    calls: u64,
}

/// What it took until another one.
struct Spent {
    cores: f64,
    /// But for its Lease, and for watches, which are begun anew now and then.
    calls: u64,
}

impl Cost {
    fn begin(cluster: &Cluster, controller: &Controller) -> anyhow::Result<Self> {
        Ok(Self { began: Instant::now(), cpu: cpu::used(controller.pid())?, calls: calls(cluster)? })
    }

    fn end(self, cluster: &Cluster, controller: &Controller) -> anyhow::Result<Spent> {
        let spent = cpu::used(controller.pid())?.saturating_sub(self.cpu);
        let cores = spent.as_secs_f64() / self.began.elapsed().as_secs_f64();
        Ok(Spent { cores, calls: calls(cluster)?.saturating_sub(self.calls) })
    }
}

fn calls(cluster: &Cluster) -> anyhow::Result<u64> {
    let (reads, writes) = cluster.audit()?.reads_and_writes(OURS);
    Ok(reads + writes)
}

async fn create(
    api: &Connection,
    path: &str,
    version: &str,
    kind: &str,
    name: &str,
    spec: Value,
) -> anyhow::Result<()> {
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    call(api, "POST", path, "application/json", &object).await
}

async fn call(api: &Connection, method: &str, path: &str, content_type: &str, body: &Value) -> anyhow::Result<()> {
    let answer = api.call(method, path, content_type, body.to_string().into_bytes(), CALL).await;
    answer.map(drop).map_err(|failure| anyhow!("{method} {path}: {failure:?}"))
}

/// Makes Deployments with their Canaries.
async fn populate(api: &Connection, count: u64) -> anyhow::Result<()> {
    let made = futures::stream::iter(0..count).map(|number| async move {
        let name = name(number);
        let deployment = json!({
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "web", "image": "wingbeat.test/web:1", "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        });
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
        create(api, &path, "apps/v1", "Deployment", &name, deployment).await?;
        let canary = json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {"interval": "2s", "threshold": 3, "stepWeight": 5, "maxWeight": 50, "judge": {"mode": "guard"}},
        });
        let path = format!("/apis/wingbeat.dev/v1alpha1/namespaces/{NAMESPACE}/canaries");
        create(api, &path, "wingbeat.dev/v1alpha1", "Canary", &name, canary).await
    });
    let results: Vec<anyhow::Result<()>> = made.buffer_unordered(AT_A_TIME).collect().await;
    results.into_iter().collect()
}

async fn wait_for(cluster: &Cluster, phase: &str) -> anyhow::Result<()> {
    wait(cluster, CANARIES, phase).await
}

/// Waits until a Canary, or all of them, are in a phase.
async fn wait(cluster: &Cluster, canaries: &str, phase: &str) -> anyhow::Result<()> {
    let condition = format!("--for=jsonpath={{.status.phase}}={phase}");
    let timeout = format!("--timeout={}s", DEADLINE.as_secs() / 2);
    let mut args = vec!["--namespace", NAMESPACE, "wait", canaries, &condition, &timeout];
    if canaries == CANARIES {
        args.push("--all");
    }
    cluster.kubectl(&args).await?;
    Ok(())
}

/// Says of each Deployment that all of its Pods are there, and of each arm where they are, as often as that is different. Ends
/// only with what is wrong.
async fn keep_ready(cluster: Arc<Cluster>, api: Connection) -> anyhow::Result<()> {
    let mut workers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    // Of one Deployment, one after the other.
    let lanes: Vec<mpsc::UnboundedSender<Value>> = (0..AT_A_TIME)
        .map(|_| {
            let (to, mut from) = mpsc::unbounded_channel();
            let api = api.clone();
            workers.spawn(async move {
                let mut known = Known::new();
                while let Some(object) = from.recv().await {
                    make_ready(&api, &object, &mut known).await?;
                }
                Ok(())
            });
            to
        })
        .collect();
    // The API server ends the watch of whoever lags behind: kubectl ends then, and begins with all of them again.
    loop {
        watch(&cluster, &lanes, &mut workers).await?;
    }
}

/// Hands Deployments on as kubectl shows them, until it ends.
async fn watch(
    cluster: &Cluster,
    lanes: &[mpsc::UnboundedSender<Value>],
    workers: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut kubectl = cluster.command("kubectl");
    kubectl.args(["--namespace", NAMESPACE, "get", "deployments", "--watch", "--output=json"]).stdout(Stdio::piped());
    let mut kubectl = kubectl.spawn().context("kubectl")?;
    let mut lines = BufReader::new(kubectl.stdout.take().context("standard output")?).lines();
    let mut text = String::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else {
                    let status = kubectl.wait().await?;
                    ensure!(status.success(), "kubectl ends with {status}");
                    return Ok(());
                };
                text.push_str(&line);
                // The last line of an object.
                if line == "}" {
                    let mut object: Value = serde_json::from_str(&text)?;
                    text.clear();
                    // It begins with those that are there, in a list.
                    let list = object.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
                    for object in list.unwrap_or_else(|| vec![object]) {
                        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        let sum: usize = name.bytes().map(usize::from).sum();
                        if let Some(lane) = lanes.get(sum % AT_A_TIME) {
                            let _ended = lane.send(object);
                        }
                    }
                }
            }
            Some(ended) = workers.join_next() => ended??,
        }
    }
}

/// What was said of a Deployment: its template, how often that was another one, and how many Pods it has.
type Known = BTreeMap<String, (Value, u64, u64)>;

async fn make_ready(api: &Connection, deployment: &Value, known: &mut Known) -> anyhow::Result<()> {
    let at = |pointer: &str| deployment.pointer(pointer).cloned().unwrap_or_default();
    let (name, template) = (at("/metadata/name").as_str().unwrap_or_default().to_owned(), at("/spec/template"));
    let replicas = at("/spec/replicas").as_u64().unwrap_or(1);
    let before = known.get(&name).cloned();
    let revision = match &before {
        Some((same, revision, _)) if *same == template => *revision,
        Some((_, revision, _)) => revision + 1,
        None => 1,
    };
    if before.as_ref().is_none_or(|(_, same, _)| *same != revision) {
        let annotations = json!({"deployment.kubernetes.io/revision": revision.to_string()});
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}");
        call(api, "PATCH", &path, MERGE, &json!({"metadata": {"annotations": annotations}})).await?;
    }
    if at("/status/observedGeneration") != at("/metadata/generation") {
        let status = json!({
            "observedGeneration": at("/metadata/generation"), "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas,
        });
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}/status");
        call(api, "PATCH", &path, MERGE, &json!({"status": status})).await?;
    }
    if before.as_ref().is_none_or(|(_, _, same)| (*same > 0) != (replicas > 0)) {
        let (canary, arm) = name.strip_suffix("-primary").map_or((name.as_str(), "canary"), |it| (it, "primary"));
        let service = format!("{canary}-{arm}");
        let endpoints = if replicas > 0 {
            json!([{"addresses": [NODE_ADDRESS], "conditions": {"ready": true}}])
        } else {
            json!([])
        };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "labels": {
                "kubernetes.io/service-name": service, "wingbeat.dev/arm": arm, "wingbeat.dev/canary": canary,
            }},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        let path =
            format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{service}?fieldManager=bench");
        call(api, "PATCH", &path, "application/apply-patch+yaml", &slice).await?;
    }
    known.insert(name, (template, revision, replicas));
    Ok(())
}
