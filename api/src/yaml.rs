//! YAML with positions. A small tree of our own: the same one can be made from an object of the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

mod write;

pub use write::to_yaml;

/// Deeper nesting than this is an attack or a slip.
const MAX_DEPTH: usize = 64;
/// Most nodes of a file that aliases repeat: a few of them can stand for as much text as one likes.
const MAX_ALIAS_NODES: usize = 10_000;
/// The key whose mappings are merged into the one that has it.
const MERGE: &str = "<<";

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// A place in a file, counted from one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text as it was written; `plain` if without quotes.
    Scalar {
        /// The text.
        text: String,
        /// True if it had no quotes, and may mean a number, a truth value or nothing.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with their places and values, in order; keys may come twice.
    Mapping(Vec<(String, Position, Node)>),
}

/// Text that is no YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub at: Position,
    /// Why.
    pub why: String,
}

impl Node {
    /// Makes one from JSON, which has no places.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let at = Position::default();
        let scalar = |text: String, plain: bool| Value::Scalar { text, plain };
        let value = match json {
            Json::Null => scalar(String::new(), true),
            Json::Bool(truth) => scalar(truth.to_string(), true),
            // An API server that was given 10.0 for a whole number keeps it so.
            Json::Number(number) => {
                let text = number.to_string();
                scalar(text.strip_suffix(".0").map(str::to_owned).unwrap_or(text), true)
            }
            Json::String(text) => scalar(text.clone(), false),
            Json::Array(items) => Value::Sequence(items.iter().map(Self::from_json).collect()),
            Json::Object(fields) => {
                let entries = fields.iter().map(|(name, value)| (name.clone(), at, Self::from_json(value)));
                Value::Mapping(entries.collect())
            }
        };
        Self { at, value }
    }

    /// Returns true for `[]`.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.value, Value::Sequence(items) if items.is_empty())
    }

    /// Returns the value of a field, if this is a mapping that has it.
    pub(super) fn get(&self, field: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(name, ..)| name == field).map(|(_, _, node)| node)
    }

    /// Returns the text of a single value.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// Returns it as JSON: what is plain and looks like a number or a truth value is one, and fields without a value are
    /// left out.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Scalar { .. } if self.is_null() => Json::Null,
            Value::Scalar { text, plain: true } if text == "true" || text == "false" => Json::Bool(text == "true"),
            Value::Scalar { text, plain: true }
                if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) =>
            {
                let whole = text.parse::<i64>().ok().map(Json::from);
                let number = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number);
                whole.or_else(number).unwrap_or_else(|| Json::String(text.clone()))
            }
            Value::Scalar { text, .. } => Json::String(text.clone()),
            Value::Sequence(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Mapping(entries) => {
                let written = entries.iter().filter(|(_, _, node)| !node.is_null());
                Json::Object(written.map(|(name, _, node)| (name.clone(), node.to_json())).collect())
            }
        }
    }

    /// Returns the number of nodes in it, itself included.
    fn size(&self) -> usize {
        let inner: usize = match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(nodes) => nodes.iter().map(Self::size).sum(),
            Value::Mapping(entries) => entries.iter().map(|(_, _, node)| node.size()).sum(),
        };
        inner.saturating_add(1)
    }

    /// Returns true for `null`, `~` and nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Returns the documents of a text; empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut builder = Builder::default();
    // Event by event: the parser's own loader calls itself for every level of nesting.
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = Position { line: error.marker().line(), column: error.marker().col().saturating_add(1) };
            SyntaxError { at, why: error.info().to_owned() }
        })?;
        builder.on_event(event, span);
        if let Some(broken) = builder.broken {
            return Err(broken);
        }
    }
    Ok(builder.documents.into_iter().filter(|node| !node.is_null()).collect())
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// What has a name, by the number of the name.
    anchors: BTreeMap<usize, Node>,
    repeated: usize,
    broken: Option<SyntaxError>,
}

/// A list or mapping that has not ended.
enum Open {
    Sequence(Position, usize, Vec<Node>),
    Mapping(Position, usize, Vec<(String, Position, Node)>, Option<(String, Position)>),
}

impl Builder {
    fn refuse(&mut self, at: Position, why: &str) {
        self.broken.get_or_insert_with(|| SyntaxError { at, why: why.to_owned() });
    }

    fn open(&mut self, open: Open, at: Position) {
        if self.open.len() >= MAX_DEPTH {
            self.refuse(at, "it is nested too deeply");
        }
        self.open.push(open);
    }

    /// Puts a node that has ended, and remembers it if it has a name.
    fn end(&mut self, node: Node, anchor: usize) {
        // Numbers of names begin at one.
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node);
    }

    fn repeat(&mut self, anchor: usize, at: Position) {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return self.refuse(at, "the alias stands for something that holds it");
        };
        self.repeated = self.repeated.saturating_add(node.size());
        if self.repeated > MAX_ALIAS_NODES {
            return self.refuse(at, "its aliases stand for too much: write the values out");
        }
        self.put(node);
    }

    /// Returns the entries of a mapping with those that it merges, of which its own take the place.
    fn merged(&mut self, entries: Vec<(String, Position, Node)>) -> Vec<(String, Position, Node)> {
        let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(name, ..)| name == MERGE);
        if merges.is_empty() {
            return own;
        }
        // Both may be as long as the file.
        let mut known: BTreeSet<String> = own.iter().map(|(name, ..)| name.clone()).collect();
        for (_, at, node) in merges {
            let mappings = match node.value {
                Value::Sequence(nodes) => nodes,
                Value::Mapping(_) | Value::Scalar { .. } => vec![node],
            };
            for mapping in mappings {
                let Value::Mapping(merged) = mapping.value else {
                    self.refuse(at, "what is merged by << must be a mapping");
                    continue;
                };
                let new: Vec<_> = merged.into_iter().filter(|(name, ..)| !known.contains(name)).collect();
                known.extend(new.iter().map(|(name, ..)| name.clone()));
                own.extend(new);
            }
        }
        own
    }

    fn put(&mut self, node: Node) {
        let at = node.at;
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::Sequence(_, _, nodes)) => nodes.push(node),
            Some(Open::Mapping(_, _, entries, key)) => match key.take() {
                Some((name, place)) => entries.push((name, place, node)),
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, at)),
                    Value::Sequence(_) | Value::Mapping(_) => self.refuse(at, "a key must be a text"),
                },
            },
        }
    }
}

impl Builder {
    fn on_event(&mut self, event: Event<'_>, span: Span) {
        let at = Position { line: span.start.line(), column: span.start.col().saturating_add(1) };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.end(Node { at, value }, anchor);
            }
            Event::SequenceStart(anchor, _) => self.open(Open::Sequence(at, anchor, Vec::new()), at),
            Event::MappingStart(anchor, _) => self.open(Open::Mapping(at, anchor, Vec::new(), None), at),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(at, anchor, nodes)) => self.end(Node { at, value: Value::Sequence(nodes) }, anchor),
                Some(Open::Mapping(at, anchor, entries, _)) => {
                    let entries = self.merged(entries);
                    self.end(Node { at, value: Value::Mapping(entries) }, anchor);
                }
                None => {}
            },
            Event::Alias(anchor) => self.repeat(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_have_places() {
        let nodes = parse("a: 1\nb:\n  - x\n  - \"2\"\n---\n---\nc: {}\n").unwrap();
        assert_eq!(nodes.len(), 2);
        let Value::Mapping(entries) = &nodes[0].value else { panic!("a mapping") };
        let (name, place, list) = &entries[1];
        assert_eq!((name.as_str(), *place), ("b", Position { line: 2, column: 1 }));
        let Value::Sequence(items) = &list.value else { panic!("a list") };
        assert_eq!(items[1].at, Position { line: 4, column: 5 });
        assert_eq!(items[1].value, Value::Scalar { text: "2".into(), plain: false });
    }

    #[test]
    fn broken_text_is_told_by_its_place() {
        let broken = parse("a: 1\n  b: [2\n").unwrap_err();
        assert_eq!(broken.at.line, 2, "{broken:?}");
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn aliases_stand_for_what_was_named() {
        fn show(node: &Node) -> String {
            match &node.value {
                Value::Scalar { text, .. } => text.clone(),
                Value::Sequence(nodes) => format!("[{}]", nodes.iter().map(show).collect::<Vec<_>>().join(" ")),
                Value::Mapping(entries) => {
                    let shown = entries.iter().map(|(name, _, node)| format!("{name}:{}", show(node)));
                    format!("{{{}}}", shown.collect::<Vec<_>>().join(" "))
                }
            }
        }
        let plain = |text: &str| show(&parse(text).unwrap().remove(0));
        assert_eq!(plain("a: &x [1, 2]\nb: *x\n"), "{a:[1 2] b:[1 2]}");
        assert_eq!(plain("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}\n"), "{a:{k:1 l:2} b:{l:3 k:1}}");
        assert_eq!(plain("- &x {k: 1}\n- &y {k: 2, l: 2}\n- {<<: [*x, *y]}\n"), "[{k:1} {k:2 l:2} {k:1 l:2}]");
        assert_eq!(parse("a: &x 1\nb: {<<: *x}\n").unwrap_err().why, "what is merged by << must be a mapping");
        assert!(parse("a: &x [*x]\n").is_err(), "it would never end");
        // Nine lines that stand for a thousand million values.
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..10 {
            let inner = vec![format!("*a{}", n - 1); 10].join(", ");
            text.extend(["a", &n.to_string(), ": &a", &n.to_string(), " [", &inner, "]\n"]);
        }
        assert!(parse(&text).unwrap_err().why.contains("stand for too much"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "that it is not quadratic shows in time only")]
    fn merging_takes_time_that_grows_with_the_size() {
        let keys = |name: char| (0..60_000).map(|number| format!("{name}{number}: 1")).collect::<Vec<_>>().join(", ");
        let text = format!("{{<<: {{{}}}, {}}}", keys('a'), keys('b'));
        let began = std::time::Instant::now();
        let Value::Mapping(entries) = parse(&text).unwrap().remove(0).value else { panic!("a mapping") };
        assert_eq!(entries.len(), 120_000);
        // Thousands of millions of comparisons take several times as long.
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}|[\\[\\]{}:,&*!|>'\"\\n -]{0,60}") {
            let _parsed = parse(&text);
        }
    }
}
