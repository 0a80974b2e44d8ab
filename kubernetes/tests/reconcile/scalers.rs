//! HorizontalPodAutoscalers: the primary gets a copy of its target's.

use serde_json::{Value, json};
use wingbeat_kubernetes::world::Kind;

use crate::api_server::merge;
use crate::cluster::Cluster;

const SCALER: Kind = Kind::HorizontalPodAutoscaler;

fn put_scaler(cluster: &mut Cluster, spec: &Value) {
    cluster.api.edit(SCALER, "backend", |it| {
        merge(it, &json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec}));
    });
}

fn spec(min: u64, max: u64) -> Value {
    json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
        "minReplicas": min,
        "maxReplicas": max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    })
}

/// A cluster whose canary has a scaler of 2 to 9 Pods.
fn scaled() -> Cluster {
    let mut cluster = Cluster::new();
    put_scaler(&mut cluster, &spec(2, 9));
    cluster.create();
    refer(
        &mut cluster,
        json!({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "name": "backend"}),
    );
    cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    cluster.run(20);
    cluster
}

fn refer(cluster: &mut Cluster, reference: Value) {
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["autoscalerRef"] = reference);
}

fn bounds(cluster: &Cluster) -> (u64, u64) {
    let of = |field: &str| cluster.api.at(SCALER, "backend-primary", &format!("/spec/{field}")).as_u64().unwrap();
    (of("minReplicas"), of("maxReplicas"))
}

fn ends(cluster: &mut Cluster, phase: &str) {
    cluster.run_until(600, |it| it.phase() == phase && it.replicas("backend") == 0);
    cluster.run(20);
}

#[test]
fn a_primary_is_scaled_as_its_target_was_when_it_was_promoted() {
    let mut cluster = scaled();
    let copy = cluster.api.get(SCALER, "backend-primary").unwrap().clone();
    let mut wanted = spec(2, 9);
    wanted["scaleTargetRef"]["name"] = json!("backend-primary");
    assert_eq!(copy["spec"], wanted);
    assert_eq!(copy["metadata"]["ownerReferences"][0]["name"], json!("backend"));
    put_scaler(&mut cluster, &spec(3, 12));
    let written = cluster.api.log.len();
    cluster.run(50);
    assert_eq!(cluster.api.log[written..], [""; 0], "no rollout, no change");
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.weight() == 50);
    assert_eq!(bounds(&cluster), (2, 9), "nor before it is promoted");
    ends(&mut cluster, "Succeeded");
    assert_eq!(bounds(&cluster), (3, 12));
    let written = cluster.api.log.len();
    cluster.restart();
    cluster.run(150);
    assert_eq!(cluster.api.log[written..], [""; 0]);
}

/// All requests come back to the primary at once: it must not have shrunk meanwhile.
#[test]
fn a_primary_keeps_its_size_during_a_rollout() {
    for (errors, phase) in [(0, "Succeeded"), (10, "Failed")] {
        let mut cluster = scaled();
        cluster.api.edit(Kind::Deployment, "backend-primary", |it| it["spec"]["replicas"] = json!(7));
        cluster.run(20);
        assert_eq!(bounds(&cluster), (2, 9), "it may shrink at rest");
        cluster.errors = errors;
        cluster.set_image("app:2");
        cluster.run_until(100, |it| it.phase() == "Progressing");
        cluster.run(2);
        assert_eq!(bounds(&cluster), (7, 9));
        assert_eq!(cluster.replicas("backend"), 2, "its scaler takes the target from there");
        cluster.restart();
        // A scaler adds some, and may take these away again.
        cluster.api.edit(Kind::Deployment, "backend-primary", |it| it["spec"]["replicas"] = json!(8));
        cluster.run(5);
        assert_eq!(bounds(&cluster), (7, 9), "{phase}");
        ends(&mut cluster, phase);
        assert_eq!(bounds(&cluster), (2, 9), "{phase}");
        let annotations = cluster.api.at(SCALER, "backend-primary", "/metadata/annotations");
        assert!(annotations.as_object().is_none_or(serde_json::Map::is_empty), "{annotations}");
    }
}

#[test]
fn a_canary_may_say_other_bounds_for_its_primary() {
    let mut cluster = scaled();
    let bounded = |replicas: Value| json!({"kind": "HorizontalPodAutoscaler", "name": "backend", "primaryScalerReplicas": replicas});
    refer(&mut cluster, bounded(json!({"minReplicas": 4, "maxReplicas": 20})));
    cluster.run(5);
    assert_eq!(bounds(&cluster), (4, 20));
    // An API server refuses bounds that cross.
    refer(&mut cluster, bounded(json!({"minReplicas": 25})));
    cluster.run(5);
    assert_eq!(bounds(&cluster), (25, 25));
}

#[test]
fn a_scaler_that_cannot_be_copied_is_told_and_rollouts_go_on() {
    let foreign = json!([{"kind": "Canary", "name": "other", "uid": "uid-other", "controller": true}]);
    for (reference, owners, problem) in [
        (
            json!({"kind": "ScaledObject", "name": "backend"}),
            None,
            "Canary backend.prod spec.autoscalerRef.kind is ScaledObject, which is not copied: the primary keeps its size, use \
             HorizontalPodAutoscaler",
        ),
        (
            json!({"kind": "HorizontalPodAutoscaler", "name": "wrong"}),
            None,
            "HorizontalPodAutoscaler wrong.prod is not there: the primary keeps its size, make it, or take spec.autoscalerRef out \
             of Canary backend.prod",
        ),
        (
            json!({"kind": "HorizontalPodAutoscaler", "name": "backend"}),
            Some(json!([])),
            "HorizontalPodAutoscaler backend-primary.prod is there and belongs to nobody, where that of the primary of Canary \
             backend.prod should be, delete it or give it another name",
        ),
        (
            json!({"kind": "HorizontalPodAutoscaler", "name": "backend"}),
            Some(foreign),
            "HorizontalPodAutoscaler backend-primary.prod belongs to Canary other, where that of the primary of Canary \
             backend.prod should be, give one of both scalers another name",
        ),
    ] {
        let mut cluster = Cluster::new();
        put_scaler(&mut cluster, &spec(2, 9));
        if let Some(owners) = owners {
            cluster.api.edit(SCALER, "backend-primary", |it| {
                merge(it, &json!({"kind": "HorizontalPodAutoscaler", "metadata": {"ownerReferences": owners}, "spec": spec(1, 2)}));
            });
        }
        cluster.create();
        refer(&mut cluster, reference);
        ends(&mut cluster, "Initialized");
        let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
        let accepted = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Accepted").unwrap();
        assert_eq!(accepted["message"], json!(problem));
        assert!(cluster.api.texts().contains(&problem), "{:?}", cluster.api.texts());
        cluster.set_image("app:2");
        ends(&mut cluster, "Succeeded");
        assert_eq!(cluster.image("backend-primary"), "app:2");
    }
}
