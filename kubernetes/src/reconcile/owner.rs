//! Which Canary an object belongs to.

use serde_json::Value;

use crate::object::text;

/// Returns true unless an object says that it belongs to another one than this Canary.
pub(super) fn is_owned(object: &Value, canary: &Value) -> bool {
    let owner = text(object, "/metadata/ownerReferences/0/uid");
    owner.is_none_or(|owner| Some(owner) == text(canary, "/metadata/uid"))
}
