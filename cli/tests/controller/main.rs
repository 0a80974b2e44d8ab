//! `wingbeat controller` in a real Kubernetes: a Deployment rolls out behind a real Envoy.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod gateway;

use std::time::Duration;

use gateway::{Gateway, PROGRAM};

/// Time in which a rollout of ten steps of half a second comes to its end, on a busy machine, too.
const ROLLOUT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn real_kubernetes_a_deployment_rolls_out_behind_an_envoy() {
    let Some(gateway) = Gateway::start("real_kubernetes_a_deployment_rolls_out_behind_an_envoy").await else { return };
    let users = gateway.users();
    // A good release.
    gateway.kubectl(&["set", "image", "deployment/backend", "web=wingbeat.test/web:1.4.1"]).await;
    gateway.until_phase("Progressing", ROLLOUT).await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let image = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, ["wingbeat.test/web:1.4.1"]);
    let tally = users.tally();
    assert_eq!(tally.failed, [], "of {} requests\n{}", tally.finished, gateway.said());
    // A bad one, which is ready and fails everything.
    gateway.kubectl(&["set", "env", "deployment/backend", "STATUS=500"]).await;
    gateway.until_phase("Failed", ROLLOUT).await;
    let failed = users.tally().failed.len();
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed.len(), failed, "nobody failed after that");
    assert!(failed > 0 && failed < 100, "{failed} of {} requests failed", tally.finished);
    let events = gateway.kubectl(&["get", "events.events.k8s.io", "--output=jsonpath={range .items[*]}{.note}\n{end}"]).await;
    for text in [
        "Initialization done! backend.",
        "New revision detected! Scaling up backend.",
        "Advance backend.prod canary weight 50",
        "Copying backend.",
        "Promotion completed! Scaling down backend.",
        "Rolling back backend.",
        "Canary failed! Scaling down backend.",
    ] {
        let text = text.replace(".prod", &format!(".{}", gateway.namespace()));
        assert!(events.contains(&text), "{text} is missing in:\n{events}");
    }
    assert!(!PROGRAM.is_empty());
}
