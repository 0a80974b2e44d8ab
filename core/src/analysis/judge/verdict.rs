//! What the judge says: the verdict with its reason, and what people are told beside it.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::analysis::assessment::{Notice, NoticeSubject, Propagation};
use crate::analysis::config::{Mode, SinglePodPolicy};
use crate::analysis::explain::{self, DetectableFault, DetectionClaim, UntestedLatency};
use crate::analysis::interval::RatioInterval;
use crate::analysis::judge::{INTERVAL_ALPHA, Judge, MAX_STEP_DURATION, ONE_NODE_AFTER, STALE_AFTER, SUSPECT_FOR};
use crate::analysis::latency::Exceedance;
use crate::analysis::outcome_mix::Kind;
use crate::analysis::quorum::ThinQuorum;
use crate::analysis::recent_counts::{EventKind, RecentRates};
use crate::analysis::sequential::count_of;
use crate::analysis::signal::{Shares, Signal, SignalMode};
use crate::analysis::test_suite::SLOW_SHARE;
use crate::analysis::weighted_evidence::WeightedEvidence;
use crate::analysis::window::NodeGroup;
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;

/// Failures are called by the name of a kind if it makes up so many of so many.
const MOSTLY: (u64, u64) = (9, 10);

impl Judge {
    pub(super) fn verdict(
        &self,
        now: Timestamp,
        propagation: &Propagation,
        missing: Option<u64>,
        eta: Option<Span>,
    ) -> Verdict {
        if let Some(reason) = self.why_crossed() {
            return match self.suspected(now) {
                Some(left) => Verdict::Continue(explain::suspect(&reason, left)),
                None => Verdict::Rollback(reason.into_owned()),
            };
        }
        if let Some(reason) = self.without_data(now, propagation) {
            return Verdict::NoData(reason);
        }
        if self.config.mode != Mode::Sequential {
            return Verdict::Continue(explain::checks_decide(&self.observed));
        }
        if let Some(rate) = self.baseline.degraded() {
            return Verdict::Continue(explain::shared_harm(&self.observed, rate, self.baseline.is_known()));
        }
        if let Some((_, node_group)) = self.rests_on {
            let reason = self.harm_reason(&self.shares());
            return Verdict::Continue(explain::rests_on(&reason, &self.node_groups.nodes(node_group)));
        }
        if let Some((_, node_group)) = self.hidden_by {
            return Verdict::Continue(explain::may_be_hidden(&self.hidden(node_group)));
        }
        match missing {
            Some(0) => match self.rests_on_thin_quorum(now) {
                Some(few) => Verdict::Continue(self.thin_quorum(few)),
                None if self.doubt(now).is_some() => {
                    Verdict::Continue(explain::undecided(&self.harm_reason(&self.shares())))
                }
                None => Verdict::Advance(explain::would_have_been_caught(&self.observed, &self.caught())),
            },
            missing => {
                if eta.is_some_and(|eta| eta > MAX_STEP_DURATION) {
                    return Verdict::NoData(explain::too_little(self.step.canary, missing, eta));
                }
                match self.warm_at.filter(|warm| now < *warm) {
                    Some(warm) => Verdict::Continue(explain::warming_up(&self.observed, warm.since(now))),
                    None => Verdict::Continue(explain::missing(&self.observed, &self.caught(), missing, eta)),
                }
            }
        }
    }

    fn thin_quorum(&self, few: ThinQuorum) -> String {
        match few {
            ThinQuorum::Of { carrying, sources } => explain::too_few(carrying, sources),
            ThinQuorum::One(node_group) => explain::content_of_one_node(self.node_groups.nodes(node_group).first()),
        }
    }

    /// Returns how long the canary is suspected for yet, if it is: what crossed may be one bad pod (P13).
    pub(super) fn suspected(&self, now: Timestamp) -> Option<Span> {
        let crossed = self.crossed.as_ref().filter(|crossed| !crossed.hard)?;
        let (primary, canary) = self.spread.pods();
        let one_pod = canary == 1 && primary > 1;
        let until = crossed.at.plus(SUSPECT_FOR);
        (one_pod && self.config.on_one_pod == SinglePodPolicy::Suspect && now < until).then(|| until.since(now))
    }

    fn without_data(&self, now: Timestamp, propagation: &Propagation) -> Option<String> {
        if let Propagation::Unknown { since } = propagation {
            return Some(explain::stale(now.since(*since)));
        }
        if let Some(last) = self.last_traffic
            && now.since(last.max(self.step.began)) > STALE_AFTER
        {
            return Some(explain::stopped(now.since(last)));
        }
        match propagation {
            Propagation::Effective | Propagation::Unknown { .. } => {}
            Propagation::Pending { laggards } => return Some(explain::not_propagated(self.step.weight, laggards)),
            Propagation::Unassigned { nodes } => return Some(explain::unassigned(nodes)),
            Propagation::Skewed { nodes } => return Some(explain::skewed(self.step.weight, nodes)),
        }
        if self.step.canary == 0 && self.step.stalled > 0 {
            return Some(explain::none_ended(self.step.stalled));
        }
        if self.step.canary == 0 && self.step.primary == 0 {
            return Some(explain::no_traffic(self.step.direct));
        }
        if self.step.canary == 0 {
            return Some(explain::only_primary(self.step.primary, self.step.direct));
        }
        if self.step.primary == 0 && self.config.compares_arms() {
            return Some(explain::only_canary(self.step.canary));
        }
        None
    }

    pub(super) fn notices(&self, now: Timestamp) -> Vec<Notice> {
        let mut notices = BTreeMap::new();
        let (level, decisive) = (self.level(), self.config.decision_threshold());
        for (signal, mode) in &self.config.modes {
            if *mode == SignalMode::Warn && self.trial.evidence(*signal, level) >= decisive {
                notices
                    .insert(NoticeSubject::Signal(*signal), explain::would_roll_back(&self.words_for(Some(*signal))));
            }
        }
        if let Some(rate) = self.baseline.degraded() {
            notices.insert(
                NoticeSubject::SharedHarm,
                explain::shared_harm(&self.observed, rate, self.baseline.is_known()),
            );
        } else if let Some(limit) = self.config.error_limit.filter(|limit| self.baseline.exceeded(*limit)) {
            notices.insert(NoticeSubject::SharedHarm, explain::limit_exceeded_before(limit, self.limit_from));
        }
        if let Some((since, node_group)) = self.rests_on
            && now.since(since) >= ONE_NODE_AFTER
        {
            let reason = self.harm_reason(&self.shares());
            notices.insert(NoticeSubject::OneNode, explain::rests_on(&reason, &self.node_groups.nodes(node_group)));
        }
        if let Some(left) = self.suspected(now)
            && let Some(reason) = self.why_crossed()
        {
            notices.insert(NoticeSubject::OnePod, explain::suspect(&reason, left));
        }
        notices.into_iter().map(|(about, text)| Notice { about, text }).collect()
    }

    /// Returns why the canary is rolled back, as it was when that was found.
    fn why_crossed(&self) -> Option<Cow<'_, str>> {
        let crossed = self.crossed.as_ref()?;
        let known = !crossed.reason.is_empty();
        Some(if known { Cow::Borrowed(crossed.reason.as_str()) } else { Cow::Owned(self.harm_reason(&self.shares())) })
    }

    /// Returns why the canary is rolled back, from the signal that speaks loudest.
    pub(super) fn harm_reason(&self, shares: &Shares) -> String {
        self.words_for(self.weighted().dominant(shares))
    }

    /// Returns what all nodes but those of a node group show.
    pub(super) fn hidden(&self, node_group: NodeGroup) -> String {
        let (shares, level) = (self.shares(), self.level());
        let weighted =
            self.jackknife.without(node_group).map(|trial| WeightedEvidence::of_trial(trial, &shares, level));
        let loudest = weighted.and_then(|weighted| weighted.dominant(&shares));
        explain::hidden_by(&self.node_groups.nodes(node_group), loudest)
    }

    fn words_for(&self, signal: Option<Signal>) -> String {
        let account = &self.account;
        match signal {
            Some(Signal::Latency) => match self.slow() {
                // What never ends is not told by a threshold of milliseconds.
                Some((lately, beyond)) => match self.is_mostly(EventKind::Hung, lately.split.canary_bad) {
                    Some(hung) => explain::slower_since_hung(hung, self.account.overdue()),
                    None => explain::slower(lately, beyond),
                },
                None => explain::slower_somewhere(),
            },
            Some(Signal::Guard) if self.trial.guard_rests_on_stalls() => {
                self.shown(EventKind::Stalled, explain::stalled)
            }
            Some(Signal::Guard) => self.broken(),
            Some(Signal::ErrorLimit) => {
                let limit = self.config.error_limit.unwrap_or_default();
                let lately = account.worst_beside(EventKind::Errors, limit);
                explain::above_limit(lately.unwrap_or_else(|| account.whole(EventKind::Errors)), limit, self.limit_from)
            }
            Some(Signal::LatencyLimit) => {
                let limit = self.config.latency_limit.unwrap_or_default();
                let lately = account.worst_beside(EventKind::AboveLimit, SLOW_SHARE);
                explain::slower_than_limit(lately.unwrap_or_else(|| account.whole(EventKind::AboveLimit)), limit)
            }
            Some(Signal::Outcomes) => self.other_answers(),
            Some(Signal::Attempts) => self.shown(EventKind::Retried, explain::more_attempts),
            Some(Signal::Disconnects) => self.shown(EventKind::Left, explain::more_disconnects),
            Some(Signal::Errors) | None => self.shown(EventKind::Errors, |lately| {
                explain::more_errors(lately, self.ratio_in(lately), self.are_refused(lately))
            }),
        }
    }

    /// Returns what the canary answers instead. Faults of the caller that are nearly all one status of gRPC are called
    /// that: over gRPC there is no 4xx.
    fn other_answers(&self) -> String {
        let outcomes = self.trial.outcomes();
        let (told, kind) = match outcomes.dominant().unwrap_or(Kind::ClientFault) {
            Kind::Redirect => (EventKind::Redirects, Kind::Redirect),
            Kind::Empty => (EventKind::Empty, Kind::Empty),
            Kind::Grpc(status) => (EventKind::Grpc(status), Kind::Grpc(status)),
            Kind::ClientFault => {
                let faults = self.account.worst(EventKind::ClientFaults);
                let is_it = |status: &u32| {
                    let all = faults.map_or(0, |faults| faults.split.canary_bad);
                    self.is_mostly(EventKind::Grpc(*status), all).is_some()
                };
                outcomes.statuses().find(is_it).map_or((EventKind::ClientFaults, Kind::ClientFault), |status| {
                    (EventKind::Grpc(status), Kind::Grpc(status))
                })
            }
        };
        self.shown(told, |lately| explain::other_answers(lately, kind))
    }

    /// Returns the stretch that shows a kind best, if that kind makes up nearly all of so many failures.
    fn is_mostly(&self, told: EventKind, all: u64) -> Option<RecentRates> {
        let lately = self.account.worst(told)?;
        let all = all.saturating_mul(MOSTLY.0);
        (lately.split.canary_bad.saturating_mul(MOSTLY.1) >= all).then_some(lately)
    }

    /// Returns the words for the stretch that shows a kind best.
    fn shown(&self, told: EventKind, words: impl Fn(RecentRates) -> String) -> String {
        match self.account.worst(told) {
            Some(lately) => words(lately),
            None => explain::not_in_sums(&words(self.account.whole(told))),
        }
    }

    /// Returns the slow requests of the quantile that speaks loudest, or of another one that shows it.
    fn slow(&self) -> Option<(RecentRates, Exceedance)> {
        let latency = self.trial.latency();
        let beyond: Vec<Option<Exceedance>> = latency.beyond().collect();
        let mut places = latency.dominant().into_iter().chain(0..beyond.len());
        places.find_map(|place| Some((self.account.worst(EventKind::Slow(place))?, *beyond.get(place)?.as_ref()?)))
    }

    /// Returns what the hard guard saw: hangs and refused connections are called that, if they are what it saw.
    fn broken(&self) -> String {
        let Some(broken) = self.account.worst(EventKind::Broken) else {
            return explain::not_in_sums(&explain::broken(self.account.whole(EventKind::Broken)));
        };
        let all = broken.split.canary_bad;
        if let Some(hung) = self.is_mostly(EventKind::Hung, all) {
            return explain::hung(hung, self.account.overdue());
        }
        match self.is_mostly(EventKind::Refused, all) {
            Some(refused) => explain::refused(refused),
            None => explain::broken(broken),
        }
    }

    /// Returns true if nearly all errors of a stretch are connections that were refused.
    fn are_refused(&self, errors: RecentRates) -> bool {
        self.is_mostly(EventKind::Refused, errors.split.canary_bad).is_some()
    }

    /// Returns bounds of the rate ratio in a stretch, which was chosen among several.
    fn ratio_in(&self, lately: RecentRates) -> (Option<f64>, Option<f64>) {
        let mut interval = RatioInterval::default();
        interval.observe(lately.split, Span::ZERO);
        interval.bounds(INTERVAL_ALPHA / count_of(self.account.choices().max(1)))
    }

    /// Returns what would have been caught, and what is not looked at.
    fn caught(&self) -> DetectionClaim {
        let latency = self.trial.latency();
        let besides = if !self.config.compares_latency() {
            UntestedLatency::NotCompared
        } else if !self.trial.has_latency() {
            UntestedLatency::Unknown
        } else if latency.is_ready() && !latency.sees_regression() {
            UntestedLatency::BelowFloor { times: self.config.must_detect.latency, floor: self.config.latency.floor }
        } else {
            UntestedLatency::Nothing
        };
        let must = self.config.must_detect;
        if self.can_compare() {
            let rate = (must.errors * self.observed.primary_rate()).max(must.errors_at_least).min(1.0);
            return DetectionClaim { what: DetectableFault::Rate(rate), besides };
        }
        let what = self.config.error_limit.map_or(DetectableFault::Outright, DetectableFault::Limit);
        DetectionClaim { what, besides }
    }
}
