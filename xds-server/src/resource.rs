//! Resources as they travel: named, encoded once, with a version made from their content.

use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use prost::bytes::Bytes;
use prost::{Message, Name};

use crate::version::Version;

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name, unique within its type.
    pub name: String,
    /// The encoded message.
    pub body: Bytes,
    /// A hash of the content.
    pub version: Version,
    /// Names of the clusters that it needs.
    pub refers_to: Vec<String>,
    /// The hosts of a route table, in their order; nothing else has parts.
    pub parts: Vec<Arc<Part>>,
}

/// A host of a route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name, unique within the table.
    pub name: String,
    /// The encoded message.
    pub body: Bytes,
    /// A hash of the content.
    pub version: Version,
    /// A hash of the domains: two hosts of a table may not answer to the same one.
    pub identity: Version,
    /// Names of the clusters that it needs.
    pub refers_to: Vec<String>,
}

impl Resource {
    /// Encodes a message that needs no cluster.
    pub fn new(name: &str, message: &impl Message) -> Self {
        let body = Bytes::from(message.encode_to_vec());
        let version = Version::of([&body[..]]);
        Self { name: name.to_owned(), body, version, refers_to: Vec::new(), parts: Vec::new() }
    }
}

/// Packs a message, with Envoy's form of type URLs.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

/// Returns the version of a set of resources.
pub fn version_of_all<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> Version {
    let versions: Vec<[u8; 8]> = resources.into_iter().map(|resource| resource.version.bytes()).collect();
    Version::of(versions.iter().map(<[u8; 8]>::as_slice))
}
