//! Weighs all evidence on one canary and says what follows from it.
//!
//! ```text
//!  Batch ─┬─► Baseline  what the primary did before, and whether both arms suffer
//!         ├─► Spread    how pods differ
//!         └─► Pairing   a window of one arm waits for the other
//!               ├─► TestSuite     every test, over all nodes
//!               └─► Jackknife the same without one node group each; Presence tells whose word counts
//!                      └──────► crossed? ─► suspect? ─► verdict, in words
//! ```

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

pub use super::assessment::{Assessment, Evidence, Harm, HarmSafe, Notice, NoticeSubject, Propagation};
pub use super::config::{Comparison, JudgeConfig, Mode, MustDetect, SinglePodPolicy};
pub use super::quorum::{LATE_FOR, Sources};

use super::baseline::Baseline;
use super::explain::Observed;
use super::guard::{self, LimitFrom, with_hangs};
use super::interval::RatioInterval;
use super::jackknife::Jackknife;
use super::judge::outage::Outage;
use super::node_groups::NodeGroups;
use super::pairing::{Pairing, Ready};
use super::presence::Presence;
use super::quorum::Quorum;
use super::recent_counts::{RecentCounts, Slow};
use super::sequential::{Split, count, ln_sum};
use super::signal::{Shares, Signal};
use super::spread::Spread;
use super::test_suite::{BatchContext, Limits, TestSuite, above_limit};
use super::users::Users;
use super::weighted_evidence::{CachedEvidence, WeightedEvidence};
use super::window::{Batch, NodeGroup};
use crate::id::NodeId;
use crate::time::{Span, Timestamp};
use crate::verdict::Counted;
use crate::weight::BasisPoints;

mod harm;
mod outage;
mod verdict;

/// Evidence at which a step counts as safe: α of 5 % per signal and step. All signals must agree,
/// which needs no correction.
const SAFE_EVIDENCE: f64 = 2.995_732_273_553_991;

/// The interval of the rate ratio misses the truth in at most this share of rollouts.
const INTERVAL_ALPHA: f64 = 0.05;

/// Without a request for so long, what was seen is old news.
const STALE_AFTER: Span = Span::from_secs(10);

/// A step that would take longer than this for want of requests has no data to speak of.
const MAX_STEP_DURATION: Span = Span::from_secs(3_600);

/// How many requests are missing is reckoned anew after so much time: it costs more than a verdict.
const ESTIMATE_INTERVAL: Span = Span::from_secs(1);

/// A canary is suspected for so long before it is rolled back for what one pod may have caused.
const SUSPECT_FOR: Span = Span::from_secs(60);

/// Evidence that rests on one node is told after so long: trials do not cross all at once.
const ONE_NODE_AFTER: Span = Span::from_secs(10);

/// The judge of one rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    config: JudgeConfig,
    /// What waits before it is tested. Evidence that was written down without it has nothing that waits.
    #[serde(default)]
    pairing: Pairing,
    trial: TestSuite,
    jackknife: Jackknife,
    #[serde(rename = "seats")]
    node_groups: NodeGroups,
    #[serde(default)]
    presence: Presence,
    spread: Spread,
    #[serde(default)]
    users: Users,
    baseline: Baseline,
    interval: RatioInterval,
    observed: Observed,
    /// What was counted lately, for reasons.
    #[serde(default)]
    account: RecentCounts,
    /// Where the limit of errors comes from.
    #[serde(default)]
    limit_from: LimitFrom,
    step: StepCounts,
    missing: MissingRequests,
    last_traffic: Option<Timestamp>,
    /// Until when pods are new. None: the canary had no request yet.
    warm_at: Option<Timestamp>,
    /// Harm that was found: evidence that crossed once is not taken back.
    crossed: Option<HarmFound>,
    /// Since when the evidence over all nodes has crossed.
    decided: Option<Timestamp>,
    /// Since when it has, though it rests on one.
    rests_on: Option<(Timestamp, NodeGroup)>,
    /// The evidence over all nodes that others contradict, or contradicted when they were heard last.
    #[serde(default)]
    contested: Option<f64>,
    /// Since when there is harm only without one, which may hide it.
    #[serde(default)]
    hidden_by: Option<(Timestamp, NodeGroup)>,
    /// Who is waited for before few decide.
    #[serde(default)]
    quorum: Quorum,
    /// Whether it fails most requests right now.
    #[serde(default)]
    outage: Outage,
    /// What the signals said of the latest window.
    #[serde(skip)]
    weighted: CachedEvidence,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct StepCounts {
    weight: BasisPoints,
    began: Timestamp,
    canary: u64,
    primary: u64,
    direct: u64,
    /// Responses of the canary that stood still.
    #[serde(default)]
    stalled: u64,
}

/// Canary requests that are missing until the declared regression would have been caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct MissingRequests {
    /// So many, when it was reckoned; nothing if no number is enough.
    requests: Option<u64>,
    /// Canary requests at that time, and how long ago it was.
    at: u64,
    age: Span,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HarmFound {
    at: Timestamp,
    /// Signals that ask for nobody's fault have crossed by themselves.
    hard: bool,
    /// Why, as it was then.
    #[serde(default)]
    reason: String,
}

impl Judge {
    /// Returns a judge that has seen nothing.
    pub fn new(config: JudgeConfig) -> Self {
        Self {
            pairing: Pairing::default(),
            trial: TestSuite::new(&config),
            jackknife: Jackknife::default(),
            node_groups: NodeGroups::default(),
            presence: Presence::default(),
            spread: Spread::default(),
            users: Users::default(),
            baseline: Baseline::default(),
            interval: RatioInterval::default(),
            observed: Observed::default(),
            account: RecentCounts::default(),
            limit_from: LimitFrom::default(),
            step: StepCounts::default(),
            missing: MissingRequests { requests: None, at: 0, age: Span::MAX },
            last_traffic: None,
            warm_at: None,
            crossed: None,
            decided: None,
            rests_on: None,
            contested: None,
            hidden_by: None,
            quorum: Quorum::default(),
            outage: Outage::default(),
            weighted: CachedEvidence::default(),
            config,
        }
    }

    /// Returns how it judges.
    pub const fn config(&self) -> &JudgeConfig {
        &self.config
    }

    /// Returns the node group of a node that reports, for [`Windows::add`](super::window::Windows::add).
    pub fn node_group(&mut self, node: &NodeId, now: Timestamp) -> NodeGroup {
        self.node_groups.of(node, now)
    }

    /// Says who may report. Where several may, the first of them does not decide before the others have had the time to.
    ///
    /// `late_since` tells of a node whose reports showed requests and are late now when the next one was due: it is not
    /// known whether such a node has traffic.
    pub fn expect(&mut self, sources: Sources, late_since: impl Fn(&NodeId) -> Option<Timestamp>, now: Timestamp) {
        self.quorum.expect(sources, now);
        // Nothing else is decided by who has no traffic.
        let late = if self.decided.is_some() { self.node_groups.late_since(late_since) } else { BTreeMap::new() };
        self.presence.expect(late, now);
    }

    /// Notes that a step began. Evidence of harm stays; evidence of safety starts anew, since some
    /// faults show only under load (P17).
    pub fn step_started(&mut self, weight: BasisPoints, now: Timestamp) {
        self.weighted = CachedEvidence::default();
        self.wait_no_longer();
        self.step = StepCounts { weight, began: now, ..StepCounts::default() };
        if !weight.is_zero() {
            self.quorum.begin(now);
        }
        if weight == BasisPoints::FULL && self.config.compares_arms() {
            self.switched();
        }
        self.trial.step_started();
        self.jackknife.step_started(&self.config);
        self.interval.settle();
        self.missing.age = Span::MAX;
    }

    /// Notes that every request that is looked at goes to the canary from now on: what the primary did with them
    /// before is the measure (P12: before-after is no randomised comparison). A weight of 100 % is such a switch.
    ///
    /// Said again, it changes nothing: a restart goes on with the limit, and what speaks against it.
    pub fn switched(&mut self) {
        if self.config.comparison == Comparison::BeforeAfter {
            return;
        }
        self.weighted = CachedEvidence::default();
        self.wait_no_longer();
        // A canary may fail so many times as often as the primary did, as by the hard guard, and never more often than
        // it may without any primary.
        let before = self.trial.primary_rate().unwrap_or_else(|| self.baseline.before());
        let times = guard::RATIO * before;
        let least = self.config.must_detect.errors_at_least;
        let (limit, from) = if times.max(least) >= guard::MAX_ERROR_RATE {
            (guard::MAX_ERROR_RATE, LimitFrom::MaxErrorRate)
        } else if times >= least {
            (times, LimitFrom::Before)
        } else {
            (least, LimitFrom::MustDetect)
        };
        let (limit, from) = match self.config.error_limit.filter(|own| *own <= limit) {
            Some(own) => (own, self.limit_from),
            None => (limit, from),
        };
        self.limit_from = from;
        self.config.comparison = Comparison::BeforeAfter;
        self.config.error_limit = Some(limit);
        self.trial.limit_errors(limit);
        self.jackknife.limit_errors(limit);
    }

    /// Takes in one window.
    pub fn observe(&mut self, batch: &Batch) {
        self.weighted = CachedEvidence::default();
        let weight = if self.both_arms_are_due() { self.step.weight } else { BasisPoints::ZERO };
        let standing = BatchContext { warmup: self.warms_up(batch), shared_harm: self.harm_is_shared(), weight };
        if self.config.comparison == Comparison::Affinity {
            let arms = &batch.complete().judged;
            self.users.observe(&arms.primary.groups, &arms.canary.groups);
        }
        self.baseline.observe(with_hangs(&batch.judged), batch.span);
        self.note_traffic(&batch.judged, batch.end);
        self.outage.observe(&batch.judged, batch.end);
        self.step.direct = self.step.direct.saturating_add(batch.direct.canary.finished);
        self.presence.observe(batch, self.due());
        self.observed.add(batch, standing.warmup);
        if self.both_arms_are_due() {
            for ready in self.pairing.add(batch, standing).into_iter().flatten() {
                self.test(&ready);
            }
        } else {
            self.test(&(Cow::Borrowed(batch), standing));
        }
        self.test_for_harm(batch.end);
        self.estimate_missing(batch.end, batch.span);
    }

    /// Returns what follows from all that was seen.
    pub fn assess(&self, now: Timestamp, propagation: &Propagation) -> Assessment {
        let eta_requests = self.missing();
        let eta = self.eta(eta_requests, now);
        Assessment {
            verdict: self.verdict(now, propagation, eta_requests, eta),
            evidence: self.evidence(),
            eta_requests,
            eta,
            comparison: self.config.comparison,
            safe: self.config.early_promotion
                && self.crossed.is_none()
                && self.hidden_by.is_none()
                && self.doubt(now).is_none()
                && self.is_safe(now),
            doubt: self.doubt(now),
            notices: self.notices(now),
        }
    }

    /// Returns whether the canary had requests in this step to speak of.
    pub fn counted(&self) -> Counted {
        if self.decided.is_some() {
            return Counted::Contested;
        }
        match self.config.min_requests().saturating_sub(self.step.canary) {
            0 => Counted::Sufficient,
            missing => Counted::Missing(missing),
        }
    }

    /// Returns what speaks for harm and for safety.
    pub fn evidence(&self) -> Evidence {
        let weighted = self.weighted();
        // Rounding leaves something of the order of 1e-17 where there is nothing.
        let shown = |harm: f64| if harm.is_finite() && harm.abs() > 1e-12 { harm } else { 0.0 };
        let harm = |signals: &[Signal]| shown(ln_sum(signals.iter().map(|signal| weighted.of(*signal))));
        let (errors_safe, latency_safe) = self.trial.safety();
        Evidence {
            errors: HarmSafe {
                harm: harm(&[Signal::Errors, Signal::Guard, Signal::ErrorLimit]),
                safe: shown(errors_safe),
            },
            latency: HarmSafe { harm: harm(&[Signal::Latency, Signal::LatencyLimit]), safe: shown(latency_safe) },
            outcomes: Harm { harm: harm(&[Signal::Outcomes]) },
            attempts: Harm { harm: harm(&[Signal::Attempts]) },
            disconnects: Harm { harm: harm(&[Signal::Disconnects]) },
        }
    }

    /// Returns the canary's error rate as a multiple of the primary's: bounds that hold at all times at once. Nothing where
    /// it is 0 or without limit. It is for people, and costs as much as some verdicts.
    pub fn rate_ratio(&self) -> (Option<f64>, Option<f64>) {
        self.interval.bounds(INTERVAL_ALPHA)
    }

    /// Lets the tests take in a batch.
    fn test(&mut self, (batch, standing): &Ready<'_>) {
        if !standing.warmup {
            let arms = &batch.complete().judged;
            let (canary, primary) = (&arms.canary, &arms.primary);
            let split = Split {
                canary_bad: canary.errors(),
                canary: canary.judged(),
                primary_bad: primary.errors(),
                primary: primary.judged(),
            };
            self.interval.observe(split, batch.span);
        }
        self.jackknife.observe(batch, *standing, &self.trial, &self.config);
        self.trial.observe(batch, *standing, &self.config);
        let quantiles = self.trial.latency().beyond();
        let slow = Slow {
            quantiles: quantiles.map(|beyond| beyond.map_or_else(Split::default, |beyond| beyond.split)).collect(),
            above_limit: self
                .config
                .latency_limit
                .map_or_else(Split::default, |longest| above_limit(&batch.judged, longest, batch.overdue)),
        };
        self.account.add(batch, standing.warmup, &slow);
    }

    /// Tests what waits as it is.
    fn wait_no_longer(&mut self) {
        if let Some(ready) = self.pairing.release() {
            self.test(&ready);
        }
    }

    /// Returns true where requests divide between the arms, so that one without any will have some soon.
    fn both_arms_are_due(&self) -> bool {
        let divided = !self.step.weight.is_zero() && self.step.weight < BasisPoints::FULL;
        divided && self.config.comparison != Comparison::BeforeAfter
    }

    /// A pod is new from its first request on. The first request of the canary is that of a pod, known or not.
    fn warms_up(&mut self, batch: &Batch) -> bool {
        let began = batch.end.minus(batch.span);
        let arms = &batch.judged;
        let new_pod = self.spread.observe(&arms.primary.pods, &arms.canary.pods);
        if (self.warm_at.is_none() && batch.judged.canary.started > 0) || new_pod {
            self.warm_at = Some(began.plus(self.config.warmup));
        }
        batch.warmup || self.warm_at.is_none_or(|warm| began < warm)
    }

    fn harm_is_shared(&self) -> bool {
        let exceeded = self.config.error_limit.is_some_and(|limit| self.baseline.exceeded(limit));
        exceeded || self.baseline.degraded().is_some()
    }

    fn note_traffic(&mut self, arms: &super::window::Arms, end: Timestamp) {
        let (canary, primary) = (arms.canary.judged_and_hangs(), arms.primary.judged_and_hangs());
        self.step.canary = self.step.canary.saturating_add(canary);
        self.step.primary = self.step.primary.saturating_add(primary);
        self.step.stalled = self.step.stalled.saturating_add(arms.canary.stalled);
        if arms.canary.judged_and_stalled() > 0 || arms.primary.judged_and_stalled() > 0 {
            self.last_traffic = Some(self.last_traffic.map_or(end, |last| last.max(end)));
        }
    }

    /// Returns what the signals say over all nodes.
    fn weighted(&self) -> WeightedEvidence {
        self.weighted.0.unwrap_or_else(|| WeightedEvidence::of_trial(&self.trial, &self.shares(), self.level()))
    }

    /// What the differences of pods and of users call for.
    fn level(&self) -> usize {
        let users = self.users_ratio().unwrap_or_else(|| self.config.widest_ratio());
        self.config.level(self.spread.ratio().max(users))
    }

    /// Returns the ratio that the choice of users may cause, if it is known: 1 where chance decides for each request.
    fn users_ratio(&self) -> Option<f64> {
        if self.config.comparison == Comparison::Affinity { self.users.ratio(self.step.weight) } else { Some(1.0) }
    }

    /// Returns true if the arms' errors can be compared: users are known to differ by no more than may be tolerated.
    fn can_compare(&self) -> bool {
        self.config.compares_arms() && self.users_ratio().is_some_and(|ratio| ratio <= self.config.widest_ratio())
    }

    /// Returns what can roll back at present, each with its share of α.
    fn shares(&self) -> Shares {
        let shares = self.config.shares();
        if self.config.comparison != Comparison::Affinity || self.can_compare() {
            return shares;
        }
        shares.without(Signal::Errors)
    }

    fn is_safe(&self, now: Timestamp) -> bool {
        let safe = |trial: &TestSuite| {
            let (errors, latency) = trial.safety();
            errors >= SAFE_EVIDENCE && (!trial.has_latency() || latency >= SAFE_EVIDENCE)
        };
        self.config.comparison == Comparison::Randomised
            && safe(&self.trial)
            && self.whichever_is_left_out(now, safe)
            && self.rests_on_thin_quorum(now).is_none()
    }

    /// Reckons the canary requests missing until the step may end.
    fn estimate_missing(&mut self, now: Timestamp, span: Span) {
        self.missing.age = self.missing.age.plus(span);
        let (level, limits) = (self.level(), self.limits());
        let seen = self.trial.canary_requests();
        let requests = if self.can_compare() {
            // What was enough a moment ago is looked at again as rarely as what is not is reckoned.
            if self.missing.age < ESTIMATE_INTERVAL && self.missing.requests == Some(0) {
                return;
            }
            let enough = |trial: &TestSuite| trial.has_power(level, limits, &self.config);
            if enough(&self.trial) && self.whichever_is_left_out(now, enough) {
                Some(0)
            } else if self.missing.age < ESTIMATE_INTERVAL {
                return;
            } else {
                let factor = self.trial.requests_missing(level, limits, &self.config);
                factor.map(|factor| ceil(count(seen) * (factor - 1.0)).max(1))
            }
        } else {
            self.absolute_missing()
        };
        self.missing = MissingRequests { requests, at: seen, age: Span::ZERO };
    }

    fn absolute_missing(&self) -> Option<u64> {
        // After a switch, what the primary still answers began before it.
        let alone = self.config.comparison == Comparison::BeforeAfter || self.step.primary == 0;
        if alone && self.config.error_limit.is_some() {
            let needed = self.trial.until_limit_decides(self.limit_of(Signal::ErrorLimit));
            return Some(ceil((needed - count(self.step.canary)).max(0.0)));
        }
        let factor = self.trial.guard_missing(self.limit_of(Signal::Guard))?;
        Some(ceil(count(self.trial.observed_requests()) * (factor - 1.0)))
    }

    /// Returns the canary requests missing until the step may end: 0 if it may.
    fn missing(&self) -> Option<u64> {
        let least = self.config.min_requests.saturating_sub(self.step.canary);
        let since = self.trial.canary_requests().saturating_sub(self.missing.at);
        // One more at least, as long as it is not known to be enough.
        let left = |requests: u64| if requests == 0 { 0 } else { requests.saturating_sub(since).max(1) };
        self.missing.requests.map(|requests| left(requests).max(least))
    }

    fn limits(&self) -> Limits {
        let shares = self.config.shares();
        let of = |signal| self.config.decision_threshold() - libm::log(shares.of(signal).unwrap_or(1.0));
        Limits { errors: of(Signal::Errors), latency: of(Signal::Latency) }
    }

    /// Returns the evidence of a signal that decides without any other.
    fn limit_of(&self, signal: Signal) -> f64 {
        self.config.decision_threshold() - libm::log(self.config.shares().of(signal).unwrap_or(1.0))
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
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and the cast saturates")]
fn ceil(value: f64) -> u64 {
    libm::ceil(value) as u64
}
