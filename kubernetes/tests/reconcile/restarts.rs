//! Wherever the controller dies, the next one ends what it had begun.

use proptest::prelude::*;
use serde_json::json;
use wingbeat_kubernetes::world::Kind;

use crate::api_server::merge;
use crate::cluster::{Cluster, Crash};

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![(0_usize..6).prop_map(Crash::Writes), Just(Crash::Engine)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_rollout_ends_as_without_a_crash(rounds in 1_usize..140, crash in crash(), is_broken: bool) {
        let mut cluster = Cluster::new();
        cluster.crash = Some((rounds, crash));
        cluster.create();
        cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
        cluster.errors = if is_broken { 10 } else { 0 };
        cluster.set_image("app:2");
        let (phase, image) = if is_broken { ("Failed", "app:1") } else { ("Succeeded", "app:2") };
        cluster.run_until(600, |it| it.phase() == phase && it.replicas("backend") == 0);
        prop_assert_eq!(cluster.image("backend-primary"), image);
        prop_assert_eq!(cluster.weight(), 0);
        // It may die after all is done, and has something to note then.
        cluster.run(rounds.saturating_sub(cluster.rounds) + 20);
        let written = cluster.api.log.len();
        cluster.run(100);
        prop_assert_eq!(cluster.api.log.len(), written, "{:?}", cluster.api.log);
    }
}

/// What is told of a step is stored with it: who dies between the two leaves it to the next.
#[test]
fn wherever_it_dies_each_text_is_told_once() {
    let texts = |crash: Option<(usize, Crash)>, is_broken: bool| {
        let mut cluster = Cluster::initialized();
        cluster.errors = if is_broken { 10 } else { 0 };
        cluster.crash = crash.map(|(rounds, crash)| (cluster.rounds + rounds, crash));
        cluster.set_image("app:2");
        let phase = if is_broken { "Failed" } else { "Succeeded" };
        cluster.run_until(600, |it| it.phase() == phase && it.replicas("backend") == 0);
        cluster.run(20);
        let counted = |text: &str| cluster.api.texts().iter().filter(|it| **it == text).count();
        let of_steps = cluster.api.texts().into_iter().filter(|text| {
            let is_of_step =
                ["New revision", "Starting", "Advance", "Copying", "Routing", "Promotion", "Canary failed"];
            is_of_step.iter().any(|it| text.starts_with(it))
        });
        of_steps.map(|text| (counted(text), text.to_owned())).collect::<std::collections::BTreeSet<_>>()
    };
    for is_broken in [false, true] {
        let whole = texts(None, is_broken);
        assert!(whole.iter().all(|(count, _)| *count == 1), "{whole:?}");
        for rounds in (1..if is_broken { 40 } else { 160 }).step_by(2) {
            assert_eq!(texts(Some((rounds, Crash::Engine)), is_broken), whole, "killed in round {rounds}");
        }
    }
}

#[test]
fn what_is_told_again_is_of_the_rollout_that_it_was_told_of() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed");
    cluster.set_image("app:3");
    cluster.run_until(50, |it| it.phase() == "Progressing");
    cluster.restart();
    cluster.run(5);
    let failed = cluster.api.texts().iter().filter(|text| text.starts_with("Canary failed!")).count();
    assert_eq!((cluster.phase().as_str(), failed), ("Progressing", 1));
}

/// What the primary runs is what was promoted: a template that failed is not taken for it.
#[test]
fn where_the_state_is_lost_a_rollout_begins_from_what_the_primary_runs() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.lose_state();
    cluster.run_until(10, |it| it.phase() == "Progressing");
    assert_eq!(cluster.image("backend-primary"), "app:1");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:1");
}

/// One of two Pods is being moved: what the others serve is not overwritten by what the target asks for, which has failed.
#[test]
fn where_the_state_is_lost_a_primary_that_is_incomplete_is_not_overwritten() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.api.is_incomplete = Some("backend-primary".to_owned());
    cluster.run(3);
    cluster.lose_state();
    cluster.run_until(10, |it| it.split().is_some());
    cluster.run(30);
    assert_eq!(cluster.image("backend-primary"), "app:1");
    cluster.api.is_incomplete = None;
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:1");
}

/// What it names is gone since: it goes on, and nothing is moved on without what it asks for.
#[test]
fn a_canary_that_was_served_is_served_after_a_restart_whatever_is_missing() {
    let mut cluster = Cluster::initialized();
    let template = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "MetricTemplate",
        "spec": {"provider": {"type": "prometheus", "address": "http://prometheus:9090"}, "query": "sum(queue)"},
    });
    cluster.api.edit(Kind::MetricTemplate, "queue", |it| merge(it, &template));
    cluster.api.edit(Kind::Canary, "backend", |it| {
        it["spec"]["analysis"]["metrics"] =
            json!([{"name": "queue", "templateRef": {"name": "queue"}, "thresholdRange": {"max": 5}, "interval": "1m"}]);
    });
    cluster.run(5);
    cluster.api.delete(Kind::MetricTemplate, "queue");
    cluster.run(5);
    cluster.restart();
    cluster.run(5);
    assert!(cluster.split().is_some(), "it is served");
    let phase = cluster.phase();
    assert_eq!(phase, "Initialized");
    cluster.set_image("app:2");
    cluster.run(100);
    assert_eq!(cluster.phase(), "Initialized", "nothing is begun");
    cluster.api.edit(Kind::MetricTemplate, "queue", |it| merge(it, &template));
    cluster.run_until(20, |it| it.phase() == "Progressing");
}
