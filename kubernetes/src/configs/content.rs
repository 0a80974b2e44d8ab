//! What is in ConfigMaps and Secrets, without their values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use wingbeat_core::id::Revision;

use crate::revision;
use crate::world::{Kind, ObjectKey};

/// Bytes of a digest that are kept: 8, as Flagger keeps them.
const KEPT_BYTES: usize = 8;
/// How what is not there is written down.
const ABSENT: &str = "absent";
/// How what is not tracked is written down.
const UNTRACKED: &str = "untracked";

/// What is in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Data of this checksum.
    Checksum(String),
    /// It is not there, and Pods start without it.
    Absent,
    /// It does not matter what: it says so itself, or is a Secret of a type that is nobody's configuration.
    Untracked,
}

/// What is in those that a template refers to, by what they are called in `status.trackedConfigs`: `configmap/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, Content>);

/// Returns the checksum of what is in a ConfigMap or Secret. Without `binaryData` it is Flagger's, so that a swap of the
/// controller finds nothing changed.
pub fn checksum(object: &Value) -> String {
    let mut digest = Sha256::new();
    digest.update(go_json(object.get("data").and_then(Value::as_object)));
    if let Some(binary) = object.get("binaryData").and_then(Value::as_object).filter(|it| !it.is_empty()) {
        digest.update(go_json(Some(binary)));
    }
    let mut digits = String::new();
    for byte in digest.finalize().iter().take(KEPT_BYTES) {
        let _written = write!(digits, "{byte:02x}");
    }
    digits
}

/// Returns texts as Go writes them as JSON: keys in order, and what HTML would take for its own escaped.
fn go_json(data: Option<&Map<String, Value>>) -> String {
    let Some(data) = data else { return "null".to_owned() };
    let sorted: BTreeMap<&String, &Value> = data.iter().collect();
    let text = serde_json::to_string(&sorted).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _written = write!(escaped, "\\u{:04x}", u32::from(letter));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

impl Content {
    fn as_str(&self) -> &str {
        match self {
            Self::Checksum(checksum) => checksum,
            Self::Absent => ABSENT,
            Self::Untracked => UNTRACKED,
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            ABSENT => Self::Absent,
            UNTRACKED => Self::Untracked,
            checksum => Self::Checksum(checksum.to_owned()),
        }
    }
}

impl Contents {
    /// Returns what one is called here.
    pub fn id(kind: Kind, name: &str) -> String {
        let kind = if kind == Kind::Secret { "secret" } else { "configmap" };
        format!("{kind}/{name}")
    }

    /// Returns the key of what is called so, in a namespace.
    pub fn key(id: &str, namespace: &str) -> Option<ObjectKey> {
        let (kind, name) = id.split_once('/')?;
        let kind = if kind == "secret" { Kind::Secret } else { Kind::ConfigMap };
        Some(ObjectKey::new(kind, namespace, name))
    }

    /// Returns true if it is known what is in one.
    pub fn knows(&self, kind: Kind, name: &str) -> bool {
        self.0.contains_key(&Self::id(kind, name))
    }

    /// Returns those that are tracked, with their checksums.
    pub fn tracked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(id, content)| match content {
            Content::Checksum(checksum) => Some((id.as_str(), checksum.as_str())),
            Content::Absent | Content::Untracked => None,
        })
    }

    /// Returns the revision of a template with what is in these.
    pub fn revision(&self, template: &Value) -> Revision {
        let checksums = self.tracked().map(|(id, checksum)| (id.to_owned(), checksum.to_owned())).collect();
        revision::of_template(template, &checksums)
    }

    /// Takes what is in them now; nothing: that cannot be said. Returns true if what Pods read is different. What was not known
    /// before is no change, and neither is what was not tracked, or is not any more.
    pub fn take(&mut self, now: &BTreeMap<String, Option<Content>>) -> bool {
        let mut is_changed = false;
        for (id, content) in now.iter().filter_map(|(id, now)| Some((id, now.as_ref()?))) {
            is_changed |= match (self.0.get(id), content) {
                (Some(Content::Checksum(before)), Content::Checksum(now)) => before != now,
                (Some(Content::Absent), Content::Checksum(_)) | (Some(Content::Checksum(_)), Content::Absent) => true,
                (None | Some(Content::Untracked), _)
                | (_, Content::Untracked)
                | (Some(Content::Absent), Content::Absent) => false,
            };
            self.0.insert(id.clone(), content.clone());
        }
        is_changed
    }

    /// Keeps those that are among these.
    pub fn retain(&mut self, now: &BTreeMap<String, Option<Content>>) {
        self.0.retain(|id, _| now.contains_key(id));
    }

    /// Returns a text that is another one where what Pods read is different; nothing if none is tracked.
    pub fn digest(&self) -> Option<String> {
        let all: Vec<String> = self.tracked().map(|(id, checksum)| format!("{id}={checksum}")).collect();
        (!all.is_empty()).then(|| revision::hash(&Value::from(all)).as_str().to_owned())
    }

    /// Reads what [`Contents::to_json`] wrote. What is none of ours is left out.
    pub fn read(value: Option<&Value>) -> Self {
        let entries = value.and_then(Value::as_object).into_iter().flatten();
        Self(entries.filter_map(|(id, content)| Some((id.clone(), Content::parse(content.as_str()?)))).collect())
    }

    /// Returns it as JSON; nothing if there are none.
    pub fn to_json(&self) -> Option<Value> {
        let entries = self.0.iter().map(|(id, content)| (id.clone(), Value::from(content.as_str())));
        (!self.0.is_empty()).then(|| Value::Object(entries.collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of Go's `sha256.Sum256(json.Marshal(data))`, the first eight bytes.
    #[test]
    fn a_checksum_is_flaggers_without_binary_data() {
        let sum = |text: &str| {
            let bytes = Sha256::digest(text.as_bytes());
            let hex: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            hex.concat()
        };
        assert_eq!(
            checksum(&json!({"data": {"b": "<a&b>", "a": "1"}})),
            sum(r#"{"a":"1","b":"\u003ca\u0026b\u003e"}"#)
        );
        assert_eq!(checksum(&json!({"metadata": {"resourceVersion": "7"}})), sum("null"));
        assert_ne!(checksum(&json!({"binaryData": {"a": "AA=="}})), checksum(&json!({"binaryData": {"a": "AQ=="}})));
        assert_ne!(checksum(&json!({"data": {"a": "AA=="}})), checksum(&json!({"binaryData": {"a": "AA=="}})));
        assert_eq!(checksum(&json!({"data": {"a": "1"}, "binaryData": {}})), checksum(&json!({"data": {"a": "1"}})));
    }

    #[test]
    fn only_what_pods_read_is_a_change() {
        let of = |text: &str| Some(Content::parse(text));
        for (before, now, is_changed, then) in [
            (None, None, false, None),
            (None, of("1"), false, of("1")),
            (None, of(ABSENT), false, of(ABSENT)),
            (of("1"), None, false, of("1")),
            (of("1"), of("1"), false, of("1")),
            (of("1"), of("2"), true, of("2")),
            (of("1"), of(ABSENT), true, of(ABSENT)),
            (of("1"), of(UNTRACKED), false, of(UNTRACKED)),
            (of(ABSENT), of("1"), true, of("1")),
            (of(ABSENT), of(ABSENT), false, of(ABSENT)),
            (of(UNTRACKED), of("1"), false, of("1")),
            (of(UNTRACKED), of(ABSENT), false, of(ABSENT)),
            (of(ABSENT), None, false, of(ABSENT)),
        ] {
            let id = Contents::id(Kind::ConfigMap, "a");
            let mut contents = Contents(before.clone().map(|it| (id.clone(), it)).into_iter().collect());
            assert_eq!(contents.take(&BTreeMap::from([(id.clone(), now.clone())])), is_changed, "{before:?} {now:?}");
            assert_eq!(contents.0.get(&id).cloned(), then, "{before:?} {now:?}");
            assert_eq!(Contents::read(contents.to_json().as_ref()), contents);
        }
    }

    #[test]
    fn without_any_a_revision_is_that_of_the_template() {
        let template = json!({"spec": {"a": 1}});
        let none = Contents::read(Some(&json!({"secret/a": UNTRACKED, "configmap/b": ABSENT})));
        assert_eq!(none.revision(&template), revision::of_template(&template, &BTreeMap::new()));
        let one = Contents::read(Some(&json!({"secret/a": "01"})));
        assert_ne!(one.revision(&template), none.revision(&template));
        assert_eq!(Contents::key("secret/a", "prod"), Some(ObjectKey::new(Kind::Secret, "prod", "a")));
    }
}
