//! An interval for the ratio of two rates that holds at all times at once.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::sequential::{Split, count, count_of, ln_sum_of_many};
use crate::time::Span;

/// Points of the grid: 14 an octave, from 1/256 to 256.
const GRID: usize = 225;

/// Batches are added up to this length before the grid looks at them: 225 likelihoods a batch would cost more than the
/// verdict, and how batches are cut has no part in what the interval claims.
const BATCH_SPAN: Span = Span::from_secs(5);

/// The interval, shown to people beside every verdict.
///
/// Every ratio of a grid is the null hypothesis of a test whose alternative is the equal mixture of
/// the others; the interval is what no test has ruled out. Outwards to the next grid point: the
/// interval is never shorter than it may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RatioInterval {
    /// Log-likelihood of each ratio of the grid, without the parts that all have in common. Empty as long as there was
    /// no bad event.
    likelihoods: Vec<f64>,
    /// What came since the grid looked last.
    pending: Split,
    age: Span,
}

impl RatioInterval {
    /// Takes in a batch that lasted `span`.
    pub fn observe(&mut self, split: Split, span: Span) {
        if split.canary > 0 && split.primary > 0 {
            self.pending = self.pending.plus(split);
        }
        self.age = self.age.plus(span);
        if self.age >= BATCH_SPAN {
            self.settle();
        }
    }

    /// Lets the grid look at what waits: before the arms' shares change, or they would be mixed up.
    pub fn settle(&mut self) {
        self.age = Span::ZERO;
        let pending = core::mem::take(&mut self.pending);
        weigh(&mut self.likelihoods, pending);
    }

    /// Returns the interval that misses the true ratio with probability at most `alpha`; an end that
    /// the grid does not reach is not known.
    pub fn bounds(&self, alpha: f64) -> (Option<f64>, Option<f64>) {
        let mut likelihoods = self.likelihoods.clone();
        weigh(&mut likelihoods, self.pending);
        let mixed = ln_sum_of_many(likelihoods.iter().copied()) - libm::log(count_of(GRID));
        let limit = -libm::log(alpha);
        let inside = |likelihood: &f64| mixed - likelihood < limit;
        let low = likelihoods.iter().position(inside);
        let high = likelihoods.iter().rposition(inside);
        (
            low.and_then(|at| at.checked_sub(1)).map(ratio_at),
            high.map(|at| at + 1).filter(|&at| at < GRID).map(ratio_at),
        )
    }
}

fn weigh(likelihoods: &mut Vec<f64>, split: Split) {
    let (bad, other) = (count(split.canary_bad), count(split.primary_bad));
    if bad + other <= 0.0 {
        return;
    }
    likelihoods.resize(GRID, 0.0);
    let (canary, primary) = (count(split.canary), count(split.primary));
    for (place, likelihood) in likelihoods.iter_mut().enumerate() {
        // ln θ and ln (1 − θ) of Binomial(x + y, θ), but for terms that do not depend on the ratio.
        let ratio = known(&RATIOS, place, || ratio_at(place));
        let ln = known(&LOGARITHMS, place, || libm::log(ratio));
        *likelihood += bad * ln - (bad + other) * libm::log(ratio * canary + primary);
    }
}

/// The grid's ratios, once they are known: constants that no `const fn` can compute, and that would take most of the time. As
/// bits, 0 where they are not known yet. Whoever comes first writes what everybody else would.
static RATIOS: [AtomicU64; GRID] = [const { AtomicU64::new(0) }; GRID];
/// Their natural logarithms, in the same way.
static LOGARITHMS: [AtomicU64; GRID] = [const { AtomicU64::new(0) }; GRID];

fn known(table: &[AtomicU64; GRID], place: usize, reckon: impl Fn() -> f64) -> f64 {
    let Some(held) = table.get(place) else { return reckon() };
    match held.load(Relaxed) {
        0 => {
            let value = reckon();
            held.store(value.to_bits(), Relaxed);
            value
        }
        bits => f64::from_bits(bits),
    }
}

fn ratio_at(place: usize) -> f64 {
    libm::exp2(count_of(place) / 14.0 - 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Span = Span::from_millis(200);

    #[test]
    fn it_closes_in_on_the_ratio() {
        let mut interval = RatioInterval::default();
        assert_eq!(interval.bounds(0.05), (None, None));
        for _ in 0..200 {
            interval.observe(Split { canary_bad: 3, canary: 50, primary_bad: 10, primary: 500 }, TICK);
        }
        let (low, high) = interval.bounds(0.05);
        let (low, high) = (low.unwrap(), high.unwrap());
        assert!(2.0 < low && low < 3.0 && 3.0 < high && high < 4.0, "{low} {high}");
    }

    #[test]
    fn a_clean_primary_bounds_the_ratio_from_below_only() {
        let mut interval = RatioInterval::default();
        interval.observe(Split { canary_bad: 40, canary: 50, primary_bad: 0, primary: 950 }, TICK);
        let (low, high) = interval.bounds(0.05);
        assert!(low.is_some() && high.is_none());
    }

    #[test]
    fn what_waits_for_the_grid_is_in_the_bounds() {
        let split = Split { canary_bad: 3, canary: 50, primary_bad: 10, primary: 500 };
        let (mut early, mut late) = (RatioInterval::default(), RatioInterval::default());
        early.observe(split, BATCH_SPAN);
        late.observe(split, TICK);
        assert_eq!(early.bounds(0.05), late.bounds(0.05));
    }
}
