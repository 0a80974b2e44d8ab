//! What comes into a session, and what comes out of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client_event::Nack;
use crate::kind::Kind;
use crate::resource::Resource;
use crate::version::Version;

/// Names of one type that a client may ask for and that nothing served has; its stream ends with one more. Of what is
/// served it may ask for all: it was told of that.
pub const MAX_NAMES: usize = 10_000;

/// The two forms of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Responses carry whole sets (of clusters and listeners) or whole resources (of the other types).
    StateOfTheWorld,
    /// Responses carry what changed, and the names of what is gone.
    Delta,
}

/// What a client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// How it changes what it wants.
    pub names: Names,
    /// Nonce of the response that this answers; empty if it answers none.
    pub nonce: String,
    /// Set if the client rejects the response.
    pub error: Option<String>,
}

/// What a client says it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// State of the world: these and no others; none may mean all.
    All {
        /// The names.
        names: Vec<String>,
        /// Version that the client holds, from an earlier stream if this is its first request.
        version: String,
    },
    /// Delta: more of these and less of those.
    Change {
        /// Names that it wants from now on.
        subscribe: Vec<String>,
        /// Names that it wants no longer.
        unsubscribe: Vec<String>,
        /// Names and versions that it holds from an earlier stream.
        initial: Vec<(String, String)>,
    },
}

impl Default for Names {
    fn default() -> Self {
        Self::All { names: Vec::new(), version: String::new() }
    }
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Type of the resources.
    pub kind: Kind,
    /// Version of all that the client holds of this type once it accepts this.
    pub version: Version,
    /// To be repeated by the client.
    pub nonce: String,
    /// The resources.
    pub resources: Vec<Arc<Resource>>,
    /// Delta: names of resources that are gone.
    pub removed: Vec<String>,
}

/// What a request came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// To be sent, in this order.
    pub responses: Vec<Response>,
    /// Set if the client refused something.
    pub nack: Option<Nack>,
    /// Set if the client now holds all that it wants of a type, as it is.
    pub settled: Option<Kind>,
}

/// What is different with a client since it was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of types where that changed, all that the client refuses now and has as it was before: resources, and of routes
    /// the hosts.
    pub refused: Vec<(Kind, BTreeSet<String>)>,
    /// Clusters for which the client has not asked for endpoints, or that it has not answered, for longer than routes
    /// wait: all of them, if they are others than before.
    pub overdue: Option<BTreeSet<String>>,
    /// Hosts that the client has from another state, and keeps until they are adopted: all of them, if they are others than
    /// before.
    pub foreign: Option<BTreeSet<String>>,
}

/// A client named more than [`MAX_NAMES`] resources of a type that are not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_NAMES} names of one type that are not served")]
pub struct TooManyNames;

/// Who is to blame for a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Culprit {
    /// This resource or host.
    One(String),
    /// It is being looked for.
    Sought,
    /// There is no use in looking for it: there are many, or it is not known what the client holds, so that nothing may
    /// be left out.
    Unknown,
}

impl Culprit {
    /// Returns the names to blame, if those can be told from others.
    pub(super) fn names(self) -> Option<Vec<String>> {
        match self {
            Self::One(name) => Some(vec![name]),
            Self::Sought => Some(Vec::new()),
            Self::Unknown => None,
        }
    }
}
