//! A Canary is deleted in a real Kubernetes, and nobody who asks for the Service by its name notices.

use std::time::Duration;

use wingbeat_demo::load::Load;
use wingbeat_e2e::by_name::ByName;
use wingbeat_e2e::gateway::Gateway;

const CANARY: &str = "canaries.wingbeat.dev/backend";
/// The Canary is gone after this time: its Pods are ready within a few seconds, on a busy machine within more.
const WITHIN: Duration = Duration::from_mins(3);

/// Waits until an object is gone.
async fn until_gone(gateway: &Gateway, object: &str) {
    let timeout = format!("--timeout={}s", WITHIN.as_secs());
    gateway.kubectl(&["wait", "--for=delete", object, &timeout]).await;
}

/// Deletes the Canary. Nobody fails who asks by its Service's name, nor through the Envoy until its routes end.
async fn delete(gateway: &Gateway, by_name: &ByName, users: &Load) {
    gateway.kubectl(&["delete", CANARY, "--wait=false"]).await;
    gateway.until("it is handed back", CANARY, "{.status.conditions[?(@.type==\"HandedBack\")].status}", "True").await;
    let ready = gateway.words("deployment/backend", "{.status.readyReplicas}").await;
    assert_eq!(ready, ["2"], "before the primary goes");
    assert_eq!(gateway.words("deployment/backend-primary", "{.status.readyReplicas}").await, ["2"]);
    let tally = users.tally();
    assert!(tally.finished > 0);
    assert_eq!(tally.failed, [], "of {} requests through the Envoy\n{}", tally.finished, gateway.said());
    until_gone(gateway, CANARY).await;
    for object in ["deployment/backend-primary", "service/backend-primary", "service/backend-canary"] {
        until_gone(gateway, object).await;
    }
    gateway.kubectl(&["wait", "--for=delete", "pods", "--selector=app=backend-primary", "--timeout=60s"]).await;
    let asked = by_name.asked();
    assert!(asked.answered > 100, "{asked:?}");
    assert_eq!(asked.failed, Vec::<String>::new(), "of {} by name\n{}", asked.answered, gateway.said());
    assert_eq!(gateway.words("service/backend", "{.spec.selector.app}").await, ["backend"]);
    assert_eq!(gateway.words("service/backend", "{.metadata.ownerReferences[*].uid}").await, Vec::<String>::new());
    assert_eq!(gateway.words("deployment/backend", "{.spec.replicas}").await, ["2"]);
}

#[tokio::test]
async fn real_kubernetes_a_canary_is_deleted_and_its_target_serves() {
    let Some(gateway) = Gateway::start("real_kubernetes_a_canary_is_deleted_and_its_target_serves").await else {
        return;
    };
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    assert_eq!(gateway.words(CANARY, "{.metadata.finalizers[*]}").await, ["wingbeat.dev/finalizer"]);
    let by_name = gateway.by_name("backend").await;
    delete(&gateway, &by_name, &gateway.users()).await;
}

#[tokio::test]
async fn real_kubernetes_a_canary_is_deleted_in_mid_rollout() {
    let Some(gateway) = Gateway::start("real_kubernetes_a_canary_is_deleted_in_mid_rollout").await else { return };
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let by_name = gateway.by_name("backend").await;
    let users = gateway.users();
    gateway.kubectl(&["set", "image", "deployment/backend", "web=wingbeat.test/web:1.4.1"]).await;
    gateway.until_said(0, "canary weight 30").await;
    delete(&gateway, &by_name, &users).await;
    let events =
        gateway.kubectl(&["get", "events.events.k8s.io", "--output=jsonpath={range .items[*]}{.note}\n{end}"]).await;
    assert!(events.contains("which was not promoted: it gets all requests"), "{events}");
}

#[tokio::test]
async fn real_kubernetes_a_canary_is_released_by_hand() {
    let Some(mut gateway) = Gateway::start("real_kubernetes_a_canary_is_released_by_hand").await else { return };
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let by_name = gateway.by_name("backend").await;
    gateway.kill_controller().await;
    let said = gateway.wingbeat(&["release", "backend", "--namespace", gateway.namespace()]).await;
    for stays in ["Deployment backend-primary", "Service backend", "Service backend-primary", "Service backend-canary"]
    {
        assert!(said.contains(stays), "{stays} is missing in: {said}");
    }
    assert_eq!(gateway.words(CANARY, "{.metadata.finalizers[*]}").await, Vec::<String>::new());
    // Again: there is nothing left to do.
    let said = gateway.wingbeat(&["release", "--all", "--namespace", gateway.namespace()]).await;
    assert_eq!(said.lines().count(), 1, "{said}");
    let uid = gateway.words(CANARY, "{.metadata.uid}").await.concat();
    let owner = format!(
        r#"{{"metadata": {{"ownerReferences": [
            {{"apiVersion": "wingbeat.dev/v1alpha1", "kind": "Canary", "name": "backend", "uid": "{uid}"}}]}}}}"#
    );
    gateway.kubectl(&["create", "configmap", "owned"]).await;
    gateway.kubectl(&["patch", "configmap", "owned", "--type=merge", "--patch", &owner]).await;
    gateway.kubectl(&["delete", CANARY, "--timeout=30s"]).await;
    // What belongs to it is gone by now, and so would be the others.
    until_gone(&gateway, "configmap/owned").await;
    assert_eq!(gateway.words("deployment/backend-primary", "{.status.readyReplicas}").await, ["2"]);
    assert_eq!(gateway.words("service/backend", "{.spec.selector.app}").await, ["backend-primary"]);
    let asked = by_name.asked();
    assert!(asked.answered > 0, "{asked:?}");
    assert_eq!(asked.failed, Vec::<String>::new());
}
