//! The index of a cluster.

#![expect(clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use wingbeat_core::id::{Arm, CanaryName};
use wingbeat_kubernetes::world::{Kind, ObjectKey, World};

mod histories;

fn names(concerned: &BTreeSet<CanaryName>) -> Vec<String> {
    concerned.iter().map(ToString::to_string).collect()
}

fn canary(namespace: &str, name: &str, spec: Value) -> Value {
    let mut canary = json!({"kind": "Canary", "metadata": {"namespace": namespace, "name": name}});
    canary["spec"] = spec;
    canary
}

fn object(namespace: &str, name: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": version.to_string()}})
}

fn slice(namespace: &str, name: &str, canary: &str, arm: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"wingbeat.dev/canary": canary, "wingbeat.dev/arm": arm},
        },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 9898}],
    })
}

/// Returns a world with three canaries in two namespaces.
fn world() -> World {
    let mut world = World::default();
    let target = |name: &str| json!({"kind": "Deployment", "name": name});
    world.apply(
        Kind::Canary,
        &canary("prod", "backend", json!({
            "targetRef": target("backend"),
            "service": {"port": 80, "name": "api", "listeners": ["public"]},
            "analysis": {
                "metrics": [{"templateRef": {"name": "queue"}}, {"templateRef": {"name": "errors", "namespace": "monitoring"}}],
                "alerts": [{"providerRef": {"name": "on-call"}}],
            },
        })),
    );
    world.apply(
        Kind::Canary,
        &canary(
            "prod",
            "frontend",
            json!({
                "targetRef": target("frontend"), "canaryAnalysis": {"metrics": [{"templateRef": {"name": "queue"}}]},
            }),
        ),
    );
    world.apply(Kind::Canary, &canary("test", "backend", json!({"targetRef": target("backend")})));
    world
}

#[test]
fn an_object_concerns_the_canaries_that_name_it() {
    for (kind, namespace, name, expected) in [
        (Kind::Deployment, "prod", "backend", &["backend.prod"][..]),
        (Kind::Deployment, "prod", "backend-primary", &["backend.prod"]),
        (Kind::Deployment, "prod", "other", &[]),
        (Kind::Deployment, "test", "backend", &["backend.test"]),
        (Kind::Service, "prod", "api", &["backend.prod"]),
        (Kind::Service, "prod", "api-canary", &["backend.prod"]),
        (Kind::Service, "prod", "backend", &[]),
        (Kind::Service, "prod", "frontend-primary", &["frontend.prod"]),
        (Kind::MetricTemplate, "prod", "queue", &["backend.prod", "frontend.prod"]),
        (Kind::MetricTemplate, "monitoring", "errors", &["backend.prod"]),
        (Kind::AlertProvider, "prod", "on-call", &["backend.prod"]),
        (Kind::AlertProvider, "test", "on-call", &[]),
        (Kind::CanaryState, "test", "backend", &["backend.test"]),
        (Kind::Canary, "prod", "backend", &["backend.prod"]),
        // Those that name no Listener have those that are for everybody.
        (Kind::Listener, "", "public", &["backend.prod", "frontend.prod", "backend.test"]),
        (Kind::Listener, "", "other", &["frontend.prod", "backend.test"]),
    ] {
        let mut world = world();
        let sorted: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        let found = |concerned: BTreeSet<CanaryName>| -> BTreeSet<String> { names(&concerned).into_iter().collect() };
        if kind != Kind::Canary {
            assert_eq!(found(world.apply(kind, &object(namespace, name, 1))), sorted, "{kind:?} {name}");
        }
        assert_eq!(found(world.delete(&ObjectKey::new(kind, namespace, name))), sorted, "{kind:?} {name}");
        assert_eq!(found(world.delete(&ObjectKey::new(kind, namespace, name))), BTreeSet::new(), "it is gone already");
    }
}

#[test]
fn what_did_not_change_concerns_nobody() {
    let mut world = world();
    let mut deployment = object("prod", "backend", 1);
    assert_eq!(world.apply(Kind::Deployment, &deployment).len(), 1);
    assert_eq!(world.apply(Kind::Deployment, &deployment), BTreeSet::new());
    // Who wrote which field when is nobody's business.
    let metadata = deployment.pointer_mut("/metadata").unwrap().as_object_mut().unwrap();
    metadata.insert("managedFields".to_owned(), json!([{"manager": "kubectl"}]));
    assert_eq!(world.apply(Kind::Deployment, &deployment), BTreeSet::new());
    assert_eq!(world.apply(Kind::Deployment, &object("prod", "backend", 2)).len(), 1);
    let key = ObjectKey::new(Kind::Deployment, "prod", "backend");
    assert_eq!(world.get(&key), Some(object("prod", "backend", 2)));
    assert!(world.bytes() > 0);
}

#[test]
fn canaries_that_want_the_same_concern_each_other() {
    let mut world = world();
    let second = canary("prod", "second", json!({"targetRef": {"kind": "Deployment", "name": "frontend"}}));
    assert_eq!(names(&world.apply(Kind::Canary, &second)), ["frontend.prod", "second.prod"]);
    // Who gives it up concerns the other one, too.
    let elsewhere = canary("prod", "second", json!({"targetRef": {"kind": "Deployment", "name": "third"}}));
    assert_eq!(names(&world.apply(Kind::Canary, &elsewhere)), ["frontend.prod", "second.prod"]);
    assert_eq!(names(&world.delete(&ObjectKey::new(Kind::Canary, "prod", "second"))), ["second.prod"]);
}

#[test]
fn endpoints_are_those_of_all_slices_of_an_arm() {
    let mut world = world();
    let name = CanaryName::new("prod", "backend");
    let at = |world: &World, arm: Arm| -> Vec<String> {
        world.endpoints(&name, arm, "http", 80).iter().map(SocketAddr::to_string).collect()
    };
    for (slice_name, arm, address) in
        [("a", "primary", "10.0.0.1"), ("b", "primary", "10.0.0.2"), ("c", "canary", "10.0.0.3")]
    {
        let concerned = world.apply(Kind::EndpointSlice, &slice("prod", slice_name, "backend", arm, address));
        assert_eq!(names(&concerned), ["backend.prod"]);
    }
    world.apply(Kind::EndpointSlice, &slice("test", "a", "backend", "primary", "10.0.0.9"));
    assert_eq!(at(&world, Arm::Primary), ["10.0.0.1:9898", "10.0.0.2:9898"]);
    assert_eq!(at(&world, Arm::Canary), ["10.0.0.3:9898"]);
    world.delete(&ObjectKey::new(Kind::EndpointSlice, "prod", "a"));
    assert_eq!(at(&world, Arm::Primary), ["10.0.0.2:9898"]);
    // A slice that changes hands concerns both.
    let concerned = world.apply(Kind::EndpointSlice, &slice("prod", "b", "frontend", "primary", "10.0.0.2"));
    assert_eq!(names(&concerned), ["backend.prod", "frontend.prod"]);
    assert_eq!(at(&world, Arm::Primary), Vec::<String>::new());
}

#[test]
fn what_has_no_name_is_left_out() {
    let mut world = World::default();
    for broken in [json!(null), json!([]), json!({"metadata": {"name": 7}})] {
        assert_eq!(world.apply(Kind::Canary, &broken), BTreeSet::new());
    }
    assert_eq!(world, World::default());
}
