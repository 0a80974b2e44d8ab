//! xDS and reports over gRPC: thin glue around [`Session`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use wingbeat_proto::v1::report_service_server::{ReportService, ReportServiceServer};
use wingbeat_proto::v1::{ReportRequest, ReportResponse};

use crate::resource::Kind;
use crate::session::{self, Session};
use crate::store::Store;

/// A report is at most this large; so is anything else that a client sends, but for its node message.
const MAX_REPORT: usize = 256 * 1024;
const MAX_REQUEST: usize = 1024 * 1024;
/// Responses that wait for a client that reads slowly: one a type is outstanding, so it never needs more.
const QUEUE: usize = Kind::ALL.len();

/// Takes reports of filters.
pub trait Intake: Send + Sync + 'static {
    /// Takes one report of an authenticated peer, if peers are; the error says why it was refused.
    fn report(
        &self,
        principal: Option<String>,
        request: ReportRequest,
    ) -> impl Future<Output = Result<ReportResponse, String>> + Send;
}

/// Serves xDS and takes reports until `stop` resolves.
pub async fn serve<I: Intake>(
    listener: TcpListener,
    store: Store,
    intake: Arc<I>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let reports = ReportServiceServer::new(Reports(intake)).max_decoding_message_size(MAX_REPORT);
    let discovery = AggregatedDiscoveryServiceServer::new(Discovery { store }).max_decoding_message_size(MAX_REQUEST);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .tcp_nodelay(true)
        .add_service(discovery)
        .add_service(reports)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await
}

struct Reports<I>(Arc<I>);

#[tonic::async_trait]
impl<I: Intake> ReportService for Reports<I> {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let reply = self.0.report(None, request.into_inner()).await;
        reply.map(Response::new).map_err(Status::invalid_argument)
    }
}

struct Discovery {
    store: Store,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let peer = request.remote_addr();
        let (responses, stream) = mpsc::channel(QUEUE);
        tokio::spawn(drive(self.store.clone(), request.into_inner(), responses, peer));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("use api_type: GRPC; `wingbeat bootstrap` prints a bootstrap that does"))
    }
}

/// Feeds one stream's session until the client leaves. The session bounds what is in flight.
async fn drive(
    store: Store,
    mut requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    peer: Option<SocketAddr>,
) {
    let mut snapshots = store.watch();
    let Ok(Some(first)) = requests.message().await else { return };
    let node = first.node.clone().unwrap_or_default();
    let mut session = Session::new(&node.cluster);
    tracing::info!(node = node.id, ?peer, "Envoy connected");
    let known = snapshots.borrow_and_update().clone();
    let mut due = known.map(|snapshot| session.snapshot(&snapshot)).unwrap_or_default();
    due.extend(react(&mut session, first, &node));
    loop {
        for response in due.drain(..) {
            if responses.send(Ok(encode(response))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => due = react(&mut session, request, &node),
                Ok(None) | Err(_) => break,
            },
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = snapshots.borrow_and_update().clone();
                due = snapshot.map(|snapshot| session.snapshot(&snapshot)).unwrap_or_default();
            }
        }
    }
    tracing::info!(node = node.id, "Envoy disconnected");
}

fn react(session: &mut Session, request: DiscoveryRequest, node: &Node) -> Vec<session::Response> {
    let Some(kind) = Kind::from_type_url(&request.type_url) else {
        tracing::debug!(node = node.id, type_url = request.type_url, "asked for a type that is not served");
        return Vec::new();
    };
    let reaction = session.request(
        kind,
        &session::Request {
            names: request.resource_names,
            nonce: request.response_nonce,
            version: request.version_info,
            error: request.error_detail.map(|status| status.message),
        },
    );
    if let Some(nack) = &reaction.nack {
        tracing::warn!(node = node.id, kind = ?nack.kind, version = %nack.version, error = nack.error, "Envoy refused a configuration and keeps the one before it");
    }
    reaction.responses
}

fn encode(response: session::Response) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: response.version.to_string(),
        resources: response.resources.iter().map(|resource| resource.body.clone()).collect(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce,
        control_plane: Some(ControlPlane { identifier: concat!("wingbeat/", env!("CARGO_PKG_VERSION")).to_owned() }),
        ..DiscoveryResponse::default()
    }
}
