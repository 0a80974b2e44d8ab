//! Nodes are served what is on the listeners that are for them, and nothing of what is on others.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::lineage::Adoption;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::model::{Cluster, Listener, Model, ModelChange, Split, VirtualHost};
use wingbeat_xds_server::publisher::Publisher;
use wingbeat_xds_server::render::{Renderer, render};
use wingbeat_xds_server::scoped_snapshots::ScopedSnapshots;
use wingbeat_xds_server::session::{Dialect, Names, Request, Response, Session};

const NOW: Duration = Duration::ZERO;

fn listener(name: &str, nodes: &[&str]) -> Listener {
    Listener {
        name: name.to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 80,
        node_clusters: nodes.iter().map(ToString::to_string).collect(),
        access_log: None,
        front: Front::default(),
    }
}

/// Returns listeners with their nodes, and canaries with their listeners: each has a host, and a cluster by address.
fn model(listeners: &[(&str, &[&str])], canaries: &[(&str, &[&str], u64)]) -> Model {
    let owned = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let host = |(name, listeners, rev): &(&str, &[&str], u64)| VirtualHost {
        name: format!("prod/{name}"),
        domains: vec![format!("{name}.local")],
        listeners: owned(listeners),
        timeout: None,
        retries: None,
        http: HttpOptions::default(),
        split: Split::Single(ClusterName::new(*name)),
        rev: Rev::new(*rev),
        filter: false,
    };
    let cluster = |(name, listeners, _): &(&str, &[&str], u64)| Cluster {
        name: ClusterName::new(*name),
        listeners: owned(listeners),
        endpoints: vec![("127.0.0.1".to_owned(), 81)],
        http2: false,
        traffic: TrafficPolicy::default(),
    };
    Model {
        listeners: listeners.iter().map(|(name, nodes)| listener(name, nodes)).collect(),
        hosts: canaries.iter().map(|canary| Arc::new(host(canary))).collect(),
        clusters: canaries.iter().map(|canary| Arc::new(cluster(canary))).collect(),
        ..Model::default()
    }
}

/// Returns the names of what nodes of this cluster are served of a type.
fn names(views: &ScopedSnapshots, node_cluster: &str, kind: Kind) -> Vec<String> {
    views.of_node(node_cluster).of(kind).keys().cloned().collect()
}

/// An Envoy by the way in which it asks: for all clusters and listeners, for endpoints of the former, routes of the latter.
struct Client {
    session: Session,
    dialect: Dialect,
    /// What it has accepted, with the bytes.
    held: BTreeMap<(Kind, String), Vec<u8>>,
    asked: BTreeMap<Kind, Vec<String>>,
    /// Whether connections of listeners that are gone go on.
    drains: bool,
    node_cluster: &'static str,
}

impl Client {
    fn new(dialect: Dialect, node_cluster: &'static str, views: &ScopedSnapshots) -> Self {
        let (held, asked) = (BTreeMap::new(), BTreeMap::new());
        let session = Session::new(dialect);
        let mut client = Self { session, dialect, held, asked, drains: false, node_cluster };
        assert_eq!(client.session.snapshot(&views.of_node(node_cluster), NOW), []);
        for kind in [Kind::Cluster, Kind::Listener] {
            let names = client.names(&[], &[]);
            client.ask(kind, names, String::new());
        }
        client
    }

    fn sees(&mut self, views: &ScopedSnapshots) {
        let mut due = self.session.snapshot(&views.of_node(self.node_cluster), NOW);
        due.extend(self.session.follow(views, NOW));
        self.take(due);
    }

    /// Its last connection of a listener that is gone ends.
    fn ends_draining(&mut self) {
        self.drains = false;
        let listeners = self.of(Kind::Listener);
        self.held.retain(|(of, name), _| *of != Kind::Routes || listeners.contains(name));
        self.follow(Kind::Listener);
    }

    fn names(&self, more: &[String], less: &[String]) -> Names {
        match self.dialect {
            Dialect::StateOfTheWorld => Names::All { names: Vec::new(), version: String::new() },
            Dialect::Delta => {
                Names::Change { subscribe: more.to_vec(), unsubscribe: less.to_vec(), initial: Vec::new() }
            }
        }
    }

    fn ask(&mut self, kind: Kind, names: Names, nonce: String) {
        let request = Request { names, nonce, error: None };
        let due = self.session.request(kind, &request, NOW).expect("few names").responses;
        self.take(due);
    }

    /// Accepts all that comes, one after another, and checks after each that its routes lead to clusters that it has.
    fn take(&mut self, due: Vec<Response>) {
        for response in due {
            let kind = response.kind;
            if self.dialect == Dialect::StateOfTheWorld && kind.has_wildcard() {
                self.held.retain(|(of, _), _| *of != kind);
            }
            for name in response.removed {
                self.held.remove(&(kind, name));
            }
            for resource in &response.resources {
                self.held.insert((kind, resource.name.clone()), resource.body.to_vec());
            }
            if kind == Kind::Listener && !self.drains {
                // Routes go with the listener that they are of.
                let listeners = self.of(kind);
                self.held.retain(|(of, name), _| *of != Kind::Routes || listeners.contains(name));
            }
            self.leads_nowhere_else();
            let names = match self.dialect {
                Dialect::StateOfTheWorld => {
                    Names::All { names: self.asked.get(&kind).cloned().unwrap_or_default(), version: String::new() }
                }
                Dialect::Delta => self.names(&[], &[]),
            };
            self.ask(kind, names, response.nonce);
            self.follow(kind);
        }
    }

    /// Asks for what belongs to what it has.
    fn follow(&mut self, kind: Kind) {
        let of = match kind {
            Kind::Listener => Kind::Routes,
            Kind::Cluster => Kind::Endpoints,
            Kind::Endpoints | Kind::Routes | Kind::Extension => return,
        };
        let mut wanted: Vec<String> = self.of(kind);
        if kind == Kind::Listener && self.drains {
            let before = self.asked.get(&of).into_iter().flatten();
            wanted = wanted.iter().chain(before).cloned().collect::<BTreeSet<_>>().into_iter().collect();
        }
        let asked = self.asked.insert(of, wanted.clone()).unwrap_or_default();
        if asked == wanted {
            return;
        }
        let more: Vec<String> = wanted.iter().filter(|name| !asked.contains(name)).cloned().collect();
        let less: Vec<String> = asked.iter().filter(|name| !wanted.contains(name)).cloned().collect();
        let names = match self.dialect {
            Dialect::StateOfTheWorld => Names::All { names: wanted, version: String::new() },
            Dialect::Delta => self.names(&more, &less),
        };
        self.ask(of, names, String::new());
    }

    fn of(&self, kind: Kind) -> Vec<String> {
        self.held.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }

    fn leads_nowhere_else(&self) {
        let clusters = self.of(Kind::Cluster);
        for ((_, name), body) in self.held.iter().filter(|((kind, _), _)| *kind == Kind::Routes) {
            let text = String::from_utf8_lossy(body);
            for cluster in ["shop", "pay", "both"].iter().filter(|name| text.contains(&format!("prod/{name}"))) {
                assert!(clusters.iter().any(|held| held == cluster), "{name} leads to {cluster}: {clusters:?}");
            }
        }
    }
}

#[test]
fn listeners_go_to_the_nodes_that_they_are_for() {
    let views = render(&model(&[("edge", &["edge"]), ("all", &[])], &[]));
    for (node, expected) in [("edge", &["all", "edge"][..]), ("other", &["all"])] {
        for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
            let client = Client::new(dialect, node, &views);
            assert_eq!((client.of(Kind::Listener), client.of(Kind::Routes)), (owned(expected), owned(expected)));
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn clusters_and_routes_go_only_where_a_listener_leads_to_them() {
    let listeners: [(&str, &[&str]); 3] = [("left", &["a"]), ("right", &["b"]), ("public", &[])];
    let canaries: [(&str, &[&str], u64); 4] =
        [("shop", &["left"], 1), ("pay", &["right"], 1), ("both", &["left", "right"], 1), ("open", &["public"], 1)];
    let mut whole = model(&listeners, &canaries);
    let adoption = |host: &str| BTreeMap::from([(host.to_owned(), Adoption::Contested)]);
    whole.unadopted = BTreeMap::from([("left".to_owned(), adoption("prod/shop"))]);
    let views = render(&whole);
    for (node, clusters, tables) in [
        ("a", &["both", "open", "shop"][..], &["left", "public"][..]),
        ("b", &["both", "open", "pay"], &["public", "right"]),
        ("c", &["open"], &["public"]),
        ("", &["open"], &["public"]),
    ] {
        assert_eq!(names(&views, node, Kind::Cluster), owned(clusters), "{node}");
        assert_eq!(names(&views, node, Kind::Endpoints), owned(clusters), "{node}");
        assert_eq!(names(&views, node, Kind::Listener), owned(tables), "{node}");
        assert_eq!(names(&views, node, Kind::Routes), owned(tables), "{node}");
    }
    // A table that is asked for by name does not exist for others, and what is contested of it holds nobody else.
    let ask = |node: &str, dialect| {
        let mut session = Session::new(dialect);
        session.snapshot(&views.of_node(node), NOW);
        let names = match dialect {
            Dialect::StateOfTheWorld => Names::All { names: vec!["left".to_owned()], version: String::new() },
            Dialect::Delta => {
                Names::Change { subscribe: vec!["left".to_owned()], unsubscribe: Vec::new(), initial: Vec::new() }
            }
        };
        let request = Request { names, ..Request::default() };
        session.request(Kind::Routes, &request, NOW).expect("few names").responses
    };
    assert_eq!(ask("b", Dialect::StateOfTheWorld), []);
    let gone = ask("b", Dialect::Delta);
    assert!(matches!(&gone[..], [one] if one.resources.is_empty() && one.removed == ["left"]), "{gone:?}");
    assert_eq!(ask("a", Dialect::Delta), [], "it is held for what is contested");
}

/// Nobody would notice an upgrade: all is served to all, in one set.
#[test]
fn without_nodes_everything_goes_to_everybody() {
    let listeners: [(&str, &[&str]); 2] = [("left", &[]), ("right", &[])];
    // One is on a listener that is not there yet.
    let canaries: [(&str, &[&str], u64); 3] = [("shop", &["left"], 1), ("pay", &["right"], 1), ("both", &["gone"], 1)];
    let views = render(&model(&listeners, &canaries));
    assert!(Arc::ptr_eq(&views.of_node("a"), &views.of_node("")));
    assert_eq!(names(&views, "a", Kind::Cluster), ["both", "pay", "shop"]);
    assert_eq!(names(&views, "a", Kind::Routes), ["left", "right"]);
    // The versions are those of the resources alone: the same table is the same in whichever scope.
    let scoped = render(&model(&[("left", &["a"]), ("right", &["b"])], &canaries));
    for (node, table, cluster) in [("a", "left", "shop"), ("b", "right", "pay")] {
        for (kind, name) in [(Kind::Routes, table), (Kind::Cluster, cluster), (Kind::Listener, table)] {
            assert_eq!(scoped.of_node(node).of(kind).get(name), views.of_node("").of(kind).get(name), "{name}");
        }
    }
}

/// A stream sees by one comparison that nothing of what it is served has changed.
#[test]
fn a_change_in_one_scope_is_none_in_another() {
    let listeners: [(&str, &[&str]); 3] = [("left", &["a"]), ("right", &["b"]), ("public", &[])];
    let canaries = |rev| [("shop", &["left"][..], rev), ("pay", &["right"][..], 1), ("open", &["public"][..], 1)];
    let (store, mut renderer) = (Publisher::default(), Renderer::default());
    let mut publish = |change: ModelChange| {
        store.publish(renderer.render(change));
        store.watch().borrow().clone().expect("it is published")
    };
    let one = publish(ModelChange::from(&model(&listeners, &canaries(1))));
    let two = publish(ModelChange { front: None, ..ModelChange::from(&model(&listeners, &canaries(2))) });
    assert!(!Arc::ptr_eq(&one.of_node("a"), &two.of_node("a")));
    assert!(Arc::ptr_eq(one.of_node("a").of(Kind::Cluster), two.of_node("a").of(Kind::Cluster)));
    for node in ["b", "c"] {
        assert!(Arc::ptr_eq(&one.of_node(node), &two.of_node(node)), "{node}");
    }
    let shared = |node: &str| two.of_node(node).of(Kind::Routes).get("public").cloned().expect("it is served");
    assert!(Arc::ptr_eq(&shared("a"), &shared("b")), "there is one table for all scopes");
}

/// `nodes` changes while clients are there: who gains a scope gets clusters before the routes that lead to them, and who
/// loses one keeps them until its routes are gone.
#[test]
fn a_node_that_gains_and_loses_scope_is_never_led_nowhere() {
    let canaries: [(&str, &[&str], u64); 3] =
        [("shop", &["left"], 1), ("pay", &["right"], 1), ("both", &["left", "right"], 1)];
    let of =
        |nodes: [&'static [&'static str]; 2]| render(&model(&[("left", nodes[0]), ("right", nodes[1])], &canaries));
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut client = Client::new(dialect, "a", &of([&["a"], &["b"]]));
        for (nodes, clusters, tables) in [
            ([&["a"][..], &["b"]], &["both", "shop"][..], &["left"][..]),
            ([&["a"], &["b", "a"]], &["both", "pay", "shop"], &["left", "right"]),
            ([&["b"], &["a"]], &["both", "pay"], &["right"]),
            ([&["b"], &["b"]], &[], &[]),
            ([&["a"], &[]], &["both", "pay", "shop"], &["left", "right"]),
            ([&[], &[]], &["both", "pay", "shop"], &["left", "right"]),
        ] {
            client.sees(&of(nodes));
            let held = [Kind::Cluster, Kind::Listener, Kind::Routes].map(|kind| client.of(kind));
            assert_eq!(held, [owned(clusters), owned(tables), owned(tables)], "{dialect:?} {nodes:?}");
        }
    }
}

/// Envoy lets connections of a listener that is gone end in their time. Until then their requests are served, and what is
/// decided meanwhile holds for them too.
#[test]
fn connections_of_a_listener_that_is_gone_are_served_until_they_end() {
    let of = |nodes: &[&'static str], rev| render(&model(&[("left", nodes)], &[("shop", &["left"], rev)]));
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut client = Client::new(dialect, "a", &of(&["a"], 1));
        client.drains = true;
        client.sees(&of(&["b"], 1));
        let held = [Kind::Listener, Kind::Routes, Kind::Cluster].map(|kind| client.of(kind));
        assert_eq!(held, [owned(&[]), owned(&["left"]), owned(&["shop"])], "{dialect:?}");
        let decided = of(&["b"], 2);
        client.sees(&decided);
        let table = decided.of_node("b").of(Kind::Routes).get("left").map(|table| table.body.to_vec());
        assert_eq!(client.held.get(&(Kind::Routes, "left".to_owned())).cloned(), table, "{dialect:?}");
        client.ends_draining();
        let held = [Kind::Routes, Kind::Cluster, Kind::Endpoints].map(|kind| client.of(kind));
        assert_eq!(held[..2], [owned(&[]), owned(&[])], "{dialect:?}");
    }
}
