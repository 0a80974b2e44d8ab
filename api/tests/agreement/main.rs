//! What the decoder reads, what the shapes say of it, and what the JSON schema takes: one truth, path by path.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "what is not there fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wingbeat_api::shape::{Document, schema};
use wingbeat_api::{Api, Set};

mod acceptance;
mod effects;
mod flagger;
mod pages;
mod paths;
mod world;

use paths::{fields, insert, objects};
use world::World;

/// A name that no mapping has, and that is near none.
const BOGUS: &str = "zzzzzzzzzzzzzzzz";

/// Returns where the decoder and a schema differ in the fields that there are.
fn disagreements(document: &Document, schema: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, object) in objects(schema) {
        let world = World::around(document, &path);
        let bogus = if path.is_empty() { BOGUS.to_owned() } else { format!("{path}.{BOGUS}") };
        let Some(written) = insert(schema, &world.document, &bogus, json!(1)) else {
            wrong.push(format!("{path}: cannot be written by the schema"));
            continue;
        };
        let told = world.with(&written).told();
        let Some(read) = told.iter().find_map(|(field, message)| {
            let list = message.strip_prefix("is unknown, the fields here are ")?;
            field.ends_with(BOGUS).then(|| list.split(", ").map(str::to_owned).collect::<BTreeSet<String>>())
        }) else {
            wrong.push(format!("{path}: the decoder does not read it: {told:?}"));
            continue;
        };
        let properties = object["properties"].as_object().unwrap();
        let described: BTreeSet<String> = properties.keys().cloned().collect();
        wrong.extend(read.difference(&described).map(|name| format!("{path}.{name}: only the decoder has it")));
        wrong.extend(described.difference(&read).map(|name| format!("{path}.{name}: only the schema has it")));
    }
    wrong
}

#[test]
fn decoder_and_schema_have_the_same_fields() {
    let mut count = 0;
    for document in &Document::ALL {
        let schema = schema(document);
        assert_eq!(disagreements(document, &schema), Vec::<String>::new(), "{document:?}");
        count += fields(&schema).len();
    }
    assert!(count > 500, "{count} fields");
    println!("{count} fields of {} kinds: decoder and schema have the same", Document::ALL.len());
}

#[test]
fn a_schema_that_lags_behind_the_decoder_is_found_out() {
    let canary = &Document::ALL[0];
    let schema = schema(canary);
    let judge = "/properties/spec/properties/analysis/properties/judge/properties";
    let mut lags = schema.clone();
    lags.pointer_mut(judge).unwrap().as_object_mut().unwrap().remove("warmup");
    assert_eq!(disagreements(canary, &lags), ["spec.analysis.judge.warmup: only the decoder has it"]);
    let mut runs_ahead = schema;
    runs_ahead.pointer_mut(judge).unwrap()["cooldown"] = json!({"type": "string"});
    assert_eq!(disagreements(canary, &runs_ahead), ["spec.analysis.judge.cooldown: only the schema has it"]);
}

#[test]
fn the_bundle_judges_each_kind_by_its_own_schema() {
    let bundle = jsonschema::validator_for(&wingbeat_api::shape::bundle()).unwrap();
    for document in &Document::ALL {
        let alone = jsonschema::validator_for(&schema(document)).unwrap();
        let world = World::around(document, "");
        let mut broken = world.document.clone();
        broken["spec"] = json!("none");
        for (value, right) in [(&world.document, true), (&broken, false)] {
            assert_eq!((bundle.is_valid(value), alone.is_valid(value)), (right, right), "{document:?}");
        }
    }
    let of_kind =
        |api: &str, kind: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": "a"}, "spec": {}});
    assert!(bundle.is_valid(&of_kind("v1", "Service")), "documents of others are left out");
    for wrong in [
        of_kind("wingbeat.dev/v1alpha1", "Canry"),
        of_kind("flagger.app/v1beta1", "Workload"),
        json!({"kind": "Canary", "metadata": {"name": "a"}, "spec": {}}),
        json!({"apiVersion": "v1", "kind": "List", "items": [of_kind("wingbeat.dev/v1alpha1", "Canary")]}),
    ] {
        assert!(!bundle.is_valid(&wrong), "{wrong}");
        let set = Set::of(&BTreeMap::from([("a.yaml".to_owned(), wrong.to_string())]));
        assert!(!set.report.errors.is_empty(), "{wrong}");
    }
}
