//! CanaryStates: what the controller decided about each Canary, as an object of the cluster.
//!
//! The record of the engine is in it as text: an API server keeps numbers as floats where they are large, and the ids in a
//! record are.

pub(crate) mod held;

use serde_json::{Map, Value, json};
use wingbeat_control::store::Write;
use wingbeat_core::id::CanaryName;

use crate::object::{number, text};
use crate::resource::{ObjectRef, Resource};

/// The form of a record that is written: the version of the engine's entries.
pub const FORMAT: u64 = 3;
/// The oldest form that is read. Records of earlier ones were never in a cluster.
const OLDEST_FORMAT: u64 = 3;
/// How the key of a canary's record begins among the engine's entries.
const KEY_PREFIX: &str = "canary/";

/// What was decided about a Canary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// How often the lease had changed hands when it was written.
    pub epoch: u64,
    /// The engine's entry.
    pub record: String,
    /// What else is kept of it: the accepted spec, the fence, what was promoted, what the target was scaled for.
    pub notes: Map<String, Value>,
}

/// What an object holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing yet: whoever created it did not get any further.
    #[default]
    Empty,
    /// A decision.
    Decided(Decision),
    /// Something that this version cannot read. It stays as it is.
    Foreign {
        /// Why not, and what to do.
        why: String,
    },
}

/// Returns the reference to a canary's state.
pub fn object(name: &CanaryName) -> ObjectRef {
    ObjectRef::new(Resource::CANARY_STATE, &name.namespace, &name.name)
}

/// Returns the canary of a state.
pub fn name(object: &Value) -> Option<CanaryName> {
    Some(CanaryName::new(text(object, "/metadata/namespace")?, text(object, "/metadata/name")?))
}

/// Returns what an object holds.
pub fn read(object: &Value) -> Content {
    let status = match object.pointer("/status") {
        Some(Value::Object(status)) if !status.is_empty() => status,
        _ => return Content::Empty,
    };
    let foreign = |why: String| Content::Foreign { why };
    let Some(format) = number(object, "/status/format") else {
        return foreign(
            "its status has no format: somebody has edited it; delete it to let the canary start anew".into(),
        );
    };
    if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        return foreign(format!(
            "it has format {format}, and this version reads {OLDEST_FORMAT} to {FORMAT}: use the version that wrote it, or a \
             later one"
        ));
    }
    let record = text(object, "/status/record").filter(|record| record_format(record) == Some(format));
    let (Some(record), Some(epoch)) = (record, number(object, "/status/epoch")) else {
        return foreign("its record is damaged: somebody has edited it; delete it to let the canary start anew".into());
    };
    let own = ["format", "epoch", "record"];
    let notes = status.iter().filter(|(key, _)| !own.contains(&key.as_str()));
    let notes = notes.map(|(key, value)| (key.clone(), value.clone())).collect();
    Content::Decided(Decision { epoch, record: record.to_owned(), notes })
}

impl Decision {
    /// Returns `status` of the object that holds it.
    pub fn status(&self) -> Value {
        let mut status = self.notes.clone();
        status.insert("format".to_owned(), json!(record_format(&self.record).unwrap_or(FORMAT)));
        status.insert("epoch".to_owned(), json!(self.epoch));
        status.insert("record".to_owned(), json!(self.record));
        Value::Object(status)
    }
}

/// Returns the version that is written into an entry of the engine.
fn record_format(record: &str) -> Option<u64> {
    number(&serde_json::from_str(record).ok()?, "/version")
}

/// Returns an entry of the engine as a record, or why it is none that a CanaryState can hold.
pub fn record_text(entry: &[u8]) -> Result<&str, String> {
    let record = str::from_utf8(entry).map_err(|_| "its record is no text; report this as a bug".to_owned())?;
    match record_format(record) {
        Some(format) if (OLDEST_FORMAT..=FORMAT).contains(&format) => Ok(record),
        Some(format) => Err(format!("its record has version {format}, not {FORMAT}; report this as a bug")),
        None => Err("its record has no version; report this as a bug".to_owned()),
    }
}

/// What is to be stored, divided by where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Divided {
    /// Records of canaries, for their CanaryStates; nothing: it is to go.
    pub records: Vec<(CanaryName, Option<Vec<u8>>)>,
    /// All else, for the disk: counts, evidence, events.
    pub rest: Vec<Write>,
}

/// Divides what the engine wants stored. Of two writes of one record, the later one counts.
pub fn divide(writes: &[Write]) -> Divided {
    let mut divided = Divided::default();
    for write in writes {
        let Some(name) = name_of_key(write.key()) else {
            divided.rest.push(write.clone());
            continue;
        };
        let record = match write {
            Write::Put(_, record) => Some(record.clone()),
            Write::Delete(_) => None,
        };
        divided.records.retain(|(other, _)| *other != name);
        divided.records.push((name, record));
    }
    divided
}

/// Returns the key of a canary's record among the engine's entries.
pub fn key(name: &CanaryName) -> String {
    format!("{KEY_PREFIX}{}/{}", name.namespace, name.name)
}

/// Returns true for keys of records.
pub fn is_record(key: &str) -> bool {
    key.starts_with(KEY_PREFIX)
}

fn name_of_key(key: &str) -> Option<CanaryName> {
    let (namespace, name) = key.strip_prefix(KEY_PREFIX)?.split_once('/')?;
    Some(CanaryName::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: &Value) -> Value {
        json!({"metadata": {"namespace": "prod", "name": "backend"}, "status": status})
    }

    fn decision() -> Decision {
        let record = r#"{"version":3,"content":{"id":18446744073709551615,"share":0.1}}"#.to_owned();
        let notes = Map::from_iter([("scaledFor".to_owned(), json!("7/Progressing"))]);
        Decision { epoch: 4, record, notes }
    }

    #[test]
    fn what_is_written_is_read() {
        let object = of(&decision().status());
        assert_eq!(read(&object), Content::Decided(decision()));
        assert_eq!(name(&object), Some(CanaryName::new("prod", "backend")));
        for empty in [json!({}), json!(null)] {
            assert_eq!(read(&of(&empty)), Content::Empty);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let with = |field: &str, value: Value| {
            let mut status = decision().status();
            status.as_object_mut().unwrap().insert(field.to_owned(), value);
            match read(&of(&status)) {
                Content::Foreign { why } => why,
                other @ (Content::Empty | Content::Decided(_)) => panic!("{other:?}"),
            }
        };
        assert!(with("format", json!(4)).contains("format 4, and this version reads 3 to 3"));
        assert!(with("format", json!("x")).contains("no format"));
        for (field, value) in
            [("record", json!("{}")), ("record", json!({})), ("record", json!("{")), ("epoch", json!(-1))]
        {
            assert!(with(field, value).contains("damaged"));
        }
    }

    #[test]
    fn records_go_to_their_canaries_and_the_rest_to_the_disk() {
        let put = |key: &str, content: &str| Write::Put(key.into(), content.into());
        let (clock, evidence) = (put("clock", "1"), put("evidence/prod/a", "2"));
        let writes = [put("canary/prod/a", "1"), clock.clone(), put("canary/prod/b", "1"), evidence.clone()];
        let divided =
            divide(&[&writes[..], &[put("canary/prod/a", "2"), Write::Delete("canary/test/a".into())]].concat());
        let record = |namespace: &str, name: &str, content: Option<&str>| {
            (CanaryName::new(namespace, name), content.map(|content| content.as_bytes().to_vec()))
        };
        assert_eq!(
            divided.records,
            [record("prod", "b", Some("1")), record("prod", "a", Some("2")), record("test", "a", None)]
        );
        assert_eq!(divided.rest, [clock, evidence]);
        assert_eq!(name_of_key(&key(&CanaryName::new("prod", "a"))), Some(CanaryName::new("prod", "a")));
    }
}
