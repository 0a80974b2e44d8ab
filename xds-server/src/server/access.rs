//! Who is let in, and what is told of those that are not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::time::Instant;
use tonic::Status;
use wingbeat_core::foreign::unfit_name;

use crate::server::identity::{NodeList, Peer};

/// Bytes of a node's id, and of its cluster. One that is longer is refused: they are kept as long as the nodes are there.
pub const MAX_NODE_ID: usize = 256;

/// Refusals for the same cause are logged at most once in this time, with the number of those between.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Whether reports from other machines are taken without anything that says who sends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnonymousReports {
    /// They are refused: whoever reaches the port would decide over rollouts.
    #[default]
    Refused,
    /// They are taken: everybody who reaches the port is trusted.
    Taken,
}

/// Who may do what.
#[derive(Clone, Default)]
pub struct Access {
    /// Nodes that principals may be besides those that their certificates name.
    pub nodes: NodeList,
    /// Lets reports in from other machines, where no certificates say who sends them.
    pub token: Option<Arc<str>>,
    /// What becomes of reports from other machines with neither.
    pub anonymous: AnonymousReports,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { nodes, token, anonymous } = self;
        let token = token.is_some();
        f.debug_struct("Access").field("nodes", nodes).field("token", &token).field("anonymous", anonymous).finish()
    }
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It says that it is a node which it is not.
    Node,
    /// It reports from another machine, and nothing says who it is.
    Anonymous,
    /// It has as much already as it may while others need room.
    Share,
    /// What it sent cannot be.
    Malformed,
    /// It speaks TLS to a port in plain text, or the reverse.
    Tls,
    /// More reports wait than are taken at a time: it may send this one again.
    Busy,
    /// Its stream asks more than it may: it is read slower.
    Rate,
}

impl Cause {
    /// All of them, in the order in which they are declared: they are counted by place.
    pub const ALL: [Self; 7] =
        [Self::Node, Self::Anonymous, Self::Share, Self::Malformed, Self::Tls, Self::Busy, Self::Rate];

    /// Returns its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "not-its-node",
            Self::Anonymous => "anonymous",
            Self::Share => "too-much",
            Self::Malformed => "malformed",
            Self::Tls => "tls-mismatch",
            Self::Busy => "busy",
            Self::Rate => "too-fast",
        }
    }
}

impl Access {
    /// Returns why a peer may not speak as this node of this cluster, if it may not.
    pub(super) fn refuses_node(&self, peer: &Peer, node: &str, cluster: &str) -> Option<(Cause, Status)> {
        for (what, name) in [("the node's id", node), ("the node's cluster", cluster)] {
            if let Some(why) = unfit_name(what, name, MAX_NODE_ID) {
                return Some((Cause::Malformed, Status::invalid_argument(why)));
            }
        }
        let why = self.nodes.refuses(peer, node, cluster)?;
        Some((Cause::Node, Status::permission_denied(why)))
    }

    /// Returns why a peer that sent these headers may not report, if it may not.
    pub(super) fn refuses_reports(&self, peer: &Peer, headers: &HeaderMap) -> Option<(Cause, Status)> {
        let Peer::Uncertified(address) = peer else { return None };
        if address.to_canonical().is_loopback() || self.anonymous == AnonymousReports::Taken {
            return None;
        }
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let why = match (self.token.as_deref(), sent) {
            (Some(token), Some(sent)) if equal_in_constant_time(token.as_bytes(), sent.as_bytes()) => return None,
            (Some(_), Some(_)) => "its token is not the server's: give Envoy the one of --token",
            (Some(_), None) => {
                "it shows neither a certificate nor the token: write its bootstrap with wingbeat bootstrap --token, or start \
                 the server with --client-ca"
            }
            (None, _) => {
                "nothing says who it is: start the server with --client-ca, or with --token, or with \
                 --allow-anonymous-reports if everybody who reaches its port is trusted"
            }
        };
        Some((Cause::Anonymous, Status::unauthenticated(format!("reports of {peer} are not taken; {why}"))))
    }
}

/// Compares secrets. How long it takes does not tell how far they agree.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Logs refusals, each cause once in a while.
#[derive(Debug, Clone, Default)]
pub struct RefusalLog(Arc<Mutex<BTreeMap<Cause, Logged>>>);

#[derive(Debug)]
struct Logged {
    at: Instant,
    since: u64,
}

impl RefusalLog {
    /// Notes a refusal, and logs it if none for the same cause was logged just now. Returns how many were not logged before
    /// it; nothing if it was not logged itself.
    pub fn note(&self, cause: Cause, peer: &Peer, why: &str) -> Option<u64> {
        let now = Instant::now();
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = match logged.get_mut(&cause) {
            Some(last) if now.duration_since(last.at) < LOG_EVERY => {
                last.since = last.since.saturating_add(1);
                return None;
            }
            Some(last) => last.since,
            None => 0,
        };
        logged.insert(cause, Logged { at: now, since: 0 });
        drop(logged);
        tracing::warn!(cause = cause.as_str(), %peer, unlogged = more, "refused: {why}");
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(token: &str) -> HeaderMap {
        [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn each_cause_is_counted_as_itself() {
        assert!(Cause::ALL.iter().enumerate().all(|(place, cause)| *cause as usize == place), "{:?}", Cause::ALL);
    }

    #[test]
    fn reports_from_elsewhere_need_a_certificate_or_the_token() {
        let near = Peer::Uncertified([127, 0, 0, 1].into());
        let far = Peer::Uncertified([10, 0, 0, 9].into());
        let certified = Peer::Certified(crate::server::Certificate::new(vec!["edge-1".to_owned()]).unwrap());
        let none = Access::default();
        let token = Access { token: Some("secret".into()), ..Access::default() };
        let open = Access { anonymous: AnonymousReports::Taken, ..Access::default() };
        for (access, peer, headers, taken) in [
            (&none, &near, HeaderMap::new(), true),
            (&none, &certified, HeaderMap::new(), true),
            (&none, &far, HeaderMap::new(), false),
            (&none, &far, bearer("secret"), false),
            (&token, &far, HeaderMap::new(), false),
            (&token, &far, bearer("guess!"), false),
            (&token, &far, bearer("secret"), true),
            (&token, &near, HeaderMap::new(), true),
            (&open, &far, HeaderMap::new(), true),
        ] {
            let refused = access.refuses_reports(peer, &headers);
            assert_eq!(refused.is_none(), taken, "{access:?} {peer} {headers:?}: {refused:?}");
        }
        let (cause, why) = none.refuses_reports(&far, &HeaderMap::new()).unwrap();
        assert_eq!(cause, Cause::Anonymous);
        assert!(why.message().starts_with("reports of 10.0.0.9 are not taken; nothing says who it is: "), "{why}");
    }
}
