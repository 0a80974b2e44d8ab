//! Documents that are right together, one of which is varied.

use super::*;

/// The file of the document that is varied.
const VARIED: &str = "varied.yaml";

/// What is told, and what comes of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) errors: Vec<(String, String)>,
    pub(crate) warnings: Vec<(String, String)>,
    /// What is managed.
    pub(crate) setup: String,
}

impl Outcome {
    /// Returns all that is told, by field.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        self.errors.iter().chain(&self.warnings).cloned().collect()
    }
}

/// A document among others that it needs.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) document: Value,
    others: Vec<Value>,
}

fn base(api: Api, kind: &str) -> Value {
    let (name, spec) = match kind {
        "Canary" => (
            "backend",
            json!({
                "targetRef": {"kind": "Workload", "name": "backend"},
                "service": {"hosts": ["base.local"], "listeners": ["public"]},
                "analysis": {
                    "stepWeight": 7,
                    "metrics": [{"name": "depth", "templateRef": {"name": "queue"}, "thresholdRange": {"max": 5}}],
                    "alerts": [{"providerRef": {"name": "on-call"}}],
                },
            }),
        ),
        "Workload" => (
            "backend",
            json!({"revision": "1.4.0", "revisions": {
                "1.4.0": {"endpoints": ["127.0.0.1:9101"]}, "1.4.1": {"endpoints": ["127.0.0.1:9102"]},
            }}),
        ),
        "Listener" => ("public", json!({"address": "0.0.0.0", "port": 10_001})),
        "MetricTemplate" => (
            "queue",
            json!({
                "provider": {"type": "prometheus", "address": "http://127.0.0.1:9999"},
                "query": "q{a=\"{{ service }}{{ ingress }}{{ route }}\"}[{{ interval }}]",
            }),
        ),
        "AlertProvider" => ("on-call", json!({"type": "generic", "address": "http://127.0.0.1:9998/"})),
        other => panic!("there is no {other}"),
    };
    json!({
        "apiVersion": api.as_str(), "kind": kind, "metadata": {"name": name, "namespace": "prod"}, "spec": spec,
    })
}

/// Changes the document so that a field makes sense in it.
fn prepare(document: &mut Value, path: &str) {
    let analysis = |document: &mut Value, key: &str, value: Value| document["spec"]["analysis"][key] = value;
    let without = |document: &mut Value, key: &str| {
        document["spec"]["analysis"].as_object_mut().unwrap().remove(key);
    };
    let is =
        |below: &str| path == below || path.starts_with(&format!("{below}.")) || path.starts_with(&format!("{below}["));
    if is("spec.analysis.stepWeights") || is("spec.analysis.iterations") {
        without(document, "stepWeight");
    }
    if is("spec.analysis.match") || is("spec.analysis.holdback") {
        without(document, "stepWeight");
        analysis(document, "iterations", json!(10));
        let uri = if path.ends_with("ignoreUriCase") { json!({"prefix": "/a"}) } else { Value::Null };
        analysis(document, "match", json!([{"headers": {"x-b": {"exact": "b"}}, "uri": uri}]));
    }
    if is("spec.service.match[].ignoreUriCase") {
        document["spec"]["service"]["match"] = json!([{"uri": {"prefix": "/a"}}]);
    }
    if is("spec.analysis.mirrorWeight") {
        analysis(document, "mirror", json!(true));
    }
    if is("spec.analysis.maxWeight") {
        analysis(document, "stepWeight", json!(1));
    }
    if path == "spec.analysis.metrics[].threshold" || path == "spec.analysis.metrics[].name" {
        document["spec"]["analysis"]["metrics"][0]["thresholdRange"] = Value::Null;
    }
    if path == "spec.analysis.metrics[].name" {
        document["spec"]["analysis"]["metrics"][0]["threshold"] = json!(7);
    }
    if path == "spec.analysis.metrics[].thresholdRange.min" {
        document["spec"]["analysis"]["metrics"][0]["thresholdRange"] = json!({"max": 1000});
    }
    if is("spec.analysis.match[].headers.*") {
        document["spec"]["analysis"]["match"] = json!([{"headers": {"x-b": {}}}]);
    }
    if is("spec.analysis.metrics[].query") {
        document["spec"]["metricsServer"] = json!("http://127.0.0.1:9997");
    }
    if is("spec.analysis.metrics[].templateVariables") {
        document["spec"]["metricsServer"] = json!("http://127.0.0.1:9997");
        document["spec"]["analysis"]["metrics"][0]["query"] = json!("q{{ variables.tier }}");
        document["spec"]["analysis"]["metrics"][0]["templateVariables"] = json!({"tier": "none"});
    }
    if is("spec.metricsServer") {
        document["spec"]["analysis"]["metrics"][0]["query"] = json!("q");
    }
    if is("spec.service.rewrite") {
        document["spec"]["service"]["rewrite"] = json!({"authority": "base.internal"});
    }
    if is("spec.service.corsPolicy") && !path.starts_with("spec.service.corsPolicy.allowOrigin") {
        document["spec"]["service"]["corsPolicy"] = json!({"allowOrigin": ["https://base.example"]});
    }
    if is("spec.analysis.affinity") {
        analysis(document, "affinity", if path.ends_with("header") { json!({}) } else { json!({"cookie": "base"}) });
    }
}

impl World {
    /// Returns a document in which a field of this path makes sense.
    pub(crate) fn around(document: &Document, path: &str) -> Self {
        let mut others = Vec::new();
        for kind in ["Canary", "Workload", "Listener", "MetricTemplate", "AlertProvider"] {
            if kind != document.kind {
                others.push(base(Api::Wingbeat, kind));
            }
        }
        let mut base = base(document.api, document.kind);
        prepare(&mut base, &path.replace("spec.canaryAnalysis", "spec.analysis"));
        if path.starts_with("spec.canaryAnalysis") {
            base["spec"]["canaryAnalysis"] = base["spec"]["analysis"].take();
        }
        Self { document: without_nulls(base), others }
    }

    /// Returns what comes of another document in the place of this one, where it is only looked at.
    pub(crate) fn with(&self, document: &Value) -> Outcome {
        self.read(document, Set::lint)
    }

    /// Returns what comes of it where it is served.
    pub(crate) fn served(&self, document: &Value) -> Outcome {
        self.read(document, Set::of)
    }

    fn read(&self, document: &Value, read: fn(&BTreeMap<String, String>) -> Set) -> Outcome {
        let mut texts = BTreeMap::from([(VARIED.to_owned(), document.to_string())]);
        texts.extend(self.others.iter().enumerate().map(|(place, other)| (format!("{place}.yaml"), other.to_string())));
        let set = read(&texts);
        let of_it = |problems: &[wingbeat_api::Problem]| {
            let own = problems.iter().filter(|problem| problem.file == VARIED);
            own.map(|problem| (problem.field.clone(), problem.message.clone())).collect()
        };
        let (errors, warnings) = (of_it(&set.report.errors), of_it(&set.report.warnings));
        Outcome { errors, warnings, setup: format!("{:?}", set.desired_state(None)) }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}
