//! `wingbeat serve` with a real Envoy: a rollout from a file, and a control plane that is killed again and again.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

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
/// The plan's shares: 5 steps of a tenth.
const STEP: u64 = 10;

/// A running `wingbeat serve`; killed when dropped.
struct Server {
    process: Child,
    http: String,
    xds: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Server {
    fn start(folder: &Path, xds: SocketAddr) -> Self {
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
    fn client(&self, args: &[&str]) -> (Option<i32>, String) {
        let output =
            Command::new(PROGRAM).args(args).args(["--server", &self.http]).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    }

    fn canary(&self) -> Option<Value> {
        let (code, said) = self.client(&["get", "--output", "json"]);
        let all: Value = (code == Some(0)).then(|| serde_json::from_str(&said).expect("get prints JSON"))?;
        all.as_array()?.first().cloned()
    }

    fn phase(&self) -> String {
        self.canary().and_then(|canary| Some(canary.get("phase")?.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// Two revisions, a folder with their documents, and users.
struct Site {
    folder: tempfile::TempDir,
    entry: SocketAddr,
    old: Service,
    new: Service,
}

impl Site {
    async fn build() -> Self {
        let old = Service::start("1", 1, Behaviour::default()).await.expect("a service");
        let new = Service::start("2", 2, Behaviour::default()).await.expect("a service");
        let site = Self { folder: tempfile::tempdir().expect("a folder"), entry: free().await, old, new };
        site.write("1");
        site
    }

    /// Asks for a revision. Editors replace files, and so does this.
    fn write(&self, revision: &str) {
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
  analysis: {{interval: 300ms, stepWeight: {STEP}, maxWeight: 50, judge: {{mode: guard}}}}
"#
        );
        let (written, file) = (self.path().join("next"), self.path().join("canary.yaml"));
        std::fs::write(&written, text).expect("the file is written");
        std::fs::rename(written, file).expect("the file is replaced");
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    async fn envoy(&self, server: &Server) -> Envoy {
        let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let bootstrap = Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: "edge".to_owned(),
            host: server.xds.ip().to_string(),
            port: server.xds.port(),
            admin: None,
        };
        binary.start(bootstrap.render(), self.entry).await.expect("Envoy starts")
    }

    fn users(&self) -> Load {
        let host = "backend.local".to_owned();
        Load::start(LoadConfig { target: self.entry, host, rate: 300, patience: None, visitors: ANYONE })
    }
}

async fn free() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.unwrap_or_else(|_| panic!("{what}: it never came about"));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_serve_rolls_out_what_the_file_asks_for() {
    let site = Site::build().await;
    let server = Server::start(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let _envoy = site.envoy(&server).await;
    let users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    // A broken file changes nothing.
    let file = site.path().join("canary.yaml");
    std::fs::write(&file, "kind: [").expect("the file is written");
    site.write("2");
    until("a rollout begins", || server.phase() == "Progressing").await;
    assert_eq!(server.client(&["pause", "prod/backend"]).0, Some(0));
    assert!(server.client(&["describe", "prod/backend"]).1.contains("Paused"));
    let (code, said) = server.client(&["pause", "prod/backend"]);
    assert!(code == Some(1) && said.contains("only a rollout in progress can be paused"), "{said}");
    assert_eq!(server.client(&["resume", "prod/backend"]).0, Some(0));
    until("the rollout ends", || server.phase() == "Succeeded").await;
    let (_, events) = server.client(&["events", "prod/backend"]);
    for text in [
        "New revision detected! Scaling up backend.prod",
        "Advance backend.prod canary weight 50",
        "Promotion completed! Scaling down backend.prod",
    ] {
        assert!(events.contains(text), "{text} is missing in:\n{events}");
    }
    for (path, holds) in [("/", "<title>Wingbeat</title>"), ("/readyz", "OK"), ("/metrics", "flagger_canary_status")] {
        let body = reqwest::get(format!("http://{}{path}", server.http)).await.expect("an answer").text().await;
        assert!(body.expect("a text").contains(holds), "{path}");
    }
    let (_, listed) = server.client(&["get", "-A"]);
    assert!(listed.starts_with("NAMESPACE   NAME      STATUS      WEIGHT   LASTTRANSITIONTIME\n"), "{listed}");
    // The next revision fails everything, and is taken back.
    site.write("1");
    until("the old revision comes again", || server.phase() == "Progressing").await;
    site.old.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
    until("it is rolled back", || server.phase() == "Failed").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert!(tally.failed.iter().all(|revision| revision.as_deref() == Some("1")), "only the broken revision failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_killed_control_plane_goes_on_where_it_was() {
    const KILLS: u64 = 20;
    let site = Site::build().await;
    let mut server = Server::start(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let xds = server.xds;
    let _envoy = site.envoy(&server).await;
    let users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    let mut asked = "1";
    let mut seen = Vec::new();
    let mut caught = 0;
    // The seed is the number of the kill: a run can be repeated.
    for kill in 0..KILLS {
        if server.phase() != "Progressing" {
            asked = if asked == "1" { "2" } else { "1" };
            site.write(asked);
            until("a rollout begins", || server.phase() == "Progressing").await;
        }
        let alive = Duration::from_millis(20 + (kill * 2_654_435_761) % 700);
        tokio::time::sleep(alive).await;
        note(&server, &mut seen);
        caught += u64::from(server.phase() == "Progressing");
        drop(server);
        // While it is dead, users are served by the last routes.
        let before = users.tally();
        until("users are served without a control plane", || users.tally().finished > before.finished + 20).await;
        server = Server::start(&site.path(), xds);
        note(&server, &mut seen);
    }
    until("the rollout ends", || server.phase() == "Succeeded").await;
    println!("{KILLS} kills, {caught} of them in mid-rollout; rev and weight as seen: {seen:?}");
    assert!(caught >= KILLS / 2, "{caught} kills in mid-rollout");
    // A rev has one weight, whoever serves it, and the weights are the plan's.
    assert!(seen.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0 || a == b)), "{seen:?}");
    assert!(seen.iter().all(|(_, weight)| weight % STEP == 0 && *weight <= 50), "{seen:?}");
    assert!(seen.iter().any(|(_, weight)| *weight > STEP), "some rollout went on after a kill: {seen:?}");
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed.len(), 0, "nobody lost a request");
}

/// Notes rev and weight, if the server answers.
fn note(server: &Server, seen: &mut Vec<(u64, u64)>) {
    let Some(canary) = server.canary() else { return };
    let rev = canary.get("rev").and_then(Value::as_u64).expect("a rev");
    let weight = canary.get("weight").and_then(Value::as_f64).expect("a weight");
    if canary.get("phase").and_then(Value::as_str) == Some("Progressing") {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "percent")]
        seen.push((rev, weight as u64));
        seen.dedup();
    }
}
