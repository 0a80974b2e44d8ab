//! How bursty bad events are: learnt from the primary, applied to both arms.
//!
//! A client that retries, one bad connection or one slow garbage collection makes many bad events of one cause. Tests
//! that take each for independent then find harm where there is none: with bursts of mean 5, a test at 1 % errs in half
//! of all rollouts. Dividing evidence by φ, the ratio of the variance of counts to their mean, mends that: a burst
//! counts about once. φ is 1 for independent events, and 2m − 1 for bursts of geometric length with mean m.

use serde::{Deserialize, Serialize};

use super::sequential::count;
use crate::time::Span;

/// Lengths over which events are counted: a short one learns soon, a long one sees long bursts.
const LENGTHS: [Span; 2] = [Span::from_millis(200), Span::from_secs(1)];

/// Independent pairs that are imagined at the start, each worth one event.
const PRIOR: f64 = 2.0;

/// Bursts are believed in when the estimate is so many standard errors above 1: guarding against bursts that are not
/// there would cost a third of the speed.
const CERTAIN: f64 = 2.0;

/// Then the estimate is raised by so many standard errors: erring upwards costs time, erring downwards rollbacks.
const CAUTION: f64 = 1.0;

/// Bursts longer than this are no bursts but an outage, which is to be seen.
const MOST: f64 = 50.0;

/// The dispersion of one kind of bad event at the primary.
///
/// Neighbouring stretches of time are compared with each other, two by two: given their m bad events together, the
/// first holds a binomial number of them, and the square of its standardised deviation, X², has mean 1 if events are
/// independent and φ if they come in bursts. A load that rises and falls over many stretches cancels out. The estimate
/// is Σ m·X² / Σ m, which for rare bursts is their size as a bad event sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    scales: [Scale; LENGTHS.len()],
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Scale {
    age: Span,
    current: Stretch,
    before: Option<Stretch>,
    /// Σ m, Σ m·X², Σ m², Σ m²·X², Σ m²·X⁴ over pairs.
    sums: [f64; 5],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Stretch {
    bad: u64,
    all: u64,
}

impl Dispersion {
    /// Takes in what the primary did in a batch that lasted `span`.
    pub fn observe(&mut self, bad: u64, all: u64, span: Span) {
        for (scale, length) in self.scales.iter_mut().zip(LENGTHS) {
            scale.observe(bad, all, span, length);
        }
    }

    /// Returns φ, at least 1. It depends on the past alone, so that evidence of the next batch may be divided by it.
    pub fn factor(&self) -> f64 {
        let highest = self.scales.iter().map(Scale::estimate).fold(1.0, f64::max);
        highest.min(MOST)
    }
}

impl Scale {
    fn observe(&mut self, bad: u64, all: u64, span: Span, length: Span) {
        self.current.bad = self.current.bad.saturating_add(bad);
        self.current.all = self.current.all.saturating_add(all);
        self.age = self.age.plus(span);
        if self.age < length {
            return;
        }
        self.age = Span::ZERO;
        let current = core::mem::take(&mut self.current);
        if let Some(before) = self.before.replace(current) {
            self.compare(before, current);
        }
    }

    fn compare(&mut self, a: Stretch, b: Stretch) {
        let (all, bad) = (count(a.all) + count(b.all), count(a.bad) + count(b.bad));
        if a.all == 0 || b.all == 0 || bad <= 0.0 {
            return;
        }
        let share = count(a.all) / all;
        // Requests are either bad or not: where most are bad, counts vary less than their mean.
        let room = (1.0 - bad / all).max(1e-3);
        let deviation = count(a.bad) - bad * share;
        let square = deviation * deviation / (bad * share * (1.0 - share) * room);
        let [m, mx, mm, mmx, mmxx] = &mut self.sums;
        *m += bad;
        *mx += bad * square;
        *mm += bad * bad;
        *mmx += bad * bad * square;
        *mmxx += bad * bad * square * square;
    }

    /// Returns the estimate with its caution, or 1. Its standard error comes from how much the pairs differ: single
    /// events all have X² = 1, and leave no doubt.
    fn estimate(&self) -> f64 {
        let [m, mx, mm, mmx, mmxx] = self.sums;
        let weight = m + PRIOR;
        let phi = (mx + PRIOR) / weight;
        let variance = mmxx - 2.0 * phi * mmx + phi * phi * mm;
        let error = libm::sqrt(variance.max(0.0)) / weight;
        if phi - CERTAIN * error > 1.0 { phi + CAUTION * error } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator for tests (Knuth's MMIX), good enough for coins.
    struct Coins(u64);

    impl Coins {
        fn below(&mut self, share: f64) -> bool {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(self.0 >> 32).unwrap()) < share * f64::from(u32::MAX)
        }
    }

    /// The factor after so many windows of 200 requests, where bursts of geometric length begin at this rate.
    fn learnt(windows: u64, rate: f64, mean: f64) -> f64 {
        let mut coins = Coins(7);
        let mut dispersion = Dispersion::default();
        for _ in 0..windows {
            let mut bad = 0;
            for _ in 0..200 {
                if coins.below(rate / mean) {
                    bad += 1;
                    while coins.below(1.0 - 1.0 / mean) {
                        bad += 1;
                    }
                }
            }
            dispersion.observe(bad.min(200), 200, Span::from_millis(200));
        }
        dispersion.factor()
    }

    #[test]
    fn independent_events_have_none() {
        for rate in [0.001, 0.01, 0.1, 0.5] {
            let factor = learnt(5_000, rate, 1.0);
            assert!((1.0..1.15).contains(&factor), "{rate}: {factor}");
        }
        assert!((Dispersion::default().factor() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bursts_show_as_twice_their_mean_less_one() {
        for (mean, expected) in [(2.0, 3.0), (5.0, 9.0), (10.0, 19.0)] {
            let factor = learnt(20_000, 0.01, mean);
            assert!((0.9 * expected..1.2 * expected).contains(&factor), "mean {mean}: {factor}");
        }
    }

    #[test]
    fn a_load_that_rises_and_falls_slowly_is_no_burst() {
        let mut coins = Coins(11);
        let mut dispersion = Dispersion::default();
        for window in 0..5_000_u32 {
            let wave = 0.02 * (1.0 + 0.9 * libm::sin(f64::from(window) / 50.0));
            let bad = (0..200).filter(|_| coins.below(wave)).count();
            dispersion.observe(bad as u64, 200, Span::from_millis(200));
        }
        assert!(dispersion.factor() < 1.2, "{}", dispersion.factor());
    }
}
