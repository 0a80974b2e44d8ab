//! What nodes say of a canary, from their reports to the judge.

use std::collections::BTreeSet;
use std::sync::Arc;

use wingbeat_api::desired_state::MetricProvider;
use wingbeat_core::analysis::judge::{Propagation, Sources};
use wingbeat_core::analysis::ledger::Delta;
use wingbeat_core::analysis::window::{Batch, NodeGroup};
use wingbeat_core::id::{Arm, NodeId, Rev};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::rollout::Pace;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::canary::{Canary, FleetStatus, MAX_NODES, Node, RATIO_ALPHA, RECENT, SETTLED};

impl Canary {
    /// Returns the node group of a source among those that report.
    pub(in crate::engine) fn node_group(&mut self, source: &NodeId, now: Timestamp) -> NodeGroup {
        self.judge().node_group(source, now)
    }

    /// Says who takes configuration or reports, and whose reports are late: what few say at first waits for the others, and
    /// so does what nobody contradicts whose reports have come.
    pub(in crate::engine) fn expect(
        &mut self,
        sources: Sources,
        late_since: impl Fn(&NodeId) -> Option<Timestamp>,
        now: Timestamp,
    ) {
        self.judge().expect(sources, late_since, now);
    }

    /// Notes what a node serves, which reports every `tick` by this source.
    pub(in crate::engine) fn observe_delta(
        &mut self,
        arm: Arm,
        delta: &Delta,
        source: &NodeId,
        tick: Span,
        now: Timestamp,
    ) {
        let node = &delta.node;
        let counts = &delta.counts;
        if self.nodes.len() < MAX_NODES || self.nodes.contains_key(node) {
            let held = self.nodes.entry(node.clone()).or_insert_with(|| Node {
                rev: Rev::default(),
                last: now,
                tick,
                source: source.clone(),
                uncounted: 0,
            });
            held.tick = tick;
            held.source.clone_from(source);
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
    /// has said that it serves `shown`. Where there are three sources, two have to say so: one alone may make it up (P24).
    /// `before` says how many took part in the rollout before the restart: the first to be heard again is not the only one.
    pub(in crate::engine) fn served_abort(&self, shown: Rev, before: impl FnOnce() -> usize) -> Option<Rev> {
        self.state.resumed?;
        if !self.state.is_unstored_abort(shown) {
            return None;
        }
        let sources = |serving: &dyn Fn(&Node) -> bool| {
            let sources: BTreeSet<&NodeId> =
                self.nodes.values().filter(|node| serving(node)).map(|node| &node.source).collect();
            sources.len()
        };
        let heard = sources(&|_| true);
        // Who is there need not be counted again.
        let there = if heard >= 3 { heard } else { heard.max(before()) };
        let needed = if there >= 3 { 2 } else { 1 };
        (sources(&|node| node.rev == shown) >= needed).then_some(shown)
    }

    /// Returns what people are to be told that they were not told yet.
    pub(in crate::engine) fn take_notices(&mut self) -> Vec<String> {
        let notices = self.assessed.as_ref().map(|assessed| assessed.notices.as_slice()).unwrap_or_default();
        let news = notices.iter().filter(|notice| !self.noticed.contains(&notice.about));
        let news = news.map(|notice| notice.text.clone()).collect();
        self.noticed = notices.iter().map(|notice| notice.about).collect();
        news
    }

    /// Returns whether the share reaches the proxies. Routes that go by marks reach them only where the filters know
    /// whom to mark.
    pub(super) fn propagation(&mut self, now: Timestamp, heard: FleetStatus<'_>) -> Propagation {
        self.nodes.retain(|_, node| !node.is_silent(now));
        if let Some(since) = heard.nothing_since {
            return Propagation::Unknown { since };
        }
        let unaware = heard.unaware;
        match self.flow.assess(now) {
            Propagation::Effective if !unaware.is_empty() => Propagation::Unassigned { nodes: unaware.to_vec() },
            Propagation::Effective => match self.ratios.as_ref().and_then(|ratios| ratios.skewed(RATIO_ALPHA)) {
                Some(nodes) => Propagation::Skewed { nodes },
                None => Propagation::Effective,
            },
            propagation @ (Propagation::Pending { .. }
            | Propagation::Unassigned { .. }
            | Propagation::Skewed { .. }
            | Propagation::Unknown { .. }) => propagation,
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
        self.judge().observe(batch);
        self.chart(batch);
        Arc::make_mut(&mut self.totals).merge(&batch.judged);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(batch.clone());
        if self.config.plan.pace() == Pace::Checks {
            self.append(batch);
        }
        Arc::make_mut(&mut self.limits).follow(batch);
    }

    fn append(&mut self, batch: &Batch) {
        let own = self.config.metric_providers.iter().filter_map(|measure| match measure {
            MetricProvider::Filters(check) => Some(check.interval),
            MetricProvider::Prometheus(_) => None,
        });
        let longest = own.max().unwrap_or(Span::ZERO);
        self.history.push_back((batch.end, batch.complete().judged.canary.clone()));
        while self.history.front().is_some_and(|(end, _)| batch.end.since(*end) > longest) {
            self.history.pop_front();
        }
    }
}
