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

/// The largest φ. Bursts that are longer count as more than one event; beyond it, a canary that fails five times as often
/// would be tolerated for minutes because of what the primary did before.
const MAX_FACTOR: f64 = 8.0;

/// After so long, what was learnt counts half: a primary whose bursts have ended is believed within minutes.
const HALF_LIFE: Span = Span::from_secs(60);

/// From this X² on, a pair of stretches is looked at beside its neighbours: it may be the edge of an outage. Independent
/// events exceed it once in 370 pairs.
const SHIFT: f64 = 9.0;

/// The other stretch shows an outage if it is on the side of its neighbour by this share of the edge.
const STAYS: f64 = 0.5;

/// One pair says at most so much: what is larger is no other burst, and would be remembered for many half-lives.
const MAX_BURST: f64 = 32.0;

/// The dispersion of one kind of bad event at the primary.
///
/// Neighbouring stretches of time are compared with each other, two by two: given their m bad events together, the
/// first holds a binomial number of them, and the square of its standardised deviation, X², has mean 1 if events are
/// independent and φ if they come in bursts. A load that rises and falls over many stretches cancels out. The estimate
/// is Σ m·X² / Σ m, which for rare bursts is their size as a bad event sees it.
///
/// An outage is no burst: it hits both arms alike. It shows as a rate that changes and stays: a pair whose higher stretch
/// has a high one on its other side too, or whose lower one has a still lower one, is the edge of one, and says nothing.
/// So a pair waits for the stretch after it. An outage of less than two stretches, two seconds, may count as a burst.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    scales: [Scale; LENGTHS.len()],
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Scale {
    age: Span,
    current: Stretch,
    /// The last three, the latest last; without requests where there are not so many.
    #[serde(default)]
    last: [Stretch; 3],
    /// Σ m, Σ m·X², Σ m², Σ m²·X², Σ m²·X⁴ over pairs, older ones with less weight.
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
        highest.min(MAX_FACTOR)
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
        let age = core::mem::take(&mut self.age);
        self.fade(age);
        let next = core::mem::take(&mut self.current);
        let [before, a, b] = self.last;
        self.last = [a, b, next];
        self.compare(before, (a, b), next);
    }

    /// Weights halve with every half-life, and their squares twice.
    fn fade(&mut self, age: Span) {
        let left = libm::exp2(-age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let [m, mx, mm, mmx, mmxx] = &mut self.sums;
        for sum in [m, mx] {
            *sum *= left;
        }
        for sum in [mm, mmx, mmxx] {
            *sum *= left * left;
        }
    }

    /// Compares two stretches that follow each other, with what was before them and what came after.
    fn compare(&mut self, before: Stretch, (a, b): (Stretch, Stretch), after: Stretch) {
        let (all, bad) = (count(a.all) + count(b.all), count(a.bad) + count(b.bad));
        if a.all == 0 || b.all == 0 || bad <= 0.0 {
            return;
        }
        let share = count(a.all) / all;
        // Requests are either bad or not: where most are bad, counts vary less than their mean.
        let room = (1.0 - bad / all).max(1e-3);
        let deviation = count(a.bad) - bad * share;
        let square = deviation * deviation / (bad * share * (1.0 - share) * room);
        if square > SHIFT && is_edge(before, (a, b), after) {
            return;
        }
        let square = square.min(MAX_BURST);
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

impl Stretch {
    fn rate(self) -> Option<f64> {
        (self.all > 0).then(|| count(self.bad) / count(self.all))
    }
}

/// Returns true if a rate rises or falls between two stretches for longer than one of them.
fn is_edge(before: Stretch, (a, b): (Stretch, Stretch), after: Stretch) -> bool {
    let (Some(first), Some(second)) = (a.rate(), b.rate()) else { return false };
    let (before, after) = (before.rate(), after.rate());
    let (low, high, beside_low, beside_high) =
        if first < second { (first, second, before, after) } else { (second, first, after, before) };
    let part = STAYS * (high - low);
    beside_high.is_some_and(|rate| rate - low >= part) || beside_low.is_some_and(|rate| low - rate >= part)
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
        for (mean, expected) in [(2.0, 3.0), (3.0, 5.0), (5.0, 8.0), (10.0, 8.0)] {
            let factor = learnt(20_000, 0.01, mean);
            assert!((0.9 * expected..1.35 * expected).contains(&factor), "mean {mean}: {factor}");
        }
    }

    /// The factors of ten minutes, by second, where the primary fails at this rate in outages of so many seconds.
    fn in_outages(windows: u64, (length, every, rate): (u64, u64, f64)) -> alloc::vec::Vec<f64> {
        let (mut coins, mut dispersion, mut left) = (Coins(windows), Dispersion::default(), 0);
        let mut factors = alloc::vec::Vec::new();
        for window in 0..3_000 {
            if coins.below(1.0 / count(5 * every)) {
                left = 5 * length;
            }
            let rate = if left > 0 { rate } else { 0.01 };
            left = left.saturating_sub(1);
            let bad = (0..windows).filter(|_| coins.below(rate)).count();
            dispersion.observe(bad as u64, windows, Span::from_millis(200));
            if window % 5 == 0 {
                factors.push(dispersion.factor());
            }
        }
        factors
    }

    /// One second in ten may look like a burst, where two outages meet.
    #[test]
    fn an_outage_of_seconds_is_no_burst() {
        for requests in [20, 190] {
            for outage in [(3, 60, 0.5), (5, 30, 0.1), (2, 20, 1.0)] {
                let mut factors = in_outages(requests, outage);
                factors.sort_unstable_by(f64::total_cmp);
                let late = factors[factors.len() * 9 / 10];
                assert!(late <= 3.0, "{requests} {outage:?}: {late}");
            }
        }
    }

    #[test]
    fn bursts_that_have_ended_are_forgotten() {
        let mut coins = Coins(3);
        let mut dispersion = Dispersion::default();
        for window in 0..600 {
            let bad = if window % 5 == 0 { 40 } else { 0 };
            dispersion.observe(bad, 200, Span::from_millis(200));
        }
        assert!(dispersion.factor() > 7.0, "{}", dispersion.factor());
        for _ in 0..2_400 {
            let bad = (0..200).filter(|_| coins.below(0.01)).count();
            dispersion.observe(bad as u64, 200, Span::from_millis(200));
        }
        assert!(dispersion.factor() < 3.0, "{}", dispersion.factor());
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
