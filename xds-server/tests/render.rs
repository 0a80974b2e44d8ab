//! What is rendered change by change is what the whole renders to.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::lineage::Adoption;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::model::{Cluster, Listener, ModelChange, ModelFront, ServedHost, Split, VirtualHost};
use wingbeat_xds_server::render::Renderer;
use wingbeat_xds_server::scoped_snapshots::ScopedSnapshots;

/// Listeners, of which documents name some; values of `node.cluster`; hosts.
const LISTENERS: [&str; 4] = ["left", "right", "public", "spare"];
const NODES: [&str; 2] = ["a", "b"];
const HOSTS: usize = 5;

fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    btree_set(0..names.len(), 0..=names.len())
        .prop_map(|places| places.into_iter().filter_map(|at| names.get(at)).map(ToString::to_string).collect())
}

fn front() -> impl Strategy<Value = ModelFront> {
    let listeners = vec(option::of(some_of(&NODES)), LISTENERS.len());
    (listeners, any::<bool>()).prop_map(|(nodes, filter)| {
        let listeners = LISTENERS.iter().zip(nodes).filter_map(|(name, nodes)| {
            Some(Listener {
                name: (*name).to_owned(),
                address: "127.0.0.1".to_owned(),
                port: 80,
                node_clusters: nodes?,
                access_log: None,
                front: Front::default(),
            })
        });
        ModelFront { listeners: listeners.collect(), filter: filter.then(|| Arc::from(&b"module"[..])) }
    })
}

/// Hosts share clusters: each leads to one of three, and brings some of them.
fn host() -> impl Strategy<Value = ServedHost> {
    let adoption = prop_oneof![3 => Just(Adoption::Adopted), 1 => Just(Adoption::Open), 1 => Just(Adoption::Contested)];
    let clusters = btree_set((0..3_u8, 1..3_u16), 0..3);
    (0..HOSTS, some_of(&LISTENERS), option::of((0..3_u8, 1..4_u64)), clusters, adoption).prop_map(
        |(number, listeners, routes, clusters, adoption)| {
            let name = format!("prod/{number}");
            let cluster = |of: u8| ClusterName::new(format!("prod/{of}"));
            let host = routes.map(|(to, rev)| {
                Arc::new(VirtualHost {
                    name: name.clone(),
                    domains: vec![format!("{number}.local")],
                    listeners: listeners.clone(),
                    timeout: None,
                    retries: None,
                    http: HttpOptions::default(),
                    split: Split::Single(cluster(to)),
                    rev: Rev::new(rev),
                    filter: false,
                })
            });
            let clusters = clusters.into_iter().map(|(of, port)| {
                Arc::new(Cluster {
                    name: cluster(of),
                    listeners: listeners.clone(),
                    endpoints: vec![("127.0.0.1".to_owned(), port)],
                    http2: false,
                    traffic: TrafficPolicy::default(),
                })
            });
            ServedHost { name, host, clusters: clusters.collect(), listeners, adoption }
        },
    )
}

#[derive(Debug, Clone)]
enum Happening {
    Front(ModelFront),
    Host(ServedHost),
    Gone(usize),
    /// A change that says what is there already.
    Again(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => front().prop_map(Happening::Front),
        8 => host().prop_map(Happening::Host),
        2 => (0..HOSTS).prop_map(Happening::Gone),
        1 => (0..HOSTS).prop_map(Happening::Again),
    ]
}

/// Everything that nodes are served, whatever they say that they are.
fn served(snapshots: &ScopedSnapshots) -> Vec<(&'static str, Kind, Vec<String>)> {
    let nodes = [NODES[0], NODES[1], "others"].into_iter();
    nodes
        .flat_map(|node| {
            Kind::ALL.into_iter().map(move |kind| {
                let snapshot = snapshots.of_node(node);
                (node, kind, snapshot.of(kind).values().map(|it| format!("{} {}", it.name, it.version)).collect())
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn change_by_change_is_as_the_whole(changes in vec(vec(happening(), 1..4), 1..12)) {
        let mut renderer = Renderer::default();
        let mut whole = ModelChange { front: Some(ModelFront::default()), hosts: BTreeMap::new() };
        let mut before = renderer.render(whole.clone());
        for happenings in changes {
            let mut change = ModelChange::default();
            for happening in happenings {
                match happening {
                    Happening::Front(front) => change.front = Some(front),
                    Happening::Host(host) => drop(change.hosts.insert(host.name.as_str().into(), Some(Arc::new(host)))),
                    Happening::Gone(number) => drop(change.hosts.insert(format!("prod/{number}").into(), None)),
                    Happening::Again(number) => {
                        let name: Arc<str> = format!("prod/{number}").into();
                        if let Some(host) = whole.hosts.get(&name) {
                            change.hosts.insert(name, host.clone());
                        }
                    }
                }
            }
            whole.front = change.front.clone().or(whole.front);
            whole.hosts.extend(change.hosts.clone());
            whole.hosts.retain(|_, host| host.is_some());
            let front_changed = change.front.is_some();
            let now = renderer.render(change);
            let fresh = Renderer::default().render(whole.clone());
            prop_assert_eq!(served(&now), served(&fresh));
            prop_assert_eq!(&now, &fresh);
            // Who is served the same holds the very same.
            for node in NODES.into_iter().chain(["others"]).filter(|_| !front_changed) {
                let (was, is) = (before.of_node(node), now.of_node(node));
                prop_assert_eq!(was == is, Arc::ptr_eq(&was, &is));
            }
            before = now;
        }
    }
}

#[test]
fn the_last_host_that_brings_a_cluster_counts() {
    let host = |name: &str, port: u16| {
        let cluster = Cluster {
            name: ClusterName::new("prod/shared"),
            listeners: vec!["left".to_owned()],
            endpoints: vec![("127.0.0.1".to_owned(), port)],
            http2: false,
            traffic: TrafficPolicy::default(),
        };
        let served = ServedHost {
            name: name.to_owned(),
            listeners: vec!["left".to_owned()],
            clusters: vec![Arc::new(cluster)],
            ..ServedHost::default()
        };
        (Arc::from(name), Some(Arc::new(served)))
    };
    let mut renderer = Renderer::default();
    let version = |snapshots: &ScopedSnapshots| {
        snapshots.of_node("").of(Kind::Endpoints).get("prod/shared").map(|endpoints| endpoints.version)
    };
    let front = Some(ModelFront::default());
    let alone = version(&renderer.render(ModelChange { front, hosts: [host("prod/a", 1)].into() })).unwrap();
    let both = version(&renderer.render(ModelChange { front: None, hosts: [host("prod/b", 2)].into() })).unwrap();
    assert_ne!(alone, both);
    let gone = ModelChange { front: None, hosts: [("prod/b".into(), None)].into() };
    assert_eq!(version(&renderer.render(gone)), Some(alone));
    let gone = ModelChange { front: None, hosts: [("prod/a".into(), None)].into() };
    assert_eq!(version(&renderer.render(gone)), None);
}
