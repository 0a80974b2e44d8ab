//! What nodes say of a canary, from their reports to the judge.

use std::collections::BTreeSet;

use wingbeat_api::setup::Measure;
use wingbeat_core::analysis::judge::Flowing;
use wingbeat_core::analysis::ledger::Delta;
use wingbeat_core::analysis::window::{Batch, Seat};
use wingbeat_core::id::{Arm, NodeId, Rev};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::rollout::Pace;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::canary::{Canary, Heard, MAX_NODES, Node, RATIO_ALPHA, RECENT, SETTLED};

impl Canary {
    /// Returns the seat of a voice among those that report.
    pub(in crate::engine) fn seat(&mut self, voice: &NodeId, now: Timestamp) -> Seat {
        self.judge.seat(voice, now)
    }

    /// Says how many voices take configuration or report: what few of them say at first waits for the others.
    pub(in crate::engine) const fn expect(&mut self, voices: usize) {
        self.judge.expect(voices);
    }

    /// Notes what a node serves, which reports every `tick` by this voice.
    pub(in crate::engine) fn saw(&mut self, arm: Arm, delta: &Delta, voice: &NodeId, tick: Span, now: Timestamp) {
        let node = &delta.node;
        let counts = &delta.counts;
        if self.nodes.len() < MAX_NODES || self.nodes.contains_key(node) {
            let held = self.nodes.entry(node.clone()).or_insert_with(|| Node {
                rev: Rev::default(),
                last: now,
                tick,
                voice: voice.clone(),
                uncounted: 0,
            });
            held.tick = tick;
            held.voice.clone_from(voice);
            held.rev = held.rev.max(counts.rev);
            held.last = now;
            held.uncounted = held.uncounted.saturating_add(counts.uncounted);
        }
        // Before the share flows, requests of the routes before are still on their way in; what a report tells began up
        // to a tick before it.
        if let Some(ratios) = &mut self.ratios
            && delta.stratum == Stratum::Judged
            && self.flow.since().is_some_and(|since| now.since(since) > tick.plus(SETTLED))
        {
            match arm {
                Arm::Canary => ratios.observe(node, counts.started, 0),
                Arm::Primary => ratios.observe(node, 0, counts.started),
            }
        }
        self.flow.observe(node, counts, tick, now);
    }

    /// Returns the rev of an abort that an earlier run of ours served and could not store, if nodes serve it now that one
    /// has said that it serves `shown`. Where there are three voices, two have to say so: one alone may make it up (P24).
    /// `before` says how many took part in the rollout before the restart: the first to be heard again is not the only one.
    pub(in crate::engine) fn served_abort(&self, shown: Rev, before: impl FnOnce() -> usize) -> Option<Rev> {
        self.state.resumed?;
        let abort = self.state.unstored_abort();
        if shown != abort {
            return None;
        }
        let voices = |serving: &dyn Fn(&Node) -> bool| {
            let voices: BTreeSet<&NodeId> =
                self.nodes.values().filter(|node| serving(node)).map(|node| &node.voice).collect();
            voices.len()
        };
        let heard = voices(&|_| true);
        // Who is there need not be counted again.
        let there = if heard >= 3 { heard } else { heard.max(before()) };
        let needed = if there >= 3 { 2 } else { 1 };
        (voices(&|node| node.rev == abort) >= needed).then_some(abort)
    }

    /// Returns what people are to be told that they were not told yet.
    pub(in crate::engine) fn news(&mut self) -> Vec<String> {
        let notices = self.assessed.as_ref().map(|assessed| assessed.notices.as_slice()).unwrap_or_default();
        let news = notices.iter().filter(|notice| !self.noticed.contains(&notice.about));
        let news = news.map(|notice| notice.text.clone()).collect();
        self.noticed = notices.iter().map(|notice| notice.about).collect();
        news
    }

    /// Returns whether the share reaches the proxies. Routes that go by marks reach them only where the filters know
    /// whom to mark.
    pub(super) fn flowing(&mut self, now: Timestamp, heard: Heard<'_>) -> Flowing {
        self.nodes.retain(|_, node| !node.is_silent(now));
        if let Some(since) = heard.nothing_since {
            return Flowing::Unheard { since };
        }
        let unaware = heard.unaware;
        match self.flow.assess(now) {
            Flowing::Yes if !unaware.is_empty() => Flowing::No { laggards: unaware.to_vec() },
            Flowing::Yes => match self.ratios.as_ref().and_then(|ratios| ratios.astray(RATIO_ALPHA)) {
                Some(nodes) => Flowing::Astray { nodes },
                None => Flowing::Yes,
            },
            flowing @ (Flowing::No { .. } | Flowing::Astray { .. } | Flowing::Unheard { .. }) => flowing,
        }
    }

    /// Takes a window that is over.
    pub(in crate::engine) fn observe(&mut self, mut batch: Batch) {
        if !self.is_judged() {
            return;
        }
        self.asked = None;
        // Some workers may not have the latest limit yet: what is surely true of every overdue request.
        batch.counted_overdue(self.limits.surely_overdue());
        let batch = &batch;
        self.judge.observe(batch);
        self.chart(batch);
        self.totals.primary.merge(&batch.judged.primary);
        self.totals.canary.merge(&batch.judged.canary);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(batch.clone());
        if self.managed.plan.pace() == Pace::Checks {
            self.remember(batch);
        }
        self.limits.follow(batch);
    }

    fn remember(&mut self, batch: &Batch) {
        let own = self.managed.measures.iter().filter_map(|measure| match measure {
            Measure::Filters(check) => Some(check.interval),
            Measure::Prometheus(_) => None,
        });
        let longest = own.max().unwrap_or(Span::ZERO);
        self.history.push_back((batch.end, batch.complete().judged.canary.clone()));
        while self.history.front().is_some_and(|(end, _)| batch.end.since(*end) > longest) {
            self.history.pop_front();
        }
    }
}
