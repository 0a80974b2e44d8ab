//! Whether the share of a step really flows: the hand-shake before its clock starts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::judge::Flowing;
use super::sequential::count;
use crate::counts::Counts;
use crate::id::{NodeId, Rev};
use crate::time::{Span, Timestamp};

/// So much of the traffic must be routed by the current rev (P25).
const ENOUGH: f64 = 0.99;

/// Requests started within this time are looked at.
const WINDOW: Span = Span::from_secs(1);

/// Requests are added up by this much time.
const BUCKET: Span = Span::from_millis(200);

/// A node that reported nothing for so long neither counts nor holds anything up.
const SILENT: Span = Span::from_secs(5);

/// Follows a change of routes to the proxies of one canary.
#[derive(Debug, Clone)]
pub struct Flow {
    rev: Rev,
    changed: Timestamp,
    flowing: Option<Timestamp>,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    last: Timestamp,
    rev: Rev,
    /// Requests started, by bucket: the node's weight, whatever routes they took.
    starts: BTreeMap<Timestamp, u64>,
}

impl Flow {
    /// Returns the state just after the routes changed to `rev`.
    pub const fn new(rev: Rev, now: Timestamp) -> Self {
        Self { rev, changed: now, flowing: None, nodes: BTreeMap::new() }
    }

    /// Notes that the routes changed again.
    pub fn changed(&mut self, rev: Rev, now: Timestamp) {
        self.rev = rev;
        self.changed = now;
        self.flowing = None;
    }

    /// Takes in new requests of a node, of either arm; they also count while they are in flight (P1). Filters read
    /// the rev of one request per tick, since it costs: a node that has served one request by the current routes
    /// serves all of them by these, but for the milliseconds in which its workers take them over.
    pub fn observe(&mut self, node: &NodeId, counts: &Counts, now: Timestamp) {
        let entry = match self.nodes.get_mut(node) {
            Some(entry) => entry,
            None => self.nodes.entry(node.clone()).or_default(),
        };
        entry.last = entry.last.max(now);
        entry.rev = entry.rev.max(counts.rev);
        if counts.started > 0 {
            let started = entry.starts.entry(now.window_start(BUCKET)).or_default();
            *started = started.saturating_add(counts.started);
        }
        entry.starts = entry.starts.split_off(&now.minus(WINDOW));
        if self.flowing.is_none() && self.share(now).is_some_and(|share| share >= ENOUGH) {
            self.flowing = Some(now);
        }
    }

    /// Returns whether the share flows. Once it does it stays so until the routes change: a proxy
    /// that comes later gets the current routes first.
    pub fn assess(&self, now: Timestamp) -> Flowing {
        if self.flowing.is_some() {
            return Flowing::Yes;
        }
        Flowing::No { laggards: self.laggards(now) }
    }

    /// Returns when the share began to flow.
    pub const fn since(&self) -> Option<Timestamp> {
        self.flowing
    }

    /// Returns true if the share does not flow though the routes changed longer than `deadline` ago.
    pub fn is_late(&self, now: Timestamp, deadline: Span) -> bool {
        self.flowing.is_none() && now.since(self.changed) > deadline
    }

    /// Returns the share of traffic that goes through nodes which serve the current rev, if there is any.
    fn share(&self, now: Timestamp) -> Option<f64> {
        let from = now.minus(WINDOW);
        let (all, current) = self.nodes.values().fold((0_u64, 0_u64), |(all, current), node| {
            let started = node.starts.range(from..).fold(0, |sum: u64, (_, starts)| sum.saturating_add(*starts));
            let at_rev = if node.rev >= self.rev { started } else { 0 };
            (all.saturating_add(started), current.saturating_add(at_rev))
        });
        (all > 0).then(|| count(current) / count(all))
    }

    /// Returns the nodes that reported lately and have not served a request by the current rev.
    fn laggards(&self, now: Timestamp) -> Vec<NodeId> {
        self.nodes
            .iter()
            .filter(|(_, node)| now.since(node.last) <= SILENT && node.rev < self.rev)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(count: u64, rev: u64) -> Counts {
        Counts { started: count, rev: Rev::new(rev), rev_started: count.min(1), ..Counts::default() }
    }

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_share_flows_when_nearly_all_traffic_goes_through_nodes_that_serve_it() {
        let (a, b) = (NodeId::new("a"), NodeId::new("b"));
        let mut flow = Flow::new(Rev::new(2), at(0));
        assert_eq!(flow.assess(at(0)), Flowing::No { laggards: Vec::new() });
        flow.observe(&b, &starts(50, 1), at(100));
        flow.observe(&a, &starts(100, 2), at(100));
        assert_eq!(flow.assess(at(200)), Flowing::No { laggards: [b.clone()].into() });
        // What the laggard served leaves the window.
        flow.observe(&a, &starts(100, 2), at(1_500));
        assert_eq!(flow.assess(at(1_500)), Flowing::Yes);
        assert_eq!(flow.since(), Some(at(1_500)));
        // A node that had traffic just before the change counts from the first moment on.
        flow.observe(&b, &starts(50, 2), at(1_900));
        flow.changed(Rev::new(3), at(2_000));
        assert!(matches!(flow.assess(at(2_000)), Flowing::No { .. }));
        flow.observe(&a, &starts(100, 3), at(2_010));
        assert_eq!(flow.assess(at(2_010)), Flowing::No { laggards: [b.clone()].into() });
        assert!(flow.is_late(at(40_000), Span::from_secs(30)));
        flow.observe(&b, &starts(1, 3), at(2_020));
        assert_eq!(flow.assess(at(2_020)), Flowing::Yes);
    }

    #[test]
    fn an_idle_or_silent_node_holds_nothing_up() {
        let mut flow = Flow::new(Rev::new(2), at(0));
        flow.observe(&NodeId::new("idle"), &starts(0, 1), at(10));
        flow.observe(&NodeId::new("busy"), &starts(1_000, 2), at(10));
        assert_eq!(flow.assess(at(10)), Flowing::Yes);
        flow.changed(Rev::new(3), at(20));
        assert_eq!(flow.assess(at(9_000)), Flowing::No { laggards: Vec::new() });
    }
}
