//! A server of xDS without a controller.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::port::Port;
use wingbeat_demo::service::Service;
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_xds_server::bootstrap::{Bootstrap, ClientTls};
use wingbeat_xds_server::client_event::{ClientEvent, ClientEventKind};
use wingbeat_xds_server::lineage::Unadopted;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::model::{Cluster, Listener, Model, Split, VirtualHost};
use wingbeat_xds_server::publisher::Publisher;
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::server::{self, Intake, Peer, Security, Tls};

/// Keeps what it is told.
#[derive(Debug, Default)]
pub struct Notes {
    news: Mutex<Vec<ClientEvent>>,
    reports: Mutex<Vec<(Option<String>, String)>>,
}

impl Intake for Notes {
    async fn report(&self, peer: Peer, request: ReportRequest) -> Result<ReportResponse, ReportRefusal> {
        self.reports.lock().expect("not poisoned").push((peer.principal().map(str::to_owned), request.node_id));
        Ok(ReportResponse::default())
    }

    fn news(&self, news: ClientEvent) {
        self.news.lock().expect("not poisoned").push(news);
    }
}

impl Notes {
    /// Returns the reports that came: principal and node.
    pub fn reports(&self) -> Vec<(Option<String>, String)> {
        self.reports.lock().expect("not poisoned").clone()
    }

    /// Returns how often this happened.
    pub fn count(&self, what: impl Fn(&ClientEventKind) -> bool) -> usize {
        self.news.lock().expect("not poisoned").iter().filter(|news| what(&news.what)).count()
    }
}

/// A server of xDS that a test feeds.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    store: Publisher,
    notes: Arc<Notes>,
}

impl Control {
    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what is served.
    pub const fn store(&self) -> &Publisher {
        &self.store
    }

    /// Returns what it was told.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Starts it on a free port.
    pub async fn start(tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (store, notes) = (Publisher::default(), Arc::<Notes>::default());
        let security = Security { tls, ..Security::default() };
        tokio::spawn(server::serve(listener, security, store.clone(), notes.clone(), std::future::pending()));
        Self { address, store, notes }
    }

    /// Starts an Envoy that takes its configuration from here.
    pub async fn envoy(&self, delta: bool, tls: Option<ClientTls>, entry: SocketAddr) -> anyhow::Result<Envoy> {
        let bootstrap = Bootstrap { delta, tls, ..self.bootstrap() };
        self.envoy_by(DEFAULT_VERSION, &bootstrap, entry).await
    }

    /// Starts an Envoy of this version with this bootstrap.
    pub async fn envoy_by(&self, version: &str, bootstrap: &Bootstrap, entry: SocketAddr) -> anyhow::Result<Envoy> {
        let binary = Binary::locate(None, version, &|_: &str| {}).await.expect("an Envoy");
        binary.start(bootstrap.render(), entry).await
    }

    /// Returns the bootstrap of an Envoy that takes its configuration from here.
    pub fn bootstrap(&self) -> Bootstrap {
        Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: "edge".to_owned(),
            host: self.address.ip().to_string(),
            port: self.address.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        }
    }
}

/// Returns an address that nobody else gets as long as this process runs.
pub async fn free() -> SocketAddr {
    static HELD: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::hold().expect("a port");
    let address = port.address();
    HELD.lock().expect("not poisoned").push(port);
    address
}

/// Returns a model of one listener, with a host `NAME.local` for each of these, and a cluster `NAME` of endpoints.
pub fn hosts(entry: SocketAddr, hosts: &[(&str, &[SocketAddr])]) -> Model {
    let host = |name: &str| VirtualHost {
        name: format!("prod/{name}"),
        domains: vec![format!("{name}.local")],
        listeners: vec!["public".to_owned()],
        timeout: None,
        retries: None,
        http: HttpOptions::default(),
        split: Split::Single(ClusterName::new(name)),
        rev: Rev::new(1),
        filter: false,
    };
    let cluster = |name: &str, endpoints: &[SocketAddr]| Cluster {
        name: ClusterName::new(name),
        listeners: vec!["public".to_owned()],
        endpoints: endpoints.iter().map(|address| (address.ip().to_string(), address.port())).collect(),
        http2: false,
        traffic: TrafficPolicy::default(),
    };
    Model {
        listeners: vec![public(entry)],
        hosts: hosts.iter().map(|(name, _)| Arc::new(host(name))).collect(),
        clusters: hosts.iter().map(|(name, endpoints)| Arc::new(cluster(name, endpoints))).collect(),
        filter: None,
        unadopted: Unadopted::new(),
    }
}

/// Returns the listener of all hosts.
fn public(entry: SocketAddr) -> Listener {
    Listener {
        name: "public".to_owned(),
        address: entry.ip().to_string(),
        port: entry.port(),
        node_clusters: Vec::new(),
        access_log: None,
        front: Front::default(),
    }
}

/// Returns a model that sends all requests to one cluster, whose name tells the generation.
pub fn model(entry: SocketAddr, service: &Service, generation: u64, filter: bool) -> Model {
    let name = ClusterName::new(format!("prod/backend/{generation}"));
    let endpoint = (service.address().ip().to_string(), service.address().port());
    Model {
        listeners: vec![public(entry)],
        hosts: vec![Arc::new(VirtualHost {
            name: "prod/backend".to_owned(),
            domains: vec!["backend.local".to_owned()],
            listeners: vec!["public".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            split: Split::Single(name.clone()),
            rev: Rev::new(generation),
            filter,
        })],
        clusters: vec![Arc::new(Cluster {
            name,
            listeners: vec!["public".to_owned()],
            endpoints: vec![endpoint],
            http2: false,
            traffic: TrafficPolicy::default(),
        })],
        filter: filter.then(|| Arc::from(wingbeat::FILTER)),
        unadopted: Unadopted::new(),
    }
}
