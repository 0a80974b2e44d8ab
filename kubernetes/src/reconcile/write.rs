//! What is to be written into a cluster, by whoever has a client.

use serde_json::{Map, Value};
use wingbeat_core::id::CanaryName;

use crate::crds::Group;
use crate::object::{list, text};
use crate::resource::{ObjectRef, Resource};
use crate::revision;
use crate::world::{Kind, ObjectKey};
use crate::writes::{self, Change, Channel};

/// Something to be written. Each is derived from how things are, again and again until they are as they should be: one that
/// is lost comes again, and one that is carried out twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The fields of an object that are ours are applied by the server, whoever had them before. It is made if it is not there.
    Apply(ObjectKey, Value),
    /// A Deployment is given so many pods, by a field manager of its own: nothing holds the field after that.
    Scale(ObjectKey, u64),
    /// The status of a Canary: its fields that are ours, and all conditions. With `apiVersion`, `kind` and `metadata`.
    Status(ObjectKey, Value),
    /// The fields of a `CanaryState`'s status beside the engine's record, which belongs to whoever stores it.
    Record(CanaryName, Value),
    /// The same, together with the engine's next record, which costs no call. It may be a while until there is one.
    Note(CanaryName, Value),
    /// Some fields of an object of this version are merged: a finalizer, an owner, a selector. It may be gone already: then
    /// nothing is left to do.
    Merge(ObjectKey, Value),
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
    /// Some fields of an object.
    Merge(ObjectKey),
    /// What is kept of a Canary.
    Record(CanaryName),
    /// What is going to be.
    Note(CanaryName),
    /// An event.
    Event(EventKey),
}

/// How a write is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// By a call of its own.
    Call(writes::Write),
    /// As notes beside the engine's record, by whoever stores that.
    Notes(CanaryName, Map<String, Value>, Urgency),
}

/// When notes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// By a call of their own.
    AtOnce,
    /// With the next call there is.
    WithNext,
}

impl WriteKey {
    /// Returns what was written, of what a call wrote; nothing for an event, which nobody waits for.
    pub fn of(object: &ObjectRef, channel: &Channel) -> Option<Self> {
        let workloads = [Kind::Deployment, Kind::HorizontalPodAutoscaler, Kind::Service];
        let kinds = [Kind::Canary, Kind::ConfigMap, Kind::Secret].into_iter().chain(workloads);
        let kind = kinds.into_iter().find(|kind| Resource::of(*kind, Group::Wingbeat).kind == object.resource.kind)?;
        let key = ObjectKey::new(kind, &object.namespace, &object.name);
        match channel {
            Channel::Apply => Some(Self::Object(key)),
            Channel::Status => Some(Self::Status(key)),
            Channel::Scale => Some(Self::Scale(key)),
            Channel::Merge(_) => Some(Self::Merge(key)),
            Channel::Create => None,
        }
    }
}

impl WriteKey {
    /// Returns true for what may take from a target, or give to the Canary, what it is to have when the Canary is gone.
    pub(super) const fn may_take_back(&self) -> bool {
        match self {
            Self::Object(_) | Self::Scale(_) => true,
            Self::Merge(ObjectKey { kind, .. }) => !matches!(kind, Kind::Canary),
            Self::Status(_) | Self::Record(_) | Self::Note(_) | Self::Event(_) => false,
        }
    }
}

impl Write {
    /// Returns how it is carried out. The decision to write rests on this version of the object; nothing: it was not there.
    pub fn into_carrier(self, basis: Option<String>) -> Carrier {
        let of_event = |key: &EventKey| ObjectRef::new(Resource::EVENT, &key.namespace, &key.name);
        let (object, change) = match self {
            Self::Record(name, fields) => return Carrier::notes(name, fields, Urgency::AtOnce),
            Self::Note(name, fields) => return Carrier::notes(name, fields, Urgency::WithNext),
            Self::Apply(key, object) => (reference(&key, &object), Change::Apply(object)),
            Self::Status(key, object) => (reference(&key, &object), Change::ApplyStatus(object)),
            Self::Scale(key, replicas) => {
                (reference(&key, &Value::Null), Change::Scale(u32::try_from(replicas).unwrap_or(u32::MAX)))
            }
            Self::Merge(key, patch) => (reference(&key, &patch), Change::Merge { slot: "release", patch }),
            Self::Event(key, object) => (of_event(&key), Change::Create(object)),
            Self::Repeat(key, patch) => (of_event(&key), Change::Merge { slot: "series", patch }),
        };
        Carrier::Call(writes::Write { object, change, basis })
    }

    /// Returns what it writes.
    pub fn key(&self) -> WriteKey {
        match self {
            Self::Apply(key, _) => WriteKey::Object(key.clone()),
            Self::Scale(key, _) => WriteKey::Scale(key.clone()),
            Self::Status(key, _) => WriteKey::Status(key.clone()),
            Self::Merge(key, _) => WriteKey::Merge(key.clone()),
            Self::Record(canary, _) => WriteKey::Record(canary.clone()),
            Self::Note(canary, _) => WriteKey::Note(canary.clone()),
            Self::Event(key, _) | Self::Repeat(key, _) => WriteKey::Event(key.clone()),
        }
    }

    /// Returns a digest of what it would write.
    pub(super) fn digest(&self) -> wingbeat_core::id::Revision {
        match self {
            Self::Apply(_, value)
            | Self::Status(_, value)
            | Self::Merge(_, value)
            | Self::Record(_, value)
            | Self::Note(_, value)
            | Self::Event(_, value)
            | Self::Repeat(_, value) => revision::hash(value),
            Self::Scale(_, replicas) => revision::hash(&Value::from(*replicas)),
        }
    }
}

impl Carrier {
    fn notes(name: CanaryName, fields: Value, urgency: Urgency) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self::Notes(name, fields, urgency)
    }
}

/// Returns where an API server has an object, of the group that it is written in.
fn reference(key: &ObjectKey, object: &Value) -> ObjectRef {
    let is_flaggers = text(object, "/apiVersion").is_some_and(|version| version.starts_with("flagger.app/"));
    let group = if is_flaggers { Group::Flagger } else { Group::Wingbeat };
    ObjectRef::new(Resource::of(key.kind, group), &key.namespace, &key.name)
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

/// Returns true unless a Service is as it is wanted. Its selector is whole: what somebody adds to it takes Pods away. Ports of
/// others stay, as an API server keeps them beside those that are applied.
pub(super) fn service_differs(wanted: &Value, live: &Value) -> bool {
    let without_ports = |service: &Value| {
        let mut service = service.clone();
        if let Some(spec) = service.pointer_mut("/spec").and_then(Value::as_object_mut) {
            spec.remove("ports");
        }
        service
    };
    let is_same_port = |one: &Value, other: &Value| {
        let protocol = |port: &Value| text(port, "/protocol").unwrap_or("TCP").to_owned();
        one.get("port") == other.get("port") && protocol(one) == protocol(other)
    };
    let ports = |service: &Value| list(service, "/spec/ports").to_vec();
    let there = ports(live);
    let is_there = |port: &Value| there.iter().any(|it| is_same_port(port, it) && !differs(port, it));
    !selects_alike(wanted, live)
        || !ports(wanted).iter().all(is_there)
        || differs(&without_ports(wanted), &without_ports(live))
}

/// Returns true if two Services choose the same Pods.
pub(super) fn selects_alike(one: &Value, other: &Value) -> bool {
    one.pointer("/spec/selector") == other.pointer("/spec/selector")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_of_a_call_is_known_by_what_was_written() {
        let canary = ObjectKey::new(Kind::Canary, "prod", "backend");
        let target = ObjectKey::new(Kind::Deployment, "prod", "backend");
        let status = json!({"apiVersion": "flagger.app/v1alpha3", "kind": "Canary", "status": {}});
        let name = EventKey { namespace: "prod".into(), name: "backend.1".into() };
        for write in [
            Write::Merge(canary.clone(), json!({"apiVersion": "flagger.app/v1beta1"})),
            Write::Status(canary, status),
            Write::Scale(target.clone(), 3),
            Write::Apply(target, json!({})),
            Write::Event(name.clone(), json!({})),
            Write::Repeat(name, json!({})),
        ] {
            let key = write.key();
            let Carrier::Call(call) = write.into_carrier(Some("7".into())) else { panic!("{key:?} is a call") };
            match WriteKey::of(&call.object, &call.change.channel()) {
                None => assert!(matches!(key, WriteKey::Event(_))),
                Some(found) => assert_eq!(found, key),
            }
            if matches!(key, WriteKey::Status(_)) {
                assert_eq!(call.object.path(), "/apis/flagger.app/v1beta1/namespaces/prod/canaries/backend");
            }
        }
        let notes = Write::Record(CanaryName::new("prod", "backend"), json!({"scaledFor": null})).into_carrier(None);
        let expected = Map::from_iter([("scaledFor".to_owned(), Value::Null)]);
        assert_eq!(notes, Carrier::Notes(CanaryName::new("prod", "backend"), expected, Urgency::AtOnce));
    }

    #[test]
    fn a_service_keeps_the_ports_of_others_and_no_others_selector() {
        let service = |selector: Value, ports: Value| json!({"spec": {"selector": selector, "ports": ports}});
        let ours = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"});
        let wanted = service(json!({"app": "a"}), json!([ours]));
        let live = |selector: Value, http: &Value| {
            let metrics = json!({"name": "metrics", "protocol": "TCP", "port": 9090, "targetPort": 9090});
            let mut http = http.clone();
            http["nodePort"] = json!(30_080);
            service(selector, json!([metrics, http]))
        };
        assert!(!service_differs(&wanted, &live(json!({"app": "a"}), &ours)));
        assert!(service_differs(&wanted, &live(json!({"app": "a", "color": "blue"}), &ours)));
        let moved = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080});
        assert!(service_differs(&wanted, &live(json!({"app": "a"}), &moved)));
        assert!(service_differs(&wanted, &service(json!({"app": "a"}), json!([]))));
    }

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
