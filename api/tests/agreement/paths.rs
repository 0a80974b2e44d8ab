//! Fields of a schema by their paths, where `[]` is an entry of a list and `*` one of a mapping with free names.

use super::*;

/// A name where any is allowed.
const FREE_NAME: &str = "x-free";

/// Returns every field of a schema with its own schema.
pub(crate) fn fields(schema: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk(schema, "", &mut |path, schema| found.push((path.to_owned(), schema.clone())));
    found
}

/// Returns every mapping that has fields, the document itself among them.
pub(crate) fn objects(schema: &Value) -> Vec<(String, Value)> {
    let all = std::iter::once((String::new(), schema.clone())).chain(fields(schema));
    let inner = all.flat_map(|(path, schema)| within(&path, &schema));
    inner.filter(|(_, schema)| schema["properties"].is_object()).collect()
}

/// Returns what is in a field: itself, or what its entries are.
fn within(path: &str, schema: &Value) -> Vec<(String, Value)> {
    if schema["items"].is_object() {
        within(&format!("{path}[]"), &schema["items"])
    } else if schema["additionalProperties"].is_object() {
        within(&format!("{path}.*"), &schema["additionalProperties"])
    } else {
        vec![(path.to_owned(), schema.clone())]
    }
}

fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (path, schema) in within(path, schema) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            visit(&path, field);
            walk(field, &path, visit);
        }
    }
}

/// Returns the document with a value at a path; what is around it and not there is made as short as the schema allows.
pub(crate) fn insert(schema: &Value, document: &Value, path: &str, value: Value) -> Option<Value> {
    let mut document = document.clone();
    let (mut at, mut schema) = (&mut document, schema);
    let parts = parts(path);
    for (place, part) in parts.iter().enumerate() {
        match part.as_str() {
            "[]" => {
                schema = &schema["items"];
                let items = at.as_array_mut()?;
                if items.is_empty() {
                    items.push(Value::Null);
                }
                at = items.first_mut()?;
            }
            "*" => {
                schema = &schema["additionalProperties"];
                let map = at.as_object_mut()?;
                let name = map.keys().next().cloned().unwrap_or_else(|| FREE_NAME.to_owned());
                at = map.entry(name).or_insert(Value::Null);
            }
            name => {
                schema = &schema["properties"][name];
                at = at.as_object_mut()?.entry(name).or_insert(Value::Null);
            }
        }
        if at.is_null() {
            *at = shortest(schema);
        }
        // What is not looked into has any form.
        if at.is_null() || *at == json!({}) {
            *at = if parts.get(place + 1).is_some_and(|next| next == "[]") { json!([]) } else { json!({}) };
        }
    }
    *at = value;
    Some(document)
}

/// Returns the document without what is at a path.
pub(crate) fn remove(document: &Value, path: &str) -> Value {
    let mut document = document.clone();
    let parts = parts(path);
    let (last, around) = parts.split_last().unwrap();
    let mut at = &mut document;
    for part in around {
        let next = match (part.as_str(), at) {
            ("[]", Value::Array(items)) => items.first_mut(),
            ("*", Value::Object(map)) => map.values_mut().next(),
            (name, Value::Object(map)) => map.get_mut(name),
            _ => None,
        };
        let Some(next) = next else { return document };
        at = next;
    }
    match at {
        Value::Object(map) if last == "*" => map.clear(),
        Value::Object(map) => drop(map.remove(last)),
        Value::Array(items) => items.clear(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    document
}

fn parts(path: &str) -> Vec<String> {
    path.replace("[]", ".[]").split('.').map(str::to_owned).collect()
}

/// Returns the shortest value that a schema takes.
fn shortest(schema: &Value) -> Value {
    if schema["properties"].is_object() || schema["additionalProperties"].is_object() {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        return Value::Object(required.map(|name| (name.to_owned(), sample(&schema["properties"][name]))).collect());
    }
    if schema["items"].is_object() { json!([]) } else { Value::Null }
}

/// Returns a value that a schema takes.
pub(crate) fn sample(schema: &Value) -> Value {
    samples(schema).into_iter().next().unwrap()
}

/// Returns several values that a schema takes.
pub(crate) fn samples(schema: &Value) -> Vec<Value> {
    let mut all = schema["examples"].as_array().cloned().unwrap_or_default();
    if let Some(any) = schema["anyOf"].as_array() {
        all.extend(any.iter().flat_map(samples));
    }
    all.extend(schema["enum"].as_array().into_iter().flatten().filter(|word| *word != "").cloned());
    all.extend(schema.get("const").cloned());
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    match types.first().and_then(Value::as_str) {
        Some("boolean") => all.extend([json!(true), json!(false)]),
        Some("integer") => {
            let low = schema["minimum"].as_i64().unwrap_or(0);
            all.extend([json!(low + 1), json!(low)]);
        }
        Some("number") => {
            let low = schema["minimum"].as_f64().or_else(|| schema["exclusiveMinimum"].as_f64()).unwrap_or(3.0);
            let high = schema["maximum"].as_f64().or_else(|| schema["exclusiveMaximum"].as_f64()).unwrap_or(low + 4.0);
            all.extend([json!(f64::midpoint(low, high))]);
        }
        Some("string") if types.len() == 1 => {
            let fits = |text: &&str| {
                let schema = json!({"pattern": schema["pattern"]});
                schema["pattern"].is_null() || jsonschema::validator_for(&schema).unwrap().is_valid(&json!(text))
            };
            all.extend(["7s", "7%"].iter().filter(|text| fits(text)).map(|text| json!(text)));
        }
        Some("string") if all.is_empty() => all.push(json!("text")),
        Some("array") if all.is_empty() => all.push(json!([sample(&schema["items"])])),
        Some("object") if all.is_empty() => {
            let mut value = shortest(schema);
            if schema["additionalProperties"].is_object() {
                value[FREE_NAME] = sample(&schema["additionalProperties"]);
            }
            all.push(value);
        }
        _ if all.is_empty() => all.push(json!({"anything": "goes"})),
        _ => {}
    }
    all
}
