//! Whether the share of a step really flows: the hand-shake before its clock starts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::judge::Propagation;
use super::sequential::count;
use crate::counts::Counts;
use crate::id::{NodeId, Rev};
use crate::time::{Span, Timestamp};

/// So much of the traffic must be routed by the current rev (P25).
const MIN_CURRENT_SHARE: f64 = 0.99;

/// Requests of a node that started within this time, or within its tick where that is longer, are its weight.
const WINDOW: Span = Span::from_secs(1);

/// Requests are added up by this much time.
const BUCKET: Span = Span::from_millis(200);

/// A node that reported nothing for so long, or for two of its ticks where that is longer, neither counts nor holds
/// anything up, and is forgotten.
const SILENT_AFTER: Span = Span::from_secs(5);

/// Nodes that are followed. Beyond it, new ones neither count nor hold anything up until others fall silent.
const MAX_NODES: usize = 10_000;

/// Up to so many nodes, the share is looked at with every report, else once in each [`BUCKET`].
const MAX_EAGER_NODES: usize = 64;

/// Follows a change of routes to the proxies of one canary.
#[derive(Debug, Clone)]
pub struct PropagationTracker {
    rev: Rev,
    changed: Timestamp,
    propagation: Option<Timestamp>,
    nodes: BTreeMap<NodeId, Node>,
    /// The bucket in which silent nodes were forgotten last.
    pruned: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct Node {
    last: Timestamp,
    /// How often it reports.
    tick: Span,
    rev: Rev,
    /// Requests started, by bucket: the node's weight, whatever routes they took.
    starts: BTreeMap<Timestamp, u64>,
}

impl PropagationTracker {
    /// Returns the state just after the routes changed to `rev`.
    pub const fn new(rev: Rev, now: Timestamp) -> Self {
        Self { rev, changed: now, propagation: None, nodes: BTreeMap::new(), pruned: now }
    }

    /// Notes that the routes changed again.
    pub fn changed(&mut self, rev: Rev, now: Timestamp) {
        self.rev = rev;
        self.changed = now;
        self.propagation = None;
    }

    /// Takes in new requests of a node that reports every `tick`, of either arm; they also count while they are in flight
    /// (P1). Filters read the rev of one request per tick, since it costs: a node that has served one request by the
    /// current routes serves all of them by these, but for the milliseconds in which its workers take them over.
    pub fn observe(&mut self, node: &NodeId, counts: &Counts, tick: Span, now: Timestamp) {
        let bucket = now.window_start(BUCKET);
        let is_new_bucket = core::mem::replace(&mut self.pruned, bucket) < bucket;
        if is_new_bucket {
            self.nodes.retain(|_, node| !node.is_silent(now));
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(node) {
            return;
        }
        let entry = match self.nodes.get_mut(node) {
            Some(entry) => entry,
            None => self.nodes.entry(node.clone()).or_default(),
        };
        (entry.last, entry.tick) = (entry.last.max(now), tick);
        entry.rev = entry.rev.max(counts.rev);
        if counts.started > 0 {
            let started = entry.starts.entry(bucket).or_default();
            *started = started.saturating_add(counts.started);
        }
        entry.starts = entry.starts.split_off(&now.minus(entry.window()));
        // Looking at all of them with every report of each would take the square of their number.
        let looks = self.propagation.is_none() && (self.nodes.len() <= MAX_EAGER_NODES || is_new_bucket);
        if looks && self.share(now).is_some_and(|share| share >= MIN_CURRENT_SHARE) {
            self.propagation = Some(now);
        }
    }

    /// Returns whether the share flows. Once it does it stays so until the routes change: a proxy
    /// that comes later gets the current routes first.
    pub fn assess(&self, now: Timestamp) -> Propagation {
        if self.propagation.is_some() {
            return Propagation::Effective;
        }
        Propagation::Pending { laggards: self.laggards(now) }
    }

    /// Returns when the share began to flow.
    pub const fn since(&self) -> Option<Timestamp> {
        self.propagation
    }

    /// Returns true if the share does not flow though the routes changed longer than `deadline` ago.
    pub fn is_late(&self, now: Timestamp, deadline: Span) -> bool {
        self.propagation.is_none() && now.since(self.changed) > deadline
    }

    /// Returns the share of traffic that goes through nodes which serve the current rev, if there is any.
    fn share(&self, now: Timestamp) -> Option<f64> {
        let (all, current) = self.nodes.values().fold((0.0, 0.0), |(all, current), node| {
            let rate = node.rate(now);
            let at_rev = if node.rev >= self.rev { rate } else { 0.0 };
            (all + rate, current + at_rev)
        });
        (all > 0.0).then(|| current / all)
    }

    /// Returns the nodes that reported lately and have not served a request by the current rev.
    fn laggards(&self, now: Timestamp) -> Vec<NodeId> {
        self.nodes
            .iter()
            .filter(|(_, node)| !node.is_silent(now) && node.rev < self.rev)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Node {
    /// A node that reports once in five seconds would be missing in four of five windows of one.
    fn window(&self) -> Span {
        WINDOW.max(self.tick.plus(BUCKET))
    }

    fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.last) > SILENT_AFTER.max(self.tick.times(2))
    }

    /// Returns its requests a second.
    fn rate(&self, now: Timestamp) -> f64 {
        let window = self.window();
        let starts = self.starts.range(now.minus(window)..);
        let started = starts.fold(0, |sum: u64, (_, starts)| sum.saturating_add(*starts));
        count(started) / window.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Span = Span::from_millis(100);

    fn starts(count: u64, rev: u64) -> Counts {
        Counts { started: count, rev: Rev::new(rev), rev_started: count.min(1), ..Counts::default() }
    }

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_share_flows_when_nearly_all_traffic_goes_through_nodes_that_serve_it() {
        let (a, b) = (NodeId::new("a"), NodeId::new("b"));
        let mut flow = PropagationTracker::new(Rev::new(2), at(0));
        assert_eq!(flow.assess(at(0)), Propagation::Pending { laggards: Vec::new() });
        flow.observe(&b, &starts(50, 1), TICK, at(100));
        flow.observe(&a, &starts(100, 2), TICK, at(100));
        assert_eq!(flow.assess(at(200)), Propagation::Pending { laggards: [b.clone()].into() });
        // What the laggard served leaves the window.
        flow.observe(&a, &starts(100, 2), TICK, at(1_500));
        assert_eq!(flow.assess(at(1_500)), Propagation::Effective);
        assert_eq!(flow.since(), Some(at(1_500)));
        // A node that had traffic just before the change counts from the first moment on.
        flow.observe(&b, &starts(50, 2), TICK, at(1_900));
        flow.changed(Rev::new(3), at(2_000));
        assert!(matches!(flow.assess(at(2_000)), Propagation::Pending { .. }));
        flow.observe(&a, &starts(100, 3), TICK, at(2_010));
        assert_eq!(flow.assess(at(2_010)), Propagation::Pending { laggards: [b.clone()].into() });
        assert!(flow.is_late(at(40_000), Span::from_secs(30)));
        flow.observe(&b, &starts(1, 3), TICK, at(2_020));
        assert_eq!(flow.assess(at(2_020)), Propagation::Effective);
    }

    /// Ten thousand workers report every five seconds: one that serves old routes is not overlooked in between.
    #[test]
    fn a_laggard_is_seen_between_its_reports() {
        let mut flow = PropagationTracker::new(Rev::new(1), at(0));
        let tick = Span::from_secs(5);
        for second in 0..30 {
            let now = at(second * 1_000);
            if second == 10 {
                flow.changed(Rev::new(2), now);
            }
            let node = second % 5;
            let rev = if second < 10 || node == 4 { 1 } else { 2 };
            flow.observe(&NodeId::new(alloc::format!("{node}")), &starts(500, rev), tick, now);
            if second >= 14 {
                assert_eq!(flow.assess(now), Propagation::Pending { laggards: [NodeId::new("4")].into() });
            }
        }
    }

    #[test]
    fn a_hundred_thousand_names_are_bounded_and_forgotten() {
        let mut flow = PropagationTracker::new(Rev::new(2), at(0));
        for name in 0..100_000_u64 {
            flow.observe(&NodeId::new(alloc::format!("{name}")), &starts(1, 1), TICK, at(name / 100));
        }
        assert_eq!(flow.nodes.len(), MAX_NODES);
        flow.observe(&NodeId::new("honest"), &starts(100, 2), TICK, at(7_000));
        assert_eq!((flow.nodes.len(), flow.assess(at(7_000))), (1, Propagation::Effective));
    }

    #[test]
    fn an_idle_or_silent_node_holds_nothing_up() {
        let mut flow = PropagationTracker::new(Rev::new(2), at(0));
        flow.observe(&NodeId::new("idle"), &starts(0, 1), TICK, at(10));
        flow.observe(&NodeId::new("busy"), &starts(1_000, 2), TICK, at(10));
        assert_eq!(flow.assess(at(10)), Propagation::Effective);
        flow.changed(Rev::new(3), at(20));
        assert_eq!(flow.assess(at(9_000)), Propagation::Pending { laggards: Vec::new() });
    }
}
