//! When each canary that is not at rest is to be looked at again, should nothing happen to it before.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;

/// A timer of each canary that has one.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Timestamp, CanaryName)>,
    /// When each is due. One that was put off stays in the queue where it was until that comes up.
    due: BTreeMap<CanaryName, DueAt>,
}

#[derive(Debug, Clone, Copy)]
struct DueAt {
    queued: Timestamp,
    due: Timestamp,
}

impl Timers {
    /// Has a canary looked at then, and not before.
    pub(super) fn arm(&mut self, name: &CanaryName, due: Timestamp) {
        match self.due.get_mut(name) {
            Some(held) if held.queued <= due => held.due = due,
            Some(held) => {
                self.queue.remove(&(held.queued, name.clone()));
                *held = DueAt { queued: due, due };
                self.queue.insert((due, name.clone()));
            }
            None => {
                self.due.insert(name.clone(), DueAt { queued: due, due });
                self.queue.insert((due, name.clone()));
            }
        }
    }

    pub(super) fn disarm(&mut self, name: &CanaryName) {
        if let Some(held) = self.due.remove(name) {
            self.queue.remove(&(held.queued, name.clone()));
        }
    }

    pub(super) fn has(&self, name: &CanaryName) -> bool {
        self.due.contains_key(name)
    }

    /// Returns when the next one may be due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes at most so many whose time has come, those that are due for longest first.
    pub(super) fn take(&mut self, now: Timestamp, most: usize) -> Vec<CanaryName> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((queued, name)) = self.queue.pop_first()
        {
            if queued > now {
                self.queue.insert((queued, name));
                break;
            }
            match self.due.get_mut(&name) {
                Some(held) if held.due > now => {
                    held.queued = held.due;
                    self.queue.insert((held.due, name));
                }
                Some(_) => {
                    self.due.remove(&name);
                    taken.push(name);
                }
                None => {}
            }
        }
        taken
    }
}

#[cfg(test)]
impl Timers {
    pub(super) fn names(&self) -> impl Iterator<Item = &CanaryName> {
        self.due.keys()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> CanaryName {
        CanaryName::new("prod", number.to_string())
    }

    proptest! {
        /// They do what a table would that is looked through each time.
        #[test]
        fn each_comes_when_it_is_due_and_once(steps in proptest::collection::vec((0_u8..4, 0_u8..6, 0_u64..50), 0..200)) {
            let (mut timers, mut table, mut now) = (Timers::default(), BTreeMap::new(), 0);
            for (what, number, millis) in steps {
                let name = name(number);
                match what {
                    0 => {
                        timers.arm(&name, Timestamp::from_millis(now + millis));
                        table.insert(name, now + millis);
                    }
                    1 => {
                        timers.disarm(&name);
                        table.remove(&name);
                    }
                    2 => {
                        now += millis;
                        let taken: BTreeSet<CanaryName> =
                            timers.take(Timestamp::from_millis(now), usize::MAX).into_iter().collect();
                        let due = |(name, due): (&CanaryName, &u64)| (*due <= now).then(|| name.clone());
                        prop_assert_eq!(taken, table.iter().filter_map(due).collect());
                        table.retain(|_, due| *due > now);
                    }
                    _ => {
                        let taken = timers.take(Timestamp::from_millis(now), 1);
                        prop_assert!(taken.iter().all(|name| table.remove(name).is_some_and(|due| due <= now)));
                    }
                }
                prop_assert_eq!(timers.due.len(), table.len());
                prop_assert_eq!(timers.queue.len(), table.len());
                prop_assert!(table.iter().all(|(name, _)| timers.has(name)));
                let first = table.values().min().map(|due| Timestamp::from_millis(*due));
                prop_assert!(timers.next().is_none_or(|next| first.is_some_and(|first| next <= first)));
            }
        }
    }
}
