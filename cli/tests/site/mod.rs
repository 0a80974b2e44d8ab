//! A site that runs `wingbeat serve`: two revisions, their documents, an Envoy and users.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_xds_server::bootstrap::Bootstrap;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");
/// A running `wingbeat serve`; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) http: String,
    pub(crate) xds: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Server {
    pub(crate) fn start(folder: &Path, xds: SocketAddr) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(folder.join("canary.yaml"))
            .arg("--state")
            .arg(folder.join("state"))
            .args(["--listen-xds", &xds.to_string(), "--listen-http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("standard output");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        let addresses: Value = serde_json::from_str(&line).expect("the first line is JSON");
        let text = |name: &str| addresses.get(name).and_then(Value::as_str).expect("an address").to_owned();
        Self { process, http: text("http"), xds: text("xds").parse().expect("an address") }
    }

    /// Runs a verb of a client.
    pub(crate) fn client(&self, args: &[&str]) -> (Option<i32>, String) {
        let output =
            Command::new(PROGRAM).args(args).args(["--server", &self.http]).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    }

    pub(crate) fn canary(&self) -> Option<Value> {
        let (code, said) = self.client(&["get", "--output", "json"]);
        let all: Value = (code == Some(0)).then(|| serde_json::from_str(&said).expect("get prints JSON"))?;
        all.as_array()?.first().cloned()
    }

    pub(crate) fn phase(&self) -> String {
        self.canary().and_then(|canary| Some(canary.get("phase")?.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// Two revisions, a folder with their documents, and users.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    analysis: &'static str,
    pub(crate) entry: SocketAddr,
    pub(crate) old: Service,
    pub(crate) new: Service,
}

impl Site {
    /// Starts both revisions; `analysis` is the canary's.
    pub(crate) async fn build(analysis: &'static str) -> Self {
        let old = Service::start("1", 1, Behaviour::default()).await.expect("a service");
        let new = Service::start("2", 2, Behaviour::default()).await.expect("a service");
        let folder = tempfile::tempdir().expect("a folder");
        let site = Self { folder, analysis, entry: free().await, old, new };
        site.write("1");
        site
    }

    /// Asks for a revision. Editors replace files, and so does this.
    pub(crate) fn write(&self, revision: &str) {
        let analysis = self.analysis;
        let (old, new, port) = (self.old.address(), self.new.address(), self.entry.port());
        let text = format!(
            r#"
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {{name: public}}
spec: {{address: 127.0.0.1, port: {port}}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {{name: backend, namespace: prod}}
spec:
  revision: "{revision}"
  revisions:
    "1": {{endpoints: ["{old}"]}}
    "2": {{endpoints: ["{new}"]}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {{name: backend, namespace: prod}}
spec:
  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}}
  service: {{port: 80, hosts: [backend.local], listeners: [public]}}
  analysis: {{{analysis}}}
"#
        );
        let (written, file) = (self.path().join("next"), self.path().join("canary.yaml"));
        std::fs::write(&written, text).expect("the file is written");
        std::fs::rename(written, file).expect("the file is replaced");
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts an Envoy that finds its control plane there.
    pub(crate) async fn envoy(&self, xds: SocketAddr) -> Envoy {
        let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let bootstrap = Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: "edge".to_owned(),
            host: xds.ip().to_string(),
            port: xds.port(),
            admin: None,
            delta: false,
            tls: None,
        };
        binary.start(bootstrap.render(), self.entry).await.expect("Envoy starts")
    }

    pub(crate) fn users(&self) -> Load {
        let host = "backend.local".to_owned();
        Load::start(LoadConfig { target: self.entry, host, rate: 300, patience: None, visitors: ANYONE })
    }
}

async fn free() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

/// Waits until something holds, two minutes at most.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.unwrap_or_else(|_| panic!("{what}: it never came about"));
}
