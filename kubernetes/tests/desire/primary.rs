//! The primary.

use super::*;

#[test]
fn it_is_the_target_under_another_name() {
    let desired = right(&canary(json!({"port": 9898})), &target());
    assert_eq!(desired.primary.replicas, Some(2));
    assert_eq!(
        desired.primary.object,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "backend-primary",
                "namespace": "prod",
                "labels": {"app": "backend-primary"},
                "ownerReferences": [{
                    "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "backend", "uid": UID,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "selector": {"matchLabels": {"app": "backend-primary"}},
                "template": {
                    "metadata": {
                        "labels": {"app": "backend-primary", "tier": "web"},
                        "annotations": {"scrape": "true", "flagger-id": "p-1"},
                    },
                    "spec": target().pointer("/spec/template/spec").unwrap(),
                },
            },
        })
    );
    assert_eq!(desired.primary.replicas, Some(2));
}

#[test]
fn what_a_rollout_needs_of_the_spec_is_copied_and_nothing_else() {
    let mut target = target();
    let copied = json!({
        "progressDeadlineSeconds": 60, "minReadySeconds": 5, "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    });
    let spec = target.pointer_mut("/spec").unwrap().as_object_mut().unwrap();
    spec.extend(copied.as_object().unwrap().clone());
    spec.insert("paused".to_owned(), json!(true));
    let object = right(&canary(json!({"port": 9898})), &target).primary.object;
    let mut spec = object.pointer("/spec").unwrap().as_object().unwrap().clone();
    spec.retain(|field, _| field != "selector" && field != "template");
    assert_eq!(Value::Object(spec), copied);
}

#[test]
fn metadata_is_copied_by_prefix_and_nothing_of_flux_is() {
    let settings = Settings { copied_prefixes: vec!["*".to_owned()], ..Settings::default() };
    let (canary, mut target) = (canary(json!({"port": 9898})), target());
    *target.pointer_mut("/spec/template/metadata/labels").unwrap() =
        json!({"app": "backend", "tier": "web", "kustomize.toolkit.fluxcd.io/name": "apps"});
    let observed =
        Observed { canary: &canary, target: &target, existing: &[], promotion: "p", renames: &Renames::new() };
    let object = Desired::of(&observed, &settings).unwrap().primary.object;
    assert_eq!(object.pointer("/metadata/labels"), Some(&json!({"app": "backend-primary", "team": "shop"})));
    assert_eq!(object.pointer("/metadata/annotations").and_then(|all| all.get("team/contact")), Some(&json!("shop")));
    let of_pods = object.pointer("/spec/template/metadata/labels");
    assert_eq!(of_pods, Some(&json!({"app": "backend-primary", "tier": "web"})));
}

#[test]
fn the_first_selector_label_of_the_settings_is_taken() {
    let labels = json!({"app.kubernetes.io/name": "a", "name": "b", "app": "c"});
    for (keys, expected) in
        [(vec!["app", "name", "app.kubernetes.io/name"], ("app", "c")), (vec!["name"], ("name", "b"))]
    {
        let mut target = target();
        *target.pointer_mut("/spec/selector/matchLabels").unwrap() = labels.clone();
        *target.pointer_mut("/spec/template/metadata/labels").unwrap() = labels.clone();
        let selector_labels = keys.into_iter().map(str::to_owned).collect();
        let (canary, settings) = (canary(json!({"port": 1})), Settings { selector_labels, ..Settings::default() });
        let observed =
            Observed { canary: &canary, target: &target, existing: &[], promotion: "p", renames: &Renames::new() };
        let desired = Desired::of(&observed, &settings).unwrap();
        assert_eq!((desired.label.key.as_str(), desired.label.value.as_str()), expected);
        let selector = desired.primary.object.pointer("/spec/selector/matchLabels").unwrap();
        assert_eq!(*selector, json!({expected.0: format!("{}-primary", expected.1)}));
    }
}

/// Rules that spread Pods and keep them apart mean the primary's own; those that draw them near others do not.
#[test]
fn selectors_of_own_pods_are_renamed() {
    let selector = |suffix: &str| {
        json!({
            "matchLabels": {"app": format!("backend{suffix}"), "tier": "backend"},
            "matchExpressions": [
                {"key": "name", "operator": "In", "values": ["frontend", format!("backend{suffix}")]},
                {"key": "tier", "operator": "In", "values": ["backend"]},
                {"key": "app", "operator": "Exists"},
            ],
        })
    };
    let rules = |suffix: &str, near: &str| {
        json!({
            "containers": [{"name": "c"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "labelSelector": selector(suffix)}, {"maxSkew": 2}],
            "affinity": {
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution":
                        [{"weight": 1, "podAffinityTerm": {"labelSelector": selector(suffix)}}],
                    "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector(suffix)}],
                },
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector(near)}],
                },
            },
        })
    };
    let mut target = target();
    *target.pointer_mut("/spec/template/spec").unwrap() = rules("", "");
    let object = right(&canary(json!({"port": 9898})), &target).primary.object;
    assert_eq!(object.pointer("/spec/template/spec"), Some(&rules("-primary", "")));
}

#[test]
fn a_selector_that_means_own_pods_by_the_value_of_their_label_is_renamed_too() {
    let mut target = target();
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        *target.pointer_mut(labels).unwrap() = json!({"app": "shop"});
    }
    let spread = |app: &str, name: &str| json!([{"labelSelector": {"matchLabels": {"app": app, "name": name}}}]);
    target
        .pointer_mut("/spec/template/spec")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .insert("topologySpreadConstraints".to_owned(), spread("shop", "shop"));
    let object = right(&canary(json!({"port": 9898})), &target).primary.object;
    let found = object.pointer("/spec/template/spec/topologySpreadConstraints");
    assert_eq!(found, Some(&spread("shop-primary", "shop")));
}

#[test]
fn a_scaler_has_its_size_once_it_is_there() {
    let plain = canary(json!({"port": 9898}));
    let mut scaled = plain.clone();
    scaled
        .pointer_mut("/spec")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .insert("autoscalerRef".to_owned(), json!({"kind": "HorizontalPodAutoscaler", "name": "backend"}));
    let there = owned("Deployment", "backend-primary", Some(("Canary", "backend", UID)));
    for (canary, existing, of_target, expected) in [
        (&plain, &[][..], 2, Some(2)),
        (&plain, &[], 0, Some(1)),
        (&plain, &[&there], 3, Some(3)),
        (&plain, &[&there], 0, None),
        (&scaled, &[], 2, Some(2)),
        (&scaled, &[&there], 2, None),
    ] {
        let mut target = target();
        *target.pointer_mut("/spec/replicas").unwrap() = json!(of_target);
        let desired = desired(canary, &target, existing).unwrap();
        assert_eq!(desired.primary.replicas, expected, "{of_target} of the target, {existing:?}");
    }
}

#[test]
fn our_own_api_has_its_own_annotation() {
    let mut ours = canary(json!({"port": 9898}));
    *ours.pointer_mut("/apiVersion").unwrap() = json!("wingbeat.dev/v1alpha1");
    let object = right(&ours, &target()).primary.object;
    let annotations = object.pointer("/spec/template/metadata/annotations");
    assert_eq!(annotations, Some(&json!({"scrape": "true", "wingbeat.dev/promotion": "p-1"})));
    assert_eq!(object.pointer("/metadata/ownerReferences/0/apiVersion"), Some(&json!("wingbeat.dev/v1alpha1")));
}
