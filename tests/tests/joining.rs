//! Envoys that join where something is wrong with one host among others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_e2e::control::{Control, free, hosts};
use wingbeat_e2e::{reached, send};
use wingbeat_xds_server::client_event::{CLUSTER_WAIT, ClientEventKind};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::model::Model;
use wingbeat_xds_server::render::render;

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n\r\n").into_bytes()
}

/// Changes a cluster of a model so that Envoy refuses it, and all that comes with it.
fn spoil(model: &mut Model, name: &str) {
    for cluster in model.clusters.iter_mut().filter(|cluster| cluster.name.as_str() == name) {
        Arc::make_mut(cluster).traffic.outliers.max_ejection_percent = 101;
    }
}

/// One host whose cluster is missing, and one whose cluster Envoy refuses: the others are served at once, and these two
/// when they are mended.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_that_joins_serves_the_hosts_that_are_right() {
    let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
    let at = [service.address()];
    let names = ["a", "b", "c", "lost", "refused", "z"];
    for delta in [false, true] {
        let (control, entry) = (Control::start(None).await, free().await);
        let right = hosts(entry, &names.map(|name| (name, &at[..])));
        let mut wrong = right.clone();
        wrong.clusters.retain(|cluster| cluster.name.as_str() != "lost");
        spoil(&mut wrong, "refused");
        control.store().publish(render(&wrong));
        let envoy = control.envoy(delta, None, entry).await.expect("Envoy starts");
        let all = async {
            for name in ["a", "b", "c", "z"] {
                while send(entry, &request(name)).await.status != Some(200) {}
            }
        };
        tokio::time::timeout(CLUSTER_WAIT, all).await.expect("they are served at once");
        for name in ["lost", "refused"] {
            assert_eq!(send(entry, &request(name)).await.status, Some(404), "{name}");
        }
        let blamed = BTreeSet::from(["refused".to_owned()]);
        let told =
            |what: &ClientEventKind| matches!(what, ClientEventKind::Refuses(Kind::Cluster, names) if *names == blamed);
        reached(|| control.notes().count(told) == 1).await;
        assert_eq!(control.notes().count(|what| matches!(what, ClientEventKind::Overdue(_))), 0);

        control.store().publish(render(&right));
        for name in names {
            let served = async { while send(entry, &request(name)).await.status != Some(200) {} };
            tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
        }
        drop(envoy);
    }
}

/// A listener whose log Envoy cannot open: it is named, and the other one serves.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_one_of_several_listeners_is_refused() {
    let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
    let at = [service.address()];
    let (control, entry) = (Control::start(None).await, free().await);
    let mut model = hosts(entry, &[("a", &at)]);
    let mut other = model.listeners.first().expect("one").clone();
    other.name = "broken".to_owned();
    other.access_log = Some(wingbeat_xds_server::model::AccessLog {
        path: "/nowhere/access.log".to_owned(),
        format: wingbeat_xds_server::model::LogFormat::Default,
    });
    other.port = free().await.port();
    model.listeners.insert(0, other);
    control.store().publish(render(&model));
    let _envoy = control.envoy(false, None, entry).await.expect("Envoy starts");
    let blamed = BTreeSet::from(["broken".to_owned()]);
    let told =
        |what: &ClientEventKind| matches!(what, ClientEventKind::Refuses(Kind::Listener, names) if *names == blamed);
    reached(|| control.notes().count(told) == 1).await;
    let served = async { while send(entry, &request("a")).await.status != Some(200) {} };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
}

/// An Envoy that is built without V8 refuses the filter. It serves the hosts of rollouts as it serves the others.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_that_cannot_run_the_filter_serves_without_it() {
    const WITHOUT_V8: &str = "1.38.3";
    let service = Service::start("1", 1, Behaviour::default()).await.expect("a service");
    let at = [service.address()];
    let (control, entry) = (Control::start(None).await, free().await);
    let names = ["quiet", "judged"];
    let mut model = hosts(entry, &names.map(|name| (name, &at[..])));
    model.filter = Some(Arc::from(wingbeat::FILTER));
    for host in model.hosts.iter_mut().filter(|host| host.name == "prod/judged") {
        Arc::make_mut(host).filter = true;
    }
    control.store().publish(render(&model));
    let envoy = control.envoy_by(WITHOUT_V8, &control.bootstrap(), entry).await.expect("Envoy starts");
    let refused =
        |what: &ClientEventKind| matches!(what, ClientEventKind::Refused(nack) if nack.kind == Kind::Extension);
    reached(|| control.notes().count(refused) > 0).await;
    for name in names {
        let served = async { while send(entry, &request(name)).await.status != Some(200) {} };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("it is served");
        for _ in 0..10 {
            assert_eq!(send(entry, &request(name)).await.status, Some(200), "{name}");
        }
    }
    drop(envoy);
}
