//! Copies of ConfigMaps and Secrets: what a primary's Pods read stays as it is while the target's gets another one.

use serde_json::{Map, Value, json};

use super::metadata::copied;
use super::observed::Settings;
use super::owner::Canary;
use super::problem::Problems;
use crate::configs::CHECKSUM_ANNOTATION;
use crate::object::{put, text, texts, to_json};
use crate::world::{Kind, ObjectKey};

/// What the name of an object ends with that keeps what a copy held before.
const BEFORE_SUFFIX: &str = "-before";
/// Where such an object says which type the Secret has that it keeps the data of. Its own is one that asks for no fields.
const TYPE_ANNOTATION: &str = "wingbeat.dev/type";
/// Fields that hold data.
const DATA: [&str; 2] = ["data", "binaryData"];

/// A copy of a ConfigMap or Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigCopy {
    /// Where the data is.
    pub from: ObjectKey,
    /// Where it is to be.
    pub to: ObjectKey,
    /// Which data.
    pub checksum: String,
}

/// Returns the key of the object that keeps what a copy held before.
pub fn kept_before(copy: &ObjectKey) -> ObjectKey {
    ObjectKey { name: format!("{}{BEFORE_SUFFIX}", copy.name), ..copy.clone() }
}

impl ConfigCopy {
    /// Returns the copy as it should be, of the object that it is made from; nothing if the Canary is none of an API server.
    pub fn desire(&self, canary: &Value, source: &Value, settings: &Settings) -> Option<Value> {
        let labels = copied(texts(source, "/metadata/labels"), &settings.copied_prefixes);
        let annotations = source.pointer("/metadata/annotations");
        let noted = annotations.and_then(|all| all.get(TYPE_ANNOTATION)).and_then(Value::as_str);
        let kind = (self.to.kind == Kind::Secret).then(|| noted.or_else(|| text(source, "/type")).unwrap_or("Opaque"));
        let mut annotations = Map::from_iter([(CHECKSUM_ANNOTATION.to_owned(), json!(self.checksum))]);
        let is_kept = self.to.name.ends_with(BEFORE_SUFFIX);
        if is_kept {
            put(&mut annotations, TYPE_ANNOTATION, kind.map(Value::from));
        }
        let mut object = object(canary, &self.to, &Value::Object(annotations))?;
        if let Some(fields) = object.as_object_mut() {
            put(fields, "type", kind.map(|kind| Value::from(if is_kept { "Opaque" } else { kind })));
            for field in DATA {
                put(fields, field, source.get(field).filter(|it| !it.is_null()).cloned());
            }
        }
        if let (Some(metadata), false) =
            (object.pointer_mut("/metadata").and_then(Value::as_object_mut), labels.is_empty())
        {
            metadata.insert("labels".to_owned(), to_json(labels));
        }
        Some(object)
    }

    /// Returns what keeps nothing any more. It stays, as nothing is deleted by us; it goes with the Canary.
    pub fn emptied(canary: &Value, key: &ObjectKey) -> Option<Value> {
        let mut object = object(canary, key, &json!({}))?;
        if let (Kind::Secret, Some(fields)) = (key.kind, object.as_object_mut()) {
            fields.insert("type".to_owned(), json!("Opaque"));
        }
        Some(object)
    }
}

fn object(canary: &Value, key: &ObjectKey, annotations: &Value) -> Option<Value> {
    let canary = Canary::read(canary, &mut Problems::default())?;
    let kind = if key.kind == Kind::Secret { "Secret" } else { "ConfigMap" };
    Some(json!({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "annotations": annotations,
            "ownerReferences": canary.reference(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_data_and_belongs_to_the_canary() {
        let canary =
            json!({"apiVersion": "wingbeat.dev/v1alpha1", "metadata": {"name": "a", "namespace": "prod", "uid": "u"}});
        let source = json!({
            "metadata": {"labels": {"team": "a"}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "type": "kubernetes.io/tls", "data": {"tls.crt": "AA==", "tls.key": "AQ=="}, "immutable": true,
        });
        let key = |name: &str| ObjectKey::new(Kind::Secret, "prod", name);
        let owner = json!([{
            "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Canary", "name": "a", "uid": "u", "controller": true,
            "blockOwnerDeletion": true,
        }]);
        let copy = ConfigCopy { from: key("tls"), to: key("tls-primary"), checksum: "01".into() };
        let object = copy.desire(&canary, &source, &Settings::default()).unwrap();
        assert_eq!(
            object,
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {
                    "name": "tls-primary", "namespace": "prod", "annotations": {"wingbeat.dev/checksum": "01"},
                    "ownerReferences": owner,
                },
                "data": {"tls.crt": "AA==", "tls.key": "AQ=="},
            })
        );
        let before = ConfigCopy { from: copy.to.clone(), to: kept_before(&copy.to), ..copy.clone() };
        let kept = before.desire(&canary, &object, &Settings::default()).unwrap();
        let annotations = json!({"wingbeat.dev/checksum": "01", "wingbeat.dev/type": "kubernetes.io/tls"});
        assert_eq!((&kept["type"], &kept["metadata"]["annotations"]), (&json!("Opaque"), &annotations));
        let back = ConfigCopy { from: before.to.clone(), ..copy };
        assert_eq!(back.desire(&canary, &kept, &Settings::default()).unwrap(), object);
        let emptied = ConfigCopy::emptied(&canary, &before.to).unwrap();
        assert_eq!((&emptied["type"], emptied.get("data")), (&json!("Opaque"), None));
    }

    #[test]
    fn labels_are_copied_by_prefix() {
        let canary = json!({"metadata": {"name": "a", "namespace": "prod", "uid": "u"}});
        let settings = Settings { copied_prefixes: vec!["team".into()], ..Settings::default() };
        let source =
            json!({"metadata": {"labels": {"team": "a", "tier": "b", "kustomize.toolkit.fluxcd.io/name": "c"}}});
        let key = |name: &str| ObjectKey::new(Kind::ConfigMap, "prod", name);
        let copy = ConfigCopy { from: key("a"), to: key("a-primary"), checksum: "01".into() };
        let object = copy.desire(&canary, &source, &settings).unwrap();
        assert_eq!(object["metadata"]["labels"], json!({"team": "a"}));
        assert_eq!(object.get("type"), None);
    }
}
