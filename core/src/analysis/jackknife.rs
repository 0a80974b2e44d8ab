//! Whether a verdict rests on one node (P24).
//!
//! A node may err, or lie. So beside the trial over all reports there is one for every seat that leaves its nodes out:
//! the jackknife (Quenouille 1949). Harm that all of them see is there whichever node is left out.
//!
//! A node that hides harm, by reporting a perfect canary or a terrible primary, is in every trial but the one that
//! leaves it out. So one trial that sees harm alone is believed too, at a level that allows for having many to choose
//! from, once it has seen it for a while: where a node makes up harm, the trials with it cross one after the other, and
//! the first of them stands alone for a moment. One that alone sees none is not enough to roll back: there, one node made
//! up the harm.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::config::JudgeConfig;
use super::sequential::count_of;
use super::trial::{Standing, Trial};
use super::window::{Batch, Seat};
use crate::id::NodeId;
use crate::time::Span;

/// Seats. Each costs a trial; with more of them, leaving one out loses less.
const SEATS: u8 = 8;

/// The trials take windows in together up to this length: they are asked only when the trial over all has decided.
const TOGETHER: Span = Span::from_secs(1);

/// Nodes carry traffic when the third seat has so many requests, of either arm: fewer than three are not told apart. If
/// only the canary's counted, a node that is the first to have some would decide alone.
const CARRIES: u64 = 20;

/// Canary requests from which on a trial can contradict: a broken canary shows in so many.
const STANDING: u64 = 10;

/// Where the trial over all decides, those that leave a seat out confirm it with evidence for a chance ten times as large:
/// that harm is found by chance stays as unlikely as it is over all, and a node that lies gets a healthy canary rolled
/// back with a chance of 10·α. To ask for all of it from each of them would take twice as long.
const CONFIRMS: f64 = core::f64::consts::LN_10;

/// A trial that sees harm alone needs evidence for this many times as rare a chance, times the number of trials: so
/// much of α is set aside for it.
const ALONE: f64 = 8.0;

/// Who sits where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seats {
    /// The first nodes have a seat each; later ones share them.
    first: Vec<NodeId>,
}

/// The trials without one seat each, for seats that had something to report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Jackknife {
    trials: BTreeMap<Seat, Trial>,
    /// What they have not taken in yet.
    pending: Option<Batch>,
    standing: Standing,
    /// The only seat so far: there is nothing to leave out.
    only: Option<Seat>,
}

/// What leaving out says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// There are not enough nodes to leave one out: the trial over all decides.
    TooFew,
    /// All see harm.
    Harm,
    /// Only without this seat there is harm: its nodes may hide it.
    HiddenBy(Seat),
    /// Without this seat there is no harm; or with only one more to see it, not enough yet.
    RestsOn(Seat),
    /// There is no harm whichever seat is left out.
    None,
}

impl Seats {
    /// Returns the seat of a node.
    pub(crate) fn of(&mut self, node: &NodeId) -> Seat {
        if let Some(place) = self.first.iter().position(|seated| seated == node) {
            return Seat(u8::try_from(place).unwrap_or(0));
        }
        if let Ok(place) = u8::try_from(self.first.len())
            && place < SEATS
        {
            self.first.push(node.clone());
            return Seat(place);
        }
        let mut hasher = SipHasher13::new();
        hasher.write(node.as_str().as_bytes());
        Seat(u8::try_from(hasher.finish() % u64::from(SEATS)).unwrap_or(0))
    }

    /// Returns a node of a seat, to be named.
    pub(crate) fn node(&self, seat: Seat) -> Option<&NodeId> {
        self.first.get(usize::from(seat.0))
    }
}

impl Jackknife {
    /// Takes in a window; `all` is the trial over all before it does.
    pub(crate) fn observe(&mut self, batch: &Batch, standing: Standing, all: &Trial, config: &JudgeConfig) {
        let only = *self.only.get_or_insert(batch.seat);
        if self.trials.is_empty() && batch.seats().all(|seat| seat == only) {
            return;
        }
        if self.pending.is_some() && self.standing != standing {
            self.flush(config);
        }
        for seat in [only].into_iter().chain(batch.seats()) {
            if self.trials.contains_key(&seat) {
                continue;
            }
            // Up to now, nothing came from this seat, and everything from the only other one.
            self.flush(config);
            let without = if seat == only { Trial::new(config) } else { all.clone() };
            self.trials.insert(seat, without);
        }
        self.standing = standing;
        match &mut self.pending {
            Some(pending) => pending.extend(batch),
            None => self.pending = Some(batch.clone()),
        }
        if self.pending.as_ref().is_some_and(|pending| pending.span >= TOGETHER) {
            self.flush(config);
        }
    }

    /// Lets the trials take in what waits.
    pub(crate) fn flush(&mut self, config: &JudgeConfig) {
        let Some(pending) = self.pending.take() else { return };
        for (seat, trial) in &mut self.trials {
            trial.observe(&pending.without(*seat), self.standing, config);
        }
    }

    /// Notes that a step began.
    pub(crate) fn step_started(&mut self, config: &JudgeConfig) {
        self.flush(config);
        self.trials.values_mut().for_each(Trial::step_started);
    }

    /// Holds the canary to another limit from now on.
    pub(crate) fn limit_errors(&mut self, limit: f64) {
        self.trials.values_mut().for_each(|trial| trial.limit_errors(limit));
    }

    /// Returns what the trials say of harm, by their total evidence; `over_all` is that of the trial over all, which needs
    /// `decisive`. `waited` is true if the trial over all has decided some time ago: trials that have seen next to nothing
    /// since contradict nothing, as where one node has nearly all traffic.
    pub(crate) fn harm(
        &self,
        all: &Trial,
        over_all: f64,
        decisive: f64,
        waited: bool,
        total: impl Fn(&Trial) -> f64,
    ) -> Opinion {
        if !self.is_manned(all) {
            return Opinion::TooFew;
        }
        let asked = self.trials.iter().filter(|(_, trial)| !waited || trial.seen() >= STANDING);
        let seen: Vec<(Seat, f64)> = asked.map(|(seat, trial)| (*seat, total(trial))).collect();
        let enough = if over_all >= decisive { decisive - CONFIRMS } else { decisive };
        let mut without = seen.iter().filter(|(_, evidence)| *evidence < enough);
        match (without.next(), without.count()) {
            (None, _) => Opinion::Harm,
            (Some((seat, _)), 0) => Opinion::RestsOn(*seat),
            (Some(_), others) => {
                let alone = decisive + libm::log(ALONE * count_of(seen.len()));
                // All but one see none.
                let mut alarmed = seen.iter().filter(|(_, evidence)| *evidence >= alone);
                let hidden = alarmed.next().filter(|_| others + 2 == seen.len());
                hidden.map_or(Opinion::None, |(seat, _)| Opinion::HiddenBy(*seat))
            }
        }
    }

    /// Returns true if something holds whichever seat is left out.
    pub(crate) fn all(&self, all: &Trial, holds: impl Fn(&Trial) -> bool) -> bool {
        !self.is_manned(all) || self.trials.values().all(holds)
    }

    /// Returns true if at least three seats carry traffic.
    pub(crate) fn is_manned(&self, all: &Trial) -> bool {
        self.carrying(all).len() >= 3
    }

    /// Returns the seats that carry traffic, of those that something can be left out of.
    pub(crate) fn carrying(&self, all: &Trial) -> Vec<Seat> {
        let carried = |trial: &Trial| all.carried().saturating_sub(trial.carried());
        self.trials.iter().filter(|(_, trial)| carried(trial) >= CARRIES).map(|(seat, _)| *seat).collect()
    }

    /// Returns the trial that leaves a seat out.
    pub(crate) fn without(&self, seat: Seat) -> Option<&Trial> {
        self.trials.get(&seat)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn the_first_nodes_have_a_seat_each_and_keep_it() {
        let mut seats = Seats::default();
        let names: Vec<NodeId> = (0..50).map(|number| NodeId::new(format!("edge-{number}"))).collect();
        let taken: Vec<Seat> = names.iter().map(|node| seats.of(node)).collect();
        assert_eq!(taken[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(Seat));
        assert!((0..SEATS).all(|seat| taken[8..].contains(&Seat(seat))), "later ones are spread: {taken:?}");
        let again: Vec<Seat> = names.iter().map(|node| seats.of(node)).collect();
        assert_eq!(again, taken);
        assert_eq!(seats.node(Seat(3)), names.get(3));
    }
}
