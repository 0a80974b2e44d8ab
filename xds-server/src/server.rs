//! xDS and reports over gRPC, on one port: thin glue around [`Session`](crate::session::Session).
//!
//! ADS and one service per type, each in state of the world and in delta: `stream.rs` feeds them all.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request as HttpRequest;
use axum::middleware::{Next, from_fn};
use http_body_util::BodyExt as _;
use stream::Discovery;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TlsConnectInfo;
use tonic::transport::{Certificate as CaCertificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use wingbeat_core::foreign::ForeignText;
use wingbeat_proto::v1::report_service_server::{ReportService, ReportServiceServer};
use wingbeat_proto::v1::{ReportRequest, ReportResponse};

use crate::publisher::Publisher;
use crate::report_refusal::ReportRefusal;
use crate::server::gate::{Gate, peer_of};

pub use access::{Access, AnonymousReports, Cause, MAX_NODE_ID, RefusalLog, equal_in_constant_time};
pub use connections::{Busy, Connection, Connections, Limits, OnMismatch, Remote, Wire};
pub use identity::{Certificate, NodeList, Peer, WrongLine};
pub use intake::Intake;
pub use shares::{Share, Shares};

mod access;
mod budget;
mod connections;
mod gate;
mod identity;
mod intake;
mod service_names;
mod services;
mod shares;
mod stream;
mod wire;

/// Bytes of a report. A larger one is refused.
const MAX_REPORT: usize = 256 * 1024;
/// Bytes of a request's headers. Ours have a few hundred.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams and calls at a time on one connection.
const MAX_CONCURRENT: u32 = 256;

/// Connections at a time where nothing else is said: 10,000 Envoys, each with a stream and a few workers.
const CONNECTIONS: usize = 65_536;
/// A connection that has no stream and made no call for so long is closed: filters report every few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A call that is not answered within this time, what it brings included, is ended; streams last.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of the reason for which a report is refused.
const MAX_REASON_LEN: usize = 1_024;

/// A connection is probed so often, and given up after so long without an answer: gRPC's usual time. Less would cut off
/// healthy Envoys when thousands of them come at once and this machine is what is slow.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

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
            config = config.client_ca_root(CaCertificate::from_pem(ca));
        }
        server.tls_config(config)
    }
}

/// How the port is kept.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// How connections are secured; nothing for plain text.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
    /// What the port takes.
    pub limits: Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { most: CONNECTIONS, waiting: IDLE_TIMEOUT }
    }
}

/// Serves xDS and takes reports until `stop` resolves.
pub async fn serve<I: Intake>(
    listener: TcpListener,
    security: Security,
    store: Publisher,
    intake: Arc<I>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let Security { tls, access, limits } = security;
    let wire = if tls.is_some() { Wire::Tls } else { Wire::Plain };
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_header_list_size(MAX_HEADERS)
        .timeout(CALL_TIMEOUT)
        .max_concurrent_streams(MAX_CONCURRENT);
    if let Some(tls) = tls {
        server = tls.on(server)?;
    }
    let gate = Gate { intake, access: Arc::new(access), log: RefusalLog::default() };
    let discovery = Arc::new(Discovery::new(store, gate.clone()));
    let reports = ReportServiceServer::new(Reports { gate: gate.clone() }).max_decoding_message_size(MAX_REPORT);
    let router = services::add(Routes::default().into_axum_router(), &discovery);
    let router = Routes::from(router).add_service(reports).into_axum_router().layer(from_fn(identify));
    let connections = Connections::new(limits, wire, gate.on_mismatch());
    let incoming = futures::stream::unfold((connections, listener), async |(connections, listener)| {
        let connection = connections.accept(&listener).await;
        Some((Ok::<_, std::io::Error>(connection), (connections, listener)))
    });
    server.add_routes(Routes::from(router).prepare()).serve_with_incoming_shutdown(incoming, stop).await
}

/// Says who sent a request, and that its connection is busy until it is answered.
async fn identify(mut request: HttpRequest, next: Next) -> axum::response::Response {
    let extensions = request.extensions();
    let secured = extensions.get::<TlsConnectInfo<Remote>>();
    let remote = secured.map(TlsConnectInfo::get_ref).or_else(|| extensions.get::<Remote>()).cloned();
    let Some(remote) = remote else { return Status::internal("nothing is known of the connection").into_http() };
    let peer = match secured.and_then(TlsConnectInfo::peer_certs) {
        Some(certificates) => match Certificate::read(&certificates) {
            Some(certificate) => Peer::Certified(certificate),
            None => {
                let why = "the client's certificate names nobody: issue one with a URI or DNS name";
                return Status::unauthenticated(why).into_http();
            }
        },
        None => Peer::Uncertified(remote.address().ip()),
    };
    request.extensions_mut().insert(peer);
    let busy = remote.busy();
    let response = next.run(request).await;
    response.map(|body| {
        axum::body::Body::new(body.map_frame(move |frame| {
            // Until the last of it is sent.
            let _answering = &busy;
            frame
        }))
    })
}

struct Reports<I> {
    gate: Gate<I>,
}

#[tonic::async_trait]
impl<I: Intake> ReportService for Reports<I> {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let (metadata, extensions, report) = request.into_parts();
        let peer = peer_of(&extensions)?;
        let access = &self.gate.access;
        let refused = access
            .refuses_reports(&peer, metadata.as_ref())
            .or_else(|| access.refuses_node(&peer, &report.node_id, &report.node_cluster));
        if let Some(refused) = refused {
            return Err(self.gate.refuse(&peer, refused));
        }
        match self.gate.intake.report(peer.clone(), report).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(ReportRefusal::Malformed(why)) => {
                let why = ForeignText::new(&why, MAX_REASON_LEN).into_string();
                Err(self.gate.refuse(&peer, (Cause::Malformed, Status::invalid_argument(why))))
            }
            Err(busy @ ReportRefusal::Busy) => {
                Err(self.gate.refuse(&peer, (Cause::Busy, Status::unavailable(busy.to_string()))))
            }
        }
    }
}
