//! Where a rollout's requests were routed until lately.

use std::collections::BTreeMap;

use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::model::Listener;

/// So long after a listener is not for a node any more, the node still counts and reports what came by it: requests that were
/// under way, and those of connections that Envoy drains, which by default takes 10 minutes.
const RETENTION: Span = Span::from_secs(600);

/// Values of `node.cluster` that are remembered. What nodes of more of them report late is not counted.
const MAX_NAMES: usize = 1_024;

/// Nodes that a listener of the canary was for in this rollout, each until it is forgotten.
#[derive(Debug, Default)]
pub(in crate::engine) struct FormerNodes {
    /// All nodes.
    all: Option<Timestamp>,
    /// By value of `node.cluster`.
    named: BTreeMap<String, Timestamp>,
}

impl FormerNodes {
    /// Notes whom these listeners are for, which are about to change.
    pub(in crate::engine) fn note<'a>(&mut self, listeners: impl Iterator<Item = &'a Listener>, now: Timestamp) {
        let until = now.plus(RETENTION);
        self.named.retain(|_, until| now < *until);
        for listener in listeners {
            if listener.node_clusters.is_empty() {
                self.all = Some(until);
            }
            for name in &listener.node_clusters {
                if self.named.len() < MAX_NAMES || self.named.contains_key(name) {
                    self.named.insert(name.clone(), until);
                }
            }
        }
    }

    /// Returns true if nodes that say that they are this `node.cluster` were among them.
    pub(in crate::engine) fn had(&self, node_cluster: &str, now: Timestamp) -> bool {
        self.had_all(now) || self.named.get(node_cluster).is_some_and(|until| now < *until)
    }

    /// Returns true if all nodes were.
    pub(in crate::engine) fn had_all(&self, now: Timestamp) -> bool {
        self.all.is_some_and(|until| now < until)
    }

    /// Returns the values of `node.cluster` that were among them.
    pub(in crate::engine) fn names(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.named.iter().filter(move |(_, until)| now < **until).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_xds_server::model::traffic::Front;

    use super::*;

    fn listener(nodes: &[String]) -> Listener {
        Listener {
            name: "public".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 80,
            node_clusters: nodes.to_vec(),
            access_log: None,
            front: Front::default(),
        }
    }

    #[test]
    fn who_was_served_is_remembered_for_a_while_and_no_more_than_so_many() {
        let at = |secs: u64| Timestamp::EPOCH.plus(Span::from_secs(1_000 + secs));
        let mut former = FormerNodes::default();
        former.note([listener(&["a".to_owned()])].iter(), at(0));
        former.note([listener(&["b".to_owned()])].iter(), at(300));
        assert!(former.had("a", at(599)) && !former.had("a", at(600)) && former.had("b", at(600)));
        assert!(!former.had("c", at(0)) && !former.had_all(at(0)));
        former.note([listener(&[])].iter(), at(700));
        assert!(former.had("c", at(700)) && former.names(at(700)).eq(["b"]));
        assert_eq!(former.named.len(), 1, "what is over is forgotten");
        let many: Vec<String> = (0..2 * MAX_NAMES).map(|number| number.to_string()).collect();
        former.note([listener(&many)].iter(), at(701));
        assert_eq!(former.named.len(), MAX_NAMES);
    }
}
