//! What an API server asks of a schema before it takes a definition, as far as it can be said without one.

use super::*;

/// All that our schemas may say. Everything else is forbidden in structural schemas, or means nothing there.
const KEYWORDS: [&str; 18] = [
    "type",
    "description",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxLength",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const TYPES: [&str; 6] = ["object", "array", "string", "boolean", "integer", "number"];

/// Returns what is wrong with a schema, by its path.
fn complaints(path: &str, schema: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(keywords) = schema.as_object() else { return vec![format!("{path}: is no schema: {schema}")] };
    for keyword in keywords.keys().filter(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
        wrong.push(format!("{path}: has {keyword}"));
    }
    let is_free =
        schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    match schema["type"].as_str() {
        Some(known) if TYPES.contains(&known) => {}
        None if schema["type"].is_null() && is_free => {}
        _ => wrong.push(format!("{path}: has no type")),
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        wrong.push(format!("{path}: does not say what its items are"));
    }
    if schema["properties"].is_object() && !schema["additionalProperties"].is_null() {
        wrong.push(format!("{path}: has properties and additionalProperties"));
    }
    for key in ["exclusiveMinimum", "exclusiveMaximum"] {
        if !matches!(schema[key], Value::Null | Value::Bool(_)) {
            wrong.push(format!("{path}: {key} is a truth value in Kubernetes"));
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        wrong.extend(pattern_complaint(pattern).map(|why| format!("{path}: {pattern} {why}")));
    }
    let properties: BTreeSet<&str> =
        schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str)).collect();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !properties.contains(name) {
            wrong.push(format!("{path}: requires {name}, which it has not"));
        }
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        wrong.extend(rule_complaints(schema, rule).into_iter().map(|why| format!("{path}: {why}")));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        wrong.extend(complaints(&format!("{path}.{name}"), field));
    }
    for (suffix, inner) in [("[]", &schema["items"]), (".*", &schema["additionalProperties"])] {
        if !inner.is_null() {
            wrong.extend(complaints(&format!("{path}{suffix}"), inner));
        }
    }
    wrong
}

/// API servers have the regexes of Go: no look-around, no more than 1000 repetitions.
fn pattern_complaint(pattern: &str) -> Option<&'static str> {
    if pattern.contains("(?=") || pattern.contains("(?!") || pattern.contains("(?<") {
        return Some("looks around");
    }
    let counts = pattern
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .flat_map(|(inner, _)| inner.split(',').filter_map(|count| count.parse::<u32>().ok()).collect::<Vec<_>>());
    counts.into_iter().any(|count| count > 1_000).then_some("repeats more than 1000 times")
}

/// A rule names fields that are there, and has a message of one line.
fn rule_complaints(schema: &Value, rule: &Value) -> Vec<String> {
    let (Some(expression), Some(message)) = (rule["rule"].as_str(), rule["message"].as_str()) else {
        return vec![format!("{rule} is no rule")];
    };
    let mut wrong = Vec::new();
    if message.is_empty() || message.contains('\n') {
        wrong.push(format!("{message:?} is no message"));
    }
    for rest in expression.split("self.").skip(1) {
        let path: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '_').collect();
        let is_call = rest.chars().nth(path.chars().count()) == Some('(');
        let mut names: Vec<&str> = path.split('.').collect();
        if is_call {
            names.pop();
        }
        let found = names.iter().fold(schema, |schema, name| &schema["properties"][*name]);
        if !found.is_object() {
            wrong.push(format!("{expression}: there is no {path}"));
        }
    }
    if expression.matches('(').count() != expression.matches(')').count() {
        wrong.push(format!("{expression}: brackets"));
    }
    wrong
}

#[test]
fn schemas_are_structural() {
    for version in Version::all() {
        let wrong = complaints("", &version.schema);
        assert_eq!(wrong, Vec::<String>::new(), "{} {}", version.api_version(), version.kind);
        assert_eq!(version.schema["type"], "object");
        assert_eq!(version.schema["properties"]["metadata"], json!({"type": "object"}));
    }
}

#[test]
fn a_schema_that_is_not_is_found_out() {
    let around = |field: Value| json!({"type": "object", "properties": {"a": field}});
    for (field, why) in [
        (json!({}), "has no type"),
        (json!({"$ref": "#/b", "type": "object"}), "has $ref"),
        (json!({"anyOf": [], "type": "object"}), "has anyOf"),
        (json!({"type": ["string", "number"]}), "has no type"),
        (json!({"type": "array"}), "does not say what its items are"),
        (json!({"type": "array", "items": {}}), "[]: has no type"),
        (json!({"type": "object", "additionalProperties": {}}), ".*: has no type"),
        (json!({"type": "object", "properties": {}, "additionalProperties": false}), "has properties and"),
        (json!({"type": "number", "exclusiveMinimum": 1}), "is a truth value"),
        (json!({"type": "string", "pattern": "^a{1,16384}$"}), "repeats more than"),
        (json!({"type": "object", "required": ["b"]}), "requires b"),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "has(self.b)", "message": "no b"}]}),
            "there is no b",
        ),
    ] {
        let wrong = complaints("", &around(field.clone()));
        assert!(wrong.iter().any(|it| it.contains(why)), "{field}: {wrong:?}");
    }
}

/// What Flagger sets no default for gets none: a default that is stored cannot be changed later.
#[test]
fn no_field_has_a_default_that_is_stored() {
    assert!(!KEYWORDS.contains(&"default"));
}
