//! That a field does what its shape says: a default is what holds without it, and what is carried out shows.

use wingbeat_api::shape::{Field, Kind, Support, fields_below};

use wingbeat_core::time::Span;
use wingbeat_xds_server::model::traffic::CONNECT_TIMEOUT;

use super::*;
use paths::samples;

/// Returns the field of a path with its schema and a document around it, for every field of `spec`.
fn varied(document: &'static Document) -> Vec<(String, &'static Field, Value)> {
    let schema = schema(document);
    let schemas: BTreeMap<String, Value> = fields(&schema).into_iter().collect();
    let below = fields_below(document.spec, "spec").into_iter();
    below.map(|(path, field)| (path.clone(), field, schemas[&path].clone())).collect()
}

static DOCUMENTS: [Document; 11] = Document::ALL;

/// Returns the document with what is around a field, and without it.
fn around(schema: &Value, world: &World, path: &str) -> Value {
    paths::remove(&insert(schema, &world.document, path, json!(1)).unwrap(), path)
}

#[test]
fn a_default_is_what_holds_without_the_field() {
    let mut count = 0;
    for document in &DOCUMENTS {
        let whole = schema(document);
        for (path, _, field) in varied(document).into_iter().filter(|(.., schema)| schema.get("default").is_some()) {
            let world = World::around(document, &path);
            count += 1;
            if path.ends_with(".tcp.connectTimeout") {
                let default = field["default"].as_str().and_then(|text| text.strip_suffix('s'));
                assert_eq!(default.and_then(|text| text.parse().ok()).map(Span::from_secs), Some(CONNECT_TIMEOUT));
                continue;
            }
            let without = around(&whole, &world, &path);
            let with = insert(&whole, &without, &path, field["default"].clone()).unwrap();
            assert_eq!(world.with(&with), world.with(&without), "{path} of {}", document.api.as_str());
        }
    }
    assert!(count > 100, "{count} defaults");
    println!("{count} defaults are those of the code");
}

#[test]
fn what_is_said_to_be_carried_out_is_and_what_is_not_is_told() {
    let mut silent = Vec::new();
    let mut count = 0;
    for document in &DOCUMENTS {
        let whole = schema(document);
        // A mapping has the effects of its fields.
        let single = |(_, field, _): &(String, &Field, Value)| !matches!(field.kind, Kind::Object(_));
        for (path, field, schema) in varied(document).into_iter().filter(single) {
            let world = World::around(document, &path);
            let without = around(&whole, &world, &path);
            let before = world.served(&without);
            let other = match (field.kind, field.example) {
                (Kind::Text(_), Some(example)) => Some(json!(format!("{example}x"))),
                (Kind::Either(_, Kind::Choice(words)), _) => Some(json!(words[0])),
                _ => None,
            };
            let shows = samples(&schema).into_iter().chain(other).any(|value| {
                let with = insert(&whole, &without, &path, value.clone()).unwrap();
                let after = world.served(&with);
                let told = after.told().iter().any(|(told, _)| told == &at_first(&path));
                match field.support {
                    Support::Full => after.setup != before.setup || after.errors != before.errors,
                    Support::Ignored(_) | Support::Refused(_) => told,
                    Support::Moot(_) => after == before,
                }
            });
            if !shows {
                silent.push(format!("{} {path}", document.api.as_str()));
            }
            count += 1;
        }
    }
    assert!(silent.is_empty(), "written, without effect and not told:\n{}", silent.join("\n"));
    println!("{count} fields have the effect that the reference says");
}

/// Returns the path as the decoder tells it, of the first entry of each list.
fn at_first(path: &str) -> String {
    path.replace("[]", "[0]").replace(".*", ".x-free")
}

#[test]
fn an_example_is_right() {
    let mut wrong = Vec::new();
    for document in &DOCUMENTS {
        let whole = schema(document);
        for (path, field, _) in varied(document).into_iter().filter(|(_, field, _)| field.example.is_some()) {
            let world = World::around(document, &path);
            let schema = fields(&whole).into_iter().find(|(known, _)| *known == path).unwrap().1;
            let with = insert(&whole, &world.document, &path, schema["examples"][0].clone()).unwrap();
            let told = world.with(&with);
            let own = told.errors.iter().filter(|(told, _)| told.starts_with(&at_first(&path)));
            wrong.extend(own.map(|(told, message)| format!("{path} = {:?}: {told}: {message}", field.example)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
