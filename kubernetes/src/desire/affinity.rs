//! Selectors within a Pod template that mean the target's own Pods: in the primary, they mean the primary's.

use serde_json::Value;

use super::target::{PRIMARY_SUFFIX, Target};

/// Renames what tells the target's Pods in rules that spread Pods and keep them apart. What draws Pods near others is left
/// as it is, as Flagger does: it may mean the Pods of whoever it names.
///
/// A value of any of the keys that is the target's name is renamed; of the key that its selector has, also one that is the
/// selector's value, which Flagger leaves: its primaries would keep away from the canary alone.
pub(super) fn rename(pod: &mut Value, target: &Target<'_>, keys: &[String]) {
    for constraint in entries(pod, "/topologySpreadConstraints") {
        rename_selector(constraint.pointer_mut("/labelSelector"), target, keys);
    }
    let anti = "/affinity/podAntiAffinity";
    for term in entries(pod, &format!("{anti}/preferredDuringSchedulingIgnoredDuringExecution")) {
        rename_selector(term.pointer_mut("/podAffinityTerm/labelSelector"), target, keys);
    }
    for term in entries(pod, &format!("{anti}/requiredDuringSchedulingIgnoredDuringExecution")) {
        rename_selector(term.pointer_mut("/labelSelector"), target, keys);
    }
}

fn entries<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn rename_selector(selector: Option<&mut Value>, target: &Target<'_>, keys: &[String]) {
    let Some(selector) = selector else { return };
    let is_own = |key: &str, value: &str| {
        (keys.iter().any(|known| known == key) && value == target.name)
            || (key == target.label.key && value == target.label.value)
    };
    let renamed = |value: &mut Value, key: &str| {
        if let Some(text) = value.as_str().filter(|text| is_own(key, text)) {
            *value = Value::String(format!("{text}{PRIMARY_SUFFIX}"));
        }
    };
    for (key, value) in selector.pointer_mut("/matchLabels").and_then(Value::as_object_mut).into_iter().flatten() {
        renamed(value, key);
    }
    for expression in entries(selector, "/matchExpressions") {
        let Some(key) = expression.get("key").and_then(Value::as_str).map(str::to_owned) else { continue };
        for value in entries(expression, "/values") {
            renamed(value, &key);
        }
    }
}
