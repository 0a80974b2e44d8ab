//! Users who ask a Service by its name, as Pods do: each request goes to a ready endpoint of it, over a connection of its own. In
//! the cluster of tests there is no kube-proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use wingbeat_test_cluster::Cluster;

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(10);
/// Users give up after this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ready endpoints, by slice.
type Slices = BTreeMap<String, Vec<SocketAddr>>;

/// What came of requests.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// How many were answered, with whatever is no error.
    pub answered: u64,
    /// Why others were not.
    pub failed: Vec<String>,
}

/// Running requests.
#[derive(Debug)]
pub struct ByName {
    asked: Arc<Mutex<Asked>>,
    task: JoinHandle<()>,
}

impl ByName {
    /// Starts asking for a Service once it has an endpoint.
    pub async fn start(cluster: &Cluster, namespace: &str, service: &str) -> Self {
        let of = format!("--selector=kubernetes.io/service-name={service}");
        let mut kubectl = cluster
            .command(cluster.binaries().folder().join("kubectl"))
            .args([
                "--namespace",
                namespace,
                "get",
                "endpointslices",
                &of,
                "--output=json",
                "--watch",
                "--output-watch-events",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let mut lines = BufReader::new(kubectl.stdout.take().expect("standard output")).lines();
        let (mut begun, mut slices) = (String::new(), Slices::new());
        while slices.values().all(Vec::is_empty) {
            read(&lines.next_line().await.expect("it is read").expect("it goes on"), &mut begun, &mut slices);
        }
        let asked = Arc::<Mutex<Asked>>::default();
        let task = tokio::spawn({
            let asked = asked.clone();
            async move {
                let _watch = kubectl;
                let mut pace = tokio::time::interval(INTERVAL);
                for turn in 0_usize.. {
                    tokio::select! {
                        line = lines.next_line() => {
                            if let Ok(Some(line)) = line { read(&line, &mut begun, &mut slices) }
                        }
                        _now = pace.tick() => {
                            let all: Vec<SocketAddr> = slices.values().flatten().copied().collect();
                            let endpoint = all.get(turn % all.len().max(1)).copied();
                            tokio::spawn(one(endpoint, asked.clone()));
                        }
                    }
                }
            }
        });
        Self { asked, task }
    }

    /// Returns what came of requests so far.
    pub fn asked(&self) -> Asked {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Drop for ByName {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes a line of what kubectl prints: an object has one line or several.
fn read(line: &str, begun: &mut String, slices: &mut Slices) {
    begun.push_str(line);
    let Ok(event) = serde_json::from_str::<Value>(begun) else { return };
    begun.clear();
    let at = |pointer: &str| event.pointer(pointer);
    let name = at("/object/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if at("/type").and_then(Value::as_str) == Some("DELETED") {
        slices.remove(&name);
        return;
    }
    let port = at("/object/ports/0/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let endpoints = at("/object/endpoints").and_then(Value::as_array).into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true)));
    let addresses = ready.filter_map(|endpoint| endpoint.pointer("/addresses/0")?.as_str()?.parse().ok());
    slices.insert(name, addresses.map(|address| SocketAddr::new(address, port.unwrap_or(0))).collect());
}

async fn one(endpoint: Option<SocketAddr>, asked: Arc<Mutex<Asked>>) {
    let came = match endpoint {
        Some(endpoint) => {
            tokio::time::timeout(PATIENCE, ask(endpoint)).await.unwrap_or_else(|_| Err("no answer".into()))
        }
        None => Err("it has no endpoint".to_owned()),
    };
    let mut asked = asked.lock().expect("not poisoned");
    match came {
        Ok(()) => asked.answered += 1,
        Err(why) => asked.failed.push(why),
    }
}

async fn ask(endpoint: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{endpoint}: {error}");
    let mut connection = TcpStream::connect(endpoint).await.map_err(failed)?;
    connection.write_all(b"GET / HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n").await.map_err(failed)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.map_err(failed)?;
    let head = String::from_utf8_lossy(&answer);
    let line = head.lines().next().unwrap_or_default();
    if line.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("{endpoint}: {line:?}")) }
}
