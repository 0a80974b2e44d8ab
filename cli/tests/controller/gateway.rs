//! A cluster with a Deployment, its Canary, the controller, and an Envoy in front.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::port::Port;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_test_cluster::Cluster;
use wingbeat_xds_server::bootstrap::Bootstrap;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");
/// Requests a second.
const RATE: u32 = 400;
/// Time for something to come about; it takes some seconds, but a busy machine may be slow.
const DEADLINE: Duration = Duration::from_mins(2);

/// A running controller. Killed when dropped.
struct Controller {
    _process: Child,
    xds: std::net::SocketAddr,
    said: Arc<Mutex<String>>,
    _state: tempfile::TempDir,
}

/// See the module's documentation.
pub(crate) struct Gateway {
    cluster: Arc<Cluster>,
    namespace: String,
    controller: Controller,
    entry: Port,
    _envoy: Envoy,
}

impl Gateway {
    /// Returns one whose Canary is initialised; nothing where there can be no cluster.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let cluster = Cluster::for_test(test).await.expect("a cluster")?;
        cluster.enter().expect("its network");
        let namespace = test.trim_start_matches("real_kubernetes_").replace('_', "-");
        install(&cluster).await;
        cluster.kubectl(&["create", "namespace", &namespace]).await.expect("a namespace");
        let entry = Port::hold().expect("a port");
        let controller = Controller::start(&cluster, &namespace).await;
        let objects = [deployment(&namespace), canary(&namespace), listener(&namespace, entry.address().port())];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        cluster.apply(&list.to_string()).await.expect("objects are created");
        let xds = controller.xds;
        let bootstrap = Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: "edge".to_owned(),
            host: xds.ip().to_string(),
            port: xds.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        };
        let envoy = envoy.start(bootstrap.render(), entry.address()).await.expect("Envoy starts");
        let gateway = Self { cluster, namespace, controller, entry, _envoy: envoy };
        gateway.until_phase("Initialized", DEADLINE).await;
        Some(gateway)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns what the controller wrote to its log.
    pub(crate) fn said(&self) -> String {
        self.controller.said.lock().expect("not poisoned").clone()
    }

    /// Starts requests to the backend.
    pub(crate) fn users(&self) -> Load {
        Load::start(LoadConfig {
            target: self.entry.address(),
            host: format!("backend.{}", self.namespace),
            rate: RATE,
            patience: Some(Duration::from_secs(5)),
            visitors: ANYONE,
        })
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["--namespace", &self.namespace], args].concat();
        self.cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.said()))
    }

    /// Returns what a path of an object is, word by word.
    pub(crate) async fn words(&self, object: &str, path: &str) -> Vec<String> {
        let printed = self.kubectl(&["get", object, &format!("--output=jsonpath={path}")]).await;
        printed.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until a path of an object has a value.
    pub(crate) async fn until(&self, what: &str, object: &str, path: &str, value: &str) {
        self.wait(what, object, path, value, DEADLINE).await;
    }

    /// Waits until the canary is in a phase.
    pub(crate) async fn until_phase(&self, phase: &str, within: Duration) {
        self.wait(phase, "canaries.wingbeat.dev/backend", "{.status.phase}", phase, within).await;
    }

    async fn wait(&self, what: &str, object: &str, path: &str, value: &str, within: Duration) {
        let condition = format!("--for=jsonpath={path}={value}");
        let timeout = format!("--timeout={}s", within.as_secs());
        let args = ["--namespace", &self.namespace, "wait", object, &condition, &timeout];
        if let Err(error) = self.cluster.kubectl(&args).await {
            let shown = self.kubectl(&["get", "canaries.wingbeat.dev/backend", "--output=yaml"]).await;
            panic!("{what}: {error:#}\n{shown}\n{}", self.said());
        }
    }
}

impl Controller {
    async fn start(cluster: &Cluster, namespace: &str) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let mut process = cluster
            .command(PROGRAM)
            .args(["controller", "--namespace", namespace, "--lease-namespace", namespace])
            .args(["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--state"])
            .arg(state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = Arc::<Mutex<String>>::default();
        let mut lines = BufReader::new(process.stderr.take().expect("standard error")).lines();
        let heard = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut heard = heard.lock().expect("not poisoned");
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        let mut stdout = BufReader::new(process.stdout.take().expect("standard output")).lines();
        let first = tokio::time::timeout(DEADLINE, stdout.next_line()).await;
        let line = first.expect("it leads in time").expect("standard output").unwrap_or_default();
        let addresses: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}; {}", said.lock().expect("not poisoned")));
        let xds = addresses.get("xds").and_then(Value::as_str).expect("an address").parse().expect("an address");
        Self { _process: process, xds, said, _state: state }
    }
}

/// Applies our definitions, and waits until they are served.
async fn install(cluster: &Cluster) {
    /// Held while the definitions are applied: kubectl of two tests would meet.
    static APPLYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = APPLYING.lock().await;
    let crds = cluster.command(PROGRAM).arg("crds").output().await.expect("the program runs");
    cluster.apply(&String::from_utf8_lossy(&crds.stdout)).await.expect("our definitions");
    let wait = ["wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("they are served");
}

fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "backend", "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "backend"}},
            "template": {
                "metadata": {"labels": {"app": "backend"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "wingbeat.test/web:1.4.0",
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    // Requests that are on their way when a Pod ends are answered.
                    "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                }]},
            },
        },
    })
}

fn canary(namespace: &str) -> Value {
    json!({
        "apiVersion": "wingbeat.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "backend", "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": "http", "listeners": [namespace]},
            "analysis": {
                "interval": "500ms", "threshold": 3, "stepWeight": 5, "maxWeight": 50, "judge": {"mode": "guard"},
            },
        },
    })
}

fn listener(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "wingbeat.dev/v1alpha1",
        "kind": "Listener",
        "metadata": {"name": name},
        "spec": {"address": "127.0.0.1", "port": port},
    })
}
