//! The filter alone: a real Envoy with a configuration of the test's making, and a control plane that only counts.
//!
//! What the product does not configure yet can be measured here (TLS to upstreams), each released Envoy can be asked,
//! and counts are seen as they are reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wingbeat_core::analysis::ledger::{Ledger, Report, Reported, Trust, WorkerKey};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{BootId, Epoch, NodeId, WorkerId};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::time::Timestamp;
use wingbeat_demo::envoy::{Binary, Envoy};
use wingbeat_proto::convert::{self, ReportError};
use wingbeat_proto::v1::{ClusterPolicy, ClusterReport, Policy, ReportRequest, ReportResponse};
use wingbeat_xds_server::bootstrap::Bootstrap;
use wingbeat_xds_server::client_event::ClientEvent;
use wingbeat_xds_server::publisher::Publisher;
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::server::{self, Intake, Peer, Security};

use crate::control::free;
use crate::reached;

/// Released versions with the runtime that the filter needs, oldest first.
pub const VERSIONS: [&str; 3] = ["1.36.4", "1.39.3", "1.40.0"];
/// Cluster of the primary. Requests to the host `primary` go there.
pub const PRIMARY: &str = "prod/backend/1";
/// Cluster of the canary. Requests to the host `canary` go there.
pub const CANARY: &str = "prod/backend/2";
/// What the routes say.
pub const REV: u64 = 7;
/// Workers of the Envoy, and its main thread, which has a filter too.
const WORKERS: usize = 3;
const TICK_MS: u32 = 50;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Upstreams {
    /// Where the primary listens.
    pub primary: SocketAddr,
    /// Where the canary listens.
    pub canary: SocketAddr,
    /// True if both are spoken to by TLS.
    pub tls: bool,
    /// More listeners of the Envoy, in its own terms.
    pub listeners: Vec<Value>,
}

/// An Envoy whose filter reports to the test.
#[derive(Debug)]
pub struct Rig {
    entry: SocketAddr,
    counter: Arc<Counter>,
    _envoy: Envoy,
    _folder: TempDir,
}

/// The rollout that is counted.
const EPOCH: Epoch = Epoch::new(1);

/// Takes reports in, as the controller does.
#[derive(Debug)]
struct Counter {
    policy: Policy,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    totals: BTreeMap<(String, Stratum), Counts>,
    /// Workers that know the policy, and those that told a cohort.
    aware: BTreeSet<u64>,
    telling: BTreeSet<u64>,
    refused: Vec<String>,
}

impl Rig {
    /// Starts this version of Envoy, and waits until all of its workers know the policy.
    pub async fn start(version: &str, upstreams: &Upstreams, policy: Policy) -> Self {
        let binary = Binary::locate(None, version, &|_: &str| {}).await.expect("an Envoy");
        let counter = Arc::new(Counter { policy, state: Mutex::default() });
        let control = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = control.local_addr().expect("an address");
        tokio::spawn(server::serve(
            control,
            Security::default(),
            Publisher::default(),
            counter.clone(),
            std::future::pending(),
        ));
        let (entry, folder) = (free().await, tempfile::tempdir().expect("a folder"));
        let module = folder.path().join("filter.wasm");
        std::fs::write(&module, wingbeat::FILTER).expect("it is written");
        let config = config(address, entry, &module.display().to_string(), upstreams);
        let envoy = binary.start(config, entry).await.expect("Envoy starts");
        let rig = Self { entry, counter, _envoy: envoy, _folder: folder };
        reached(|| rig.counter.lock(|state| state.aware.len()) >= WORKERS).await;
        rig
    }

    /// Returns where users connect.
    pub const fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// Returns what was counted at a cluster. No report may have been refused.
    pub fn counts(&self, cluster: &str) -> Counts {
        self.counter.lock(|state| {
            assert_eq!(state.refused, Vec::<String>::new());
            state.totals.get(&(cluster.to_owned(), Stratum::Judged)).cloned().unwrap_or_default()
        })
    }

    /// Returns how many workers told a cohort: all that such a one counts from then on is in one.
    pub fn telling_cohorts(&self) -> usize {
        self.counter.lock(|state| state.telling.len())
    }
}

impl Counter {
    fn lock<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intake for Counter {
    async fn report(&self, _: Peer, request: ReportRequest) -> Result<ReportResponse, ReportRefusal> {
        let policy = (request.policy_version != self.policy.version).then(|| self.policy.clone());
        self.lock(|state| {
            let taken = state.take(&request);
            if policy.is_none() {
                state.aware.insert(request.worker_id);
            }
            match taken {
                Ok(response) => Ok(ReportResponse { policy, ..response }),
                Err(why) => {
                    state.refused.push(why.clone());
                    Err(ReportRefusal::Malformed(why))
                }
            }
        })
    }

    fn news(&self, _: ClientEvent) {}
}

impl State {
    /// Returns what the report is answered.
    fn take(&mut self, request: &ReportRequest) -> Result<ReportResponse, String> {
        let entry = |report: &ClusterReport| {
            let (cluster, stratum, counts) = convert::counts(report)?;
            let (epoch, first_sequence) = (Epoch::new(report.epoch), report.first_sequence);
            Ok(Reported { cluster, stratum, epoch, first_sequence, counts })
        };
        let entries = request.clusters.iter().map(entry).collect::<Result<Vec<_>, ReportError>>();
        let entries = entries.map_err(|error| error.to_string())?;
        let node = NodeId::new(request.node_id.clone());
        let key = WorkerKey { boot: BootId::new(request.boot_id), worker: WorkerId::new(request.worker_id) };
        let (sequence, since) = (request.sequence, request.since);
        let report = Report { source: node.as_str(), node: &node, key, sequence, since, entries: &entries };
        self.ledger.open(EPOCH, Trust::Complete);
        let ingested = self.ledger.ingest(&report, Timestamp::EPOCH).map_err(|error| error.to_string())?;
        for delta in ingested.deltas {
            self.totals.entry((delta.cluster.to_string(), delta.stratum)).or_default().merge(&delta.counts);
        }
        if request.clusters.iter().any(|cluster| cluster.cohorts.is_some()) {
            self.telling.insert(request.worker_id);
        }
        // As if it were on disk: filters forget what they told, and tell only what changes.
        let checkpoint = self.ledger.checkpoint();
        self.ledger.mark_durable(checkpoint.id);
        Ok(ReportResponse {
            received: ingested.received,
            durable: sequence,
            next_tick_ms: TICK_MS,
            send_all: ingested.incomplete,
            ..ReportResponse::default()
        })
    }
}

/// Returns a policy for both clusters; requests are old after `overdue_ms`.
pub fn policy(overdue_ms: u32) -> Policy {
    let cluster = |name: &str, arm| ClusterPolicy {
        cluster: name.to_owned(),
        arm,
        overdue_ms,
        canary: "prod/backend".to_owned(),
        epoch: EPOCH.get(),
        ..ClusterPolicy::default()
    };
    Policy { version: 1, clusters: vec![cluster(PRIMARY, 0), cluster(CANARY, 1)], ..Policy::default() }
}

fn config(control: SocketAddr, entry: SocketAddr, module: &str, upstreams: &Upstreams) -> Value {
    let bootstrap = Bootstrap {
        node_id: "rig".to_owned(),
        node_cluster: "rig".to_owned(),
        host: control.ip().to_string(),
        port: control.port(),
        admin: None,
        delta: false,
        tls: None,
        authorization: None,
    };
    let mut config = bootstrap.render();
    let fields = config.as_object_mut().expect("a bootstrap is an object");
    // Everything is here: nothing is asked of the control plane but to take reports.
    fields.remove("dynamic_resources");
    let resources = fields.get_mut("static_resources").and_then(Value::as_object_mut).expect("it has resources");
    let mut listeners = upstreams.listeners.clone();
    listeners.push(listener(
        "entry",
        entry,
        &json!({}),
        &[filter(module), router()],
        &[virtual_host("primary", PRIMARY), virtual_host("canary", CANARY)],
    ));
    resources.insert("listeners".to_owned(), json!(listeners));
    let clusters = resources.get_mut("clusters").and_then(Value::as_array_mut).expect("one leads to the control plane");
    clusters.push(cluster(PRIMARY, upstreams.primary, upstreams.tls));
    clusters.push(cluster(CANARY, upstreams.canary, upstreams.tls));
    config
}

/// Returns a listener for HTTP/1.1, with more fields for its filter chain.
pub fn listener(name: &str, at: SocketAddr, chain: &Value, filters: &[Value], hosts: &[Value]) -> Value {
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {"virtual_hosts": hosts},
            "http_filters": filters,
        },
    });
    let mut chain = chain.clone();
    if let Some(fields) = chain.as_object_mut() {
        fields.insert("filters".to_owned(), json!([manager]));
    }
    json!({
        "name": name,
        "address": {"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}},
        "filter_chains": [chain],
    })
}

/// Returns the filter that ends every chain.
pub fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    })
}

fn filter(module: &str) -> Value {
    json!({
        "name": "wingbeat",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "wingbeat",
                "failure_policy": "FAIL_OPEN",
                "vm_config": {
                    "vm_id": "wingbeat",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    })
}

fn virtual_host(host: &str, cluster: &str) -> Value {
    json!({
        "name": host,
        "domains": [host],
        "routes": [{
            "match": {"prefix": "/"},
            "route": {"cluster": cluster, "timeout": "0s"},
            "metadata": {"filter_metadata": {"wingbeat": {"rev": REV.to_string()}}},
        }],
    })
}

fn cluster(name: &str, at: SocketAddr, tls: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": at.ip().to_string(), "port_value": at.port(),
            }}}}]}],
        },
    });
    if let Some(fields) = cluster.as_object_mut().filter(|_| tls) {
        let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind}});
        fields.insert("transport_socket".to_owned(), socket);
    }
    cluster
}
