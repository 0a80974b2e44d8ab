//! xDS and reports over gRPC, on one port: thin glue around [`Session`](crate::session::Session).
//!
//! ADS and one service per type, each in state of the world and in delta: `stream.rs` feeds them all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use wingbeat_proto::v1::report_service_server::{ReportService, ReportServiceServer};
use wingbeat_proto::v1::{ReportRequest, ReportResponse};

use crate::resource::Kind;
use crate::session::Nack;
use crate::store::Store;

use principal::{Principals, principal};
use stream::Discovery;

mod principal;
mod services;
mod stream;
mod wire;

/// A report is at most this large; so is anything else that a client sends, but for its node message.
const MAX_REPORT: usize = 256 * 1024;
const MAX_REQUEST: usize = 1024 * 1024;
/// Ids of nodes are kept as long as the nodes are there.
const MAX_NODE_ID: usize = 256;
/// Streams and calls at a time on one connection.
const MAX_CONCURRENT: u32 = 256;

/// A connection is probed so often, and given up after so long without an answer: gRPC's usual time. Less would cut off
/// healthy Envoys when thousands of them come at once and this machine is what is slow.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// What happened to a client of xDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// `node.id` of the client.
    pub node: String,
    /// Its stream, by a number that is not used again.
    pub stream: u64,
    /// What happened.
    pub what: Happened,
}

/// See [`News`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// It opened a stream.
    Connected,
    /// It refused a configuration, and keeps the one before.
    Refused(Nack),
    /// From now on these are the resources of a type that it refuses and has as they were before, of routes the hosts.
    /// Others than it refused until now.
    Refuses(Kind, BTreeSet<String>),
    /// From now on these are the clusters for which it did not ask for endpoints, or that it did not answer, within
    /// [`PATIENCE`](crate::session::PATIENCE). Others than until now.
    Overdue(BTreeSet<String>),
    /// It holds all that it wants of a type, as it is.
    Settled(Kind),
    /// Its stream ended.
    Left,
}

/// Takes what proxies have to say.
pub trait Intake: Send + Sync + 'static {
    /// Takes one report of an authenticated peer, if peers are; the error says why it was refused.
    fn report(
        &self,
        principal: Option<String>,
        request: ReportRequest,
    ) -> impl Future<Output = Result<ReportResponse, String>> + Send;

    /// Takes news of a client. Must not block.
    fn news(&self, news: News);
}

/// How connections are secured. All in PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificate of the server, with its chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Who signs the certificates of clients; without it, clients need none.
    pub client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Returns why these files cannot be used, if they cannot.
    pub fn check(&self) -> Result<(), String> {
        let tried = self.clone().on(Server::builder());
        tried
            .map(drop)
            .map_err(|error| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
    }

    fn on(self, server: Server) -> Result<Server, tonic::transport::Error> {
        // More than one is compiled in by libraries; one that was chosen before stays.
        let _chosen = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let mut config = ServerTlsConfig::new().identity(Identity::from_pem(self.certificate, self.key));
        if let Some(ca) = self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server.tls_config(config)
    }
}

/// Serves xDS and takes reports until `stop` resolves.
pub async fn serve<I: Intake>(
    listener: TcpListener,
    tls: Option<Tls>,
    store: Store,
    intake: Arc<I>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let authenticated = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(MAX_CONCURRENT);
    if let Some(tls) = tls {
        server = tls.on(server)?;
    }
    let principals = Principals::default();
    let discovery = Arc::new(Discovery::new(store, intake.clone(), principals.clone()));
    let reports = Reports { intake, principals, authenticated };
    let reports = ReportServiceServer::new(reports).max_decoding_message_size(MAX_REPORT);
    let router = services::add(Routes::default().into_axum_router(), &discovery);
    server
        .add_routes(Routes::from(router).add_service(reports).prepare())
        // Without it, a push waits up to 40 ms for the acknowledgement of what was written before.
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
        .await
}

fn check_node_id(id: &str) -> Result<(), Status> {
    let length = id.len();
    if length > MAX_NODE_ID {
        let why = format!("the node's id has {length} bytes, at most {MAX_NODE_ID} are taken");
        return Err(Status::invalid_argument(why));
    }
    Ok(())
}

struct Reports<I> {
    intake: Arc<I>,
    principals: Principals,
    authenticated: bool,
}

#[tonic::async_trait]
impl<I: Intake> ReportService for Reports<I> {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let principal = principal(request.peer_certs().as_deref().map(Vec::as_slice));
        let report = request.into_inner();
        check_node_id(&report.node_id)?;
        // Who is authenticated speaks only for the nodes as which it takes configuration. It is asked to come again:
        // after a restart, a report may be faster than the stream.
        if self.authenticated && !self.principals.speaks_for(principal.as_deref(), &report.node_id) {
            let who = principal.unwrap_or_default();
            return Err(Status::permission_denied(format!("{who} has no xDS stream as node {}", report.node_id)));
        }
        let reply = self.intake.report(principal, report).await;
        reply.map(Response::new).map_err(Status::invalid_argument)
    }
}
