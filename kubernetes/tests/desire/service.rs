//! The Services.

use super::*;

fn expected(name: &str, pods: &str, arm: Option<&str>) -> Value {
    let mut labels = json!({"app": name, "wingbeat.dev/canary": "backend"});
    if let Some(arm) = arm {
        labels.as_object_mut().unwrap().insert("wingbeat.dev/arm".to_owned(), json!(arm));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "prod",
            "labels": labels,
            "annotations": {
                "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
                "helm.toolkit.fluxcd.io/driftDetection": "disabled",
            },
            "ownerReferences": [{
                "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "backend", "uid": UID,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": pods},
            "ports": [{"name": "http", "protocol": "TCP", "port": 9898, "targetPort": 9898}],
        },
    })
}

#[test]
fn who_asks_by_the_name_of_the_target_gets_the_primary() {
    let services = right(&canary(json!({"port": 9898})), &target()).services;
    assert_eq!(services.apex, expected("backend", "backend-primary", None));
    assert_eq!(services.primary, expected("backend-primary", "backend-primary", Some("primary")));
    assert_eq!(services.canary, expected("backend-canary", "backend", Some("canary")));
}

#[test]
fn names_come_from_the_service_and_labels_from_the_target() {
    let services = right(&canary(json!({"port": 9898, "name": "api"})), &target()).services;
    let names = [&services.apex, &services.primary, &services.canary].map(|it| it.pointer("/metadata/name").unwrap());
    assert_eq!(names, ["api", "api-primary", "api-canary"]);
    assert_eq!(services.primary.pointer("/metadata/labels/app"), Some(&json!("api-primary")));
    assert_eq!(services.primary.pointer("/spec/selector/app"), Some(&json!("backend-primary")));
}

fn ports(service: Value) -> Value {
    right(&canary(service), &target()).services.canary.pointer("/spec/ports").unwrap().clone()
}

#[test]
fn ports_are_those_of_the_canary() {
    for (service, port) in [
        (
            json!({"port": 80, "targetPort": 9898}),
            json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 9898}),
        ),
        (
            json!({"port": 80, "targetPort": "http"}),
            json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}),
        ),
        (
            json!({"port": 80, "targetPort": 0}),
            json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}),
        ),
        // No container needs to declare a number.
        (
            json!({"port": 80.0, "targetPort": 1234}),
            json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 1234}),
        ),
        (
            json!({"port": 80, "portName": "grpc", "appProtocol": "kubernetes.io/h2c"}),
            json!({"name": "grpc", "protocol": "TCP", "port": 80, "targetPort": 80, "appProtocol": "kubernetes.io/h2c"}),
        ),
    ] {
        assert_eq!(ports(service.clone()), json!([port]), "{service}");
    }
}

#[test]
fn discovered_ports_are_all_others_but_those_of_a_mesh() {
    let first =
        |port: u64, target: Value| json!({"name": "http", "protocol": "TCP", "port": port, "targetPort": target});
    let other = |name: &str, port: u64, protocol: &str| json!({"name": name, "protocol": protocol, "port": port, "targetPort": port});
    let mut target = target();
    let containers = target.pointer_mut("/spec/template/spec/containers").unwrap().as_array_mut().unwrap();
    containers.push(json!({"name": "istio-proxy", "ports": [{"containerPort": 15_090}]}));
    containers.push(json!({"name": "d", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}));
    for (service, expected) in [
        (
            json!({"port": 9898}),
            json!([first(9898, json!(9898)), other("tcp-c-1", 9797, "TCP"), other("dns", 53, "UDP")]),
        ),
        (
            json!({"port": 80, "targetPort": "http"}),
            json!([first(80, json!("http")), other("tcp-c-1", 9797, "TCP"), other("dns", 53, "UDP")]),
        ),
    ] {
        let mut service = service;
        service.as_object_mut().unwrap().insert("portDiscovery".to_owned(), json!(true));
        let services = right(&canary(service), &target).services;
        assert_eq!(services.apex.pointer("/spec/ports"), Some(&expected));
    }
}

#[test]
fn each_has_its_own_metadata_and_leaves_what_it_is_told_to_leave() {
    let service = json!({
        "port": 9898,
        "apex": {"labels": {"a": "1", "app": "mine"}, "annotations": {"b": "2", "x.toolkit.fluxcd.io/y": "3"}},
        "canary": {"labels": {"c": "4", "left": "5"}},
        "unmanagedMetadata": {"labels": ["left"], "annotations": ["helm.toolkit.fluxcd.io/driftDetection"]},
        "trafficDistribution": "PreferClose",
    });
    let services = right(&canary(service), &target()).services;
    let labels = |it: &Value| it.pointer("/metadata/labels").unwrap().clone();
    assert_eq!(labels(&services.apex), json!({"a": "1", "app": "backend", "wingbeat.dev/canary": "backend"}));
    assert_eq!(
        labels(&services.canary),
        json!({"c": "4", "app": "backend-canary", "wingbeat.dev/canary": "backend", "wingbeat.dev/arm": "canary"})
    );
    let annotations = services.apex.pointer("/metadata/annotations").unwrap();
    let expected = json!({"b": "2", "x.toolkit.fluxcd.io/y": "3", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"});
    assert_eq!(*annotations, expected);
    assert_eq!(services.primary.pointer("/spec/trafficDistribution"), Some(&json!("PreferClose")));
}

#[test]
fn a_service_that_nobody_made_for_us_is_adopted() {
    let there = owned("Service", "backend", None);
    let services = desired(&canary(json!({"port": 9898, "apex": {"labels": {"a": "1"}}})), &target(), &[&there]);
    assert_eq!(
        services.unwrap().services.apex,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "backend",
                "namespace": "prod",
                "labels": {"wingbeat.dev/canary": "backend"},
                "annotations": {
                    "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
                    "helm.toolkit.fluxcd.io/driftDetection": "disabled",
                },
            },
            "spec": {
                "selector": {"app": "backend-primary"},
                "ports": [{"name": "http", "protocol": "TCP", "port": 9898, "targetPort": 9898}],
            },
        })
    );
    // Its slices have to be found.
    let there = owned("Service", "backend-canary", None);
    let services = desired(&canary(json!({"port": 9898})), &target(), &[&there]).unwrap().services;
    let labels = services.canary.pointer("/metadata/labels");
    assert_eq!(labels, Some(&json!({"wingbeat.dev/canary": "backend", "wingbeat.dev/arm": "canary"})));
    assert_eq!(services.canary.pointer("/metadata/ownerReferences"), None);
}

#[test]
fn an_address_that_is_there_is_kept() {
    let headless = canary(json!({"port": 9898, "headless": true}));
    let with_address = |address: &str| {
        let mut there = owned("Service", "backend", Some(("Canary", "backend", UID)));
        there.as_object_mut().unwrap().insert("spec".to_owned(), json!({"clusterIP": address}));
        there
    };
    for (existing, expected) in [
        (None, Some(json!("None"))),
        (Some(with_address("None")), Some(json!("None"))),
        (Some(with_address("10.96.0.7")), None),
    ] {
        let existing: Vec<&Value> = existing.iter().collect();
        let apex = desired(&headless, &target(), &existing).unwrap().services.apex;
        assert_eq!(apex.pointer("/spec/clusterIP").cloned(), expected);
    }
}

#[test]
fn a_long_name_has_its_hash_in_the_label() {
    let name = "a".repeat(70);
    let mut long = canary(json!({"port": 9898}));
    *long.pointer_mut("/metadata/name").unwrap() = json!(name);
    let services = right(&long, &target()).services;
    let label =
        services.canary.pointer("/metadata/labels").unwrap().get("wingbeat.dev/canary").unwrap().as_str().unwrap();
    assert_eq!(label.len(), 63);
    assert!(label.starts_with(&"a".repeat(52)), "{label}");
}
