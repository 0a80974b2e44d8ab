//! What is to be written into a cluster, by whoever has a client.

use serde_json::Value;
use wingbeat_core::id::CanaryName;

use crate::revision;
use crate::world::ObjectKey;

/// Something to be written. Each is derived from how things are, again and again until they are as they should be: one that
/// is lost comes again, and one that is carried out twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// An object is made: nothing was there of its name.
    Create(ObjectKey, Value),
    /// The fields of an object that are ours are applied by the server, whoever had them before.
    Apply(ObjectKey, Value),
    /// A Deployment is given so many pods, by a field manager of its own: nothing holds the field after that.
    Scale(ObjectKey, u64),
    /// The status of a Canary: its fields that are ours, and all conditions. With `apiVersion`, `kind` and `metadata`.
    Status(ObjectKey, Value),
    /// The fields of a `CanaryState`'s status beside the engine's record, which belongs to whoever stores it.
    Record(CanaryName, Value),
    /// An event is made. It may be there already: then nothing is left to do.
    Event(EventKey, Value),
    /// An event happened again: these fields of it are merged.
    Repeat(EventKey, Value),
}

/// What an event is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What of a cluster is written. Of two writes of the same, the later one holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteKey {
    /// An object.
    Object(ObjectKey),
    /// How many pods a Deployment has.
    Scale(ObjectKey),
    /// A Canary's status.
    Status(ObjectKey),
    /// What is kept of a Canary.
    Record(CanaryName),
    /// An event.
    Event(EventKey),
}

impl Write {
    /// Returns what it writes.
    pub fn key(&self) -> WriteKey {
        match self {
            Self::Create(key, _) | Self::Apply(key, _) => WriteKey::Object(key.clone()),
            Self::Scale(key, _) => WriteKey::Scale(key.clone()),
            Self::Status(key, _) => WriteKey::Status(key.clone()),
            Self::Record(canary, _) => WriteKey::Record(canary.clone()),
            Self::Event(key, _) | Self::Repeat(key, _) => WriteKey::Event(key.clone()),
        }
    }

    /// Returns a digest of what it would write.
    pub(super) fn digest(&self) -> wingbeat_core::id::Revision {
        match self {
            Self::Create(_, value)
            | Self::Apply(_, value)
            | Self::Status(_, value)
            | Self::Record(_, value)
            | Self::Event(_, value)
            | Self::Repeat(_, value) => revision::hash(value),
            Self::Scale(_, replicas) => revision::hash(&Value::from(*replicas)),
        }
    }
}

/// Returns true unless all that is wanted is there. What is there beside it is somebody else's; of a list, all entries are
/// ours.
pub(super) fn differs(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .any(|(field, value)| live.get(field).is_none_or(|live| differs(value, live)) && !value.is_null()),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() != live.len() || wanted.iter().zip(live).any(|(wanted, live)| differs(wanted, live))
        }
        _ => wanted != live,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_is_no_difference() {
        let live = json!({"a": {"b": 1, "defaulted": true}, "list": [{"name": "x", "protocol": "TCP"}], "status": {}});
        for same in [json!({"a": {"b": 1}}), json!({"list": [{"name": "x"}]}), json!({"none": null}), json!({})] {
            assert!(!differs(&same, &live), "{same}");
        }
        for other in [
            json!({"a": {"b": 2}}),
            json!({"a": {"c": 1}}),
            json!({"list": []}),
            json!({"list": [{"name": "y"}]}),
            json!({"list": [{"name": "x"}, {"name": "y"}]}),
        ] {
            assert!(differs(&other, &live), "{other}");
        }
    }
}
