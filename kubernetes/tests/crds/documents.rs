//! Documents that a definition takes or refuses, by a validator. Rules in CEL are for an API server; here, they are read.

use super::*;

/// What Flagger's users write, each a canary of the guide.
const GUIDE: [(&str, &str); 3] = [
    ("flagger.app/v1alpha3", include_str!("guide-v1alpha3.yaml")),
    ("flagger.app/v1alpha3", include_str!("guide-frontend-v1alpha3.yaml")),
    ("flagger.app/v1beta1", include_str!("guide-v1beta1.yaml")),
];

/// Returns what a validator says of a document. `exclusiveMinimum` is that of draft 4.
fn refusals(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft4).build(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn read(text: &str) -> Value {
    wingbeat_api::yaml::parse(text).unwrap().remove(0).to_json()
}

/// Returns the fields of a document that a schema does not know: an API server would drop them.
fn pruned(path: &str, schema: &Value, value: &Value) -> Vec<String> {
    if schema["x-kubernetes-preserve-unknown-fields"] == true || path == ".metadata" {
        return Vec::new();
    }
    match value {
        Value::Object(fields) if schema["additionalProperties"].is_object() => fields
            .iter()
            .flat_map(|(name, value)| pruned(&format!("{path}.{name}"), &schema["additionalProperties"], value))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let (path, inner) = (format!("{path}.{name}"), &schema["properties"][name]);
                if inner.is_null() { vec![path] } else { pruned(&path, inner, value) }
            })
            .collect(),
        Value::Array(items) => {
            items.iter().flat_map(|item| pruned(&format!("{path}[]"), &schema["items"], item)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn the_canaries_of_the_guide_are_taken_whole() {
    for (api_version, text) in GUIDE {
        let document = read(text);
        assert_eq!(document["apiVersion"], api_version);
        for api_version in ["flagger.app/v1beta1", "flagger.app/v1alpha3"] {
            let schema = Version::of(api_version, "Canary").schema;
            assert_eq!(refusals(&schema, &document), Vec::<String>::new(), "{document}");
            assert_eq!(pruned("", &schema, &document), Vec::<String>::new(), "{document}");
        }
    }
}

/// Beside the rules in CEL, `flagger.app` refuses what Flagger's own definitions refuse, and little of it.
#[test]
fn flagger_app_has_flaggers_words_types_and_patterns() {
    let schema = Version::of("flagger.app/v1beta1", "Canary").schema;
    let base = read(include_str!("guide-v1beta1.yaml"));
    for (path, value, is_taken) in [
        ("spec.analysis.interval", json!("1h"), false),
        ("spec.analysis.interval", json!("1m30s"), true),
        ("spec.analysis.interval", json!("5s"), true),
        ("spec.analysis.metrics[].interval", json!("1h"), false),
        ("spec.service.timeout", json!("1h"), true),
        ("spec.service.timeout", json!(15), false),
        ("spec.service.retries", json!({"perTryTimeout": "1s"}), true),
        ("spec.service.targetPort", json!("http"), true),
        ("spec.service.targetPort", json!(9898), true),
        ("spec.service.port", json!("9898"), false),
        ("spec.service.rewrite", json!({"uri": "no path"}), true),
        ("spec.service.trafficDistribution", json!("PreferFar"), false),
        ("spec.targetRef.kind", json!("StatefulSet"), false),
        ("spec.targetRef.kind", json!("DaemonSet"), true),
        ("spec.provider", json!("smi:v1alpha3"), true),
        ("spec.provider", json!("envoy"), true),
        ("spec.provider", json!("nothing"), false),
        ("spec.analysis.threshold", json!(-1), true),
        ("spec.analysis.stepWeight", json!(400), true),
        ("spec.analysis.alerts", json!([{"name": "a", "severity": "", "providerRef": {"name": "b"}}]), true),
        ("spec.analysis.sessionAffinity", json!({"cookieName": "a", "maxAge": 60}), true),
        ("spec.analysis.sessionAffinity", json!({"maxAge": 60}), false),
        ("spec.service.apex", json!({"labels": {"a": "b"}}), true),
        ("spec.service.apex", json!({"labels": {"a": 1}}), false),
    ] {
        let mut document = base.clone();
        paths::insert(&schema, &mut document, path, value.clone());
        assert_eq!(refusals(&schema, &document).is_empty(), is_taken, "{path} {value}");
    }
}

#[test]
fn wingbeat_dev_has_bounds_and_patterns() {
    let schema = Version::of("wingbeat.dev/v1alpha1", "Canary").schema;
    let mut base = read(include_str!("guide-v1beta1.yaml"));
    base["apiVersion"] = json!("wingbeat.dev/v1alpha1");
    assert_eq!(refusals(&schema, &base), Vec::<String>::new());
    for (path, value, is_taken) in [
        ("spec.analysis.interval", json!("1h"), true),
        ("spec.analysis.interval", json!("soon"), false),
        ("spec.analysis.stepWeight", json!(0), false),
        ("spec.analysis.stepWeight", json!(1.5), false),
        ("spec.analysis.judge.latency.quantiles", json!([]), false),
        ("spec.analysis.judge.latency.quantiles", json!([1]), false),
        ("spec.analysis.judge.latency.quantiles", json!([0.99]), true),
        ("spec.analysis.judge.mustDetect.errors", json!(1), false),
        ("spec.analysis.judge.errorFloor", json!("0.1%"), true),
        ("spec.analysis.judge.errorFloor", json!(0.1), false),
        ("spec.analysis.judge.mode", json!("guess"), false),
        ("spec.service.corsPolicy.allowMethods", json!(["GET"]), true),
        ("spec.service.corsPolicy.allowMethods", json!(["GET it"]), false),
        ("spec.service.rewrite", json!({"uri": "no path"}), false),
        ("spec.service.retries", json!({"perTryTimeout": "1s"}), false),
        ("spec.service.port", json!(70_000), false),
        ("spec.targetRef.kind", json!("Workload"), false),
    ] {
        let mut document = base.clone();
        paths::insert(&schema, &mut document, path, value.clone());
        assert_eq!(refusals(&schema, &document).is_empty(), is_taken, "{path} {value}");
    }
    for needed in ["targetRef", "service"] {
        let mut document = base.clone();
        document["spec"].as_object_mut().unwrap().remove(needed);
        assert!(!refusals(&schema, &document).is_empty(), "{needed}");
    }
    let mut document = base;
    document["spec"]["service"].as_object_mut().unwrap().remove("port");
    assert!(!refusals(&schema, &document).is_empty(), "a Service has a port");
}

/// Only Flagger's own rule: `wingbeat.dev` has more.
#[test]
fn rules_between_fields_are_flaggers_in_flagger_app_and_the_decoders_in_wingbeat_dev() {
    let rules = |api_version: &str, kind: &str| -> BTreeMap<String, usize> {
        let schema = Version::of(api_version, kind).schema;
        let all = paths::objects(&schema).into_iter();
        let counts = all.map(|(path, schema)| {
            (path, schema["x-kubernetes-validations"].as_array().map(Vec::len).unwrap_or_default())
        });
        counts.filter(|(path, count)| *count > 0 && !path.contains("canaryAnalysis")).collect()
    };
    let expected = |all: &[(&str, usize)]| all.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    assert_eq!(rules("flagger.app/v1beta1", "Canary"), expected(&[("spec", 1), ("spec.analysis", 1)]));
    assert_eq!(rules("flagger.app/v1beta1", "AlertProvider"), expected(&[("spec", 1)]));
    assert_eq!(rules("flagger.app/v1beta1", "MetricTemplate"), BTreeMap::new());
    assert_eq!(
        rules("wingbeat.dev/v1alpha1", "Canary"),
        expected(&[
            ("spec", 4),
            ("spec.analysis", 6),
            ("spec.analysis.affinity", 1),
            ("spec.analysis.metrics[].thresholdRange", 2),
            ("spec.service.corsPolicy", 1),
            ("spec.service.corsPolicy.allowOrigins[]", 1),
            ("spec.service.rewrite", 1),
        ])
    );
    assert_eq!(rules("wingbeat.dev/v1alpha1", "MetricTemplate"), expected(&[("spec.provider", 1)]));
    assert_eq!(rules("wingbeat.dev/v1alpha1", "AlertProvider"), expected(&[("spec", 1)]));
}

#[test]
fn a_state_has_its_form_its_epoch_and_its_record() {
    let schema = Version::of("wingbeat.dev/v1alpha1", "CanaryState").schema;
    let state = |status: Value| json!({"apiVersion": "a", "kind": "CanaryState", "metadata": {}, "status": status});
    let right = state(json!({
        "format": 1, "epoch": 7, "record": r#"{"phase": {"Progressing": {"id": 18446744073709551615}}}"#,
        "fence": {"uid": "u", "generation": 5, "replicaSet": "2", "revision": "0123456789", "hash": "0123456789"},
    }));
    assert_eq!(refusals(&schema, &right), Vec::<String>::new());
    assert_eq!(pruned("", &schema, &right), Vec::<String>::new());
    let no_text = json!({"format": 1, "epoch": 7, "record": {}});
    for wrong in [json!({"format": 1, "epoch": 7}), json!({"format": 0, "epoch": 7, "record": "{}"}), no_text] {
        assert!(!refusals(&schema, &state(wrong.clone())).is_empty(), "{wrong}");
    }
    // It is made before there is anything to keep.
    let made = json!({"apiVersion": "a", "kind": "CanaryState", "metadata": {"name": "backend"}});
    assert_eq!(refusals(&schema, &made), Vec::<String>::new());
}
