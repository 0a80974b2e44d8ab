//! The decoder of documents and the definitions have the same fields, path by path.

use wingbeat_api::shape::{self, Document};
use wingbeat_api::{Api, Problem, Set};

use super::*;

/// A name that no mapping has, and that is near none.
const BOGUS: &str = "zzzzzzzzzzzzzzzz";
/// The leaves of Flagger's definitions of 1.44, with their kinds.
const FLAGGERS_FIELDS: &str = include_str!("../../../api/tests/flagger-fields.txt");

/// Returns the documents that a cluster has definitions of.
fn documents() -> Vec<Document> {
    Document::ALL.into_iter().filter(|document| document.kind != "Workload").collect()
}

/// Returns a document of a kind that is right, as far as a cluster goes.
fn base(document: &Document) -> Value {
    let spec = match document.kind {
        "Canary" => json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "service": {"port": 9898},
            "analysis": {"stepWeight": 7},
        }),
        "Listener" => json!({"address": "0.0.0.0", "port": 10_001}),
        "MetricTemplate" => json!({"provider": {"type": "prometheus", "address": "http://a:1"}, "query": "q"}),
        "AlertProvider" => json!({"type": "slack", "address": "http://a/"}),
        other => panic!("there is no {other}"),
    };
    json!({"apiVersion": document.api.as_str(), "kind": document.kind, "metadata": {"name": "backend"}, "spec": spec})
}

fn said_of(document: &Value) -> Vec<Problem> {
    let report = Set::lint(&BTreeMap::from([("a.yaml".to_owned(), document.to_string())])).report;
    report.errors.into_iter().chain(report.warnings).collect()
}

/// Returns the document with a value at a path.
fn with(schema: &Value, document: &Document, path: &str, value: Value) -> Value {
    let mut written = base(document);
    if path.starts_with("spec.canaryAnalysis") {
        let analysis = written["spec"]["analysis"].take();
        written["spec"].as_object_mut().unwrap().remove("analysis");
        written["spec"]["canaryAnalysis"] = analysis;
    }
    paths::insert(schema, &mut written, path, value);
    written
}

/// Returns the fields of a mapping that the decoder asks for; nothing if it does not open it.
fn asked_for(schema: &Value, document: &Document, path: &str) -> Option<BTreeSet<String>> {
    let problems = said_of(&with(schema, document, &format!("{path}.{BOGUS}"), json!(1)));
    let list = problems.iter().filter(|problem| problem.field.ends_with(BOGUS));
    let list = list.filter_map(|problem| problem.message.strip_prefix("is unknown, the fields here are "));
    list.map(|list| list.split(", ").map(str::to_owned).collect()).next()
}

#[test]
fn decoder_and_definitions_have_the_same_fields() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for document in documents() {
        let version = Version::of(document.api.as_str(), document.kind);
        let only_in_cluster = only_in_cluster(&document);
        let is_beyond = |path: &str| only_in_cluster.iter().any(|beyond| path.starts_with(beyond.as_str()));
        for (path, object) in paths::objects(&version.schema) {
            if !path.starts_with("spec") || is_beyond(&path) {
                continue;
            }
            let defined: BTreeSet<String> = object["properties"].as_object().unwrap().keys().cloned().collect();
            count += defined.len();
            match asked_for(&version.schema, &document, &path) {
                Some(read) if read == defined => {}
                read => wrong.push(format!("{} {path}: {read:?} and {defined:?}", version.api_version())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 900, "{count} fields");
    println!("{count} fields: the decoder asks for them, and the definitions have them");
}

/// Returns the paths of fields that plain Envoy does not look into, and a cluster does.
fn only_in_cluster(document: &Document) -> BTreeSet<String> {
    let below = shape::fields_below(document.spec, "spec").into_iter();
    let paths = below.filter(|(_, field)| field.cluster_kind.is_some()).map(|(path, _)| path);
    // The list has `analysis` by its new name alone.
    paths.flat_map(|path| [path.replace("spec.analysis.", "spec.canaryAnalysis."), path]).collect()
}

#[test]
fn leaves_of_the_table_are_leaves_of_the_definitions() {
    for document in documents() {
        let version = Version::of(document.api.as_str(), document.kind);
        let beyond = only_in_cluster(&document);
        let is_beyond = |path: &String| beyond.iter().any(|beyond| path.starts_with(beyond.as_str()));
        let of_table: BTreeSet<String> = paths::leaves(&shape::schema(&document));
        let of_definition = paths::leaves(&version.schema);
        let differ: Vec<&String> = of_table.symmetric_difference(&of_definition).collect();
        let unexplained: Vec<&&String> = differ.iter().filter(|path| !is_beyond(path)).collect();
        assert_eq!(unexplained, Vec::<&&String>::new(), "{} {}", version.api_version(), version.kind);
    }
}

#[test]
fn every_field_of_flaggers_is_in_our_definitions_of_flagger_app() {
    let mut count = 0;
    for api in [Api::FlaggerV1Beta1, Api::FlaggerV1Alpha3] {
        for (kind, path) in FLAGGERS_FIELDS.lines().map(|line| line.split_once(' ').unwrap()) {
            let version = Version::of(api.as_str(), kind);
            let known: BTreeSet<String> = paths::fields(&version.schema).into_iter().map(|(path, _)| path).collect();
            let field = path.trim_end_matches(".*").trim_end_matches("[]").trim_end_matches(".*");
            assert!(known.contains(field), "{} {kind} {path}", api.as_str());
            count += 1;
        }
    }
    assert!(count > 400, "{count} fields");
    println!("{count} fields of Flagger's are defined");
}

#[test]
fn both_spellings_of_analysis_are_in_both_versions() {
    for api in [Api::FlaggerV1Beta1, Api::FlaggerV1Alpha3] {
        let spec = &Version::of(api.as_str(), "Canary").schema["properties"]["spec"]["properties"];
        assert_eq!(spec["analysis"]["properties"], spec["canaryAnalysis"]["properties"]);
    }
    let schema = |api: Api| Version::of(api.as_str(), "Canary").schema;
    assert_eq!(schema(Api::FlaggerV1Beta1), schema(Api::FlaggerV1Alpha3), "what one stores, the other reads");
}

#[test]
fn a_definition_that_lags_behind_the_decoder_is_found_out() {
    let document = documents().remove(0);
    let mut schema = Version::of(document.api.as_str(), document.kind).schema;
    let judge = "/properties/spec/properties/analysis/properties/judge/properties";
    assert!(asked_for(&schema, &document, "spec.analysis.judge").unwrap().contains("warmup"));
    schema.pointer_mut(judge).unwrap().as_object_mut().unwrap().remove("warmup");
    let defined: BTreeSet<String> = schema.pointer(judge).unwrap().as_object().unwrap().keys().cloned().collect();
    assert_ne!(asked_for(&schema, &document, "spec.analysis.judge").unwrap(), defined);
}
