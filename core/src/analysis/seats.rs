//! Who sits where: nodes that report have places, so that each can be left out.
//!
//! A seat's trial leaves out all that ever sat there. So a node that is silent gives its seat away without harm: what it
//! said stays left out of that one trial, together with what its successor says. What must not happen is that a node moves
//! from one seat to another while it reports: what it made up before would be in the trial that leaves it out now. Hence
//! nodes are remembered with their seats, and those of whom there are too many to be remembered have fixed ones.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::window::Seat;
use crate::id::NodeId;
use crate::time::{Span, Timestamp};

/// Seats. Each costs a trial; with more of them, leaving one out loses less.
pub(crate) const SEATS: u8 = 8;

/// So many nodes are remembered. One more takes the place of one that may be forgotten; if there is none, its seat is fixed
/// by its name.
const REMEMBERED: usize = 128;

/// A node that was not heard for so long is silent: newcomers may have its seat.
const SILENT: Span = Span::from_secs(60);

/// A node that was not heard for so long may be forgotten, if there is no room for another: it would get a new seat. One
/// that makes things up has to be silent for so long, while over a hundred others come, to be believed from two seats.
const FORGOTTEN: Span = Span::from_secs(600);

/// The nodes, each with its seat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Seats {
    nodes: BTreeMap<NodeId, Seated>,
    /// When one reported last that is not remembered. As long as some do, nobody is forgotten.
    crowded: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seated {
    seat: Seat,
    last: Timestamp,
}

impl Seats {
    /// Returns the seat of a node that reports.
    pub(crate) fn of(&mut self, node: &NodeId, now: Timestamp) -> Seat {
        if let Some(seated) = self.nodes.get_mut(node) {
            seated.last = seated.last.max(now);
            return seated.seat;
        }
        // One that reported while it was not remembered keeps the seat of its name.
        let crowded = self.crowded.is_some_and(|last| now.since(last) < FORGOTTEN);
        if self.nodes.len() >= REMEMBERED && (crowded || !self.forget_one(now)) {
            self.crowded = Some(now);
            return by_name(node);
        }
        let seat = if crowded { by_name(node) } else { self.emptiest(now) };
        self.nodes.insert(node.clone(), Seated { seat, last: now });
        seat
    }

    /// Returns the nodes of a seat that report, to be named.
    pub(crate) fn nodes(&self, seat: Seat) -> Vec<NodeId> {
        let seated = self.nodes.iter().filter(|(_, seated)| seated.seat == seat);
        let last = seated.clone().map(|(_, seated)| seated.last).max().unwrap_or_default();
        seated.filter(|(_, seated)| !is_silent(**seated, last)).map(|(node, _)| node.clone()).collect()
    }

    /// Forgets the node that is silent for longest, if it is for long enough.
    fn forget_one(&mut self, now: Timestamp) -> bool {
        let longest = self.nodes.iter().min_by_key(|(_, seated)| seated.last);
        let Some(node) =
            longest.filter(|(_, seated)| now.since(seated.last) >= FORGOTTEN).map(|(node, _)| node.clone())
        else {
            return false;
        };
        self.nodes.remove(&node);
        true
    }

    /// Returns the seat with the fewest nodes that report; of several, one where nobody ever sat, or the first.
    fn emptiest(&self, now: Timestamp) -> Seat {
        let sitting = |seat: Seat| {
            let all = self.nodes.values().filter(|seated| seated.seat == seat);
            (all.clone().filter(|seated| !is_silent(**seated, now)).count(), all.count())
        };
        (0..SEATS).map(Seat).min_by_key(|seat| sitting(*seat)).unwrap_or_default()
    }
}

fn is_silent(seated: Seated, now: Timestamp) -> bool {
    now.since(seated.last) >= SILENT
}

fn by_name(node: &NodeId) -> Seat {
    let mut hasher = SipHasher13::new();
    hasher.write(node.as_str().as_bytes());
    Seat(u8::try_from(hasher.finish() % u64::from(SEATS)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn names(numbers: core::ops::Range<u32>) -> Vec<NodeId> {
        numbers.map(|number| NodeId::new(format!("edge-{number}"))).collect()
    }

    fn seated(seats: &mut Seats, names: &[NodeId], now: Timestamp) -> Vec<u8> {
        names.iter().map(|node| seats.of(node, now).0).collect()
    }

    #[test]
    fn the_first_nodes_have_a_seat_each_and_all_keep_theirs() {
        let mut seats = Seats::default();
        let names = names(0..300);
        let taken = seated(&mut seats, &names, START);
        assert_eq!(taken[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        for seat in 0..SEATS {
            let among = |range: core::ops::Range<usize>| {
                taken[range].iter().filter(|taken| Seat(**taken) == Seat(seat)).count()
            };
            assert_eq!(among(0..128), 16, "evenly");
            assert!(among(128..300) > 0, "by name");
        }
        let mut now = START;
        for _ in 0..100 {
            now = now.plus(Span::from_secs(30));
            assert_eq!(seated(&mut seats, &names, now), taken);
        }
        assert_eq!(seats.nodes(Seat(3))[..2], [names[107].clone(), names[11].clone()]);
    }

    #[test]
    fn after_a_thousand_restarts_those_that_live_have_a_seat_each() {
        let mut seats = Seats::default();
        let mut now = START;
        for generation in 0..1_000 {
            let living = names(3 * generation..3 * generation + 3);
            let mut taken = seated(&mut seats, &living, now);
            for _ in 0..7 {
                now = now.plus(Span::from_secs(10));
                assert_eq!(seated(&mut seats, &living, now), taken, "generation {generation}");
            }
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), 3, "generation {generation}: {taken:?}");
        }
        assert!(seats.nodes.len() <= REMEMBERED);
    }

    #[test]
    fn nobody_moves_while_it_reports() {
        let mut seats = Seats::default();
        let all = names(0..200);
        let taken = seated(&mut seats, &all, START);
        // The first fifty leave; places become free, and others report on.
        let mut now = START;
        for _ in 0..60 {
            now = now.plus(Span::from_secs(20));
            assert_eq!(seated(&mut seats, &all[50..], now), taken[50..]);
        }
        let late = names(500..501);
        let seat = seated(&mut seats, &late, now);
        now = now.plus(Span::from_secs(50));
        assert_eq!(seated(&mut seats, &late, now), seat);
    }
}
