//! From JSON to YAML.

use serde_json::Value;

/// Returns a value as YAML: blocks for mappings and lists, JSON, which YAML reads, for everything inside a line.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn write(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    let pad = pad.as_str();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.extend([pad, &quoted(key), ":"]);
                if is_block(value) {
                    out.push('\n');
                    write(value, indent + 2, out);
                } else {
                    out.extend([" ", value.to_string().as_str(), "\n"]);
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                let mut entry = String::new();
                write(value, indent + 2, &mut entry);
                out.extend([pad, "- ", entry.trim_start()]);
            }
        }
        flat @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => out.extend([pad, flat.to_string().as_str(), "\n"]),
    }
}

fn is_block(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty())
}

/// A key that is no plain word is written as JSON writes it.
fn quoted(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    // YAML 1.1 takes these for truth values.
    let means_truth = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = !means_truth.iter().any(|word| key.eq_ignore_ascii_case(word));
    if plain && is_word { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_in_blocks() {
        let value = serde_json::json!({
            "name": "a: b", "list": [1, {"@x": null, "b": {"c": [[2], []]}}], "none": {}, "on": true,
        });
        insta::assert_snapshot!(to_yaml(&value), @r#"
        list:
          - 1
          - "@x": null
            b:
              c:
                - - 2
                - []
        name: "a: b"
        none: {}
        "on": true
        "#);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = serde_json::json!([{"a": {"b": [{"c": 1.5, "d": "7"}, "x\n\"y\""]}, "e": "true"}, [], {}]);
        let read = crate::yaml::parse(&to_yaml(&value)).unwrap();
        assert_eq!(read.iter().map(crate::yaml::Node::to_json).collect::<Vec<_>>(), [value]);
    }
}
