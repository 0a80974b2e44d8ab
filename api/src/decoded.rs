//! A file's text, decoded by itself: made once for each text, and shared by all that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::version::Version;

pub(super) use super::admit::Content;
use super::admit::{Admission, admit};
use super::decoder::{HostName, Reference};
use super::identity::{Classification, DocumentId, classify};
use super::platform::Platform;
use super::problem::Problem;
use super::report::Report;
use super::yaml::{self, Node, Position, Value};

/// Where a document is.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) file: Arc<str>,
    pub(super) place: Position,
}

/// What a text says. What must be right between documents is not looked at.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) file: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) items: Vec<Item>,
    /// What is wrong with the text as a whole.
    pub(super) report: Report,
}

/// A part of a file.
#[derive(Debug)]
pub(super) enum Item {
    /// A document of ours.
    Document(Arc<Document>),
    /// A document of others, with what is told of it.
    Foreign(Problem),
}

/// A document, right or wrong.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) at: Location,
    /// What is written, and where: a text that has the very same in it has the very same document.
    written_as: Version,
    /// The id that stands in it, whatever else is wrong.
    pub(super) written: Option<DocumentId>,
    /// The id that it has among all documents. One that lacks what every document has is none.
    pub(super) id: Option<DocumentId>,
    /// Its namespace and name; what stands for them where it has none.
    pub(super) name: CanaryName,
    /// What it says. Nothing if something is wrong, or it has no name.
    pub(super) content: Option<Content>,
    /// Documents that it names.
    pub(super) references: Vec<Reference>,
    /// Host names of its endpoints.
    pub(super) hosts: Vec<HostName>,
    pub(super) report: Report,
}

/// A file with its text in force and the one that is to take its place.
#[derive(Debug, Clone)]
pub(super) struct Replacement {
    pub(super) old: Option<Arc<Decoded>>,
    pub(super) new: Arc<Decoded>,
}

impl Replacement {
    /// Returns the documents of both texts.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.old.iter().chain([&self.new]).flat_map(|decoded| decoded.documents())
    }

    /// Returns the documents that one of the texts has and the other one has not.
    pub(super) fn different(&self) -> impl Iterator<Item = &Arc<Document>> {
        let places =
            |decoded: &Decoded| -> BTreeSet<*const Document> { decoded.documents().map(Arc::as_ptr).collect() };
        let (old, new) = (self.old.as_deref().map(places).unwrap_or_default(), places(&self.new));
        let is_shared = move |document: &&Arc<Document>| {
            let place = Arc::as_ptr(document);
            old.contains(&place) && new.contains(&place)
        };
        self.documents().filter(move |document| !is_shared(document))
    }
}

impl Decoded {
    /// Decodes a text.
    pub(super) fn new(file: &str, text: &str, platform: Platform) -> Self {
        Self::after(None, file, text, platform)
    }

    /// Decodes a text that is to take the place of another one of this file. Documents that are the same in both are shared.
    pub(super) fn after(before: Option<&Self>, file: &str, text: &str, platform: Platform) -> Self {
        let file: Arc<str> = file.into();
        let known = before.into_iter().flat_map(|before| &before.items).filter_map(|item| match item {
            Item::Document(document) => Some((document.written_as, document)),
            Item::Foreign(_) => None,
        });
        let known: BTreeMap<Version, &Arc<Document>> = known.collect();
        let mut decoded = Self { file, text: text.into(), items: Vec::new(), report: Report::default() };
        match yaml::parse(text) {
            Ok(documents) => {
                if documents.is_empty() {
                    let at = Location { file: decoded.file.clone(), place: Position { line: 1, column: 1 } };
                    let message = "there is no document in it: write one, or delete the file";
                    decoded.report.warnings.push(problem(&at, "", message));
                }
                documents.iter().for_each(|document| decoded.take(document, &known, platform));
            }
            Err(broken) => {
                let rendered = if text.contains("{{") || text.contains("${") {
                    "; where {{ }} or ${ } is to be filled in by something else, give what that writes"
                } else {
                    ""
                };
                let message = format!("this is no YAML that can be read: {}{rendered}", broken.why);
                let at = Location { file: decoded.file.clone(), place: broken.at };
                decoded.report.errors.push(problem(&at, "", &message));
            }
        }
        decoded
    }

    /// Takes a document, or those of a list.
    fn take(&mut self, node: &Node, known: &BTreeMap<Version, &Arc<Document>>, platform: Platform) {
        match classify(node) {
            Classification::List(items) => items.iter().for_each(|item| self.take(item, known, platform)),
            Classification::Ours(id) => {
                let mut written = Vec::new();
                write(node, &mut written);
                let written_as = Version::of([written.as_slice()]);
                let document = known.get(&written_as).map(|document| Arc::clone(document));
                let document =
                    document.unwrap_or_else(|| Arc::new(Document::new(&self.file, node, id, written_as, platform)));
                self.items.push(Item::Document(document));
            }
            Classification::Foreign(why) => {
                let at = Location { file: self.file.clone(), place: node.at };
                self.items.push(Item::Foreign(problem(&at, "", &why)));
            }
        }
    }

    /// Returns its documents.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.items.iter().filter_map(|item| match item {
            Item::Document(document) => Some(document),
            Item::Foreign(_) => None,
        })
    }

    /// Returns the ids of its documents.
    pub(super) fn ids(&self) -> impl Iterator<Item = &DocumentId> {
        self.documents().filter_map(|document| document.id.as_ref())
    }
}

impl Document {
    fn new(file: &Arc<str>, node: &Node, written: Option<DocumentId>, written_as: Version, platform: Platform) -> Self {
        let at = Location { file: file.clone(), place: node.at };
        let Admission { id, name, document: content, report, references, hosts } = admit(file, node, platform);
        Self { at, written_as, written, id, name, content, references, hosts, report }
    }

    /// Returns the id of a document that this one names.
    pub(super) fn named(&self, reference: &Reference) -> DocumentId {
        let namespace = reference.namespace.as_deref().unwrap_or(&self.name.namespace);
        DocumentId::new(reference.kind, CanaryName::new(namespace, reference.name.as_str()))
    }

    /// Returns what is told where it names a document that is not there.
    pub(super) fn dangles(&self, reference: &Reference) -> Problem {
        let Reference { kind, name, at, field, .. } = reference;
        let message = format!("there is no {kind} {name}, add it or name another");
        problem(&Location { file: self.at.file.clone(), place: *at }, field, &message)
    }
}

/// Writes all of a node that decoding depends on: values, places, and how they nest.
fn write(node: &Node, to: &mut Vec<u8>) {
    let text = |tag: u8, text: &str, place: Position, to: &mut Vec<u8>| {
        to.push(tag);
        for number in [place.line, place.column, text.len()] {
            to.extend(number.to_le_bytes());
        }
        to.extend(text.as_bytes());
    };
    match &node.value {
        Value::Scalar { text: scalar, plain } => text(u8::from(*plain), scalar, node.at, to),
        Value::Sequence(nodes) => {
            text(2, &nodes.len().to_string(), node.at, to);
            nodes.iter().for_each(|node| write(node, to));
        }
        Value::Mapping(entries) => {
            text(3, &entries.len().to_string(), node.at, to);
            for (key, place, node) in entries {
                text(4, key, *place, to);
                write(node, to);
            }
        }
    }
}

/// Returns what is wrong at a place.
pub(super) fn problem(at: &Location, field: &str, message: &str) -> Problem {
    let (line, column) = (at.place.line, at.place.column);
    Problem { file: at.file.to_string(), line, column, field: field.to_owned(), message: message.to_owned() }
}
