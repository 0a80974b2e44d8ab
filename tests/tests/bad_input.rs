//! What people do to the objects of a controller in a real Kubernetes: a CanaryState is deleted or edited, definitions are not
//! installed, a namespace is deleted.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wingbeat_e2e::gateway::{Controller, Gateway, Log, Pod, Role, enter, objects, quick};
use wingbeat_e2e::kills::RATE;
use wingbeat_e2e::takeover::{begin, end};
use wingbeat_test_cluster::Cluster;

/// Time for a rollout of ten steps of half a second, in which something is in the way.
const ROLLOUT: Duration = Duration::from_mins(2);
/// Time for something to be told.
const TOLD: Duration = Duration::from_secs(30);

#[tokio::test]
async fn real_kubernetes_a_canary_state_that_is_deleted_is_made_anew() {
    let test = "real_kubernetes_a_canary_state_that_is_deleted_is_made_anew";
    let Some(gateway) = Gateway::start(test).await else { return };
    let users = gateway.users_at(RATE);
    let before = gateway.events().await;
    begin(&gateway, "deleted").await;
    gateway.kubectl(&["delete", "canarystates/backend"]).await;
    end(&gateway, "deleted").await;
    gateway.assert_whole(&before).await;
    let record =
        gateway.kubectl(&["get", "canarystates/backend", "--output=jsonpath={.status.promoted.template}"]).await;
    assert!(record.contains("wingbeat.test/web:deleted"), "what served is kept: {record}");
    let failures = gateway.failures().await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{failures}\n{}", tally.finished, gateway.said());
}

/// What it cannot read, it leaves alone and says so; once that is deleted, it goes on.
#[tokio::test]
async fn real_kubernetes_a_canary_state_that_is_edited_is_left_alone_until_it_is_deleted() {
    let test = "real_kubernetes_a_canary_state_that_is_edited_is_left_alone_until_it_is_deleted";
    let Some(cluster) = Cluster::for_test(test).await.expect("a cluster") else { return };
    // The names of namespaces have 63 bytes at most.
    let gateway = Gateway::start_in(cluster, "a-canary-state-that-is-edited").await;
    let users = gateway.users_at(RATE);
    begin(&gateway, "edited").await;
    let edit = json!({"status": {"record": "mine"}}).to_string();
    let edit = ["patch", "canarystates/backend", "--subresource=status", "--type=merge", "--patch", &edit];
    gateway.kubectl(&edit).await;
    let refused = r#"{.status.conditions[?(@.type=="Accepted")].status}"#;
    gateway.until_within("it is told", "canaries.wingbeat.dev/backend", refused, "False", TOLD).await;
    let message = r#"{.status.conditions[?(@.type=="Accepted")].message}"#;
    let message =
        gateway.kubectl(&["get", "canaries.wingbeat.dev/backend", &format!("--output=jsonpath={message}")]).await;
    assert!(message.contains("CanaryState") && message.contains("delete it"), "{message}");
    gateway.kubectl(&["delete", "canarystates/backend"]).await;
    end(&gateway, "edited").await;
    gateway.until_within("it is right again", "canaries.wingbeat.dev/backend", refused, "True", TOLD).await;
    gateway.assert_allowed();
    let failures = gateway.failures().await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{failures}\n{}", tally.finished, gateway.said());
}

/// Without Flagger's definitions, Canaries of ours are served; without ours, it says what to do, and goes on once they are there.
#[tokio::test]
async fn real_kubernetes_definitions_that_are_missing_are_told_and_awaited() {
    let test = "real_kubernetes_definitions_that_are_missing_are_told_and_awaited";
    let Some(cluster) = Cluster::for_test_alone(test).await.expect("a cluster") else { return };
    enter(&cluster).await;
    let role = Role { flags: vec!["--flagger-api".to_owned()], ..Role::of_test("definitions-that-are-missing") };
    objects::install_role(&cluster, &role).await;
    let log = Log::default();
    let controller = Controller::start(&cluster, &role, Pod::make(), &log).await;
    let pod = controller.pod().clone();
    let is_told = async || {
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        while !log.read().contains("wingbeat crds") {
            poll.tick().await;
        }
    };
    tokio::time::timeout(TOLD, is_told()).await.unwrap_or_else(|_| panic!("it is not told:\n{}", log.read()));
    let health = pod.answer("/healthz").await.expect("it lives");
    let ready = pod.answer("/readyz").await.expect("it answers");
    assert!(health.starts_with("HTTP/1.1 200") && ready.starts_with("HTTP/1.1 503"), "{health}\n{ready}");
    objects::install(&cluster, &[]).await;
    let gateway = Gateway::of(cluster, role, controller, log, quick()).await;
    gateway.until_phase("Initialized", ROLLOUT).await;
    assert!(gateway.said().contains("canaries.flagger.app are not defined"), "{}", gateway.said());
    let users = gateway.users_at(RATE);
    begin(&gateway, "awaited").await;
    end(&gateway, "awaited").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{}", tally.finished, gateway.said());
    gateway.assert_allowed();
}

/// What is in it goes with it, and Canaries elsewhere do not notice.
#[tokio::test]
async fn real_kubernetes_a_namespace_that_is_deleted_in_a_rollout_disturbs_no_other() {
    const DOOMED: &str = "doomed";
    let test = "real_kubernetes_a_namespace_that_is_deleted_in_a_rollout_disturbs_no_other";
    let Some(cluster) = Cluster::for_test_alone(test).await.expect("a cluster") else { return };
    enter(&cluster).await;
    objects::install(&cluster, &[]).await;
    let role = Role { scope: None, ..Role::of_test("survivor") };
    objects::install_role(&cluster, &role).await;
    let log = Log::default();
    let controller = Controller::start(&cluster, &role, Pod::make(), &log).await;
    let gateway = Gateway::of(Arc::clone(&cluster), role, controller, log, quick()).await;
    gateway.until_phase("Initialized", ROLLOUT).await;
    cluster.kubectl(&["create", "namespace", DOOMED]).await.expect("a namespace");
    let items = [objects::deployment(DOOMED), objects::canary(DOOMED, &quick(), gateway.namespace())];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    cluster.apply(&list.to_string()).await.expect("objects are created");
    let wait = ["--namespace", DOOMED, "wait", "canaries.wingbeat.dev/backend", "--timeout=120s"];
    let initialized = [&wait[..], &["--for=jsonpath={.status.phase}=Initialized"]].concat();
    cluster.kubectl(&initialized).await.unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.said()));
    let users = gateway.users_at(RATE);
    let before = gateway.events().await;
    let said = gateway.said().len();
    cluster
        .kubectl(&["--namespace", DOOMED, "set", "image", "deployment/backend", "web=wingbeat.test/web:doomed"])
        .await
        .expect("it is changed");
    // Nobody asks it for anything, so that it stays there.
    gateway.until_said(said, "Advance backend.doomed canary weight 5").await;
    begin(&gateway, "survivor").await;
    let audit = gateway.audit_end();
    cluster.kubectl(&["delete", "namespace", DOOMED, "--timeout=60s"]).await.expect("it is gone within a minute");
    let gone = gateway.audit_end();
    end(&gateway, "survivor").await;
    gateway.until_quiet().await;
    gateway.assert_whole(&before).await;
    let of_doomed = |from: u64| {
        let log = gateway.audit_log(from);
        let is_ours = |line: &&str| line.contains("\"userAgent\":\"wingbeat/") && line.contains(DOOMED);
        let is_answer =
            |line: &&str| line.contains("\"stage\":\"ResponseComplete\"") && !line.contains("\"verb\":\"watch\"");
        log.lines().filter(is_ours).filter(is_answer).map(str::to_owned).collect::<Vec<String>>()
    };
    let while_it_goes = of_doomed(audit);
    let afterwards = of_doomed(gone);
    let said = gateway.said();
    assert!(while_it_goes.len() < 40, "calls for what is being deleted: {while_it_goes:#?}\n{said}");
    assert!(afterwards.len() < 5, "calls for what is gone: {afterwards:#?}\n{}", gateway.said());
    let failures = gateway.failures().await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{failures}\n{}", tally.finished, gateway.said());
}
