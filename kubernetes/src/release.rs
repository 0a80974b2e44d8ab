//! What holds a Canary back from being deleted, and what of its objects is given away before it goes: patches, as functions of
//! the objects that they are for.
//!
//! Each names the version that it was made from: whoever writes in between, as another finalizer or owner, loses nothing.

use serde_json::{Map, Value, json};

use crate::desire::{CANARY_LABEL, FLUX_ANNOTATIONS};
use crate::object::{list, text, texts};

/// What holds Canaries of `wingbeat.dev` back.
const FINALIZER: &str = "wingbeat.dev/finalizer";
/// The same of `flagger.app`, as Flagger calls it: each of both takes over what the other one holds.
const FLAGGERS_FINALIZER: &str = "finalizer.flagger.app";

/// Returns the finalizer of a Canary.
pub fn finalizer(canary: &Value) -> &'static str {
    let is_flaggers = text(canary, "/apiVersion").is_some_and(|version| version.starts_with("flagger.app/"));
    if is_flaggers { FLAGGERS_FINALIZER } else { FINALIZER }
}

/// Returns true if a Canary has its finalizer.
pub fn is_held(canary: &Value) -> bool {
    finalizers(canary).any(|it| it == finalizer(canary))
}

/// Returns a Canary that begins nothing and moves nothing on.
pub(crate) fn frozen(canary: &Value) -> Value {
    let mut canary = canary.clone();
    if let Some(spec) = canary.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("suspend".to_owned(), Value::Bool(true));
    }
    canary
}

/// Returns true once somebody has deleted an object, which stays as long as it has a finalizer.
pub fn is_deleted(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Returns false for a Canary that says that nothing is brought back when it is deleted. Without a word about it, all is.
pub fn hands_back(canary: &Value) -> bool {
    canary.pointer("/spec/revertOnDeletion") != Some(&Value::Bool(false))
}

/// Returns the patch that gives a Canary its finalizer, beside those of others.
pub fn held(canary: &Value) -> Value {
    let others = finalizers(canary).filter(|it| *it != finalizer(canary));
    let all: Vec<&str> = others.chain([finalizer(canary)]).collect();
    patch(canary, [("finalizers", json!(all))])
}

/// Returns the patch that takes the finalizer of a Canary away. Those of others stay.
pub fn let_go(canary: &Value) -> Value {
    let others: Vec<&str> = finalizers(canary).filter(|it| *it != finalizer(canary)).collect();
    patch(canary, [("finalizers", json!(others))])
}

/// Returns true if an object says that it goes when a Canary goes.
pub fn belongs_to(object: &Value, canary: &Value) -> bool {
    let uid = text(canary, "/metadata/uid");
    uid.is_some() && list(object, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid)
}

/// Returns the patch by which an object does not go with a Canary; nothing if it would not.
pub fn disowned(object: &Value, canary: &Value) -> Option<Value> {
    belongs_to(object, canary).then(|| patch(object, [("ownerReferences", other_owners(object, canary))]))
}

/// Returns the patch by which a Service leads to Pods with these labels, and has nothing of a Canary any more.
pub(crate) fn led(service: &Value, canary: &Value, selector: &Map<String, Value>) -> Value {
    let gone = |pointer: &str, keys: &[&str]| -> Map<String, Value> {
        let there = texts(service, pointer);
        keys.iter().filter(|key| there.contains_key(**key)).map(|key| ((*key).to_owned(), Value::Null)).collect()
    };
    let is_made = belongs_to(service, canary);
    let mut fields = vec![("labels", Value::Object(gone("/metadata/labels", &[CANARY_LABEL])))];
    if is_made {
        fields.push(("annotations", Value::Object(gone("/metadata/annotations", &FLUX_ANNOTATIONS))));
        fields.push(("ownerReferences", other_owners(service, canary)));
    }
    let before = service.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    let mut wanted: Map<String, Value> = before.map(|(key, _)| (key.clone(), Value::Null)).collect();
    wanted.extend(selector.clone());
    let mut patch = patch(service, fields);
    if let Some(fields) = patch.as_object_mut() {
        fields.insert("spec".to_owned(), json!({"selector": wanted}));
    }
    patch
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/finalizers").iter().filter_map(Value::as_str)
}

fn other_owners(object: &Value, canary: &Value) -> Value {
    let uid = text(canary, "/metadata/uid");
    let all = list(object, "/metadata/ownerReferences").iter();
    Value::Array(all.filter(|owner| text(owner, "/uid") != uid).cloned().collect())
}

fn patch<'a>(object: &Value, metadata: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let of = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    let mut metadata: Map<String, Value> =
        metadata.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
    metadata.insert("resourceVersion".to_owned(), of("/metadata/resourceVersion"));
    json!({"apiVersion": of("/apiVersion"), "kind": of("/kind"), "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(version: &str, finalizers: &Value) -> Value {
        json!({
            "apiVersion": version, "kind": "Canary",
            "metadata": {"name": "backend", "uid": "u", "resourceVersion": "7", "finalizers": finalizers},
        })
    }

    #[test]
    fn finalizers_of_others_stay() {
        for (version, ours) in
            [("wingbeat.dev/v1alpha1", "wingbeat.dev/finalizer"), ("flagger.app/v1beta1", "finalizer.flagger.app")]
        {
            let patch = |finalizers: Value| {
                let metadata = json!({"finalizers": finalizers, "resourceVersion": "7"});
                json!({"apiVersion": version, "kind": "Canary", "metadata": metadata})
            };
            for (before, others) in [(Value::Null, json!([])), (json!(["a/b", "c"]), json!(["a/b", "c"]))] {
                let canary = canary(version, &before);
                assert!(!is_held(&canary));
                let mut all = others.as_array().unwrap().clone();
                all.push(json!(ours));
                assert_eq!(held(&canary), patch(json!(all)));
                let mut held = canary.clone();
                held["metadata"]["finalizers"] = json!(all);
                assert!(is_held(&held));
                assert_eq!(let_go(&held), patch(others));
            }
        }
    }

    #[test]
    fn owners_of_others_stay() {
        let canary = canary("wingbeat.dev/v1alpha1", &json!([]));
        let object = |owners: Value| {
            let metadata = json!({"name": "a", "resourceVersion": "8", "ownerReferences": owners});
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata})
        };
        let patch = disowned(&object(json!([{"uid": "u"}, {"uid": "x"}])), &canary).unwrap();
        assert_eq!(patch["metadata"], json!({"ownerReferences": [{"uid": "x"}], "resourceVersion": "8"}));
        assert_eq!(disowned(&object(json!([{"uid": "x"}])), &canary), None);
        assert_eq!(disowned(&object(json!([{"uid": "u"}])), &json!({})), None, "nobody is no owner");
    }

    #[test]
    fn a_service_that_was_made_is_left_without_a_trace_and_one_that_was_there_keeps_its_own() {
        let canary = canary("wingbeat.dev/v1alpha1", &json!([]));
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "backend", "resourceVersion": "9",
                "labels": {"wingbeat.dev/canary": "backend", "app": "backend"},
                "annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "team": "a"},
            },
            "spec": {"selector": {"app": "backend-primary", "tier": "web"}},
        });
        let selector = Map::from_iter([("app".to_owned(), json!("backend"))]);
        let adopted = led(&service, &canary, &selector);
        assert_eq!(adopted["spec"], json!({"selector": {"app": "backend", "tier": null}}));
        let labels = json!({"wingbeat.dev/canary": null});
        assert_eq!(adopted["metadata"], json!({"labels": labels, "resourceVersion": "9"}));
        service["metadata"]["ownerReferences"] = json!([{"uid": "u"}]);
        let annotations = json!({"kustomize.toolkit.fluxcd.io/reconcile": null});
        assert_eq!(
            led(&service, &canary, &selector)["metadata"],
            json!({"labels": labels, "annotations": annotations, "ownerReferences": [], "resourceVersion": "9"})
        );
    }
}
