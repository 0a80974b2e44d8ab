//! What is in the way, all at once.

use super::*;

fn shown(problems: Result<Desired, Vec<Problem>>) -> Vec<String> {
    problems.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_selector_without_a_usable_label_is_told_in_flaggers_words() {
    let mut target = target();
    *target.pointer_mut("/spec/selector/matchLabels").unwrap() = json!({"component": "x"});
    assert_eq!(
        shown(desired(&canary(json!({"port": 9898})), &target, &[])),
        [
            "Deployment backend.prod spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name], make it \
         anew with one of them, as a selector cannot be changed, or name its label by --selector-labels"
        ]
    );
}

#[test]
fn a_port_that_the_target_does_not_have_is_told_with_those_that_it_has() {
    assert_eq!(
        shown(desired(&canary(json!({"port": 80, "targetPort": "web"})), &target(), &[])),
        [
            "Canary backend.prod spec.service.targetPort is web, which no port of Deployment backend.prod is called, use one \
         of http, or a number"
        ]
    );
    for (service, field) in [
        (json!({}), "spec.service.port is missing"),
        (json!({"port": 0}), "spec.service.port is 0"),
        (json!({"port": 80, "targetPort": 70_000}), "spec.service.targetPort is 70000"),
        (json!({"port": 80, "targetPort": {}}), "spec.service.targetPort is neither"),
    ] {
        let told = shown(desired(&canary(service), &target(), &[]));
        assert!(told.len() == 1 && told.iter().all(|it| it.contains(field)), "{told:?}");
    }
}

#[test]
fn ports_that_meet_are_told() {
    // The name http is that of the Service's own port, and of another one of the container.
    let told = shown(desired(&canary(json!({"port": 9797, "portDiscovery": true})), &target(), &[]));
    assert_eq!(
        told,
        [
            "Canary backend.prod spec.service.portDiscovery finds port http (9898) of c, which meets port http of the Service, \
         use another portName or port, or leave out portDiscovery"
        ]
    );
}

#[test]
fn names_that_others_have_are_told_with_their_owner() {
    let primary = owned("Deployment", "backend-primary", None);
    let service = owned("Service", "backend-canary", Some(("Canary", "other", "another")));
    let elsewhere = json!({"kind": "Service", "metadata": {"name": "backend", "namespace": "test", "ownerReferences": [
        {"kind": "Canary", "name": "other", "uid": "another", "controller": true},
    ]}});
    let existing = [&primary, &service, &elsewhere];
    assert_eq!(
        shown(desired(&canary(json!({"port": 9898})), &target(), &existing)),
        [
            "Deployment backend-primary.prod is there and belongs to nobody, where the primary of Canary backend.prod should \
         be, delete it or give it another name",
            "Service backend-canary.prod belongs to Canary other, and Canary backend.prod needs it, give one of both another \
         spec.service.name",
        ]
    );
    let ours = ["backend", "backend-primary", "backend-canary"]
        .map(|name| owned("Service", name, Some(("Canary", "backend", UID))));
    assert!(desired(&canary(json!({"port": 9898})), &target(), &ours.iter().collect::<Vec<_>>()).is_ok());
    let replaced = owned("Deployment", "backend-primary", Some(("Canary", "backend", "of the Canary before")));
    assert_eq!(shown(desired(&canary(json!({"port": 9898})), &target(), &[&replaced])).len(), 1);
}

#[test]
fn names_that_are_none_of_a_service_are_told() {
    for name in ["a".repeat(56), "1st".to_owned(), "a.b".to_owned()] {
        let told = shown(desired(&canary(json!({"port": 9898, "name": name})), &target(), &[]));
        assert!(
            told.len() == 1 && told.iter().all(|it| it.contains("spec.service.name would make a Service")),
            "{told:?}"
        );
    }
    assert!(desired(&canary(json!({"port": 9898, "name": "a".repeat(55)})), &target(), &[]).is_ok());
}

#[test]
fn everything_is_told_at_once() {
    let mut target = target();
    *target.pointer_mut("/spec/template/metadata/labels").unwrap() = json!({"tier": "web"});
    *target.pointer_mut("/spec/selector/matchLabels/app").unwrap() = json!("a".repeat(60));
    let primary = owned("Deployment", "backend-primary", None);
    let told = shown(desired(&canary(json!({"port": 0})), &target, &[&primary]));
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn what_is_no_object_of_an_api_server_is_told_and_nothing_else_happens() {
    for (canary, target) in
        [(json!({}), json!({})), (json!(null), json!([])), (canary(json!(7)), json!({"metadata": 1}))]
    {
        assert!(!shown(desired(&canary, &target, &[])).is_empty());
    }
}
