//! Which node groups carry traffic of late.
//!
//! What a node saw an hour ago says nothing of a fault that began a second ago. So a node may contradict a verdict only
//! while it carries traffic that would show the fault. That is reckoned from what the *others* report, never from what the
//! node in question says of itself: one that lies can claim any number of requests, and make nobody else's disappear.
//!
//! What the others report weighs if it is a tenth of all, or if it is enough to show a broken canary within seconds,
//! whatever the one claims. The price: one that claims ten times what all others have is believed where these have
//! next to nothing. Nobody can tell it from a node that has nearly all traffic.
//!
//! One that is silent is not one without traffic: a filter says once that it has no more. While the reports of a node group are
//! late, what it carried of late is what it carried when the next one was due.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::quorum::REPORTED_WITHIN;
use super::window::{Arms, Batch, NodeGroup};
use crate::time::{Span, Timestamp};
use crate::weight::BasisPoints;

/// A ring holds so many stretches of time; the latest one is not over.
const STRETCHES: usize = 4;

/// Length of a stretch of the short memory: it reaches 1.2 to 1.6 s back.
const SHORT: Span = Span::from_millis(400);

/// Length of a stretch of the long memory: it reaches 19.2 to 25.6 s back.
const LONG: Span = Span::from_millis(6_400);

/// So long the long memory reaches back at most: before it is full, it proves nobody's absence.
pub(crate) const LONG_MEMORY: Span = LONG.times(STRETCHES as u64);

/// With fewer requests of all node groups in the short memory, the long one is asked for shares: chance might make any node group
/// look silent. A node group with two thirds of them has less than a tenth with a chance of 10⁻⁶.
const MIN_SHORT_REQUESTS: u64 = 16;

/// Others whose share is at least 1 in so many carry comparable traffic.
const COMPARABLE: u64 = 10;

/// Canary requests that others are due in the short memory, from which on they count however much somebody else claims:
/// three or four a second, which show within three seconds a canary that fails everything.
const SIGHT: u64 = 5;

/// The same in the long memory.
const LONG_SIGHT: u64 = 80;

/// Others that were due so many canary requests and had none are not sent any: they are on older routes. By chance that
/// happens once in 3,000 times.
const UNSENT: u64 = 8;

/// With fewer node groups, a node that lies cannot be told from one that does not.
const QUORUM: usize = 3;

/// Parts of a request: shares are basis points.
const WHOLE: u64 = 10_000;

/// How many of the requests that a node sees are due to be the canary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedShare {
    /// Requests divide between the arms by chance: this share of all.
    Share(BasisPoints),
    /// Who gets the canary is decided otherwise: those that it got.
    Canary,
}

/// What the node groups carried of late.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Presence {
    #[serde(rename = "seats")]
    node_groups: BTreeMap<NodeGroup, Recent>,
    /// Those whose reports are late, or were.
    #[serde(skip)]
    late: BTreeMap<NodeGroup, LateReports>,
}

/// That reports are late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LateReports {
    /// When the next one was due.
    since: Timestamp,
    /// When it had not come yet.
    until: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    short: Ring,
    long: Ring,
}

/// Sums over stretches of time of equal length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ring {
    /// The number of the latest stretch, counted from the epoch.
    latest: u64,
    /// By the remainder of their numbers.
    stretches: [TrafficSum; STRETCHES],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct TrafficSum {
    /// Requests of both arms.
    requests: u64,
    /// Requests of the canary.
    canary: u64,
    /// Those that were due to it, in parts.
    due: u64,
}

/// What a node group and all the others carried.
#[derive(Debug, Clone, Copy)]
struct Divided {
    others: TrafficSum,
    all: TrafficSum,
}

impl Presence {
    /// Says whose reports are late now, and since when.
    pub(crate) fn expect(&mut self, late: BTreeMap<NodeGroup, Timestamp>, now: Timestamp) {
        // What came late is in no window yet.
        self.late.retain(|_, held| now.since(held.until) < REPORTED_WITHIN);
        self.late.extend(late.into_iter().map(|(node_group, since)| (node_group, LateReports { since, until: now })));
    }

    /// Takes in a window.
    pub(crate) fn observe(&mut self, batch: &Batch, due: ExpectedShare) {
        if batch.by_node_group.is_empty() {
            self.add(batch.node_group, &batch.judged, batch, due);
        }
        for (node_group, part) in &batch.by_node_group {
            self.add(*node_group, part, batch, due);
        }
    }

    fn add(&mut self, node_group: NodeGroup, arms: &Arms, batch: &Batch, due: ExpectedShare) {
        let canary = arms.canary.judged_and_stalled();
        let requests = arms.primary.judged_and_stalled().saturating_add(canary);
        if requests == 0 {
            return;
        }
        let due = match due {
            ExpectedShare::Share(weight) => requests.saturating_mul(u64::from(weight.get())),
            ExpectedShare::Canary => canary.saturating_mul(WHOLE),
        };
        let recent = self.node_groups.entry(node_group).or_default();
        let more = TrafficSum { requests, canary, due };
        recent.short.add(number(batch.end, SHORT), more);
        recent.long.add(number(batch.end, LONG), more);
    }

    /// Returns true if at least three node groups have had traffic, of either arm: fewer are not told apart. Whether they have it
    /// still is another question: one that is left alone stays one of three.
    pub(crate) fn has_quorum(&self) -> bool {
        self.node_groups.len() >= QUORUM
    }

    /// Returns the node groups that had traffic of late.
    pub(crate) fn carrying(&self, now: Timestamp) -> Vec<NodeGroup> {
        let carries = |recent: &Recent| recent.long.sum(number(now, LONG)).requests > 0;
        self.node_groups.iter().filter(|(_, recent)| carries(recent)).map(|(node_group, _)| *node_group).collect()
    }

    /// Returns true if what all node groups but one report may contradict the harm that this one shows.
    pub(crate) fn may_contradict(&self, one: NodeGroup, now: Timestamp) -> bool {
        let (short, long) = (self.short(one, now), self.long(one, now));
        if long.others.canary == 0 && long.others.due >= UNSENT * WHOLE {
            return false;
        }
        let shares = if short.all.requests >= MIN_SHORT_REQUESTS { short } else { long };
        shares.are_comparable() || short.others.due >= SIGHT * WHOLE
    }

    /// Returns true if what all node groups but one report has to agree that enough was seen. Absence is no success: so what
    /// counts is the long memory, and it is for the caller to see to it that it is full.
    pub(crate) fn must_agree(&self, one: NodeGroup, now: Timestamp) -> bool {
        let long = self.long(one, now);
        long.are_comparable() || long.others.due >= LONG_SIGHT * WHOLE
    }

    fn short(&self, one: NodeGroup, now: Timestamp) -> Divided {
        self.divide(one, |node_group, recent| recent.short.sum(number(self.known_until(node_group, now), SHORT)))
    }

    fn long(&self, one: NodeGroup, now: Timestamp) -> Divided {
        self.divide(one, |_, recent| recent.long.sum(number(now, LONG)))
    }

    /// Returns up to when it is known what a node group carried.
    fn known_until(&self, node_group: NodeGroup, now: Timestamp) -> Timestamp {
        self.late.get(&node_group).map_or(now, |late| late.since)
    }

    fn divide(&self, one: NodeGroup, of: impl Fn(NodeGroup, &Recent) -> TrafficSum) -> Divided {
        let (mut others, mut all) = (TrafficSum::default(), TrafficSum::default());
        for (node_group, recent) in &self.node_groups {
            let carried = of(*node_group, recent);
            all = all.plus(carried);
            if *node_group != one {
                others = others.plus(carried);
            }
        }
        Divided { others, all }
    }
}

impl Divided {
    const fn are_comparable(&self) -> bool {
        self.others.due.saturating_mul(COMPARABLE) >= self.all.due
    }
}

impl Ring {
    fn add(&mut self, number: u64, more: TrafficSum) {
        let passed = number.saturating_sub(self.latest).min(STRETCHES as u64);
        for _ in 0..passed {
            self.stretches.rotate_right(1);
            if let Some(begun) = self.stretches.first_mut() {
                *begun = TrafficSum::default();
            }
        }
        self.latest = self.latest.max(number);
        if let Some(latest) = self.stretches.first_mut() {
            *latest = latest.plus(more);
        }
    }

    /// Returns the sum over the stretch of this number and those before it that are remembered.
    fn sum(&self, number: u64) -> TrafficSum {
        let passed = usize::try_from(number.saturating_sub(self.latest)).unwrap_or(STRETCHES);
        let held = self.stretches.iter().take(STRETCHES.saturating_sub(passed));
        held.fold(TrafficSum::default(), |sum, carried| sum.plus(*carried))
    }
}

impl TrafficSum {
    const fn plus(self, more: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            canary: self.canary.saturating_add(more.canary),
            due: self.due.saturating_add(more.due),
        }
    }
}

/// Returns the number of the stretch that ends at or after a point in time.
const fn number(end: Timestamp, stretch: Span) -> u64 {
    end.as_nanos().saturating_sub(1) / stretch.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;
    use crate::outcome::Outcome;

    const WEIGHT: ExpectedShare = ExpectedShare::Share(BasisPoints::from_percent(5));

    fn counts(requests: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[Outcome::Success.index()] = requests;
        Counts { started: requests, finished: requests, outcomes, ..Counts::default() }
    }

    /// So many seconds of requests a window at each node group, of which one in 20 is the canary's.
    fn carry(presence: &mut Presence, now: &mut Timestamp, seconds: u64, each: &[u64]) {
        for _ in 0..seconds * 5 {
            *now = now.plus(Span::from_millis(200));
            for (node_group, requests) in (0..).map(NodeGroup).zip(each) {
                let judged = Arms { primary: counts(requests - requests / 20), canary: counts(requests / 20) };
                let span = Span::from_millis(200);
                presence.observe(&Batch { end: *now, span, judged, node_group, ..Batch::default() }, WEIGHT);
            }
        }
    }

    #[test]
    fn seats_count_while_they_carry_traffic_and_again_when_they_return() {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut presence = Presence::default();
        let may =
            |presence: &Presence, now| [0, 1, 2].map(|node_group| presence.may_contradict(NodeGroup(node_group), now));
        carry(&mut presence, &mut now, 60, &[20, 20, 20]);
        assert_eq!(may(&presence, now), [true; 3]);
        carry(&mut presence, &mut now, 2, &[20, 0, 0]);
        assert_eq!(may(&presence, now), [false, true, true], "two have left");
        assert!(presence.must_agree(NodeGroup(0), now), "a short absence is no consent");
        carry(&mut presence, &mut now, 26, &[20, 0, 0]);
        assert!(!presence.must_agree(NodeGroup(0), now) && presence.must_agree(NodeGroup(1), now));
        carry(&mut presence, &mut now, 1, &[20, 20, 20]);
        assert_eq!(may(&presence, now), [true; 3], "they are back");
    }

    #[test]
    fn claims_of_one_do_not_make_the_others_disappear() {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut presence = Presence::default();
        carry(&mut presence, &mut now, 60, &[1_000_000, 20, 20]);
        assert!(presence.may_contradict(NodeGroup(0), now) && presence.must_agree(NodeGroup(0), now));
        let mut presence = Presence::default();
        carry(&mut presence, &mut now, 60, &[60, 0, 0]);
        carry(&mut presence, &mut now, 60, &[300, 2, 2]);
        assert!(!presence.may_contradict(NodeGroup(0), now), "one that has nearly everything decides");
    }

    #[test]
    fn others_on_older_routes_contradict_nothing() {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut presence = Presence::default();
        carry(&mut presence, &mut now, 10, &[20, 19, 19]);
        assert!(!presence.may_contradict(NodeGroup(0), now), "190 requests a second and none at the canary");
        carry(&mut presence, &mut now, 1, &[20, 20, 20]);
        assert!(presence.may_contradict(NodeGroup(0), now));
    }

    #[test]
    fn who_is_late_carries_what_it_did_until_its_reports_are_in() {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut presence = Presence::default();
        carry(&mut presence, &mut now, 60, &[1_000, 20, 20]);
        let last = now;
        carry(&mut presence, &mut now, 3, &[1_000]);
        assert!(!presence.may_contradict(NodeGroup(0), now), "they have no more");
        let late = BTreeMap::from([(NodeGroup(1), last), (NodeGroup(2), last)]);
        presence.expect(late, now);
        assert!(presence.may_contradict(NodeGroup(0), now), "their reports have not come");
        presence.expect(BTreeMap::new(), now.plus(Span::from_millis(599)));
        assert!(presence.may_contradict(NodeGroup(0), now), "they have come, and are in no window");
        presence.expect(BTreeMap::new(), now.plus(Span::from_millis(600)));
        assert!(!presence.may_contradict(NodeGroup(0), now), "they showed nothing");
    }

    #[test]
    fn a_ring_forgets_what_is_over() {
        let mut ring = Ring::default();
        let one = TrafficSum { requests: 1, canary: 0, due: 0 };
        for number in [10, 11, 12, 13] {
            ring.add(number, one);
        }
        assert_eq!([13, 14, 16, 17, u64::MAX].map(|number| ring.sum(number).requests), [4, 3, 1, 0, 0]);
        ring.add(15, one);
        assert_eq!(ring.sum(15).requests, 3);
        ring.add(1_000, one);
        assert_eq!(ring.sum(1_000).requests, 1);
        ring.add(999, one);
        assert_eq!(ring.sum(1_000).requests, 2, "what is late counts as of now");
    }
}
