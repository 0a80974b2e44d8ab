//! What the judge says: the verdict with its reason, and what people are told beside it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::analysis::assessment::{About, Flowing, Notice};
use crate::analysis::config::{Mode, OnOnePod};
use crate::analysis::judge::{INTERVAL_ALPHA, Judge, ONE_NODE_AFTER, STALE, SUSPECT_FOR, TOO_LONG};
use crate::analysis::quorum::Few;
use crate::analysis::signal::{Shares, Signal, SignalMode};
use crate::analysis::words;
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;

impl Judge {
    pub(super) fn verdict(
        &self,
        now: Timestamp,
        flowing: &Flowing,
        missing: Option<u64>,
        eta: Option<Span>,
    ) -> Verdict {
        if self.crossed.is_some() {
            let reason = self.accuse(&self.shares());
            return match self.suspected(now) {
                Some(left) => Verdict::Continue(words::suspect(&reason, left)),
                None => Verdict::Rollback(reason),
            };
        }
        if let Some(reason) = self.without_data(now, flowing) {
            return Verdict::NoData(reason);
        }
        if self.config.mode != Mode::Sequential {
            return Verdict::Continue(words::checks_decide(&self.observed));
        }
        if let Some(rate) = self.baseline.degraded() {
            return Verdict::Continue(words::shared_harm(&self.observed, rate));
        }
        if let Some((_, seat)) = self.rests_on {
            let reason = self.accuse(&self.shares());
            return Verdict::Continue(words::rests_on(&reason, &self.seats.nodes(seat)));
        }
        if let Some((_, seat)) = self.hidden_by {
            return Verdict::Continue(words::hidden_by(&self.seats.nodes(seat)));
        }
        match missing {
            Some(0) => match self.rests_on_few(now) {
                Some(few) => Verdict::Continue(self.few(few)),
                None => Verdict::Advance(words::would_have_been_caught(&self.observed, &self.config)),
            },
            missing => {
                if eta.is_some_and(|eta| eta > TOO_LONG) {
                    return Verdict::NoData(words::too_little(self.step.canary, missing, eta));
                }
                match self.warm_at.filter(|warm| now < *warm) {
                    Some(warm) => Verdict::Continue(words::warming_up(&self.observed, warm.since(now))),
                    None => Verdict::Continue(words::missing(&self.observed, missing, eta)),
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
            notices.insert(About::SharedHarm, words::shared_harm(&self.observed, rate));
        } else if let Some(limit) = self.config.error_limit.filter(|limit| self.baseline.exceeded(*limit)) {
            notices.insert(About::SharedHarm, words::limit_exceeded_before(limit));
        }
        if let Some((since, seat)) = self.rests_on
            && now.since(since) >= ONE_NODE_AFTER
        {
            let reason = self.accuse(&self.shares());
            notices.insert(About::OneNode, words::rests_on(&reason, &self.seats.nodes(seat)));
        }
        if let Some(left) = self.suspected(now) {
            let reason = self.accuse(&self.shares());
            notices.insert(About::OnePod, words::suspect(&reason, left));
        }
        notices.into_iter().map(|(about, text)| Notice { about, text }).collect()
    }

    /// Returns why the canary is rolled back, from the signal that speaks loudest.
    fn accuse(&self, shares: &Shares) -> String {
        let voices = self.voices();
        let loudest = shares.iter().map(|(signal, _)| signal).max_by(|a, b| voices.of(*a).total_cmp(&voices.of(*b)));
        self.words_for(loudest)
    }

    fn words_for(&self, signal: Option<Signal>) -> String {
        let seen = &self.observed;
        match signal {
            Some(Signal::Latency) => words::slower(seen),
            Some(Signal::Guard) if self.trial.guard_rests_on_stalls() => words::stalled(seen),
            Some(Signal::Guard) => words::broken(seen),
            Some(Signal::ErrorLimit) => words::above_limit(seen, self.config.error_limit),
            Some(Signal::LatencyLimit) => words::slower_than_limit(seen, self.config.latency_limit.unwrap_or_default()),
            Some(Signal::Outcomes) => words::other_answers(seen, self.trial.outcomes().loudest()),
            Some(Signal::Attempts) => words::more_attempts(seen),
            Some(Signal::Disconnects) => words::more_disconnects(seen),
            Some(Signal::Errors) | None => words::more_errors(seen, self.interval.bounds(INTERVAL_ALPHA)),
        }
    }
}
