//! Many connected clients: how fast a change reaches all of them, and what the server needs for it.
//!
//! The clients are a process of their own (`--clients ADDRESS NUMBER`): each has a connection, asks for everything in
//! state of the world as Envoy does, and accepts what it gets.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use futures::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use wingbeat_benches::{print, quantile};
use wingbeat_core::id::Rev;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_e2e::control::{Control, model};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::model::{Model, VirtualHost};
use wingbeat_xds_server::render::render;

const CLIENTS: usize = 10_000;
const HOSTS: u64 = 20;
const CHANGES: u64 = 10;
/// Connections that are opened at a time.
const AT_ONCE: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--clients", address, number] => be_clients(address, number.parse()?).await,
        [] => serve().await,
        _ => anyhow::bail!("usage: xds-clients [--clients ADDRESS NUMBER]"),
    }
}

#[expect(clippy::disallowed_methods, reason = "two processes need one clock")]
fn micros() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

/// Twenty canaries, one of which changes.
fn generation(service: &Service, generation: u64) -> Model {
    let entry = ([127, 0, 0, 1], 10_000).into();
    let mut model = model(entry, service, 1, true);
    let first = model.hosts.remove(0);
    model.hosts.extend((0..HOSTS).map(|number| {
        Arc::new(VirtualHost {
            name: format!("prod/canary-{number}"),
            domains: vec![format!("canary-{number}.local")],
            rev: Rev::new(if number == 0 { generation } else { 1 }),
            ..VirtualHost::clone(&first)
        })
    }));
    model
}

/// Resident memory of this process, in MiB.
fn memory() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib / 1024.0)
}

async fn serve() -> anyhow::Result<()> {
    let service = Service::start("1", 1, Behaviour::default()).await?;
    let control = Control::start(None).await;
    control.store().publish(render(&generation(&service, 1)));
    let before = memory()?;
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["--clients", &control.address().to_string(), &CLIENTS.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(clients.stdout.take().context("standard output")?).lines();
    // Each line: when the last client had a version.
    let mut arrived = async || -> anyhow::Result<u64> {
        let line = tokio::time::timeout(Duration::from_mins(5), lines.next_line()).await??;
        Ok(line.context("the clients ended")?.parse()?)
    };
    let began = micros()?;
    let connected = arrived().await?;
    let mut took = Vec::new();
    for number in 2..=CHANGES + 1 {
        let decided = micros()?;
        control.store().publish(render(&generation(&service, number)));
        #[expect(clippy::cast_precision_loss, reason = "microseconds of minutes")]
        took.push(arrived().await?.saturating_sub(decided) as f64 / 1e3);
    }
    let streams = control
        .notes()
        .count(|what| matches!(what, wingbeat_xds_server::client_event::ClientEventKind::Connected { .. }));
    ensure!(streams == CLIENTS, "{streams} streams");
    let memory = memory()?;
    Ok(print(&json!({
        "clients": CLIENTS,
        "changes": CHANGES,
        "connect_all_s": connected.saturating_sub(began) / 1_000_000,
        "median_ms": quantile(&mut took, 0.5),
        "worst_ms": quantile(&mut took, 1.0),
        "server_mib": memory,
        "server_mib_before": before,
    }))?)
}

/// How many clients have a version of the routes.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, usize>>);

impl Seen {
    /// Returns true for the last client.
    fn by_all(&self, version: &str, all: usize) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.entry(version.to_owned()).or_default();
        *count += 1;
        *count == all
    }
}

async fn be_clients(address: &str, number: usize) -> anyhow::Result<()> {
    let seen = Arc::<Seen>::default();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let mut all = tokio::task::JoinSet::new();
    let mut connected = stream::iter(0..number)
        .map(|client| connect(endpoint.clone(), format!("client-{client}")))
        .buffer_unordered(AT_ONCE);
    // Each reads from the start, as Envoy does: what waits for a client is the server's memory.
    while let Some(client) = connected.next().await {
        let (requests, responses) = client?;
        all.spawn(be_client(requests, responses, seen.clone(), number));
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(())
}

type Requests = mpsc::UnboundedSender<DiscoveryRequest>;

async fn connect(endpoint: Endpoint, id: String) -> anyhow::Result<(Requests, tonic::Streaming<DiscoveryResponse>)> {
    let channel = endpoint.connect().await?;
    let (requests, stream) = mpsc::unbounded_channel();
    let node = Some(Node { id, cluster: "edge".to_owned(), ..Node::default() });
    for kind in Kind::ALL {
        requests.send(DiscoveryRequest { node: node.clone(), ..request(kind) })?;
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let responses = client.stream_aggregated_resources(UnboundedReceiverStream::new(stream)).await?;
    Ok((requests, responses.into_inner()))
}

/// What a client wants.
fn request(kind: Kind) -> DiscoveryRequest {
    let names: &[&str] = match kind {
        Kind::Cluster | Kind::Listener => &[],
        Kind::Endpoints => &["prod/backend/1"],
        Kind::Routes => &["public"],
        Kind::Extension => &["wingbeat"],
    };
    DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

async fn be_client(
    requests: Requests,
    mut responses: tonic::Streaming<DiscoveryResponse>,
    seen: Arc<Seen>,
    all: usize,
) -> anyhow::Result<()> {
    while let Some(response) = responses.message().await? {
        let kind = Kind::from_type_url(&response.type_url).context("a type")?;
        let arrived = micros()?;
        let accepted = DiscoveryRequest {
            version_info: response.version_info.clone(),
            response_nonce: response.nonce,
            ..request(kind)
        };
        requests.send(accepted)?;
        if kind == Kind::Routes && seen.by_all(&response.version_info, all) {
            print(&json!(arrived))?;
        }
    }
    Ok(())
}
