//! What a document is, before anything else of it is read: whose it is, and what it is called.

use std::fmt;

use serde::{Deserialize, Serialize};
use wingbeat_core::id::CanaryName;

use super::decoder::nearest;
use super::platform::Api;
use super::yaml::{Node, Position, Value};

/// The kinds that there are.
const KINDS: [&str; 5] = ["Canary", "Workload", "Listener", "MetricTemplate", "AlertProvider"];
/// The API group of our own kinds.
const OUR_GROUP: &str = "wingbeat.dev";
/// The API group of the kinds that Flagger has, too.
const FLAGGERS_GROUP: &str = "flagger.app";

/// What names a document among all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocumentId {
    /// Its kind.
    pub kind: String,
    /// Its namespace and name. Listeners serve all namespaces, and are in none.
    pub name: CanaryName,
}

impl DocumentId {
    /// Returns the id of a document.
    pub(super) fn new(kind: impl Into<String>, name: CanaryName) -> Self {
        let kind = kind.into();
        let name = if kind == "Listener" { CanaryName::new("", name.name) } else { name };
        Self { kind, name }
    }

    /// Returns the id that stands in a document; nothing if its name is no text.
    fn of(node: &Node) -> Option<Self> {
        let metadata = node.get("metadata")?;
        let name = metadata.get("name")?.scalar()?;
        let namespace = metadata.get("namespace").map_or(Some("default"), Node::scalar)?;
        Some(Self::new(node.get("kind")?.scalar()?, CanaryName::new(namespace, name)))
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name } = self;
        if name.namespace.is_empty() { write!(f, "{kind} {}", name.name) } else { write!(f, "{kind} {name}") }
    }
}

/// What is to be done with a document.
pub(super) enum Classification<'a> {
    /// It is read. Its id, as far as it has one.
    Ours(Option<DocumentId>),
    /// It is a list of documents.
    List(&'a [Node]),
    /// It is left out, for this reason.
    Foreign(String),
}

/// Returns whose a document is. What may be a slip in one of ours is ours: it is told, and not left out.
pub(super) fn classify(node: &Node) -> Classification<'_> {
    let (api, kind) = (node.get("apiVersion").and_then(Node::scalar), node.get("kind").and_then(Node::scalar));
    let ours = || Classification::Ours(DocumentId::of(node));
    let group = api.and_then(|api| api.split_once('/')).map(|(group, _)| group);
    let is_known = group
        .is_some_and(|group| group.starts_with("wingbeat") || nearest(group, [OUR_GROUP, FLAGGERS_GROUP]).is_some());
    if let (Some(kind), Some(Value::Sequence(items))) = (kind, node.get("items").map(|items| &items.value))
        && (kind == "List" || (is_known && kind.ends_with("List")))
    {
        return Classification::List(items);
    }
    let is_flaggers = group == Some(FLAGGERS_GROUP);
    match (api, kind) {
        (Some(api), _) if is_flaggers && Api::parse(api).is_none() => {
            let latest = Api::FlaggerV1Beta1.as_str();
            Classification::Foreign(format!("{api} is not read, and this document is left out: write {latest}"))
        }
        _ if is_known => ours(),
        (Some(api), Some(kind)) if group.is_some() || !KINDS.contains(&kind) => {
            let hint = if KINDS.contains(&kind) { ", whose apiVersion is wingbeat.dev/v1alpha1" } else { "" };
            Classification::Foreign(format!("{kind} of {api} is no document of Wingbeat{hint}: it is left out"))
        }
        (Some(api), None) => Classification::Foreign(format!("what has apiVersion {api} and no kind is left out")),
        (None, Some(kind)) if !KINDS.contains(&kind) => {
            Classification::Foreign(format!("{kind} without apiVersion is no document of Wingbeat: it is left out"))
        }
        (None, None) if matches!(node.value, Value::Mapping(_)) && node.get("spec").is_none() => {
            Classification::Foreign(
                "what has neither apiVersion nor kind is no document of Wingbeat: it is left out".to_owned(),
            )
        }
        (Some(_) | None, Some(_)) | (None, None) => ours(),
    }
}

/// Returns what something else is to fill in: the places of values like `${PORT}`, with the first of them.
pub(super) fn placeholders(node: &Node) -> Vec<(Position, &str)> {
    match &node.value {
        Value::Scalar { text, .. } => placeholder(text).map(|found| (node.at, found)).into_iter().collect(),
        Value::Sequence(nodes) => nodes.iter().flat_map(placeholders).collect(),
        Value::Mapping(entries) => entries.iter().flat_map(|(_, _, node)| placeholders(node)).collect(),
    }
}

fn placeholder(text: &str) -> Option<&str> {
    let (_, from) = text.split_once("${")?;
    let (inner, _) = from.split_once('}')?;
    inner.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_').then_some(inner)
}
