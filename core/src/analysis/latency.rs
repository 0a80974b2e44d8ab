//! Whether the canary is slower, at several quantiles at once.
//!
//! Before each batch a threshold τ is set to the primary's quantile so far; the batch then counts
//! how many canary requests take longer than τ with tolerance, and how many primary requests take
//! longer than τ. That is an error test with ratio 1. It is valid since τ was fixed before the
//! batch, and a load that slows both arms cancels out.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::closed_cohorts::Closed;
use super::power::Power;
use super::rate_comparison::RateComparison;
use super::sequential::{RatioTest, Split, count, ln_sum};
use super::window::{Arms, Batch};
use crate::counts::Counts;
use crate::histogram::{Tally, bin_of, bounds};
use crate::time::Span;

/// Thresholds follow the primary: after so long, what it did counts half.
const HALF_LIFE: Span = Span::from_secs(60);

/// A quantile is used once this many primary requests lie above it.
const MIN_EXCEEDANCES: f64 = 10.0;

/// What slower means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyConfig {
    /// The quantiles that are compared, each between 0 and 1.
    pub quantiles: Vec<f64>,
    /// The canary may be this much slower, as a fraction.
    pub tolerance: f64,
    /// And at least so much slower (P16).
    pub floor: Span,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self { quantiles: alloc::vec![0.5, 0.9, 0.99], tolerance: 0.25, floor: Span::from_millis(5) }
    }
}

/// Evidence on latency: the average over all quantiles, which is an e-process itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    config: LatencyConfig,
    /// The primary of late. Older requests fade.
    reference: Tally,
    age: Span,
    quantiles: Vec<Quantile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Quantile {
    harm: RateComparison,
    safety: RatioTest,
    /// What the latest batch was held against, for people.
    #[serde(default)]
    latest: Option<Exceedance>,
}

/// Requests beyond the threshold of a quantile, of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exceedance {
    pub(crate) split: Split,
    /// The thresholds in microseconds: slow is what takes longer.
    pub(crate) canary_us: u64,
    pub(crate) primary_us: u64,
}

impl Latency {
    /// Returns a test without evidence.
    pub fn new(config: LatencyConfig) -> Self {
        let quantiles = config
            .quantiles
            .iter()
            .map(|_| Quantile { harm: RateComparison::new(&[1.0], None), safety: RatioTest::safety(1.0), latest: None })
            .collect();
        Self { config, reference: Tally::new(), age: Span::ZERO, quantiles }
    }

    /// Takes in a batch. `regression` is how much slower the canary is when it must be caught; `closed` are the
    /// requests that speak for safety.
    pub fn observe(&mut self, batch: &Batch, closed: &Closed<'_>, regression: f64) {
        let total = count(self.reference.count());
        let (finished, closed) = (Finished::of(&batch.judged), (closed, Finished::closed(closed)));
        let (mut harm, mut safety) = (None, None);
        for (quantile, threshold) in self.quantiles.iter_mut().zip(thresholds(&self.config, &self.reference)) {
            quantile.latest = None;
            if let Some(threshold) = threshold {
                let split = threshold.harm(&batch.judged, finished, batch.overdue);
                let (canary_us, primary_us) = (threshold.canary_us, threshold.primary_us);
                quantile.latest = Some(Exceedance { split, canary_us, primary_us });
                let slow = threshold.share_if_slower(&self.reference, regression);
                let base = count(self.reference.count_above(threshold.bin)) / total;
                quantile.harm.counterfactual(split, (base, slow), batch.span, &mut harm);
                quantile.safety.observe_cached(threshold.safety(closed), batch.span, &mut safety);
            }
        }
        self.remember(batch);
    }

    /// Learns from the primary alone, while the canary is not compared.
    pub(crate) fn learn(&mut self, batch: &Batch) {
        let finished = Finished::of(&batch.judged);
        for (quantile, threshold) in self.quantiles.iter_mut().zip(thresholds(&self.config, &self.reference)) {
            if let Some(threshold) = threshold {
                quantile.harm.learn(threshold.harm(&batch.judged, finished, batch.overdue), batch.span);
            }
        }
        self.remember(batch);
    }

    fn remember(&mut self, batch: &Batch) {
        self.reference.merge(&batch.judged.primary.latency);
        self.age = self.age.plus(batch.span);
        if self.age >= HALF_LIFE {
            self.age = Span::ZERO;
            self.reference.halve();
        }
    }

    /// Forgets the evidence of safety: it is gathered anew at every weight (P17).
    pub fn restart_safety(&mut self) {
        for quantile in &mut self.quantiles {
            quantile.safety = RatioTest::safety(1.0);
        }
    }

    /// Returns ln E for "slower than tolerated".
    pub fn harm(&self) -> f64 {
        self.average(|quantile| quantile.harm.evidence(0))
    }

    /// Returns what of the latest batch was beyond the thresholds, by quantile.
    pub(crate) fn beyond(&self) -> impl Iterator<Item = Option<Exceedance>> + '_ {
        self.quantiles.iter().map(|quantile| quantile.latest)
    }

    /// Returns the place of the quantile that speaks loudest.
    pub(crate) fn dominant(&self) -> Option<usize> {
        let evidence = |quantile: &Quantile| quantile.harm.evidence(0);
        let loudest = self.quantiles.iter().enumerate().max_by(|(_, a), (_, b)| evidence(a).total_cmp(&evidence(b)));
        loudest.map(|(place, _)| place)
    }

    /// Returns ln E against "slower than tolerated".
    pub fn safety(&self) -> f64 {
        self.average(|quantile| quantile.safety.evidence())
    }

    /// Returns true if the regression would have been caught by evidence `limit` of the average.
    pub(crate) fn has_power(&self, limit: f64) -> bool {
        let limit = self.alone(limit);
        self.powers().any(|(test, power)| power.has_power(test.first_weight(), limit, None))
    }

    /// Returns the factor by which the canary's requests would have to grow until the regression
    /// would have been caught by evidence `limit` of the average: at most 1 if it would have been.
    /// Nothing if no quantile can see it, since it stays within the tolerance.
    pub(crate) fn requests_missing(&self, limit: f64) -> Option<f64> {
        let limit = self.alone(limit);
        self.powers()
            .filter_map(|(test, power)| power.requests_missing(test.first_weight(), limit, None))
            .min_by(f64::total_cmp)
    }

    /// Returns true if some quantile was compared.
    pub(crate) fn is_ready(&self) -> bool {
        self.powers().any(|(_, power)| power.is_ready())
    }

    /// Returns true if the regression lies beyond tolerance and floor at some quantile.
    pub(crate) fn sees_regression(&self) -> bool {
        self.powers().any(|(_, power)| power.sees())
    }

    fn powers(&self) -> impl Iterator<Item = (&RatioTest, &Power)> {
        self.quantiles.iter().filter_map(|quantile| quantile.harm.power(0))
    }

    /// Returns the evidence that one quantile needs if the others have none.
    fn alone(&self, limit: f64) -> f64 {
        limit + libm::log(count(self.quantiles.len() as u64))
    }

    fn average(&self, evidence: impl Fn(&Quantile) -> f64) -> f64 {
        if self.quantiles.is_empty() {
            return 0.0;
        }
        ln_sum(self.quantiles.iter().map(evidence)) - libm::log(count(self.quantiles.len() as u64))
    }
}

/// Returns the threshold of each quantile, where enough of the primary lies above it.
fn thresholds<'a>(config: &'a LatencyConfig, reference: &'a Tally) -> impl Iterator<Item = Option<Threshold>> + 'a {
    let total = count(reference.count());
    config.quantiles.iter().map(move |q| {
        let bin = reference.quantile_bin(*q).filter(|_| total * (1.0 - q) >= MIN_EXCEEDANCES)?;
        Some(Threshold::new(bin, config))
    })
}

/// How many latencies there are of each arm, counted once for all quantiles.
#[derive(Debug, Clone, Copy)]
struct Finished {
    primary: u64,
    canary: u64,
}

impl Finished {
    fn of(arms: &Arms) -> Self {
        Self { primary: arms.primary.latency.count(), canary: arms.canary.latency.count() }
    }

    fn closed(closed: &Closed<'_>) -> Self {
        Self { primary: closed.primary.latency.count(), canary: closed.canary.latency.count() }
    }
}

/// A threshold on the primary and the one on the canary that corresponds to it.
struct Threshold {
    /// The primary's bin: requests above it are slow.
    bin: u16,
    /// The same in microseconds.
    primary_us: u64,
    /// Canary requests longer than this are slow.
    canary_us: u64,
}

impl Threshold {
    fn new(bin: u16, config: &LatencyConfig) -> Self {
        let primary_us = bounds(bin).1;
        let tolerated = ceil(count(primary_us) * (1.0 + config.tolerance.max(0.0)));
        Self { bin, primary_us, canary_us: tolerated.max(primary_us.saturating_add(config.floor.as_micros())) }
    }

    /// Counts in the primary's favour nowhere: of the bin that the canary's threshold falls into,
    /// nothing counts (P9); the primary's threshold is an edge.
    fn harm(&self, arms: &Arms, finished: Finished, overdue: Option<Span>) -> Split {
        let canary = (arms.canary.latency.count_above(bin_of(self.canary_us)), finished.canary);
        let primary = (arms.primary.latency.count_above(self.bin), finished.primary);
        let (canary_bad, canary) = with_overdue(&arms.canary, canary, self.canary_us, overdue);
        let (primary_bad, primary) = with_overdue(&arms.primary, primary, self.primary_us, overdue);
        Split { canary_bad, canary, primary_bad, primary }
    }

    /// Conservative the other way round: whatever of the canary may be slow is.
    fn safety(&self, (closed, finished): (&Closed<'_>, Finished)) -> Split {
        let slow = closed.canary.latency.count_from(bin_of(self.canary_us));
        Split {
            canary_bad: slow.saturating_add(closed.canary.overdue),
            canary: finished.canary.saturating_add(closed.canary.overdue),
            primary_bad: closed.primary.latency.count_above(self.bin),
            primary: finished.primary,
        }
    }

    /// Returns the share of requests that would be slow if each took `regression` times as long.
    fn share_if_slower(&self, reference: &Tally, regression: f64) -> f64 {
        let short_enough = ceil(count(self.canary_us) / regression.max(1.0));
        count(reference.count_above(bin_of(short_enough))) / count(reference.count()).max(1.0)
    }
}

/// Returns slow requests and all, with those among them that are overdue, at once, and each once: those that finished
/// since are in the histogram. Below the threshold being overdue proves nothing.
pub(crate) const fn with_overdue(
    counts: &Counts,
    (slow, finished): (u64, u64),
    threshold_us: u64,
    overdue: Option<Span>,
) -> (u64, u64) {
    match overdue {
        Some(overdue) if overdue.as_micros() >= threshold_us => {
            (with_hangs(counts, slow), with_hangs(counts, finished))
        }
        Some(_) | None => (slow, finished),
    }
}

const fn with_hangs(counts: &Counts, n: u64) -> u64 {
    n.saturating_sub(counts.overdue_finished).saturating_add(counts.overdue)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and the cast saturates")]
fn ceil(value: f64) -> u64 {
    libm::ceil(value) as u64
}
