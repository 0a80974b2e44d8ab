//! Ways of writing an object.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::resource::ObjectRef;

/// Who owns the fields that we apply.
pub const MANAGER: &str = "wingbeat";
/// Who has written `spec.replicas` of a target: once for each transition, and without insisting.
pub const SCALE_MANAGER: &str = "wingbeat-scale";

/// Something to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The object.
    pub object: ObjectRef,
    /// What of it.
    pub change: Change,
    /// The object's version on which the decision rests; nothing: it was not there. As long as it is the same, the same change
    /// is not written a second time.
    pub basis: Option<String>,
}

/// A way of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The object's fields that we own, applied by force. Fields that were ours and are not in it any more go.
    Apply(Value),
    /// The same of its status.
    ApplyStatus(Value),
    /// How many Pods a target has from now on. Nothing else of it changes, and whoever changes it back may.
    Scale(u32),
    /// Some fields, beside what others have written: an annotation, or a finalizer.
    Merge {
        /// What tells this patch from others of the same object, which wait beside it.
        slot: &'static str,
        /// The patch, of type `application/merge-patch+json`.
        patch: Value,
    },
    /// An object that nobody has made yet, as an event is.
    Create(Value),
}

/// What of an object is written: of each, the newest wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// [`Change::Create`]
    Create,
    /// [`Change::Apply`]
    Apply,
    /// [`Change::ApplyStatus`]
    Status,
    /// [`Change::Scale`]
    Scale,
    /// [`Change::Merge`]
    Merge(&'static str),
}

impl Channel {
    /// The one that comes first in order.
    pub(super) const FIRST: Self = Self::Create;
}

/// What tells one content from another.
pub(super) type Digest = [u8; 32];

/// A call that carries a change out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST` or `PATCH`.
    pub method: &'static str,
    /// Path and query.
    pub uri: String,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Change {
    /// Returns which channel it is of.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Apply(_) => Channel::Apply,
            Self::ApplyStatus(_) => Channel::Status,
            Self::Scale(_) => Channel::Scale,
            Self::Merge { slot, .. } => Channel::Merge(slot),
            Self::Create(_) => Channel::Create,
        }
    }

    /// Returns what is done to the object, as messages have it.
    pub(super) const fn action(&self) -> &'static str {
        match self {
            Self::Apply(_) => "applied",
            Self::ApplyStatus(_) => "given its status",
            Self::Scale(_) => "scaled",
            Self::Merge { .. } => "patched",
            Self::Create(_) => "created",
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Apply(object) | Self::ApplyStatus(object) | Self::Create(object) => object.clone(),
            Self::Scale(replicas) => json!({"spec": {"replicas": replicas}}),
            Self::Merge { patch, .. } => patch.clone(),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Sha256::digest(self.body().to_string()).into()
    }
}

impl Write {
    /// Returns the call that carries it out.
    pub fn request(&self) -> Request {
        // JSON is YAML.
        let apply = "application/apply-patch+yaml";
        let (merge, json) = ("application/merge-patch+json", "application/json");
        let (object, manager) = (&self.object, MANAGER);
        let (method, uri, content_type) = match &self.change {
            Change::Apply(_) => ("PATCH", format!("{}?fieldManager={manager}&force=true", object.path()), apply),
            Change::ApplyStatus(_) => {
                ("PATCH", format!("{}/status?fieldManager={manager}&force=true", object.path()), apply)
            }
            Change::Scale(_) => ("PATCH", format!("{}?fieldManager={SCALE_MANAGER}", object.path()), merge),
            Change::Merge { .. } => ("PATCH", format!("{}?fieldManager={manager}", object.path()), merge),
            Change::Create(_) => ("POST", format!("{}?fieldManager={manager}", object.collection()), json),
        };
        let body = self.change.body().to_string().into_bytes();
        Request { method, uri, content_type, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    #[test]
    fn calls_are_those_of_an_api_server() {
        let object = ObjectRef::new(Resource::DEPLOYMENT, "prod", "backend");
        let request = |change: Change| Write { object: object.clone(), change, basis: None }.request();
        let path = "/apis/apps/v1/namespaces/prod/deployments";
        let apply = request(Change::Apply(json!({"a": 1})));
        assert_eq!((apply.method, apply.uri), ("PATCH", format!("{path}/backend?fieldManager=wingbeat&force=true")));
        let status = request(Change::ApplyStatus(json!({})));
        assert_eq!(status.uri, format!("{path}/backend/status?fieldManager=wingbeat&force=true"));
        let scale = request(Change::Scale(3));
        assert_eq!(scale.uri, format!("{path}/backend?fieldManager=wingbeat-scale"));
        assert_eq!(
            (scale.content_type, scale.body),
            ("application/merge-patch+json", br#"{"spec":{"replicas":3}}"#.to_vec())
        );
        let create = request(Change::Create(json!({})));
        assert_eq!((create.method, create.uri), ("POST", format!("{path}?fieldManager=wingbeat")));
    }
}
