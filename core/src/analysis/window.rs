//! Cuts what arrives into batches that tests can take in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::id::{Arm, CanaryName};
use crate::outcome::Stratum;
use crate::time::{Span, Timestamp};

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
    /// Its requests on new upstream connections, compared among themselves (P6).
    pub new_connection: Arms,
    /// Traffic that called an arm by its own name: it shows that there is some, and is never
    /// compared (P7).
    pub direct: Arms,
    /// Who reported it, if all of it comes from one seat.
    pub seat: Seat,
    /// The same by seat, if there are several: no single node decides (P24).
    pub parts: BTreeMap<Seat, Part>,
}

/// What the nodes of one seat reported of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Traffic of the judged virtual host.
    pub judged: Arms,
    /// Its requests on new upstream connections.
    pub new_connection: Arms,
}

/// A place that a node has among those that report, or shares with others where there are many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seat(pub u8);

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
    /// Returns the window without what the nodes of a seat reported.
    #[must_use]
    pub fn without(&self, seat: Seat) -> Self {
        let mut rest =
            Self { end: self.end, span: self.span, warmup: self.warmup, overdue: self.overdue, ..Self::default() };
        // What is left of the sum costs less than adding up all others.
        if let Some(part) = self.parts.get(&seat) {
            rest.judged = self.judged.without(&part.judged);
            rest.new_connection = self.new_connection.without(&part.new_connection);
        } else if !self.parts.is_empty() || self.seat != seat {
            rest.judged.clone_from(&self.judged);
            rest.new_connection.clone_from(&self.new_connection);
        }
        rest
    }

    /// Returns the seats that reported something.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        let only = self.parts.is_empty().then_some(self.seat);
        only.into_iter().chain(self.parts.keys().copied())
    }

    /// Adds what follows to a window, which then lasts until both have ended.
    pub fn extend(&mut self, next: &Self) {
        self.split_up(next.seats());
        self.span = self.span.plus(next.span);
        self.end = self.end.max(next.end);
        self.warmup |= next.warmup;
        self.overdue = self.overdue.min(next.overdue).or(self.overdue).or(next.overdue);
        self.judged.merge(&next.judged);
        self.new_connection.merge(&next.new_connection);
        self.direct.merge(&next.direct);
        if self.parts.is_empty() {
            return;
        }
        if next.parts.is_empty() {
            let part = self.parts.entry(next.seat).or_default();
            part.judged.merge(&next.judged);
            part.new_connection.merge(&next.new_connection);
        }
        for (seat, more) in &next.parts {
            let part = self.parts.entry(*seat).or_default();
            part.judged.merge(&more.judged);
            part.new_connection.merge(&more.new_connection);
        }
    }

    fn add(&mut self, seat: Seat, arm: Arm, stratum: Stratum, counts: &Counts) {
        if matches!(stratum, Stratum::Direct | Stratum::Shadow) {
            self.direct.arm_mut(arm).merge(counts);
            return;
        }
        self.split_up([seat].into_iter());
        if !self.parts.is_empty() {
            let part = self.parts.entry(seat).or_default();
            chosen(stratum, &mut part.judged, &mut part.new_connection).arm_mut(arm).merge(counts);
        }
        chosen(stratum, &mut self.judged, &mut self.new_connection).arm_mut(arm).merge(counts);
    }

    /// Begins to tell seats apart when another one than the only one so far comes in.
    fn split_up(&mut self, mut seats: impl Iterator<Item = Seat>) {
        if self.parts.is_empty() && seats.any(|seat| seat != self.seat) {
            let (judged, new_connection) = (self.judged.clone(), self.new_connection.clone());
            self.parts.insert(self.seat, Part { judged, new_connection });
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
        seat: Seat,
        arm: Arm,
        stratum: Stratum,
        counts: &Counts,
        arrived: Timestamp,
    ) {
        let start = arrived.window_start(WINDOW);
        let open = self.open.entry(start).or_default();
        if let Some(batch) = open.get_mut(canary) {
            return batch.add(seat, arm, stratum, counts);
        }
        let batch = Batch { end: start.plus(WINDOW), span: WINDOW, seat, ..Batch::default() };
        open.entry(canary.clone()).or_insert(batch).add(seat, arm, stratum, counts);
    }

    /// Returns the windows that are over, in order of time, and forgets them.
    pub fn close(&mut self, now: Timestamp) -> Vec<(CanaryName, Batch)> {
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
    }

    /// Returns the windows that are open, to be written down with the ledger: what is in one is in neither the
    /// judge's evidence nor, after the ledger's mark, in any report to come.
    pub fn open(&self) -> Vec<(CanaryName, Batch)> {
        let windows = self.open.values().flatten();
        windows.map(|(canary, batch)| (canary.clone(), batch.clone())).collect()
    }

    /// Returns windows with what was written down.
    pub fn restore(written: Vec<(CanaryName, Batch)>) -> Self {
        let mut open = BTreeMap::<Timestamp, BTreeMap<CanaryName, Batch>>::new();
        for (canary, batch) in written {
            open.entry(batch.end.minus(batch.span)).or_default().insert(canary, batch);
        }
        Self { open }
    }

    /// Returns when the next window is over, if one is open.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.open.keys().next().map(|start| start.plus(WINDOW))
    }
}

const fn chosen<'a>(stratum: Stratum, judged: &'a mut Arms, new_connection: &'a mut Arms) -> &'a mut Arms {
    if matches!(stratum, Stratum::Judged) { judged } else { new_connection }
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
            (1_200, Arm::Canary, Stratum::NewConnection),
        ] {
            windows.add(&canary, Seat(0), arm, stratum, &started(3), at(millis));
        }
        assert_eq!(windows.next_end(), Some(at(1_200)));
        assert!(windows.close(at(1_199)).is_empty());
        let closed = windows.close(at(1_200));
        assert_eq!(closed.len(), 1);
        let batch = &closed[0].1;
        assert_eq!(Arm::ALL.map(|arm| batch.judged.arm(arm).started), [3, 3]);
        assert_eq!(batch.direct.canary.started, 3);
        assert_eq!(batch.new_connection, Arms::default());
        assert_eq!(windows.close(at(9_999))[0].1.new_connection.canary.started, 3);
        assert_eq!(windows.next_end(), None);
    }

    #[test]
    fn what_each_seat_reported_can_be_left_out() {
        let canary = CanaryName::new("prod", "backend");
        let now = Timestamp::from_millis(1_000);
        let mut windows = Windows::new();
        for (seat, arm, count) in
            [(3, Arm::Primary, 5), (1, Arm::Primary, 7), (1, Arm::Canary, 2), (3, Arm::Canary, 1), (3, Arm::Primary, 4)]
        {
            windows.add(&canary, Seat(seat), arm, Stratum::Judged, &started(count), now);
        }
        let batch = windows.close(now.plus(WINDOW)).remove(0).1;
        let shown = |batch: &Batch| Arm::ALL.map(|arm| batch.judged.arm(arm).started);
        assert_eq!(shown(&batch), [16, 3]);
        assert_eq!([0, 1, 3].map(|seat| shown(&batch.without(Seat(seat)))), [[16, 3], [9, 1], [7, 2]]);

        // Windows of one seat each, put together, are told apart again.
        let alone = |seat: u8, count: u64| {
            let mut windows = Windows::new();
            windows.add(&canary, Seat(seat), Arm::Canary, Stratum::Judged, &started(count), now);
            windows.close(now.plus(WINDOW)).remove(0).1
        };
        let mut both = alone(1, 10);
        both.extend(&alone(1, 5));
        assert!(both.parts.is_empty());
        both.extend(&alone(2, 1));
        both.extend(&batch);
        assert_eq!([0, 1, 2, 3].map(|seat| shown(&both.without(Seat(seat)))[1]), [19, 2, 18, 18]);
        assert_eq!(both.span, Span::from_millis(800));
    }
}
