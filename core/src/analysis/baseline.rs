//! What the primary did before the canary had traffic, and whether it does much worse now (P14).
//!
//! A comparison cannot see harm that both arms share: a canary that ruins a database ruins the primary with it, and a
//! dependency that breaks by itself breaks both. The first is no reason to go on, the second none to blame.

use serde::{Deserialize, Serialize};

use super::sequential::{LimitTest, Split, count};
use crate::time::Span;

/// The primary is degraded when it fails so many times as often as before …
const RATIO: f64 = 10.0;

/// … and at least this often; beyond the second rate it is in any case.
const BOUNDS: (f64, f64) = (0.05, 0.5);

/// A primary that always failed so often is degraded when it fails so many times as often.
const DEGRADED_RATIO: f64 = 1.25;

/// Evidence that decides: a chance of 1 in 1,000 to hold a rollout for nothing.
const DEGRADED_EVIDENCE: f64 = 6.907_755_278_982_137;

/// What is recent; older requests count half, a quarter, …
const RECENT: Span = Span::from_secs(5);

/// The primary's errors, before the canary's first request and since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    before: Arm,
    /// Set at the canary's first request.
    watch: Option<Watch>,
}

/// What was counted of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arm {
    bad: u64,
    all: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Watch {
    limit: f64,
    test: LimitTest,
    recent: Arm,
    age: Span,
    degraded: bool,
}

impl Arm {
    pub(crate) const fn add(&mut self, bad: u64, all: u64) {
        self.bad = self.bad.saturating_add(bad);
        self.all = self.all.saturating_add(all);
    }

    /// Returns a rate that the true one is likely below: two standard deviations above what was counted.
    pub(crate) fn cautious_rate(self) -> f64 {
        (count(self.bad) + 2.0 * libm::sqrt(count(self.bad) + 1.0)) / count(self.all).max(1.0)
    }
}

impl Baseline {
    /// Takes in what failed or hung in a batch that lasted `span`.
    pub(crate) fn observe(&mut self, split: Split, span: Span) {
        if split.canary == 0 && self.watch.is_none() {
            self.before.add(split.primary_bad, split.primary);
            return;
        }
        let limit = self.degraded_above();
        let watch = self.watch.get_or_insert_with(|| Watch::new(limit));
        watch.observe(split.primary_bad, split.primary, span);
    }

    /// Returns a rate that the primary's was likely below before the canary had traffic; 1 if nothing is known.
    pub(crate) fn before(&self) -> f64 {
        self.before.cautious_rate().min(1.0)
    }

    /// Returns true if the primary was seen before the canary had traffic.
    pub(crate) const fn is_known(&self) -> bool {
        self.before.all > 0
    }

    /// Returns true if the primary exceeded this rate already before the canary had traffic.
    pub(crate) fn exceeded(&self, limit: f64) -> bool {
        let low = count(self.before.bad) - 2.0 * libm::sqrt(count(self.before.bad));
        self.before.all > 0 && low / count(self.before.all) > limit
    }

    /// Returns the primary's recent rate of failures, while it is degraded.
    pub(crate) fn degraded(&self) -> Option<f64> {
        self.watch.as_ref().filter(|watch| watch.degraded).map(Watch::recent_rate)
    }

    fn degraded_above(&self) -> f64 {
        if self.before.all == 0 {
            return BOUNDS.1;
        }
        // A primary that always failed more often than that is not degraded by it.
        let before = self.before();
        (RATIO * before).clamp(BOUNDS.0, BOUNDS.1).max(DEGRADED_RATIO * before)
    }
}

impl Watch {
    fn new(limit: f64) -> Self {
        Self { limit, test: LimitTest::above(limit), recent: Arm::default(), age: Span::ZERO, degraded: false }
    }

    fn observe(&mut self, bad: u64, all: u64, span: Span) {
        self.test.observe(bad, all, span);
        self.recent.add(bad, all);
        self.age = self.age.plus(span);
        if self.age >= RECENT {
            self.age = Span::ZERO;
            self.recent = Arm { bad: self.recent.bad / 2, all: self.recent.all / 2 };
        }
        if !self.degraded {
            self.degraded = self.test.reaches(DEGRADED_EVIDENCE);
        } else if self.recent_rate() < self.limit / 2.0 {
            *self = Self { recent: self.recent, ..Self::new(self.limit) };
        }
    }

    fn recent_rate(&self) -> f64 {
        count(self.recent.bad) / count(self.recent.all).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Span = Span::from_millis(200);

    fn split(canary: u64, primary_bad: u64) -> Split {
        Split { canary_bad: 0, canary, primary_bad, primary: 190 }
    }

    fn after(before: u64, since: &[u64]) -> Baseline {
        let mut baseline = Baseline::default();
        for _ in 0..25 {
            baseline.observe(split(0, before), TICK);
        }
        for bad in since {
            baseline.observe(split(10, *bad), TICK);
        }
        baseline
    }

    #[test]
    fn a_primary_that_suddenly_fails_is_degraded_until_it_recovers() {
        assert_eq!(after(1, &[1; 500]).degraded(), None);
        let outage = after(1, &[150; 5]);
        assert!(outage.degraded().is_some_and(|rate| rate > 0.5));
        let mut recovered = outage;
        for _ in 0..100 {
            recovered.observe(split(10, 1), TICK);
        }
        assert_eq!(recovered.degraded(), None);
    }

    #[test]
    fn what_was_so_before_is_known() {
        assert!(after(20, &[20]).exceeded(0.05));
        assert!(!after(1, &[1]).exceeded(0.05));
        assert!(!after(0, &[]).exceeded(0.0) && !Baseline::default().exceeded(0.0));
        assert_eq!(after(20, &[20; 500]).degraded(), None, "it was no better before");
        assert_eq!(after(120, &[120; 500]).degraded(), None, "it was no better before");
        assert!((Baseline::default().before() - 1.0).abs() < 1e-12);
    }
}
