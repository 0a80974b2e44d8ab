//! What the judge says: the verdict with its reason, and what people are told beside it.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::analysis::account::{Lately, Told};
use crate::analysis::assessment::{About, Flowing, Notice};
use crate::analysis::config::{Mode, OnOnePod};
use crate::analysis::interval::RatioInterval;
use crate::analysis::judge::{INTERVAL_ALPHA, Judge, ONE_NODE_AFTER, STALE, SUSPECT_FOR, TOO_LONG};
use crate::analysis::latency::Beyond;
use crate::analysis::outcome_mix::Kind;
use crate::analysis::quorum::Few;
use crate::analysis::sequential::count_of;
use crate::analysis::signal::{Shares, Signal, SignalMode};
use crate::analysis::trial::SLOW_SHARE;
use crate::analysis::voices::Voices;
use crate::analysis::window::Seat;
use crate::analysis::words::{self, Besides, Caught, What};
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;

/// Failures are called by the name of a kind if it makes up so many of so many.
const MOSTLY: (u64, u64) = (9, 10);

impl Judge {
    pub(super) fn verdict(
        &self,
        now: Timestamp,
        flowing: &Flowing,
        missing: Option<u64>,
        eta: Option<Span>,
    ) -> Verdict {
        if let Some(reason) = self.why_crossed() {
            return match self.suspected(now) {
                Some(left) => Verdict::Continue(words::suspect(&reason, left)),
                None => Verdict::Rollback(reason.into_owned()),
            };
        }
        if let Some(reason) = self.without_data(now, flowing) {
            return Verdict::NoData(reason);
        }
        if self.config.mode != Mode::Sequential {
            return Verdict::Continue(words::checks_decide(&self.observed));
        }
        if let Some(rate) = self.baseline.degraded() {
            return Verdict::Continue(words::shared_harm(&self.observed, rate, self.baseline.is_known()));
        }
        if let Some((_, seat)) = self.rests_on {
            let reason = self.accuse(&self.shares());
            return Verdict::Continue(words::rests_on(&reason, &self.seats.nodes(seat)));
        }
        if let Some((_, seat)) = self.hidden_by {
            return Verdict::Continue(words::may_be_hidden(&self.hidden(seat)));
        }
        match missing {
            Some(0) => match self.rests_on_few(now) {
                Some(few) => Verdict::Continue(self.few(few)),
                None => Verdict::Advance(words::would_have_been_caught(&self.observed, &self.caught())),
            },
            missing => {
                if eta.is_some_and(|eta| eta > TOO_LONG) {
                    return Verdict::NoData(words::too_little(self.step.canary, missing, eta));
                }
                match self.warm_at.filter(|warm| now < *warm) {
                    Some(warm) => Verdict::Continue(words::warming_up(&self.observed, warm.since(now))),
                    None => Verdict::Continue(words::missing(&self.observed, &self.caught(), missing, eta)),
                }
            }
        }
    }

    fn few(&self, few: Few) -> String {
        match few {
            Few::Of { carrying, voices } => words::too_few(carrying, voices),
            Few::One(seat) => words::content_alone(self.seats.nodes(seat).first()),
        }
    }

    /// Returns how long the canary is suspected for yet, if it is: what crossed may be one bad pod (P13).
    pub(super) fn suspected(&self, now: Timestamp) -> Option<Span> {
        let crossed = self.crossed.as_ref().filter(|crossed| !crossed.hard)?;
        let (primary, canary) = self.spread.pods();
        let one_pod = canary == 1 && primary > 1;
        let until = crossed.at.plus(SUSPECT_FOR);
        (one_pod && self.config.on_one_pod == OnOnePod::Suspect && now < until).then(|| until.since(now))
    }

    fn without_data(&self, now: Timestamp, flowing: &Flowing) -> Option<String> {
        if let Flowing::Unheard { since } = flowing {
            return Some(words::stale(now.since(*since)));
        }
        if let Some(last) = self.last_traffic
            && now.since(last.max(self.step.began)) > STALE
        {
            return Some(words::stopped(now.since(last)));
        }
        match flowing {
            Flowing::Yes | Flowing::Unheard { .. } => {}
            Flowing::No { laggards } => return Some(words::not_flowing(self.step.weight, laggards)),
            Flowing::Astray { nodes } => return Some(words::astray(self.step.weight, nodes)),
        }
        if self.step.canary == 0 && self.step.stalled > 0 {
            return Some(words::none_ended(self.step.stalled));
        }
        if self.step.canary == 0 && self.step.primary == 0 {
            return Some(words::no_traffic(self.step.direct));
        }
        if self.step.canary == 0 {
            return Some(words::only_primary(self.step.primary, self.step.direct));
        }
        if self.step.primary == 0 && self.config.compares_arms() {
            return Some(words::only_canary(self.step.canary));
        }
        None
    }

    pub(super) fn notices(&self, now: Timestamp) -> Vec<Notice> {
        let mut notices = BTreeMap::new();
        let (level, decisive) = (self.level(), self.config.decisive());
        for (signal, mode) in &self.config.modes {
            if *mode == SignalMode::Warn && self.trial.evidence(*signal, level) >= decisive {
                notices.insert(About::Signal(*signal), words::would_roll_back(&self.words_for(Some(*signal))));
            }
        }
        if let Some(rate) = self.baseline.degraded() {
            notices.insert(About::SharedHarm, words::shared_harm(&self.observed, rate, self.baseline.is_known()));
        } else if let Some(limit) = self.config.error_limit.filter(|limit| self.baseline.exceeded(*limit)) {
            notices.insert(About::SharedHarm, words::limit_exceeded_before(limit, self.limit_from));
        }
        if let Some((since, seat)) = self.rests_on
            && now.since(since) >= ONE_NODE_AFTER
        {
            let reason = self.accuse(&self.shares());
            notices.insert(About::OneNode, words::rests_on(&reason, &self.seats.nodes(seat)));
        }
        if let Some(left) = self.suspected(now)
            && let Some(reason) = self.why_crossed()
        {
            notices.insert(About::OnePod, words::suspect(&reason, left));
        }
        notices.into_iter().map(|(about, text)| Notice { about, text }).collect()
    }

    /// Returns why the canary is rolled back, as it was when that was found.
    fn why_crossed(&self) -> Option<Cow<'_, str>> {
        let crossed = self.crossed.as_ref()?;
        let known = !crossed.reason.is_empty();
        Some(if known { Cow::Borrowed(crossed.reason.as_str()) } else { Cow::Owned(self.accuse(&self.shares())) })
    }

    /// Returns why the canary is rolled back, from the signal that speaks loudest.
    pub(super) fn accuse(&self, shares: &Shares) -> String {
        self.words_for(self.voices().loudest(shares))
    }

    /// Returns what all nodes but those of a seat show.
    pub(super) fn hidden(&self, seat: Seat) -> String {
        let (shares, level) = (self.shares(), self.level());
        let voices = self.jackknife.without(seat).map(|trial| Voices::of_trial(trial, &shares, level));
        let loudest = voices.and_then(|voices| voices.loudest(&shares));
        words::hidden_by(&self.seats.nodes(seat), loudest)
    }

    fn words_for(&self, signal: Option<Signal>) -> String {
        let account = &self.account;
        match signal {
            Some(Signal::Latency) => match self.slow() {
                // What never ends is not told by a threshold of milliseconds.
                Some((lately, beyond)) => match self.is_mostly(Told::Hung, lately.split.canary_bad) {
                    Some(hung) => words::slower_since_hung(hung, self.account.overdue()),
                    None => words::slower(lately, beyond),
                },
                None => words::slower_somewhere(),
            },
            Some(Signal::Guard) if self.trial.guard_rests_on_stalls() => self.shown(Told::Stalled, words::stalled),
            Some(Signal::Guard) => self.broken(),
            Some(Signal::ErrorLimit) => {
                let limit = self.config.error_limit.unwrap_or_default();
                let lately = account.worst_beside(Told::Errors, limit);
                words::above_limit(lately.unwrap_or_else(|| account.whole(Told::Errors)), limit, self.limit_from)
            }
            Some(Signal::LatencyLimit) => {
                let limit = self.config.latency_limit.unwrap_or_default();
                let lately = account.worst_beside(Told::AboveLimit, SLOW_SHARE);
                words::slower_than_limit(lately.unwrap_or_else(|| account.whole(Told::AboveLimit)), limit)
            }
            Some(Signal::Outcomes) => self.other_answers(),
            Some(Signal::Attempts) => self.shown(Told::Retried, words::more_attempts),
            Some(Signal::Disconnects) => self.shown(Told::Left, words::more_disconnects),
            Some(Signal::Errors) | None => self.shown(Told::Errors, |lately| {
                words::more_errors(lately, self.ratio_in(lately), self.are_refused(lately))
            }),
        }
    }

    /// Returns what the canary answers instead. Faults of the caller that are nearly all one status of gRPC are called
    /// that: over gRPC there is no 4xx.
    fn other_answers(&self) -> String {
        let outcomes = self.trial.outcomes();
        let (told, kind) = match outcomes.loudest().unwrap_or(Kind::ClientFault) {
            Kind::Redirect => (Told::Redirects, Kind::Redirect),
            Kind::Empty => (Told::Empty, Kind::Empty),
            Kind::Grpc(status) => (Told::Grpc(status), Kind::Grpc(status)),
            Kind::ClientFault => {
                let faults = self.account.worst(Told::ClientFaults);
                let is_it = |status: &u32| {
                    let all = faults.map_or(0, |faults| faults.split.canary_bad);
                    self.is_mostly(Told::Grpc(*status), all).is_some()
                };
                outcomes
                    .statuses()
                    .find(is_it)
                    .map_or((Told::ClientFaults, Kind::ClientFault), |status| (Told::Grpc(status), Kind::Grpc(status)))
            }
        };
        self.shown(told, |lately| words::other_answers(lately, kind))
    }

    /// Returns the stretch that shows a kind best, if that kind makes up nearly all of so many failures.
    fn is_mostly(&self, told: Told, all: u64) -> Option<Lately> {
        let lately = self.account.worst(told)?;
        let all = all.saturating_mul(MOSTLY.0);
        (lately.split.canary_bad.saturating_mul(MOSTLY.1) >= all).then_some(lately)
    }

    /// Returns the words for the stretch that shows a kind best.
    fn shown(&self, told: Told, words: impl Fn(Lately) -> String) -> String {
        match self.account.worst(told) {
            Some(lately) => words(lately),
            None => words::not_in_sums(&words(self.account.whole(told))),
        }
    }

    /// Returns the slow requests of the quantile that speaks loudest, or of another one that shows it.
    fn slow(&self) -> Option<(Lately, Beyond)> {
        let latency = self.trial.latency();
        let beyond: Vec<Option<Beyond>> = latency.beyond().collect();
        let mut places = latency.loudest().into_iter().chain(0..beyond.len());
        places.find_map(|place| Some((self.account.worst(Told::Slow(place))?, *beyond.get(place)?.as_ref()?)))
    }

    /// Returns what the hard guard saw: hangs and refused connections are called that, if they are what it saw.
    fn broken(&self) -> String {
        let Some(broken) = self.account.worst(Told::Broken) else {
            return words::not_in_sums(&words::broken(self.account.whole(Told::Broken)));
        };
        let all = broken.split.canary_bad;
        if let Some(hung) = self.is_mostly(Told::Hung, all) {
            return words::hung(hung, self.account.overdue());
        }
        match self.is_mostly(Told::Refused, all) {
            Some(refused) => words::refused(refused),
            None => words::broken(broken),
        }
    }

    /// Returns true if nearly all errors of a stretch are connections that were refused.
    fn are_refused(&self, errors: Lately) -> bool {
        self.is_mostly(Told::Refused, errors.split.canary_bad).is_some()
    }

    /// Returns bounds of the rate ratio in a stretch, which was chosen among several.
    fn ratio_in(&self, lately: Lately) -> (Option<f64>, Option<f64>) {
        let mut interval = RatioInterval::default();
        interval.observe(lately.split, Span::ZERO);
        interval.bounds(INTERVAL_ALPHA / count_of(self.account.choices().max(1)))
    }

    /// Returns what would have been caught, and what is not looked at.
    fn caught(&self) -> Caught {
        let latency = self.trial.latency();
        let besides = if !self.config.compares_latency() {
            Besides::NotCompared
        } else if !self.trial.has_latency() {
            Besides::Unknown
        } else if latency.is_ready() && !latency.sees_regression() {
            Besides::BelowFloor { times: self.config.must_detect.latency, floor: self.config.latency.floor }
        } else {
            Besides::Nothing
        };
        let must = self.config.must_detect;
        if self.can_compare() {
            let rate = (must.errors * self.observed.primary_rate()).max(must.errors_at_least).min(1.0);
            return Caught { what: What::Rate(rate), besides };
        }
        let what = self.config.error_limit.map_or(What::Outright, What::Limit);
        Caught { what, besides }
    }
}
