//! Our definitions, as a real API server takes them.

use serde_json::json;

use crate::support::Place;

#[tokio::test]
async fn real_kubernetes_takes_our_definitions_and_keeps_what_is_written() {
    let Some(place) = Place::begin("real_kubernetes_takes_our_definitions").await else { return };
    let mut flaggers = place.canary("flaggers");
    flaggers["apiVersion"] = json!("flagger.app/v1beta1");
    let mut old = place.canary("old");
    old["apiVersion"] = json!("flagger.app/v1alpha3");
    let listener = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "metadata": {"name": "http"},
        "spec": {"address": "0.0.0.0", "port": 8080},
    });
    place.create(&[place.canary("ours"), flaggers, old, listener]).await;
    let ours = place.get("canaries.wingbeat.dev", "ours").await;
    assert_eq!(ours["spec"], place.canary("ours")["spec"], "no field is dropped and no default written");
    // What was written in 2019 is read as what is stored.
    let old = place.get("canaries.v1beta1.flagger.app", "old").await;
    assert_eq!(old["apiVersion"], "flagger.app/v1beta1");
    assert_eq!(place.get("listeners.wingbeat.dev", "http").await["spec"]["port"], 8080);
    for (group, kinds) in [("wingbeat.dev", 5), ("flagger.app", 3)] {
        let output = format!("--output=jsonpath={{.items[?(@.spec.group==\"{group}\")].metadata.name}}");
        let names = place.kubectl(&["get", "customresourcedefinitions", &output]).await;
        assert_eq!(names.split_whitespace().count(), kinds, "{names}");
    }
    // Nothing is wrong with them that the API server would put into a condition.
    let wrong = "--output=jsonpath={.items[*].status.conditions[?(@.type==\"NonStructuralSchema\")].message}";
    assert_eq!(place.kubectl(&["get", "customresourcedefinitions", wrong]).await, "");
}

/// The API server checks rules between fields by itself: what breaks them never comes to the controller.
#[tokio::test]
async fn real_kubernetes_refuses_an_analysis_of_two_ways_and_of_none() {
    let Some(place) = Place::begin("real_kubernetes_refuses_an_analysis").await else { return };
    let one_of = "use one of stepWeight, stepWeights and iterations";
    let no_steps = "analysis has no steps, set stepWeight, stepWeights or iterations";
    for (api, field, neither) in [
        ("wingbeat.dev/v1alpha1", "analysis", no_steps),
        ("flagger.app/v1beta1", "analysis", one_of),
        ("flagger.app/v1alpha3", "canaryAnalysis", one_of),
    ] {
        for (analysis, wrong) in [
            (json!({"interval": "1s", "threshold": 5, "stepWeight": 10, "iterations": 3}), one_of),
            (json!({"interval": "1s", "threshold": 5}), neither),
        ] {
            let mut canary = place.canary("refused");
            canary["apiVersion"] = json!(api);
            canary["spec"] =
                json!({"targetRef": canary["spec"]["targetRef"], "service": {"port": 80}, field: analysis});
            let refused = place.cluster.apply(&canary.to_string()).await.expect_err("it is refused").to_string();
            assert!(refused.contains(wrong), "{api}: {refused}");
        }
    }
}
