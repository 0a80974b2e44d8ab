//! Pods that do not become ready, and what people are told of them.

use serde_json::{Value, json};
use wingbeat_kubernetes::world::Kind;

use crate::cluster::Cluster;

fn ready(cluster: &Cluster) -> (Value, Value, String) {
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    let ready = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Ready").unwrap();
    (ready["status"].clone(), ready["reason"].clone(), ready["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn why_a_revision_is_not_ready_is_in_its_condition_and_in_the_reason_of_its_failure() {
    let mut cluster = Cluster::initialized();
    assert_eq!(ready(&cluster).0, json!("True"));
    cluster.set_image("app:never");
    cluster.run(40);
    assert_eq!((cluster.api.lists, ready(&cluster).0), (0, json!("True")), "a Pod may take some seconds");
    cluster.run(30);
    let (status, reason, message) = ready(&cluster);
    assert_eq!((status, reason), (json!("False"), json!("TargetNotReady")));
    let pulled = "container c of Pod b ImagePullBackOff: Back-off pulling image \"app:never\", attempt 1";
    assert_eq!(
        message,
        format!(
            "Deployment backend: waiting for rollout to finish: 0 of 2 (readyThreshold 100%) updated replicas are available: \
             {pulled}."
        )
    );
    cluster.run_until(700, |it| it.phase() == "Failed");
    let rolled_back = cluster.api.texts().into_iter().find(|text| text.starts_with("Rolling back")).unwrap();
    assert!(rolled_back.contains("progress deadline exceeded") && rolled_back.ends_with(pulled), "{rolled_back}");
    let told =
        cluster.api.texts().iter().filter(|text| text.contains("not ready") && text.contains("Back-off")).count();
    assert_eq!(told, 1, "a message that counts is no news");
    assert!(cluster.api.lists <= 5, "{}", cluster.api.lists);
    cluster.run_until(100, |it| it.replicas("backend") == 0);
    cluster.run(20);
    assert_eq!(ready(&cluster).0, json!("True"));
}

#[test]
fn what_stays_unready_is_looked_at_seldom() {
    let mut cluster = Cluster::initialized();
    cluster.skips_checks = true;
    cluster.api.is_broken = Some("backend-primary".to_owned());
    cluster.run(100);
    assert_eq!(ready(&cluster).1, json!("PrimaryNotReady"));
    let lists = cluster.api.lists;
    // An hour.
    cluster.run(36_000);
    assert!(cluster.api.lists - lists <= 20, "{}", cluster.api.lists);
    cluster.api.is_broken = None;
    cluster.run(20);
    assert_eq!(ready(&cluster).0, json!("True"));
}

#[test]
fn a_target_that_nobody_waits_for_is_not_looked_at() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    // Somebody scales it at rest, and it does not become ready.
    cluster.api.is_broken = Some("backend".to_owned());
    cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(2));
    cluster.run(200);
    assert_eq!((cluster.api.lists, ready(&cluster).0), (0, json!("True")));
}
