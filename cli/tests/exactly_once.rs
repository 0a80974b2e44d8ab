//! Exactly once: a control plane that is killed under load, behind a proxy that loses, repeats and reorders reports.
#![expect(clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use serde_json::Value;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::report_service_server::{ReportService, ReportServiceServer};
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_test_support::server::{Server, until};

use crate::site::{Site, serve};

mod site;

/// One long step, whatever happens in it: no round has enough requests to take the canary further.
const ANALYSIS: &str = "interval: 1s, stepWeight: 40, maxWeight: 40, threshold: 100, \
                        judge: {mode: thresholds, minRequests: 1000000}";
const KILLS: u64 = 5;
/// Both revisions fail so often: errors at the canary are reported at once.
const ERRORS: f64 = 0.05;

/// A proxy between Envoy and control plane. Configuration passes; reports suffer.
#[derive(Clone)]
struct Proxy {
    channel: Channel,
    unreliable: Arc<AtomicBool>,
    reports: Arc<AtomicU64>,
    /// Reports that come late.
    held: Arc<Mutex<Vec<ReportRequest>>>,
    /// All of them since there was a share.
    sent: Arc<Mutex<Vec<ReportRequest>>>,
}

impl Proxy {
    async fn start(upstream: SocketAddr) -> (Self, SocketAddr) {
        let channel = Endpoint::from_shared(format!("http://{upstream}")).expect("an address").connect_lazy();
        let proxy = Self {
            channel,
            unreliable: Arc::default(),
            reports: Arc::default(),
            held: Arc::default(),
            sent: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(proxy.clone()))
            .add_service(ReportServiceServer::new(proxy.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (proxy, address)
    }

    async fn deliver(&self, report: ReportRequest) -> Result<Response<ReportResponse>, Status> {
        ReportServiceClient::new(self.channel.clone()).report(report).await
    }

    /// Delivers what was held back, oldest last.
    async fn deliver_held(&self) {
        let held = std::mem::take(&mut *self.held.lock().expect("not poisoned"));
        for report in held.into_iter().rev() {
            let _whatever = self.deliver(report).await;
        }
    }

    /// Delivers all reports once more, oldest last. Returns how many were taken.
    async fn deliver_all(&self) -> usize {
        let sent = std::mem::take(&mut *self.sent.lock().expect("not poisoned"));
        let mut taken = 0;
        for report in sent.into_iter().rev() {
            taken += usize::from(self.deliver(report).await.is_ok());
        }
        taken
    }
}

#[tonic::async_trait]
impl ReportService for Proxy {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let report = request.into_inner();
        if !self.unreliable.load(Ordering::Relaxed) {
            return self.deliver(report).await;
        }
        self.sent.lock().expect("not poisoned").push(report.clone());
        let lost = || Status::unavailable("lost");
        match self.reports.fetch_add(1, Ordering::Relaxed) % 7 {
            0 => Err(lost()),
            1 => {
                let _reply_is_lost = self.deliver(report).await;
                Err(lost())
            }
            2 => {
                let _first = self.deliver(report.clone()).await;
                self.deliver(report).await
            }
            3 | 4 => {
                self.held.lock().expect("not poisoned").push(report);
                Err(lost())
            }
            5 => {
                let answer = self.deliver(report).await;
                self.deliver_held().await;
                answer
            }
            _ => self.deliver(report).await,
        }
    }
}

type Responses<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Proxy {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let responses = client.stream_aggregated_resources(requests).await?.into_inner();
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let responses = client.delta_aggregated_resources(requests).await?.into_inner();
        Ok(Response::new(Box::pin(responses)))
    }
}

/// Requests of primary and canary that are counted, in any class.
fn counted(server: &Server) -> [u64; 2] {
    let Some(canary) = server.canary() else { return [0; 2] };
    ["primary", "canary"].map(|arm| {
        let classes = canary.pointer(&format!("/arms/{arm}/outcomes")).and_then(Value::as_object);
        classes.into_iter().flat_map(serde_json::Map::values).filter_map(Value::as_u64).sum()
    })
}

/// Requests that both revisions received.
fn received(site: &Site) -> [u64; 2] {
    [&site.old, &site.new].map(Service::received_since_change)
}

/// Adds up arm by arm.
fn sum([primary, canary]: [u64; 2], others: [u64; 2]) -> [u64; 2] {
    [primary + others[0], canary + others[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_every_request_is_counted_once_whatever_happens_to_reports() {
    let site = Site::build(ANALYSIS).await;
    for service in [&site.old, &site.new] {
        service.behave(Behaviour { error_share: ERRORS, ..Behaviour::default() });
    }
    let mut server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let xds = server.xds;
    let (proxy, address) = Proxy::start(xds).await;
    let _envoy = site.envoy(address).await;
    until("the first revision serves", || server.phase() == "Initialized").await;
    site.write("2");
    until("a rollout begins", || server.phase() == "Progressing").await;

    // From the moment at which every worker has the rollout's routes, each request is counted. None of the canary comes
    // before.
    let uncounted = loop {
        let (received_before, counted_before) = (received(&site), counted(&server));
        let users = site.users();
        until("some requests", || users.tally().finished >= 100).await;
        let _tally = users.stop(Duration::from_secs(5)).await;
        let (now, [_, by_canary]) = (received(&site), received_before);
        let sent: [u64; 2] = std::array::from_fn(|arm| now[arm] - received_before[arm]);
        let all = || counted(&server).iter().zip(sum(counted_before, sent)).all(|(counted, all)| *counted >= all);
        let all = async { until("all are counted", all).await };
        if tokio::time::timeout(Duration::from_secs(3), all).await.is_ok() && by_canary > 0 {
            let [primary, canary] = counted(&server);
            break [now[0] - primary, now[1] - canary];
        }
    };
    assert_eq!(uncounted[1], 0, "a request of the canary before there were routes to it");

    proxy.unreliable.store(true, Ordering::Relaxed);
    let users = site.users();
    for kill in 1..=KILLS {
        let before = users.tally().finished;
        until("users are served", || users.tally().finished > before + 150 + 41 * kill).await;
        drop(server);
        let before = users.tally().finished;
        until("users are served without a control plane", || users.tally().finished > before + 100).await;
        server = serve(&site.path(), xds);
    }
    let before = users.tally().finished;
    until("users are served", || users.tally().finished > before + 300).await;
    let tally = users.stop(Duration::from_secs(5)).await;
    let all = || sum(counted(&server), uncounted).iter().zip(received(&site)).all(|(counted, all)| *counted >= all);
    until("every request is counted", all).await;
    // Late ones and repetitions change nothing, however late they are. The server shows what came of them by the time at
    // which reports have come after them.
    proxy.deliver_held().await;
    let again = proxy.deliver_all().await;
    assert!(again > 10, "{again} reports were taken again");
    let reports = proxy.reports.load(Ordering::Relaxed);
    until("more reports come", || proxy.reports.load(Ordering::Relaxed) > reports + 14).await;
    assert_eq!(sum(counted(&server), uncounted), received(&site));
    assert_eq!((server.phase(), tally.finished), ("Progressing".to_owned(), tally.sent));
    println!(
        "{} requests under {KILLS} kills and {} reports, of which 5 of 7 suffered: counted exactly ({uncounted:?} before the routes were there)",
        tally.sent,
        proxy.reports.load(Ordering::Relaxed),
    );
}
