//! The revision of a Pod template: the same template, the same text, whoever writes it down in which order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wingbeat_core::id::Revision;

/// Hex digits of a revision. 40 bits: of a thousand revisions of one target, two are the same once in two million.
const DIGITS: usize = 10;

/// Returns the revision of a Pod template, with checksums of the ConfigMaps and Secrets that it refers to.
pub fn of_template(template: &Value, configs: &BTreeMap<String, String>) -> Revision {
    hash(&json!({"template": template, "configs": configs}))
}

/// Returns the first digits of the hash of a value.
pub(crate) fn hash(value: &Value) -> Revision {
    let mut text = String::new();
    write_canonical(value, &mut text);
    let mut digits = String::new();
    for byte in Sha256::digest(text.as_bytes()).iter().take(DIGITS / 2) {
        let _written = write!(digits, "{byte:02x}");
    }
    Revision::new(digits)
}

/// Writes JSON of one form: keys in order, no blanks, and no field that is null, which is one that is not there.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            let sorted: BTreeMap<&String, &Value> = there.collect();
            out.push('{');
            for (place, (key, value)) in sorted.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.extend([Value::from(key.as_str()).to_string().as_str(), ":"]);
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        flat @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => out.push_str(&flat.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Revision {
        of_template(&serde_json::from_str(text).unwrap(), &BTreeMap::new())
    }

    #[test]
    fn a_revision_is_ten_digits_that_never_change() {
        let revision = parsed(r#"{"metadata":{"labels":{"app":"backend"}},"spec":{"containers":[{"image":"app:1"}]}}"#);
        assert_eq!(revision.as_str(), "0bda74b4a6", "a change of it starts a rollout of every canary without a fence");
    }

    #[test]
    fn order_and_nulls_do_not_matter_and_everything_else_does() {
        let base = parsed(r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#);
        for same in [r#"{"b":{"d":"x","c":[1,2]},"a":1}"#, r#"{"a":1,"b":{"c":[1,2],"d":"x","e":null},"f":null}"#] {
            assert_eq!(parsed(same), base, "{same}");
        }
        for other in [
            r#"{"a":2,"b":{"c":[1,2],"d":"x"}}"#,
            r#"{"a":1,"b":{"c":[2,1],"d":"x"}}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":"x","e":{}}}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":1}}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":"x"}}"#,
        ] {
            assert_ne!(parsed(other), base, "{other}");
        }
        let configs = BTreeMap::from([("configmap/a".to_owned(), "0".to_owned())]);
        assert_ne!(of_template(&json!({"a": 1}), &configs), of_template(&json!({"a": 1}), &BTreeMap::new()));
    }
}
