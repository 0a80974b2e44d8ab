//! Weighs all evidence on one canary and says what follows from it.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::guard::{Guard, with_hangs};
use super::latency::{Latency, LatencyConfig};
use super::power::Power;
use super::sequential::{LimitTest, RatioInterval, RatioTest, Split, count, ln_add, ln_sum};
use super::window::{Arms, Batch};
use super::words::{self, Observed};
use crate::id::NodeId;
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;
use crate::weight::BasisPoints;

/// The margin of the safety test on errors: a canary at twice the primary's rate is not safe.
const SAFE_RATIO: f64 = 2.0;

/// Evidence at which a step counts as safe: α of 5 % per signal and step. All signals must agree,
/// which needs no correction.
const SAFE_EVIDENCE: f64 = 2.995_732_273_553_991;

/// The interval of the rate ratio misses the truth in at most this share of rollouts.
const INTERVAL_ALPHA: f64 = 0.05;

/// Without a request for so long, what was seen is old news.
const STALE: Span = Span::from_secs(10);

/// Without a primary beside it, a canary may fail so many times as often as the primary did before …
const GUARD_RATIO: f64 = 10.0;

/// … and never more often than this.
const MOST_BEARABLE: f64 = 0.5;

/// A step that would take longer than this for want of requests has no data to speak of.
const TOO_LONG: Span = Span::from_secs(3_600);

/// How a canary is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// What slower means.
    pub latency: LatencyConfig,
    /// The regression that must have been caught before a step ends.
    pub must_detect: MustDetect,
    /// Canary requests that a step needs at least.
    pub min_requests: u64,
    /// A step may end before its interval when harm is ruled out at its weight.
    pub early_promotion: bool,
    /// So long after its first request, a canary is compared by the hard guard only: caches and pools are cold.
    pub warmup: Span,
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
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Chance decides which arm a request takes: the arms are compared with each other.
    Randomised,
    /// The arms have different users: only absolute limits and the hard guard apply.
    Absolute,
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

/// Everything that can roll a canary back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Errors relative to the primary, above the floor.
    Errors,
    /// Latency relative to the primary.
    Latency,
    /// The hard guard.
    Guard,
    /// Errors above the absolute limit.
    Limit,
}

/// Whether the share of the step is known to reach the proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flowing {
    /// It is.
    Yes,
    /// It is not; these nodes still send by older routes. May be empty if none sent anything.
    No {
        /// The nodes that lag behind.
        laggards: Vec<NodeId>,
    },
}

/// The state of the judgement at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// What follows.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: Evidence,
    /// The canary's error rate as a multiple of the primary's: bounds that hold at all times at
    /// once. Nothing where it is 0 or without limit.
    pub rate_ratio: (Option<f64>, Option<f64>),
    /// Canary requests that are missing until the step may end; nothing if no number is enough.
    pub eta_requests: Option<u64>,
    /// How long they take at the present rate.
    pub eta: Option<Span>,
    /// What was compared.
    pub comparison: Comparison,
    /// Harm beyond the margin is ruled out at this weight, and a step may end early.
    pub safe: bool,
}

/// Natural logarithms of e-values. The harm of both signals together, as a sum of e-values, crosses
/// at ln(1/α): their shares of α are in them already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// On errors, hard guard and absolute limit included.
    pub errors: HarmSafe,
    /// On latency.
    pub latency: HarmSafe,
}

/// Evidence for harm and for safety.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HarmSafe {
    /// For "worse than tolerated".
    pub harm: f64,
    /// Against it, since the step began.
    pub safe: f64,
}

/// The judge of one rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    config: JudgeConfig,
    errors: RatioTest,
    errors_safe: RatioTest,
    errors_power: Power,
    floor: LimitTest,
    limit: Option<LimitTest>,
    guard: Guard,
    guard_power: Power,
    latency: Latency,
    interval: RatioInterval,
    observed: Observed,
    step: Step,
    last_traffic: Option<Timestamp>,
    /// When the first request of the canary was seen.
    first_request: Option<Timestamp>,
    /// Why the canary was found harmful: evidence that crossed once is not taken back.
    crossed: Option<alloc::string::String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Step {
    weight: BasisPoints,
    began: Timestamp,
    canary: u64,
    primary: u64,
    direct: u64,
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
            latency: LatencyConfig::default(),
            must_detect: MustDetect { errors: 5.0, errors_at_least: 0.01, latency: 2.0 },
            min_requests: 20,
            early_promotion: false,
            warmup: Span::ZERO,
        }
    }
}

impl JudgeConfig {
    /// Returns what can roll back, each with its share of α. The shares never exceed one together;
    /// hooks and metrics from elsewhere are outside of it.
    pub fn shares(&self) -> Vec<(Signal, f64)> {
        let limited = self.error_limit.is_some();
        match (self.mode, self.comparison) {
            (Mode::Thresholds, _) => Vec::new(),
            (Mode::Sequential, Comparison::Randomised) if limited => alloc::vec![
                (Signal::Errors, 0.375),
                (Signal::Latency, 0.25),
                (Signal::Guard, 0.25),
                (Signal::Limit, 0.125),
            ],
            (Mode::Sequential, Comparison::Randomised) => {
                alloc::vec![(Signal::Errors, 0.5), (Signal::Latency, 0.25), (Signal::Guard, 0.25),]
            }
            (Mode::Sequential, Comparison::Absolute) if limited => {
                alloc::vec![(Signal::Guard, 0.25), (Signal::Limit, 0.75)]
            }
            (Mode::Guard, _) | (Mode::Sequential, Comparison::Absolute) => {
                alloc::vec![(Signal::Guard, 0.25)]
            }
        }
    }

    /// Returns the evidence at which a canary is rolled back.
    pub fn decisive(&self) -> f64 {
        let attempt = self.attempt.map_or(1.0, |k| f64::from(k.get()) * (f64::from(k.get()) + 1.0));
        libm::log(attempt / self.alpha)
    }

    /// Returns the share of a signal, if it has one.
    fn share(&self, wanted: Signal) -> Option<f64> {
        self.shares().into_iter().find(|&(signal, _)| signal == wanted).map(|(_, share)| share)
    }
}

impl Judge {
    /// Returns a judge that has seen nothing.
    pub fn new(config: JudgeConfig) -> Self {
        Self {
            errors: RatioTest::harm(config.error_ratio),
            errors_safe: RatioTest::safety(SAFE_RATIO),
            errors_power: Power::default(),
            floor: LimitTest::above(config.error_floor),
            limit: config.error_limit.map(LimitTest::above),
            guard: Guard::default(),
            guard_power: Power::default(),
            latency: Latency::new(config.latency.clone()),
            interval: RatioInterval::default(),
            observed: Observed::default(),
            step: Step::default(),
            last_traffic: None,
            first_request: None,
            crossed: None,
            config,
        }
    }

    /// Returns how it judges.
    pub const fn config(&self) -> &JudgeConfig {
        &self.config
    }

    /// Notes that a step began. Evidence of harm stays; evidence of safety starts anew, since some
    /// faults show only under load (P17).
    pub fn step_started(&mut self, weight: BasisPoints, now: Timestamp) {
        self.step = Step { weight, began: now, ..Step::default() };
        self.errors_safe = RatioTest::safety(SAFE_RATIO);
        self.latency.restart_safety();
    }

    /// Notes that every request goes to the canary from now on: what the primary did before is the measure, with
    /// the hard guard's ratio (P12: before-after is no randomised comparison).
    pub fn switched(&mut self) {
        let before = self.observed.incautious_primary_rate();
        let limit = (GUARD_RATIO * before).max(self.config.must_detect.errors_at_least).min(MOST_BEARABLE);
        let limit = self.config.error_limit.map_or(limit, |range| range.min(limit));
        self.config.comparison = Comparison::Absolute;
        self.config.error_limit = Some(limit);
        self.limit = Some(LimitTest::above(limit));
    }

    /// Takes in one window.
    pub fn observe(&mut self, batch: &Batch) {
        let strata = [&batch.judged, &batch.new_connection];
        for arms in strata {
            self.guard.observe(arms, batch.span);
            self.guard_power.observe(self.guard.test(), with_hangs(arms), 0.0, 1.0);
            self.note_traffic(arms, batch.end);
        }
        self.step.direct = self.step.direct.saturating_add(batch.direct.canary.finished);
        let warmup = self.warms_up(batch);
        if !warmup {
            for (place, arms) in strata.into_iter().enumerate() {
                // Both strata belong to the same stretch of time, which passes once.
                let span = if place == 0 { batch.span } else { Span::ZERO };
                self.observe_errors(arms, span);
            }
            self.latency.observe(&batch.judged, self.config.must_detect.latency, batch.span);
        }
        self.observed.add(batch, warmup);
        if self.crossed.is_none() && self.total_harm() >= self.config.decisive() {
            self.crossed = Some(self.accuse());
        }
    }

    /// Returns what follows from all that was seen.
    pub fn assess(&self, now: Timestamp, flowing: &Flowing) -> Assessment {
        let missing = self.missing();
        let eta_requests = missing.map(ceil);
        let eta = self.eta(eta_requests, now);
        let safe = self.is_safe();
        Assessment {
            verdict: self.verdict(now, flowing, eta_requests, eta),
            evidence: self.evidence(),
            rate_ratio: self.interval.bounds(INTERVAL_ALPHA),
            eta_requests,
            eta,
            comparison: self.config.comparison,
            safe: safe && self.config.early_promotion,
        }
    }

    fn warms_up(&mut self, batch: &Batch) -> bool {
        let began = batch.end.minus(batch.span);
        if self.first_request.is_none() && batch.judged.canary.started > 0 {
            self.first_request = Some(began);
        }
        batch.warmup || self.first_request.is_none_or(|first| began < first.plus(self.config.warmup))
    }

    fn observe_errors(&mut self, arms: &Arms, span: Span) {
        let split = Split {
            canary_bad: arms.canary.errors(),
            canary: arms.canary.judged(),
            primary_bad: arms.primary.errors(),
            primary: arms.primary.judged(),
        };
        self.errors_power.observe(&self.errors, split, 0.0, 0.0);
        self.errors.observe(split, span);
        self.errors_safe.observe(split, span);
        self.interval.observe(split);
        self.floor.observe(split.canary_bad, split.canary, span);
        if let Some(limit) = &mut self.limit {
            limit.observe(split.canary_bad, split.canary, span);
        }
    }

    fn note_traffic(&mut self, arms: &Arms, end: Timestamp) {
        let (canary, primary) = (arms.canary.judged_and_hangs(), arms.primary.judged_and_hangs());
        self.step.canary = self.step.canary.saturating_add(canary);
        self.step.primary = self.step.primary.saturating_add(primary);
        if canary > 0 || primary > 0 {
            self.last_traffic = Some(self.last_traffic.map_or(end, |last| last.max(end)));
        }
    }

    /// Returns ln of a signal's e-value, weighted by its share of α.
    fn harm(&self, signal: Signal) -> f64 {
        let Some(share) = self.config.share(signal) else {
            return f64::NEG_INFINITY;
        };
        let evidence = match signal {
            // Both must speak against it: the smaller of two e-values is one.
            Signal::Errors => self.errors.evidence().min(self.floor.evidence()),
            Signal::Latency => self.latency.harm(),
            Signal::Guard => self.guard.evidence(),
            Signal::Limit => self.limit.as_ref().map_or(f64::NEG_INFINITY, LimitTest::evidence),
        };
        evidence + libm::log(share)
    }

    fn total_harm(&self) -> f64 {
        ln_add(self.error_harm(), self.harm(Signal::Latency))
    }

    fn error_harm(&self) -> f64 {
        ln_sum([Signal::Errors, Signal::Guard, Signal::Limit].into_iter().map(|signal| self.harm(signal)))
    }

    /// Returns what speaks for harm and for safety.
    pub fn evidence(&self) -> Evidence {
        let shown = |harm: f64| if harm.is_finite() { harm } else { 0.0 };
        Evidence {
            errors: HarmSafe { harm: shown(self.error_harm()), safe: self.errors_safe.evidence() },
            latency: HarmSafe { harm: shown(self.harm(Signal::Latency)), safe: self.latency.safety() },
        }
    }

    fn is_safe(&self) -> bool {
        let latency = !self.observed.has_latency() || self.latency.safety() >= SAFE_EVIDENCE;
        matches!(self.config.comparison, Comparison::Randomised)
            && self.errors_safe.evidence() >= SAFE_EVIDENCE
            && latency
    }

    /// Returns the canary requests missing until the step may end: 0 if it may.
    fn missing(&self) -> Option<f64> {
        let seen = count(self.observed.canary_requests());
        let least = count(self.config.min_requests.saturating_sub(self.step.canary));
        let factor = match self.config.comparison {
            Comparison::Randomised => self.comparison_missing()?,
            Comparison::Absolute if self.step.primary == 0 && self.limit.is_some() => {
                return Some(least.max(self.until_limit_speaks() - count(self.step.canary)));
            }
            Comparison::Absolute => self.guard_power.requests_missing(
                self.guard.test().first_weight(),
                self.limit_of(Signal::Guard),
                None,
            )?,
        };
        Some((seen * (factor - 1.0)).max(least))
    }

    /// Returns the requests after which a canary that fails all of them is known to be above its limit.
    fn until_limit_speaks(&self) -> f64 {
        let Some(limit) = &self.limit else { return 0.0 };
        let decisive = self.limit_of(Signal::Limit);
        (1..=1_000_u64).map(count).find(|&n| limit.first_copy(n, n) >= decisive).unwrap_or(1_000.0)
    }

    /// Returns the factor by which requests must grow until the declared regression would have been
    /// caught, in errors and in latency.
    fn comparison_missing(&self) -> Option<f64> {
        let must = self.config.must_detect;
        let regressed = (must.errors * self.observed.cautious_primary_rate()).max(must.errors_at_least).min(1.0);
        let limit = self.limit_of(Signal::Errors);
        let errors = self.errors_power.expecting(regressed).requests_missing(
            self.errors.first_weight(),
            limit,
            Some((&self.floor, limit)),
        )?;
        if !self.observed.has_latency() {
            return Some(errors);
        }
        if !self.latency.is_ready() {
            // No threshold yet: at least one more request must be compared with one.
            return Some(errors.max(1.0 + 1.0 / count(self.observed.canary_requests()).max(1.0)));
        }
        if !self.latency.sees_regression() {
            return Some(errors);
        }
        let latency = self.latency.requests_missing(self.limit_of(Signal::Latency))?;
        Some(errors.max(latency))
    }

    /// Returns the evidence of a signal that decides without any other.
    fn limit_of(&self, signal: Signal) -> f64 {
        self.config.decisive() - libm::log(self.config.share(signal).unwrap_or(1.0))
    }

    /// Returns how long so many canary requests take at the rate of this step.
    fn eta(&self, requests: Option<u64>, now: Timestamp) -> Option<Span> {
        let requests = requests?;
        if requests == 0 {
            return Some(Span::ZERO);
        }
        let elapsed = now.since(self.step.began).as_millis();
        let millis = elapsed.saturating_mul(requests).checked_div(self.step.canary)?;
        Some(Span::from_millis(millis))
    }

    fn verdict(&self, now: Timestamp, flowing: &Flowing, missing: Option<u64>, eta: Option<Span>) -> Verdict {
        if let Some(reason) = &self.crossed {
            return Verdict::Rollback(reason.clone());
        }
        if let Some(reason) = self.without_data(now, flowing) {
            return Verdict::NoData(reason);
        }
        if self.config.mode != Mode::Sequential {
            return Verdict::Continue(words::checks_decide(&self.observed));
        }
        match missing {
            Some(0) => Verdict::Advance(words::would_have_been_caught(&self.observed, &self.config)),
            missing => {
                if eta.is_some_and(|eta| eta > TOO_LONG) {
                    return Verdict::NoData(words::too_little(self.step.canary, missing, eta));
                }
                Verdict::Continue(words::missing(&self.observed, missing, eta))
            }
        }
    }

    fn without_data(&self, now: Timestamp, flowing: &Flowing) -> Option<alloc::string::String> {
        if let Some(last) = self.last_traffic
            && now.since(last.max(self.step.began)) > STALE
        {
            return Some(words::stale(now.since(last)));
        }
        if let Flowing::No { laggards } = flowing {
            return Some(words::not_flowing(self.step.weight, laggards));
        }
        if self.step.canary == 0 && self.step.primary == 0 {
            return Some(words::no_traffic(self.step.direct));
        }
        if self.step.canary == 0 {
            return Some(words::only_primary(self.step.primary, self.step.direct));
        }
        if self.step.primary == 0 && matches!(self.config.comparison, Comparison::Randomised) {
            return Some(words::only_canary(self.step.canary));
        }
        None
    }

    /// Returns why the canary is rolled back, from the signal that speaks loudest.
    fn accuse(&self) -> alloc::string::String {
        let loudest = self
            .config
            .shares()
            .into_iter()
            .max_by(|&(a, _), &(b, _)| self.harm(a).total_cmp(&self.harm(b)))
            .map(|(signal, _)| signal);
        match loudest {
            Some(Signal::Latency) => words::slower(&self.observed),
            Some(Signal::Guard) => words::broken(&self.observed),
            Some(Signal::Limit) => words::above_limit(&self.observed, self.config.error_limit),
            Some(Signal::Errors) | None => words::more_errors(&self.observed, self.interval.bounds(INTERVAL_ALPHA)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and the cast saturates")]
fn ceil(value: f64) -> u64 {
    libm::ceil(value) as u64
}
