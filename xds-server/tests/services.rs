//! The services over a real socket: each type by ADS and by its own, in both dialects; and what clients must not do.
#![expect(clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_xds_server::client_event::ClientEvent;
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::model::{Cluster, FILTER, Listener, Model, Split, VirtualHost};
use wingbeat_xds_server::publisher::Publisher;
use wingbeat_xds_server::render::render;
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::server::{self, Cause, Intake, Peer, Security};
use wingbeat_xds_server::session::MAX_NAMES;

/// Has nothing to say, and counts the requests of streams that asked too much.
#[derive(Default)]
struct Mute {
    slowed: AtomicUsize,
}

impl Intake for Mute {
    async fn report(&self, _peer: Peer, _request: ReportRequest) -> Result<ReportResponse, ReportRefusal> {
        Err(ReportRefusal::Busy)
    }

    fn news(&self, _news: ClientEvent) {}

    fn refused(&self, cause: Cause) {
        if cause == Cause::Rate {
            self.slowed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn model() -> Model {
    let cluster = ClusterName::new("c");
    Model {
        listeners: vec![Listener {
            name: "l".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 80,
            node_clusters: Vec::new(),
            access_log: None,
            front: Front::default(),
        }],
        hosts: vec![Arc::new(VirtualHost {
            name: "h".to_owned(),
            domains: vec!["h".to_owned()],
            listeners: vec!["l".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            split: Split::Single(cluster.clone()),
            rev: Rev::new(1),
            filter: false,
        })],
        clusters: vec![Arc::new(Cluster {
            name: cluster,
            listeners: vec!["l".to_owned()],
            endpoints: vec![("127.0.0.1".to_owned(), 81)],
            http2: false,
            traffic: TrafficPolicy::default(),
        })],
        filter: Some(Arc::from(&b"module"[..])),
        ..Model::default()
    }
}

async fn serve(store: &Publisher, intake: &Arc<Mute>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    store.publish(render(&model()));
    let (store, intake) = (store.clone(), intake.clone());
    tokio::spawn(server::serve(listener, Security::default(), store, intake, std::future::pending()));
    address
}

async fn connect_to(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await.expect("a connection")
}

async fn connect() -> Channel {
    connect_to(serve(&Publisher::default(), &Arc::default()).await).await
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cluster | Kind::Endpoints => "c",
        Kind::Listener | Kind::Routes => "l",
        Kind::Extension => FILTER,
    }
}

fn whole(kind: Kind, type_url: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node { id: "n".to_owned(), ..Node::default() }),
        type_url: type_url.to_owned(),
        resource_names: vec![name(kind).to_owned()],
        ..DiscoveryRequest::default()
    }
}

fn change(kind: Kind, type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: "n".to_owned(), ..Node::default() }),
        type_url: type_url.to_owned(),
        resource_names_subscribe: vec![name(kind).to_owned()],
        ..DeltaDiscoveryRequest::default()
    }
}

/// Asks once, and keeps the stream open.
fn once<T: Send + 'static>(request: T) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending())
}

/// Asks both methods of a service for a type, and checks what comes.
macro_rules! answers {
    ($client:expr, $kind:expr, $type_url:expr, $whole:ident, $change:ident) => {{
        let (kind, type_url) = ($kind, $type_url);
        let mut client = $client;
        let mut stream = client.$whole(once(whole(kind, type_url))).await.expect("a stream").into_inner();
        let response = stream.message().await.expect("a response").expect("a response");
        assert_eq!((response.type_url.as_str(), response.resources.len()), (kind.type_url(), 1));
        let mut stream = client.$change(once(change(kind, type_url))).await.expect("a stream").into_inner();
        let response = stream.message().await.expect("a response").expect("a response");
        let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!((response.type_url.as_str(), names), (kind.type_url(), vec![name(kind)]));
    }};
}

#[tokio::test]
async fn each_type_comes_by_ads_and_by_its_own_service() {
    let channel = connect().await;
    for kind in Kind::ALL {
        let client = AggregatedDiscoveryServiceClient::new(channel.clone());
        answers!(client, kind, kind.type_url(), stream_aggregated_resources, delta_aggregated_resources);
    }
    let at = || channel.clone();
    // A service of one type does not need to be told which.
    answers!(ClusterDiscoveryServiceClient::new(at()), Kind::Cluster, "", stream_clusters, delta_clusters);
    answers!(EndpointDiscoveryServiceClient::new(at()), Kind::Endpoints, "", stream_endpoints, delta_endpoints);
    answers!(ListenerDiscoveryServiceClient::new(at()), Kind::Listener, "", stream_listeners, delta_listeners);
    answers!(RouteDiscoveryServiceClient::new(at()), Kind::Routes, "", stream_routes, delta_routes);
    let extensions = ExtensionConfigDiscoveryServiceClient::new(at());
    answers!(extensions, Kind::Extension, "", stream_extension_configs, delta_extension_configs);
}

#[tokio::test]
async fn a_client_that_asks_for_too_much_is_refused() {
    let channel = connect().await;
    let names = (0..=MAX_NAMES).map(|number| number.to_string()).collect();
    let request = DiscoveryRequest { resource_names: names, ..whole(Kind::Routes, Kind::Routes.type_url()) };
    let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
    let mut stream = client.stream_aggregated_resources(once(request)).await.expect("a stream").into_inner();
    let refused = stream.message().await.expect_err("an error");
    let why = "more than 10000 names of one type that are not served";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, why));

    let polled = ClusterDiscoveryServiceClient::new(channel.clone()).fetch_clusters(DiscoveryRequest::default()).await;
    assert_eq!(polled.expect_err("an error").code(), Code::Unimplemented);

    // The connection goes on.
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let garbage = DiscoveryRequest { type_url: "type.googleapis.com/garbage".to_owned(), ..whole(Kind::Cluster, "") };
    let then = whole(Kind::Cluster, Kind::Cluster.type_url());
    let requests = futures::StreamExt::chain(futures::stream::iter([garbage, then]), futures::stream::pending());
    let mut stream = client.stream_aggregated_resources(requests).await.expect("a stream").into_inner();
    let response = stream.message().await.expect("a response").expect("a response");
    assert_eq!(response.type_url, Kind::Cluster.type_url(), "what is not served is not answered");
}

/// An Envoy asks for the endpoints of all clusters that it was sent, however many these are; in delta, where it comes
/// back, it says what it holds of them as well.
#[tokio::test]
async fn a_client_that_asks_for_all_that_is_served_gets_it() {
    const CLUSTERS: usize = 2 * MAX_NAMES;
    let names: Vec<String> = (0..CLUSTERS).map(|number| format!("{number:060}")).collect();
    let mut model = model();
    let cluster = model.clusters.remove(0);
    model.clusters = names
        .iter()
        .map(|name| Arc::new(Cluster { name: ClusterName::new(name.as_str()), ..Cluster::clone(&cluster) }))
        .collect();
    let store = Publisher::default();
    let channel = connect_to(serve(&store, &Arc::default()).await).await;
    store.publish(render(&model));
    let kind = Kind::Endpoints;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);

    let request = DiscoveryRequest { resource_names: names.clone(), ..whole(kind, kind.type_url()) };
    let mut stream = client.stream_aggregated_resources(once(request)).await.expect("a stream").into_inner();
    let response = stream.message().await.expect("a response").expect("a response");
    assert_eq!(response.resources.len(), CLUSTERS);

    let version = "0000000000000000-0000000000000000".to_owned();
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: names.iter().map(|name| (name.clone(), version.clone())).collect(),
        resource_names_subscribe: names,
        ..change(kind, kind.type_url())
    };
    let mut stream = client.delta_aggregated_resources(once(request)).await.expect("a stream").into_inner();
    let response = stream.message().await.expect("a response").expect("a response");
    assert_eq!(response.resources.len(), CLUSTERS);
}

/// One client asks at full rate: it is read slower, and others are served as ever.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how often it may ask is a matter of real time")]
async fn a_client_that_asks_at_full_rate_is_slowed_and_holds_no_other_one_up() {
    const NAMES: usize = 1_000;
    let (store, intake, asked) = (Publisher::default(), Arc::<Mute>::default(), Arc::<AtomicUsize>::default());
    let address = serve(&store, &intake).await;
    let names = (0..NAMES).map(|number| format!("name-{number:015}")).collect();
    let request = DiscoveryRequest { resource_names: names, ..whole(Kind::Routes, Kind::Routes.type_url()) };
    let count = asked.clone();
    let flood = futures::stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        request.clone()
    });
    let began = Instant::now();
    let mut client = AggregatedDiscoveryServiceClient::new(connect_to(address).await);
    let _flooding = client.stream_aggregated_resources(flood).await.expect("a stream");

    let mut other = AggregatedDiscoveryServiceClient::new(connect_to(address).await);
    let wants = once(whole(Kind::Cluster, Kind::Cluster.type_url()));
    let mut stream = other.stream_aggregated_resources(wants).await.expect("a stream").into_inner();
    stream.message().await.expect("a response").expect("a response");

    // A request of so many names takes 20 ms of a stream's time, of which it has 2 s in advance.
    let slowed = async {
        while intake.slowed.load(Ordering::Relaxed) < 50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), slowed).await.expect("it is slowed");
    // What was read, and what is on its way: a megabyte of windows and buffers, of 25 kB each.
    let most = 100 + began.elapsed().as_millis() / 20 + 100;
    let asked = asked.load(Ordering::Relaxed);
    assert!(u128::try_from(asked).expect("few") <= most, "{asked} requests, {most} at most");

    let mut client = AggregatedDiscoveryServiceClient::new(connect_to(address).await);
    let listener = once(whole(Kind::Listener, Kind::Listener.type_url()));
    let mut stream = client.stream_aggregated_resources(listener).await.expect("a stream").into_inner();
    stream.message().await.expect("a response").expect("a response");
}
