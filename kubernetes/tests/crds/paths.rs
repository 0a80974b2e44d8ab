//! Fields of a schema by their paths, where `[]` is an entry of a list and `*` one of a mapping with free names.

use super::*;

/// A name where any is allowed.
pub(crate) const FREE_NAME: &str = "x-free";

/// Returns every field of a schema with its own schema.
pub(crate) fn fields(schema: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk(schema, "", &mut |path, schema| found.push((path.to_owned(), schema.clone())));
    found
}

/// Returns the paths below `spec` that nothing is below.
pub(crate) fn leaves(schema: &Value) -> BTreeSet<String> {
    let all: Vec<String> = fields(schema).into_iter().map(|(path, _)| path).collect();
    let is_leaf = |path: &&String| {
        let below = [".", "[", ".*"].map(|next| format!("{path}{next}"));
        !all.iter().any(|other| below.iter().any(|below| other.starts_with(below.as_str())))
    };
    all.iter().filter(|path| path.starts_with("spec.")).filter(is_leaf).cloned().collect()
}

/// Returns every mapping that has fields.
pub(crate) fn objects(schema: &Value) -> Vec<(String, Value)> {
    let all = std::iter::once((String::new(), schema.clone())).chain(fields(schema));
    let inner = all.map(|(path, schema)| within(&path, &schema));
    inner.filter(|(_, schema)| schema["properties"].is_object()).collect()
}

/// Returns what is in a field: itself, or what its entries are.
fn within(path: &str, schema: &Value) -> (String, Value) {
    if schema["items"].is_object() {
        within(&format!("{path}[]"), &schema["items"])
    } else if schema["additionalProperties"].is_object() {
        within(&format!("{path}.*"), &schema["additionalProperties"])
    } else {
        (path.to_owned(), schema.clone())
    }
}

fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    let (path, schema) = within(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        visit(&path, field);
        walk(field, &path, visit);
    }
}

/// Puts a value at a path; what is around it and not there is made, as far as the schema requires it.
pub(crate) fn insert(schema: &Value, document: &mut Value, path: &str, value: Value) {
    let parts = path.replace("[]", ".[]");
    let (mut at, mut schema) = (document, schema);
    for part in parts.split('.') {
        (at, schema) = match part {
            "[]" => {
                if at.as_array().is_none_or(Vec::is_empty) {
                    *at = json!([shortest(&schema["items"])]);
                }
                (&mut at[0], &schema["items"])
            }
            "*" => {
                let inner = &schema["additionalProperties"];
                (at.as_object_mut().unwrap().entry(FREE_NAME).or_insert_with(|| shortest(inner)), inner)
            }
            name => {
                let inner = &schema["properties"][name];
                let fields = at.as_object_mut().unwrap_or_else(|| panic!("{path}: {name} of what is no mapping"));
                (fields.entry(name).or_insert_with(|| shortest(inner)), inner)
            }
        };
    }
    *at = value;
}

/// Returns a short value that a schema takes.
fn shortest(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|all| all.iter().find(|word| **word != "")) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), shortest(&schema["properties"][name])));
            Value::Object(fields.collect())
        }
        Some("array") => json!([]),
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(1),
        _ => json!("text"),
    }
}
