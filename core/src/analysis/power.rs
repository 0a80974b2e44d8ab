//! Whether a regression would have been seen, had it been there (P19).
//!
//! "No harm was seen" says nothing about a test that could not have seen any. So the errors that the
//! primary made are kept as they were, the canary's are imagined at the rate of the declared
//! regression, and the question is how likely the first copy of the harm test would have crossed.
//! Later copies and earlier crossings would only add to that: the answer is a lower bound.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::sequential::{Bases, HARM_ALTERNATIVES, LimitTest, Split, count};
use crate::analysis::convex::{Line, min_requests_for};

/// How surely the regression must have been caught. A little above the promised 90 %: the primary's
/// rate is an estimate.
const TARGET_POWER: f64 = 0.93;

/// Requests beyond this multiple of what was seen: no estimate of when is worth telling.
const MAX_Z: f64 = 1e9;

/// What a harm test saw since the rollout began, in the form that imagining needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Power {
    /// For each alternative: what one bad canary request adds, summed over canary requests.
    per_canary: Sums,
    /// For each alternative: what the primary's bad requests added.
    from_primary: Sums,
    /// Bad canary requests to be expected under the regression.
    expected: f64,
    /// And as many if the canary were like the primary.
    base: f64,
    /// Canary requests.
    canary: f64,
    /// The size of bursts, summed over canary requests.
    bursts: f64,
}

/// A number for each alternative of a harm test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f64>")]
struct Sums([f64; HARM_ALTERNATIVES]);

impl From<Vec<f64>> for Sums {
    /// A list that is empty stands for zeros: so it was written before anything was seen.
    fn from(written: Vec<f64>) -> Self {
        let mut sums = Self::default();
        sums.0.iter_mut().zip(written).for_each(|(sum, value)| *sum = value);
        sums
    }
}

/// A second test that must speak too, with the evidence that it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AbsoluteFloor<'a> {
    pub(crate) test: &'a LimitTest,
    pub(crate) limit: f64,
}

impl Power {
    /// Takes in a batch of both arms, with the bases of the test: the primary's bad requests as they are, and the canary's
    /// rates without and with the regression. Bad requests come in bursts of `burst`.
    pub(crate) fn observe(&mut self, bases: &Bases, split: Split, burst: f64, base: f64, regressed: f64) {
        let canary = count(split.canary);
        let bad = count(split.primary_bad);
        let (slope, weight) = (canary / burst, bad / burst);
        let sums = self.per_canary.0.iter_mut().zip(&mut self.from_primary.0);
        for ((per_canary, from_primary), (a, b)) in sums.zip(bases.iter()) {
            *per_canary += slope * a;
            *from_primary += weight * b;
        }
        self.expected += canary * regressed;
        self.base += canary * base;
        self.canary += canary;
        self.bursts += canary * burst;
    }

    /// Returns the same with another rate under the regression, which is known better with time.
    pub(crate) fn expecting(&self, regressed: f64) -> Self {
        Self { expected: self.canary * regressed, ..*self }
    }

    /// Returns true if the test saw requests of both arms.
    pub(crate) fn is_ready(&self) -> bool {
        self.canary > 0.0
    }

    /// Returns true if the regression changes what the test counts.
    pub(crate) fn sees(&self) -> bool {
        self.expected >= 1.5 * self.base && self.expected > 0.0
    }

    /// Returns true if the regression would have been caught by now. `limit` is the evidence that decides.
    pub(crate) fn has_power(&self, weight: f64, limit: f64, floor: Option<AbsoluteFloor<'_>>) -> bool {
        self.canary > 0.0 && self.sees() && self.caught(1.0, weight, limit, floor) >= TARGET_POWER
    }

    /// Returns the factor by which the traffic would have to grow until the regression would have
    /// been caught: at most 1 if it would have been by now. Nothing if it would take for ever.
    pub(crate) fn requests_missing(&self, weight: f64, limit: f64, floor: Option<AbsoluteFloor<'_>>) -> Option<f64> {
        if self.canary <= 0.0 || !self.sees() {
            return None;
        }
        let enough = |grown: f64| self.caught(grown, weight, limit, floor) >= TARGET_POWER;
        if enough(1.0) {
            return Some(1.0);
        }
        let (mut low, mut high) = (1.0, 2.0);
        while !enough(high) {
            low = high;
            high *= 2.0;
            if high > MAX_Z {
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

    /// Returns the logarithm of evidence by alternative, with so many times the traffic.
    fn lines(&self, weight: f64, grown: f64) -> [Line; HARM_ALTERNATIVES] {
        core::array::from_fn(|place| {
            let of = |sums: &Sums| sums.0.get(place).copied().unwrap_or_default();
            Line { slope: of(&self.per_canary) / self.canary, at_zero: weight + grown * of(&self.from_primary) }
        })
    }

    /// Returns a lower bound of the chance that the regression would have been caught.
    fn caught(&self, grown: f64, weight: f64, limit: f64, floor: Option<AbsoluteFloor<'_>>) -> f64 {
        let canary = self.canary * grown;
        let relative = min_requests_for(limit, &self.lines(weight, grown));
        let absolute = floor.map_or(0.0, |floor| min_requests_for(floor.limit, &floor.test.first_copy(canary)));
        let wanted = relative.max(absolute);
        if wanted > canary {
            return 0.0;
        }
        // A burst happens or not as a whole.
        let burst = (self.bursts / self.canary).max(1.0);
        at_least(libm::ceil(wanted / burst), self.expected * grown / burst)
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
    use crate::analysis::sequential::RatioTest;

    #[test]
    fn poisson_tails_are_those_of_the_tables() {
        // P(X >= 3 | mean 5) and P(X >= 10 | mean 10).
        assert!((at_least(3.0, 5.0) - 0.875_348).abs() < 1e-6);
        assert!((at_least(10.0, 10.0) - 0.542_070).abs() < 1e-6);
        assert!((at_least(500.0, 500.5) - at_least(500.0, 499.9)).abs() < 0.03);
        assert!((at_least(0.0, 0.0) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_least_number_is_the_first_that_crosses() {
        let test = RatioTest::harm(1.25);
        let split = Split { canary_bad: 0, canary: 500, primary_bad: 95, primary: 9_500 };
        let mut power = Power::default();
        power.observe(&test.bases(split), split, 1.0, 0.01, 0.05);
        let weight = test.first_weight();
        let lines = power.lines(weight, 1.0);
        for limit in [1.0, 7.6, 20.0] {
            let found = min_requests_for(limit, &lines);
            let reaches = |bad: f64| {
                let evidence = lines.iter().map(|line| libm::exp(line.at_zero + bad * line.slope)).sum::<f64>();
                libm::log(evidence) >= limit
            };
            assert!(reaches(found) && !reaches(found - 1.0), "{limit}: {found}");
        }
        assert!(min_requests_for(1.0, &[Line { slope: 0.0, at_zero: 0.0 }]).is_infinite());
    }

    #[test]
    fn bursts_make_a_regression_harder_to_see() {
        let test = RatioTest::harm(1.25);
        let split = Split { canary_bad: 0, canary: 2_000, primary_bad: 380, primary: 38_000 };
        let missing = |burst| {
            let mut power = Power::default();
            power.observe(&test.bases(split), split, burst, 0.01, 0.05);
            power.requests_missing(test.first_weight(), 7.6, None).unwrap()
        };
        assert!((missing(1.0) - 1.0).abs() < 1e-9 && missing(9.0) > 1.5, "{} {}", missing(1.0), missing(9.0));
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
            power.observe(&test.bases(batch), batch, 1.0, 0.01, 0.05);
            let missing = power.requests_missing(test.first_weight(), 7.6, None).unwrap();
            assert!(missing <= last * 1.03);
            last = missing;
        }
        assert!((last - 1.0).abs() < f64::EPSILON);
    }
}
