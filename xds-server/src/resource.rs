//! Resources as they travel: named, encoded once, with a version made from their content.

use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use prost::bytes::Bytes;
use prost::{Message, Name};
use sha2::{Digest as _, Sha256};

/// The resource types that are served, in the order in which a change is sent: what is referred to comes before
/// what refers to it (xDS protocol, "Eventual consistency considerations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// ECDS.
    Extension,
}

impl Kind {
    /// Every type, in sending order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Extension];

    /// Returns the type's URL.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// Returns the type of this URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Returns true where a client that names nothing wants everything (xDS protocol, "Wildcard"). In state of the
    /// world, responses of these types carry all that is wanted: what is left out is gone.
    pub const fn has_wildcard(self) -> bool {
        match self {
            Self::Cluster | Self::Listener => true,
            Self::Endpoints | Self::Routes | Self::Extension => false,
        }
    }

    /// Returns the type whose resources refer to those of this one. What refers must go first.
    pub const fn referred_by(self) -> Option<Self> {
        match self {
            Self::Cluster | Self::Endpoints => Some(Self::Routes),
            Self::Routes | Self::Extension => Some(Self::Listener),
            Self::Listener => None,
        }
    }
}

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

/// A version made from content: the same content has the same version, also after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u8; 8]);

impl Version {
    /// Returns the version of these pieces, in this order.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update(u64::try_from(piece.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(piece);
        }
        let mut short = [0; 8];
        for (to, from) in short.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(short)
    }

    /// Returns the version of a set of resources.
    pub fn of_all<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> Self {
        let versions: Vec<[u8; 8]> = resources.into_iter().map(|resource| resource.version.0).collect();
        Self::of(versions.iter().map(<[u8; 8]>::as_slice))
    }

    /// Reads what [`Version`] displays as.
    pub fn parse(text: &str) -> Option<Self> {
        let number = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }

    /// Returns the version as a number.
    pub const fn get(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// Returns the bytes of the version.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Packs a message, with Envoy's form of type URLs.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}
