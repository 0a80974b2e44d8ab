//! From which age or length on the filters look closer at a request: it follows what the primary does.

use serde::{Deserialize, Serialize};
use wingbeat_core::analysis::window::{Batch, NodeGroup};
use wingbeat_core::counts::Counts;
use wingbeat_core::histogram::Histogram;
use wingbeat_core::time::Span;

/// Requests of a canary that nothing is known about are overdue after this time …
const OVERDUE_AT_FIRST: Span = Span::from_secs(1);
/// … and later after so many times the primary's p99, within bounds.
const OVERDUE_TIMES_P99: u64 = 4;
/// The shortest and the longest age at which requests are overdue, whatever the primary's p99.
const OVERDUE_BOUNDS: (Span, Span) = (Span::from_millis(250), Span::from_secs(30));
/// Requests may have waited for a connection if they are longer than the primary's median by a quarter, and by this
/// much: what is known of connections before there is a median.
const SLOW_ABOVE: Span = Span::from_millis(5);

/// Node groups are dealt into so many groups. What holds for most groups is followed: one node that lies is in one of them, and
/// makes no limit, neither one that lets hangs go unseen nor one that takes every request for overdue (P24).
const GROUPS: usize = 4;

/// Groups that know the primary from which on most of them decide. With fewer, what all of them saw together does.
const QUORUM: usize = 3;

/// Requests from which on a group knows the primary.
const MIN_PRIMARY_REQUESTS: u64 = 100;

/// What is told to the filters of a canary's clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// Age at which requests in flight are looked at.
    pub(super) overdue: Span,
    /// What it was before: some workers may not know better yet.
    overdue_before: Span,
    /// Length above which the time that a request waited for a connection is read.
    pub(super) slow: Span,
    /// How long the primary's requests took, by group.
    primary: Vec<Histogram>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { overdue: OVERDUE_AT_FIRST, overdue_before: OVERDUE_AT_FIRST, slow: SLOW_ABOVE, primary: Vec::new() }
    }
}

impl Limits {
    /// Follows what a window adds to what is known of the primary.
    pub(super) fn follow(&mut self, batch: &Batch) {
        if batch.by_node_group.is_empty() {
            self.take(batch.node_group, &batch.judged.primary);
        }
        for (node_group, arms) in &batch.by_node_group {
            self.take(*node_group, &arms.primary);
        }
        let (p99, p50) = (self.micros(0.99), self.micros(0.5));
        if let Some(p99) = p99 {
            let overdue = Span::from_micros(p99.saturating_mul(OVERDUE_TIMES_P99));
            let before = self.overdue;
            shift(&mut self.overdue, overdue.clamp(OVERDUE_BOUNDS.0, OVERDUE_BOUNDS.1));
            if self.overdue != before {
                self.overdue_before = before;
            }
        }
        if let Some(p50) = p50 {
            let above = (p50 / 4).max(SLOW_ABOVE.as_micros());
            shift(&mut self.slow, Span::from_micros(p50.saturating_add(above)));
        }
    }

    fn take(&mut self, node_group: NodeGroup, primary: &Counts) {
        self.primary.resize_with(GROUPS, Histogram::new);
        if let Some(group) = self.primary.get_mut(usize::from(node_group.0) % GROUPS) {
            group.merge(&primary.latency);
        }
    }

    /// Returns a quantile of the primary's requests, in microseconds: the median of those of the groups, or where few know
    /// the primary, of all their requests.
    fn micros(&self, q: f64) -> Option<u64> {
        let high = |group: &Histogram| group.quantile(q).map(|(_, high)| high);
        let mut known: Vec<u64> =
            self.primary.iter().filter(|group| group.count() >= MIN_PRIMARY_REQUESTS).filter_map(high).collect();
        if known.len() >= QUORUM {
            known.sort_unstable();
            return known.get(known.len() / 2).copied();
        }
        let mut all = Histogram::new();
        self.primary.iter().for_each(|group| all.merge(group));
        high(&all)
    }

    /// Returns what filters are told.
    pub(super) const fn take_events(&self) -> (Span, Span) {
        (self.overdue, self.slow)
    }

    /// Returns the age that every request has which a worker called overdue.
    pub(super) fn surely_overdue(&self) -> Span {
        self.overdue.min(self.overdue_before)
    }
}

/// Every change is a new policy for all filters: small ones are not worth it.
fn shift(limit: &mut Span, wanted: Span) {
    let (small, large) = (wanted.min(*limit), wanted.max(*limit));
    if large.as_nanos() > small.as_nanos().saturating_mul(3) / 2 {
        *limit = wanted;
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_core::analysis::window::Arms;
    use wingbeat_core::histogram::bin_of;

    use super::*;

    /// A window in which every node group saw so many of the primary's requests, of this length.
    fn window(node_groups: &[(u8, u64, u64)]) -> Batch {
        let mut batch = Batch::default();
        for (node_group, requests, micros) in node_groups {
            let mut arms = Arms::default();
            arms.primary.latency.add(bin_of(*micros), *requests);
            batch.judged.merge(&arms);
            batch.by_node_group.insert(NodeGroup(*node_group), arms);
        }
        batch
    }

    fn take_events(micros: u64) -> Limits {
        let mut limits = Limits::default();
        limits.follow(&window(&[(0, 1, micros)]));
        limits
    }

    #[test]
    fn limits_follow_the_primary_in_large_steps() {
        let mut limits = Limits::default();
        limits.follow(&Batch::default());
        assert_eq!((limits.overdue, limits.slow), (OVERDUE_AT_FIRST, SLOW_ABOVE), "nothing is known");
        // Half a millisecond: a quarter more is nothing, 5 ms more are near enough to what is told already.
        limits = take_events(500);
        assert_eq!((limits.overdue, limits.slow), (Span::from_millis(250), SLOW_ABOVE));
        limits.follow(&window(&[(0, 1_000, 100_000)]));
        assert!((125_000..128_000).contains(&limits.slow.as_micros()), "{limits:?}");
        assert!((400_000..410_000).contains(&limits.overdue.as_micros()), "{limits:?}");
        let before = (limits.overdue, limits.slow);
        limits.follow(&window(&[(0, 100_000, 140_000)]));
        assert_eq!((limits.overdue, limits.slow), before);
        limits.follow(&window(&[(0, 20_000_000, 20_000)]));
        assert_eq!(limits.surely_overdue(), Span::from_millis(250));
        assert!((25_000..25_300).contains(&limits.slow.as_micros()), "{limits:?}");
    }

    /// One node that lies moves no limit, whatever it claims: neither up, which would hide hangs, nor down.
    #[test]
    fn what_one_of_several_nodes_claims_makes_no_limit() {
        for claimed in [1, 10_000_000] {
            for nodes in [3, 4, 9] {
                let mut limits = Limits::default();
                for _ in 0..10 {
                    let honest = (1..nodes).map(|node_group| (node_group, 50, 100_000));
                    let lie = [(0, 1 << 50, claimed)];
                    limits.follow(&window(&honest.chain(lie).collect::<Vec<_>>()));
                }
                let overdue = limits.overdue.as_micros();
                assert!((400_000..410_000).contains(&overdue), "{claimed} µs of one of {nodes}: {limits:?}");
            }
        }
        // Few requests are no knowledge: what is seen elsewhere counts.
        let mut limits = Limits::default();
        limits.follow(&window(&[(0, 10_000, 100_000), (1, 1, 1_000), (2, 1, 1_000)]));
        assert!((400_000..410_000).contains(&limits.overdue.as_micros()), "{limits:?}");
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let written = serde_json::json!({"overdue": Span::from_millis(300)});
        let limits: Limits = serde_json::from_value(written).unwrap();
        assert_eq!(limits, Limits { overdue: Span::from_millis(300), ..Limits::default() });
    }
}
