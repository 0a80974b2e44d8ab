//! From creation to promotion, and to rollback.

use serde_json::json;
use wingbeat_kubernetes::world::Kind;

use crate::cluster::Cluster;

#[test]
fn a_canary_is_initialized_behind_its_primary() {
    let cluster = Cluster::initialized();
    assert_eq!((cluster.image("backend-primary"), cluster.replicas("backend-primary")), ("app:1".to_owned(), 2));
    assert_eq!(cluster.replicas("backend"), 0);
    assert_eq!(cluster.api.texts().last(), Some(&"Initialization done! backend.prod"));
    let selector = cluster.api.at(Kind::Service, "backend", "/spec/selector");
    assert_eq!(selector, json!({"app": "backend-primary"}));
    let host = &cluster.hosts["prod\0backend"];
    let domains = ["backend", "backend.prod", "backend.prod.svc", "backend.prod.svc.cluster.local"];
    assert_eq!(host.host.as_ref().unwrap().domains, domains);
    assert_eq!(host.listeners, ["public"]);
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("Promoted"), &json!("True")));
    assert_eq!((&conditions[1]["type"], &conditions[1]["status"]), (&json!("Accepted"), &json!("True")));
}

#[test]
fn at_rest_nothing_is_written_and_nothing_is_due() {
    let mut cluster = Cluster::initialized();
    cluster.run(20);
    let written = cluster.api.log.clone();
    cluster.run(1_000);
    assert_eq!(cluster.api.log, written);
    assert_eq!(cluster.due, None);
}

/// Ten steps are ten events and ten steps of the engine, whatever is asked before each; all else of a rollout is written once.
#[test]
fn a_rollout_of_ten_steps_is_written_with_few_calls() {
    let mut cluster = Cluster::initialized();
    let metrics = json!([
        {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
        {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"},
    ]);
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["analysis"]["stepWeight"] = json!(5);
        it["spec"]["analysis"]["metrics"] = metrics.clone();
    });
    cluster.run(50);
    let events = cluster.api.events.len();
    cluster.api.log.clear();
    cluster.api.stored = 0;
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    cluster.run(50);
    let records = cluster.api.log.iter().filter(|it| *it == "record").count();
    let (objects, events) = (cluster.api.log.len() - records, cluster.api.events.len() - events);
    let written = (cluster.api.stored, objects, events);
    assert_eq!(written, (17, 8, 18), "{:#?}, {:#?}", cluster.api.log, cluster.api.events);
}

#[test]
fn a_healthy_revision_is_promoted() {
    let mut cluster = Cluster::initialized();
    cluster.weights.clear();
    cluster.api.log.clear();
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.weights, [0, 10, 20, 30, 40, 50, 0]);
    assert_eq!((cluster.image("backend-primary"), cluster.replicas("backend-primary")), ("app:2".to_owned(), 2));
    let texts = cluster.api.texts();
    for text in [
        "New revision detected! Scaling up backend.prod",
        "Starting canary analysis for backend.prod",
        "Advance backend.prod canary weight 50",
        "Copying backend.prod template spec to backend-primary.prod",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down backend.prod",
    ] {
        assert_eq!(texts.iter().filter(|told| **told == text).count(), 1, "{text}: {texts:#?}");
    }
    let status = cluster.api.at(Kind::Canary, "backend", "/status");
    assert_eq!(status["canaryWeight"], json!(0));
    assert_eq!(status["lastAppliedSpec"], status["lastPromotedSpec"]);
    let copies = cluster.api.log.iter().filter(|it| *it == "apply Deployment backend-primary").count();
    assert_eq!(copies, 1, "{:#?}", cluster.api.log);
}

#[test]
fn an_annotation_of_the_template_is_a_revision() {
    let mut cluster = Cluster::initialized();
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        it["spec"]["template"]["metadata"]["annotations"] = json!({"release": "2"});
    });
    cluster.run_until(10, |it| it.phase() == "Progressing");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    let annotation = "/spec/template/metadata/annotations/release";
    assert_eq!(cluster.api.at(Kind::Deployment, "backend-primary", annotation), json!("2"));
}

/// Flagger goes beyond it where steps do not meet it.
#[test]
fn no_weight_is_above_the_highest_one() {
    let mut cluster = Cluster::initialized();
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["analysis"]["stepWeight"] = json!(20));
    cluster.run(50);
    cluster.weights.clear();
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.weights, [0, 20, 40, 50, 0]);
}

#[test]
fn a_broken_revision_is_rolled_back_and_scaled_down_once_it_is_drained() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(100, |it| it.weight() == 10);
    let failing = cluster.now;
    cluster.run_until(20, |it| it.weight() == 0);
    assert!(cluster.now.since(failing).as_millis() < 1_000, "out in less than a second");
    cluster.run_until(5, |it| it.phase() == "Failed");
    let failed = cluster.now;
    assert_eq!(cluster.replicas("backend"), 2, "it is drained first");
    cluster.run_until(40, |it| it.replicas("backend") == 0);
    assert!(cluster.now.since(failed).as_millis() >= 2_500);
    assert_eq!(cluster.image("backend-primary"), "app:1");
    let promoted = cluster.api.at(Kind::Canary, "backend", "/status/conditions/0/status");
    assert_eq!(promoted, json!("False"));
    // It is not tried again by itself; the next revision is.
    cluster.run(100);
    assert_eq!(cluster.phase(), "Failed");
    cluster.errors = 0;
    cluster.set_image("app:3");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:3");
}

/// Ten minutes in which a scaler moves the primary alone.
#[test]
fn what_was_rolled_back_stays_away_whoever_scales_the_primary() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.run(120);
    cluster.api.log.clear();
    cluster.weights.clear();
    for replicas in [3, 10, 3] {
        cluster.api.edit(Kind::Deployment, "backend-primary", |it| it["spec"]["replicas"] = json!(replicas));
        for _ in 0..2_000 {
            cluster.round();
            assert_eq!(cluster.replicas("backend"), 0);
        }
    }
    assert!(cluster.weights.iter().all(|weight| *weight == 0), "{:?}", cluster.weights);
    assert!(cluster.api.log.iter().all(|write| write == "status Canary backend"), "{:?}", cluster.api.log);
}

/// A template that went back has the revision of the primary again, whatever number its ReplicaSet has.
#[test]
fn what_goes_back_after_a_rollback_begins_nothing_and_may_come_again() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.set_image("app:1");
    cluster.run(100);
    let begun = |it: &Cluster| it.api.texts().iter().filter(|text| text.starts_with("New revision detected!")).count();
    assert_eq!((cluster.phase(), cluster.replicas("backend"), begun(&cluster)), ("Failed".to_owned(), 0, 1));
    assert_eq!(cluster.image("backend-primary"), "app:1");
    cluster.errors = 0;
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!((cluster.image("backend-primary"), begun(&cluster)), ("app:2".to_owned(), 2));
}

#[test]
fn a_revision_that_cannot_become_ready_has_no_requests() {
    for (image, rounds) in [("app:never", 700), ("app:hopeless", 20)] {
        let mut cluster = Cluster::initialized();
        cluster.weights.clear();
        cluster.set_image(image);
        cluster.run_until(rounds, |it| it.phase() == "Failed");
        assert!(cluster.weights.iter().all(|weight| *weight == 0), "{:?}", cluster.weights);
        cluster.run_until(40, |it| it.replicas("backend") == 0);
        assert_eq!(cluster.image("backend-primary"), "app:1");
    }
}

#[test]
fn a_new_revision_in_mid_rollout_begins_anew_without_requests() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 30);
    cluster.set_image("app:3");
    cluster.run(2);
    assert_eq!(cluster.weight(), 0);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:3");
}

#[test]
fn a_revision_that_comes_while_another_is_promoted_is_rolled_out_after_it() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Promoting" || it.image("backend-primary") == "app:2");
    cluster.set_image("app:3");
    cluster.run_until(20, |it| it.image("backend-primary") == "app:2");
    cluster.run_until(900, |it| it.phase() == "Succeeded" && it.image("backend-primary") == "app:3");
}

/// Sets `suspend`, and waits until a status shows all that it is to show: it is written every ten seconds.
fn suspend(cluster: &mut Cluster, is_suspended: bool) {
    cluster.api.edit(Kind::Canary, "backend", |it| it["spec"]["suspend"] = json!(is_suspended));
    cluster.run(120);
}

#[test]
fn a_suspended_rollout_stands_and_goes_on_from_where_it_stood() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 20);
    suspend(&mut cluster, true);
    let (written, events) = (cluster.api.log.len(), cluster.api.events.clone());
    cluster.api.stored = 0;
    cluster.run(300);
    assert_eq!((cluster.phase(), cluster.weight()), ("Progressing".to_owned(), 20));
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    assert!(conditions.as_array().unwrap().iter().any(|it| it["type"] == "Suspended"), "{conditions:#}");
    assert_eq!(cluster.api.log[written..], [""; 0]);
    assert_eq!((cluster.api.stored, &cluster.api.events), (0, &events));
    suspend(&mut cluster, false);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert!(cluster.weights.ends_with(&[0, 10, 20, 30, 40, 50, 0]), "{:?}", cluster.weights);
}

#[test]
fn what_is_suspended_at_rest_begins_nothing_until_it_is_resumed() {
    let mut cluster = Cluster::initialized();
    suspend(&mut cluster, true);
    cluster.api.log.clear();
    let events = cluster.api.events.clone();
    cluster.set_image("app:2");
    cluster.run(300);
    assert_eq!((cluster.phase(), cluster.replicas("backend")), ("Initialized".to_owned(), 0));
    // Which revision the target has is kept all the same.
    assert!(cluster.api.log.iter().all(|write| write == "record"), "{:?}", cluster.api.log);
    assert_eq!(cluster.api.events, events);
    suspend(&mut cluster, false);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:2");
}

#[test]
fn who_scales_the_target_at_rest_is_not_fought() {
    let mut cluster = Cluster::initialized();
    cluster.run(10);
    cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(2));
    cluster.run(100);
    assert_eq!(cluster.replicas("backend"), 2);
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    assert_eq!(conditions[2]["reason"], json!("ReplicasOwnedByOthers"), "{conditions:#}");
    assert_eq!(cluster.phase(), "Initialized", "the size of a target is no revision");
}

#[test]
fn a_target_that_has_pods_already_is_rolled_out_with_as_many() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.run(10);
    cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(3));
    cluster.run(10);
    cluster.errors = 0;
    cluster.api.log.clear();
    cluster.set_image("app:3");
    cluster.run_until(300, |it| it.weight() == 50);
    assert_eq!(cluster.replicas("backend"), 3, "the primary has 2");
    let scaled = |write: &String| write.starts_with("scale Deployment backend to");
    assert!(!cluster.api.log.iter().any(scaled), "{:?}", cluster.api.log);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
}

#[test]
fn a_target_that_is_scaled_away_in_mid_rollout_gets_no_requests() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 30);
    cluster.skips_checks = true;
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        it["spec"]["replicas"] = json!(0);
        it["scaledBy"] = json!("kubectl");
    });
    cluster.run_until(3, |it| it.weight() == 0);
    cluster.run(30);
    assert_eq!((cluster.weight(), cluster.phase()), (0, "Progressing".to_owned()));
    let conditions = cluster.api.at(Kind::Canary, "backend", "/status/conditions");
    assert_eq!(conditions[2]["reason"], json!("ReplicasOwnedByOthers"), "{conditions:#}");
    let message = conditions[2]["message"].as_str().unwrap();
    assert!(message.starts_with("kubectl gave the target 0 Pods"), "{message}");
}

#[test]
fn a_fix_replaces_a_primary_that_is_gone() {
    let mut cluster = Cluster::initialized();
    // Its node was lost, say: none of its Pods comes back. At rest there is nobody to answer for it.
    cluster.skips_checks = true;
    cluster.api.is_broken = Some("backend-primary".to_owned());
    cluster.run(3);
    cluster.set_image("app:2");
    cluster.run_until(10, |it| it.replicas("backend") == 2);
    cluster.run(3);
    cluster.skips_checks = false;
    assert_eq!(cluster.weight(), 0, "it may come back, and requests with it");
    cluster.run_until(40, |it| it.weight() == 100);
    cluster.run_until(5, |it| it.image("backend-primary") == "app:2");
    // A second fix comes while the first one has all requests.
    cluster.set_image("app:3");
    cluster.run(20);
    cluster.api.is_broken = None;
    cluster.run_until(500, |it| it.phase() == "Succeeded" && it.image("backend-primary") == "app:3");
    cluster.run_until(100, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
}

/// A probe that fails once moves requests, and nothing else.
#[test]
fn a_primary_that_is_away_for_a_moment_is_not_replaced() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 10);
    cluster.api.is_broken = Some("backend-primary".to_owned());
    cluster.run(20);
    cluster.api.is_broken = None;
    cluster.run(3);
    assert_eq!((cluster.phase(), cluster.image("backend-primary")), ("Progressing".into(), "app:1".into()));
    cluster.run_until(600, |it| it.phase() == "Succeeded");
}

/// A write of another phase that is late is not the last word.
#[test]
fn what_is_on_its_way_and_not_wanted_any_more_is_followed_by_what_is() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed");
    // Nobody hears of what came of this one.
    cluster.api.log.clear();
    cluster.api.is_silent = Some("scale Deployment backend to 0");
    cluster.run_until(150, |it| it.api.log.iter().any(|write| write == "scale Deployment backend to 0"));
    cluster.errors = 0;
    cluster.api.is_silent = None;
    cluster.api.edit(Kind::Deployment, "backend", |it| it["spec"]["replicas"] = json!(2));
    cluster.set_image("app:3");
    cluster.api.log.clear();
    cluster.run(5);
    assert!(cluster.api.log.iter().any(|write| write == "scale Deployment backend to 2"), "{:?}", cluster.api.log);
    cluster.run_until(600, |it| it.phase() == "Succeeded");
}

#[test]
fn a_primary_that_is_made_anew_is_as_large_as_it_was() {
    let mut cluster = Cluster::initialized();
    cluster.run(5);
    cluster.api.edit(Kind::Deployment, "backend-primary", |it| it["spec"]["replicas"] = json!(7));
    cluster.set_image("app:2");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.replicas("backend-primary"), 7, "a scaler's size is kept");
    cluster.skips_checks = true;
    cluster.api.delete(Kind::Deployment, "backend-primary");
    cluster.run_until(20, |it| it.replicas("backend-primary") == 7);
    assert_eq!(cluster.image("backend-primary"), "app:2");
}

#[test]
fn a_promotion_that_cannot_become_ready_stays_on_the_canary() {
    let mut cluster = Cluster::initialized();
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.weight() == 50);
    cluster.run_until(100, |it| it.image("backend-primary") == "app:2");
    cluster.api.is_broken = Some("backend-primary".to_owned());
    cluster.run_until(700, |it| it.phase() == "Failed");
    cluster.run(100);
    assert_eq!(cluster.replicas("backend"), 2, "it has all requests");
    assert!(cluster.api.texts().iter().any(|text| text.starts_with("Promotion of backend.prod failed")));
}

#[test]
fn a_command_of_an_annotation_acts_once_also_across_a_restart() {
    let mut cluster = Cluster::initialized();
    let annotate = |cluster: &mut Cluster, command: &str| {
        cluster.api.edit(Kind::Canary, "backend", |it| {
            it["metadata"]["annotations"] = json!({"wingbeat.dev/command": command});
        });
    };
    annotate(&mut cluster, "abort/early");
    cluster.run(3);
    let texts = cluster.api.texts();
    assert!(texts.iter().any(|text| text.starts_with("The command is refused: ")), "{texts:?}");
    cluster.set_image("app:2");
    cluster.run_until(200, |it| it.weight() == 10);
    for wrong in ["abort", "stop/1"] {
        annotate(&mut cluster, wrong);
        cluster.run(3);
        let accepted = cluster.api.at(Kind::Canary, "backend", "/status/conditions/1");
        let message = accepted["message"].as_str().unwrap();
        assert!(message.starts_with("metadata.annotations[wingbeat.dev/command]: "), "{message}");
    }
    annotate(&mut cluster, "abort/incident-17");
    cluster.run_until(5, |it| it.phase() == "Failed");
    cluster.run(20);
    cluster.restart();
    cluster.set_image("app:3");
    cluster.run_until(600, |it| it.phase() == "Succeeded");
    assert_eq!(cluster.commands, ["early", "incident-17"]);
}
