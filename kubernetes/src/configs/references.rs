//! What a Pod template refers to, found in its JSON: a template that went through types of ours would lose fields.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::world::Kind;

/// A ConfigMap or Secret that Pods read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// [`Kind::ConfigMap`] or [`Kind::Secret`].
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whether Pods start without it, wherever they refer to it.
    pub is_optional: bool,
}

/// New names of ConfigMaps and Secrets, by kind and name.
pub type Renames = BTreeMap<(Kind, String), String>;

/// Returns the ConfigMaps and Secrets that Pods of a template read, each once.
pub fn references(template: &Value) -> Vec<Reference> {
    let mut found: BTreeMap<(Kind, String), bool> = BTreeMap::new();
    let mut pod = template.get("spec").cloned().unwrap_or_default();
    visit(&mut pod, &mut |kind, name, is_optional| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            let optional = found.entry((kind, name.to_owned())).or_insert(true);
            *optional = *optional && is_optional;
        }
    });
    found.into_iter().map(|((kind, name), is_optional)| Reference { kind, name, is_optional }).collect()
}

/// Has a Pod refer to objects by their new names.
pub fn rename(pod: &mut Value, renames: &Renames) {
    visit(pod, &mut |kind, name, _| {
        let renamed = name.as_str().and_then(|name| renames.get(&(kind, name.to_owned())));
        if let Some(renamed) = renamed {
            *name = Value::String(renamed.clone());
        }
    });
}

/// Calls something with the kind and the name of everything that a Pod refers to, and whether it starts without it.
fn visit(pod: &mut Value, found: &mut impl FnMut(Kind, &mut Value, bool)) {
    for volume in entries(pod, "volumes") {
        named(volume, "configMap", "name", Kind::ConfigMap, found);
        named(volume, "secret", "secretName", Kind::Secret, found);
        if let Some(projected) = volume.get_mut("projected") {
            for source in entries(projected, "sources") {
                named(source, "configMap", "name", Kind::ConfigMap, found);
                named(source, "secret", "name", Kind::Secret, found);
            }
        }
    }
    for containers in ["initContainers", "containers"] {
        for container in entries(pod, containers) {
            for source in entries(container, "envFrom") {
                named(source, "configMapRef", "name", Kind::ConfigMap, found);
                named(source, "secretRef", "name", Kind::Secret, found);
            }
            for variable in entries(container, "env") {
                let Some(source) = variable.get_mut("valueFrom") else { continue };
                named(source, "configMapKeyRef", "name", Kind::ConfigMap, found);
                named(source, "secretKeyRef", "name", Kind::Secret, found);
            }
        }
    }
}

fn named(value: &mut Value, field: &str, name: &str, kind: Kind, found: &mut impl FnMut(Kind, &mut Value, bool)) {
    let Some(reference) = value.get_mut(field) else { return };
    let is_optional = reference.get("optional") == Some(&Value::Bool(true));
    if let Some(name) = reference.get_mut(name) {
        found(kind, name, is_optional);
    }
}

fn entries<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({"spec": {
            "volumes": [
                {"name": "a", "configMap": {"name": "files", "items": [{"key": "k", "path": "p"}]}},
                {"name": "b", "secret": {"secretName": "tls", "optional": true}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "projected"}}, {"secret": {"name": "tls"}}, {"serviceAccountToken": {"path": "t"}},
                ]}},
                {"name": "d", "emptyDir": {}},
            ],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "init", "optional": true}}]}],
            "containers": [{
                "name": "c",
                "aFieldThatNobodyKnows": {"configMap": {"name": "unknown"}},
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "env"}}],
                "env": [
                    {"name": "PLAIN", "value": "tls"},
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "files", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k", "optional": true}}},
                    {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
            }],
        }})
    }

    #[test]
    fn everything_that_pods_read_is_found_once() {
        let found = references(&template());
        let found: Vec<_> = found.iter().map(|it| (it.kind, it.name.as_str(), it.is_optional)).collect();
        assert_eq!(
            found,
            [
                (Kind::ConfigMap, "env", false),
                (Kind::ConfigMap, "files", false),
                (Kind::ConfigMap, "projected", false),
                (Kind::Secret, "env", true),
                (Kind::Secret, "init", true),
                // Optional in one place, and needed in another.
                (Kind::Secret, "tls", false),
            ]
        );
        for none in [json!(null), json!({}), json!({"spec": {"volumes": {}, "containers": [7, {"env": "x"}]}})] {
            assert_eq!(references(&none), []);
        }
    }

    #[test]
    fn only_references_are_renamed() {
        let mut pod = template()["spec"].clone();
        let renames: Renames = [
            ((Kind::ConfigMap, "files".to_owned()), "files-primary".to_owned()),
            ((Kind::Secret, "tls".to_owned()), "tls-primary".to_owned()),
            ((Kind::Secret, "env".to_owned()), "env-primary".to_owned()),
            ((Kind::ConfigMap, "unknown".to_owned()), "unknown-primary".to_owned()),
        ]
        .into();
        rename(&mut pod, &renames);
        let expected = template()["spec"]
            .to_string()
            .replace(r#""name":"files""#, r#""name":"files-primary""#)
            .replace(r#""secretName":"tls""#, r#""secretName":"tls-primary""#)
            .replace(r#"{"secret":{"name":"tls"}}"#, r#"{"secret":{"name":"tls-primary"}}"#)
            .replace(r#""name":"env","optional""#, r#""name":"env-primary","optional""#);
        assert_eq!(pod.to_string(), expected);
    }
}
