//! Events of xDS clients.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kind::Kind;

/// Routes wait this long for clusters that are on their way; then they go without the hosts that need them, and with
/// those whose endpoints nobody asks for, or that the client may have from an earlier stream. Less than the 15 s after
/// which Envoy stops waiting for its routes by itself and answers 404 for all hosts.
pub const CLUSTER_WAIT: Duration = Duration::from_secs(5);

/// An event of an xDS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEvent {
    /// `node.id` of the client.
    pub node: String,
    /// Its stream, by a number that is not used again.
    pub stream: u64,
    /// What happened.
    pub what: ClientEventKind,
}

/// See [`ClientEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEventKind {
    /// It opened a stream.
    Connected {
        /// Source of its reports; `None` if none would be accepted.
        source: Option<String>,
        /// `node.cluster` of the client.
        node_cluster: String,
    },
    /// It refused a configuration, and keeps the one before.
    Refused(Nack),
    /// From now on these are the resources of a type that it refuses and has as they were before, of routes the hosts.
    /// Others than it refused until now.
    Refuses(Kind, BTreeSet<String>),
    /// From now on these are the clusters for which it did not ask for endpoints, or that it did not answer, within
    /// [`CLUSTER_WAIT`]. Others than until now.
    Overdue(BTreeSet<String>),
    /// From now on these are the hosts that it has from another state, and keeps until they are adopted. Others than until
    /// now.
    Foreign(BTreeSet<String>),
    /// It holds all that it wants of a type, as it is.
    Settled(Kind),
    /// Its stream ended.
    Left,
    /// A peer that is no client yet speaks TLS to a port in plain text, or the reverse. Told once in a while; `node` is its
    /// address, and there is no stream.
    Mismatched(String),
}

/// A client's refusal of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Type of the resources.
    pub kind: Kind,
    /// Names of what was refused together.
    pub names: Vec<String>,
    /// Who is to blame: resources, and where routes were refused their hosts; nobody while they are looked for; none if
    /// they cannot be told from the others.
    pub culprits: Option<Vec<String>>,
    /// Why, in the client's words.
    pub error: String,
}
