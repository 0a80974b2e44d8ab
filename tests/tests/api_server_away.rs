//! The API server, or the etcd behind it, is away in the midst of a rollout in a real Kubernetes.
#![expect(clippy::expect_used, reason = "tests")]

use std::io::Write as _;
use std::time::Duration;

use wingbeat_e2e::etcd_away::{Away, analysis, breaks};
use wingbeat_e2e::gateway::Gateway;
use wingbeat_e2e::kills::RATE;
use wingbeat_test_cluster::Cluster;

/// For how long etcd is away: longer than what a leader is permitted without renewing its Lease.
const AWAY: Duration = Duration::from_secs(20);
/// In which a canary that breaks is out of Envoy: a second (`kube-kill` holds it to that), and one to spare for a busy machine.
const OUT: Duration = Duration::from_secs(2);
/// Where the phase is.
const PHASE: &str = "{.status.phase}";
const CANARY: &str = "canaries.wingbeat.dev/backend";

#[tokio::test]
async fn real_kubernetes_an_api_server_that_is_restarted_disturbs_no_rollout() {
    let test = "real_kubernetes_an_api_server_that_is_restarted_disturbs_no_rollout";
    let Some(gateway) = Gateway::start_alone(test).await else { return };
    let users = gateway.users_at(RATE);
    let before = gateway.events().await;
    let said = gateway.said().len();
    gateway.kubectl(&["set", "image", "deployment/backend", "web=wingbeat.test/web:good"]).await;
    gateway.until_said(said, "canary weight 10").await;
    let (killed, ready) = restart(&gateway).await;
    gateway.until_after_all("it is promoted", CANARY, PHASE, "Succeeded").await;
    gateway.until_after_all("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, ["wingbeat.test/web:good"]);
    gateway.assert_tidy(&before).await;
    gateway.assert_allowed_between(0, killed);
    let failures = gateway.failures().await;
    assert_eq!(users.tally().failed, [], "of {}\n{failures}\n{}", users.tally().finished, gateway.said());
    let said = gateway.said().len();
    gateway.kubectl(&["set", "env", "deployment/backend", "STATUS=500"]).await;
    gateway.until_said(said, "Starting canary analysis").await;
    gateway.assert_allowed_between(ready, gateway.audit_end());
    let (_, ready) = restart(&gateway).await;
    gateway.until_after_all("it is rolled back", CANARY, PHASE, "Failed").await;
    let failed = users.tally().failed.len();
    gateway.until_after_all("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert!(failed > 0 && tally.failed.len() == failed, "{failed} of {} failed, then more", tally.finished);
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].env[*].name}").await;
    assert!(!image.contains(&"STATUS".to_owned()), "{image:?}");
    gateway.assert_allowed_between(ready, u64::MAX);
}

/// Restarts the API server. Returns where the audit log ended when it was killed, and when it was ready.
async fn restart(gateway: &Gateway) -> (u64, u64) {
    let killed = gateway.audit_end();
    gateway.cluster().restart_api_server(&[]).await.expect("it is restarted");
    (killed, gateway.audit_end())
}

async fn breaks_while_etcd_is(test: &str, how: Away) {
    let Some(cluster) = Cluster::for_test_alone(test).await.expect("a cluster") else { return };
    let gateway = Gateway::begin(cluster, test, analysis()).await;
    gateway.until_phase("Initialized", Duration::from_mins(2)).await;
    let outcome = breaks(&gateway, how, AWAY, "bad").await;
    let _nobody_reads = writeln!(std::io::stderr(), "{how:?}: {outcome:?}");
    assert!(outcome.out < OUT && outcome.failed_afterwards == 0, "{outcome:?}\n{}", gateway.said());
}

#[tokio::test]
async fn real_kubernetes_a_canary_that_breaks_is_out_while_etcd_is_paused() {
    breaks_while_etcd_is("real_kubernetes_a_canary_that_breaks_is_out_while_etcd_is_paused", Away::Paused).await;
}

#[tokio::test]
async fn real_kubernetes_a_canary_that_breaks_is_out_while_etcd_is_killed() {
    breaks_while_etcd_is("real_kubernetes_a_canary_that_breaks_is_out_while_etcd_is_killed", Away::Killed).await;
}
