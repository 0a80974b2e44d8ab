//! All tests over one body of evidence: everybody's reports, or those of all nodes but some.

use serde::{Deserialize, Serialize};

use super::closed_cohorts::Closed;
use super::config::JudgeConfig;
use super::guard::{Guard, GuardInput, Stalls};
use super::latency::{Latency, with_overdue};
use super::outcome_mix::OutcomeMix;
use super::power::{AbsoluteFloor, Power};
use super::rate_comparison::RateComparison;
use super::sequential::{LimitTest, RatioTest, Split, count};
use super::signal::Signal;
use super::window::{Arms, Batch};
use crate::counts::Counts;
use crate::histogram::bin_of;
use crate::outcome::Outcome;
use crate::time::Span;
use crate::weight::BasisPoints;

/// The margin of the safety test on errors: a canary at twice the primary's rate is not safe.
const SAFE_RATIO: f64 = 2.0;

/// Requests that need more than one attempt are harm above this share.
const ATTEMPTS_FLOOR: f64 = 0.01;

/// Clients leave for reasons of their own: so many times as many are tolerated, and this share in any case.
const DISCONNECTS: (f64, f64) = (2.0, 0.01);

/// A limit on the 99 % quantile is broken if more than this share takes longer.
pub(crate) const SLOW_SHARE: f64 = 0.01;

/// The tests, with what they need to be imagined otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TestSuite {
    errors: RateComparison,
    errors_safe: RatioTest,
    guard: Guard,
    guard_power: Power,
    /// Evidence that was written down without it has seen no response that stood still.
    #[serde(default)]
    stalls: Stalls,
    latency: Latency,
    outcomes: OutcomeMix,
    attempts: RateComparison,
    disconnects: RateComparison,
    error_limit: Option<LimitTest>,
    latency_limit: Option<LimitTest>,
    /// Errors and requests of the primary that were compared, and requests of the canary.
    primary: (u64, u64),
    canary: u64,
    /// All requests of the canary, warm-up included: how much this body of evidence weighs.
    seen: u64,
    has_latency: bool,
}

/// How a batch counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchContext {
    /// Pods are new: only the hard guard looks.
    pub(crate) warmup: bool,
    /// Both arms suffer: absolute limits blame nobody.
    pub(crate) shared_harm: bool,
    /// The canary's share, where it divides the requests; zero where it does not.
    #[serde(default)]
    pub(crate) weight: BasisPoints,
}

impl TestSuite {
    /// Returns tests that have seen nothing.
    pub(crate) fn new(config: &JudgeConfig) -> Self {
        Self {
            errors: RateComparison::new(&config.error_ratios(), Some(config.error_floor)),
            errors_safe: RatioTest::safety(SAFE_RATIO),
            guard: Guard::default(),
            guard_power: Power::default(),
            stalls: Stalls::default(),
            latency: Latency::new(config.latency.clone()),
            outcomes: OutcomeMix::default(),
            attempts: RateComparison::new(&[config.error_ratio], Some(ATTEMPTS_FLOOR)),
            disconnects: RateComparison::new(&[DISCONNECTS.0], Some(DISCONNECTS.1)),
            error_limit: config.error_limit.map(LimitTest::above),
            latency_limit: config.latency_limit.map(|_| LimitTest::above(SLOW_SHARE)),
            primary: (0, 0),
            canary: 0,
            seen: 0,
            has_latency: false,
        }
    }

    /// Notes that a step began: evidence of safety starts anew.
    pub(crate) fn step_started(&mut self) {
        self.errors_safe = RatioTest::safety(SAFE_RATIO);
        self.latency.restart_safety();
    }

    /// Holds the canary to another limit from now on.
    pub(crate) fn limit_errors(&mut self, limit: f64) {
        self.error_limit = Some(LimitTest::above(limit));
    }

    /// Takes in one window.
    pub(crate) fn observe(&mut self, batch: &Batch, standing: BatchContext, config: &JudgeConfig) {
        let complete = batch.complete();
        let (arms, span) = (&complete.judged, batch.span);
        self.seen = self.seen.saturating_add(batch.judged.canary.judged_and_hangs());
        let burst = self.errors.burst();
        let seen =
            GuardInput { all: &batch.judged, complete: arms, ahead: batch.complete.is_some(), weight: standing.weight };
        self.guard.observe(&seen, burst, span, &mut self.guard_power);
        self.stalls.observe(arms, config.comparison, span);
        if standing.warmup {
            self.errors.learn(errors(arms), span);
            self.attempts.learn(attempts(arms), span);
            self.disconnects.learn(disconnects(arms), span);
            self.latency.learn(complete);
            return;
        }
        self.observe_errors(arms, span);
        self.observe_limits(arms, standing, config, batch.overdue, span);
        let closed = if config.early_promotion { Closed::cohorts(arms) } else { Closed::finished(arms) };
        self.errors_safe.observe(closed.errors(), span);
        self.latency.observe(complete, &closed, config.must_detect.latency);
        self.has_latency |= !arms.canary.latency.is_empty() || !arms.primary.latency.is_empty();
        self.outcomes.observe(arms, span);
        self.attempts.observe(attempts(arms), span);
        self.disconnects.observe(disconnects(arms), span);
    }

    fn observe_errors(&mut self, arms: &Arms, span: Span) {
        let split = errors(arms);
        self.errors.counterfactual(split, (0.0, 0.0), span, &mut None);
        self.primary.0 = self.primary.0.saturating_add(split.primary_bad);
        self.primary.1 = self.primary.1.saturating_add(split.primary);
        self.canary = self.canary.saturating_add(split.canary);
    }

    fn observe_limits(
        &mut self,
        arms: &Arms,
        standing: BatchContext,
        config: &JudgeConfig,
        overdue: Option<Span>,
        span: Span,
    ) {
        if standing.shared_harm {
            return;
        }
        if let Some(limit) = &mut self.error_limit {
            limit.observe(arms.canary.errors(), arms.canary.judged(), span);
        }
        if let (Some(limit), Some(longest)) = (&mut self.latency_limit, config.latency_limit) {
            let split = above_limit(arms, longest, overdue);
            limit.observe(split.canary_bad, split.canary, span);
        }
    }

    /// Returns ln of a signal's e-value, where `level` of [`JudgeConfig::error_ratios`] is tolerated.
    pub(crate) fn evidence(&self, signal: Signal, level: usize) -> f64 {
        let of_limit = |limit: &Option<LimitTest>| limit.as_ref().map_or(f64::NEG_INFINITY, LimitTest::evidence);
        match signal {
            Signal::Errors => self.errors.evidence(level),
            Signal::Latency => self.latency.harm(),
            Signal::Guard => self.stalls.evidence_with(&self.guard),
            Signal::ErrorLimit => of_limit(&self.error_limit),
            Signal::LatencyLimit => of_limit(&self.latency_limit),
            Signal::Outcomes => self.outcomes.evidence(),
            Signal::Attempts => self.attempts.evidence(0),
            Signal::Disconnects => self.disconnects.evidence(0),
        }
    }

    /// Returns true if the hard guard rests on responses that stand still, not on errors and hangs.
    pub(crate) fn guard_rests_on_stalls(&self) -> bool {
        self.stalls.dominate(&self.guard)
    }

    /// Returns the kinds of answers.
    pub(crate) const fn outcomes(&self) -> &OutcomeMix {
        &self.outcomes
    }

    /// Returns the tests of latency.
    pub(crate) const fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Returns ln E against harm, of errors and of latency.
    pub(crate) fn safety(&self) -> (f64, f64) {
        (self.errors_safe.evidence(), self.latency.safety())
    }

    /// Returns true if there are latencies to judge by.
    pub(crate) const fn has_latency(&self) -> bool {
        self.has_latency
    }

    /// Returns the canary requests that were compared.
    pub(crate) const fn canary_requests(&self) -> u64 {
        self.canary
    }

    /// Returns an error rate that the primary's is likely below, two standard deviations above what was counted; nothing
    /// if nothing was.
    pub(crate) fn primary_rate(&self) -> Option<f64> {
        let (errors, requests) = self.primary;
        let high = count(errors) + 2.0 * libm::sqrt(count(errors) + 1.0);
        (requests > 0).then(|| high / count(requests))
    }

    /// Returns all requests of the canary.
    pub(crate) const fn observed_requests(&self) -> u64 {
        self.seen
    }

    /// Returns true if the declared regression would have been caught by now, in errors and in latency.
    pub(crate) fn has_power(&self, level: usize, limits: Limits, config: &JudgeConfig) -> bool {
        let Some((test, power)) = self.errors.power(level) else { return false };
        let power = power.expecting(self.regressed(config));
        if !power.has_power(test.first_weight(), limits.errors, self.floor(limits.errors)) {
            return false;
        }
        if !self.has_latency || !config.compares_latency() {
            return true;
        }
        self.latency.is_ready() && (!self.latency.sees_regression() || self.latency.has_power(limits.latency))
    }

    /// Returns the factor by which requests must grow until the declared regression would have been
    /// caught, in errors and in latency. Nothing if no number is enough.
    pub(crate) fn requests_missing(&self, level: usize, limits: Limits, config: &JudgeConfig) -> Option<f64> {
        let (test, power) = self.errors.power(level)?;
        let power = power.expecting(self.regressed(config));
        let errors = power.requests_missing(test.first_weight(), limits.errors, self.floor(limits.errors))?;
        if !self.has_latency || !config.compares_latency() {
            return Some(errors);
        }
        if !self.latency.is_ready() {
            // No threshold yet: at least one more request must be compared with one.
            return Some(errors.max(1.0 + 1.0 / count(self.canary).max(1.0)));
        }
        if !self.latency.sees_regression() {
            return Some(errors);
        }
        Some(errors.max(self.latency.requests_missing(limits.latency)?))
    }

    /// Returns the factor for the hard guard alone, where the arms are not compared otherwise.
    pub(crate) fn guard_missing(&self, limit: f64) -> Option<f64> {
        self.guard_power.requests_missing(self.guard.first_weight(), Stalls::guard_threshold(limit), None)
    }

    /// Returns after how many failures in a row a canary is known to be above its limit; 0 if it has none.
    pub(crate) fn until_limit_decides(&self, evidence: f64) -> f64 {
        self.error_limit.as_ref().map_or(0.0, |limit| limit.failures_until(evidence))
    }

    /// Returns the error rate of the regression that must be caught.
    fn regressed(&self, config: &JudgeConfig) -> f64 {
        let must = config.must_detect;
        (must.errors * self.cautious_primary_rate()).max(must.errors_at_least).min(1.0)
    }

    /// Returns an error rate of the primary that the true one is likely above: one and a quarter
    /// standard deviations below what was counted.
    fn cautious_primary_rate(&self) -> f64 {
        let (errors, requests) = self.primary;
        let low = count(errors) - 1.25 * libm::sqrt(count(errors));
        low.max(0.0) / count(requests).max(1.0)
    }

    fn floor(&self, limit: f64) -> Option<AbsoluteFloor<'_>> {
        self.errors.floor().map(|test| AbsoluteFloor { test, limit })
    }
}

/// Evidence at which a signal decides without any other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) errors: f64,
    pub(crate) latency: f64,
}

/// Returns the requests that take longer than a limit.
pub(crate) fn above_limit(arms: &Arms, longest: Span, overdue: Option<Span>) -> Split {
    let of = |counts: &Counts| {
        let slow = counts.latency.count_above(bin_of(longest.as_micros()));
        with_overdue(counts, (slow, counts.latency.count()), longest.as_micros(), overdue)
    };
    let ((canary_bad, canary), (primary_bad, primary)) = (of(&arms.canary), of(&arms.primary));
    Split { canary_bad, canary, primary_bad, primary }
}

pub(crate) fn errors(arms: &Arms) -> Split {
    Split {
        canary_bad: arms.canary.errors(),
        canary: arms.canary.judged(),
        primary_bad: arms.primary.errors(),
        primary: arms.primary.judged(),
    }
}

pub(crate) fn attempts(arms: &Arms) -> Split {
    Split { canary_bad: arms.canary.retried, primary_bad: arms.primary.retried, ..errors(arms) }
}

pub(crate) fn disconnects(arms: &Arms) -> Split {
    let left = |counts: &Counts| {
        let before = counts.outcome(Outcome::DisconnectBeforeResponse);
        before.saturating_add(counts.outcome(Outcome::DisconnectMidResponse))
    };
    let all = |counts: &Counts| counts.judged().saturating_add(left(counts));
    Split {
        canary_bad: left(&arms.canary),
        canary: all(&arms.canary),
        primary_bad: left(&arms.primary),
        primary: all(&arms.primary),
    }
}
