//! A controller as a process, in the role that it is deployed with.
#![expect(clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::Instant;
use wingbeat_demo::port::Port;
use wingbeat_test_cluster::Cluster;

pub use rustix::process::Signal;

/// Time for a controller to lead. After another one was lost with its Pod, that takes as long as its Lease lasts.
const LEADS: Duration = Duration::from_mins(2);

/// What controllers of a gateway wrote to their logs, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    /// Returns all of it.
    pub fn read(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, line: &str) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(line);
        log.push('\n');
    }
}

/// What of a Pod outlives its containers.
#[derive(Debug, Clone)]
pub struct Pod {
    uid: String,
    disk: Arc<tempfile::TempDir>,
    http: Arc<Port>,
}

impl Pod {
    /// Makes one whose disk is empty.
    pub fn make() -> Self {
        let disk = tempfile::tempdir().expect("a folder");
        let uid = disk.path().file_name().map(|name| name.to_string_lossy().replace('.', "")).unwrap_or_default();
        Self { uid, disk: Arc::new(disk), http: Arc::new(Port::hold().expect("a port")) }
    }

    /// Returns what the API answers on a path of the HTTP port, status and body; nothing where nobody answers.
    pub async fn answer(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.http.address()).await.ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

/// Which controller is started.
#[derive(Debug, Clone)]
pub struct Role {
    /// The namespace of its service account and of its Lease.
    pub namespace: String,
    /// The namespace of the Canaries that it keeps to; nothing: all of them.
    pub scope: Option<String>,
    /// More of its flags.
    pub flags: Vec<String>,
}

impl Role {
    /// Returns the one of a test: in a namespace of its own, to which it keeps.
    pub fn of_test(test: &str) -> Self {
        let namespace = test.trim_start_matches("real_kubernetes_").replace('_', "-");
        Self { scope: Some(namespace.clone()), namespace, flags: Vec::new() }
    }
}

/// A running controller. Killed when dropped.
#[derive(Debug)]
pub struct Controller {
    process: Child,
    stdout: tokio::io::Lines<BufReader<ChildStdout>>,
    pod: Pod,
    log: Log,
}

impl Controller {
    /// Starts one in a Pod.
    pub async fn start(cluster: &Cluster, role: &Role, pod: Pod, log: &Log) -> Self {
        let namespace = role.namespace.as_str();
        let kubeconfig = cluster.kubeconfig_of(namespace, "wingbeat").await.expect("a service account");
        let scope = role.scope.as_deref().map(|scope| ["--namespace", scope]);
        let mut process = cluster
            .command(beside("wingbeat"))
            .env("KUBECONFIG", kubeconfig)
            .env("POD_UID", &pod.uid)
            .arg("controller")
            .args(scope.into_iter().flatten())
            .args(["--lease-namespace", namespace, "--listen-xds", "127.0.0.1:0"])
            .args(["--listen-http", &pod.http.address().to_string()])
            .args(&role.flags)
            .arg("--state")
            .arg(pod.disk.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(process.stderr.take().expect("standard error")).lines();
        let heard = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                heard.push(&line);
            }
        });
        let stdout = BufReader::new(process.stdout.take().expect("standard output")).lines();
        Self { process, stdout, pod, log: log.clone() }
    }

    /// Returns the Pod that it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Waits until it leads. Returns where Envoys connect, and when it said so.
    pub async fn leads(&mut self) -> (SocketAddr, Instant) {
        let first = tokio::time::timeout(LEADS, self.stdout.next_line()).await;
        let at = Instant::now();
        let line = first.unwrap_or_else(|_| panic!("it does not lead:\n{}", self.log.read()));
        let line = line.expect("standard output").unwrap_or_default();
        let addresses: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}\n{}", self.log.read()));
        let xds = addresses.get("xds").and_then(Value::as_str).and_then(|xds| xds.parse().ok());
        (xds.expect("an address"), at)
    }

    /// Returns the id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("an id"), signal).expect("it is sent");
    }

    /// Kills it without warning, and returns its Pod.
    pub async fn kill(mut self) -> Pod {
        self.process.kill().await.expect("it is killed");
        self.pod
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        let ended = tokio::time::timeout(LEADS, self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log.read())).expect("it is waited for");
    }
}

/// Returns a program as cargo puts it: into the folder of a bench, or into the one above that of tests.
pub fn beside(program: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    let mut beside = here.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let found = beside.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not built: cargo build --workspace --bins"))
}
