//! The objects of a gateway: a Deployment, its Canary, a Listener, and the role of the controller.

use serde_json::{Value, json};
use wingbeat_test_cluster::Cluster;

use super::process::{Role, beside};

/// Applies our definitions, and waits until they are served.
pub async fn install(cluster: &Cluster, flags: &[&str]) {
    /// Held while the definitions are applied: kubectl of two tests would meet.
    static APPLYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = APPLYING.lock().await;
    let crds = cluster.command(beside("wingbeat")).arg("crds").args(flags).output().await.expect("the program runs");
    cluster.apply(&String::from_utf8_lossy(&crds.stdout)).await.expect("our definitions");
    // Of one that has no conditions yet, `--for=condition` is an error.
    let established = r#"--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True"#;
    let wait = ["wait", established, "customresourcedefinitions", "--all", "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("they are served");
}

/// Makes the namespace of a controller, and its role in it.
pub async fn install_role(cluster: &Cluster, role: &Role) {
    cluster.kubectl(&["create", "namespace", &role.namespace]).await.expect("a namespace");
    cluster.apply(&role_of(&role.namespace)).await.expect("its role");
}

/// Returns the role of `deploy`, for a controller in this namespace: it may do nothing else.
pub fn role_of(namespace: &str) -> String {
    let documents = include_str!("../../../deploy/kustomize/rbac.yaml").split("---\n");
    let documents = documents.map(|document| {
        let document = document.replace("namespace: wingbeat", &format!("namespace: {namespace}"));
        // Others have theirs in the same cluster.
        let is_binding = document.contains("kind: ClusterRoleBinding");
        if is_binding { document.replacen("name: wingbeat", &format!("name: {namespace}"), 1) } else { document }
    });
    documents.collect::<Vec<String>>().join("---\n")
}

/// Returns a Deployment of two Pods.
pub fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "backend", "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "backend"}},
            "template": {
                "metadata": {"labels": {"app": "backend"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "wingbeat.test/web:1.4.0",
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "env": [{"name": "DEBUG", "value": "1"}, {"name": "KEPT", "value": "1"}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    // Requests that are on their way when a Pod ends are answered.
                    "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                }]},
            },
        },
    })
}

/// Returns the Canary of that Deployment, on a Listener.
pub fn canary(namespace: &str, analysis: &Value, listener: &str) -> Value {
    json!({
        "apiVersion": "wingbeat.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "backend", "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": "http", "listeners": [listener]},
            "analysis": analysis,
        },
    })
}

/// Returns a Listener of the Envoy of this name, which says this, too.
pub(super) fn listener(name: &str, port: u16, serves: &Value) -> Value {
    // Listeners are the cluster's: without `nodes`, the Envoys of all tests would share the port.
    let mut spec = json!({"address": "127.0.0.1", "port": port, "nodes": [name]});
    if let (Some(spec), Some(serves)) = (spec.as_object_mut(), serves.as_object()) {
        spec.extend(serves.clone());
    }
    json!({"apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "metadata": {"name": name}, "spec": spec})
}
