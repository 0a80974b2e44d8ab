//! A cluster with a Deployment, its Canary, the controller, and an Envoy in front.
#![expect(clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::port::Port;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_test_cluster::audit::{Audit, Call};
use wingbeat_test_cluster::{Cluster, Options};
use wingbeat_xds_server::bootstrap::Bootstrap;

use crate::by_name::ByName;

/// The Canary of the API that a controller has, as kubectl is given it.
const CANARY: &str = "canaries.wingbeat.dev/backend";
/// The same of Flagger's.
const FLAGGERS_CANARY: &str = "canaries.flagger.app/backend";
/// Requests a second, unless something else is asked for.
const RATE: u32 = 400;
/// Time for something to come about; it takes some seconds, but a busy machine may be slow.
const DEADLINE: Duration = Duration::from_mins(2);

/// A running controller. Killed when dropped.
#[derive(Debug)]
struct Controller {
    process: Child,
    xds: SocketAddr,
    said: Arc<Mutex<String>>,
    _state: tempfile::TempDir,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Gateway {
    cluster: Arc<Cluster>,
    setup: Setup,
    controller: Controller,
    entry: Port,
    envoy: Envoy,
}

/// What is in the cluster of a gateway, beside the Listener.
#[derive(Debug)]
struct Setup {
    namespace: String,
    /// The Canary, as kubectl is given it.
    canary: &'static str,
    /// Flags of the controller beside those that every one has.
    flags: Vec<String>,
    /// Flags of `wingbeat crds`.
    definitions: &'static [&'static str],
    /// What the Listener says of the Canaries that it serves.
    serves: Value,
    /// The Deployment, its Canary, and what that names.
    documents: String,
}

impl Setup {
    fn new(namespace: &str, analysis: &Value) -> Self {
        let objects = [deployment(namespace), canary(namespace, analysis)];
        let documents = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        Self {
            namespace: namespace.to_owned(),
            canary: CANARY,
            flags: vec!["--namespace".to_owned(), namespace.to_owned()],
            definitions: &[],
            serves: json!({}),
            documents,
        }
    }
}

impl Gateway {
    /// Returns one whose Canary is initialised; nothing where there can be no cluster.
    pub async fn start(test: &str) -> Option<Self> {
        let cluster = Cluster::for_test(test).await.expect("a cluster")?;
        Some(Self::start_in(cluster, test).await)
    }

    /// The same in a cluster of this test alone.
    pub async fn start_alone(test: &str) -> Option<Self> {
        let cluster = Cluster::for_test_alone(test).await.expect("a cluster")?;
        Some(Self::start_in(cluster, test).await)
    }

    /// Returns one in a cluster that nobody else has, with this analysis.
    pub async fn measured(name: &str, analysis: Value) -> anyhow::Result<Self> {
        let cluster = Cluster::start(Options::default()).await?;
        Ok(Self::start_with(Arc::new(cluster), Setup::new(name, &analysis)).await)
    }

    /// Returns one with these documents of Flagger's API in the namespace `prod`, and a controller that takes it.
    pub async fn flaggers(test: &str, documents: &str) -> Option<Self> {
        let cluster = Cluster::for_test_alone(test).await.expect("a cluster")?;
        let setup = Setup {
            namespace: "prod".to_owned(),
            canary: FLAGGERS_CANARY,
            flags: vec!["--flagger-api".to_owned()],
            definitions: &["--flagger-api"],
            serves: json!({"default": true}),
            documents: documents.to_owned(),
        };
        Some(Self::start_with(cluster, setup).await)
    }

    async fn start_in(cluster: Arc<Cluster>, test: &str) -> Self {
        let analysis = json!({
            "interval": "500ms", "threshold": 3, "stepWeight": 5, "maxWeight": 50, "judge": {"mode": "guard"},
        });
        let namespace = test.trim_start_matches("real_kubernetes_").replace('_', "-");
        Self::start_with(cluster, Setup::new(&namespace, &analysis)).await
    }

    async fn start_with(cluster: Arc<Cluster>, setup: Setup) -> Self {
        let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        cluster.enter().expect("its network");
        let namespace = &setup.namespace;
        install(&cluster, setup.definitions).await;
        cluster.kubectl(&["create", "namespace", namespace]).await.expect("a namespace");
        cluster.apply(&role(namespace)).await.expect("its role");
        let entry = Port::hold().expect("a port");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let controller = Controller::start(&cluster, &setup, any).await;
        cluster.apply(&listener(&setup, entry.address().port()).to_string()).await.expect("a Listener");
        cluster.apply(&setup.documents).await.expect("objects are created");
        let xds = controller.xds;
        let bootstrap = Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: namespace.clone(),
            host: xds.ip().to_string(),
            port: xds.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        };
        let envoy = envoy.start(bootstrap.render(), entry.address()).await.expect("Envoy starts");
        let gateway = Self { cluster, setup, controller, entry, envoy };
        gateway.until_phase("Initialized", DEADLINE).await;
        gateway
    }

    /// Waits until the controller has not called anything but its Lease for three seconds.
    pub async fn until_quiet(&self) {
        const QUIET: Duration = Duration::from_secs(3);
        let calls = |audit: &Audit| -> u64 {
            let ours = |call: &&Call| call.user_agent.starts_with("wingbeat/") && call.resource != "leases";
            let all = audit.calls().iter().filter(|(call, _)| ours(call));
            all.map(|(_, count)| count).sum()
        };
        let wait = async {
            let mut before = calls(&self.audit());
            loop {
                tokio::time::sleep(QUIET).await;
                let now = calls(&self.audit());
                if std::mem::replace(&mut before, now) == now {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never quiet:\n{}", self.said()));
    }

    /// Returns what the backend answers at a path: status line, header and body.
    pub async fn answer(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.entry.address()).await.expect("Envoy listens");
        let host = format!("backend.{}", self.setup.namespace);
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.expect("it is sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    /// Returns what Envoy counted of requests that failed, and of what may be why.
    pub async fn failures(&self) -> String {
        const COUNTED: &str =
            "5xx|with_active_rq|no_cluster|no_route|reset|pending_failure|connect_fail|modified|cx_protocol_error|idle";
        let admin = self.envoy.admin().expect("an administration interface");
        let mut connection = TcpStream::connect(admin).await.expect("it answers");
        let head = format!("GET /stats?usedonly&filter={COUNTED} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.expect("it is sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it answers");
        let is_counted = |line: &&str| line.contains(": ") && !line.ends_with(": 0");
        answer.lines().filter(is_counted).collect::<Vec<&str>>().join("\n")
    }

    /// Returns the log of the API server's calls, an event a line, from this byte on.
    pub fn audit_log(&self, from: u64) -> String {
        self.cluster.audit_log(from).expect("an audit log")
    }

    /// Returns the calls of the API server so far.
    pub fn audit(&self) -> Audit {
        self.cluster.audit().expect("an audit log")
    }

    /// Returns a command for a program in the network of the cluster.
    pub fn command(&self, program: &str) -> Command {
        self.cluster.command(beside(program))
    }

    /// Creates or changes objects in any namespace.
    pub async fn apply(&self, documents: &str) {
        self.cluster.apply(documents).await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Kills the controller without warning and starts another one, whose disk is empty: a Pod was lost, and made anew.
    pub async fn replace_controller(&mut self) {
        self.controller.process.kill().await.expect("it is killed");
        self.controller = Controller::start(&self.cluster, &self.setup, self.controller.xds).await;
    }

    /// Stops the controller, and starts no other one.
    pub async fn stop_controller(&mut self) {
        self.controller.process.kill().await.expect("it is killed");
    }

    /// Runs our program to its success, and returns what it printed.
    pub async fn wingbeat(&self, args: &[&str]) -> String {
        let output = self.cluster.command(program()).args(args).output().await.expect("the program runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", said(&output.stderr));
        said(&output.stdout)
    }

    /// Starts requests to a Service by its name, past Envoy.
    pub async fn by_name(&self, service: &str) -> ByName {
        ByName::start(&self.cluster, &self.setup.namespace, service).await
    }

    /// Returns the namespace of the Canary and of the controller.
    pub fn namespace(&self) -> &str {
        &self.setup.namespace
    }

    /// Returns what the controller wrote to its log.
    pub fn said(&self) -> String {
        self.controller.said.lock().expect("not poisoned").clone()
    }

    /// Starts requests to the backend.
    pub fn users(&self) -> Load {
        self.users_at(RATE)
    }

    /// Starts so many requests a second to the backend.
    pub fn users_at(&self, rate: u32) -> Load {
        Load::start(LoadConfig {
            target: self.entry.address(),
            host: format!("backend.{}", self.setup.namespace),
            rate,
            patience: Some(Duration::from_secs(5)),
            visitors: ANYONE,
        })
    }

    /// Runs kubectl to its success, in the namespace, and returns what it printed.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["--namespace", &self.setup.namespace], args].concat();
        self.cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.said()))
    }

    /// Returns what a path of an object is, word by word.
    pub async fn words(&self, object: &str, path: &str) -> Vec<String> {
        let printed = self.kubectl(&["get", object, &format!("--output=jsonpath={path}")]).await;
        printed.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until a path of an object has a value.
    pub async fn until(&self, what: &str, object: &str, path: &str, value: &str) {
        self.wait(what, object, path, value, DEADLINE).await;
    }

    /// Waits until the controller has logged something that it had not at this place of its log, which [`Gateway::said`] gives.
    pub async fn until_said(&self, after: usize, text: &str) {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let wait = async {
            while !self.said().get(after..).is_some_and(|said| said.contains(text)) {
                poll.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{text} is missing in:\n{}", self.said()));
    }

    /// Waits until the canary is in a phase.
    pub async fn until_phase(&self, phase: &str, within: Duration) {
        self.wait(phase, self.setup.canary, "{.status.phase}", phase, within).await;
    }

    async fn wait(&self, what: &str, object: &str, path: &str, value: &str, within: Duration) {
        let condition = format!("--for=jsonpath={path}={value}");
        let timeout = format!("--timeout={}s", within.as_secs());
        let args = ["--namespace", &self.setup.namespace, "wait", object, &condition, &timeout];
        if let Err(error) = self.cluster.kubectl(&args).await {
            let shown = self.kubectl(&["get", self.setup.canary, "--output=yaml"]).await;
            panic!("{what}: {error:#}\n{shown}\n{}", self.said());
        }
    }
}

impl Controller {
    /// Starts one that leads, with an empty disk.
    async fn start(cluster: &Cluster, setup: &Setup, xds: SocketAddr) -> Self {
        let namespace = &setup.namespace;
        let state = tempfile::tempdir().expect("a folder");
        let kubeconfig = cluster.kubeconfig_of(namespace, "wingbeat").await.expect("a service account");
        let mut process = cluster
            .command(program())
            .env("KUBECONFIG", kubeconfig)
            .args(["controller", "--lease-namespace", namespace])
            .args(&setup.flags)
            .args(["--listen-xds", &xds.to_string(), "--listen-http", "127.0.0.1:0", "--state"])
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
        Self { process, xds, said, _state: state }
    }
}

/// Returns our program.
pub fn program() -> PathBuf {
    beside("wingbeat")
}

/// Returns a program as cargo puts it: into the folder of a bench, or into the one above that of tests.
pub fn beside(program: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    let mut beside = here.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    beside
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{program} is not built: cargo build --workspace --bins"))
}

/// Applies our definitions, and waits until they are served.
pub async fn install(cluster: &Cluster, flags: &[&str]) {
    /// Held while the definitions are applied: kubectl of two tests would meet.
    static APPLYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = APPLYING.lock().await;
    let crds = cluster.command(program()).arg("crds").args(flags).output().await.expect("the program runs");
    cluster.apply(&String::from_utf8_lossy(&crds.stdout)).await.expect("our definitions");
    let wait = ["wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("they are served");
}

/// Returns the role of `deploy`, for a controller in this namespace: it may do nothing else.
pub fn role(namespace: &str) -> String {
    let documents = include_str!("../../deploy/kustomize/rbac.yaml").split("---\n");
    let documents = documents.map(|document| {
        let document = document.replace("namespace: wingbeat", &format!("namespace: {namespace}"));
        // Others have theirs in the same cluster.
        let is_binding = document.contains("kind: ClusterRoleBinding");
        if is_binding { document.replacen("name: wingbeat", &format!("name: {namespace}"), 1) } else { document }
    });
    documents.collect::<Vec<String>>().join("---\n")
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
                    "env": [{"name": "DEBUG", "value": "1"}, {"name": "KEPT", "value": "1"}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    // Requests that are on their way when a Pod ends are answered.
                    "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                }]},
            },
        },
    })
}

fn canary(namespace: &str, analysis: &Value) -> Value {
    json!({
        "apiVersion": "wingbeat.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "backend", "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": "http", "listeners": [namespace]},
            "analysis": analysis,
        },
    })
}

fn listener(setup: &Setup, port: u16) -> Value {
    let name = &setup.namespace;
    // Listeners are the cluster's: without `nodes`, the Envoys of all tests would share the port.
    let mut spec = json!({"address": "127.0.0.1", "port": port, "nodes": [name]});
    if let (Some(spec), Some(serves)) = (spec.as_object_mut(), setup.serves.as_object()) {
        spec.extend(serves.clone());
    }
    json!({"apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "metadata": {"name": name}, "spec": spec})
}
