//! Every field of Flagger's CRDs: decoded, or said not to be carried out.

use wingbeat_api::shape::{Support, flagger_page, support};

use super::*;

/// Kind and path of each, one a line: the leaves of the CRDs of Flagger 1.44.
const FIELDS: &str = include_str!("../flagger-fields.txt");

#[test]
fn no_field_of_flaggers_is_dropped_in_silence() {
    let (mut silent, mut counts) = (Vec::new(), BTreeMap::new());
    for (kind, path) in FIELDS.lines().map(|line| line.split_once(' ').unwrap()) {
        let is_it = |document: &&Document| document.api == Api::FlaggerV1Beta1 && document.kind == kind;
        let documents = Document::ALL;
        let document = documents.iter().find(is_it).unwrap();
        let schema = schema(document);
        let world = World::around(document, path);
        let value = fields(&schema).into_iter().find(|(known, _)| known == path).map(|(_, schema)| schema);
        let known = value.is_some();
        let mut values =
            value.map_or_else(|| vec![json!("some"), json!(7), json!(true)], |schema| paths::samples(&schema));
        values.extend(values.first().and_then(Value::as_str).map(|text| json!(format!("{text}x"))));
        let said = support(document, path);
        let right = values.into_iter().any(|value| {
            let Some(with) = insert(&schema, &world.document, path, value) else { return false };
            let without = if known { paths::remove(&with, path) } else { world.document.clone() };
            let (before, after) = (world.with(&without), world.with(&with));
            let concrete = path.replace("[]", "[0]").replace(".*", ".x-free");
            let told = after.told().iter().any(|(field, message)| {
                !field.is_empty() && concrete.starts_with(field.as_str()) && !message.contains("is unknown")
            });
            match said {
                Some(Support::Full) => after.setup != before.setup || after.told() != before.told(),
                Some(Support::Ignored(_) | Support::Refused(_)) => told,
                Some(Support::Moot(_)) => true,
                None => false,
            }
        });
        let class = match said {
            Some(Support::Full) => "carried out",
            Some(Support::Ignored(_) | Support::Refused(_)) => "said not to be",
            Some(Support::Moot(_)) => "not needed",
            None => "unknown",
        };
        *counts.entry(class).or_insert(0) += 1;
        if !right {
            silent.push(format!("{kind} {path}: {said:?}"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    println!("{} fields of Flagger's: {counts:?}", FIELDS.lines().count());
    assert!(!flagger_page(FIELDS).contains("unknown"));
}
