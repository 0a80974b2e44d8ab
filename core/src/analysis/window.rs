//! Cuts what arrives into batches that tests can take in.
//!
//! **Errors travel ahead of requests.** A worker reports by its tick, and at once when a canary fails. Pooled over a large
//! fleet, a window then has the canary's errors of now from all workers, and requests of up to a tick ago from few: where
//! the canary's traffic grows, a healthy one looks broken. So what came ahead is in a window for the hard guard only, and
//! waits for the next regular report of its worker: the tests that compare rates take complete reports
//! ([`Batch::complete`]).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use held::Held;
use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::id::{Arm, BootId, CanaryName, WorkerId};
use crate::outcome::Stratum;
use crate::time::{Span, Timestamp};

mod held;
mod source;

pub use held::WrittenHeld;
pub use source::{EarlyReport, NodeGroup, ReportSource};

/// Length of a window. Windows are aligned, so that all nodes share them.
pub const WINDOW: Span = Span::from_millis(200);

/// Requests of both arms that arrived within one window, summed over all nodes: pairing the arms
/// node by node would cost most of the power where there are many (P23).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Batch {
    /// The end of the window.
    pub end: Timestamp,
    /// Its length.
    pub span: Span,
    /// True while pods are new: the batch counts for the hard guard only.
    pub warmup: bool,
    /// The age at which requests in flight were counted as overdue, if they were.
    pub overdue: Option<Span>,
    /// Traffic of the judged virtual host.
    pub judged: Arms,
    /// Traffic that called an arm by its own name: it shows that there is some, and is never
    /// compared (P7).
    pub direct: Arms,
    /// Who reported it, if all of it comes from one node group.
    #[serde(rename = "seat")]
    pub node_group: NodeGroup,
    /// What was judged, by node group, if there are several: no single node decides (P24).
    #[serde(rename = "by_seat")]
    pub by_node_group: BTreeMap<NodeGroup, Arms>,
    /// The same window with what is complete by now; nothing where that is all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<Box<Self>>,
}

/// Counts of both arms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arms {
    /// What the primary served.
    pub primary: Counts,
    /// What the canary served.
    pub canary: Counts,
}

/// Open windows of all canaries.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    open: BTreeMap<Timestamp, BTreeMap<CanaryName, Batch>>,
    /// What came ahead of the requests that belong to it.
    held: Held,
}

impl Arms {
    /// Returns the counts of one arm.
    pub const fn arm(&self, arm: Arm) -> &Counts {
        match arm {
            Arm::Primary => &self.primary,
            Arm::Canary => &self.canary,
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.primary.merge(&other.primary);
        self.canary.merge(&other.canary);
    }

    /// Returns what is left without `part`, which is a part of it.
    #[must_use]
    pub fn without(&self, part: &Self) -> Self {
        Self { primary: self.primary.since(&part.primary), canary: self.canary.since(&part.canary) }
    }

    const fn arm_mut(&mut self, arm: Arm) -> &mut Counts {
        match arm {
            Arm::Primary => &mut self.primary,
            Arm::Canary => &mut self.canary,
        }
    }
}

impl Batch {
    /// Returns the window without what the nodes of a node group reported.
    #[must_use]
    pub fn without(&self, node_group: NodeGroup) -> Self {
        let mut rest =
            Self { end: self.end, span: self.span, warmup: self.warmup, overdue: self.overdue, ..Self::default() };
        // What is left of the sum costs less than adding up all others.
        if let Some(part) = self.by_node_group.get(&node_group) {
            rest.judged = self.judged.without(part);
        } else if !self.by_node_group.is_empty() || self.node_group != node_group {
            rest.judged.clone_from(&self.judged);
        }
        rest.complete = self.complete.as_ref().map(|complete| Box::new(complete.without(node_group)));
        rest
    }

    /// Returns the window with what is complete by now.
    pub fn complete(&self) -> &Self {
        self.complete.as_deref().unwrap_or(self)
    }

    /// Notes the age at which requests in flight were counted as overdue.
    pub fn counted_overdue(&mut self, age: Span) {
        self.overdue = Some(age);
        if let Some(complete) = &mut self.complete {
            complete.overdue = Some(age);
        }
    }

    /// Returns the node groups that reported something, some of them twice.
    pub fn node_groups(&self) -> impl Iterator<Item = NodeGroup> + '_ {
        self.own_seats().chain(self.complete.iter().flat_map(|complete| complete.own_seats()))
    }

    fn own_seats(&self) -> impl Iterator<Item = NodeGroup> + '_ {
        let only = self.by_node_group.is_empty().then_some(self.node_group);
        only.into_iter().chain(self.by_node_group.keys().copied())
    }

    /// Adds what follows to a window, which then lasts until both have ended.
    pub fn extend(&mut self, next: &Self) {
        if self.complete.is_some() || next.complete.is_some() {
            self.completed().extend(next.complete());
        }
        self.split_up(next.own_seats());
        self.span = self.span.plus(next.span);
        self.end = self.end.max(next.end);
        self.warmup |= next.warmup;
        self.overdue = self.overdue.min(next.overdue).or(self.overdue).or(next.overdue);
        self.judged.merge(&next.judged);
        self.direct.merge(&next.direct);
        if self.by_node_group.is_empty() {
            return;
        }
        if next.by_node_group.is_empty() {
            self.by_node_group.entry(next.node_group).or_default().merge(&next.judged);
        }
        for (node_group, more) in &next.by_node_group {
            self.by_node_group.entry(*node_group).or_default().merge(more);
        }
    }

    /// Returns what is complete, told apart from now on.
    fn completed(&mut self) -> &mut Self {
        if self.complete.is_none() {
            self.complete = Some(Box::new(Self { direct: Arms::default(), ..self.clone() }));
        }
        self.complete.get_or_insert_default()
    }

    /// Adds what is complete.
    fn add(&mut self, node_group: NodeGroup, arm: Arm, counts: &Counts) {
        if let Some(complete) = &mut self.complete {
            complete.add_here(node_group, arm, counts);
        }
        self.add_here(node_group, arm, counts);
    }

    /// Adds what came ahead.
    fn add_ahead(&mut self, node_group: NodeGroup, arm: Arm, counts: &Counts) {
        self.completed();
        self.add_here(node_group, arm, counts);
    }

    /// Adds what came ahead in a window before, and is complete now.
    fn add_completed(&mut self, node_group: NodeGroup, arm: Arm, counts: &Counts) {
        self.completed().add_here(node_group, arm, counts);
    }

    fn add_here(&mut self, node_group: NodeGroup, arm: Arm, counts: &Counts) {
        self.split_up([node_group].into_iter());
        if !self.by_node_group.is_empty() {
            self.by_node_group.entry(node_group).or_default().arm_mut(arm).merge(counts);
        }
        self.judged.arm_mut(arm).merge(counts);
    }

    /// Begins to tell node groups apart when another one than the only one so far comes in.
    fn split_up(&mut self, mut node_groups: impl Iterator<Item = NodeGroup>) {
        if self.by_node_group.is_empty() && node_groups.any(|node_group| node_group != self.node_group) {
            self.by_node_group.insert(self.node_group, self.judged.clone());
        }
    }
}

impl Windows {
    /// Returns windows without content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds counts to the window of their arrival. Clocks of other machines play no part (P10).
    pub fn add(
        &mut self,
        canary: &CanaryName,
        sender: impl Into<ReportSource>,
        arm: Arm,
        stratum: Stratum,
        counts: &Counts,
        arrived: Timestamp,
    ) {
        let ReportSource { node_group, ahead } = sender.into();
        let batch = self.window(canary, node_group, arrived);
        match (stratum, ahead) {
            // What is never compared waits for nothing.
            (Stratum::Direct, _) => batch.direct.arm_mut(arm).merge(counts),
            (Stratum::Judged, None) => batch.add(node_group, arm, counts),
            (Stratum::Judged, Some(ahead)) => {
                batch.add_ahead(node_group, arm, counts);
                self.held.add(ahead, canary, node_group, arm, counts, arrived);
            }
        }
    }

    /// Notes that a worker reported by its tick: what it sent ahead before is complete.
    pub fn caught_up(&mut self, boot: BootId, worker: WorkerId, arrived: Timestamp) {
        if let Some(shares) = self.held.take((boot, worker)) {
            self.complete(shares, arrived);
        }
    }

    fn complete(&mut self, shares: Vec<held::Share>, at: Timestamp) {
        for share in shares {
            let batch = self.window(&share.canary, share.node_group, at);
            batch.add_completed(share.node_group, share.arm, &share.counts);
        }
    }

    fn window(&mut self, canary: &CanaryName, node_group: NodeGroup, at: Timestamp) -> &mut Batch {
        let start = at.window_start(WINDOW);
        let open = self.open.entry(start).or_default();
        let fresh = || Batch { end: start.plus(WINDOW), span: WINDOW, node_group, ..Batch::default() };
        open.entry(canary.clone()).or_insert_with(fresh)
    }

    /// Returns the windows that are over, in order of time, and forgets them.
    pub fn close(&mut self, now: Timestamp) -> Vec<(CanaryName, Batch)> {
        while let Some((due, shares)) = self.held.take_due(now) {
            self.complete(shares, due);
        }
        let mut closed = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            if entry.key().plus(WINDOW) > now {
                break;
            }
            closed.extend(entry.remove());
        }
        closed
    }

    /// Forgets what is open of a canary: its rollout is over, and the next one has no part in it.
    pub fn forget(&mut self, canary: &CanaryName) {
        self.open.retain(|_, batches| {
            batches.remove(canary);
            !batches.is_empty()
        });
        self.held.forget(canary);
    }

    /// Returns the windows that are open, to be written down with the ledger: what is in one is in neither the
    /// judge's evidence nor, after the ledger's mark, in any report to come.
    pub fn open(&self) -> Vec<(CanaryName, Batch)> {
        let windows = self.open.values().flatten();
        windows.map(|(canary, batch)| (canary.clone(), batch.clone())).collect()
    }

    /// Returns what waits for its worker, to be written down with them: it is in a window for the hard guard, and in none
    /// for the other tests yet.
    pub fn held(&self) -> Vec<WrittenHeld> {
        self.held.written()
    }

    /// Returns windows with what was written down.
    pub fn restore(written: Vec<(CanaryName, Batch)>, held: Vec<WrittenHeld>) -> Self {
        let mut open = BTreeMap::<Timestamp, BTreeMap<CanaryName, Batch>>::new();
        for (canary, batch) in written {
            open.entry(batch.end.minus(batch.span)).or_default().insert(canary, batch);
        }
        Self { open, held: Held::restore(held) }
    }

    /// Returns when the next window is over, if one is open.
    pub fn next_end(&self) -> Option<Timestamp> {
        let open = self.open.keys().next().copied();
        let start = open.into_iter().chain(self.held.next_due().map(|due| due.window_start(WINDOW))).min();
        start.map(|start| start.plus(WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(count: u64) -> Counts {
        Counts { started: count, ..Counts::default() }
    }

    #[test]
    fn windows_are_cut_by_arrival_and_closed_once() {
        let canary = CanaryName::new("prod", "backend");
        let at = Timestamp::from_millis;
        let mut windows = Windows::new();
        for (millis, arm, stratum) in [
            (1_050, Arm::Primary, Stratum::Judged),
            (1_199, Arm::Canary, Stratum::Judged),
            (1_199, Arm::Canary, Stratum::Direct),
            (1_200, Arm::Canary, Stratum::Judged),
        ] {
            windows.add(&canary, NodeGroup(0), arm, stratum, &started(3), at(millis));
        }
        assert_eq!(windows.next_end(), Some(at(1_200)));
        assert!(windows.close(at(1_199)).is_empty());
        let closed = windows.close(at(1_200));
        assert_eq!(closed.len(), 1);
        let batch = &closed[0].1;
        assert_eq!(Arm::ALL.map(|arm| batch.judged.arm(arm).started), [3, 3]);
        assert_eq!(batch.direct.canary.started, 3);
        assert_eq!(windows.close(at(9_999))[0].1.judged.canary.started, 3);
        assert_eq!(windows.next_end(), None);
    }

    #[test]
    fn what_each_seat_reported_can_be_left_out() {
        let canary = CanaryName::new("prod", "backend");
        let now = Timestamp::from_millis(1_000);
        let mut windows = Windows::new();
        for (node_group, arm, count) in
            [(3, Arm::Primary, 5), (1, Arm::Primary, 7), (1, Arm::Canary, 2), (3, Arm::Canary, 1), (3, Arm::Primary, 4)]
        {
            windows.add(&canary, NodeGroup(node_group), arm, Stratum::Judged, &started(count), now);
        }
        let batch = windows.close(now.plus(WINDOW)).remove(0).1;
        let shown = |batch: &Batch| Arm::ALL.map(|arm| batch.judged.arm(arm).started);
        assert_eq!(shown(&batch), [16, 3]);
        assert_eq!([0, 1, 3].map(|node_group| shown(&batch.without(NodeGroup(node_group)))), [[16, 3], [9, 1], [7, 2]]);

        // Windows of one node group each, put together, are told apart again.
        let alone = |node_group: u8, count: u64| {
            let mut windows = Windows::new();
            windows.add(&canary, NodeGroup(node_group), Arm::Canary, Stratum::Judged, &started(count), now);
            windows.close(now.plus(WINDOW)).remove(0).1
        };
        let mut both = alone(1, 10);
        both.extend(&alone(1, 5));
        assert!(both.by_node_group.is_empty());
        both.extend(&alone(2, 1));
        both.extend(&batch);
        assert_eq!([0, 1, 2, 3].map(|node_group| shown(&both.without(NodeGroup(node_group)))[1]), [19, 2, 18, 18]);
        assert_eq!(both.span, Span::from_millis(800));
    }

    const WORKER: (BootId, WorkerId) = (BootId::new(1), WorkerId::new(7));

    fn ahead(node_group: u8) -> ReportSource {
        ReportSource {
            node_group: NodeGroup(node_group),
            ahead: Some(EarlyReport { worker: WORKER, tick: Span::from_secs(5) }),
        }
    }

    /// Requests of the canary that have arrived, and that are complete.
    fn canary(batch: &Batch) -> [u64; 2] {
        [batch.judged.canary.started, batch.complete().judged.canary.started]
    }

    #[test]
    fn what_comes_ahead_is_complete_with_the_next_report_of_its_worker() {
        let name = CanaryName::new("prod", "backend");
        let at = Timestamp::from_millis;
        let mut windows = Windows::new();
        let add = |windows: &mut Windows, sender: ReportSource, count, millis| {
            windows.add(&name, sender, Arm::Canary, Stratum::Judged, &started(count), at(millis));
        };
        add(&mut windows, NodeGroup(1).into(), 5, 1_000);
        add(&mut windows, ahead(2), 3, 1_010);
        add(&mut windows, ahead(2), 2, 1_030);
        add(&mut windows, NodeGroup(1).into(), 1, 1_040);
        let first = windows.close(at(1_200)).remove(0).1;
        assert_eq!(canary(&first), [11, 6]);
        assert_eq!([1, 2].map(|node_group| canary(&first.without(NodeGroup(node_group)))), [[5, 0], [6, 6]]);

        // Others do not make it complete.
        windows.caught_up(WORKER.0, WorkerId::new(8), at(1_300));
        add(&mut windows, NodeGroup(1).into(), 4, 1_300);
        let second = windows.close(at(1_400)).remove(0).1;
        assert_eq!((canary(&second), second.complete.is_some()), ([4, 4], false));

        windows.caught_up(WORKER.0, WORKER.1, at(5_100));
        add(&mut windows, NodeGroup(2).into(), 7, 5_100);
        let third = windows.close(at(5_200)).remove(0).1;
        assert_eq!(canary(&third), [7, 12]);
        let mut all = first;
        all.extend(&second);
        all.extend(&third);
        assert_eq!(canary(&all), [22, 22]);
        assert_eq!([1, 2].map(|node_group| canary(&all.without(NodeGroup(node_group)))), [[12, 12], [10, 10]]);
        assert_eq!((windows.held(), windows.next_end()), (Vec::new(), None));
    }

    #[test]
    fn a_worker_that_is_gone_is_not_waited_for_and_a_restart_loses_nothing() {
        let name = CanaryName::new("prod", "backend");
        let at = Timestamp::from_millis;
        let mut windows = Windows::new();
        windows.add(&name, ahead(2), Arm::Canary, Stratum::Judged, &started(3), at(1_010));
        windows.add(&name, ahead(2), Arm::Canary, Stratum::Direct, &started(9), at(1_010));
        let written = |windows: &Windows| {
            let text = serde_json::to_string(&(windows.open(), windows.held())).unwrap();
            let (open, held) = serde_json::from_str(&text).unwrap();
            Windows::restore(open, held)
        };
        windows = written(&windows);
        let first = windows.close(at(1_200)).remove(0).1;
        assert_eq!((canary(&first), first.direct.canary.started), ([3, 0], 9));
        windows = written(&windows);
        assert_eq!(windows.next_end(), Some(at(6_200)), "a tick and a little, to the end of its window");
        assert!(windows.close(at(6_199)).is_empty());
        let last = windows.close(at(6_200));
        assert_eq!(last.iter().map(|(_, batch)| canary(batch)).collect::<Vec<_>>(), [[0, 3]]);
        assert!(windows.close(at(60_000)).is_empty() && windows.held().is_empty());
    }
}
