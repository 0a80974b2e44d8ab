//! From a table of fields to a structural schema: a type everywhere, no references, no alternatives.
//!
//! `wingbeat.dev` has the bounds, patterns and words of the table. `flagger.app` has its types alone: Flagger's definitions
//! say little more, and what they take must be taken. What is wrong beyond, the controller tells by a condition.

use serde_json::{Map, Value, json};
use wingbeat_api::Api;
use wingbeat_api::shape::{Bounds, DURATION, Field, Kind, Object, PERCENT, PERCENT_BELOW_ALL, Presence, Text};

use super::rules;

/// How often a part of a pattern may be repeated by the regexes of Go: beyond, the API server refuses the definition.
const MAX_REPETITIONS: u64 = 1_000;
/// What Flagger takes for an interval, open at its end: `1h` is refused, `1m30s` and `10s` are taken.
const FLAGGERS_DURATION: &str = "^[0-9]+(m|s)";
/// The durations that Flagger has that pattern for, by mapping and field.
const FLAGGERS_DURATIONS: [(&str, &str); 3] =
    [("Analysis", "interval"), ("Metric", "interval"), ("Webhook", "timeout")];
/// What we need and Flagger does not, by mapping and field: a document without it is taken there, and told by a condition.
const NOT_REQUIRED_BY_FLAGGER: [(&str, &str); 3] =
    [("Retries", "attempts"), ("Substitution", "match"), ("Substitution", "rewrite")];

/// Returns the schema of a mapping.
pub(super) fn of_object(object: &Object, api: Api) -> Value {
    let fields = object.fields.iter();
    let properties: Map<String, Value> =
        fields.map(|field| (field.name.to_owned(), of_field(object, field, api))).collect();
    let fields = object.fields.iter();
    let required: Vec<&str> = fields.filter(|field| is_required(object, field, api)).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if let Value::Object(schema) = &mut schema {
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        let rules: Vec<Value> = rules::of_object(object.name, api).iter().map(rules::Rule::render).collect();
        if !rules.is_empty() {
            schema.insert("x-kubernetes-validations".to_owned(), json!(rules));
        }
    }
    schema
}

fn is_required(object: &Object, field: &Field, api: Api) -> bool {
    match field.cluster_presence.unwrap_or(field.presence) {
        Presence::Optional => false,
        Presence::Required => api == Api::Wingbeat || !NOT_REQUIRED_BY_FLAGGER.contains(&(object.name, field.name)),
        Presence::RequiredHere => api == Api::Wingbeat,
    }
}

fn of_field(object: &Object, field: &Field, api: Api) -> Value {
    let mut schema = of_kind(field.cluster_kind.as_ref().unwrap_or(&field.kind), api);
    let Value::Object(map) = &mut schema else { return schema };
    if api != Api::Wingbeat && FLAGGERS_DURATIONS.contains(&(object.name, field.name)) {
        map.insert("pattern".to_owned(), json!(FLAGGERS_DURATION));
    }
    let default = field.default_in(api).map(|default| format!(" Default: {default}")).unwrap_or_default();
    map.insert("description".to_owned(), json!(format!("{}{default}", field.doc)));
    schema
}

fn of_kind(kind: &Kind, api: Api) -> Value {
    let is_strict = api == Api::Wingbeat;
    match kind {
        Kind::Text(text) => of_text(*text, is_strict),
        Kind::Truth => json!({"type": "boolean"}),
        Kind::Whole { low, high } if is_strict => json!({"type": "integer", "minimum": low, "maximum": high}),
        Kind::Number(bounds) if is_strict => of_number(*bounds),
        Kind::Whole { .. } | Kind::Number(_) => json!({"type": "number"}),
        Kind::Duration { .. } if is_strict => json!({"type": "string", "pattern": DURATION}),
        Kind::Percent { below: None } if is_strict => json!({"type": "string", "pattern": PERCENT}),
        Kind::Percent { below: Some(_) } if is_strict => json!({"type": "string", "pattern": PERCENT_BELOW_ALL}),
        Kind::Duration { .. } | Kind::Percent { .. } => json!({"type": "string"}),
        Kind::Choice(choices) => of_choice(choices, &[], is_strict),
        Kind::List { of, least } if is_strict && *least > 0 => {
            json!({"type": "array", "items": of_kind(of, api), "minItems": least})
        }
        Kind::List { of, .. } => json!({"type": "array", "items": of_kind(of, api)}),
        Kind::Map(of) => json!({"type": "object", "additionalProperties": of_kind(of, api)}),
        Kind::Object(object) => of_object(object, api),
        Kind::Either(a, b) => match (a, b) {
            (Kind::Choice(a), Kind::Choice(b)) => of_choice(a, b, is_strict),
            (Kind::Whole { .. }, Kind::Text(_)) => json!({"x-kubernetes-int-or-string": true}),
            _ => json!({"x-kubernetes-preserve-unknown-fields": true}),
        },
        Kind::Anything => json!({"x-kubernetes-preserve-unknown-fields": true}),
    }
}

/// Flagger takes an empty choice in some places, and the controller tells of it in the others.
fn of_choice(some: &[&str], others: &[&str], is_strict: bool) -> Value {
    let empty = (!is_strict && !some.contains(&"")).then_some("");
    let choices: Vec<&str> = empty.into_iter().chain(some.iter().copied()).chain(others.iter().copied()).collect();
    json!({"type": "string", "enum": choices})
}

fn of_text(text: Text, is_strict: bool) -> Value {
    match text {
        Text::Pattern(pattern, _) if is_strict => match long_repetition(pattern) {
            Some((head, length)) => json!({"type": "string", "pattern": format!("{head}+$"), "maxLength": length}),
            None => json!({"type": "string", "pattern": pattern}),
        },
        Text::Any | Text::Form(_) | Text::Pattern(..) => json!({"type": "string"}),
    }
}

/// Takes a pattern apart that ends with more repetitions than the API server takes.
fn long_repetition(pattern: &str) -> Option<(&str, u64)> {
    let (head, length) = pattern.strip_suffix("}$")?.rsplit_once("{1,")?;
    let length = length.parse().ok().filter(|length| *length > MAX_REPETITIONS)?;
    Some((head, length))
}

/// `exclusiveMinimum` is a truth value in the dialect of Kubernetes.
fn of_number(bounds: Bounds) -> Value {
    match bounds {
        Bounds::Free => json!({"type": "number"}),
        Bounds::Within(low, high) => json!({"type": "number", "minimum": low, "maximum": high}),
        Bounds::Between(low, high) => json!({
            "type": "number", "minimum": low, "exclusiveMinimum": true, "maximum": high, "exclusiveMaximum": true,
        }),
        Bounds::Above(low) => json!({"type": "number", "minimum": low, "exclusiveMinimum": true}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_would_not_repeat_is_a_length() {
        assert_eq!(long_repetition("^[a-z]{1,16384}$"), Some(("^[a-z]", 16_384)));
        assert_eq!(long_repetition("^[a-z]{1,253}$"), None);
        assert_eq!(
            of_text(Text::Pattern("^[a-z]{1,16384}$", "token"), true),
            json!({"type": "string", "pattern": "^[a-z]+$", "maxLength": 16_384})
        );
        assert_eq!(of_text(Text::Pattern("^[a-z]+$", "token"), false), json!({"type": "string"}));
    }

    #[test]
    fn flaggers_choices_may_be_empty_once() {
        let words = |schema: Value| schema.get("enum").cloned();
        assert_eq!(words(of_choice(&["", "a"], &["b"], false)), Some(json!(["", "a", "b"])));
        assert_eq!(words(of_choice(&["a"], &[], false)), Some(json!(["", "a"])));
        assert_eq!(words(of_choice(&["a"], &[], true)), Some(json!(["a"])));
    }
}
