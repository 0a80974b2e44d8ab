//! Our xDS through a real Envoy: both dialects, refusals, certificates.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tokio::net::{TcpListener, TcpStream};
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Plan, PlanInput};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::names::{HOST, NAME, NAMESPACE, PRIMARY};
use wingbeat_demo::scene::Scenario;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::stage::Stage;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::{Control, free, model};
use wingbeat_e2e::lab::scene;
use wingbeat_e2e::names::Names;
use wingbeat_e2e::{reached, send};
use wingbeat_xds_server::bootstrap::{Bootstrap, ClientTls};
use wingbeat_xds_server::client_event::{CLUSTER_WAIT, ClientEventKind};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::model::Cluster;
use wingbeat_xds_server::render::render;
use wingbeat_xds_server::server::Tls;

/// Every generation has a cluster of its own, and the one before is gone: nobody may notice.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_nobody_notices_that_clusters_come_and_go() {
    const GENERATIONS: u64 = 40;
    for delta in [false, true] {
        let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
        let (control, entry) = (Control::start(None).await, free().await);
        control.store().publish(render(&model(entry, &service, 1, false)));
        let _envoy = control.envoy(delta, None, entry).await.expect("Envoy starts");
        let host = "backend.local".to_owned();
        let users = Load::start(LoadConfig { target: entry, host, rate: 500, patience: None, visitors: ANYONE });
        for generation in 2..=GENERATIONS {
            let settled = |what: &ClientEventKind| matches!(what, ClientEventKind::Settled(Kind::Routes));
            let before = control.notes().count(settled);
            control.store().publish(render(&model(entry, &service, generation, false)));
            reached(|| control.notes().count(settled) > before).await;
            let before = users.tally().finished;
            reached(|| users.tally().finished > before + 10).await;
        }
        let tally = users.stop(Duration::from_secs(5)).await;
        assert_eq!((tally.failed.len(), tally.finished), (0, tally.sent), "delta: {delta}");
        assert!(tally.sent > 10 * GENERATIONS);
        assert_eq!(control.notes().count(|what| matches!(what, ClientEventKind::Refused(_))), 0);
    }
}

/// A cluster may be gone before Envoy has asked for its endpoints, and Envoy accepts no other one until it has them: it
/// would wait for 15 s, and nobody could be rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_clusters_that_are_gone_while_they_warm_hold_nothing_up() {
    /// Between two generations, from nothing to what Envoy takes for one of them.
    const STEP: Duration = Duration::from_micros(20);
    const GENERATIONS: u32 = 120;
    for delta in [false, true] {
        let [old, new] = [1, 2].map(|seed| Service::start("1", seed, Behaviour::default()));
        let (old, new) = (old.await.expect("a service"), new.await.expect("a service"));
        let (control, entry) = (Control::start(None).await, free().await);
        control.store().publish(render(&model(entry, &old, 1, false)));
        let _envoy = control.envoy(delta, None, entry).await.expect("Envoy starts");
        let request = b"GET / HTTP/1.1\r\nhost: backend.local\r\nconnection: close\r\n\r\n";
        reached(|| control.notes().count(|what| matches!(what, ClientEventKind::Settled(Kind::Routes))) > 0).await;
        for generation in 2..GENERATIONS {
            control.store().publish(render(&model(entry, &old, generation.into(), false)));
            tokio::time::sleep(STEP * generation).await;
        }
        control.store().publish(render(&model(entry, &new, GENERATIONS.into(), false)));
        let served = async {
            while new.first_request().is_none() {
                send(entry, request).await;
            }
        };
        tokio::time::timeout(CLUSTER_WAIT, served).await.expect("the latest is served at once");
        assert_eq!(control.notes().count(|what| matches!(what, ClientEventKind::Overdue(_))), 0, "delta: {delta}");
    }
}

/// A cluster whose endpoint has a name is there once Envoy has resolved it; a route that leads to it before answers 503.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_nobody_notices_a_name_that_resolves_slowly() {
    for delta in [false, true] {
        let old = Service::start("1", 1, Behaviour::default()).await.expect("a service");
        let new = Service::start("2", 2, Behaviour::default()).await.expect("a service");
        let (control, names, entry) = (Control::start(None).await, Names::start().await, free().await);
        control.store().publish(render(&model(entry, &old, 1, false)));
        let mut bootstrap = Bootstrap { delta, ..control.bootstrap() }.render();
        bootstrap["typed_dns_resolver_config"] = names.resolver();
        let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let _envoy = binary.start(bootstrap, entry).await.expect("Envoy starts");
        let host = "backend.local".to_owned();
        let users = Load::start(LoadConfig { target: entry, host, rate: 500, patience: None, visitors: ANYONE });
        let finished = async |more: u64| {
            let before = users.tally().finished;
            reached(|| users.tally().finished > before + more).await;
        };
        finished(10).await;

        let mut named = model(entry, &new, 2, false);
        let by_name = |cluster: &Arc<Cluster>| {
            let endpoints = cluster.endpoints.iter().map(|(_, port)| ("slow.test".to_owned(), *port)).collect();
            Arc::new(Cluster { endpoints, ..Cluster::clone(cluster) })
        };
        named.clusters = named.clusters.iter().map(by_name).collect();
        control.store().publish(render(&named));
        reached(|| names.asked() > 0).await;
        finished(500).await;
        assert_eq!((new.first_request(), users.tally().failed.len()), (None, 0), "delta: {delta}");

        names.answer();
        reached(|| new.first_request().is_some()).await;
        finished(100).await;
        let tally = users.stop(Duration::from_secs(5)).await;
        assert_eq!((tally.failed.len(), tally.finished), (0, tally.sent), "delta: {delta}");
    }
}

/// Two canaries of one host, which documents may not have: Envoy refuses the whole table. The second one is found and
/// left out, the first one is served, and what comes later goes out.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_refused_host_is_told_and_holds_no_other_one_back() {
    let scene = scene(Scenario::NoTraffic);
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
    let stage = Stage::build(&scene, &binary, wingbeat::FILTER).await.expect("a stage");
    let request = |host: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let good = stage.desired_state(&scene, PRIMARY, wingbeat::FILTER).expect("a setup");
    let with = |others: &[(&str, &str)]| {
        let mut setup = good.clone();
        let one = good.canaries.values().next().expect("one");
        for (name, host) in others {
            let mut other = one.clone();
            let input = PlanInput {
                name: Some(CanaryName::new(NAMESPACE, *name)),
                target: (*name).to_owned(),
                skip_analysis: true,
                ..PlanInput::default()
            };
            other.plan = Plan::try_new(&input).expect("a plan");
            other.service.hosts = vec![(*host).to_owned()];
            setup.canaries.insert(CanaryName::new(NAMESPACE, *name), other);
        }
        setup
    };
    let refused = |name: &str| {
        let board = stage.handle().status();
        let view = board.canaries.get(&(NAMESPACE.to_owned(), name.to_owned()));
        let conditions = view.map(|view| view.conditions.clone()).unwrap_or_default();
        conditions.into_iter().find(|condition| condition.kind == "Programmed")
    };
    stage.handle().configure(with(&[("twin", HOST), ("third", "third.local")])).expect("it is managed");
    reached(|| refused("twin").is_some()).await;
    let condition = refused("twin").expect("it is there");
    assert!(condition.message.contains("demo-envoy refuses routes") && condition.message.contains(HOST));
    let served = async |host: &str| send(stage.entry(), request(host).as_bytes()).await.revision;
    assert_eq!(served(HOST).await.as_deref(), Some(PRIMARY));
    assert_eq!(served("third.local").await.as_deref(), Some(PRIMARY));

    let all = [("twin", HOST), ("third", "third.local"), ("fourth", "fourth.local")];
    stage.handle().configure(with(&all)).expect("it is managed");
    for_host(&stage, "fourth.local").await;
    assert_eq!([NAME, "third", "fourth"].map(|name| refused(name).is_some()), [false; 3]);
    let told =
        |text: &str| stage.handle().events().retained().iter().filter(|event| event.message.contains(text)).count();
    assert_eq!(told("refuses routes"), 1, "who is to blame is told once");
    let nacks = stage.handle().status().clients.nacks.clone();
    assert!(matches!(nacks.as_slice(), [(_, 2..=6)]), "{nacks:?}: it is not sent in a loop");

    stage.handle().configure(with(&[("twin", "twin.local")])).expect("it is managed");
    reached(|| refused("twin").is_none()).await;
    assert_eq!(served("twin.local").await.as_deref(), Some(PRIMARY));
}

/// Waits until a host is served.
async fn for_host(stage: &Stage, host: &str) {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let served = async {
        while send(stage.entry(), request.as_bytes()).await.revision.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
}

/// Certificates of one authority, in a folder.
fn certificates(folder: &Path) -> (Tls, ClientTls) {
    let write = |name: &str, pem: String| {
        let path = folder.join(name);
        std::fs::write(&path, pem).expect("the file is written");
        path.display().to_string()
    };
    let mut params = CertificateParams::default();
    // A name of its own: a certificate whose issuer has its own name counts as self-signed.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let issue = |names: Vec<SanType>, usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &ca).expect("a certificate").pem(), key.serialize_pem())
    };
    let loopback = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
    let (certificate, key) = issue(vec![loopback], ExtendedKeyUsagePurpose::ServerAuth);
    let spiffe = SanType::URI("spiffe://example.com/edge".try_into().expect("a URI"));
    let node = SanType::DnsName("edge-1".try_into().expect("a name"));
    let (client_certificate, client_key) = issue(vec![spiffe, node], ExtendedKeyUsagePurpose::ClientAuth);
    let server =
        Tls { certificate: certificate.into_bytes(), key: key.into_bytes(), client_ca: Some(ca.pem().into_bytes()) };
    let client = ClientTls {
        ca: write("ca.pem", ca.pem()),
        identity: Some((write("client.pem", client_certificate), write("client.key", client_key))),
    };
    (server, client)
}

/// Starts a relay to an address. Returns where it listens, and how many of its connections the other side has ended.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, ended) = (listener.local_addr().expect("an address"), Arc::<AtomicUsize>::default());
    let count = ended.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(to).await else { return };
                let ((mut from_far, mut to_far), (mut from_near, mut to_near)) = (far.into_split(), near.into_split());
                let there = tokio::io::copy(&mut from_near, &mut to_far);
                let back = tokio::io::copy(&mut from_far, &mut to_near);
                tokio::select! {
                    _left = there => {}
                    _ended = back => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (address, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_only_clients_with_a_certificate_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = certificates(folder.path());
    let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
    let (control, entry) = (Control::start(Some(server)).await, free().await);
    control.store().publish(render(&model(entry, &service, 1, true)));

    // Without a certificate, nothing is served: Envoy tries again and again, and stays without a listener.
    let (relay, ended) = relay(control.address()).await;
    let stranger = Bootstrap {
        port: relay.port(),
        tls: Some(ClientTls { identity: None, ..client.clone() }),
        ..control.bootstrap()
    };
    tokio::select! {
        served = control.envoy_by(DEFAULT_VERSION, &stranger, entry) => panic!("it has a listener: {served:?}"),
        () = reached(|| ended.load(Ordering::Relaxed) >= 3) => {}
    }
    assert_eq!(control.notes().count(|_| true) + control.notes().reports().len(), 0);

    let _envoy = control.envoy(true, Some(client), entry).await.expect("Envoy starts");
    let request = b"GET / HTTP/1.1\r\nhost: backend.local\r\nconnection: close\r\n\r\n";
    assert_eq!(send(entry, request).await.revision.as_deref(), Some("1"));
    let reports = || control.notes().reports();
    reached(|| !reports().is_empty()).await;
    let expected = (Some("spiffe://example.com/edge".to_owned()), "edge-1".to_owned());
    assert_eq!(reports().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([expected]));
}
