//! What is to be written to an API server, and when: of each object and way of writing the newest, one call an object at a
//! time, again and again later where it fails.
//!
//! ```text
//!  put ─► slot (newest wins) ─► take ─► call ─► done ─► Report
//!                ▲ back-off ◄───────────────────┘
//! ```
//!
//! It is told the time and does nothing by itself. An object that cannot be written delays no other one.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::time::{Span, Timestamp};

pub use change::{Change, Channel, MANAGER, Request, SCALE_MANAGER, Write};

use crate::failure::{CallError, Failure};
use crate::resource::ObjectRef;
use change::Digest;

/// Writes that wait or are under way. One more is refused: who wants it comes again at its next evaluation.
pub const MAX_WAITING: usize = 20_000;
/// How often a write is tried before its failure is reported, where trying may help: for about a minute.
const MAX_ATTEMPTS: u32 = 9;
/// After the first failure of a write, the next attempt comes this much later, and doubles with each.
const FIRST_BACKOFF: Span = Span::from_millis(200);
/// What the time between two attempts grows to.
const MAX_BACKOFF: Span = Span::from_secs(30);
/// What was written is not written a second time within this time, though somebody changed it back: two that each insist
/// write once a minute, not a hundred times a second.
const REPEAT_INTERVAL: Span = Span::from_secs(60);
/// Parts of a second part of a back-off: jitter is a number below it.
pub const JITTER_PARTS: u64 = 1_000;

/// Comes back with what came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What became of a write that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It will be carried out. An earlier one of the same object and channel that waited is forgotten, without a report.
    Queued(Ticket),
    /// The same waits or is under way: what comes of it is reported.
    UnderWay,
    /// The same was written a moment ago and not observed since: nothing is to be done, and nothing is reported.
    Repeated,
    /// [`MAX_WAITING`] wait already.
    Full,
}

/// A call that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Comes back with what came of it.
    pub ticket: Ticket,
    /// What is to be written.
    pub write: Write,
}

/// What came of a write, in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub ticket: Ticket,
    /// The object.
    pub object: ObjectRef,
    /// The way it was written.
    pub channel: Channel,
    /// The object's version since, if there is one, or why it could not be written.
    pub result: Result<Option<String>, CallError>,
}

type Key = (ObjectRef, Channel);

#[derive(Debug)]
struct Slot {
    ticket: Ticket,
    write: Write,
    digest: Digest,
    attempts: u32,
    not_before: Timestamp,
}

/// What came of the last write of an object and channel, for [`REPEAT_INTERVAL`].
#[derive(Debug)]
struct Last {
    digest: Digest,
    /// The version of the object that the decision to write rested on.
    basis: Option<String>,
    at: Timestamp,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// It failed so often in a row.
    Failed(u32),
}

/// Writes that wait or are under way.
#[derive(Debug, Default)]
pub struct Queue {
    given: u64,
    waiting: BTreeMap<Key, Slot>,
    /// The same in order, but for objects that are under way.
    due: BTreeSet<(Timestamp, Ticket, Key)>,
    under_way: BTreeMap<ObjectRef, Slot>,
    last: BTreeMap<Key, Last>,
    /// How many of [`Queue::last`] there are before those that are out of date are forgotten.
    prune_at: usize,
}

impl Queue {
    /// Takes a write.
    pub fn put(&mut self, write: Write, now: Timestamp) -> Accepted {
        let key = (write.object.clone(), write.change.channel());
        let digest = write.change.digest();
        if self.waiting.get(&key).is_some_and(|slot| slot.digest == digest) {
            return Accepted::UnderWay;
        }
        let mut not_before = now;
        match self.under_way.get(&key.0).filter(|slot| slot.write.change.channel() == key.1) {
            Some(slot) if slot.digest == digest => {
                self.forget(&key);
                return Accepted::UnderWay;
            }
            // Whatever was written before, this one will have been in between.
            Some(_) => {}
            None => match self.last.get(&key).filter(|last| last.digest == digest) {
                Some(last) if last.outcome == Outcome::Written && now.since(last.at) < REPEAT_INTERVAL => {
                    if last.basis == write.basis {
                        self.forget(&key);
                        return Accepted::Repeated;
                    }
                    not_before = last.at.plus(REPEAT_INTERVAL);
                }
                Some(Last { outcome: Outcome::Failed(times), at, .. }) => {
                    not_before = at.plus(backoff(*times, 0)).max(now);
                }
                Some(_) | None => {}
            },
        }
        if !self.waiting.contains_key(&key) && self.len() >= MAX_WAITING {
            return Accepted::Full;
        }
        self.given = self.given.saturating_add(1);
        let ticket = Ticket(self.given);
        self.wait(key, Slot { ticket, write, digest, attempts: 0, not_before });
        Accepted::Queued(ticket)
    }

    /// Returns the calls that are to be made now, and no more than this many.
    pub fn take(&mut self, now: Timestamp, max: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < max {
            let Some((not_before, ..)) = self.due.first() else { break };
            if *not_before > now {
                break;
            }
            let Some((_, _, key)) = self.due.pop_first() else { break };
            let Some(slot) = self.waiting.remove(&key) else { continue };
            self.hold(&key.0);
            jobs.push(Job { ticket: slot.ticket, write: slot.write.clone() });
            self.under_way.insert(key.0, slot);
        }
        jobs
    }

    /// Returns when the next call is to be made; nothing if none waits, but for objects that are under way.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Takes what came of a call, with a random number below [`JITTER_PARTS`]. Returns what is to be reported: nothing if it
    /// is tried again.
    pub fn done(
        &mut self,
        job: &Job,
        result: Result<Option<String>, Failure>,
        now: Timestamp,
        jitter: u64,
    ) -> Option<Report> {
        let object = &job.write.object;
        let mut slot = self.under_way.remove(object)?;
        let channel = slot.write.change.channel();
        let key = (object.clone(), channel.clone());
        // What was to be created and is there was created by an attempt whose answer was lost.
        let result = match result {
            Err(Failure::Exists) if slot.attempts > 0 => Ok(None),
            result => result,
        };
        let is_outdated = self.waiting.contains_key(&key);
        let report = match result {
            Err(failure) if failure.is_transient() && !is_outdated && slot.attempts + 1 < MAX_ATTEMPTS => {
                slot.attempts += 1;
                let delay = backoff(slot.attempts, jitter).max(wanted(&failure));
                slot.not_before = now.plus(delay);
                self.wait(key, slot);
                None
            }
            result => {
                let outcome = match &result {
                    Ok(_) => Outcome::Written,
                    Err(_) => Outcome::Failed(self.failures(&key, slot.digest)),
                };
                // Who does not lead comes again when it does.
                if result != Err(Failure::NoPermit) {
                    self.note(
                        key,
                        Last { digest: slot.digest, basis: slot.write.basis.clone(), at: now, outcome },
                        now,
                    );
                }
                let action = slot.write.change.action();
                let object = object.clone();
                let result = result.map_err(|failure| CallError { action, object: object.clone(), failure });
                Some(Report { ticket: slot.ticket, object, channel, result })
            }
        };
        self.resume(object);
        report
    }

    /// Forgets all that waits, as who no longer leads does. What is under way is reported.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.due.clear();
        self.last.clear();
    }

    /// Returns how many wait or are under way.
    pub fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.under_way.len())
    }

    /// Returns true if none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what waits: it is not wanted any more, and what is wanted is there, or will be.
    fn forget(&mut self, key: &Key) {
        if let Some(slot) = self.waiting.remove(key) {
            self.due.remove(&(slot.not_before, slot.ticket, key.clone()));
        }
    }

    fn wait(&mut self, key: Key, slot: Slot) {
        let is_held = self.under_way.contains_key(&key.0);
        if let Some(before) = self.waiting.get(&key) {
            self.due.remove(&(before.not_before, before.ticket, key.clone()));
        }
        if !is_held {
            self.due.insert((slot.not_before, slot.ticket, key.clone()));
        }
        self.waiting.insert(key, slot);
    }

    /// Takes what waits of an object out of order: one call of an object is made at a time.
    fn hold(&mut self, object: &ObjectRef) {
        for (key, slot) in self.waiting.range(of_object(object)).take_while(|((of, _), _)| of == object) {
            self.due.remove(&(slot.not_before, slot.ticket, key.clone()));
        }
    }

    fn resume(&mut self, object: &ObjectRef) {
        for (key, slot) in self.waiting.range(of_object(object)).take_while(|((of, _), _)| of == object) {
            self.due.insert((slot.not_before, slot.ticket, key.clone()));
        }
    }

    /// Returns how often the same has failed in a row, this time included.
    fn failures(&self, key: &Key, digest: Digest) -> u32 {
        match self.last.get(key) {
            Some(Last { digest: before, outcome: Outcome::Failed(times), .. }) if *before == digest => {
                times.saturating_add(1)
            }
            Some(_) | None => 1,
        }
    }

    fn note(&mut self, key: Key, last: Last, now: Timestamp) {
        self.last.insert(key, last);
        if self.last.len() > self.prune_at {
            self.last.retain(|_, last| now.since(last.at) < REPEAT_INTERVAL);
            self.prune_at = self.last.len().saturating_mul(2).max(1_000);
        }
    }
}

fn of_object(object: &ObjectRef) -> std::ops::RangeFrom<Key> {
    (object.clone(), Channel::FIRST)..
}

/// Returns how long the API server wants to be left in peace.
fn wanted(failure: &Failure) -> Span {
    if let Failure::Throttled { after: Some(after) } = failure { (*after).min(MAX_BACKOFF) } else { Span::ZERO }
}

/// Returns the time to the next attempt: between half and all of what doubles with each.
fn backoff(attempts: u32, jitter: u64) -> Span {
    let doublings = attempts.saturating_sub(1).min(20);
    let full = FIRST_BACKOFF.times(1_u64 << doublings).min(MAX_BACKOFF);
    let half = Span::from_nanos(full.as_nanos() / 2);
    half.plus(Span::from_nanos(half.as_nanos() / JITTER_PARTS).times(jitter.min(JITTER_PARTS)))
}

#[cfg(test)]
mod tests;
