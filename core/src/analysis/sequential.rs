//! Tests that may be looked at after every batch, for ever.
//!
//! Each is an e-process: a number that starts at one and whose expectation never exceeds one while
//! the null hypothesis holds, at whatever moment one stops (Ville's inequality then bounds the
//! chance that it ever reaches 1/α by α). All are kept as natural logarithms.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::convex::{Line, min_requests_for};
use crate::time::Span;

/// A fresh copy of a harm test starts so often, by the time in which there was something to test: a fault that begins late
/// owes nothing to the healthy time before it, and where there were no requests there is nothing to owe.
pub const RESTART: Span = Span::from_secs(5);

/// And so often where a good request takes nearly as much evidence away as a bad one gives: after a second in which all
/// was well, a fault would otherwise have to last a second before it weighs anything. More copies to choose from are
/// each a little lighter: the last one of a day needs eight failures more than with [`RESTART`].
const RESTART_SOON: Span = Span::from_millis(400);

/// From this limit on that is so.
const HIGH_LIMIT: f64 = 0.25;

/// A multiple of what is tolerated, with its natural logarithm.
#[derive(Debug, Clone, Copy)]
struct Multiple {
    ratio: f64,
    ln: f64,
}

const fn multiple(ratio: f64, ln: f64) -> Multiple {
    Multiple { ratio, ln }
}

/// Alternatives of a harm test. They share their weight equally.
const HARM: [Multiple; 8] = [
    multiple(1.25, 0.223_143_551_314_209_76),
    multiple(1.5, 0.405_465_108_108_164_4),
    multiple(2.0, core::f64::consts::LN_2),
    multiple(3.0, 1.098_612_288_668_109_8),
    multiple(5.0, 1.609_437_912_434_100_3),
    multiple(10.0, core::f64::consts::LN_10),
    multiple(30.0, 3.401_197_381_662_155_5),
    multiple(100.0, 4.605_170_185_988_092),
];

/// How many they are.
pub(crate) const HARM_ALTERNATIVES: usize = HARM.len();

/// Alternatives of a safety test, as multiples of the margin.
const SAFE: [Multiple; 6] = [
    multiple(0.2, -1.609_437_912_434_100_3),
    multiple(0.35, -1.049_822_124_498_677_7),
    multiple(0.5, -core::f64::consts::LN_2),
    multiple(0.65, -0.430_782_916_092_454_2),
    multiple(0.8, -0.223_143_551_314_209_7),
    multiple(0.9, -0.105_360_515_657_826_28),
];

/// Alternatives of a test that sees nothing but the outright: one rate is so many times as high as is tolerated.
const OUTRIGHT: [Multiple; 2] = [multiple(3.0, 1.098_612_288_668_109_8), multiple(100.0, 4.605_170_185_988_092)];

/// Bad events among requests of both arms in one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl Split {
    /// Returns both batches together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            canary_bad: self.canary_bad.saturating_add(other.canary_bad),
            canary: self.canary.saturating_add(other.canary),
            primary_bad: self.primary_bad.saturating_add(other.primary_bad),
            primary: self.primary.saturating_add(other.primary),
        }
    }

    /// Returns true if both arms had requests: a batch of one arm says nothing about their ratio.
    pub(crate) const fn compares(self) -> bool {
        self.canary > 0 && self.primary > 0
    }

    const fn is_clean(self) -> bool {
        self.canary_bad == 0 && self.primary_bad == 0
    }
}

/// What a ratio test looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Side {
    /// Ratios above what is tolerated.
    Harm,
    /// Ratios below the margin.
    Safety,
    /// Ratios far above what is tolerated.
    Outright,
}

impl Side {
    const fn alternatives(self) -> &'static [Multiple] {
        match self {
            Self::Harm => &HARM,
            Self::Safety => &SAFE,
            Self::Outright => &OUTRIGHT,
        }
    }
}

/// What one bad event of the canary and of the primary adds to the evidence for each alternative: ln(θ₁/θ₀) and
/// ln((1−θ₁)/(1−θ₀)).
///
/// They depend on a test's tolerance and on how many requests the arms had, and take a logarithm each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bases {
    each: [(f64, f64); HARM.len()],
    tolerated: f64,
    side: Side,
    /// Requests of the canary and of the primary.
    requests: (u64, u64),
}

impl Bases {
    fn of(tolerated: f64, side: Side, split: Split) -> Self {
        let (canary, primary) = (count(split.canary), count(split.primary));
        let null = libm::log(tolerated * canary + primary);
        let mut each = [(0.0, 0.0); HARM.len()];
        for (bases, multiple) in each.iter_mut().zip(side.alternatives()) {
            let shared = null - libm::log(multiple.ratio * tolerated * canary + primary);
            *bases = (multiple.ln + shared, shared);
        }
        Self { each, tolerated, side, requests: (split.canary, split.primary) }
    }

    /// Returns them in the order of the alternatives.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.each.iter().copied().take(self.side.alternatives().len())
    }
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
///
/// Bad events that come in bursts are not independent. A burst of φ events counts as one if the batch's evidence is
/// divided by φ: by Jensen's inequality E(LR)^(1/φ) ≤ (E LR)^(1/φ) ≤ 1 where every burst has φ events (see
/// [`Dispersion`](super::dispersion::Dispersion)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioTest {
    tolerated: f64,
    side: Side,
    mixture: Mixture,
}

impl RatioTest {
    /// Returns a test of "the canary's rate is at most `tolerated` times the primary's".
    pub fn harm(tolerated: f64) -> Self {
        Self { tolerated, side: Side::Harm, mixture: Mixture::restarting(HARM.len(), RESTART) }
    }

    /// The same, for one that also looks at the canary alone: see [`RatioTest::observe_single`].
    pub(crate) fn harm_or_single(tolerated: f64) -> Self {
        Self { mixture: Mixture::restarting(HARM.len(), RESTART_SOON), ..Self::harm(tolerated) }
    }

    /// The same with few alternatives, which cost less: it finds what is so plain that they differ little.
    pub(crate) fn outright(tolerated: f64) -> Self {
        let mixture = Mixture::restarting(OUTRIGHT.len(), RESTART_SOON);
        Self { tolerated, side: Side::Outright, mixture }
    }

    /// Returns a test of "the canary's rate is at least `margin` times the primary's": evidence
    /// against it is evidence that the canary is safe.
    pub fn safety(margin: f64) -> Self {
        Self { tolerated: margin, side: Side::Safety, mixture: Mixture::single(SAFE.len()) }
    }

    /// Takes in a batch that lasted `span`, of independent requests. An arm without requests tells nothing.
    pub fn observe(&mut self, split: Split, span: Span) {
        self.observe_in_bursts(split, 1.0, span);
    }

    /// Takes in a batch whose bad events come in bursts of `burst`, at least 1.
    pub fn observe_in_bursts(&mut self, split: Split, burst: f64, span: Span) {
        let speaks = split.compares() && !split.is_clean();
        let bases = speaks.then(|| self.bases(split));
        self.observe_by(bases.as_ref(), split, burst, span);
    }

    /// The same of independent requests, where another test may have looked at them with bases that fit.
    pub(crate) fn observe_cached(&mut self, split: Split, span: Span, last: &mut Option<Bases>) {
        let speaks = split.compares() && !split.is_clean();
        let bases = speaks.then(|| self.bases_cached(split, last));
        self.observe_by(bases.as_ref(), split, 1.0, span);
    }

    /// The same where the bases of the batch are known; nothing stands for a batch that does not compare.
    pub(crate) fn observe_by(&mut self, bases: Option<&Bases>, split: Split, burst: f64, span: Span) {
        if let Some(bases) = bases.filter(|_| !split.is_clean()) {
            let (x, y) = (count(split.canary_bad) / burst, count(split.primary_bad) / burst);
            self.mixture.multiply(bases.iter().map(|(a, b)| x * a + y * b));
        }
        if split.compares() {
            self.mixture.elapse(span);
        }
    }

    /// Takes in a batch of the canary alone: its rate of bad events is held against `limit` instead. Whether the primary had
    /// requests is no outcome, so that both kinds of batches make one e-process.
    pub(crate) fn observe_single(&mut self, bad: u64, requests: u64, limit: f64, burst: f64, span: Span) {
        let (bad, good) = (count(bad) / burst, count(requests.saturating_sub(bad)) / burst);
        if bad > 0.0 || good > 0.0 {
            self.mixture.multiply(rates(limit).into_iter().map(|(a, b)| bad * a + good * b));
            self.mixture.elapse(span);
        }
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        self.mixture.evidence()
    }

    /// Returns the smaller of both ln E: that of another test on the same requests, and this one.
    pub(crate) fn evidence_with(&self, floor: &LimitTest) -> f64 {
        let ((least, most), (least_of_floor, most_of_floor)) = (self.mixture.bounds(), floor.mixture.bounds());
        if most < least_of_floor {
            self.evidence()
        } else if most_of_floor < least {
            floor.evidence()
        } else {
            self.evidence().min(floor.evidence())
        }
    }

    /// Returns true if ln E is above this for certain.
    pub(crate) fn is_above(&self, evidence: f64) -> bool {
        self.mixture.bounds().0 > evidence
    }

    /// Returns what bad events add at this split.
    pub(crate) fn bases(&self, split: Split) -> Bases {
        Bases::of(self.tolerated, self.side, split)
    }

    /// Returns the same, from what was reckoned last where that fits: several tests look at the same requests.
    pub(crate) fn bases_cached(&self, split: Split, last: &mut Option<Bases>) -> Bases {
        let requests = (split.canary, split.primary);
        let fits = |last: &&Bases| {
            last.tolerated.to_bits() == self.tolerated.to_bits() && last.side == self.side && last.requests == requests
        };
        match last.as_ref().filter(fits) {
            Some(bases) => *bases,
            None => *last.insert(self.bases(split)),
        }
    }

    /// Returns ln of the weight that an alternative has in the first copy.
    pub(crate) fn first_weight(&self) -> f64 {
        -libm::log(2.0 * count_of(self.side.alternatives().len()))
    }
}

/// Evidence that a rate of bad events lies above a limit, from one arm alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenLimit", into = "WrittenLimit")]
pub struct LimitTest {
    limit: f64,
    /// What a bad and a good request add to the evidence for each alternative: 16 logarithms of the limit alone.
    rates: [(f64, f64); HARM.len()],
    mixture: Mixture,
}

/// A [`LimitTest`] as it is written down.
#[derive(Serialize, Deserialize)]
struct WrittenLimit {
    limit: f64,
    mixture: Mixture,
}

impl From<WrittenLimit> for LimitTest {
    fn from(WrittenLimit { limit, mixture }: WrittenLimit) -> Self {
        Self { limit, rates: rates(limit), mixture }
    }
}

impl From<LimitTest> for WrittenLimit {
    fn from(test: LimitTest) -> Self {
        Self { limit: test.limit, mixture: test.mixture }
    }
}

impl LimitTest {
    /// Returns a test of "the rate is at most `limit`", for a limit between 0 and 1, both excluded.
    ///
    /// A batch multiplies the evidence for rate p₁ by (p₁/p₀)^x · ((1−p₁)/(1−p₀))^(n−x). Multiples of
    /// the limit that are no rates are replaced by points between the limit and one.
    pub fn above(limit: f64) -> Self {
        let restart = if limit < HIGH_LIMIT { RESTART } else { RESTART_SOON };
        WrittenLimit { limit: limit.clamp(1e-9, 0.999), mixture: Mixture::restarting(HARM.len(), restart) }.into()
    }

    /// Takes in a batch that lasted `span`, of independent requests.
    pub fn observe(&mut self, bad: u64, requests: u64, span: Span) {
        self.observe_in_bursts(bad, requests, 1.0, span);
    }

    /// Takes in a batch whose bad events come in bursts of `burst`, at least 1.
    pub(crate) fn observe_in_bursts(&mut self, bad: u64, requests: u64, burst: f64, span: Span) {
        let good = count(requests.saturating_sub(bad)) / burst;
        if requests > 0 {
            let bad = count(bad) / burst;
            self.mixture.multiply(self.rates.into_iter().map(|(a, b)| bad * a + good * b));
            self.mixture.elapse(span);
        }
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        self.mixture.evidence()
    }

    /// Returns true if ln E is at least this.
    pub(crate) fn reaches(&self, evidence: f64) -> bool {
        self.mixture.bounds().1 >= evidence && self.evidence() >= evidence
    }

    /// Returns, for each alternative, ln E of the first copy as bad requests come in, of so many in all.
    pub(crate) fn first_copy(&self, requests: f64) -> [Line; HARM.len()] {
        let weight = -libm::log(2.0 * count_of(HARM.len()));
        self.rates.map(|(a, b)| Line { slope: a - b, at_zero: weight + requests * b })
    }

    /// Returns after how many requests, all of them bad, the first copy reaches `evidence`.
    pub(crate) fn failures_until(&self, evidence: f64) -> f64 {
        let weight = -libm::log(2.0 * count_of(HARM.len()));
        min_requests_for(evidence, &self.rates.map(|(a, _)| Line { slope: a, at_zero: weight }))
    }
}

/// Returns, for every alternative to a limit, what a bad and a good request add to its evidence.
fn rates(limit: f64) -> [(f64, f64); HARM.len()] {
    HARM.map(|multiple| {
        let rate = multiple.ratio * limit;
        let ceiling = 1.0 - (1.0 - limit) / (1.0 + multiple.ratio);
        let rate = if rate < ceiling { rate } else { ceiling };
        (libm::log(rate / limit), libm::log((1.0 - rate) / (1.0 - limit)))
    })
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
    /// Judged time between two copies.
    #[serde(default = "restart")]
    restart: Span,
}

const fn restart() -> Span {
    RESTART
}

impl Mixture {
    fn single(alternatives: usize) -> Self {
        Self {
            sums: alloc::vec![-libm::log(count_of(alternatives)); alternatives],
            copies: 0,
            age: Span::ZERO,
            restart: RESTART,
        }
    }

    fn restarting(alternatives: usize, restart: Span) -> Self {
        let sums = alloc::vec![-libm::log(2.0 * count_of(alternatives)); alternatives];
        Self { sums, copies: 1, age: Span::ZERO, restart }
    }

    fn multiply(&mut self, ln_factors: impl Iterator<Item = f64>) {
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
        if self.age < self.restart {
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
        let unspent = (self.copies > 0).then(|| self.unspent());
        ln_sum_of_many(self.sums.iter().copied().chain(unspent))
    }

    /// Returns what the evidence lies between, with room for rounding: for a tenth of its cost.
    fn bounds(&self) -> (f64, f64) {
        let terms = count_of(self.sums.len());
        let unspent = if self.copies == 0 { f64::NEG_INFINITY } else { self.unspent() };
        let highest = self.sums.iter().copied().fold(unspent, f64::max);
        let lowest = self.sums.iter().copied().fold(f64::INFINITY, f64::min);
        let room = 1e-9 * (1.0 + highest.abs());
        (highest.max(lowest + libm::log(terms)) - room, highest + libm::log(terms + 1.0) + room)
    }

    /// Returns ln of the weight of copies that have not started.
    fn unspent(&self) -> f64 {
        -libm::log(f64::from(self.copies) + 1.0)
    }
}

/// What is smaller by so much is below the last digit, as a natural logarithm.
const NO_EVIDENCE: f64 = -40.0;

/// Returns ln(e^a + e^b).
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low < high + NO_EVIDENCE || high == f64::NEG_INFINITY { high } else { high + libm::log1p(libm::exp(low - high)) }
}

/// Returns the logarithm of a sum whose terms are given by theirs.
pub(crate) fn ln_sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(f64::NEG_INFINITY, ln_add)
}

/// The same for many terms that are there already: it goes through them twice, and takes one logarithm.
pub(crate) fn ln_sum_of_many(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let highest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if highest.is_infinite() {
        return highest;
    }
    let sum: f64 = terms.map(|term| term - highest).filter(|below| *below > NO_EVIDENCE).map(libm::exp).sum();
    highest + libm::log(sum)
}

/// Returns a count as a float.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
pub(crate) const fn count(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "lengths of small tables")]
pub(crate) const fn count_of(n: usize) -> f64 {
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

    /// The canary's share of bad events, by its definition.
    fn share(ratio: f64, split: Split) -> f64 {
        let canary = ratio * count(split.canary);
        canary / (canary + count(split.primary))
    }

    #[test]
    fn logarithms_of_the_tables_are_right() {
        for multiple in HARM.iter().chain(&SAFE) {
            assert!((libm::log(multiple.ratio) - multiple.ln).abs() < 1e-15, "{multiple:?}");
        }
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
            // A copy starts before batches 0, 5, 10, … of those that compare, and the last one may have seen nothing yet.
            let batches: Vec<Split> = batches.into_iter().filter(|split| split.compares()).collect();
            let mut naive = f64::NEG_INFINITY;
            let mut k = 0.0;
            for start in (0..=batches.len()).step_by(5) {
                k += 1.0;
                for multiple in HARM {
                    let ell: f64 = batches[start..]
                        .iter()
                        .map(|&split| {
                            let (one, null) = (share(multiple.ratio * 1.25, split), share(1.25, split));
                            count(split.canary_bad) * libm::log(one / null)
                                + count(split.primary_bad) * libm::log((1.0 - one) / (1.0 - null))
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
