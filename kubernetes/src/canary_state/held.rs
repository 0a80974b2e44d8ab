//! What is known of a CanaryState, and what it should become.

use serde_json::{Map, Value};
use wingbeat_control::store::StoreError;
use wingbeat_core::id::CanaryName;

use super::{Content, Decision, object, read, record_text};
use crate::object::{list, text};
use crate::writes::MANAGER;

/// Bytes of a record. An object of an API server may have 1.5 MB, notes and what it is quoted by included.
const MAX_RECORD: usize = 1 << 20;

/// What is known of a CanaryState.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// As it was read or written last, without status and managed fields; nothing: there is none, as far as is known.
    pub(crate) object: Option<Value>,
    pub(crate) content: Content,
    /// Notes that wait for the next write; `null` takes one away.
    pub(crate) pending: Map<String, Value>,
}

impl Held {
    /// Takes it that the object is this one.
    pub(crate) fn set(&mut self, mut object: Value) {
        self.content = read(&object);
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        self.object = Some(object);
    }

    /// Takes it that there is none.
    pub(crate) fn clear(&mut self) {
        (self.object, self.content) = (None, Content::Empty);
    }

    /// Returns what was decided, if that can be read and no later leader decided it.
    pub(crate) fn decision(&self, name: &CanaryName, epoch: u64) -> Result<Option<&Decision>, StoreError> {
        match &self.content {
            Content::Empty => Ok(None),
            Content::Foreign { why } => Err(not_stored(name, why.clone())),
            Content::Decided(decision) if decision.epoch > epoch => Err(not_stored(
                name,
                format!(
                    "a leader of epoch {} has written it, and this one's is {epoch}; that one decides",
                    decision.epoch
                ),
            )),
            Content::Decided(decision) => Ok(Some(decision)),
        }
    }

    /// Returns what is noted, or will be with the next write.
    pub(crate) fn notes(&self) -> Map<String, Value> {
        let mut notes = match &self.content {
            Content::Decided(decision) => decision.notes.clone(),
            Content::Empty | Content::Foreign { .. } => Map::new(),
        };
        apply_to(&mut notes, &self.pending);
        notes
    }

    /// Returns what should be decided; nothing if it is.
    pub(crate) fn wanted(
        &self,
        name: &CanaryName,
        update: &Update<'_>,
        epoch: u64,
    ) -> Result<Option<Decision>, StoreError> {
        let before = self.decision(name, epoch)?;
        let mut wanted = match (before, update) {
            (Some(decision), _) => decision.clone(),
            (None, Update::Record(_)) => Decision::default(),
            (None, Update::Pending | Update::Epoch) => return Ok(None),
        };
        wanted.epoch = epoch;
        apply_to(&mut wanted.notes, &self.pending);
        match update {
            Update::Record(record) if record.len() > MAX_RECORD => {
                let bytes = record.len();
                let why = format!(
                    "its record has {bytes} bytes, and {MAX_RECORD} are the most; give the canary fewer metrics"
                );
                return Err(not_stored(name, why));
            }
            Update::Record(record) => {
                record_text(record).map_err(|why| not_stored(name, why))?.clone_into(&mut wanted.record);
            }
            Update::Pending | Update::Epoch => {}
        }
        Ok((before != Some(&wanted)).then_some(wanted))
    }
}

/// What is to be different.
#[derive(Debug)]
pub(crate) enum Update<'a> {
    /// The engine's entry.
    Record(&'a [u8]),
    /// What was staged.
    Pending,
    /// The epoch alone.
    Epoch,
}

/// Carries changes out: `null` takes a note away.
fn apply_to(notes: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, value) in changes {
        if value.is_null() {
            notes.remove(key);
        } else {
            notes.insert(key.clone(), value.clone());
        }
    }
}

fn not_stored(name: &CanaryName, why: String) -> StoreError {
    StoreError::Object { object: object(name).to_string(), why }
}

/// Returns who has written an object last, as its managed fields have it.
pub(crate) fn last_writer(object: &Value) -> String {
    // Times are whole seconds. Of two in the same one it is the other one that is news.
    let time = |entry: &&Value| {
        (text(entry, "/time").unwrap_or_default().to_owned(), text(entry, "/manager") != Some(MANAGER))
    };
    let last = list(object, "/metadata/managedFields").iter().max_by_key(time);
    let manager = last.and_then(|entry| text(entry, "/manager"));
    manager.map_or_else(|| "somebody".to_owned(), |manager| format!("somebody whose field manager is {manager}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> CanaryName {
        CanaryName::new("prod", "backend")
    }

    fn held(epoch: u64) -> Held {
        let decision = Decision { epoch, record: RECORD.to_owned(), notes: Map::new() };
        let mut held = Held::default();
        held.set(json!({"metadata": {"resourceVersion": "7"}, "status": decision.status()}));
        held
    }

    const RECORD: &str = r#"{"version":3,"content":{}}"#;

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let (name, held) = (name(), held(4));
        assert_eq!(held.object, Some(json!({"metadata": {"resourceVersion": "7"}})), "it is not kept twice");
        assert_eq!(held.wanted(&name, &Update::Record(RECORD.as_bytes()), 4).unwrap(), None);
        assert_eq!(held.wanted(&name, &Update::Pending, 4).unwrap(), None);
        assert_eq!(held.wanted(&name, &Update::Epoch, 4).unwrap(), None);
        assert_eq!(held.wanted(&name, &Update::Epoch, 5).unwrap().unwrap().epoch, 5);
        assert_eq!(Held::default().wanted(&name, &Update::Epoch, 5).unwrap(), None, "there is nothing to raise");
    }

    #[test]
    fn a_leader_of_a_lower_epoch_writes_nothing() {
        let error = held(4).wanted(&name(), &Update::Record(RECORD.as_bytes()), 3).unwrap_err().to_string();
        assert!(error.contains("CanaryState backend.prod") && error.contains("epoch 4"), "{error}");
    }

    #[test]
    fn a_record_that_would_not_be_read_is_not_written() {
        let refused = |record: &[u8]| held(4).wanted(&name(), &Update::Record(record), 4).unwrap_err().to_string();
        assert!(refused(&vec![b'x'; MAX_RECORD + 1]).contains("1048577 bytes"));
        assert!(refused(b"{}").contains("no version"));
        assert!(refused(&[0xff]).contains("no text"));
        assert!(refused(br#"{"version":4,"content":{}}"#).contains("version 4"));
    }

    #[test]
    fn notes_are_merged_and_wait_for_a_record() {
        let notes = |value: Value| Map::from_iter([("scaledFor".to_owned(), value)]);
        let mut held = Held { pending: notes(json!("a")), ..held(4) };
        let wanted = |held: &Held, update: &Update<'_>| held.wanted(&name(), update, 4).unwrap();
        let written = wanted(&held, &Update::Pending).unwrap();
        assert_eq!(written.notes, notes(json!("a")));
        held.content = Content::Decided(written);
        assert_eq!(wanted(&held, &Update::Pending), None);
        held.pending = notes(Value::Null);
        assert_eq!(wanted(&held, &Update::Record(RECORD.as_bytes())).unwrap().notes, Map::new());
        let first = Held { pending: notes(json!("b")), ..Held::default() };
        assert_eq!(wanted(&first, &Update::Pending), None);
        let written = wanted(&first, &Update::Record(RECORD.as_bytes())).unwrap();
        assert_eq!((written.record.as_str(), written.notes), (RECORD, notes(json!("b"))));
    }

    #[test]
    fn the_last_writer_is_named() {
        let entry = |manager: &str, time: &str| json!({"manager": manager, "time": time});
        let fields = [entry("wingbeat", "2026-11-30T10:00:00Z"), entry("kubectl-edit", "2026-11-30T10:00:01Z")];
        assert_eq!(
            last_writer(&json!({"metadata": {"managedFields": fields}})),
            "somebody whose field manager is kubectl-edit"
        );
        assert_eq!(last_writer(&json!({})), "somebody");
    }
}
