//! A JSON-schema validator and the decoder take and refuse the same documents.

use super::*;

/// What the decoder refuses and no schema does: part of what is said, and the rule.
const BEYOND_SCHEMAS: [(&str, &str); 9] = [
    ("has no steps, set", "one of stepWeight, stepWeights and iterations is there"),
    ("is missing, say where it is, like http", "a provider of type prometheus has an address"),
    ("allows no origin", "corsPolicy has allowOrigins or allowOrigin"),
    ("has nothing to rewrite", "rewrite has uri, uriRegexRewrite or authority"),
    ("has to name one cookie or one header", "affinity has one of both"),
    ("is not among the revisions", "revision is one of revisions"),
    ("has neither min nor max", "thresholdRange has one of both"),
    ("has to be one of exact, prefix and regex", "an origin has one test"),
    ("tests nothing, so that every request would match", "an entry of analysis.match tests something"),
];

#[test]
fn schema_and_decoder_take_and_refuse_the_same() {
    let (mut differ, mut count) = (Vec::new(), 0);
    let mut met = BTreeSet::new();
    for document in &Document::ALL {
        let schema = schema(document);
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (path, field) in fields(&schema).into_iter().filter(|(path, _)| path.starts_with("spec.")) {
            let world = World::around(document, &path);
            for (what, value) in mutations(&field) {
                let Some(written) = insert(&schema, &world.document, &path, value.clone()) else { continue };
                let outcome = world.with(&written);
                count += 1;
                let beyond = |(_, told): &(String, String)| BEYOND_SCHEMAS.iter().find(|(part, _)| told.contains(part));
                let is_valid = validator.is_valid(&written);
                if is_valid && !outcome.errors.is_empty() && outcome.errors.iter().all(|told| beyond(told).is_some()) {
                    met.extend(outcome.errors.iter().filter_map(beyond).map(|(_, rule)| *rule));
                } else if is_valid != outcome.errors.is_empty() {
                    differ.push(format!(
                        "{} {path} {what} {value}: schema {}, decoder {:?}",
                        document.api.as_str(),
                        is_valid,
                        outcome.errors
                    ));
                }
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let rules = BEYOND_SCHEMAS.map(|(_, rule)| rule);
    assert_eq!(met, BTreeSet::from(rules), "rules that no document breaks");
    println!("{count} documents: schema and decoder take the same, but for {} rules", rules.len());
}

/// Returns values for a field, right and wrong ones.
fn mutations(schema: &Value) -> Vec<(&'static str, Value)> {
    let mut all: Vec<(&str, Value)> = paths::samples(schema).into_iter().map(|value| ("right", value)).collect();
    let wrong = |all: &mut Vec<(&'static str, Value)>, what, values: &[Value]| {
        all.extend(values.iter().map(|value| (what, value.clone())));
    };
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    match types.first().and_then(Value::as_str) {
        Some("object") => wrong(&mut all, "no mapping", &[json!("text"), json!([1])]),
        Some("array") => wrong(&mut all, "no list", &[json!("text"), json!({"a": 1})]),
        Some("boolean") => wrong(&mut all, "no truth value", &[json!("perhaps"), json!(1), json!([])]),
        Some("integer") => wrong(&mut all, "no whole number", &[json!("many"), json!(1.5), json!(true), json!({})]),
        Some("number") => wrong(&mut all, "no number", &[json!("many"), json!(true), json!([])]),
        Some("string") if types.len() == 1 => {
            wrong(&mut all, "no duration or share", &[json!("5"), json!(5), json!("s"), json!("-1s"), json!("101%")]);
        }
        Some("string") => wrong(&mut all, "no text", &[json!({"a": 1}), json!(["a"])]),
        _ => {}
    }
    if schema["enum"].is_array() {
        wrong(&mut all, "no such word", &[json!("nothing-of-it"), json!(7)]);
    }
    if schema["properties"].is_object() && schema["required"].is_null() {
        wrong(&mut all, "nothing in it", &[json!({})]);
    }
    if schema["items"]["properties"].is_object() && schema["items"]["required"].is_null() {
        wrong(&mut all, "nothing in an entry", &[json!([{}])]);
    }
    if schema["minItems"].is_number() {
        wrong(&mut all, "too few", &[json!([])]);
    }
    for (key, by) in [("minimum", -1_i32), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)] {
        if let Some(bound) = schema[key].as_i64().filter(|_| schema["type"] == "integer") {
            wrong(&mut all, "out of range", &[json!(bound + i64::from(by))]);
            wrong(&mut all, "at the bound", &[json!(bound)]);
        } else if let Some(bound) = schema[key].as_f64() {
            wrong(&mut all, "out of range", &[json!(bound + f64::from(by))]);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let value = paths::sample(schema);
        wrong(&mut all, "one is missing", &[paths::remove(&value, name)]);
    }
    if schema["properties"].is_object() {
        let mut value = paths::sample(schema);
        value[BOGUS] = json!(1);
        wrong(&mut all, "one is unknown", &[value]);
    }
    all
}
