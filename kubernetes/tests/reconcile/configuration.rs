//! What a Canary says, and what comes of it where something is wrong.

use serde_json::{Value, json};
use wingbeat_kubernetes::reconcile::Reconciler;
use wingbeat_kubernetes::world::{Kind, ObjectKey};

use crate::api_server::merge;
use crate::cluster::{Cluster, canary, name, target};

fn condition(cluster: &Cluster, name: &str, kind: &str) -> Value {
    let all = cluster.api.at(Kind::Canary, name, "/status/conditions");
    all.as_array().unwrap().iter().find(|it| it["type"] == kind).cloned().unwrap_or_default()
}

#[test]
fn without_a_target_nothing_begins_and_with_one_it_does() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Canary, "backend", |it| merge(it, &canary()));
    cluster.run(3);
    let accepted = condition(&cluster, "backend", "Accepted");
    let text = "spec.targetRef.name: there is no Deployment backend, make it";
    assert_eq!((&accepted["status"], &accepted["message"]), (&json!("False"), &json!(text)));
    assert_eq!(cluster.api.texts(), [text]);
    assert_eq!(cluster.phase(), "Initializing");
    cluster.api.edit(Kind::Deployment, "backend", |it| merge(it, &target("app:1")));
    cluster.run_until(100, |it| it.phase() == "Initialized");
    assert_eq!(condition(&cluster, "backend", "Accepted")["status"], json!("True"));
}

#[test]
fn a_refused_edit_keeps_the_spec_before_also_across_a_restart() {
    let mut cluster = Cluster::initialized();
    cluster.run(5);
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["analysis"]["stepWeight"] = json!(25);
        it["spec"]["analysis"]["webhooks"] = json!([{"name": "gate", "type": "pre-flight", "url": "http://gate/"}]);
    });
    for restarts in [false, true] {
        if restarts {
            cluster.restart();
        }
        cluster.run(5);
        let accepted = condition(&cluster, "backend", "Accepted");
        assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("KeepsFormerSpec")));
        assert!(accepted["message"].as_str().unwrap().starts_with("spec.analysis.webhooks[0].type: there is no type"));
        let status = cluster.api.at(Kind::Canary, "backend", "/status");
        assert_eq!((&status["observedGeneration"], &status["phase"]), (&json!(1), &json!("Initialized")));
        assert!(cluster.split().is_some(), "it is served");
    }
    cluster.set_image("app:2");
    cluster.run_until(100, |it| it.weight() > 0);
    assert_eq!(cluster.weight(), 10, "by the former spec");
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["analysis"]["webhooks"] = json!([]));
    cluster.run(5);
    assert_eq!(cluster.api.at(Kind::Canary, "backend", "/status/observedGeneration"), json!(3));
}

#[test]
fn of_two_canaries_with_one_target_the_older_one_has_it() {
    let mut cluster = Cluster::initialized();
    let mut other = canary();
    other["metadata"]["name"] = json!("another");
    cluster.api.edit(Kind::Canary, "another", |it| merge(it, &other));
    for restarts in [false, true] {
        if restarts {
            cluster.restart();
        }
        cluster.run(5);
        let accepted = condition(&cluster, "another", "Accepted");
        let message = accepted["message"].as_str().unwrap();
        assert!(message.contains("backend.prod has the same target"), "{message}");
        assert_eq!(condition(&cluster, "backend", "Accepted")["status"], json!("True"));
    }
    cluster.api.delete_by_force(Kind::Canary, "backend");
    // What it owned goes with it.
    for (kind, name) in [
        (Kind::CanaryState, "backend"),
        (Kind::Deployment, "backend-primary"),
        (Kind::Service, "backend"),
        (Kind::Service, "backend-primary"),
        (Kind::Service, "backend-canary"),
    ] {
        cluster.api.delete(kind, name);
    }
    cluster.run(3);
    assert!(!cluster.hosts.contains_key("prod\0backend"), "its routes go");
    assert_eq!(condition(&cluster, "another", "Accepted")["status"], json!("True"), "it is free");
}

#[test]
fn a_listener_is_named_by_the_spec_or_by_an_annotation_or_is_a_default() {
    let listener = |port: u16| {
        json!({
            "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "spec": {"address": "0.0.0.0", "port": port},
        })
    };
    let mut cluster = Cluster::initialized();
    cluster.api.edit(Kind::Listener, "inner", |it| merge(it, &listener(8081)));
    cluster.api.edit(Kind::Listener, "other", |it| merge(it, &listener(8082)));
    let listeners = |cluster: &Cluster| cluster.hosts["prod\0backend"].listeners.clone();
    cluster.run(3);
    assert_eq!(listeners(&cluster), ["public"]);
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["metadata"]["annotations"] = json!({"wingbeat.dev/listeners": "other, inner"});
    });
    cluster.run(3);
    assert_eq!(listeners(&cluster), ["inner", "other"]);
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["service"]["listeners"] = json!(["inner"]));
    cluster.run(3);
    assert_eq!(listeners(&cluster), ["inner"]);
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["service"]["listeners"] = json!(["gone"]));
    cluster.run(3);
    assert_eq!(listeners(&cluster), ["inner"]);
    let accepted = condition(&cluster, "backend", "Accepted");
    let text = "spec.service.listeners: there is no Listener gone, add it or name another";
    assert_eq!(accepted["message"], json!(text));
}

#[test]
fn what_a_canary_names_is_waited_for() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Deployment, "backend", |it| merge(it, &target("app:1")));
    let mut with_template = canary();
    with_template["spec"]["analysis"]["metrics"] =
        json!([{"name": "queue", "templateRef": {"name": "queue"}, "thresholdRange": {"max": 5}, "interval": "1m"}]);
    cluster.api.edit(Kind::Canary, "backend", |it| merge(it, &with_template));
    cluster.run(3);
    let accepted = condition(&cluster, "backend", "Accepted");
    assert_eq!(accepted["message"], json!("there is no MetricTemplate queue.prod, add it or name another"));
    let template = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "MetricTemplate",
        "spec": {"provider": {"type": "prometheus", "address": "http://prometheus:9090"}, "query": "sum(queue)"},
    });
    cluster.api.edit(Kind::MetricTemplate, "queue", |it| merge(it, &template));
    cluster.run_until(100, |it| it.phase() == "Initialized");
}

#[test]
fn a_service_of_another_controller_is_in_the_way() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Service, "backend-canary", |it| {
        it["kind"] = json!("Service");
        it["metadata"]["ownerReferences"] = json!([{"kind": "App", "name": "shop", "uid": "x", "controller": true}]);
        it["spec"]["selector"] = json!({"app": "backend"});
    });
    cluster.create();
    cluster.run(5);
    let accepted = condition(&cluster, "backend", "Accepted");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("Service backend-canary.prod belongs to App shop"), "{message}");
    assert!(!cluster.api.log.iter().any(|it| it.contains("Deployment")), "{:?}", cluster.api.log);
}

#[test]
fn a_canary_that_is_gone_leaves_nothing_behind() {
    let mut cluster = Cluster::initialized();
    cluster.api.delete_by_force(Kind::Canary, "backend");
    cluster.run(2);
    let mut empty = Reconciler::default();
    empty.delete(&ObjectKey::new(Kind::Canary, "prod", &name().name));
    assert!(empty.poll(cluster.now).writes.is_empty());
    assert_eq!(cluster.due, None);
}

#[test]
fn a_canary_that_is_made_anew_begins_anew() {
    for at_once in [false, true] {
        let mut cluster = Cluster::initialized();
        cluster.set_image("app:2");
        cluster.errors = 10;
        cluster.run_until(400, |it| it.phase() == "Failed");
        cluster.run(100);
        cluster.api.delete_by_force(Kind::Canary, "backend");
        // What it owned goes with it: at once, or a moment later.
        if !at_once {
            cluster.run(3);
            assert!(cluster.split().is_none(), "its routes go");
        }
        cluster.errors = 0;
        cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(2));
        cluster.api.edit(Kind::Canary, "backend", |it| merge(it, &canary()));
        cluster.run(1);
        cluster.api.delete(Kind::Deployment, "backend-primary");
        for service in ["backend", "backend-primary", "backend-canary"] {
            cluster.api.delete(Kind::Service, service);
        }
        cluster.api.delete(Kind::CanaryState, "backend");
        cluster.run_until(200, |it| it.phase() == "Initialized" && it.image("backend-primary") == "app:2");
        cluster.set_image("app:3");
        cluster.run_until(2_000, |it| it.phase() == "Succeeded" && it.image("backend-primary") == "app:3");
    }
}

#[test]
fn what_has_the_primarys_name_and_is_somebody_elses_is_left_alone() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Deployment, "backend-primary", |it| {
        merge(it, &target("other:1"));
        it["metadata"]["name"] = json!("backend-primary");
        it["metadata"]["ownerReferences"] =
            json!([{"kind": "Release", "name": "other", "uid": "other", "controller": true}]);
    });
    cluster.create();
    cluster.run(50);
    assert_eq!((cluster.image("backend-primary"), cluster.phase()), ("other:1".into(), "Initializing".into()));
    assert!(cluster.split().is_none(), "nothing is routed");
    let accepted = condition(&cluster, "backend", "Accepted");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.starts_with("Deployment backend-primary.prod belongs to Release other"), "{message}");
}

#[test]
fn a_spec_that_is_refused_changes_nothing() {
    let mut cluster = Cluster::initialized();
    cluster.run(5);
    let before = cluster.api.log.len();
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["service"] = json!({"port": 7070, "portName": "other", "name": "shop"});
        it["spec"]["targetRef"]["name"] = json!("another");
        it["spec"]["analysis"]["webhooks"] = json!([{"name": "gate", "type": "pre-flight", "url": "http://gate/"}]);
    });
    cluster.run(5);
    assert_eq!(condition(&cluster, "backend", "Accepted")["reason"], json!("KeepsFormerSpec"));
    let written = &cluster.api.log[before..];
    assert!(written.iter().all(|write| write == "status Canary backend"), "{written:?}");
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.image("backend-primary") == "app:2");
}

#[test]
fn of_one_name_in_two_namespaces_the_second_is_served_without_the_bare_name() {
    let mut cluster = Cluster::initialized();
    for (kind, object) in [(Kind::Deployment, target("app:1")), (Kind::Canary, canary())] {
        cluster.api.edit_in("staging", kind, "backend", |it| {
            merge(it, &object);
            it["metadata"]["namespace"] = json!("staging");
        });
    }
    cluster.run(3);
    let status = cluster.api.at_in("staging", Kind::Canary, "backend", "/status/conditions/1");
    assert_eq!((&status["type"], &status["status"]), (&json!("Accepted"), &json!("True")), "{status}");
    assert!(status["message"].as_str().unwrap().contains("another canary answers to backend"), "{status}");
    let domains = &cluster.hosts["prod\0backend"].host.as_ref().unwrap().domains;
    assert!(domains.contains(&"backend".to_owned()), "{domains:?}");
}

#[test]
fn what_is_not_carried_out_yet_is_told() {
    let mut cluster = Cluster::initialized();
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["upstreamRef"] = json!({"kind": "Upstream", "name": "backend"});
        it["spec"]["service"]["portName"] = json!("http");
    });
    cluster.run(5);
    let accepted = condition(&cluster, "backend", "Accepted");
    assert_eq!(accepted["message"], json!("The spec is in force.\nspec.upstreamRef: has no effect yet"));
}

/// A quota, say, or an admission policy.
#[test]
fn what_the_api_server_refuses_is_told_as_long_as_it_is_wanted() {
    let mut cluster = Cluster::new();
    cluster.api.refuses = Some("apply Deployment backend-primary");
    cluster.create();
    cluster.run(30);
    let accepted = condition(&cluster, "backend", "Accepted");
    assert_eq!(
        (&accepted["reason"], &accepted["message"]),
        (&json!("Blocked"), &json!("apply Deployment backend-primary is refused"))
    );
    assert_eq!(cluster.api.texts(), ["apply Deployment backend-primary is refused"], "once");
    cluster.api.refuses = None;
    cluster.run_until(100, |it| it.phase() == "Initialized");
    cluster.run(30);
    assert_eq!(condition(&cluster, "backend", "Accepted")["status"], json!("True"));
}
