//! Who reports: the workers that were heard of lately, and what each of them knows of the policy.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::analysis::ledger::WorkerKey;
use wingbeat_core::id::NodeId;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::policy::Divisions;

/// Workers that are kept. Beyond it, the one that is silent longest is forgotten; it is back with its next report.
const MAX_WORKERS: usize = 65_536;

/// Reports a second that one engine grants; more workers report less often (P26).
const REPORTS_PER_SECOND: u64 = 2_000;
/// Bounds of the granted tick while a rollout runs, in milliseconds. Above the upper one, more than
/// [`REPORTS_PER_SECOND`] come.
const TICK_MS: (u64, u64) = (100, 5_000);
/// Bounds of the granted tick while none does. A filter takes up to a minute.
const IDLE_TICK_MS: (u64, u64) = (1_000, 60_000);
/// A worker counts among those that report until two of its ticks have passed without a report, and so much more.
const GRACE: Span = Span::from_secs(5);

/// The workers that report.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerKey, Worker>,
    /// In the order of their last reports.
    order: BTreeSet<(Timestamp, WorkerKey)>,
    /// Workers of each node.
    nodes: BTreeMap<NodeId, usize>,
}

#[derive(Debug)]
struct Worker {
    node: NodeId,
    last: Timestamp,
    /// How it divides hosts.
    divisions: Divisions,
}

impl Fleet {
    /// Notes a report.
    pub(super) fn heard(&mut self, key: WorkerKey, node: &NodeId, divisions: Divisions, now: Timestamp) {
        if !self.forget(key) && self.workers.len() >= MAX_WORKERS {
            self.forget_oldest();
        }
        self.order.insert((now, key));
        *self.nodes.entry(node.clone()).or_default() += 1;
        self.workers.insert(key, Worker { node: node.clone(), last: now, divisions });
    }

    /// Returns the tick that is granted to each, in milliseconds: with it, no more reports come than one engine takes.
    pub(super) fn grant(&mut self, is_judging: bool, now: Timestamp) -> u32 {
        self.expire(is_judging, now);
        u32::try_from(self.tick_ms(is_judging)).unwrap_or(u32::MAX)
    }

    /// Returns how many nodes report.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the nodes with a worker that divides hosts in another way than `wanted`, among those that were heard of
    /// in the last `silent`.
    pub(super) fn unaware(&self, wanted: Divisions, now: Timestamp, silent: Span) -> Vec<NodeId> {
        let lately = self.order.range((now.minus(silent), WorkerKey::default())..);
        let workers = lately.filter_map(|(_, key)| self.workers.get(key));
        let nodes: BTreeSet<&NodeId> =
            workers.filter(|worker| worker.divisions != wanted).map(|worker| &worker.node).collect();
        nodes.into_iter().cloned().collect()
    }

    /// Returns the time between two reports of a worker at which all workers together keep to the budget.
    fn tick_ms(&self, is_judging: bool) -> u64 {
        let (least, most) = if is_judging { TICK_MS } else { IDLE_TICK_MS };
        let workers = u64::try_from(self.workers.len()).unwrap_or(u64::MAX);
        workers.saturating_mul(1_000).div_ceil(REPORTS_PER_SECOND).clamp(least, most)
    }

    /// Forgets who has gone: dead workers are granted nothing, and slow the others down no longer.
    fn expire(&mut self, is_judging: bool, now: Timestamp) {
        let tick = Span::from_millis(self.tick_ms(is_judging));
        let silent = tick.times(2).plus(GRACE);
        while self.order.first().is_some_and(|(last, _)| now.since(*last) > silent) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.first().copied() {
            self.forget(key);
        }
    }

    /// Returns false if it was not known.
    fn forget(&mut self, key: WorkerKey) -> bool {
        let Some(worker) = self.workers.remove(&key) else { return false };
        self.order.remove(&(worker.last, key));
        if let Some(left) = self.nodes.get_mut(&worker.node) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.nodes.remove(&worker.node);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_core::id::{BootId, WorkerId};

    use super::*;

    fn key(worker: u64) -> WorkerKey {
        WorkerKey { boot: BootId::new(1), worker: WorkerId::new(worker) }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Span::from_secs(1_000 + secs))
    }

    fn fleet(workers: u64, now: Timestamp) -> Fleet {
        let mut fleet = Fleet::default();
        for worker in 0..workers {
            fleet.heard(key(worker), &NodeId::new((worker / 4).to_string()), None, now);
        }
        fleet
    }

    #[test]
    fn the_budget_is_shared_among_those_that_report() {
        assert_eq!(fleet(1, at(0)).grant(true, at(0)), 100);
        assert_eq!(fleet(1_000, at(0)).grant(true, at(0)), 500);
        assert_eq!(fleet(60_000, at(0)).grant(true, at(0)), 5_000);
        assert_eq!(fleet(1, at(0)).grant(false, at(0)), 1_000);
        assert_eq!(fleet(10_000, at(0)).grant(false, at(0)), 5_000);
        assert_eq!(fleet(60_000, at(0)).grant(false, at(0)), 30_000);
    }

    /// 8,000 dead workers and one that lives.
    #[test]
    fn the_dead_slow_nobody_down() {
        let mut fleet = fleet(8_000, at(0));
        assert_eq!(fleet.grant(true, at(0)), 4_000);
        for second in 1..20 {
            fleet.heard(key(9_000), &NodeId::new("alive"), None, at(second));
            fleet.grant(true, at(second));
        }
        assert_eq!((fleet.grant(true, at(20)), fleet.nodes(), fleet.workers.len()), (100, 1, 1));
    }

    #[test]
    fn a_hundred_thousand_identities_leave_nothing_behind() {
        let mut fleet = Fleet::default();
        for worker in 0..100_000 {
            fleet.heard(key(worker), &NodeId::new(worker.to_string()), None, at(worker / 10_000));
        }
        assert_eq!(fleet.workers.len(), MAX_WORKERS);
        for second in 0..80 {
            fleet.heard(key(7), &NodeId::new("7"), None, at(20 + second));
            fleet.grant(false, at(20 + second));
        }
        assert_eq!((fleet.workers.len(), fleet.order.len(), fleet.nodes.len()), (1, 1, 1));
    }

    #[test]
    fn who_divides_otherwise_is_named_while_it_reports() {
        let mut fleet = fleet(4, at(0));
        fleet.heard(key(9), &NodeId::new("knows"), Some(5), at(3));
        let silent = Span::from_secs(5);
        assert_eq!(fleet.unaware(Some(5), at(3), silent), [NodeId::new("0")]);
        assert_eq!(fleet.unaware(Some(5), at(6), silent), []);
        assert_eq!(fleet.unaware(Some(6), at(6), silent), [NodeId::new("knows")]);
    }
}
