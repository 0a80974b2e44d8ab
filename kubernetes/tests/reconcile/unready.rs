//! Pods that do not become ready, and what people are told of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wingbeat_kubernetes::world::Kind;
use wingbeat_xds_server::client_event::{ClientEventKind, Nack};
use wingbeat_xds_server::kind::Kind as ResourceKind;

use crate::cluster::Cluster;

fn condition(cluster: &Cluster, kind: &str) -> Option<Value> {
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    conditions.as_array().unwrap().iter().find(|it| it["type"] == kind).cloned()
}

fn ready(cluster: &Cluster) -> (Value, Value, String) {
    let ready = condition(cluster, "Ready").unwrap();
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

#[test]
fn a_restart_does_not_say_ready_before_it_knows() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:never");
    cluster.run(100);
    let since = |cluster: &Cluster| condition(cluster, "Ready").unwrap()["lastTransitionTime"].clone();
    let (before, began) = (ready(&cluster), since(&cluster));
    assert!(before.0 == json!("False") && before.2.contains("ImagePullBackOff"), "{before:?}");
    cluster.restart();
    for _ in 0..100 {
        cluster.round();
        let now = ready(&cluster);
        assert_eq!((&now.1, since(&cluster)), (&before.1, began.clone()));
        assert!(now.2.contains("ImagePullBackOff"), "{now:?}");
    }
}

/// An Envoy that refuses the routes of the canary's host, or has them as they are.
fn refuses(cluster: &mut Cluster, is_refused: bool) {
    let hosts: BTreeSet<String> = is_refused.then(|| "prod/backend".to_owned()).into_iter().collect();
    if is_refused {
        let culprits = Some(hosts.iter().cloned().collect());
        let names = vec!["public".to_owned()];
        let error = "no".to_owned();
        cluster.envoy(ClientEventKind::Refused(Nack { kind: ResourceKind::Routes, names, culprits, error }));
    }
    cluster.envoy(ClientEventKind::Refuses(ResourceKind::Routes, hosts));
}

#[test]
fn what_keeps_routes_from_proxies_is_a_condition_once_it_lasts() {
    let mut cluster = Cluster::initialized();
    refuses(&mut cluster, true);
    cluster.run(20);
    refuses(&mut cluster, false);
    cluster.run(60);
    assert_eq!(condition(&cluster, "Programmed"), None, "it was over before it was written");
    refuses(&mut cluster, true);
    cluster.run(60);
    let shown = condition(&cluster, "Programmed").unwrap();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("False"), &json!("Refused")));
    assert_eq!(
        shown["message"],
        json!("Envoy edge-1 refuses routes (prod/backend) and goes on with the last good ones: no")
    );
    // A new process is told so by the Envoy, which is back half a minute later.
    cluster.restart();
    cluster.envoy(ClientEventKind::Left);
    for round in 0..900 {
        if round == 300 {
            cluster.connect();
            refuses(&mut cluster, true);
        }
        cluster.round();
        assert_eq!(condition(&cluster, "Programmed"), Some(shown.clone()), "nothing is written meanwhile");
    }
    refuses(&mut cluster, false);
    cluster.run(3);
    assert_eq!(condition(&cluster, "Programmed"), None);
}

#[test]
fn that_there_is_no_envoy_is_a_condition_after_a_minute() {
    let mut cluster = Cluster::initialized();
    cluster.envoy(ClientEventKind::Left);
    cluster.run(590);
    assert_eq!(condition(&cluster, "Connected"), None, "it may come back");
    cluster.run(30);
    assert_eq!(condition(&cluster, "Connected").unwrap()["reason"], json!("NoProxies"));
    cluster.connect();
    cluster.run(30);
    assert_eq!(condition(&cluster, "Connected"), None);
}

#[test]
fn restarts_put_a_deadline_off_by_seconds_at_most() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:never");
    let began = cluster.rounds;
    for _ in 0..7 {
        // The first one comes before it is stored since when it waits.
        cluster.run(if cluster.rounds == began { 30 } else { 100 });
        cluster.restart();
    }
    cluster.run_until(60, |it| it.phase() == "Failed");
    assert!(cluster.api.texts().iter().any(|text| text.contains("progress deadline exceeded")));
}
