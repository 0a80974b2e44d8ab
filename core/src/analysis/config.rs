//! How a canary is judged.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::latency::LatencyConfig;
use super::signal::{Shares, Signal, SignalMode};
use crate::time::Span;

/// Steps from what is tolerated to what pods may differ by at most.
const LEVELS: usize = 3;

/// How a canary is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeConfig {
    /// What decides.
    pub mode: Mode,
    /// What the arms may be compared by.
    pub comparison: Comparison,
    /// The chance of rolling back a healthy canary, over all signals and looks.
    pub alpha: f64,
    /// Which attempt at the same template this is; attempt k has α/(k(k+1)), so that all of them
    /// together stay below α (P21). Nothing: the whole α, for a single recording.
    pub attempt: Option<NonZeroU32>,
    /// The canary may fail so many times as often as the primary.
    pub error_ratio: f64,
    /// Below this rate nothing is rolled back.
    pub error_floor: f64,
    /// A rate of errors that is too high whatever the primary does (P20).
    pub error_limit: Option<f64>,
    /// A latency that 99 of 100 requests have to keep whatever the primary does (P20).
    pub latency_limit: Option<Span>,
    /// What slower means.
    pub latency: LatencyConfig,
    /// The regression that must have been caught before a step ends.
    pub must_detect: MustDetect,
    /// Canary requests that a step needs at least.
    pub min_requests: u64,
    /// A step may end before its interval when harm is ruled out at its weight.
    pub early_promotion: bool,
    /// So long after the first request of a canary's pod, it is compared by the hard guard only: caches and pools are
    /// cold.
    pub warmup: Span,
    /// What harm means that one pod alone may have caused.
    pub on_one_pod: SinglePodPolicy,
    /// Signals that may do less than roll back.
    pub modes: Vec<(Signal, SignalMode)>,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Evidence, for pace and verdicts.
    Sequential,
    /// Flagger's checks decide; the hard guard may roll back before them.
    Guard,
    /// Flagger's checks and nothing else.
    Thresholds,
}

/// What the arms may be compared by (P12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Chance decides which arm a request takes: the arms are compared with each other.
    Randomised,
    /// Users keep their arm, and chance decides which: the arms' errors are compared, and the canary is allowed what
    /// groups of users differ by.
    Affinity,
    /// The arms have different users: only absolute limits and the hard guard apply.
    Absolute,
    /// The canary has all requests that the primary had before: that is the measure, and the hard guard's ratio.
    BeforeAfter,
}

/// What harm means while the canary has one pod and the primary several: a bad pod looks like a bad revision (P13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinglePodPolicy {
    /// Hold and shrink first, then decide. The hard guard does not wait.
    Suspect,
    /// Roll back.
    Rollback,
}

/// A regression that a step does not end without having been able to see.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MustDetect {
    /// So many times the primary's errors …
    pub errors: f64,
    /// … and at least this rate.
    pub errors_at_least: f64,
    /// So many times the primary's latency.
    pub latency: f64,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Sequential,
            comparison: Comparison::Randomised,
            alpha: 0.001,
            attempt: None,
            error_ratio: 1.25,
            error_floor: 0.001,
            error_limit: None,
            latency_limit: None,
            latency: LatencyConfig::default(),
            must_detect: MustDetect { errors: 5.0, errors_at_least: 0.01, latency: 2.0 },
            min_requests: 20,
            early_promotion: false,
            warmup: Span::ZERO,
            on_one_pod: SinglePodPolicy::Suspect,
            modes: Vec::new(),
        }
    }
}

/// Canary requests of a step, or of a look at a metric, where the hard guard alone judges. It needs 20 to 22 to decide on a
/// canary that fails all of them beside a primary that fails none, where the arms' shares are exactly as they are routed. In
/// windows they are not: at a weight of 50 % and with room for 25, one such canary in ten was promoted by a single step. This
/// is two and a half times as many. A look with fewer ends without a result.
const GUARD_DECIDES: u64 = 55;

impl JudgeConfig {
    /// Returns what can roll back, each with its share of α. The shares never exceed one together;
    /// hooks and metrics from elsewhere are outside of it.
    pub fn shares(&self) -> Shares {
        let limits =
            [(Signal::ErrorLimit, self.error_limit.is_some()), (Signal::LatencyLimit, self.latency_limit.is_some())];
        let limits = limits.into_iter().filter(|(_, set)| *set).map(|(signal, _)| signal);
        let judged = |signal: &Signal| self.signal_mode(*signal) == SignalMode::Judge;
        match (self.mode, self.comparison) {
            (Mode::Thresholds, _) => Shares::default(),
            (Mode::Guard, _) => Shares::fixed([(Signal::Guard, 0.25)]),
            (Mode::Sequential, Comparison::Randomised) => {
                let set = limits.map(|signal| (signal, 1.0));
                let weighed = [
                    (Signal::Errors, 6.0),
                    (Signal::Latency, 3.0),
                    (Signal::Guard, 4.0),
                    (Signal::Outcomes, 1.0),
                    (Signal::Attempts, 1.0),
                    (Signal::Disconnects, 1.0),
                ];
                Shares::by_weight(weighed.into_iter().chain(set).filter(|(signal, _)| judged(signal)))
            }
            // How long answers take, and of what kind they are, differs from user to user too, and that is not learnt.
            (Mode::Sequential, Comparison::Affinity) => {
                let set = limits.map(|signal| (signal, 1.0));
                let weighed = [(Signal::Errors, 6.0), (Signal::Guard, 4.0)];
                Shares::by_weight(weighed.into_iter().chain(set).filter(|(signal, _)| judged(signal)))
            }
            (Mode::Sequential, Comparison::Absolute | Comparison::BeforeAfter) => {
                let set = limits.filter(judged);
                let each = if set.clone().count() > 1 { 0.375 } else { 0.75 };
                Shares::fixed([(Signal::Guard, 0.25)].into_iter().chain(set.map(|signal| (signal, each))))
            }
        }
    }

    /// Returns how many canary requests a step, or a look at a metric, needs at least: none is never enough.
    ///
    /// Where checks set the pace nothing else waits for the hard guard: a look comes after it has had enough.
    pub fn min_requests(&self) -> u64 {
        let for_guard = match self.mode {
            Mode::Guard => GUARD_DECIDES,
            Mode::Sequential | Mode::Thresholds => 1,
        };
        self.min_requests.max(for_guard)
    }

    /// Returns the evidence at which a canary is rolled back.
    pub fn decision_threshold(&self) -> f64 {
        let attempt = self.attempt.map_or(1.0, |k| f64::from(k.get()) * (f64::from(k.get()) + 1.0));
        libm::log(attempt / self.alpha)
    }

    /// Returns the part of α that this attempt may spend.
    pub fn alpha_of_attempt(&self) -> f64 {
        self.attempt.map_or(self.alpha, |k| self.alpha / (f64::from(k.get()) * (f64::from(k.get()) + 1.0)))
    }

    /// Returns what a signal may do. The hard guard always judges: it is what the other modes rely on.
    pub fn signal_mode(&self, wanted: Signal) -> SignalMode {
        let named = self.modes.iter().find(|(signal, _)| *signal == wanted);
        match wanted {
            Signal::Guard => SignalMode::Judge,
            Signal::Errors
            | Signal::Latency
            | Signal::ErrorLimit
            | Signal::LatencyLimit
            | Signal::Outcomes
            | Signal::Attempts
            | Signal::Disconnects => named.map_or(SignalMode::Judge, |(_, mode)| *mode),
        }
    }

    /// Returns the ratios of error rates that may be tolerated, rising: the configured one, and wider ones for pods
    /// that differ. The widest is half of what must be detected, or nothing could be.
    pub fn error_ratios(&self) -> [f64; LEVELS] {
        let widest = self.widest_ratio();
        let step = libm::sqrt(widest / self.error_ratio);
        [self.error_ratio, self.error_ratio * step, widest]
    }

    /// Returns true if the arms differ by chance alone, or by what can be learnt: they are compared with each other.
    pub(crate) const fn compares_arms(&self) -> bool {
        match self.comparison {
            Comparison::Randomised | Comparison::Affinity => true,
            Comparison::Absolute | Comparison::BeforeAfter => false,
        }
    }

    /// Returns true if latencies are compared, too.
    pub(crate) const fn compares_latency(&self) -> bool {
        matches!(self.comparison, Comparison::Randomised)
    }

    /// Returns the widest ratio of error rates that may be tolerated.
    pub(crate) fn widest_ratio(&self) -> f64 {
        (self.must_detect.errors / 2.0).max(self.error_ratio)
    }

    /// Returns the level of [`JudgeConfig::error_ratios`] that allows for pods differing by this ratio.
    pub(crate) fn level(&self, ratio: f64) -> usize {
        let ratios = self.error_ratios();
        ratios.iter().position(|tolerated| *tolerated >= ratio).unwrap_or(LEVELS - 1)
    }
}
