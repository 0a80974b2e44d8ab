//! ConfigMaps and Secrets: a change of one is rolled out as one of the template is.

use serde_json::{Value, json};
use wingbeat_kubernetes::world::Kind;

use crate::api_server::merge;
use crate::cluster::{Cluster, canary, target};

/// Returns a cluster with a canary at rest whose Pods mount a ConfigMap, and read a Secret.
fn initialized() -> Cluster {
    let mut cluster = Cluster::new();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}, "binaryData": {"logo": "AAE="}}));
    set(&mut cluster, Kind::Secret, "token", &json!({"type": "Opaque", "data": {"token": "czNjcjN0"}}));
    create(&mut cluster);
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    cluster.run(5);
    cluster
}

fn create(cluster: &mut Cluster) {
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        merge(it, &target("app:1"));
        refer(it, "backend");
    });
    cluster.api.edit(Kind::Canary, "backend", |it| merge(it, &canary()));
}

fn refer(target: &mut Value, name: &str) {
    target["metadata"]["name"] = json!(name);
    let pod = &mut target["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "settings", "configMap": {"name": "settings"}}]);
    pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "token"}}]);
}

fn set(cluster: &mut Cluster, kind: Kind, name: &str, content: &Value) {
    cluster.api.edit(kind, name, |it| merge(it, content));
}

fn recolor(cluster: &mut Cluster, color: &str) {
    set(cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": color}}));
}

fn color(cluster: &Cluster, name: &str) -> Value {
    cluster.api.at(Kind::ConfigMap, name, "/data/color")
}

fn restarts(cluster: &Cluster, text: &str) -> usize {
    cluster.api.texts().iter().filter(|it| it.starts_with(text)).count()
}

const NEW: &str = "New revision detected! Scaling up";

#[test]
fn a_primary_reads_copies() {
    let cluster = initialized();
    let pod = cluster.api.at(Kind::Deployment, "backend-primary", "/spec/template/spec");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], json!("settings-primary"));
    assert_eq!(pod["containers"][0]["envFrom"][0]["secretRef"]["name"], json!("token-primary"));
    for (kind, name) in [(Kind::ConfigMap, "settings"), (Kind::Secret, "token")] {
        for field in ["/data", "/binaryData", "/type"] {
            let copy = cluster.api.at(kind, &format!("{name}-primary"), field);
            assert_eq!(copy, cluster.api.at(kind, name, field), "{name} {field}");
        }
        let owner = cluster.api.at(kind, &format!("{name}-primary"), "/metadata/ownerReferences/0/uid");
        assert_eq!(owner, cluster.api.at(Kind::Canary, "backend", "/metadata/uid"));
    }
    let copied = cluster.api.log.iter().position(|it| it == "apply ConfigMap settings-primary");
    let made = cluster.api.log.iter().position(|it| it == "apply Deployment backend-primary");
    assert!(copied < made, "{:?}", cluster.api.log);
    // The Canary's status and what is stored of it hold nothing of what is in a Secret.
    let stored = cluster.api.at(Kind::CanaryState, "backend", "/status").to_string();
    assert!(!stored.contains("czNjcjN0") && stored.contains("secret/token"), "{stored}");
}

#[test]
fn at_rest_nothing_is_read_or_written() {
    let mut cluster = initialized();
    // What is kept beside the engine's record is stored by then.
    cluster.run(50);
    let (reads, log) = (cluster.api.reads.clone(), cluster.api.log.clone());
    cluster.run(1_000);
    assert_eq!((cluster.api.reads.len(), cluster.api.log.len(), cluster.due), (reads.len(), log.len(), None));
}

#[test]
fn a_change_of_data_is_rolled_out_and_the_copy_is_changed_before_the_template() {
    let mut cluster = initialized();
    cluster.api.log.clear();
    cluster.api.reads.clear();
    recolor(&mut cluster, "green");
    cluster.run_until(10, |it| it.phase() == "Progressing");
    assert_eq!(cluster.api.reads, ["Whole ConfigMap settings"]);
    cluster.run_until(300, |it| it.weight() == 50);
    assert_eq!(color(&cluster, "settings-primary"), json!("blue"), "the primary's are not changed before");
    cluster.run_until(300, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(color(&cluster, "settings-primary"), json!("green"));
    let place = |write: &str| {
        let found = cluster.api.log.iter().position(|it| it == write);
        found.unwrap_or_else(|| panic!("{write} is not among {:?}", cluster.api.log))
    };
    assert!(place("apply ConfigMap settings-primary-before") < place("apply ConfigMap settings-primary"));
    assert!(place("apply ConfigMap settings-primary") < place("apply Deployment backend-primary"));
    assert!(!cluster.api.log.iter().any(|it| it.contains("Secret")), "{:?}", cluster.api.log);
    cluster.run(20);
    assert_eq!(color(&cluster, "settings-primary-before"), Value::Null, "it is over");
    let log = cluster.api.log.clone();
    cluster.run(100);
    assert_eq!((cluster.api.log.len(), restarts(&cluster, NEW)), (log.len(), 1));
}

#[test]
fn a_change_in_mid_rollout_starts_the_canarys_pods_again_without_requests() {
    let mut cluster = initialized();
    recolor(&mut cluster, "green");
    cluster.run_until(300, |it| it.weight() == 20);
    cluster.api.log.clear();
    cluster.weights.clear();
    recolor(&mut cluster, "red");
    cluster.run_until(3, |it| it.weight() == 0);
    assert_eq!(cluster.replicas("backend"), 2, "it is drained first");
    cluster.run_until(60, |it| it.replicas("backend") == 0);
    assert!(cluster.weights.iter().all(|weight| *weight == 0), "{:?}", cluster.weights);
    cluster.run_until(10, |it| it.replicas("backend") == 2);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(color(&cluster, "settings-primary"), json!("red"));
    let scaled: Vec<&String> = cluster.api.log.iter().filter(|it| it.contains("backend to")).collect();
    assert_eq!(
        scaled,
        ["scale Deployment backend to 0", "scale Deployment backend to 2", "scale Deployment backend to 0"]
    );
}

#[test]
fn a_change_that_is_taken_back_in_mid_rollout_ends_it() {
    let mut cluster = initialized();
    recolor(&mut cluster, "green");
    cluster.run_until(300, |it| it.weight() == 20);
    recolor(&mut cluster, "blue");
    cluster.run_until(20, |it| it.weight() == 0);
    cluster.run_until(60, |it| it.replicas("backend") == 0);
    cluster.run(50);
    assert_eq!((color(&cluster, "settings-primary"), restarts(&cluster, NEW)), (json!("blue"), 1));
}

#[test]
fn binary_data_alone_is_a_change() {
    let mut cluster = initialized();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"binaryData": {"logo": "AAI="}}));
    cluster.run_until(10, |it| it.phase() == "Progressing");
    cluster.run_until(600, |it| it.phase() == "Succeeded");
    assert_eq!(cluster.api.at(Kind::ConfigMap, "settings-primary", "/binaryData"), json!({"logo": "AAI="}));
}

#[test]
fn a_change_of_labels_is_read_once_and_is_none() {
    let mut cluster = initialized();
    cluster.api.reads.clear();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"metadata": {"labels": {"team": "a"}}}));
    cluster.run(50);
    assert_eq!(
        (cluster.api.reads.as_slice(), restarts(&cluster, NEW)),
        (&["Whole ConfigMap settings".to_owned()][..], 0)
    );
}

#[test]
fn who_says_that_it_is_not_tracked_is_shared() {
    let mut cluster = Cluster::new();
    let off =
        json!({"metadata": {"annotations": {"flagger.app/config-tracking": "disabled"}}, "data": {"color": "blue"}});
    set(&mut cluster, Kind::ConfigMap, "settings", &off);
    // Registry credentials belong to kubelets.
    let credentials = json!({"type": "kubernetes.io/dockerconfigjson", "data": {"a": "AA=="}});
    set(&mut cluster, Kind::Secret, "token", &credentials);
    create(&mut cluster);
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    let pod = cluster.api.at(Kind::Deployment, "backend-primary", "/spec/template/spec");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], json!("settings"));
    assert_eq!(pod["containers"][0]["envFrom"][0]["secretRef"]["name"], json!("token"));
    recolor(&mut cluster, "green");
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"a": "AQ=="}}));
    cluster.run(50);
    assert_eq!(restarts(&cluster, NEW), 0);
    assert_eq!(cluster.api.get(Kind::ConfigMap, "settings-primary"), None);
    // It is tracked from now on: nothing begins, and its next change does.
    set(
        &mut cluster,
        Kind::ConfigMap,
        "settings",
        &json!({"metadata": {"annotations": {"flagger.app/config-tracking": "enabled"}}}),
    );
    cluster.run(50);
    assert_eq!(restarts(&cluster, NEW), 0);
    recolor(&mut cluster, "red");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(color(&cluster, "settings-primary"), json!("red"));
}

#[test]
fn what_cannot_be_read_is_no_change_and_is_read_again() {
    let mut cluster = initialized();
    cluster.api.is_unreadable = Some("settings");
    cluster.api.reads.clear();
    recolor(&mut cluster, "green");
    cluster.run(200);
    assert_eq!((cluster.phase(), restarts(&cluster, NEW)), ("Initialized".to_owned(), 0));
    assert!((4..=6).contains(&cluster.api.reads.len()), "{:?}", cluster.api.reads);
    assert_eq!(restarts(&cluster, "settings cannot be read"), 1, "once: {:?}", cluster.api.texts());
    // Neither is it after a restart, with or without an answer.
    cluster.restart();
    cluster.run(200);
    assert_eq!((cluster.phase(), restarts(&cluster, NEW)), ("Initialized".to_owned(), 0));
    cluster.api.is_unreadable = None;
    cluster.run_until(200, |it| it.phase() == "Progressing");
    cluster.run_until(600, |it| it.phase() == "Succeeded");
}

/// Five minutes in which every third read fails and labels change each second. The controller starts anew twice, with a
/// read that fails.
#[test]
fn reads_that_fail_now_and_then_are_no_change_and_no_trouble() {
    let mut cluster = initialized();
    for second in 0..300 {
        if second == 100 || second == 200 {
            cluster.restart();
            cluster.api.reads.clear();
        }
        let labels = json!({"metadata": {"labels": {"second": second.to_string()}}});
        set(&mut cluster, Kind::ConfigMap, "settings", &labels);
        for _ in 0..10 {
            cluster.api.is_unreadable = cluster.api.reads.len().is_multiple_of(3).then_some("settings");
            cluster.round();
        }
    }
    assert!(cluster.api.reads.len() >= 100, "{:?}", cluster.api.reads);
    assert_eq!((cluster.phase(), restarts(&cluster, NEW)), ("Initialized".to_owned(), 0));
    assert_eq!(restarts(&cluster, "settings cannot be read"), 0, "none of them lasts");
    cluster.api.is_unreadable = None;
    recolor(&mut cluster, "green");
    cluster.run_until(20, |it| it.phase() == "Progressing");
}

#[test]
fn a_restart_finds_what_was_known_and_what_changed_meanwhile() {
    let mut cluster = initialized();
    cluster.restart();
    cluster.run(50);
    assert_eq!(restarts(&cluster, NEW), 0);
    recolor(&mut cluster, "green");
    cluster.restart();
    cluster.run_until(20, |it| it.phase() == "Progressing");
    cluster.run_until(300, |it| it.weight() == 30);
    cluster.restart();
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!((color(&cluster, "settings-primary"), restarts(&cluster, NEW)), (json!("green"), 1));
}

/// A controller of the release before knew nothing of them: its CanaryState is without, and its primary refers to the originals.
#[test]
fn what_is_tracked_from_now_on_starts_no_rollout() {
    let mut cluster = Cluster::new();
    cluster.settings.tracks_configs = false;
    cluster.restart();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}}));
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"token": "AA=="}}));
    create(&mut cluster);
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    recolor(&mut cluster, "red");
    cluster.run(20);
    assert_eq!((restarts(&cluster, NEW), cluster.api.reads.len()), (0, 0), "they are off");
    cluster.settings.tracks_configs = true;
    cluster.restart();
    cluster.run(50);
    assert_eq!((restarts(&cluster, NEW), cluster.api.get(Kind::ConfigMap, "settings-primary")), (0, None));
    recolor(&mut cluster, "green");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    let pod = cluster.api.at(Kind::Deployment, "backend-primary", "/spec/template/spec");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], json!("settings-primary"));
    assert_eq!(color(&cluster, "settings-primary"), json!("green"));
}

#[test]
fn what_is_missing_is_named_and_what_is_optional_may_be_missing() {
    let mut cluster = Cluster::new();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}}));
    create(&mut cluster);
    cluster.run(50);
    assert_eq!(cluster.api.get(Kind::Deployment, "backend-primary"), None);
    let missing = "Secret token.prod is not there, and Deployment backend.prod refers to it";
    assert_eq!(restarts(&cluster, missing), 1, "{:?}", cluster.api.texts());
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        it["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["optional"] = json!(true);
    });
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    let secret = "/spec/template/spec/containers/0/envFrom/0/secretRef/name";
    assert_eq!(cluster.api.at(Kind::Deployment, "backend-primary", secret), json!("token"));
    // From now on Pods would read it.
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"token": "AA=="}}));
    cluster.run_until(10, |it| it.phase() == "Progressing");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.api.at(Kind::Deployment, "backend-primary", secret), json!("token-primary"));
    // One that Pods cannot do without is no configuration when it is gone.
    cluster.api.delete(Kind::ConfigMap, "settings");
    cluster.run(50);
    assert_eq!((cluster.phase(), restarts(&cluster, NEW)), ("Succeeded".to_owned(), 1));
}

#[test]
fn a_config_map_of_two_canaries_is_promoted_for_each() {
    let mut cluster = Cluster::new();
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}}));
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"token": "AA=="}}));
    create(&mut cluster);
    cluster.api.edit(Kind::Deployment, "frontend", |it| {
        let mut other = target("app:1");
        other["spec"]["selector"]["matchLabels"]["app"] = json!("frontend");
        other["spec"]["template"]["metadata"]["labels"]["app"] = json!("frontend");
        refer(&mut other, "frontend");
        merge(it, &other);
    });
    cluster.api.edit(Kind::Canary, "frontend", |it| {
        let mut other = canary();
        other["metadata"]["name"] = json!("frontend");
        other["spec"]["targetRef"]["name"] = json!("frontend");
        // Its rollout waits for somebody to confirm it, which nobody does.
        other["spec"]["analysis"]["webhooks"] =
            json!([{"name": "gate", "type": "confirm-rollout", "url": "http://gate/"}]);
        merge(it, &other);
    });
    let is_at_rest = |it: &Cluster, name: &str| {
        it.api.at(Kind::Canary, name, "/status/phase") == json!("Initialized") && it.replicas(name) == 0
    };
    cluster.run_until(200, |it| is_at_rest(it, "backend") && is_at_rest(it, "frontend"));
    let mounted = |it: &Cluster, name: &str| {
        it.api.at(Kind::Deployment, name, "/spec/template/spec/volumes/0/configMap/name").as_str().unwrap().to_owned()
    };
    let (one, other) = (mounted(&cluster, "backend-primary"), mounted(&cluster, "frontend-primary"));
    assert_eq!((one.as_str(), other.as_str()), ("settings-primary", "settings-frontend-primary"));
    let template = cluster.api.at(Kind::Deployment, "frontend-primary", "/spec/template");
    recolor(&mut cluster, "green");
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert_eq!(cluster.api.at(Kind::Canary, "frontend", "/status/phase"), json!("Waiting"));
    assert_eq!((color(&cluster, &one), color(&cluster, &other)), (json!("green"), json!("blue")));
    assert_eq!(cluster.api.at(Kind::Deployment, "frontend-primary", "/spec/template"), template);
    cluster.restart();
    cluster.run(50);
    assert_eq!((color(&cluster, &one), color(&cluster, &other)), (json!("green"), json!("blue")));
}

#[test]
fn of_88_secrets_the_one_that_changed_is_read() {
    let mut cluster = Cluster::new();
    cluster.api.edit(Kind::Deployment, "backend", |it| {
        merge(it, &target("app:1"));
        let from: Vec<Value> = (0..88).map(|place| json!({"secretRef": {"name": format!("s-{place}")}})).collect();
        it["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!(from);
    });
    for place in 0..88 {
        set(&mut cluster, Kind::Secret, &format!("s-{place}"), &json!({"data": {"a": "AA=="}}));
    }
    // One that nobody refers to is nobody's business.
    set(&mut cluster, Kind::Secret, "other", &json!({"data": {"a": "AA=="}}));
    cluster.api.edit(Kind::Canary, "backend", |it| merge(it, &canary()));
    cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    cluster.run(10);
    assert!(!cluster.api.reads.iter().any(|it| it.ends_with("other")));
    cluster.api.reads.clear();
    set(&mut cluster, Kind::Secret, "other", &json!({"data": {"a": "AQ=="}}));
    set(&mut cluster, Kind::Secret, "s-17", &json!({"data": {"a": "AQ=="}}));
    cluster.run_until(10, |it| it.phase() == "Progressing");
    assert_eq!(cluster.api.reads, ["Whole Secret s-17"]);
    cluster.run_until(600, |it| it.phase() == "Succeeded" && it.replicas("backend") == 0);
    assert!(cluster.api.reads.iter().all(|it| it.contains("s-17")), "{:?}", cluster.api.reads);
    assert_eq!(cluster.api.at(Kind::Secret, "s-17-primary", "/data/a"), json!("AQ=="));
}

/// "Back" exists in every phase (P27): the promotion cannot become ready, and what served is what the target asks for again.
#[test]
fn a_promotion_that_cannot_become_ready_is_taken_back_with_its_data() {
    let mut cluster = initialized();
    recolor(&mut cluster, "green");
    cluster.run_until(300, |it| it.weight() == 50);
    cluster.run_until(100, |it| color(it, "settings-primary") == json!("green"));
    cluster.api.is_broken = Some("backend-primary".to_owned());
    assert_eq!(color(&cluster, "settings-primary-before"), json!("blue"));
    cluster.run_until(700, |it| it.phase() == "Failed");
    cluster.api.is_broken = None;
    recolor(&mut cluster, "blue");
    cluster.run_until(100, |it| color(it, "settings-primary") == json!("blue"));
    cluster.run_until(100, |it| !it.endpoints("prod/backend").is_empty() || it.phase() == "Failed");
    cluster.run(50);
    assert_eq!(color(&cluster, "settings-primary"), json!("blue"));
}

#[test]
fn a_change_while_another_is_promoted_is_rolled_out_after_it() {
    let mut cluster = initialized();
    recolor(&mut cluster, "green");
    cluster.run_until(300, |it| color(it, "settings-primary") == json!("green"));
    recolor(&mut cluster, "red");
    cluster.run(5);
    assert_eq!(color(&cluster, "settings-primary"), json!("green"));
    cluster.run_until(900, |it| it.phase() == "Succeeded" && color(it, "settings-primary") == json!("red"));
    assert_eq!(restarts(&cluster, NEW), 2);
}

#[test]
fn a_copy_that_somebody_deletes_is_made_again() {
    let mut cluster = initialized();
    cluster.api.delete(Kind::ConfigMap, "settings-primary");
    cluster.run_until(5, |it| color(it, "settings-primary") == json!("blue"));
    cluster.run(20);
    assert_eq!(restarts(&cluster, NEW), 0);
}

#[test]
fn what_belongs_to_others_is_not_overwritten() {
    let mut cluster = Cluster::new();
    let others = json!({"data": {"color": "mine"}});
    set(&mut cluster, Kind::ConfigMap, "settings-primary", &others);
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}}));
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"token": "AA=="}}));
    create(&mut cluster);
    cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
    assert_eq!(
        (color(&cluster, "settings-primary"), color(&cluster, "settings-backend-primary")),
        (json!("mine"), json!("blue"))
    );
    let mut cluster = Cluster::new();
    for name in ["settings-primary", "settings-backend-primary"] {
        set(&mut cluster, Kind::ConfigMap, name, &others);
    }
    set(&mut cluster, Kind::ConfigMap, "settings", &json!({"data": {"color": "blue"}}));
    set(&mut cluster, Kind::Secret, "token", &json!({"data": {"token": "AA=="}}));
    create(&mut cluster);
    cluster.run(30);
    assert_eq!(restarts(&cluster, "ConfigMap settings.prod cannot be copied for the primary, as"), 1);
}
