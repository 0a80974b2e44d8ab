//! Pages that are rendered from the shapes: the field reference, and what becomes of Flagger's fields.

use std::fmt::Write as _;

use super::document::{Document, METADATA};
use super::field::{Bounds, Field, Kind, Object, Presence, Support, Text};
use crate::platform::Api;

/// The beginning of the reference.
const INTRODUCTION: &str = "\
# Field reference

Every field of every kind, as `wingbeat check` and `wingbeat serve` read them. This page is generated from the code by
`cargo xtask gen`. Documents may be in any files, several in one, separated by `---`; each begins with `apiVersion`, `kind`
and `metadata`. An editor with a YAML language server shows the same and completes it, in files that begin with

```yaml
# yaml-language-server: $schema=PATH
```

where PATH is that of [schema/wingbeat.json](schema/wingbeat.json), or of a file that `wingbeat schema` wrote.

- *duration*: numbers with units, as Go writes them: `500ms`, `10s`, `1m30s`, `1h`.
- *share*: percent with its sign: `0.1%`, `10%`.
- A field without a value is one that is not there.
- Unknown fields are errors in documents of `wingbeat.dev`, and warnings in those of `flagger.app`, which are read too:
  [below](#documents-of-flagger), and field by field in [flagger.md](flagger.md).
";

/// The beginning of the part on Flagger's fields.
const FLAGGER: &str = "
## Documents of Flagger

Canary, MetricTemplate and AlertProvider of `flagger.app/v1beta1`, and of `flagger.app/v1alpha3` with `canaryAnalysis` in
place of `analysis`, have the fields above with the same meaning. They differ in this:

- What Flagger takes and leaves out is a warning, not an error: unknown fields, a `stepWeight` beyond `maxWeight`.
- `wingbeat check` takes them for documents of another platform, too: what plain Envoy does not carry out, or would need
  (`service.hosts`, `service.listeners`), is a warning or not missed. `wingbeat serve` refuses it.
";

/// A part of the page: a mapping with its path.
struct Section {
    path: String,
    object: &'static Object,
}

/// Returns the field reference.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n## Every document: `metadata`\n");
    let metadata = Section { path: "metadata".to_owned(), object: &METADATA };
    let mut sections = vec![metadata];
    table(&mut page, 0, &mut sections);
    for document in Document::ALL.iter().filter(|document| document.api == Api::Wingbeat) {
        let _written = write!(page, "\n## {}\n\n{}\n", document.kind, document.doc);
        let mut next = sections.len();
        sections.push(Section { path: "spec".to_owned(), object: document.spec });
        while next < sections.len() {
            if let Some(section) = sections.get(next)
                && section.path != "spec"
            {
                let _written = write!(page, "\n### {} `{}`\n", document.kind, section.path);
            }
            table(&mut page, next, &mut sections);
            next += 1;
        }
    }
    page.push_str(FLAGGER);
    let differing = Document::ALL.iter().filter(|document| document.api == Api::FlaggerV1Beta1);
    for (path, field) in differing.flat_map(|document| fields_below(document.spec, "spec")) {
        if let Some(default) = field.flaggers_default {
            let _written = writeln!(page, "- `{path}` is `{default}` by default.");
        }
    }
    page
}

/// Writes the fields of a section, and adds sections for the mappings in it that have none yet.
fn table(page: &mut String, at: usize, sections: &mut Vec<Section>) {
    let Some(Section { path, object }) = sections.get(at) else { return };
    let (path, object) = (path.clone(), *object);
    page.push_str("\n| field | holds | default | meaning |\n|---|---|---|---|\n");
    for field in object.fields.iter().filter(|field| is_of_use(field)) {
        let below = format!("{path}.{}", field.name);
        let holds = holds(&field.kind, &below, sections);
        let default = match (field.presence, field.default) {
            (_, Some(default)) => format!("`{default}`"),
            (Presence::Required | Presence::RequiredHere, None) => "required".to_owned(),
            (Presence::Optional, None) => String::new(),
        };
        let example = field.example.map(|example| format!(" Like `{}`.", cell(example))).unwrap_or_default();
        let moot = if let Support::Moot(why) = field.support { format!(" Not used: {why}.") } else { String::new() };
        let _written =
            writeln!(page, "| `{}` | {holds} | {} | {}{moot}{example} |", field.name, cell(&default), cell(field.doc));
    }
    let rest: Vec<&Field> = object.fields.iter().filter(|field| !is_of_use(field)).collect();
    if rest.is_empty() {
        return;
    }
    page.push_str("\nTaken from Flagger and Istio, and not carried out by plain Envoy:\n\n");
    for field in rest {
        let what = match field.support {
            Support::Refused(said) => format!("refused: it {said}"),
            Support::Ignored(why) | Support::Moot(why) => format!("no effect: {why}"),
            Support::Full => continue,
        };
        let _written = writeln!(page, "- `{}`: {} {}.", field.name, field.doc, sentence(&what));
    }
}

fn is_of_use(field: &Field) -> bool {
    matches!(field.support, Support::Full | Support::Moot(_))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Escapes what would end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Returns what a field holds, in words.
fn holds(kind: &Kind, path: &str, sections: &mut Vec<Section>) -> String {
    match kind {
        Kind::Text(Text::Any) => "text".to_owned(),
        Kind::Text(Text::Pattern(_, name) | Text::Form(name)) => (*name).to_owned(),
        Kind::Truth => "`true` or `false`".to_owned(),
        Kind::Whole { low, high } => format!("whole number, {low} to {high}"),
        Kind::Number(Bounds::Free) => "number".to_owned(),
        Kind::Number(Bounds::Within(low, high)) => format!("number, {low} to {high}"),
        Kind::Number(Bounds::Between(low, high)) => format!("number between {low} and {high}"),
        Kind::Number(Bounds::Above(low)) => format!("number above {low}"),
        Kind::Duration { shortest, longest } => {
            let least = match *shortest {
                "0s" => "",
                "1ns" => ", more than 0s",
                shortest => &format!(", at least {shortest}"),
            };
            let most = longest.map(|longest| format!(", at most {longest}")).unwrap_or_default();
            format!("duration{least}{most}")
        }
        Kind::Percent { below: None } => "share".to_owned(),
        Kind::Percent { below: Some(below) } => format!("share below {below}%"),
        Kind::Choice(words) => {
            let words = words.iter().filter(|word| !word.is_empty()).map(|word| format!("`{word}`"));
            words.collect::<Vec<_>>().join(", ")
        }
        Kind::List { of, least } => {
            let few = if *least > 0 { ", at least one" } else { "" };
            format!("list of {}{few}", holds(of, &format!("{path}[]"), sections))
        }
        Kind::Map(of) => format!("mapping from names to {}", holds(of, &format!("{path}.NAME"), sections)),
        Kind::Object(object) => {
            let known = sections.iter().find(|section| std::ptr::eq(section.object, *object));
            let shown = known.map_or_else(|| path.to_owned(), |section| section.path.clone());
            if known.is_none() {
                sections.push(Section { path: shown.clone(), object });
            }
            format!("fields of `{shown}`")
        }
        Kind::Either(ours, other) => match (ours, other) {
            (Kind::Choice(_), Kind::Choice(_)) => holds(ours, path, sections),
            _ => format!("{} or {}", holds(ours, path, sections), holds(other, path, sections)),
        },
        Kind::Anything => "anything".to_owned(),
    }
}

/// Returns all fields below a mapping with their paths.
pub fn fields_below(object: &'static Object, path: &str) -> Vec<(String, &'static Field)> {
    let mut all = Vec::new();
    for field in object.fields {
        let path = format!("{path}.{}", field.name);
        all.push((path.clone(), field));
        // It has the fields of analysis, once more.
        if field.name != "canaryAnalysis" {
            all.extend(inner(&field.kind, &path));
        }
    }
    all
}

fn inner(kind: &'static Kind, path: &str) -> Vec<(String, &'static Field)> {
    match kind {
        Kind::Object(object) => fields_below(object, path),
        Kind::List { of, .. } => inner(of, &format!("{path}[]")),
        Kind::Map(of) => inner(of, &format!("{path}.*")),
        Kind::Text(_)
        | Kind::Truth
        | Kind::Whole { .. }
        | Kind::Number(_)
        | Kind::Duration { .. }
        | Kind::Percent { .. }
        | Kind::Choice(_)
        | Kind::Either(..)
        | Kind::Anything => Vec::new(),
    }
}

/// Returns what becomes of a field by its path, where `[]` is an entry of a list and `*` of a mapping: that of the outermost
/// field around it that is not carried out. `None` if there is no such field.
pub fn support(document: &Document, path: &str) -> Option<Support> {
    let mut found = None;
    let mut kind = Kind::Object(document.spec);
    for part in path.strip_prefix("spec.")?.replace("[]", ".[]").split('.') {
        kind = match (kind, part) {
            (Kind::List { of, .. }, "[]") | (Kind::Map(of), _) => *of,
            (Kind::Object(object), name) => {
                let field = object.field(name)?;
                found = Some(field.support);
                if matches!(field.kind, Kind::Anything) || field.support != Support::Full {
                    return found;
                }
                field.kind
            }
            _ => return None,
        };
    }
    found
}

/// Returns the page on what becomes of Flagger's fields, given one a line: its kind and path.
pub fn flagger_page(fields: &str) -> String {
    let rows = fields.lines().filter_map(|line| line.split_once(' '));
    let mut table = String::new();
    let (mut carried_out, mut said, mut moot) = (0_usize, 0_usize, 0_usize);
    for (kind, path) in rows {
        let document =
            Document::ALL.iter().find(|document| document.api == Api::FlaggerV1Beta1 && document.kind == kind);
        let what = match document.and_then(|document| support(document, path)) {
            Some(Support::Full) => {
                carried_out += 1;
                "carried out".to_owned()
            }
            Some(Support::Moot(why)) => {
                moot += 1;
                format!("not needed: {why}")
            }
            Some(Support::Ignored(why)) => {
                said += 1;
                format!("warning: it has no effect, {why}")
            }
            Some(Support::Refused(text)) => {
                said += 1;
                format!("refused, a warning of `check`: it {text}")
            }
            None => "unknown, a warning".to_owned(),
        };
        let _written = writeln!(table, "| {kind} | `{path}` | {} |", cell(&what));
    }
    format!(
        "# What becomes of Flagger's fields\n\nEvery field of the CRDs of Flagger 1.44 (`flagger.app/v1beta1`), as plain \
         Envoy has it: {carried_out} are carried out, {said} are said not to be, {moot} need nothing to be done. This page is \
         generated by `cargo xtask gen`; that each row is so is a test. What the fields mean is in the\n[field \
         reference](reference.md).\n\n| kind | field | here |\n|---|---|---|\n{table}"
    )
}
