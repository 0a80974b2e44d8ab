//! Whether a regression would have been seen, had it been there (P19).
//!
//! "No harm was seen" says nothing about a test that could not have seen any. So the errors that the
//! primary made are kept as they were, the canary's are imagined at the rate of the declared
//! regression, and the question is how likely the first copy of the harm test would have crossed.
//! Later copies and earlier crossings would only add to that: the answer is a lower bound.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::sequential::{LimitTest, RatioTest, Split, count, ln_sum};

/// How surely the regression must have been caught. A little above the promised 90 %: the primary's
/// rate is an estimate.
const WANTED: f64 = 0.93;

/// Requests beyond this multiple of what was seen: no estimate of when is worth telling.
const FARTHEST: f64 = 1e9;

/// What a harm test saw since the rollout began, in the form that imagining needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Power {
    /// For each alternative: what one bad canary request adds, summed over canary requests.
    per_canary: Vec<f64>,
    /// For each alternative: what the primary's bad requests added.
    from_primary: Vec<f64>,
    /// Bad canary requests to be expected under the regression.
    expected: f64,
    /// And as many if the canary were like the primary.
    base: f64,
    /// Canary requests.
    canary: f64,
}

impl Power {
    /// Takes in a batch: the primary's bad requests as they are, and the canary's rates without and
    /// with the regression.
    pub(crate) fn observe(&mut self, test: &RatioTest, split: Split, base: f64, regressed: f64) {
        if split.canary == 0 || split.primary == 0 {
            return;
        }
        let canary = count(split.canary);
        let bases: Vec<_> = test.bases(split).collect();
        self.per_canary.resize(bases.len(), 0.0);
        self.from_primary.resize(bases.len(), 0.0);
        for (sum, (a, _)) in self.per_canary.iter_mut().zip(&bases) {
            *sum += canary * a;
        }
        for (sum, (_, b)) in self.from_primary.iter_mut().zip(&bases) {
            *sum += count(split.primary_bad) * b;
        }
        self.expected += canary * regressed;
        self.base += canary * base;
        self.canary += canary;
    }

    /// Returns the same with another rate under the regression, which is known better with time.
    pub(crate) fn expecting(&self, regressed: f64) -> Self {
        Self { expected: self.canary * regressed, ..self.clone() }
    }

    /// Returns true if the test saw requests of both arms.
    pub(crate) fn is_ready(&self) -> bool {
        self.canary > 0.0
    }

    /// Returns true if the regression changes what the test counts.
    pub(crate) fn sees(&self) -> bool {
        self.expected >= 1.5 * self.base && self.expected > 0.0
    }

    /// Returns the factor by which the traffic would have to grow until the regression would have
    /// been caught: at most 1 if it would have been by now. Nothing if it would take for ever.
    ///
    /// `limit` is the evidence that decides; `floor` a second test that must reach it too.
    pub(crate) fn requests_missing(&self, weight: f64, limit: f64, floor: Option<(&LimitTest, f64)>) -> Option<f64> {
        if self.canary <= 0.0 || !self.sees() {
            return None;
        }
        let enough = |grown: f64| self.caught(grown, weight, limit, floor) >= WANTED;
        if enough(1.0) {
            return Some(1.0);
        }
        let (mut low, mut high) = (1.0, 2.0);
        while !enough(high) {
            low = high;
            high *= 2.0;
            if high > FARTHEST {
                return None;
            }
        }
        while high / low > 1.02 {
            let middle = libm::sqrt(low * high);
            if enough(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// Returns a lower bound of the chance that the regression would have been caught.
    fn caught(&self, grown: f64, weight: f64, limit: f64, floor: Option<(&LimitTest, f64)>) -> f64 {
        let canary = self.canary * grown;
        let crosses = |bad: f64| {
            let relative = ln_sum(
                self.per_canary.iter().zip(&self.from_primary).map(|(a, b)| weight + bad * a / self.canary + grown * b),
            );
            let absolute = floor.is_none_or(|(test, limit)| test.first_copy(bad, canary) >= limit);
            relative >= limit && absolute
        };
        // Evidence of harm rises with the canary's bad requests, so that the least number that
        // crosses is found by halving.
        let (mut low, mut high) = (0.0, libm::ceil(canary));
        if !crosses(high) {
            return 0.0;
        }
        while high - low > 1.0 {
            let middle = libm::floor(f64::midpoint(low, high));
            if crosses(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        at_least(high, self.expected * grown)
    }
}

/// Returns a lower bound of the chance of `wanted` bad requests or more where `mean` are expected.
///
/// Poisson: below its mean it has the heavier tail than the binomial that it stands for. For many
/// events the normal tail with continuity correction replaces the sum.
fn at_least(wanted: f64, mean: f64) -> f64 {
    if wanted <= 0.0 {
        return 1.0;
    }
    if mean > 500.0 {
        let z = (wanted - 0.5 - mean) / libm::sqrt(mean);
        return 0.5 * libm::erfc(z / core::f64::consts::SQRT_2);
    }
    let mut term = libm::exp(-mean);
    let mut below = 0.0;
    let mut k = 0.0;
    while k < wanted && below < 1.0 {
        below += term;
        k += 1.0;
        term *= mean / k;
        if k > mean && term < 1e-18 {
            break;
        }
    }
    1.0 - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_tails_are_those_of_the_tables() {
        // P(X >= 3 | mean 5) and P(X >= 10 | mean 10).
        assert!((at_least(3.0, 5.0) - 0.875_348).abs() < 1e-6);
        assert!((at_least(10.0, 10.0) - 0.542_070).abs() < 1e-6);
        assert!((at_least(500.0, 500.5) - at_least(500.0, 499.9)).abs() < 0.03);
        assert!((at_least(0.0, 0.0) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_test_without_requests_would_have_caught_nothing() {
        let test = RatioTest::harm(1.25);
        assert_eq!(Power::default().requests_missing(test.first_weight(), 7.0, None), None);
    }

    #[test]
    fn what_is_missing_shrinks_as_requests_come_in() {
        let test = RatioTest::harm(1.25);
        let mut power = Power::default();
        let mut last = f64::INFINITY;
        let batch = Split { canary_bad: 0, canary: 10, primary_bad: 2, primary: 190 };
        for _ in 0..500 {
            power.observe(&test, batch, 0.01, 0.05);
            let missing = power.requests_missing(test.first_weight(), 7.6, None).unwrap();
            assert!(missing <= last * 1.03);
            last = missing;
        }
        assert!((last - 1.0).abs() < f64::EPSILON);
    }
}
