//! Somebody who may change everything, and does it often: calls of the API without a kubectl for each.

use std::time::Duration;

use anyhow::anyhow;
use serde_json::Value;
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_test_cluster::Cluster;

/// Time for one call.
const CALL: Duration = Duration::from_secs(30);
/// How a patch is merged.
const MERGE: &str = "application/merge-patch+json";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Admin(Connection);

impl Admin {
    /// Returns one of this cluster.
    pub(crate) async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let access = Access::Kubeconfig(cluster.kubeconfig().to_owned());
        Ok(Self(Connection::open(&access, "wingbeat-bench").await?))
    }

    /// Changes what a patch names of the object at a path, and returns the object.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        let answer = self.0.call("PATCH", path, MERGE, patch.to_string().into_bytes(), CALL).await;
        answer.map_err(|failure| anyhow!("PATCH {path}: {failure:?}"))
    }

    /// Returns the object or list at a path.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.0.get(path, CALL).await.map_err(|failure| anyhow!("GET {path}: {failure:?}"))
    }
}

/// Returns the path of a kind of ours in a namespace.
pub(crate) fn ours(namespace: &str, kind: &str) -> String {
    format!("/apis/wingbeat.dev/v1alpha1/namespaces/{namespace}/{kind}")
}
