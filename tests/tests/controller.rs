//! `wingbeat controller` in a real Kubernetes: a Deployment rolls out behind a real Envoy.

use std::time::Duration;

use wingbeat_e2e::gateway::Gateway;
use wingbeat_test_cluster::Cluster;

/// Time in which a rollout of ten steps of half a second comes to its end, on a busy machine, too.
const ROLLOUT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn real_kubernetes_a_deployment_rolls_out_behind_an_envoy() {
    let Some(gateway) = Gateway::start("real_kubernetes_a_deployment_rolls_out_behind_an_envoy").await else { return };
    let users = gateway.users();
    // A good release, which also takes something away.
    let patch = r#"[
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "wingbeat.test/web:1.4.1"},
        {"op": "remove", "path": "/spec/template/spec/containers/0/env/0"}]"#;
    gateway.kubectl(&["patch", "deployment/backend", "--type=json", "--patch", patch]).await;
    gateway.until_phase("Progressing", ROLLOUT).await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, ["wingbeat.test/web:1.4.1"]);
    let env = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].env[*].name}").await;
    assert_eq!(env, ["KEPT"], "what a release takes away is gone from the primary");
    assert_eq!(gateway.words("deployment/backend-primary", "{.spec.replicas}").await, ["2"]);
    let tally = users.tally();
    let failures = gateway.failures().await;
    assert_eq!(tally.failed, [], "of {} requests\n{failures}\n{}", tally.finished, gateway.said());
    // A bad one, which is ready and fails everything.
    gateway.kubectl(&["set", "env", "deployment/backend", "STATUS=500"]).await;
    gateway.until_phase("Failed", ROLLOUT).await;
    let failed = users.tally().failed.len();
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed.len(), failed, "nobody failed after that");
    assert!(failed > 0 && failed < 100, "{failed} of {} requests failed", tally.finished);
    let events =
        gateway.kubectl(&["get", "events.events.k8s.io", "--output=jsonpath={range .items[*]}{.note}\n{end}"]).await;
    let name = format!("backend.{}", gateway.namespace());
    for text in [
        format!("Initialization done! {name}"),
        format!("New revision detected! Scaling up {name}"),
        format!("Advance {name} canary weight 50"),
        format!("Copying {name} template spec"),
        format!("Promotion completed! Scaling down {name}"),
        format!("Rolling back {name}"),
        format!("Canary failed! Scaling down {name}"),
    ] {
        assert!(events.contains(&text), "{text} is missing in:\n{events}");
    }
    gateway.assert_allowed();
}

#[tokio::test]
async fn real_kubernetes_a_controller_that_is_lost_with_its_disk_is_replaced() {
    let Some(mut gateway) = Gateway::start("real_kubernetes_a_controller_that_is_lost_with_its_disk_is_replaced").await
    else {
        return;
    };
    let users = gateway.users();
    gateway.kubectl(&["set", "image", "deployment/backend", "web=wingbeat.test/web:1.4.1"]).await;
    gateway.until_said(0, "canary weight 10").await;
    gateway.replace_controller().await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, ["wingbeat.test/web:1.4.1"]);
    // A bad one, and the controller is lost in the moment in which it begins.
    gateway.kubectl(&["set", "env", "deployment/backend", "STATUS=500"]).await;
    gateway.until_phase("Progressing", ROLLOUT).await;
    let before = users.tally();
    let failures = gateway.failures().await;
    assert_eq!(before.failed, [], "of {} requests\n{failures}\n{}", before.finished, gateway.said());
    gateway.replace_controller().await;
    gateway.until_phase("Failed", ROLLOUT).await;
    let failed = users.tally().failed.len();
    let tally = users.stop(Duration::from_secs(5)).await;
    assert!(failed > 0 && tally.failed.len() < failed + 5, "{failed} of {} failed, then more", tally.finished);
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, ["wingbeat.test/web:1.4.1"]);
    gateway.assert_allowed();
}

/// At rest nothing is called but the Lease, which is renewed every two seconds.
#[tokio::test]
async fn real_kubernetes_at_rest_nothing_is_called() {
    const REST: Duration = Duration::from_secs(10);
    let Some(gateway) = Gateway::start_alone("real_kubernetes_at_rest_nothing_is_called").await else { return };
    gateway.until("it is at rest", "deployment/backend", "{.spec.replicas}", "0").await;
    gateway.until_quiet().await;
    let before = gateway.audit();
    tokio::time::sleep(REST).await;
    let calls = gateway.audit().since(&before);
    let ours = calls.calls().iter().filter(|(call, _)| call.user_agent.starts_with("wingbeat/"));
    let (leases, others): (Vec<_>, Vec<_>) = ours.partition(|(call, _)| call.resource == "leases");
    assert!(others.is_empty(), "{others:?}");
    let renewals: u64 = leases.iter().map(|(_, count)| **count).sum();
    assert!((3..=7).contains(&renewals), "{leases:?}");
    gateway.assert_allowed();
}

/// What is deployed is what this API server takes, the definitions included.
#[tokio::test]
async fn real_kubernetes_what_is_deployed_is_accepted() {
    let Some(cluster) = Cluster::for_test("real_kubernetes_what_is_deployed_is_accepted").await.expect("a cluster")
    else {
        return;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kustomize");
    cluster.kubectl(&["create", "namespace", "wingbeat"]).await.expect("a namespace");
    let applied = cluster.kubectl(&["apply", "--dry-run=server", "--kustomize", folder]).await.expect("it is accepted");
    for object in ["deployment.apps/wingbeat", "service/wingbeat", "canaries.wingbeat.dev", "clusterrole"] {
        assert!(applied.contains(object), "{object} is missing in:\n{applied}");
    }
}
