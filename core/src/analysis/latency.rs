//! Whether the canary is slower, at several quantiles at once.
//!
//! Before each batch a threshold τ is set to the primary's quantile so far; the batch then counts
//! how many canary requests take longer than τ with tolerance, and how many primary requests take
//! longer than τ. That is an error test with ratio 1. It is valid since τ was fixed before the
//! batch, and a load that slows both arms cancels out.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::power::Power;
use super::sequential::{RatioTest, Split, count, ln_sum};
use super::window::Arms;
use crate::counts::Counts;
use crate::histogram::{Histogram, bin_of, bounds};
use crate::time::Span;

/// Thresholds follow the primary over the last one to two stretches of this length.
const MEMORY: Span = Span::from_secs(60);

/// A quantile is used once this many primary requests lie above it.
const ENOUGH_ABOVE: f64 = 10.0;

/// What slower means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyConfig {
    /// The quantiles that are compared, each between 0 and 1.
    pub quantiles: Vec<f64>,
    /// The canary may be this much slower, as a fraction.
    pub tolerance: f64,
    /// And at least so much slower (P16).
    pub floor: Span,
    /// The age at which a request in flight is reported as overdue, if it ever is.
    pub overdue: Option<Span>,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self { quantiles: alloc::vec![0.5, 0.9, 0.99], tolerance: 0.25, floor: Span::from_millis(5), overdue: None }
    }
}

/// Evidence on latency: the average over all quantiles, which is an e-process itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    config: LatencyConfig,
    recent: Histogram,
    before: Histogram,
    age: Span,
    quantiles: Vec<Quantile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Quantile {
    q: f64,
    harm: RatioTest,
    safety: RatioTest,
    power: Power,
}

impl Latency {
    /// Returns a test without evidence.
    pub fn new(config: LatencyConfig) -> Self {
        let quantiles = config
            .quantiles
            .iter()
            .map(|&q| Quantile {
                q,
                harm: RatioTest::harm(1.0),
                safety: RatioTest::safety(1.0),
                power: Power::default(),
            })
            .collect();
        Self { config, recent: Histogram::new(), before: Histogram::new(), age: Span::ZERO, quantiles }
    }

    /// Takes in a batch. `regression` is how much slower the canary is when it must be caught.
    pub fn observe(&mut self, arms: &Arms, regression: f64, span: Span) {
        let reference = self.reference();
        let total = count(reference.count());
        for quantile in &mut self.quantiles {
            let above = total * (1.0 - quantile.q);
            let threshold = reference
                .quantile_bin(quantile.q)
                .filter(|_| above >= ENOUGH_ABOVE)
                .map(|bin| Threshold::new(bin, &self.config));
            if let Some(threshold) = threshold {
                let split = threshold.harm(arms);
                let slow = threshold.share_if_slower(&reference, regression);
                let base = count(reference.count_above(threshold.bin)) / total;
                quantile.power.observe(&quantile.harm, split, base, slow);
                quantile.harm.observe(split, span);
                quantile.safety.observe(threshold.safety(arms), span);
            }
        }
        self.recent.merge(&arms.primary.latency);
        self.age = self.age.plus(span);
        if self.age >= MEMORY {
            self.age = Span::ZERO;
            self.before = core::mem::take(&mut self.recent);
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
        self.average(|quantile| quantile.harm.evidence())
    }

    /// Returns ln E against "slower than tolerated".
    pub fn safety(&self) -> f64 {
        self.average(|quantile| quantile.safety.evidence())
    }

    /// Returns the factor by which the canary's requests would have to grow until the regression
    /// would have been caught by evidence `limit` of the average: at most 1 if it would have been.
    /// Nothing if no quantile can see it, since it stays within the tolerance.
    pub(crate) fn requests_missing(&self, limit: f64) -> Option<f64> {
        let limit = limit + libm::log(count(self.quantiles.len() as u64));
        self.quantiles
            .iter()
            .filter_map(|quantile| quantile.power.requests_missing(quantile.harm.first_weight(), limit, None))
            .min_by(f64::total_cmp)
    }

    /// Returns true if some quantile was compared.
    pub(crate) fn is_ready(&self) -> bool {
        self.quantiles.iter().any(|quantile| quantile.power.is_ready())
    }

    /// Returns true if the regression lies beyond tolerance and floor at some quantile.
    pub(crate) fn sees_regression(&self) -> bool {
        self.quantiles.iter().any(|quantile| quantile.power.sees())
    }

    fn reference(&self) -> Histogram {
        let mut both = self.before.clone();
        both.merge(&self.recent);
        both
    }

    fn average(&self, evidence: impl Fn(&Quantile) -> f64) -> f64 {
        if self.quantiles.is_empty() {
            return 0.0;
        }
        ln_sum(self.quantiles.iter().map(evidence)) - libm::log(count(self.quantiles.len() as u64))
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
    overdue_us: Option<u64>,
}

impl Threshold {
    fn new(bin: u16, config: &LatencyConfig) -> Self {
        let primary_us = bounds(bin).1;
        let tolerated = ceil(count(primary_us) * (1.0 + config.tolerance.max(0.0)));
        Self {
            bin,
            primary_us,
            canary_us: tolerated.max(primary_us.saturating_add(config.floor.as_micros())),
            overdue_us: config.overdue.map(Span::as_micros),
        }
    }

    /// Counts in the primary's favour nowhere: of the bin that the canary's threshold falls into,
    /// nothing counts (P9); the primary's threshold is an edge.
    fn harm(&self, arms: &Arms) -> Split {
        let canary_slow = arms.canary.latency.count_above(bin_of(self.canary_us));
        let primary_slow = arms.primary.latency.count_above(self.bin);
        let (canary_bad, canary) = self.with_overdue(&arms.canary, canary_slow, self.canary_us);
        let (primary_bad, primary) = self.with_overdue(&arms.primary, primary_slow, self.primary_us);
        Split { canary_bad, canary, primary_bad, primary }
    }

    /// Adds requests that are overdue, at once, and each once: those that finished since are in the
    /// histogram. Below the threshold being overdue proves nothing.
    fn with_overdue(&self, counts: &Counts, slow: u64, threshold_us: u64) -> (u64, u64) {
        let finished = counts.latency.count();
        if self.overdue_us.is_none_or(|overdue| overdue < threshold_us) {
            return (slow, finished);
        }
        let bad = slow.saturating_sub(counts.overdue_finished).saturating_add(counts.overdue);
        let all = finished.saturating_sub(counts.overdue_finished).saturating_add(counts.overdue);
        (bad, all)
    }

    /// Conservative the other way round, and with every request in flight taken for slow: of an arm
    /// that has just begun only short requests have finished (P2).
    fn safety(&self, arms: &Arms) -> Split {
        let in_flight = arms.canary.started.saturating_sub(arms.canary.finished);
        let slow = arms.canary.latency.count_from(bin_of(self.canary_us));
        Split {
            canary_bad: slow.saturating_add(in_flight),
            canary: arms.canary.latency.count().saturating_add(in_flight),
            primary_bad: arms.primary.latency.count_above(self.bin),
            primary: arms.primary.latency.count(),
        }
    }

    /// Returns the share of requests that would be slow if each took `regression` times as long.
    fn share_if_slower(&self, reference: &Histogram, regression: f64) -> f64 {
        let short_enough = ceil(count(self.canary_us) / regression.max(1.0));
        count(reference.count_above(bin_of(short_enough))) / count(reference.count()).max(1.0)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and the cast saturates")]
fn ceil(value: f64) -> u64 {
    libm::ceil(value) as u64
}
