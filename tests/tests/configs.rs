//! ConfigMaps and Secrets in a real Kubernetes: a change of one is rolled out.
#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use wingbeat_e2e::gateway::Gateway;

/// Time in which a rollout of ten steps of half a second comes to its end, on a busy machine, too.
const ROLLOUT: Duration = Duration::from_mins(2);
/// Time from the change of a ConfigMap to the rollout.
const REACTION: Duration = Duration::from_secs(1);

#[tokio::test]
async fn real_kubernetes_a_config_map_rolls_out() {
    let Some(gateway) = Gateway::start("real_kubernetes_a_config_map_rolls_out").await else { return };
    let users = gateway.users();
    // The Pods read both when they start; the certificate is of a type that asks for fields.
    gateway
        .kubectl(&[
            "create",
            "configmap",
            "settings",
            "--from-literal=version=one",
            "--from-literal=other=1 < 2 & \u{e9}",
        ])
        .await;
    gateway.kubectl(&["create", "secret", "generic", "token", "--from-literal=TOKEN=s3cr3t-value"]).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{
        "name": "web",
        "env": [{"name": "VERSION", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "version"}}}],
        "envFrom": [{"secretRef": {"name": "token"}}],
    }]}}}});
    gateway.kubectl(&["patch", "deployment/backend", "--patch", &patch.to_string()]).await;
    gateway.until_phase("Progressing", ROLLOUT).await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    copies_are_equal(&gateway).await;
    assert!(gateway.answer("/version").await.ends_with("one"));
    // Nothing but the ConfigMap, and of that, a key of each kind.
    gateway.until_quiet().await;
    let (before, said) = (gateway.audit(), gateway.said().len());
    let patch = json!({"data": {"version": "two"}, "binaryData": {"logo": "AP8B"}});
    gateway.kubectl(&["patch", "configmap/settings", "--type=merge", "--patch", &patch.to_string()]).await;
    let changed = Instant::now();
    gateway.until_said(said, "New revision detected! Scaling up").await;
    let reaction = changed.elapsed();
    assert!(reaction < REACTION, "{reaction:?}");
    gateway.until_phase("Progressing", ROLLOUT).await;
    let copied = gateway.words("configmap/settings-primary", "{.data.version}").await;
    assert_eq!(copied, ["one"], "the primary's are as they were");
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    copies_are_equal(&gateway).await;
    assert!(gateway.answer("/version").await.ends_with("two"));
    let calls = gateway.audit().since(&before);
    let reads = calls.calls().iter().filter(|(call, _)| call.user_agent.starts_with("wingbeat/") && call.verb == "get");
    let reads: Vec<(&str, u64)> = reads.map(|(call, count)| (call.resource.as_str(), *count)).collect();
    println!("reaction {reaction:?}, reads {reads:?}");
    assert!(reads.iter().all(|(resource, _)| *resource != "secrets"), "no Secret was different: {reads:?}");
    let tally = users.stop(Duration::from_secs(5)).await;
    let failures = gateway.failures().await;
    assert_eq!(tally.failed, [], "of {} requests\n{failures}\n{}", tally.finished, gateway.said());
    // What is in a Secret is in the Secret and its copy, and nowhere else.
    let stored = gateway.kubectl(&["get", "canarystates,canaries.wingbeat.dev", "--output=json"]).await;
    for secret in ["s3cr3t-value", "czNjcjN0LXZhbHVl"] {
        assert!(!gateway.said().contains(secret) && !stored.contains(secret));
    }
}

async fn copies_are_equal(gateway: &Gateway) {
    for (object, copy) in
        [("configmap/settings", "configmap/settings-primary"), ("secret/token", "secret/token-primary")]
    {
        let data = async |object: &str| -> Value {
            let printed = gateway.kubectl(&["get", object, "--output=json"]).await;
            let object: Value = serde_json::from_str(&printed).expect("JSON");
            json!({"data": object.get("data"), "binaryData": object.get("binaryData"), "type": object.get("type")})
        };
        assert_eq!(data(object).await, data(copy).await, "{copy}");
    }
}
