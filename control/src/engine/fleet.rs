//! Who reports: the workers that were heard of lately, and what each of them knows of the policy.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::analysis::judge::LATE_FOR;
use wingbeat_core::analysis::ledger::WorkerKey;
use wingbeat_core::id::NodeId;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::budget::{Budget, IDLE_TICK_MS};
use crate::engine::policy::{OutdatedNodes, PolicyNumber, PolicyScope};

/// Workers that are kept, over all sources. Beyond it the one that is silent longest is forgotten; it is back with its next
/// report.
const MAX_WORKERS: usize = 65_536;

/// Workers that are kept of one source. Beyond it, the source gives up the one of its own that is silent longest.
const MAX_WORKERS_OF_SOURCE: usize = 4_096;

/// While few workers report, each does at least this often.
pub const MAX_IDLE_REPORT_INTERVAL: Span = max_interval(Span::from_millis(IDLE_TICK_MS.0));
/// A worker counts among those that report until two of the ticks that it was granted have passed without a report, and
/// so much more.
const GRACE: Span = Span::from_secs(5);

/// The report after one that showed requests is late so long after its tick: what a network and two busy machines may take.
const LATE_AFTER: Span = Span::from_millis(300);

/// The workers that report.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<Identity, ReportingWorker>,
    /// When each is forgotten if it stays silent.
    order: BTreeSet<(Timestamp, Identity)>,
    sources: BTreeMap<NodeId, WorkersOfSource>,
    budget: Budget,
    /// Workers of each node.
    nodes: BTreeMap<NodeId, usize>,
}

#[derive(Debug, Default)]
struct WorkersOfSource {
    /// When each is forgotten if it stays silent.
    order: BTreeSet<(Timestamp, WorkerKey)>,
    /// When the next report of each is late, of those whose latest one showed requests.
    with_traffic: BTreeSet<(Timestamp, WorkerKey)>,
}

/// What a report says of its worker.
#[derive(Debug)]
pub(super) struct WorkerReport<'a> {
    pub(super) key: WorkerKey,
    pub(super) node: &'a NodeId,
    /// Which policy is for it, and the number of the one that it has, if that is known.
    pub(super) knows: (PolicyScope, Option<PolicyNumber>),
    pub(super) traffic: Traffic,
}

/// Whether a report shows requests. After one that does, the next one comes at the next tick, whether there are more or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    Some,
    None,
}

/// A worker is known by its source, too: a key that somebody else claims is another worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    key: WorkerKey,
    source: NodeId,
}

#[derive(Debug)]
struct ReportingWorker {
    node: NodeId,
    last: Timestamp,
    /// When it is forgotten if it stays silent.
    until: Timestamp,
    /// When its next report is late, if the latest one showed requests.
    due: Option<Timestamp>,
    /// Which policy is for it, and the number of the one that it has, if that is known.
    knows: (PolicyScope, Option<PolicyNumber>),
}

impl WorkersOfSource {
    /// Takes the times of a worker out.
    fn remove(&mut self, worker: &ReportingWorker, key: WorkerKey) {
        self.order.remove(&(worker.until, key));
        if let Some(due) = worker.due {
            self.with_traffic.remove(&(due, key));
        }
    }
}

/// Returns the longest time between two reports of a worker that is granted this tick: filters make it longer by up to an
/// eighth, to keep apart.
pub(super) const fn max_interval(tick: Span) -> Span {
    Span::from_nanos(tick.as_nanos().saturating_add(tick.as_nanos() / 8))
}

impl Fleet {
    /// Notes a report. Returns the tick that its worker is granted, in milliseconds: if all keep to it, no more reports
    /// come than one engine takes, and each source has its share of them.
    pub(super) fn observe(
        &mut self,
        source: &NodeId,
        reported: WorkerReport<'_>,
        is_judging: bool,
        now: Timestamp,
    ) -> u32 {
        // Who has gone is granted nothing, and slows the others down no longer.
        while let Some((_, gone)) = self.order.first().filter(|(until, _)| *until < now).cloned() {
            self.forget(&gone);
        }
        let WorkerReport { key, node, knows, traffic } = reported;
        let identity = Identity { key, source: source.clone() };
        let is_new = !self.workers.contains_key(&identity);
        if is_new {
            self.make_room(source);
        }
        let own = self.sources.entry(source.clone()).or_default();
        let before = own.order.len();
        let workers = before.saturating_add(usize::from(is_new));
        self.budget.change(before, workers);
        let tick = self.budget.tick_ms(workers, is_judging);
        let until = now.plus(Span::from_millis(tick).times(2)).plus(GRACE);
        let due = now.plus(max_interval(Span::from_millis(tick))).plus(LATE_AFTER);
        let due = (traffic == Traffic::Some).then_some(due);
        let reporting = ReportingWorker { node: node.clone(), last: now, until, due, knows };
        let before = self.workers.insert(identity.clone(), reporting);
        if let Some(before) = &before {
            own.remove(before, key);
            self.order.remove(&(before.until, identity.clone()));
        }
        own.order.insert((until, key));
        own.with_traffic.extend(due.map(|due| (due, key)));
        self.order.insert((until, identity));
        if before.as_ref().is_none_or(|before| before.node != *node) {
            let workers = self.nodes.entry(node.clone()).or_default();
            *workers = workers.saturating_add(1);
            if let Some(before) = before {
                self.leave(&before.node);
            }
        }
        u32::try_from(tick).unwrap_or(u32::MAX)
    }

    /// Returns since when a source is late: one of its workers had requests, and has neither reported more nor that it has no
    /// more. Who is silent for longer than [`LATE_FOR`] is gone.
    pub(super) fn late_since(&self, source: &NodeId, now: Timestamp) -> Option<Timestamp> {
        let still_waited_for = (now.minus(LATE_FOR), WorkerKey::default())..;
        let (due, _) = self.sources.get(source)?.with_traffic.range(still_waited_for).next()?;
        (*due < now).then_some(*due)
    }

    /// Returns each node with the time of its latest report.
    pub(super) fn reports(&self) -> BTreeMap<&NodeId, Timestamp> {
        let mut reports = BTreeMap::new();
        for worker in self.workers.values() {
            let last = reports.entry(&worker.node).or_insert(worker.last);
            *last = worker.last.max(*last);
        }
        reports
    }

    /// Returns how many workers report.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns how many nodes report.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the nodes with a worker that does not have the policy in force in its place.
    pub(super) fn outdated(&self, in_force: impl Fn(&PolicyScope) -> Option<PolicyNumber>) -> OutdatedNodes {
        let mut outdated: BTreeMap<PolicyScope, BTreeMap<NodeId, Option<PolicyNumber>>> = BTreeMap::new();
        for ReportingWorker { node, knows: (place, has), .. } in self.workers.values() {
            if *place == PolicyScope::Unknown || *has != in_force(place) {
                let oldest = outdated.entry(place.clone()).or_default().entry(node.clone()).or_insert(*has);
                *oldest = (*oldest).min(*has);
            }
        }
        OutdatedNodes(outdated)
    }

    /// Notes that nodes are served something else than before: of nobody it is known what, until it reports again.
    pub(super) fn misplaced(&mut self) {
        self.workers.values_mut().for_each(|worker| worker.knows = (PolicyScope::Unknown, None));
    }

    /// Makes room for one more worker of a source: at its own cost where it has many.
    fn make_room(&mut self, source: &NodeId) {
        let own = self.sources.get(source).map(|workers| &workers.order);
        let own = own.filter(|own| own.len() >= MAX_WORKERS_OF_SOURCE).and_then(BTreeSet::first);
        let oldest = match own {
            Some((_, key)) => Some(Identity { key: *key, source: source.clone() }),
            None if self.workers.len() >= MAX_WORKERS => self.order.first().map(|(_, oldest)| oldest.clone()),
            None => None,
        };
        if let Some(oldest) = oldest {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, identity: &Identity) {
        let Some(worker) = self.workers.remove(identity) else { return };
        self.order.remove(&(worker.until, identity.clone()));
        if let Some(workers) = self.sources.get_mut(&identity.source) {
            let before = workers.order.len();
            workers.remove(&worker, identity.key);
            self.budget.change(before, workers.order.len());
            if workers.order.is_empty() {
                self.sources.remove(&identity.source);
            }
        }
        self.leave(&worker.node);
    }

    /// A node has a worker less.
    fn leave(&mut self, node: &NodeId) {
        if let Some(left) = self.nodes.get_mut(node) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.nodes.remove(node);
            }
        }
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

    /// A report of a worker whose node speaks for itself.
    fn observe(fleet: &mut Fleet, worker: u64, node: &str, is_judging: bool, now: Timestamp) -> u32 {
        let node = NodeId::new(node);
        fleet.observe(&node, of(worker, &node, None), is_judging, now)
    }

    fn of(worker: u64, node: &NodeId, has: Option<PolicyNumber>) -> WorkerReport<'_> {
        WorkerReport { key: key(worker), node, knows: (PolicyScope::Others, has), traffic: Traffic::None }
    }

    const FIFTH: Option<PolicyNumber> = Some(PolicyNumber(5));
    const SIXTH: Option<PolicyNumber> = Some(PolicyNumber(6));

    /// Returns the nodes that do not have this policy, each with the oldest one that it has.
    fn outdated(fleet: &Fleet, in_force: Option<PolicyNumber>) -> BTreeMap<NodeId, Option<PolicyNumber>> {
        fleet.outdated(|_| in_force).0.into_values().flatten().collect()
    }

    /// Four workers a node. Returns the tick that the last one is granted, too.
    fn fleet(workers: u64, is_judging: bool, now: Timestamp) -> (Fleet, u32) {
        let mut fleet = Fleet::default();
        let ticks = (0..workers).map(|worker| observe(&mut fleet, worker, &(worker / 4).to_string(), is_judging, now));
        let tick = ticks.last().unwrap_or_default();
        (fleet, tick)
    }

    #[test]
    fn the_budget_is_shared_among_those_that_report() {
        for (workers, is_judging, tick) in [
            (1, true, 100),
            (1_000, true, 527),
            (60_000, true, 5_000),
            (1, false, 1_000),
            (10_000, false, 5_264),
            (60_000, false, 31_579),
        ] {
            assert_eq!(fleet(workers, is_judging, at(0)).1, tick, "{workers} {is_judging}");
        }
    }

    /// 8,000 dead workers and one that lives.
    #[test]
    fn the_dead_slow_nobody_down() {
        let (mut fleet, tick) = fleet(8_000, true, at(0));
        assert_eq!(tick, 4_211);
        let ticks: Vec<u32> = (1..20).map(|second| observe(&mut fleet, 9_000, "alive", true, at(second))).collect();
        assert_eq!((ticks.last(), fleet.nodes(), fleet.workers.len()), (Some(&100), 1, 1));
    }

    /// Those that were granted a long tick are not gone when a rollout begins and shortens it.
    #[test]
    fn who_is_between_two_reports_is_not_gone() {
        let (mut fleet, _) = fleet(10_000, false, at(0));
        // By now each is granted the tick of all of them.
        for worker in 0..10_000 {
            assert_eq!(observe(&mut fleet, worker, &(worker / 4).to_string(), false, at(1)), 5_264);
        }
        observe(&mut fleet, 0, "0", true, at(15));
        assert_eq!(fleet.workers.len(), 10_000);
    }

    #[test]
    fn a_hundred_thousand_identities_leave_nothing_behind() {
        let mut fleet = Fleet::default();
        for worker in 0..100_000 {
            observe(&mut fleet, worker, &worker.to_string(), false, at(worker / 10_000));
        }
        assert_eq!(fleet.workers.len(), MAX_WORKERS);
        for second in 0..80 {
            observe(&mut fleet, 7, "7", false, at(20 + second));
        }
        assert_eq!((fleet.workers.len(), fleet.order.len(), fleet.sources.len(), fleet.nodes.len()), (1, 1, 1, 1));
    }

    #[test]
    fn the_latest_report_of_each_node_is_known() {
        let (mut fleet, _) = fleet(8, true, at(0));
        observe(&mut fleet, 1, "0", true, at(3));
        let reports = fleet.reports().into_values().collect::<Vec<_>>();
        assert_eq!(reports, [at(3), at(0)]);
    }

    #[test]
    fn one_voice_takes_the_room_of_nobody_else() {
        let (mut fleet, _) = fleet(8, true, at(0));
        let forger = NodeId::new("forger");
        for worker in 0..100_000 {
            fleet.observe(&forger, of(worker, &NodeId::new(worker.to_string()), None), true, at(1));
        }
        assert_eq!(
            (fleet.workers.len(), fleet.sources[&forger].order.len()),
            (8 + MAX_WORKERS_OF_SOURCE, MAX_WORKERS_OF_SOURCE)
        );
        assert_eq!(observe(&mut fleet, 1, "0", true, at(2)), 100, "nor do others report more seldom");
        // A key of somebody else is another worker.
        fleet.observe(&forger, of(0, &NodeId::new("0"), FIFTH), true, at(1));
        assert_eq!(
            outdated(&fleet, FIFTH)[&NodeId::new("0")],
            None,
            "its own worker has none, whatever the other one says"
        );
    }

    #[test]
    fn who_had_requests_is_late_until_it_reports_and_gone_after_a_while() {
        let mut fleet = Fleet::default();
        let node = NodeId::new("0");
        let ms = |millis| at(0).plus(Span::from_millis(millis));
        let report = |fleet: &mut Fleet, worker, traffic, millis| {
            fleet.observe(&node, WorkerReport { traffic, ..of(worker, &node, None) }, true, ms(millis));
        };
        report(&mut fleet, 1, Traffic::None, 0);
        assert_eq!(fleet.late_since(&node, ms(4_000)), None, "silence of who has no requests says nothing");
        report(&mut fleet, 2, Traffic::Some, 0);
        report(&mut fleet, 3, Traffic::Some, 200);
        let due = |millis: u64| Some(ms(millis).plus(Span::from_micros(112_500)).plus(LATE_AFTER));
        assert_eq!([412, 413, 5_412].map(|now| fleet.late_since(&node, ms(now))), [None, due(0), due(0)]);
        assert_eq!(fleet.late_since(&node, ms(5_413)), due(200), "another one is");
        report(&mut fleet, 3, Traffic::None, 300);
        assert_eq!(fleet.late_since(&node, ms(5_413)), None);
        assert_eq!(fleet.late_since(&node, ms(5_000)), due(0));
        report(&mut fleet, 2, Traffic::Some, 5_000);
        assert_eq!(fleet.late_since(&node, ms(5_000)), None);
    }

    #[test]
    fn who_has_another_policy_is_named_while_it_reports() {
        let (mut fleet, _) = fleet(4, true, at(0));
        let knows = NodeId::new("knows");
        let aware = |fleet: &mut Fleet, second| fleet.observe(&knows, of(9, &knows, FIFTH), true, at(second));
        aware(&mut fleet, 3);
        assert_eq!(outdated(&fleet, FIFTH), [(NodeId::new("0"), None)].into());
        aware(&mut fleet, 6);
        assert_eq!(outdated(&fleet, FIFTH), BTreeMap::new());
        assert_eq!(outdated(&fleet, SIXTH), [(knows, FIFTH)].into());
    }
}
