//! JSON schema (draft 2020-12) of documents, for editors.
//!
//! It takes what the decoder takes, but for what a schema cannot tell: rules between fields and documents, the inner form of
//! some texts, how long a duration is. A number may be quoted in a document, and a field without a value is one that is not
//! there; here, as in Kubernetes, neither is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document::{DOCUMENT, Document};
use super::field::{Bounds, Field, Kind, Object, Presence, Support, Text};
use crate::platform::Api;

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What Go takes for a duration, as a pattern; what does not match is refused.
pub const DURATION: &str = r"^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$";
/// A share, blanks before its sign or not, as a pattern; what does not match is refused.
pub const PERCENT: &str = r"^(100(\.0*)?|[0-9]{1,2}(\.[0-9]*)?|\.[0-9]+)\s*%$";
/// The same below 100 %.
pub const PERCENT_BELOW_ALL: &str = r"^([0-9]{1,2}(\.[0-9]*)?|\.[0-9]+)\s*%$";

/// Where the schemas of mappings go.
#[derive(Debug)]
enum Mappings {
    /// To where they are used, as the API server of Kubernetes wants it.
    Inline,
    /// To definitions, each once.
    Defined(BTreeMap<String, Value>),
}

/// Returns the schema of a kind.
pub fn schema(document: &Document) -> Value {
    let mut schema = of_document(document, &mut Mappings::Inline);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!(DIALECT));
    }
    schema
}

/// Returns the schema of all kinds, for files that hold several. Documents of others are left out by the decoder, and may be
/// anything here; a list is its items.
pub fn bundle() -> Value {
    let name = |document: &Document| format!("{}.{}", document.api.as_str().replace('/', "."), document.kind);
    let is_it = |document: &Document| {
        json!({
            "properties": {"apiVersion": {"const": document.api.as_str()}, "kind": {"const": document.kind}},
            "required": ["apiVersion", "kind"],
        })
    };
    let is_list = json!({
        "properties": {"kind": {"pattern": "List$"}, "items": {"type": "array"}},
        "required": ["kind", "items"],
    });
    let kinds = Document::ALL.iter().map(is_it).chain([is_list.clone()]);
    let names: BTreeSet<&str> = Document::ALL.iter().map(|document| document.kind).collect();
    let rules = [
        json!({"if": is_list, "then": {"properties": {"items": {"items": {"$ref": "#"}}}}}),
        json!({
            "if": {"properties": {"kind": {"enum": names}}, "required": ["kind"]},
            "then": {"required": ["apiVersion"]},
        }),
        json!({
            "if": {"properties": {"apiVersion": {"enum": Api::ALL.map(Api::as_str)}}, "required": ["apiVersion"]},
            "then": {"anyOf": kinds.collect::<Vec<_>>()},
        }),
    ];
    let cases = Document::ALL
        .iter()
        .map(|document| json!({"if": is_it(document), "then": {"$ref": format!("#/$defs/{}", name(document))}}));
    let mut mappings = Mappings::Defined(BTreeMap::new());
    let documents: Vec<(String, Value)> =
        Document::ALL.iter().map(|document| (name(document), of_document(document, &mut mappings))).collect();
    let mut definitions: Map<String, Value> = documents.into_iter().collect();
    if let Mappings::Defined(defined) = mappings {
        definitions.extend(defined);
    }
    json!({
        "$schema": DIALECT,
        "title": "Documents of Wingbeat, and those of Flagger that it reads",
        "type": "object",
        "allOf": cases.chain(rules).collect::<Vec<_>>(),
        "$defs": definitions,
    })
}

fn of_document(document: &Document, mappings: &mut Mappings) -> Value {
    let api = document.api;
    let mut schema = fields_of(&DOCUMENT, api, mappings);
    let Value::Object(map) = &mut schema else { return schema };
    map.insert("title".to_owned(), json!(format!("{} of {}", document.kind, api.as_str())));
    map.insert("description".to_owned(), json!(document.doc));
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.insert("apiVersion".to_owned(), json!({"const": api.as_str()}));
        properties.insert("kind".to_owned(), json!({"const": document.kind}));
        properties.insert("spec".to_owned(), of_object(document.spec, api, mappings));
    }
    schema
}

/// Returns the schema of a mapping, or where it is defined.
fn of_object(object: &Object, api: Api, mappings: &mut Mappings) -> Value {
    let name = match api {
        Api::Wingbeat => format!("wingbeat.{}", object.name),
        Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3 => format!("flagger.{}", object.name),
    };
    let is_new = match mappings {
        Mappings::Inline => return fields_of(object, api, mappings),
        Mappings::Defined(defined) => !defined.contains_key(&name),
    };
    if is_new {
        let fields = fields_of(object, api, mappings);
        if let Mappings::Defined(defined) = mappings {
            defined.insert(name.clone(), fields);
        }
    }
    json!({"$ref": format!("#/$defs/{name}")})
}

fn fields_of(object: &Object, api: Api, mappings: &mut Mappings) -> Value {
    let fields = object.fields.iter();
    let properties: Map<String, Value> =
        fields.map(|field| (field.name.to_owned(), of_field(field, api, mappings))).collect();
    let required: Vec<&str> =
        object.fields.iter().filter(|field| is_required(field, api)).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if let Value::Object(schema) = &mut schema {
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        // In Flagger's, what is unknown is a warning.
        if api == Api::Wingbeat {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
    }
    schema
}

fn is_required(field: &Field, api: Api) -> bool {
    match field.presence {
        Presence::Optional => false,
        Presence::Required => true,
        Presence::RequiredHere => api == Api::Wingbeat,
    }
}

fn of_field(field: &Field, api: Api, mappings: &mut Mappings) -> Value {
    let mut schema = match field.support {
        Support::Refused(_) if api == Api::Wingbeat => json!({"not": {}}),
        Support::Full | Support::Moot(_) | Support::Ignored(_) | Support::Refused(_) => {
            of_kind(&field.kind, api, mappings)
        }
    };
    let Value::Object(map) = &mut schema else { return schema };
    let description = match field.support {
        Support::Full | Support::Moot(_) => field.doc.to_owned(),
        Support::Ignored(why) => format!("{} No effect with plain Envoy: {why}.", field.doc),
        Support::Refused(_) => format!("{} Not carried out with plain Envoy.", field.doc),
    };
    map.insert("description".to_owned(), json!(description));
    if let Some(default) = field.default_in(api).and_then(value) {
        map.insert("default".to_owned(), default);
    }
    if let Some(example) = field.example.and_then(value) {
        map.insert("examples".to_owned(), json!([example]));
    }
    schema
}

/// Reads a value as YAML does; none of the tables holds what is no YAML.
pub(super) fn value(text: &str) -> Option<Value> {
    crate::yaml::parse(text).ok()?.first().map(crate::yaml::Node::to_json)
}

fn of_kind(kind: &Kind, api: Api, mappings: &mut Mappings) -> Value {
    match kind {
        Kind::Text(text) => of_text(*text),
        Kind::Truth => json!({"type": "boolean"}),
        Kind::Whole { low, high } => json!({"type": "integer", "minimum": low, "maximum": high}),
        Kind::Number(Bounds::Free) => json!({"type": "number"}),
        Kind::Number(Bounds::Within(low, high)) => json!({"type": "number", "minimum": low, "maximum": high}),
        Kind::Number(Bounds::Between(low, high)) => {
            json!({"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high})
        }
        Kind::Number(Bounds::Above(low)) => json!({"type": "number", "exclusiveMinimum": low}),
        Kind::Duration { .. } => json!({"type": "string", "pattern": DURATION}),
        Kind::Percent { below: None } => json!({"type": "string", "pattern": PERCENT}),
        Kind::Percent { below: Some(_) } => json!({"type": "string", "pattern": PERCENT_BELOW_ALL}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::List { of, least: 0 } => json!({"type": "array", "items": of_kind(of, api, mappings)}),
        Kind::List { of, least } => json!({"type": "array", "items": of_kind(of, api, mappings), "minItems": least}),
        Kind::Map(of) => json!({"type": "object", "additionalProperties": of_kind(of, api, mappings)}),
        Kind::Object(object) => of_object(object, api, mappings),
        Kind::Either(ours, flaggers) => match (ours, flaggers) {
            // Words of Flagger's are for other platforms.
            (Kind::Choice(_), Kind::Choice(_)) if api == Api::Wingbeat => of_kind(ours, api, mappings),
            _ => json!({"anyOf": [of_kind(ours, api, mappings), of_kind(flaggers, api, mappings)]}),
        },
        Kind::Anything => json!({}),
    }
}

/// What is no text in YAML, like `1.4`, is one to the decoder.
fn of_text(text: Text) -> Value {
    match text {
        Text::Any | Text::Form(_) => json!({"type": ["string", "number", "boolean"]}),
        Text::Pattern(pattern, _) => json!({"type": ["string", "number", "boolean"], "pattern": pattern}),
    }
}
