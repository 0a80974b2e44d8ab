//! Peers that misbehave: reports that cannot be, clients of xDS that refuse, stop or talk nonsense. Each is refused or
//! bounded, and everybody else is served as before.
#![expect(clippy::expect_used, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status as Refusal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message as _;
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::{ClusterReport, ReportRequest, ReportResponse};
use wingbeat_test_support::server::{Server, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");
const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const EXTENSIONS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// The new revision of the example, as a cluster.
const NEW: &str = "prod/backend/1.4.1";
const SOON: Duration = Duration::from_secs(20);

/// A server over the example, in a rollout.
struct Site {
    folder: tempfile::TempDir,
    server: Server,
}

impl Site {
    async fn build(more: &[PathBuf]) -> Self {
        Self::within("", more).await
    }

    /// The same in a process with these limits.
    async fn within(limits: &str, more: &[PathBuf]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("canary.yaml");
        write(&config, "1.4.0", 9_002);
        let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
        let server =
            Server::start_within(PROGRAM, limits, args.into_iter().chain([config]).chain(more.iter().cloned()));
        let site = Self { folder, server };
        until("the first revision serves", || site.server.phase() == "Initialized").await;
        site.place(9_002);
        until("a rollout begins", || site.server.phase() == "Progressing").await;
        site
    }

    /// Puts the new revision's endpoint at this port.
    fn place(&self, port: u16) {
        let next = self.folder.path().join("next");
        write(&next, "1.4.1", port);
        std::fs::rename(next, self.folder.path().join("canary.yaml")).expect("the file is replaced");
    }

    /// Returns status and body of an answer of the HTTP API.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(&self.server.http).await.expect("a port");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    async fn channel(&self) -> Channel {
        endpoint(&self.server).connect().await.expect("a connection")
    }

    /// Returns how many requests were counted, and the phase.
    fn counted(&self) -> (u64, String) {
        let canary = self.server.canary().expect("a canary");
        let requests = |arm: &str| canary.pointer(&format!("/arms/{arm}/requests")).and_then(Value::as_u64);
        let sum = ["primary", "canary"].into_iter().filter_map(requests).sum();
        (sum, canary.get("phase").and_then(Value::as_str).expect("a phase").to_owned())
    }

    /// Waits until somebody who comes now is told that the new revision is at this port.
    async fn serves(&self, port: u16) {
        let served = async {
            let mut client = Client::open(self.channel().await, "good").await;
            client.ask(ENDPOINTS, &[NEW]);
            client.until_at(port).await;
        };
        tokio::time::timeout(SOON, served).await.expect("everybody else is served");
    }
}

fn write(path: &std::path::Path, revision: &str, port: u16) {
    let example = format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(example).expect("an example");
    let text = text.replace("revision: \"1.4.0\"", &format!("revision: \"{revision}\""));
    std::fs::write(path, text.replace("127.0.0.1:9002", &format!("127.0.0.1:{port}"))).expect("the file is written");
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", server.xds)).expect("an address")
}

/// Returns the port of the endpoint in a response.
fn port_of(response: &DiscoveryResponse) -> Option<u32> {
    use envoy_types::pb::envoy::config::core::v3::address::Address;
    use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
    use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let assignment = ClusterLoadAssignment::decode(response.resources.first()?.value.as_slice()).ok()?;
    let endpoint = assignment.endpoints.first()?.lb_endpoints.first()?.host_identifier.as_ref()?;
    let HostIdentifier::Endpoint(endpoint) = endpoint else { return None };
    let Some(Address::SocketAddress(socket)) = endpoint.address.as_ref()?.address.as_ref() else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(port)
}

/// A client of xDS, by hand.
struct Client {
    node: String,
    requests: mpsc::UnboundedSender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Client {
    async fn open(channel: Channel, node: &str) -> Self {
        let (requests, sent) = mpsc::unbounded_channel();
        let stream = AggregatedDiscoveryServiceClient::new(channel)
            .stream_aggregated_resources(UnboundedReceiverStream::new(sent))
            .await;
        Self { node: node.to_owned(), requests, responses: stream.expect("a stream").into_inner() }
    }

    fn ask(&self, type_url: &str, names: &[&str]) {
        self.send(type_url, names, DiscoveryRequest::default());
    }

    fn accept(&self, response: &DiscoveryResponse) {
        let (response_nonce, version_info) = (response.nonce.clone(), response.version_info.clone());
        let answer = DiscoveryRequest { response_nonce, version_info, ..DiscoveryRequest::default() };
        self.send(&response.type_url, names_of(&response.type_url), answer);
    }

    fn refuse(&self, response: &DiscoveryResponse) {
        let error_detail = Some(Refusal { message: "no".to_owned(), ..Refusal::default() });
        let response_nonce = response.nonce.clone();
        let answer = DiscoveryRequest { response_nonce, error_detail, ..DiscoveryRequest::default() };
        self.send(&response.type_url, names_of(&response.type_url), answer);
    }

    fn send(&self, type_url: &str, names: &[&str], request: DiscoveryRequest) {
        let node = Some(Node { id: self.node.clone(), ..Node::default() });
        let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = DiscoveryRequest { node, type_url: type_url.to_owned(), resource_names, ..request };
        self.requests.send(request).expect("the stream is open");
    }

    async fn next(&mut self) -> DiscoveryResponse {
        self.responses.message().await.expect("a response").expect("a response")
    }

    /// Accepts what comes until the new revision's endpoint is at this port. Returns how many responses came before.
    async fn until_at(&mut self, port: u16) -> usize {
        let mut before = 0;
        loop {
            let response = self.next().await;
            self.accept(&response);
            if port_of(&response) == Some(port.into()) {
                return before;
            }
            before += 1;
        }
    }
}

fn names_of(type_url: &str) -> &'static [&'static str] {
    match type_url {
        ENDPOINTS => &[NEW],
        ROUTES => &["public"],
        EXTENSIONS => &["wingbeat"],
        _ => &[],
    }
}

fn report(node: &str, cluster: &str, started: u64, finished: u64) -> ReportRequest {
    let cluster = ClusterReport { cluster: cluster.to_owned(), started, finished, ..ClusterReport::default() };
    let clusters = vec![cluster];
    ReportRequest { node_id: node.to_owned(), boot_id: 1, worker_id: 1, sequence: 1, clusters, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_cannot_be_are_refused_and_count_for_nothing() {
    let site = Site::build(&[]).await;
    let mut reports = ReportServiceClient::new(site.channel().await);
    // Who is not authenticated may say who it is; of what nobody judges, and of what is of no rollout in progress, nothing
    // is counted, or even looked at.
    reports.report(report("nobody", "prod/elsewhere/9", 5, 0)).await.expect("it is taken");
    let told = reports.report(report("nobody", NEW, 1, 5)).await.expect("it is taken").into_inner();
    let policy = told.policy.expect("a policy");
    let epoch = policy.clusters.iter().find(|cluster| cluster.cluster == NEW).expect("the new revision").epoch;
    let report = |node: &str, cluster: &str, started, finished| {
        let mut report = report(node, cluster, started, finished);
        report.clusters.iter_mut().for_each(|cluster| (cluster.epoch, cluster.first_sequence) = (epoch, 1));
        report
    };
    for (bad, code, told) in [
        (
            report("edge", NEW, 1, 5),
            Code::InvalidArgument,
            "cluster prod/backend/1.4.1: 5 requests finished, but only 1 started",
        ),
        (
            report("edge", NEW, u64::MAX, u64::MAX),
            Code::InvalidArgument,
            "18446744073709551615 requests are more than the 9007199254740992 that one worker can have counted",
        ),
        (
            report(&"e".repeat(1_000), NEW, 1, 0),
            Code::InvalidArgument,
            "the node's id has 1000 bytes, at most 256 are taken",
        ),
        (report("edge", &"c".repeat(300 * 1024), 1, 0), Code::OutOfRange, "limit"),
    ] {
        let refused = reports.report(bad).await.expect_err("it is refused");
        assert!(refused.code() == code && refused.message().contains(told), "{refused:?}");
    }
    // As many as can be exact are taken, and nothing comes of those that have not ended.
    let many = ReportRequest { boot_id: 2, ..report("edge", NEW, 1 << 53, 0) };
    reports.report(many).await.expect("it is taken");
    let mut good = ReportRequest { boot_id: 3, ..report("edge", NEW, 1, 1) };
    good.clusters.iter_mut().for_each(|cluster| cluster.outcomes = vec![1]);
    reports.report(good).await.expect("it is taken");
    until("a good one counts", || site.counted().0 > 0).await;
    assert_eq!(site.counted(), (1, "Progressing".to_owned()));
    site.serves(9_002).await;
}

/// A key and certificates of one authority: the server's, and a client's. Paths of PEM files.
fn certificates(folder: &std::path::Path) -> ([PathBuf; 6], ClientTlsConfig) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let issue = |name: SanType| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        (params.signed_by(&key, &ca).expect("a certificate").pem(), key.serialize_pem())
    };
    let (certificate, key) = issue(SanType::IpAddress("127.0.0.1".parse().expect("an address")));
    let (client, client_key) = issue(SanType::DnsName("stranger.example".try_into().expect("a name")));
    let file = |name: &str, pem: &str| {
        let path = folder.join(name);
        std::fs::write(&path, pem).expect("the file is written");
        path
    };
    let args = [
        "--tls-cert".into(),
        file("server.pem", &certificate),
        "--tls-key".into(),
        file("server.key", &key),
        "--client-ca".into(),
        file("ca.pem", &ca.pem()),
    ];
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca.pem()))
        .identity(Identity::from_pem(client, client_key));
    (args, tls)
}

/// Returns a connection with a certificate.
async fn secured(server: &Server, tls: ClientTlsConfig) -> Channel {
    let https = Endpoint::from_shared(format!("https://{}", server.xds)).expect("an address");
    https.tls_config(tls).expect("certificates").connect().await.expect("a connection")
}

/// Neither on a stream nor in reports, whether the certificate or a list says who is who.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_a_node_that_it_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (args, tls) = certificates(folder.path());
    let list = folder.path().join("nodes");
    std::fs::write(&list, "stranger.example edge-*  # all edges\n").expect("the file is written");
    let add = "add shop-1 to the line of stranger.example in the file of --nodes";
    let name = "its certificate names stranger.example: let node.id be that, or add a line \"stranger.example shop-1\" to \
                the file of --nodes";
    for (more, good, mend) in [(vec![], "stranger.example", name), (vec!["--nodes".into(), list], "edge-1", add)] {
        let site = Site::build(&[args.to_vec(), more].concat()).await;
        let channel = secured(&site.server, tls.clone()).await;
        let mut reports = ReportServiceClient::new(channel.clone());
        let told = format!("stranger.example is not node shop-1; {mend}");
        let refused = reports.report(report("shop-1", NEW, 1, 0)).await.expect_err("it is refused");
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told.as_str()));
        let mut client = Client::open(channel.clone(), "shop-1").await;
        client.ask(CLUSTERS, &[]);
        let refused = client.responses.message().await.expect_err("it is refused");
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told.as_str()));
        let mut client = Client::open(channel, good).await;
        client.ask(CLUSTERS, &[]);
        client.next().await;
        reports.report(report(good, NEW, 1, 0)).await.expect("it is that node");
        // Each is counted, and one of them logged.
        let (_, metrics) = site.get("/metrics").await;
        assert!(metrics.contains("wingbeat_refused_peers_total{cause=\"not-its-node\"} 2"), "{metrics}");
        assert_eq!(site.server.said().matches("is not node shop-1").count(), 1, "{}", site.server.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_of_a_cluster_that_it_is_not_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let (args, tls) = certificates(folder.path());
    let list = folder.path().join("nodes");
    std::fs::write(&list, "stranger.example cluster=edge\n").expect("the file is written");
    let site = Site::build(&[args.to_vec(), vec!["--nodes".into(), list]].concat()).await;
    let mut reports = ReportServiceClient::new(secured(&site.server, tls).await);
    let of =
        |cluster: &str| ReportRequest { node_cluster: cluster.to_owned(), ..report("stranger.example", NEW, 1, 0) };
    let refused = reports.report(of("shop")).await.expect_err("it is refused");
    let told = "stranger.example is no node of cluster shop; add cluster=shop to the line of stranger.example in the file of \
                --nodes, or let node.cluster be one that is there";
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told));
    reports.report(of("edge")).await.expect("it is of that cluster");
}

/// Ids and errors of others forge no lines of the log, and act on no terminal.
#[tokio::test(flavor = "multi_thread")]
async fn what_peers_say_is_written_on_one_line() {
    let site = Site::build(&[]).await;
    let mut reports = ReportServiceClient::new(site.channel().await);
    let forged = "edge\n2026-11-28 ERROR forged\u{1b}[2J";
    let refused = reports.report(report(forged, NEW, 1, 0)).await.expect_err("it is refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "the node's id has the character \\n, which is not shown: leave it out")
    );
    let mut client = Client::open(site.channel().await, "grumbler").await;
    client.ask(CLUSTERS, &[]);
    let error_detail = Some(Refusal { message: format!("{forged}{}", "x".repeat(10_000)), ..Refusal::default() });
    // What of it is to blame is looked for: it refuses all of it.
    let shows = async {
        while site.server.condition("Programmed").is_none() {
            if let Ok(response) = tokio::time::timeout(Duration::from_millis(500), client.next()).await {
                let (response_nonce, error_detail) = (response.nonce, error_detail.clone());
                client.send(CLUSTERS, &[], DiscoveryRequest { response_nonce, error_detail, ..Default::default() });
            }
        }
    };
    tokio::time::timeout(SOON, shows).await.expect("it shows");
    let condition = site.server.condition("Programmed").expect("it is there");
    assert!(condition.contains("edge\\n2026-11-28 ERROR forged\\u{1b}[2J") && condition.len() < 2_000, "{condition}");
    let said = site.server.said();
    assert!(!said.contains('\u{1b}') && !said.lines().any(|line| line.starts_with("2026-11-28 ERROR")), "{said}");
}

/// Names are bounded by their bytes.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_nothing_has_are_refused() {
    let site = Site::build(&[]).await;
    let mut client = Client::open(site.channel().await, "long").await;
    client.ask(ROUTES, &[&"r".repeat(2_000)]);
    let refused = client.responses.message().await.expect_err("it is refused");
    let told = "a resource's name has 2000 bytes, at most 1024 are taken";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, told));
    site.serves(9_002).await;
}

/// A thousand half requests, where a process may have 1,024 descriptors and no more.
#[tokio::test(flavor = "multi_thread")]
async fn half_requests_take_nothing_away_from_others() {
    const HALF: usize = 1_000;
    let site = Site::within("ulimit -n 1024;", &[]).await;
    let mut half = Vec::new();
    let http: std::net::SocketAddr = site.server.http.parse().expect("an address");
    for number in 0..HALF {
        let (address, begun) = match number % 4 {
            0 => (http, b"GET /healthz HTTP/1.1\r\nhost: local".as_slice()),
            1 => (http, b"".as_slice()),
            2 => (site.server.xds, b"PRI * HTTP/2.0\r\n".as_slice()),
            _ => (site.server.xds, b"".as_slice()),
        };
        let mut connection = TcpStream::connect(address).await.expect("it accepts");
        // It may be closed already.
        let _sent = connection.write_all(begun).await;
        half.push(connection);
    }
    assert_eq!(site.get("/healthz").await, (200, "OK".to_owned()));
    site.serves(9_002).await;
    site.place(9_444);
    site.serves(9_444).await;
    assert_eq!(site.get("/healthz").await, (200, "OK".to_owned()));
    drop(half);
}

/// Those who follow events and never read cost little, and no more than so many of them are served.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_events_are_bounded() {
    let site = Site::build(&[]).await;
    let mut readers = Vec::new();
    let mut refused = 0;
    for _ in 0..80 {
        let mut connection = TcpStream::connect(&site.server.http).await.expect("a port");
        let request = b"GET /api/v1/events?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n";
        connection.write_all(request).await.expect("it reads");
        let mut status = [0; 12];
        connection.read_exact(&mut status).await.expect("an answer");
        refused += usize::from(status.ends_with(b"503"));
        readers.push(connection);
    }
    assert_eq!(refused, 16);
    assert_eq!(site.get("/healthz").await, (200, "OK".to_owned()));
    drop(readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_refuses_everything_is_told_each_thing_once() {
    let site = Site::build(&[]).await;
    let mut client = Client::open(site.channel().await, "grumbler").await;
    for type_url in [CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, EXTENSIONS] {
        client.ask(type_url, names_of(type_url));
    }
    let mut told = 0;
    // It is over when a while passes without a response.
    while let Ok(response) = tokio::time::timeout(Duration::from_secs(2), client.next()).await {
        told += 1;
        assert!(told <= 10, "it is told in a loop: {response:?}");
        client.refuse(&response);
    }
    // Routes are held back from who has no clusters.
    assert!(told >= 4, "{told}");
    let said = site.server.said();
    let connected = said.lines().find(|line| line.contains("Envoy connected")).expect("it is logged");
    assert!(connected.contains("AggregatedDiscoveryService") && !connected.contains("None"), "{connected}");
    until("it shows", || site.server.condition("Programmed").is_some()).await;
    let condition = site.server.condition("Programmed").expect("it is there");
    assert!(condition.contains("Envoy grumbler refuses ") && condition.ends_with(": no"), "{condition}");
    let (_, events) = site.server.client(&["events", "prod/backend"]);
    assert!(
        events.contains("Envoy grumbler refuses clusters") && events.contains("goes on with the last good ones: no"),
        "{events}"
    );
    // What it refused is not sent again; what changes is.
    site.place(9_777);
    tokio::time::timeout(SOON, client.until_at(9_777)).await.expect("it is told what changed");
    site.serves(9_777).await;
    drop(client);
    until("it is forgotten", || site.server.condition("Programmed").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_costs_nobody_anything() {
    const CHANGES: u16 = 20;
    let site = Site::build(&[]).await;
    let small = endpoint(&site.server).initial_stream_window_size(1_024);
    let mut client = Client::open(small.connect().await.expect("a connection"), "sleeper").await;
    for type_url in [EXTENSIONS, CLUSTERS, ENDPOINTS] {
        client.ask(type_url, names_of(type_url));
    }
    site.serves(9_002).await;
    let before = site.server.memory();
    for change in 1..=CHANGES {
        site.place(9_100 + change);
        site.serves(9_100 + change).await;
        // Whatever it asks for, nothing is heaped up for it.
        (0..100).for_each(|_| client.ask(ENDPOINTS, names_of(ENDPOINTS)));
    }
    let after = site.server.memory();
    assert!(after < before + 20_000, "from {before} to {after} KiB");
    // Once it reads again, it gets what holds now, and not all that held meanwhile.
    let read = tokio::time::timeout(SOON, client.until_at(9_100 + CHANGES)).await.expect("it is told what holds now");
    assert!(read <= 8, "it had to read {read} old ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_a_connection_and_nothing_else() {
    let site = Site::build(&[]).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".as_slice();
    for garbage in [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(), hello, preface, &[0xa5; 10_000]] {
        let mut connection = TcpStream::connect(site.server.xds).await.expect("it accepts");
        connection.write_all(garbage).await.expect("it reads");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SOON, connection.read_to_end(&mut answer));
        let _reset = ended.await.expect("the connection is ended");
    }
    // Bytes that are no text, where a text is to be.
    let no_text = || Request::new(vec![0xff_u8; 100]);
    let mut grpc = Grpc::new(site.channel().await);
    grpc.ready().await.expect("a connection");
    let path = PathAndQuery::from_static("/wingbeat.report.v1.ReportService/Report");
    let refused = grpc.unary(no_text(), path, ProstCodec::<Vec<u8>, ReportResponse>::default()).await;
    let refused = refused.expect_err("it is refused");
    assert!(refused.code() == Code::Internal && refused.message().contains("node_id"), "{refused:?}");
    grpc.ready().await.expect("the connection goes on");
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
    let stream = futures::stream::iter([vec![0xff_u8; 100]]);
    let codec = ProstCodec::<Vec<u8>, DiscoveryResponse>::default();
    let opened = grpc.streaming(Request::new(stream), PathAndQuery::from_static(path), codec).await;
    let mut stream = opened.expect("a stream").into_inner();
    let ended = tokio::time::timeout(SOON, stream.message()).await.expect("the stream is ended");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    site.serves(9_002).await;
    assert_eq!(site.counted(), (0, "Progressing".to_owned()));
}
