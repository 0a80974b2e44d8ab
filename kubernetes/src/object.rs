//! Reading objects of an API server as JSON: what is not there is nothing, and never a panic.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Returns the text at a pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Returns the whole number at a pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// Where a Deployment has which field manager wrote `spec.replicas` last, if that was none of ours. An API server has no such field:
/// of all that it notes about writes, nothing else is kept.
pub(crate) const SCALED_BY: &str = "scaledBy";

/// Returns true if `true` is at a pointer.
pub(crate) fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer) == Some(&Value::Bool(true))
}

/// Returns the entries of the list at a pointer; none if there is no list.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the texts of the mapping at a pointer, like labels.
pub(crate) fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Returns texts as JSON.
pub(crate) fn to_json(texts: BTreeMap<String, String>) -> Value {
    Value::Object(texts.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
}

/// Puts a field into a mapping, if there is something to put.
pub(crate) fn put(object: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(field.to_owned(), value);
    }
}
