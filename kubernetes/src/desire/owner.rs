//! The Canary, as the owner of what is made for it.

use serde_json::{Value, json};

use super::problem::Problems;
use crate::object::{is_true, list, text};

/// Letters that the value of a label may have, and the name of a Service; an API server refuses more.
pub(super) const MAX_LABEL_LEN: usize = 63;
/// Letters that are kept of a name that is longer, before a hyphen and ten digits of its hash.
const KEPT_LEN: usize = 52;

/// Annotations of Pods that change with each promotion: ours, and Flagger's.
pub(crate) const PROMOTION_KEYS: [&str; 2] = ["wingbeat.dev/promotion", "flagger-id"];

/// A Canary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canary<'a> {
    object: &'a Value,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    uid: &'a str,
}

/// An object that is there under a name that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing<'a> {
    /// There is none.
    Absent,
    /// It is this Canary's.
    Owned(&'a Value),
    /// No controller has it.
    Unowned(&'a Value),
    /// It is that of a Canary of the same name, which was deleted: it goes, too.
    Former,
    /// Another controller has it.
    Foreign(&'a Value),
}

/// Returns the value of a label that names a Canary. A name may be longer than a value.
pub fn label_value(name: &str) -> String {
    if name.len() <= MAX_LABEL_LEN {
        return name.to_owned();
    }
    let kept: String = name.chars().take(KEPT_LEN).collect();
    format!("{kept}-{}", crate::revision::hash(&Value::from(name)).as_str())
}

impl<'a> Canary<'a> {
    /// Reads what every Canary has from an API server.
    pub(super) fn read(object: &'a Value, problems: &mut Problems) -> Option<Self> {
        let of = |field: &str| text(object, &format!("/metadata/{field}"));
        let (name, namespace, uid) = (of("name"), of("namespace"), of("uid"));
        if let (Some(name), Some(namespace), Some(uid)) = (name, namespace, uid) {
            return Some(Self { object, name, namespace, uid });
        }
        problems.add("Canary", "metadata", "lacks name, namespace or uid", "read it from the API server");
        None
    }

    /// Returns what it is called in messages.
    pub(super) fn shown(&self) -> String {
        format!("Canary {}.{}", self.name, self.namespace)
    }

    pub(super) fn service(&self) -> &'a Value {
        self.object.pointer("/spec/service").unwrap_or(&Value::Null)
    }

    pub(super) fn has_scaler(&self) -> bool {
        self.object.pointer("/spec/autoscalerRef").is_some_and(|it| !it.is_null())
    }

    /// Returns the annotation of Pods that changes with each promotion. With Flagger's API, it is Flagger's: a swap of the
    /// controller makes no Pod anew.
    pub(super) fn promotion_key(&self) -> &'static str {
        let [own, flaggers] = PROMOTION_KEYS;
        match text(self.object, "/apiVersion") {
            Some(version) if version.starts_with("flagger.app/") => flaggers,
            Some(_) | None => own,
        }
    }

    /// Returns the reference by which what it owns goes when it goes.
    pub(super) fn reference(&self) -> Value {
        json!([{
            "apiVersion": text(self.object, "/apiVersion").unwrap_or("wingbeat.dev/v1alpha1"),
            "kind": "Canary",
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }])
    }

    /// Returns what is wrong with an object of a Canary that is no more, and the mend.
    pub(super) fn former(&self) -> (String, &'static str) {
        let wrong = format!("belongs to a former {}, and is deleted with it", self.shown());
        (wrong, "wait until it is gone, or delete it")
    }

    /// Returns what is there of a kind under a name.
    pub(super) fn find(&self, existing: &[&'a Value], kind: &str, name: &str) -> Existing<'a> {
        let is_it = |object: &&Value| {
            text(object, "/kind") == Some(kind)
                && text(object, "/metadata/name") == Some(name)
                && text(object, "/metadata/namespace") == Some(self.namespace)
        };
        let Some(object) = existing.iter().copied().find(is_it) else { return Existing::Absent };
        match controller(object) {
            None => Existing::Unowned(object),
            Some(controller) if text(controller, "/uid") == Some(self.uid) => Existing::Owned(object),
            Some(controller)
                if text(controller, "/kind") == Some("Canary") && text(controller, "/name") == Some(self.name) =>
            {
                Existing::Former
            }
            Some(_) => Existing::Foreign(object),
        }
    }
}

/// Returns the reference to an object's controller.
fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|reference| is_true(reference, "/controller"))
}

/// Returns what the controller of an object is called in messages.
pub(super) fn controller_of(object: &Value) -> String {
    let of = |field: &str| controller(object).and_then(|it| text(it, field)).unwrap_or("?").to_owned();
    format!("{} {}", of("/kind"), of("/name"))
}
