//! YAML with positions. A small tree of our own: the same one can be made from an object of the Kubernetes API.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deeper nesting than this is an attack or a slip.
const DEEPEST: usize = 64;

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Place,
    /// What it is.
    pub value: Value,
}

/// A place in a file, counted from one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
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
    Mapping(Vec<(String, Place, Node)>),
}

/// Text that is no YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub at: Place,
    /// Why.
    pub why: String,
}

impl Node {
    /// Returns true for `[]`.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.value, Value::Sequence(items) if items.is_empty())
    }

    /// Returns true for `null`, `~` and nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Returns the documents of a text; empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Node>, Broken> {
    let mut builder = Builder::default();
    // Event by event: the parser's own loader calls itself for every level of nesting.
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = Place { line: error.marker().line(), column: error.marker().col().saturating_add(1) };
            Broken { at, why: error.info().to_owned() }
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
    broken: Option<Broken>,
}

/// A list or mapping that has not ended.
enum Open {
    Sequence(Place, Vec<Node>),
    Mapping(Place, Vec<(String, Place, Node)>, Option<(String, Place)>),
}

impl Builder {
    fn refuse(&mut self, at: Place, why: &str) {
        self.broken.get_or_insert_with(|| Broken { at, why: why.to_owned() });
    }

    fn open(&mut self, open: Open, at: Place) {
        if self.open.len() >= DEEPEST {
            self.refuse(at, "it is nested too deeply");
        }
        self.open.push(open);
    }

    fn put(&mut self, node: Node) {
        let at = node.at;
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::Sequence(_, nodes)) => nodes.push(node),
            Some(Open::Mapping(_, entries, key)) => match key.take() {
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
        let at = Place { line: span.start.line(), column: span.start.col().saturating_add(1) };
        match event {
            Event::Scalar(text, style, _, _) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.put(Node { at, value });
            }
            Event::SequenceStart(..) => self.open(Open::Sequence(at, Vec::new()), at),
            Event::MappingStart(..) => self.open(Open::Mapping(at, Vec::new(), None), at),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(at, nodes)) => self.put(Node { at, value: Value::Sequence(nodes) }),
                Some(Open::Mapping(at, entries, _)) => self.put(Node { at, value: Value::Mapping(entries) }),
                None => {}
            },
            // An alias can stand for as much text as one likes, many times over.
            Event::Alias(_) => self.refuse(at, "aliases are not supported: write the value out"),
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
        assert_eq!((name.as_str(), *place), ("b", Place { line: 2, column: 1 }));
        let Value::Sequence(items) = &list.value else { panic!("a list") };
        assert_eq!(items[1].at, Place { line: 4, column: 5 });
        assert_eq!(items[1].value, Value::Scalar { text: "2".into(), plain: false });
    }

    #[test]
    fn broken_text_is_told_by_its_place() {
        let broken = parse("a: 1\n  b: [2\n").unwrap_err();
        assert_eq!(broken.at.line, 2, "{broken:?}");
        assert!(parse("a: &x 1\nb: *x\n").unwrap_err().why.contains("alias"));
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}|[\\[\\]{}:,&*!|>'\"\\n -]{0,60}") {
            let _parsed = parse(&text);
        }
    }
}
