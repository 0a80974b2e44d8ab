//! A cluster with a Deployment, its Canary, the controller, and an Envoy in front.
#![expect(clippy::panic, reason = "tests")]

mod aftermath;
pub mod broken;
mod entry;
pub mod objects;
mod process;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::port::Port;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_test_cluster::audit::Audit;
use wingbeat_test_cluster::{Cluster, Options};
use wingbeat_xds_server::bootstrap::Bootstrap;

use crate::by_name::ByName;
pub use entry::Entry;
pub use process::{Controller, Log, Pod, Role, Signal, beside};
pub use writes::{Kind, Writes};

/// The Canary of the API that every controller has, as kubectl is given it.
const CANARY: &str = "canaries.wingbeat.dev/backend";
/// The same of Flagger's.
const FLAGGERS_CANARY: &str = "canaries.flagger.app/backend";
/// How controllers call themselves.
pub const OURS: &str = "wingbeat/";
/// Requests a second, unless something else is asked for.
const RATE: u32 = 400;
/// Time for something to come about; it takes some seconds, but a busy machine may be slow.
const DEADLINE: Duration = Duration::from_mins(2);

/// See the module's documentation.
#[derive(Debug)]
pub struct Gateway {
    cluster: Arc<Cluster>,
    namespace: String,
    /// The Canary, as kubectl is given it.
    canary: &'static str,
    role: Role,
    log: Log,
    /// The one that leads, or led last; nothing: it was taken out.
    controller: Option<Controller>,
    xds: Entry,
    entry: Port,
    envoy: Envoy,
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
        let gateway = Self::begin(Arc::new(cluster), name, analysis).await;
        gateway.until_phase("Initialized", DEADLINE).await;
        Ok(gateway)
    }

    /// Returns one with these documents of Flagger's API in the namespace `prod`, and a controller that takes it in all of the
    /// cluster, which is of this test alone.
    pub async fn flaggers(test: &str, documents: &str) -> Option<Self> {
        let cluster = Cluster::for_test_alone(test).await.expect("a cluster")?;
        enter(&cluster).await;
        objects::install(&cluster, &["--flagger-api"]).await;
        let role = Role { namespace: "prod".to_owned(), scope: None, flags: vec!["--flagger-api".to_owned()] };
        objects::install_role(&cluster, &role).await;
        let log = Log::default();
        let controller = Controller::start(&cluster, &role, Pod::make(), &log).await;
        let entry = Port::hold().expect("a port");
        let listener = objects::listener(&role.namespace, entry.address().port(), &json!({"default": true}));
        let documents = format!("{listener}\n---\n{documents}");
        let gateway = Self::with(cluster, role, controller, log, FLAGGERS_CANARY, entry, &documents).await;
        gateway.until_phase("Initialized", DEADLINE).await;
        Some(gateway)
    }

    /// The same in this cluster, with the analysis of tests.
    pub async fn start_in(cluster: Arc<Cluster>, test: &str) -> Self {
        let gateway = Self::begin(cluster, test, quick()).await;
        gateway.until_phase("Initialized", DEADLINE).await;
        gateway
    }

    /// The same, and its Canary is as new as can be.
    pub async fn begin(cluster: Arc<Cluster>, test: &str, analysis: Value) -> Self {
        enter(&cluster).await;
        objects::install(&cluster, &[]).await;
        let role = Role::of_test(test);
        objects::install_role(&cluster, &role).await;
        let log = Log::default();
        let controller = Controller::start(&cluster, &role, Pod::make(), &log).await;
        Self::of(cluster, role, controller, log, analysis).await
    }

    /// The same with this controller, in the namespace of its role.
    pub async fn of(cluster: Arc<Cluster>, role: Role, controller: Controller, log: Log, analysis: Value) -> Self {
        enter(&cluster).await;
        let (namespace, entry) = (&role.namespace, Port::hold().expect("a port"));
        let objects = [
            objects::deployment(namespace),
            objects::canary(namespace, &analysis, namespace),
            objects::listener(namespace, entry.address().port(), &json!({})),
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        Self::with(cluster, role, controller, log, CANARY, entry, &list).await
    }

    /// The same with these objects in place of those that tests have in common, and a Listener of the role's namespace.
    pub async fn of_objects(
        cluster: Arc<Cluster>,
        role: Role,
        controller: Controller,
        log: Log,
        mut items: Vec<Value>,
    ) -> Self {
        enter(&cluster).await;
        let entry = Port::hold().expect("a port");
        items.push(objects::listener(&role.namespace, entry.address().port(), &json!({})));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        Self::with(cluster, role, controller, log, CANARY, entry, &list).await
    }

    async fn with(
        cluster: Arc<Cluster>,
        role: Role,
        mut controller: Controller,
        log: Log,
        canary: &'static str,
        entry: Port,
        documents: &str,
    ) -> Self {
        let namespace = role.namespace.clone();
        let (leader, _) = controller.leads().await;
        let xds = Entry::open().await;
        xds.lead_to(leader);
        cluster.apply(documents).await.expect("objects are created");
        // It is ready once it listens.
        let envoy = front(&namespace, &xds, &entry).await;
        Self { cluster, namespace, canary, role, log, controller: Some(controller), xds, entry, envoy }
    }

    /// Returns the cluster.
    pub const fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Returns the Envoy in front.
    pub const fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Returns which controller it has.
    pub const fn role(&self) -> &Role {
        &self.role
    }

    /// Returns the controller that leads, or led last.
    pub fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("it was not taken out")
    }

    /// Starts a second replica, in a Pod of its own, which waits.
    pub async fn replica(&self) -> Controller {
        Controller::start(&self.cluster, &self.role, Pod::make(), &self.log).await
    }

    /// Waits until a replica leads, and lets Envoys connect to it. Returns the one before, and when this one led.
    pub async fn follow(&mut self, mut leader: Controller) -> (Option<Controller>, Instant) {
        let (xds, at) = leader.leads().await;
        self.xds.lead_to(xds);
        (self.controller.replace(leader), at)
    }

    /// Kills the controller without warning and starts another one, whose disk is empty: a Pod was lost, and made anew.
    /// Returns how long nobody led.
    pub async fn replace_controller(&mut self) -> Duration {
        self.kill_controller().await;
        let killed = Instant::now();
        let next = self.replica().await;
        let (_, at) = self.follow(next).await;
        at.duration_since(killed)
    }

    /// Kills the controller without warning, and starts it in the same Pod, as kubelet does. Returns how long nobody led.
    pub async fn restart_controller(&mut self) -> Duration {
        let (pod, killed) = (self.kill_controller().await, Instant::now());
        let next = Controller::start(&self.cluster, &self.role, pod, &self.log).await;
        let (_, at) = self.follow(next).await;
        at.duration_since(killed)
    }

    /// Kills the controller without warning, and returns its Pod.
    pub async fn kill_controller(&mut self) -> Pod {
        self.controller.take().expect("it was not taken out").kill().await
    }

    /// Returns where the audit log ends by now.
    pub fn audit_end(&self) -> u64 {
        self.cluster.audit_end().expect("an audit log")
    }

    /// Waits until the controller has not called anything but its Lease for three seconds.
    pub async fn until_quiet(&self) {
        const QUIET: Duration = Duration::from_secs(3);
        let wait = self.cluster.until_quiet(OURS, QUIET);
        let quiet = tokio::time::timeout(DEADLINE, wait).await;
        quiet.unwrap_or_else(|_| panic!("never quiet:\n{}", self.said())).expect("an audit log");
    }

    /// Returns what the backend answers at a path: status line, header and body.
    pub async fn answer(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.entry.address()).await.expect("Envoy listens");
        let host = format!("backend.{}", self.namespace);
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

    /// Runs our program to its success, and returns what it printed.
    pub async fn wingbeat(&self, args: &[&str]) -> String {
        let output = self.command("wingbeat").args(args).output().await.expect("the program runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", said(&output.stderr));
        said(&output.stdout)
    }

    /// Starts requests to a Service by its name, past Envoy.
    pub async fn by_name(&self, service: &str) -> ByName {
        ByName::start(&self.cluster, &self.namespace, service).await
    }

    /// Returns the namespace of the Canary.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns what controllers wrote to their logs.
    pub fn said(&self) -> String {
        self.log.read()
    }

    /// Starts requests to the backend.
    pub fn users(&self) -> Load {
        self.users_at(RATE)
    }

    /// Starts so many requests a second to the backend.
    pub fn users_at(&self, rate: u32) -> Load {
        Load::start(LoadConfig {
            target: self.entry.address(),
            host: format!("backend.{}", self.namespace),
            rate,
            patience: Some(Duration::from_secs(5)),
            visitors: ANYONE,
        })
    }

    /// Runs kubectl to its success, in the namespace, and returns what it printed.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["--namespace", &self.namespace], args].concat();
        self.cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.said()))
    }

    /// Returns what a path of an object is, word by word.
    pub async fn words(&self, object: &str, path: &str) -> Vec<String> {
        let printed = self.kubectl(&["get", object, &format!("--output=jsonpath={path}")]).await;
        printed.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until a path of an object has a value.
    pub async fn until(&self, what: &str, object: &str, path: &str, value: &str) {
        self.until_within(what, object, path, value, DEADLINE).await;
    }

    /// The same, within this time.
    pub async fn until_within(&self, what: &str, object: &str, path: &str, value: &str, within: Duration) {
        let condition = format!("--for=jsonpath={path}={value}");
        let timeout = format!("--timeout={}s", within.as_secs());
        let args = ["--namespace", &self.namespace, "wait", object, &condition, &timeout];
        if let Err(error) = self.cluster.kubectl(&args).await {
            let shown = self.kubectl(&["get", self.canary, "--output=yaml"]).await;
            panic!("{what}: {error:#}\n{shown}\n{}", self.said());
        }
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

    /// Waits until a path of an object has a value, though the API server may be away meanwhile.
    pub async fn until_after_all(&self, what: &str, object: &str, path: &str, value: &str) {
        let path = format!("--output=jsonpath={path}");
        let args = ["--namespace", &self.namespace, "--request-timeout=5s", "get", object, &path];
        let wait = async {
            let mut poll = tokio::time::interval(Duration::from_millis(500));
            while self.cluster.kubectl(&args).await.ok().as_deref() != Some(value) {
                poll.tick().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| panic!("{what} ({value}) does not come:\n{}", self.said()));
    }

    /// Waits until the canary is in a phase.
    pub async fn until_phase(&self, phase: &str, within: Duration) {
        self.until_within(phase, self.canary, "{.status.phase}", phase, within).await;
    }
}

/// Finds an Envoy, or installs one from the machine's network, and moves the calling thread into that of the cluster.
pub async fn enter(cluster: &Cluster) {
    let _found = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    cluster.enter().expect("its network");
}

/// Returns an analysis of ten steps of half a second.
pub fn quick() -> Value {
    json!({"interval": "500ms", "threshold": 3, "stepWeight": 5, "maxWeight": 50, "judge": {"mode": "guard"}})
}

/// Starts an Envoy that is asked at this port.
async fn front(node_cluster: &str, xds: &Entry, entry: &Port) -> Envoy {
    let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    let bootstrap = Bootstrap {
        node_id: "edge-1".to_owned(),
        node_cluster: node_cluster.to_owned(),
        host: xds.address().ip().to_string(),
        port: xds.address().port(),
        admin: None,
        delta: false,
        tls: None,
        authorization: None,
    };
    envoy.start(bootstrap.render(), entry.address()).await.expect("Envoy starts")
}
