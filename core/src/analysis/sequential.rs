//! Tests that may be looked at after every batch, for ever.
//!
//! Each is an e-process: a number that starts at one and whose expectation never exceeds one while
//! the null hypothesis holds, at whatever moment one stops (Ville's inequality then bounds the
//! chance that it ever reaches 1/α by α). All are kept as natural logarithms.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Alternatives of a harm test, as multiples of what is tolerated. They share their weight equally.
const HARM: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];

/// Alternatives of a safety test, as multiples of the margin.
const SAFE: [f64; 6] = [0.2, 0.35, 0.5, 0.65, 0.8, 0.9];

/// A fresh copy of a harm test starts so often: a fault that begins late owes nothing to the healthy
/// time before it.
pub const RESTART: Span = Span::from_secs(5);

/// Bad events among requests of both arms in one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// Bad events of the canary.
    pub canary_bad: u64,
    /// Requests of the canary.
    pub canary: u64,
    /// Bad events of the primary.
    pub primary_bad: u64,
    /// Requests of the primary.
    pub primary: u64,
}

/// Evidence on the ratio of two rates of bad events.
///
/// Given the bad events of a batch, the canary's share of them is at most
/// θ(r) = r·n_c / (r·n_c + n_p) if its rate is at most r times the primary's, whatever that rate is:
/// it may drift and the weights may change from batch to batch. A batch multiplies the evidence for
/// ratio r₁ against r₀ by (θ₁/θ₀)^x · ((1−θ₁)/(1−θ₀))^y, which is an e-value for the composite null
/// as long as requests within a batch are independent: with a and b for the two bases its mean is
/// Π(1+p_c(a−1))·Π(1+p_p(b−1)) ≤ exp(n_c·p_c(a−1) + n_p·p_p(b−1)), and at p_c = r₀·p_p the exponent
/// is zero (Lindon and Malek, arXiv 2011.03567, generalised to exposures).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioTest {
    tolerated: f64,
    ratios: Vec<f64>,
    mixture: Mixture,
}

impl RatioTest {
    /// Returns a test of "the canary's rate is at most `tolerated` times the primary's".
    pub fn harm(tolerated: f64) -> Self {
        Self {
            tolerated,
            ratios: HARM.iter().map(|ratio| ratio * tolerated).collect(),
            mixture: Mixture::restarting(HARM.len()),
        }
    }

    /// Returns a test of "the canary's rate is at least `margin` times the primary's": evidence
    /// against it is evidence that the canary is safe.
    pub fn safety(margin: f64) -> Self {
        Self {
            tolerated: margin,
            ratios: SAFE.iter().map(|ratio| ratio * margin).collect(),
            mixture: Mixture::single(SAFE.len()),
        }
    }

    /// Takes in a batch that lasted `span`. An arm without requests tells nothing.
    pub fn observe(&mut self, split: Split, span: Span) {
        if split.canary > 0 && split.primary > 0 {
            let factors: Vec<f64> =
                self.bases(split).map(|(a, b)| count(split.canary_bad) * a + count(split.primary_bad) * b).collect();
            self.mixture.multiply(&factors);
        }
        self.mixture.elapse(span);
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        self.mixture.evidence()
    }

    /// Returns, for each alternative, what one bad event of the canary and of the primary adds to
    /// its evidence at this split.
    pub(crate) fn bases(&self, split: Split) -> impl Iterator<Item = (f64, f64)> + '_ {
        let base = share(self.tolerated, split);
        self.ratios.iter().map(move |&ratio| {
            let alternative = share(ratio, split);
            (libm::log(alternative.canary / base.canary), libm::log(alternative.primary / base.primary))
        })
    }

    /// Returns ln of the weight that an alternative has in the first copy.
    pub(crate) fn first_weight(&self) -> f64 {
        -libm::log(2.0 * count_of(self.ratios.len()))
    }
}

/// Evidence that a rate of bad events lies above a limit, from one arm alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitTest {
    /// For each alternative, what a bad and a good request add to its evidence.
    bases: Vec<(f64, f64)>,
    mixture: Mixture,
}

impl LimitTest {
    /// Returns a test of "the rate is at most `limit`", for a limit between 0 and 1, both excluded.
    ///
    /// A batch multiplies the evidence for rate p₁ by (p₁/p₀)^x · ((1−p₁)/(1−p₀))^(n−x). Multiples of
    /// the limit that are no rates are replaced by points between the limit and one.
    pub fn above(limit: f64) -> Self {
        let limit = limit.clamp(1e-9, 0.999);
        let bases: Vec<_> = HARM
            .iter()
            .map(|multiple| {
                let rate = multiple * limit;
                let ceiling = 1.0 - (1.0 - limit) / (1.0 + multiple);
                let rate = if rate < ceiling { rate } else { ceiling };
                (libm::log(rate / limit), libm::log((1.0 - rate) / (1.0 - limit)))
            })
            .collect();
        Self { mixture: Mixture::restarting(bases.len()), bases }
    }

    /// Takes in a batch that lasted `span`.
    pub fn observe(&mut self, bad: u64, requests: u64, span: Span) {
        let good = requests.saturating_sub(bad);
        let factors: Vec<f64> = self.bases.iter().map(|&(a, b)| count(bad) * a + count(good) * b).collect();
        self.mixture.multiply(&factors);
        self.mixture.elapse(span);
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        self.mixture.evidence()
    }

    /// Returns ln E of the first copy if `bad` of `requests` were bad, whenever they were.
    pub(crate) fn first_copy(&self, bad: f64, requests: f64) -> f64 {
        let weight = -libm::log(2.0 * count_of(self.bases.len()));
        ln_sum(self.bases.iter().map(|&(a, b)| weight + bad * a + (requests - bad) * b))
    }
}

/// A weighted sum of evidence for several alternatives, restarted from time to time.
///
/// Copy k starts with weight 1/(k(k+1)); what is not spent yet, 1/(k+1), counts as it is. Since all
/// copies have the same alternatives, one sum per alternative is exact:
/// S_j ← (S_j + w_new) · factor_j (P22).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mixture {
    /// ln S_j.
    sums: Vec<f64>,
    /// Copies started; 0 for a mixture that never restarts.
    copies: u32,
    /// Judged time since the last copy started.
    age: Span,
}

impl Mixture {
    fn single(alternatives: usize) -> Self {
        Self { sums: alloc::vec![-libm::log(count_of(alternatives)); alternatives], copies: 0, age: Span::ZERO }
    }

    fn restarting(alternatives: usize) -> Self {
        Self { sums: alloc::vec![-libm::log(2.0 * count_of(alternatives)); alternatives], copies: 1, age: Span::ZERO }
    }

    fn multiply(&mut self, ln_factors: &[f64]) {
        for (sum, factor) in self.sums.iter_mut().zip(ln_factors) {
            *sum += factor;
        }
    }

    /// Starts a copy if it is time. The decision depends on the clock alone, so that the copies are
    /// fixed in advance.
    fn elapse(&mut self, span: Span) {
        if self.copies == 0 {
            return;
        }
        self.age = self.age.plus(span);
        if self.age < RESTART {
            return;
        }
        self.age = Span::ZERO;
        self.copies = self.copies.saturating_add(1);
        let k = f64::from(self.copies);
        let weight = -libm::log(k * (k + 1.0) * count_of(self.sums.len()));
        for sum in &mut self.sums {
            *sum = ln_add(*sum, weight);
        }
    }

    fn evidence(&self) -> f64 {
        let started = ln_sum(self.sums.iter().copied());
        if self.copies == 0 { started } else { ln_add(started, -libm::log(f64::from(self.copies) + 1.0)) }
    }
}

/// An interval for the ratio of two rates that holds at all times at once.
///
/// Every ratio of a grid is the null hypothesis of a test whose alternative is the equal mixture of
/// the others; the interval is what no test has ruled out. Outwards to the next grid point: the
/// interval is never shorter than it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioInterval {
    /// Log-likelihood of each ratio of the grid, without the parts that all have in common.
    likelihoods: Vec<f64>,
}

/// Points of the grid: 14 an octave, from 1/256 to 256.
const GRID: usize = 225;

impl Default for RatioInterval {
    fn default() -> Self {
        Self { likelihoods: alloc::vec![0.0; GRID] }
    }
}

impl RatioInterval {
    /// Takes in a batch.
    pub fn observe(&mut self, split: Split) {
        if split.canary == 0 || split.primary == 0 || split.canary_bad + split.primary_bad == 0 {
            return;
        }
        for (place, likelihood) in self.likelihoods.iter_mut().enumerate() {
            let theta = share(grid_ratio(place), split);
            *likelihood +=
                count(split.canary_bad) * libm::log(theta.canary) + count(split.primary_bad) * libm::log(theta.primary);
        }
    }

    /// Returns the interval that misses the true ratio with probability at most `alpha`; an end that
    /// the grid does not reach is not known.
    pub fn bounds(&self, alpha: f64) -> (Option<f64>, Option<f64>) {
        let mixed = ln_sum(self.likelihoods.iter().copied()) - libm::log(count_of(GRID));
        let limit = -libm::log(alpha);
        let inside = |likelihood: &f64| mixed - likelihood < limit;
        let low = self.likelihoods.iter().position(inside);
        let high = self.likelihoods.iter().rposition(inside);
        (
            low.and_then(|at| at.checked_sub(1)).map(grid_ratio),
            high.map(|at| at + 1).filter(|&at| at < GRID).map(grid_ratio),
        )
    }
}

fn grid_ratio(place: usize) -> f64 {
    libm::exp2(count_of(place) / 14.0 - 8.0)
}

/// Expected shares of bad events, for a ratio of their rates.
struct Share {
    canary: f64,
    primary: f64,
}

fn share(ratio: f64, split: Split) -> Share {
    let canary = ratio * count(split.canary);
    let primary = count(split.primary);
    Share { canary: canary / (canary + primary), primary: primary / (canary + primary) }
}

/// Returns ln(e^a + e^b).
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + libm::log1p(libm::exp(low - high)) }
}

/// Returns the logarithm of a sum whose terms are given by theirs.
pub(crate) fn ln_sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(f64::NEG_INFINITY, ln_add)
}

/// Returns a count as a float.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
pub(crate) const fn count(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "lengths of small tables")]
const fn count_of(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Span = Span::from_millis(200);

    fn binomial(n: u64, p: f64) -> Vec<f64> {
        let mut row = alloc::vec![1.0];
        for _ in 0..n {
            let mut next = alloc::vec![0.0; row.len() + 1];
            for (k, chance) in row.iter().enumerate() {
                next[k] += chance * (1.0 - p);
                next[k + 1] += chance * p;
            }
            row = next;
        }
        row
    }

    /// The mean of E after one batch, exactly, by going through all outcomes.
    fn mean(test: &RatioTest, canary: u64, primary: u64, p_canary: f64, p_primary: f64) -> f64 {
        let xs = binomial(canary, p_canary);
        let ys = binomial(primary, p_primary);
        let mut mean = 0.0;
        for (x, px) in xs.iter().enumerate() {
            for (y, py) in ys.iter().enumerate() {
                let mut test = test.clone();
                test.observe(Split { canary_bad: x as u64, canary, primary_bad: y as u64, primary }, TICK);
                mean += px * py * libm::exp(test.evidence());
            }
        }
        mean
    }

    #[test]
    fn under_the_null_the_mean_never_exceeds_one() {
        for (canary, primary) in [(1, 1), (1, 19), (5, 20), (10, 10), (20, 5)] {
            for p in [0.001, 0.01, 0.1, 0.4] {
                for r0 in [1.0, 1.25, 2.0_f64] {
                    let at = mean(&RatioTest::harm(r0), canary, primary, r0 * p, p);
                    assert!(at <= 1.0 + 1e-9, "harm {canary}/{primary} {p} {r0}: {at}");
                    let below = mean(&RatioTest::harm(r0), canary, primary, 0.5 * p, p);
                    assert!(below <= at + 1e-12);
                    let safe = mean(&RatioTest::safety(r0), canary, primary, r0 * p, p);
                    assert!(safe <= 1.0 + 1e-9, "safety {canary}/{primary} {p} {r0}: {safe}");
                }
            }
        }
    }

    #[test]
    fn a_limit_test_is_exactly_one_at_its_limit() {
        for limit in [0.001, 0.05, 0.5, 0.9] {
            for n in [1, 7, 30] {
                let mean: f64 = binomial(n, limit)
                    .iter()
                    .enumerate()
                    .map(|(x, chance)| {
                        let mut test = LimitTest::above(limit);
                        test.observe(x as u64, n, TICK);
                        chance * libm::exp(test.evidence())
                    })
                    .sum();
                assert!((mean - 1.0).abs() < 1e-9, "{limit} {n}: {mean}");
            }
        }
    }

    #[test]
    fn an_arm_without_requests_tells_nothing() {
        let mut test = RatioTest::harm(1.25);
        let before = test.evidence();
        test.observe(Split { canary_bad: 5, canary: 5, ..Split::default() }, TICK);
        assert!((test.evidence() - before).abs() < 1e-12);
    }

    #[test]
    fn the_interval_closes_in_on_the_ratio() {
        let mut interval = RatioInterval::default();
        assert_eq!(interval.bounds(0.05), (None, None));
        for _ in 0..200 {
            interval.observe(Split { canary_bad: 3, canary: 50, primary_bad: 10, primary: 500 });
        }
        let (low, high) = interval.bounds(0.05);
        let (low, high) = (low.unwrap(), high.unwrap());
        assert!(2.0 < low && low < 3.0 && 3.0 < high && high < 4.0, "{low} {high}");
    }

    #[test]
    fn a_clean_primary_bounds_the_ratio_from_below_only() {
        let mut interval = RatioInterval::default();
        interval.observe(Split { canary_bad: 40, canary: 50, primary_bad: 0, primary: 950 });
        let (low, high) = interval.bounds(0.05);
        assert!(low.is_some() && high.is_none());
    }

    fn batch() -> impl Strategy<Value = Split> {
        (0..40_u64, 0..400_u64).prop_flat_map(|(canary, primary)| {
            (0..=canary, 0..=primary).prop_map(move |(canary_bad, primary_bad)| Split {
                canary_bad,
                canary,
                primary_bad,
                primary,
            })
        })
    }

    proptest! {
        #[test]
        fn one_sum_equals_the_list_of_all_copies(batches in proptest::collection::vec(batch(), 1..120)) {
            let mut test = RatioTest::harm(1.25);
            for &split in &batches {
                test.observe(split, Span::from_secs(1));
            }
            // A copy starts before batches 0, 5, 10, …, and the last one may have seen nothing yet.
            let mut naive = f64::NEG_INFINITY;
            let mut k = 0.0;
            for start in (0..=batches.len()).step_by(5) {
                k += 1.0;
                for multiple in HARM {
                    let ell: f64 = batches[start..]
                        .iter()
                        .filter(|split| split.canary > 0 && split.primary > 0)
                        .map(|&split| {
                            let (one, null) = (share(multiple * 1.25, split), share(1.25, split));
                            count(split.canary_bad) * libm::log(one.canary / null.canary)
                                + count(split.primary_bad) * libm::log(one.primary / null.primary)
                        })
                        .sum();
                    naive = ln_add(naive, ell - libm::log(8.0 * k * (k + 1.0)));
                }
            }
            naive = ln_add(naive, -libm::log(k + 1.0));
            prop_assert!((naive - test.evidence()).abs() < 1e-6 * (1.0 + naive.abs()));
        }
    }
}
