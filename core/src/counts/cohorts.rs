//! What became of requests that began together.

use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::id::Rev;

/// Requests of closed start cohorts at one rev: what a test of safety may look at (P2).
///
/// A cohort is all that a worker began within one second of its clock. Of requests that began lately only the short ones
/// have ended, which makes a slow arm look fast; so a cohort enters here as a whole, when the last of its requests has
/// ended or has grown older than the policy allows, and all cohorts before it have been closed too.
///
/// Not in here: upgraded connections and gRPC streams, whose length says nothing; clients that left before their request
/// grew too old; requests that Envoy answered by itself; cohorts that a worker had no room for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cohorts {
    /// The rev that all of them were routed by, or a later one. At a higher rev all counts here start again.
    pub rev: Rev,
    /// Requests that ended in a way that says something about the upstream, before they grew too old; and those whose
    /// response had begun when they did, as no errors, and with the longest latency that there is.
    pub finished: u64,
    /// Of these, the errors.
    pub errors: u64,
    /// Requests that had been counted as overdue when their cohort closed, however they end: each an error and an
    /// exceedance. None of them is in `finished`.
    pub overdue: u64,
    /// Latencies of the finished.
    pub latency: Histogram,
}

impl Cohorts {
    /// Returns true if no worker can have counted these and so many of all of its requests.
    pub(super) fn contradict(&self, errors: u64, overdue: u64, started: u64) -> bool {
        self.errors > self.finished
            || self.latency.count() > self.finished
            || self.errors > errors
            || self.overdue > overdue
            || self.finished.saturating_add(self.overdue) > started
    }

    /// Adds requests of another worker or a later stretch of time, or takes them instead if they are of a later rev.
    pub(super) fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add, Histogram::merge);
    }

    /// Keeps the higher of both cumulative counts.
    pub(super) fn max_merge(&mut self, other: &Self) {
        self.combine(other, u64::max, Histogram::max_merge);
    }

    /// Returns what is here and was not yet in `earlier`: everything, at a new rev.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        if self.rev != earlier.rev {
            return self.clone();
        }
        Self {
            rev: self.rev,
            finished: self.finished.saturating_sub(earlier.finished),
            errors: self.errors.saturating_sub(earlier.errors),
            overdue: self.overdue.saturating_sub(earlier.overdue),
            latency: self.latency.since(&earlier.latency),
        }
    }

    fn combine(&mut self, other: &Self, join: fn(u64, u64) -> u64, join_latency: fn(&mut Histogram, &Histogram)) {
        match other.rev.cmp(&self.rev) {
            Ordering::Less => {}
            Ordering::Equal => {
                self.finished = join(self.finished, other.finished);
                self.errors = join(self.errors, other.errors);
                self.overdue = join(self.overdue, other.overdue);
                join_latency(&mut self.latency, &other.latency);
            }
            Ordering::Greater => self.clone_from(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cohorts() -> impl Strategy<Value = Cohorts> {
        let bins = proptest::collection::vec((0..6_u16, 1..9_u64), 0..5);
        (0..3_u64, 0..9_u64, 0..9_u64, 0..9_u64, bins).prop_map(|(rev, finished, errors, overdue, bins)| Cohorts {
            rev: Rev::new(rev),
            finished,
            errors,
            overdue,
            latency: bins.into_iter().collect(),
        })
    }

    fn joined(join: fn(&mut Cohorts, &Cohorts), a: &Cohorts, b: &Cohorts) -> Cohorts {
        let mut joined = a.clone();
        join(&mut joined, b);
        joined
    }

    proptest! {
        #[test]
        fn the_order_of_workers_does_not_matter(a in cohorts(), b in cohorts(), c in cohorts()) {
            for join in [Cohorts::merge, Cohorts::max_merge] {
                prop_assert_eq!(joined(join, &a, &b), joined(join, &b, &a));
                let (left, right) = (joined(join, &joined(join, &a, &b), &c), joined(join, &a, &joined(join, &b, &c)));
                prop_assert_eq!(left, right);
            }
        }

        #[test]
        fn what_is_new_and_what_was_known_make_the_whole(a in cohorts(), b in cohorts()) {
            let late = joined(Cohorts::max_merge, &a, &b);
            prop_assert_eq!(joined(Cohorts::merge, &a, &late.since(&a)), late);
        }

        #[test]
        fn taking_in_the_same_twice_changes_nothing(a in cohorts(), b in cohorts()) {
            let once = joined(Cohorts::max_merge, &a, &b);
            prop_assert_eq!(joined(Cohorts::max_merge, &once, &b), once);
        }
    }

    #[test]
    fn a_new_rev_starts_again() {
        let at = |rev, finished| Cohorts { rev: Rev::new(rev), finished, ..Cohorts::default() };
        assert_eq!(at(2, 3).since(&at(1, 10)), at(2, 3));
        assert_eq!(joined(Cohorts::merge, &at(1, 10), &at(2, 3)), at(2, 3));
    }
}
