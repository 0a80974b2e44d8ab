//! A cluster with our definitions, and a namespace of each test in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wingbeat_controller::clock::Clock;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_kubernetes::permit::{Permit, Permits};
use wingbeat_test_cluster::Cluster;

/// Time for something to come about; it takes a moment, but a busy machine may be slow.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A namespace of a test, in a cluster that has our definitions.
pub(crate) struct Place {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) namespace: String,
    pub(crate) clock: Clock,
}

impl Place {
    /// Returns the place of a test, with the calling thread in the cluster's network; nothing where there can be no cluster.
    pub(crate) async fn begin(test: &str) -> Option<Self> {
        let cluster = Cluster::for_test(test).await.expect("a cluster")?;
        Some(Self::of(cluster, test).await)
    }

    /// The same in a cluster of this test alone.
    pub(crate) async fn of(cluster: Arc<Cluster>, test: &str) -> Self {
        /// Held while the definitions are applied: kubectl of two tests would meet.
        static APPLYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        cluster.enter().expect("its network");
        let alone = APPLYING.lock().await;
        install(&cluster).await;
        drop(alone);
        let namespace = test.trim_start_matches("real_kubernetes_").replace('_', "-");
        cluster.kubectl(&["create", "namespace", &namespace]).await.expect("a namespace");
        Self { cluster, namespace, clock: Clock::start(Timestamp::EPOCH) }
    }

    /// Returns a client of the API server, as its administrator.
    pub(crate) async fn connect(&self) -> Connection {
        let access = Access::Kubeconfig(PathBuf::from(self.cluster.kubeconfig()));
        Connection::open(&access, &format!("wingbeat-test/{}", self.namespace)).await.expect("a client")
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["--namespace", &self.namespace], args].concat();
        self.cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Returns an object.
    pub(crate) async fn get(&self, what: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", what, name, "--output=json", "--show-managed-fields"]).await)
            .expect("JSON")
    }

    /// Creates objects in the namespace.
    pub(crate) async fn create(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.apply(&list.to_string()).await.expect("objects are created");
    }

    /// Returns a Canary of this name.
    pub(crate) fn canary(&self, name: &str) -> Value {
        json!({
            "apiVersion": "wingbeat.dev/v1alpha1",
            "kind": "Canary",
            "metadata": {"namespace": self.namespace, "name": name},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "service": {"port": 80},
                "analysis": {"interval": "1s", "threshold": 5, "stepWeight": 10, "maxWeight": 50},
            },
        })
    }

    /// Returns leave to write for this long.
    pub(crate) fn permit(&self, epoch: u64, span: Span) -> Permits {
        let permits = Permits::default();
        permits.set(Some(Permit { epoch, until: self.clock.now().plus(span) }));
        permits
    }
}

/// Applies our definitions of both groups, and waits until they are served.
pub(crate) async fn install(cluster: &Cluster) {
    for group in [Group::Wingbeat, Group::Flagger] {
        cluster.apply(&group.manifest()).await.expect("our definitions");
    }
    let wait = ["wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("they are served");
}

/// Waits until something holds, and returns it.
pub(crate) async fn until<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            if let Some(found) = poll().await {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}
