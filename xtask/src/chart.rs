//! The Helm chart: what it holds of other files, and what its README says of its values.
//!
//! ```text
//!  deploy/crds, kustomize/rbac.yaml, prometheus/alerts.yaml ─► files/   (a chart reads nothing outside of its folder)
//!  values.schema.json ─► the table in README.md; its defaults are those of values.yaml
//! ```

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use wingbeat_api::yaml;
use wingbeat_kubernetes::crds::Group;

/// Where it is.
const CHART: &str = "deploy/helm/wingbeat";
/// What stands around the table of values.
const TABLE: [&str; 2] = ["<!-- values -->\n", "<!-- end of values -->\n"];
/// What the description of a value begins with that only says why it cannot be had.
const REFUSED: &str = "Refused: ";

/// Returns the files that are made from others, with their text.
pub(crate) fn pages(root: &Path) -> anyhow::Result<[(&'static str, String); 5]> {
    Ok([
        ("deploy/helm/wingbeat/files/wingbeat.dev.yaml", Group::Wingbeat.manifest()),
        ("deploy/helm/wingbeat/files/flagger.app.yaml", Group::Flagger.manifest()),
        ("deploy/helm/wingbeat/files/rbac.yaml", read(root, "deploy/kustomize/rbac.yaml")?),
        ("deploy/helm/wingbeat/files/alerts.yaml", read(root, "deploy/prometheus/alerts.yaml")?),
        ("deploy/helm/wingbeat/README.md", readme(root)?),
    ])
}

/// Fails if values have other defaults than their descriptions, or the chart has another version than the program.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let (schema, values) = (schema(root)?, document(root, "values.yaml")?);
    let described = defaults(&schema);
    if described != values {
        let wrong = differing("", &described, &values);
        bail!("{CHART}/values.yaml and values.schema.json have other defaults: {}", wrong.join(", "));
    }
    let chart = document(root, "Chart.yaml")?;
    for field in ["version", "appVersion"] {
        if chart.get(field).and_then(Value::as_str) != Some(env!("CARGO_PKG_VERSION")) {
            bail!("{CHART}/Chart.yaml: {field} is not {}", env!("CARGO_PKG_VERSION"));
        }
    }
    Ok(())
}

fn read(root: &Path, file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

fn schema(root: &Path) -> anyhow::Result<Value> {
    serde_json::from_str(&read(root, &format!("{CHART}/values.schema.json"))?).context("values.schema.json is no JSON")
}

/// Reads a file of one YAML document.
fn document(root: &Path, name: &str) -> anyhow::Result<Value> {
    let documents = yaml::parse(&read(root, &format!("{CHART}/{name}"))?);
    let documents = documents.map_err(|error| anyhow::anyhow!("{name}: {}: {}", error.at.line, error.why))?;
    Ok(documents.first().with_context(|| format!("{name} is empty"))?.to_json())
}

/// Returns the README with the table of the values that the schema describes.
fn readme(root: &Path) -> anyhow::Result<String> {
    let text = read(root, &format!("{CHART}/README.md"))?;
    let [begin, end] = TABLE;
    let (before, rest) = text.split_once(begin).with_context(|| format!("README.md has no {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("README.md has no {end}"))?;
    Ok(format!("{before}{begin}{}{end}{after}", table(&schema(root)?)?))
}

/// Returns a table of the values, and a list of those that are refused.
fn table(schema: &Value) -> anyhow::Result<String> {
    let mut table = "\n| value | default | meaning |\n|---|---|---|\n".to_owned();
    let mut refused = String::new();
    let mut pending = fields("", schema);
    while let Some((path, field)) = pending.pop() {
        let meaning = field.get("description").and_then(Value::as_str).unwrap_or_default();
        if let Some(why) = meaning.strip_prefix(REFUSED) {
            writeln!(refused, "- `{path}`: {why}")?;
            continue;
        }
        let default = field.get("default").map(|default| format!("`{default}`")).unwrap_or_default();
        writeln!(table, "| `{path}` | {default} | {meaning} |")?;
        pending.extend(fields(&path, field));
    }
    Ok(format!("{table}\nRefused, with the reason:\n\n{refused}\n"))
}

/// Returns the values below one, the last first.
fn fields<'a>(path: &str, of: &'a Value) -> Vec<(String, &'a Value)> {
    let Some(properties) = of.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let name = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    properties.iter().rev().map(|(field, value)| (name(field), value)).collect()
}

/// Returns the values that a schema describes, each with its default. Those without one are not in `values.yaml`.
fn defaults(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let values = properties.filter(|(_, value)| value.get("default").is_some() || value.get("properties").is_some());
    Value::Object(values.map(|(name, value)| (name.clone(), defaults(value))).collect())
}

/// Returns the paths of values that differ.
fn differing(path: &str, left: &Value, right: &Value) -> Vec<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let absent = &Value::Null;
            let of = |values: &Map<String, Value>, name: &str| values.get(name).unwrap_or(absent).clone();
            let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            names
                .into_iter()
                .flat_map(|name| differing(&format!("{path}.{name}"), &of(left, name), &of(right, name)))
                .collect()
        }
        (left, right) if left == right => Vec::new(),
        (left, right) => vec![format!("{} ({left}, {right})", path.trim_start_matches('.'))],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_described_with_their_defaults() {
        let schema = json!({"properties": {
            "image": {"description": "The image.", "properties": {"tag": {"default": "", "description": "Its tag."}}},
            "slack": {"description": "Refused: write an AlertProvider."},
        }});
        let table = table(&schema).unwrap();
        assert!(table.contains("| `image` |  | The image. |\n| `image.tag` | `\"\"` | Its tag. |\n"), "{table}");
        assert!(table.ends_with("\n- `slack`: write an AlertProvider.\n\n"), "{table}");
        assert_eq!(defaults(&schema), json!({"image": {"tag": ""}}));
        let other = json!({"image": {"tag": "1", "kept": true}});
        assert_eq!(differing("", &defaults(&schema), &other), ["image.kept (null, true)", "image.tag (\"\", \"1\")"]);
    }
}
