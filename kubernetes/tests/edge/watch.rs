//! Watches: what they miss while nobody answers, they find out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_kubernetes::edge::watch::{Observations, Scopes};
use wingbeat_kubernetes::slots::{Change, Readiness};
use wingbeat_kubernetes::world::{Kind, ObjectKey, World};
use wingbeat_test_cluster::{Cluster, Options};

use crate::support::{DEADLINE, Place};

/// What is known of a cluster, fed by watches.
struct Watched {
    observations: Observations,
    world: World,
    objects: BTreeMap<ObjectKey, Value>,
    readiness: Readiness,
    problems: BTreeMap<String, String>,
    /// Deletions that were handed over.
    deleted: usize,
}

impl Watched {
    fn start(connection: &Connection, scopes: &Scopes) -> Self {
        Self {
            observations: Observations::start(connection, scopes),
            world: World::default(),
            objects: BTreeMap::new(),
            readiness: Readiness::default(),
            problems: BTreeMap::new(),
            deleted: 0,
        }
    }

    /// Takes what is observed until something holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                let batch = self.observations.next().await;
                for (key, change) in batch.changes {
                    match change {
                        Change::Applied(object) => {
                            self.world.apply(key.kind, &object);
                            self.objects.insert(key, object);
                        }
                        Change::Deleted => {
                            self.world.delete(&key);
                            self.objects.remove(&key);
                            self.deleted += 1;
                        }
                    }
                }
                (self.readiness, self.problems) = (batch.readiness, batch.problems);
            }
        };
        let ended = tokio::time::timeout(DEADLINE, wait).await;
        ended.unwrap_or_else(|_| panic!("{what}: not in time; {:?}, {:?}", self.readiness, self.problems));
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.objects.keys().filter(|key| key.kind == kind).map(|key| key.name.as_str()).collect()
    }

    fn is_ready(&self) -> bool {
        self.readiness == Readiness::Listed
    }
}

fn scopes(namespace: Option<&str>) -> Scopes {
    Scopes { groups: vec![Group::Wingbeat, Group::Flagger], namespace: namespace.map(str::to_owned), configs: true }
}

fn service(place: &Place, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": place.namespace, "name": name, "labels": labels},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    })
}

#[tokio::test]
async fn real_kubernetes_what_changes_is_observed_in_a_namespace() {
    let Some(place) = Place::begin("real_kubernetes_what_changes").await else { return };
    let ours = json!({"wingbeat.dev/canary": "a", "wingbeat.dev/arm": "primary"});
    place.create(&[place.canary("a"), service(&place, "a-primary", &ours), service(&place, "other", &json!({}))]).await;
    let mut watched = Watched::start(&place.connect().await, &scopes(Some(&place.namespace)));
    watched.until("everything is listed", Watched::is_ready).await;
    assert_eq!((watched.names(Kind::Canary), watched.names(Kind::Service)), (vec!["a"], vec!["a-primary"]));
    let a = ObjectKey::new(Kind::Canary, &place.namespace, "a");
    let canary = watched.world.get(&a).expect("the Canary");
    assert_eq!((&canary["kind"], &canary["spec"]), (&json!("Canary"), &place.canary("a")["spec"]));
    assert_eq!(canary["metadata"]["managedFields"], Value::Null);
    // Its slices are found by the Service's labels.
    watched.until("the slice of the Service", |it| !it.names(Kind::EndpointSlice).is_empty()).await;
    place
        .kubectl(&["patch", "canaries.wingbeat.dev", "a", "--type=merge", "--patch={\"spec\":{\"suspend\":true}}"])
        .await;
    watched.until("the change", |it| it.objects.get(&a).is_some_and(|it| it["spec"]["suspend"] == true)).await;
    place.kubectl(&["delete", "canaries.wingbeat.dev", "a"]).await;
    watched.until("its end", |it| it.names(Kind::Canary).is_empty()).await;
    assert_eq!(watched.world.canaries().count(), 0);
    assert_eq!(watched.observations.waiting(), 0);
}

/// Carries connections to the API server, until it is cut.
struct Wire {
    is_open: watch::Sender<bool>,
    address: std::net::SocketAddr,
}

impl Wire {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (is_open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, state.clone()));
            }
        });
        Self { is_open, address }
    }

    /// Returns a client whose connections go over it.
    async fn connect(&self, place: &Place) -> Connection {
        let text = std::fs::read_to_string(place.cluster.kubeconfig()).expect("a kubeconfig");
        let text = text.replace("127.0.0.1:6443", &self.address.to_string());
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        let access = Access::Kubeconfig(PathBuf::from(file.path()));
        Connection::open(&access, "wingbeat-test/wire").await.expect("a client")
    }

    fn cut(&self) {
        self.is_open.send_replace(false);
    }

    fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

async fn carry(mut client: TcpStream, mut is_open: watch::Receiver<bool>) {
    if !*is_open.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect("127.0.0.1:6443").await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = is_open.wait_for(|is_open| !is_open) => {}
    }
}

#[tokio::test]
async fn real_kubernetes_what_is_deleted_while_nobody_watches_is_found_out() {
    let test = "real_kubernetes_what_is_deleted";
    // The API server is restarted: others would lose theirs.
    let Some(_) = Cluster::for_test(test).await.expect("a cluster") else { return };
    let cluster = Arc::new(Cluster::start(Options::default()).await.expect("a cluster"));

    // Without definitions, each is missed by name, and found once it is there.
    cluster.enter().expect("its network");
    let access = Access::Kubeconfig(PathBuf::from(cluster.kubeconfig()));
    let early = Connection::open(&access, "wingbeat-test/early").await.expect("a client");
    let mut early = Watched::start(&early, &scopes(None));
    early.until("all definitions are missed", |it| it.problems.len() == 8).await;
    assert!(early.problems["canaries.flagger.app"].contains("wingbeat crds"), "{:?}", early.problems);
    let place = Place::of(cluster.clone(), test).await;
    early.until("all are found", Watched::is_ready).await;
    assert_eq!(early.problems, BTreeMap::new());
    drop(early);

    place.create(&["a", "b", "c"].map(|name| place.canary(name))).await;
    let wire = Wire::start().await;
    let mut watched = Watched::start(&wire.connect(&place).await, &scopes(None));
    watched.until("everything is listed", |it| it.is_ready() && it.names(Kind::Canary).len() == 3).await;

    // Cut off for a moment: it goes on from where it was.
    wire.cut();
    watched.until("it says so", |it| it.problems.contains_key("canaries.wingbeat.dev")).await;
    place.kubectl(&["delete", "canaries.wingbeat.dev", "b"]).await;
    wire.mend();
    watched.until("b is gone", |it| it.names(Kind::Canary) == ["a", "c"] && it.problems.is_empty()).await;

    // Cut off while the API server forgets what was: it is listed anew.
    wire.cut();
    place.kubectl(&["delete", "canaries.wingbeat.dev", "c"]).await;
    place.create(&[place.canary("d")]).await;
    cluster.restart_api_server(&[]).await.expect("restarted");
    wire.mend();
    watched
        .until("c is gone and d is there", |it| it.names(Kind::Canary) == ["a", "d"] && it.problems.is_empty())
        .await;
    assert_eq!(watched.deleted, 2, "nothing else was taken for deleted");
    place.kubectl(&["delete", "canaries.wingbeat.dev", "a"]).await;
    watched.until("a is gone", |it| it.names(Kind::Canary) == ["d"]).await;

    // An API server that cannot stream lists: they come in pages.
    wire.cut();
    let more: Vec<Value> = (0..600).map(|number| place.canary(&format!("many-{number:03}"))).collect();
    place.create(&more).await;
    cluster.restart_api_server(&["--feature-gates=WatchList=false"]).await.expect("restarted");
    wire.mend();
    let before = cluster.audit().expect("a log");
    let mut paged = Watched::start(&wire.connect(&place).await, &scopes(None));
    paged.until("everything is listed", Watched::is_ready).await;
    assert_eq!(paged.names(Kind::Canary).len(), 601);
    let audit = cluster.audit().expect("a log").since(&before);
    assert!(
        audit.count("wingbeat-test/wire", "list") >= 12,
        "11 kinds, of which one has two pages: {:?}",
        audit.calls()
    );
    watched.until("the other one, too", |it| it.names(Kind::Canary).len() == 601).await;
}
