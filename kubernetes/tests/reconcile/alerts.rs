//! AlertProviders whose address is in a Secret.

use serde_json::{Value, json};
use wingbeat_api::alert_provider::Channel;
use wingbeat_kubernetes::world::Kind;

use crate::api_server::merge;
use crate::cluster::{Cluster, name};

/// `https://hooks.slack.com/x` and another one, with an end of line as `echo` writes it.
const ADDRESSES: [&str; 2] = ["aHR0cHM6Ly9ob29rcy5zbGFjay5jb20veA==", "aHR0cHM6Ly9ob29rcy5zbGFjay5jb20veQo="];

fn put_secret(cluster: &mut Cluster, data: &Value) {
    cluster.api.edit_in("ops", Kind::Secret, "slack", |it| {
        merge(it, &json!({"type": "Opaque"}));
        it["data"] = data.clone();
    });
}

fn alerted() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.api.edit_in("ops", Kind::AlertProvider, "on-call", |it| {
        merge(
            it,
            &json!({
                "apiVersion": "wingbeat.dev/v1alpha1", "kind": "AlertProvider",
                "spec": {"type": "slack", "channel": "on-call", "secretRef": {"name": "slack"}},
            }),
        );
    });
    cluster.create();
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["analysis"]["alerts"] =
            json!([{"name": "on-call", "severity": "error", "providerRef": {"name": "on-call", "namespace": "ops"}}]);
    });
    cluster
}

fn channels(cluster: &Cluster) -> Vec<(String, Option<String>)> {
    let config = cluster.engine.config(&name()).unwrap();
    config.alerts.iter().map(|Channel { url, token, .. }| (url.clone(), token.clone())).collect()
}

#[test]
fn the_address_of_a_channel_may_be_in_a_secret() {
    let mut cluster = alerted();
    put_secret(&mut cluster, &json!({"address": ADDRESSES[0], "token": "dA=="}));
    cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    let url = "https://hooks.slack.com/x".to_owned();
    assert_eq!(channels(&cluster), [(url.clone(), Some("t".to_owned()))]);
    // One that is changed is read again, also by whoever restarts.
    put_secret(&mut cluster, &json!({"address": ADDRESSES[1]}));
    cluster.run(5);
    let other = [("https://hooks.slack.com/y".to_owned(), None)];
    assert_eq!(channels(&cluster), other);
    cluster.restart();
    cluster.run(5);
    assert_eq!(channels(&cluster), other);
    // Where it is deleted, nobody is alerted any more.
    cluster.api.delete_in("ops", Kind::Secret, "slack");
    cluster.run(5);
    assert_eq!(channels(&cluster), []);
}

#[test]
fn a_secret_that_is_of_no_use_is_told_and_rollouts_go_on() {
    for (data, why) in [
        (None, "is not there, make it"),
        (Some(json!({"token": "dA=="})), "has no address in its data, add where messages are posted"),
        (Some(json!({"address": "czNjcjN0"})), "has an address that is no URL of http or https, mend it"),
    ] {
        let mut cluster = alerted();
        if let Some(data) = data {
            put_secret(&mut cluster, &data);
        }
        cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
        let problem = format!("AlertProvider on-call.ops gets no alerts: Secret slack.ops {why}");
        assert!(cluster.api.texts().contains(&problem.as_str()), "{:?}", cluster.api.texts());
        let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
        let accepted = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Accepted").unwrap();
        assert_eq!(accepted["message"], json!(problem));
        cluster.set_image("app:2");
        cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
        put_secret(&mut cluster, &json!({"address": ADDRESSES[0]}));
        cluster.run(5);
        assert_eq!(channels(&cluster).len(), 1);
        let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
        let accepted = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Accepted").unwrap();
        assert_eq!(accepted["status"], json!("True"), "{accepted}");
    }
}
