//! A Canary that is deleted leaves a target that serves.

use proptest::prelude::*;
use serde_json::{Value, json};
use wingbeat_core::time::Span;
use wingbeat_kubernetes::release;
use wingbeat_kubernetes::world::Kind;

use crate::api_server::merge;
use crate::cluster::{Cluster, Crash, canary, target};

const FINALIZER: &str = "wingbeat.dev/finalizer";

fn finalizers(cluster: &Cluster) -> Value {
    cluster.api.at(Kind::Canary, "backend", "/metadata/finalizers")
}

/// Returns how many Pods answer by the name of the target.
fn answers(cluster: &Cluster) -> usize {
    cluster.api.at(Kind::EndpointSlice, "backend-x", "/endpoints").as_array().map_or(0, Vec::len)
}

fn is_gone(cluster: &Cluster) -> bool {
    cluster.api.get(Kind::Canary, "backend").is_none()
}

/// Deletes the Canary, and runs until it is gone. In every round somebody answers, by the name of the target and at Envoys, and no
/// fewer than before.
#[track_caller]
fn delete(cluster: &mut Cluster, rounds: usize) -> usize {
    let before = answers(cluster);
    assert!(before > 0);
    cluster.api.log.clear();
    cluster.api.delete(Kind::Canary, "backend");
    let mut round = 0;
    loop {
        cluster.round();
        assert!(answers(cluster) >= before, "{} of {before} answer: {:#?}", answers(cluster), cluster.api.log);
        if is_gone(cluster) {
            return round;
        }
        assert!(cluster.split().is_some(), "its route ends with it, and not before");
        round += 1;
        let canary = cluster.api.get(Kind::Canary, "backend");
        assert!(round < rounds, "it is held: {:#?}, {canary:#?}", cluster.api.log);
    }
}

/// What is left: a target and its Service, which belong to nobody.
#[track_caller]
fn assert_handed_back(cluster: &mut Cluster, image: &str) {
    cluster.skips_checks = true;
    cluster.run(2);
    // A new process never tells of what was gone before it.
    if cluster.crash.is_none() {
        assert_eq!(cluster.split(), None, "its route ends with it");
    }
    for (kind, name) in
        [(Kind::Deployment, "backend-primary"), (Kind::Service, "backend-primary"), (Kind::Service, "backend-canary")]
    {
        assert_eq!(cluster.api.get(kind, name), None, "{name}");
    }
    assert_eq!((cluster.image("backend"), cluster.replicas("backend")), (image.to_owned(), 2));
    let entry = cluster.api.get(Kind::Service, "backend").unwrap();
    assert_eq!(entry["spec"]["selector"], json!({"app": "backend"}));
    assert_eq!(entry["metadata"].get("ownerReferences").cloned().unwrap_or(json!([])), json!([]));
    assert_eq!(answers(cluster), 2);
    let written = cluster.api.log.len();
    cluster.run(100);
    assert_eq!(cluster.api.log.len(), written, "{:#?}", cluster.api.log);
    assert_eq!(cluster.due, None);
}

#[test]
fn it_has_its_finalizer_before_anything_is_taken_and_once() {
    let mut cluster = Cluster::initialized();
    let place = |what: &str| cluster.api.log.iter().position(|it| it.starts_with(what)).unwrap();
    let held = place("merge Canary backend /metadata/finalizers");
    assert!(held < place("apply Service backend-primary"));
    assert!(held < place("scale Deployment backend to 0"));
    let applied = cluster.api.log.iter().rposition(|it| it == "apply Service backend").unwrap();
    assert!(held < applied, "{:#?}", cluster.api.log);
    cluster.run(100);
    cluster.restart();
    cluster.run(100);
    assert_eq!(finalizers(&cluster), json!([FINALIZER]));
    assert_eq!(cluster.api.log.iter().filter(|it| it.starts_with("merge")).count(), 1, "{:#?}", cluster.api.log);
}

#[test]
fn at_rest_the_target_has_its_requests_back_before_the_primary_goes() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    let rounds = delete(&mut cluster, 100);
    assert!(rounds > 30, "drained for three seconds: {rounds}");
    let writes: Vec<&str> = cluster.api.log.iter().map(String::as_str).filter(|it| !it.starts_with("status")).collect();
    assert_eq!(
        writes.iter().filter(|it| **it != "record").collect::<Vec<_>>(),
        [
            &"scale Deployment backend to 2",
            &"merge Service backend /metadata/ownerReferences [] /spec/selector {\"app\":\"backend\"}",
            &"merge Canary backend /metadata/finalizers []",
        ]
    );
    let texts = cluster.api.texts();
    assert!(texts.contains(&"Terminating canary backend.prod: Deployment backend gets its requests back"), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("not promoted")), "{texts:?}");
    assert_handed_back(&mut cluster, "app:1");
}

#[test]
fn people_see_how_far_it_is() {
    let mut cluster = Cluster::initialized();
    cluster.api.is_broken = Some("backend".to_owned());
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run(5);
    let status = cluster.api.at(Kind::Canary, "backend", "/status");
    assert_eq!(status["phase"], json!("Terminating"));
    let condition = |cluster: &Cluster, kind: &str| {
        let all = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
        all.as_array().unwrap().iter().find(|it| it["type"] == kind).cloned().unwrap()
    };
    assert_eq!(condition(&cluster, "Promoted")["reason"], json!("Terminating"));
    let back = condition(&cluster, "HandedBack");
    assert_eq!((&back["status"], &back["reason"]), (&json!("False"), &json!("TargetNotReady")));
    assert_eq!(
        back["message"],
        "Deployment backend gets the requests once it is ready: waiting for rollout to finish: 0 of 2 (readyThreshold 100%) \
         updated replicas are available."
    );
    cluster.api.is_broken = None;
    cluster.run(5);
    let back = condition(&cluster, "HandedBack");
    assert_eq!((&back["status"], &back["reason"]), (&json!("True"), &json!("Draining")));
    cluster.run_until(50, is_gone);
    assert_handed_back(&mut cluster, "app:1");
}

#[test]
fn in_mid_rollout_it_is_told_which_revision_gets_everything() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 30);
    cluster.weights.clear();
    delete(&mut cluster, 100);
    assert!(cluster.weights.iter().all(|weight| *weight <= 30), "nothing is moved on: {:?}", cluster.weights);
    let texts = cluster.api.texts();
    let told = texts.iter().filter(|text| text.contains("which was not promoted: it gets all requests")).count();
    assert_eq!(told, 1, "{texts:#?}");
    assert_handed_back(&mut cluster, "app:2");
}

#[test]
fn after_a_rollback_it_is_told_that_what_failed_gets_everything() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    delete(&mut cluster, 100);
    assert!(cluster.api.texts().iter().any(|text| text.contains("which was not promoted")));
    assert_handed_back(&mut cluster, "app:2");
}

#[test]
fn in_a_promotion_somebody_answers_all_the_time() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.image("backend-primary") == "app:2");
    delete(&mut cluster, 100);
    assert_handed_back(&mut cluster, "app:2");
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![(0_usize..5).prop_map(Crash::Writes), Just(Crash::Engine)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn wherever_the_controller_dies_the_next_one_ends_it(rounds in 1_usize..50, crash in crash(), in_rollout: bool) {
        let mut cluster = Cluster::initialized();
        cluster.run(20);
        if in_rollout {
            cluster.set_image("app:2");
            cluster.run_until(200, |it| it.weight() == 20);
        }
        cluster.crash = Some((cluster.rounds + rounds, crash));
        delete(&mut cluster, 200);
        prop_assert_eq!(cluster.api.log.iter().filter(|it| it.starts_with("scale")).count(), usize::from(!in_rollout));
        assert_handed_back(&mut cluster, if in_rollout { "app:2" } else { "app:1" });
    }
}

/// Also where what was decided is lost with it.
#[test]
fn a_state_that_is_lost_keeps_no_requests_from_the_target() {
    for rounds in [1, 3, 20] {
        let mut cluster = Cluster::initialized();
        cluster.api.delete(Kind::Canary, "backend");
        cluster.run(rounds);
        cluster.skips_checks = true;
        cluster.lose_state();
        for _ in 0..200 {
            cluster.round();
            assert!(answers(&cluster) >= 2);
        }
        assert!(is_gone(&cluster));
        assert_handed_back(&mut cluster, "app:1");
    }
}

#[test]
fn a_target_that_does_not_become_ready_leaves_the_primary_to_serve() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    cluster.api.is_broken = Some("backend".to_owned());
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run(50);
    cluster.restart();
    cluster.now = cluster.now.plus(Span::from_secs(594));
    cluster.run(5);
    assert!(!is_gone(&cluster));
    cluster.now = cluster.now.plus(Span::from_secs(1));
    for _ in 0..30 {
        cluster.round();
        assert_eq!(answers(&cluster), 2);
    }
    assert!(is_gone(&cluster), "{:#?}", cluster.api.log);
    let texts = cluster.api.texts();
    assert!(
        texts.iter().any(|text| text.starts_with("Deployment backend did not become ready within 600 s")),
        "{texts:?}"
    );
    for (kind, name) in [
        (Kind::Deployment, "backend-primary"),
        (Kind::Service, "backend"),
        (Kind::Service, "backend-primary"),
        (Kind::Service, "backend-canary"),
    ] {
        assert_eq!(cluster.api.at(kind, name, "/metadata/ownerReferences"), json!([]), "{name}");
    }
    assert_eq!(cluster.api.at(Kind::Service, "backend", "/spec/selector"), json!({"app": "backend-primary"}));
    assert_eq!(cluster.replicas("backend-primary"), 2);
    let orphaned = cluster.api.log.iter().position(|it| it.contains("ownerReferences")).unwrap();
    let gone = cluster.api.log.iter().rposition(|it| it.contains("finalizers")).unwrap();
    assert!(orphaned < gone, "{:#?}", cluster.api.log);
}

#[test]
fn a_target_that_is_gone_keeps_nobody_waiting() {
    let mut cluster = Cluster::initialized();
    cluster.skips_checks = true;
    cluster.api.delete(Kind::Deployment, "backend");
    cluster.run(20);
    assert_eq!(finalizers(&cluster), json!([FINALIZER]));
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(5, is_gone);
    // The other way round, too.
    let mut cluster = Cluster::initialized();
    cluster.skips_checks = true;
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run(2);
    cluster.api.delete(Kind::Deployment, "backend");
    cluster.run_until(5, is_gone);
}

#[test]
fn a_namespace_that_goes_keeps_nobody_waiting() {
    let mut cluster = Cluster::initialized();
    cluster.skips_checks = true;
    cluster.api.is_broken = Some("backend".to_owned());
    cluster.api.namespace_ends = true;
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(5, is_gone);
}

#[test]
fn who_asks_for_nothing_back_is_not_held() {
    let mut cluster = Cluster::new();
    cluster.create();
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["revertOnDeletion"] = json!(false));
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    assert_eq!(finalizers(&cluster), Value::Null);
    // Who changes it is held, and not any more.
    for (back, all) in [(true, json!([FINALIZER])), (false, json!([]))] {
        cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["revertOnDeletion"] = json!(back));
        cluster.run(5);
        assert_eq!(finalizers(&cluster), all);
    }
    cluster.skips_checks = true;
    cluster.api.delete(Kind::Canary, "backend");
    assert!(is_gone(&cluster));
}

#[test]
fn finalizers_of_others_stay_and_hold_it_alone() {
    let mut cluster = Cluster::new();
    cluster.create();
    cluster.api.edit(Kind::Canary, "backend", |it| it["metadata"]["finalizers"] = json!(["a.test/b"]));
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    assert_eq!(finalizers(&cluster), json!(["a.test/b", FINALIZER]));
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(100, |it| finalizers(it) == json!(["a.test/b"]));
    cluster.skips_checks = true;
    let written = cluster.api.log.len();
    cluster.run(50);
    assert_eq!(cluster.api.log.len(), written, "{:#?}", cluster.api.log);
    assert_eq!(finalizers(&cluster), json!(["a.test/b"]));
}

/// Whoever takes it away again and again is not followed faster than once a minute.
#[test]
fn a_finalizer_that_somebody_takes_away_comes_back_once_a_minute() {
    let mut cluster = Cluster::initialized();
    let merges = |cluster: &Cluster| cluster.api.log.iter().filter(|it| it.starts_with("merge Canary")).count();
    for _ in 0..1_200 {
        cluster.api.edit(Kind::Canary, "backend", |it| it["metadata"]["finalizers"] = json!([]));
        cluster.round();
    }
    assert!((2..=4).contains(&merges(&cluster)), "{}", merges(&cluster));
    cluster.run(700);
    assert_eq!(finalizers(&cluster), json!([FINALIZER]));
}

/// Also where the controller dies whenever it has written something.
#[test]
fn a_service_that_was_there_is_given_back_as_it_was() {
    for rounds in 1..30 {
        service_is_given_back(rounds);
    }
}

fn service_is_given_back(rounds: usize) {
    let mut cluster = Cluster::new();
    cluster.crash = Some((rounds, Crash::Writes(9)));
    let selector = json!({"app": "backend", "tier": "web"});
    cluster.create();
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        it["spec"]["template"]["metadata"]["labels"]["tier"] = json!("web");
    });
    cluster.api.edit(Kind::Service, "backend", |it| {
        let port = json!({"name": "http", "port": 9898, "targetPort": 9898});
        let spec = json!({"selector": selector, "ports": [port]});
        merge(it, &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"team": "a"}}, "spec": spec}));
    });
    cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    delete(&mut cluster, 200);
    cluster.skips_checks = true;
    cluster.run(3);
    let entry = cluster.api.get(Kind::Service, "backend").unwrap();
    assert_eq!(entry["spec"]["selector"], selector, "killed after {rounds} rounds");
    assert_eq!(entry["metadata"]["labels"], json!({"team": "a"}));
    assert_eq!(answers(&cluster), 2);
}

/// What was never served has nothing to be given back; what another controller left in it is taken away all the same.
#[test]
fn a_canary_of_which_nothing_was_accepted_goes_at_once() {
    let mut cluster = Cluster::new();
    cluster.create();
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["targetRef"]["kind"] = json!("Pigeon");
        it["metadata"]["finalizers"] = json!([FINALIZER]);
    });
    cluster.run(5);
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(5, is_gone);
    assert_eq!(cluster.replicas("backend"), 2);
}

#[test]
fn a_canary_that_begins_only_goes_at_once() {
    let mut cluster = Cluster::new();
    cluster.api.is_broken = Some("backend-primary".to_owned());
    cluster.create();
    cluster.run(20);
    assert_eq!((cluster.phase(), finalizers(&cluster)), ("Initializing".to_owned(), json!([FINALIZER])));
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(5, is_gone);
    assert_eq!(cluster.replicas("backend"), 2);
}

/// Of what cannot be read, the objects say who serves.
#[test]
fn a_state_that_cannot_be_read_does_not_hold_it() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    cluster.skips_checks = true;
    cluster.api.edit(Kind::CanaryState, "backend", |it| it["status"]["format"] = json!(99));
    cluster.restart();
    cluster.freezes_states = true;
    cluster.run(5);
    cluster.api.log.clear();
    cluster.api.delete(Kind::Canary, "backend");
    for _ in 0..200 {
        cluster.round();
        assert!(answers(&cluster) >= 2, "{:#?}", cluster.api.log);
    }
    assert!(is_gone(&cluster), "{:#?}", cluster.api.log);
    assert_eq!(cluster.api.at(Kind::Service, "backend", "/spec/selector"), json!({"app": "backend"}));
    assert_eq!(cluster.api.at(Kind::Service, "backend", "/metadata/ownerReferences"), json!([]));
}

/// Somebody else's size is as good.
#[test]
fn the_target_is_scaled_once() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    cluster.api.delete(Kind::Canary, "backend");
    cluster.run_until(5, |it| it.replicas("backend") == 2);
    cluster.run(2);
    cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(1));
    cluster.run_until(100, is_gone);
    assert_eq!(cluster.replicas("backend"), 1);
    assert_eq!(cluster.api.log.iter().filter(|it| *it == "scale Deployment backend to 2").count(), 1);
}

#[test]
fn flaggers_finalizer_is_flaggers() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Deployment, "backend", |it| merge(it, &target("app:1")));
    cluster.api.edit(Kind::Canary, "backend", |it| {
        let mut canary = canary();
        canary["apiVersion"] = json!("flagger.app/v1beta1");
        canary["spec"]["provider"] = json!("envoy");
        canary["spec"]["analysis"]["interval"] = json!("10s");
        canary["spec"]["analysis"]["judge"] = Value::Null;
        merge(it, &canary);
    });
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    assert_eq!(finalizers(&cluster), json!(["finalizer.flagger.app"]));
    delete(&mut cluster, 100);
    assert_handed_back(&mut cluster, "app:1");
}

/// As the chart does before it goes; what is installed again goes on with what serves.
#[test]
fn what_was_let_go_is_taken_back_by_a_controller_that_is_installed_again() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    let canary = cluster.api.get(Kind::Canary, "backend").unwrap().clone();
    for (kind, name) in [
        (Kind::Deployment, "backend-primary"),
        (Kind::Service, "backend"),
        (Kind::Service, "backend-primary"),
        (Kind::Service, "backend-canary"),
    ] {
        assert!(release::belongs_to(cluster.api.get(kind, name).unwrap(), &canary), "{name}");
        cluster.api.edit(kind, name, |it| drop(it["metadata"].as_object_mut().unwrap().remove("ownerReferences")));
    }
    cluster.api.edit(Kind::Canary, "backend", |it| it["metadata"]["finalizers"] = json!([]));
    let template = cluster.api.at(Kind::Deployment, "backend-primary", "/spec/template");
    cluster.restart();
    cluster.run(150);
    let primary = cluster.api.get(Kind::Deployment, "backend-primary").unwrap();
    assert!(release::belongs_to(primary, &canary));
    assert_eq!(primary["spec"]["template"], template, "no Pod is made anew");
    assert_eq!(finalizers(&cluster), json!([FINALIZER]));
    let written = cluster.api.log.len();
    cluster.run(150);
    assert_eq!(cluster.api.log[written..], [""; 0]);
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:2");
}
