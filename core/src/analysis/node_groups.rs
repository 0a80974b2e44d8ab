//! Which group a reporting node belongs to: each group can be left out.
//!
//! A node group's trial leaves out all that ever belonged to it. So a node that is silent gives its node group away without harm: what it
//! said stays left out of that one trial, together with what its successor says. What must not happen is that a node moves
//! from one node group to another while it reports: what it made up before would be in the trial that leaves it out now. Hence
//! nodes are remembered with their node groups, and those of whom there are too many to be remembered have fixed ones.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::window::NodeGroup;
use crate::id::NodeId;
use crate::time::{Span, Timestamp};

/// Node groups. Each costs a trial; with more of them, leaving one out loses less.
pub(crate) const MAX_NODE_GROUPS: u8 = 8;

/// So many nodes are remembered. One more takes the place of one that may be forgotten; if there is none, its node group is fixed
/// by its name.
const MAX_NODES: usize = 128;

/// A node that was not heard for so long is silent: newcomers may have its node group.
const SILENT_AFTER: Span = Span::from_secs(60);

/// A node that was not heard for so long may be forgotten, if there is no room for another: it would get a new node group. One
/// that makes things up has to be silent for so long, while over a hundred others come, to be believed from two node groups.
const EXPIRE_AFTER: Span = Span::from_secs(600);

/// The nodes, each with its node group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeGroups {
    nodes: BTreeMap<NodeId, GroupMember>,
    /// When one reported last that is not remembered. As long as some do, nobody is forgotten.
    crowded: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct GroupMember {
    #[serde(rename = "seat")]
    node_group: NodeGroup,
    last: Timestamp,
}

impl NodeGroups {
    /// Returns the node group of a node that reports.
    pub(crate) fn of(&mut self, node: &NodeId, now: Timestamp) -> NodeGroup {
        if let Some(seated) = self.nodes.get_mut(node) {
            seated.last = seated.last.max(now);
            return seated.node_group;
        }
        // One that reported while it was not remembered keeps the node group of its name.
        let crowded = self.crowded.is_some_and(|last| now.since(last) < EXPIRE_AFTER);
        if self.nodes.len() >= MAX_NODES && (crowded || !self.forget_one(now)) {
            self.crowded = Some(now);
            return by_name(node);
        }
        let node_group = if crowded { by_name(node) } else { self.emptiest(now) };
        self.nodes.insert(node.clone(), GroupMember { node_group, last: now });
        node_group
    }

    /// Returns the nodes of a node group that report, to be named.
    pub(crate) fn nodes(&self, node_group: NodeGroup) -> Vec<NodeId> {
        let seated = self.nodes.iter().filter(|(_, seated)| seated.node_group == node_group);
        let last = seated.clone().map(|(_, seated)| seated.last).max().unwrap_or_default();
        seated.filter(|(_, seated)| !is_silent(**seated, last)).map(|(node, _)| node.clone()).collect()
    }

    /// Returns since when node groups are late: those of which a node is.
    pub(crate) fn late_since(
        &self,
        late_since: impl Fn(&NodeId) -> Option<Timestamp>,
    ) -> BTreeMap<NodeGroup, Timestamp> {
        let mut late = BTreeMap::new();
        for (node, seated) in &self.nodes {
            if let Some(since) = late_since(node) {
                let longest = late.entry(seated.node_group).or_insert(since);
                *longest = since.min(*longest);
            }
        }
        late
    }

    /// Forgets the node that is silent for longest, if it is for long enough.
    fn forget_one(&mut self, now: Timestamp) -> bool {
        let longest = self.nodes.iter().min_by_key(|(_, seated)| seated.last);
        let Some(node) =
            longest.filter(|(_, seated)| now.since(seated.last) >= EXPIRE_AFTER).map(|(node, _)| node.clone())
        else {
            return false;
        };
        self.nodes.remove(&node);
        true
    }

    /// Returns the node group with the fewest nodes that report; of several, one that never had one, or the first.
    fn emptiest(&self, now: Timestamp) -> NodeGroup {
        let sitting = |node_group: NodeGroup| {
            let all = self.nodes.values().filter(|seated| seated.node_group == node_group);
            (all.clone().filter(|seated| !is_silent(**seated, now)).count(), all.count())
        };
        (0..MAX_NODE_GROUPS).map(NodeGroup).min_by_key(|node_group| sitting(*node_group)).unwrap_or_default()
    }
}

fn is_silent(seated: GroupMember, now: Timestamp) -> bool {
    now.since(seated.last) >= SILENT_AFTER
}

fn by_name(node: &NodeId) -> NodeGroup {
    let mut hasher = SipHasher13::new();
    hasher.write(node.as_str().as_bytes());
    NodeGroup(u8::try_from(hasher.finish() % u64::from(MAX_NODE_GROUPS)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn names(numbers: core::ops::Range<u32>) -> Vec<NodeId> {
        numbers.map(|number| NodeId::new(format!("edge-{number}"))).collect()
    }

    fn seated(node_groups: &mut NodeGroups, names: &[NodeId], now: Timestamp) -> Vec<u8> {
        names.iter().map(|node| node_groups.of(node, now).0).collect()
    }

    #[test]
    fn the_first_nodes_have_a_seat_each_and_all_keep_theirs() {
        let mut node_groups = NodeGroups::default();
        let names = names(0..300);
        let taken = seated(&mut node_groups, &names, START);
        assert_eq!(taken[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        for node_group in 0..MAX_NODE_GROUPS {
            let among = |range: core::ops::Range<usize>| {
                taken[range].iter().filter(|taken| NodeGroup(**taken) == NodeGroup(node_group)).count()
            };
            assert_eq!(among(0..128), 16, "evenly");
            assert!(among(128..300) > 0, "by name");
        }
        let mut now = START;
        for _ in 0..100 {
            now = now.plus(Span::from_secs(30));
            assert_eq!(seated(&mut node_groups, &names, now), taken);
        }
        assert_eq!(node_groups.nodes(NodeGroup(3))[..2], [names[107].clone(), names[11].clone()]);
    }

    #[test]
    fn after_a_thousand_restarts_those_that_live_have_a_seat_each() {
        let mut node_groups = NodeGroups::default();
        let mut now = START;
        for generation in 0..1_000 {
            let living = names(3 * generation..3 * generation + 3);
            let mut taken = seated(&mut node_groups, &living, now);
            for _ in 0..7 {
                now = now.plus(Span::from_secs(10));
                assert_eq!(seated(&mut node_groups, &living, now), taken, "generation {generation}");
            }
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), 3, "generation {generation}: {taken:?}");
        }
        assert!(node_groups.nodes.len() <= MAX_NODES);
    }

    #[test]
    fn nobody_moves_while_it_reports() {
        let mut node_groups = NodeGroups::default();
        let all = names(0..200);
        let taken = seated(&mut node_groups, &all, START);
        // The first fifty leave; places become free, and others report on.
        let mut now = START;
        for _ in 0..60 {
            now = now.plus(Span::from_secs(20));
            assert_eq!(seated(&mut node_groups, &all[50..], now), taken[50..]);
        }
        let late = names(500..501);
        let node_group = seated(&mut node_groups, &late, now);
        now = now.plus(Span::from_secs(50));
        assert_eq!(seated(&mut node_groups, &late, now), node_group);
    }
}
