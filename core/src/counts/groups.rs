//! What became of the requests of groups of users.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Requests by group of buckets ([`group_of`](crate::matching::bucket::group_of)), where users keep their arm: between
/// such arms the user is the unit, and groups of them show how much users differ (P12). At most 100 groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(BTreeMap<u8, GroupCounts>);

/// Requests of one group of users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// Requests that ended in a way that says something about the upstream.
    pub judged: u64,
    /// Of these, the errors.
    pub errors: u64,
}

impl Groups {
    /// Returns the groups by number.
    pub fn iter(&self) -> impl Iterator<Item = (u8, GroupCounts)> + '_ {
        self.0.iter().map(|(group, counts)| (*group, *counts))
    }

    /// Returns what is known of a group.
    pub fn group(&self, group: u8) -> GroupCounts {
        self.0.get(&group).copied().unwrap_or_default()
    }

    /// Returns true if no worker can have counted these and so many of all of its requests.
    pub(super) fn contradict(&self, judged: u64, errors: u64) -> bool {
        let whole = self.iter().fold(GroupCounts::default(), |sum, (_, group)| sum.join(group, u64::saturating_add));
        whole.judged > judged || whole.errors > errors || self.iter().any(|(_, group)| group.errors > group.judged)
    }

    /// Adds requests of another worker or a later stretch of time.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    pub(super) fn combine(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        for (group, theirs) in &other.0 {
            let mine = self.0.entry(*group).or_default();
            *mine = mine.join(*theirs, join);
        }
    }

    /// Returns what is here and was not yet in `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let newer = self.iter().map(|(group, counts)| (group, counts.join(earlier.group(group), u64::saturating_sub)));
        newer.filter(|(_, counts)| *counts != GroupCounts::default()).collect()
    }
}

impl GroupCounts {
    fn join(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self { judged: join(self.judged, other.judged), errors: join(self.errors, other.errors) }
    }
}

impl FromIterator<(u8, GroupCounts)> for Groups {
    fn from_iter<T: IntoIterator<Item = (u8, GroupCounts)>>(groups: T) -> Self {
        Self(groups.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::{Counts, InvalidCounts};
    use crate::outcome::Outcome;

    fn groups(counts: &[(u8, u64, u64)]) -> Groups {
        counts.iter().map(|&(group, judged, errors)| (group, GroupCounts { judged, errors })).collect()
    }

    #[test]
    fn what_is_new_is_what_was_added() {
        let earlier = groups(&[(3, 10, 1), (99, 4, 0)]);
        let more = groups(&[(3, 2, 1), (50, 7, 7)]);
        let mut whole = earlier.clone();
        whole.merge(&more);
        assert_eq!(whole, groups(&[(3, 12, 2), (50, 7, 7), (99, 4, 0)]));
        assert_eq!(whole.since(&earlier), more);
        whole.combine(&earlier, u64::max);
        assert_eq!(whole.group(3), GroupCounts { judged: 12, errors: 2 }, "an older report changes nothing");
    }

    #[test]
    fn groups_are_part_of_the_whole() {
        let mut counts = Counts { started: 10, finished: 10, ..Counts::default() };
        counts.outcomes[Outcome::Success.index()] = 8;
        counts.outcomes[Outcome::ServerFault.index()] = 2;
        counts.groups = groups(&[(0, 6, 1), (1, 4, 1)]);
        assert_eq!(counts.check(), Ok(()));
        for wrong in [&[(0, 11, 1)][..], &[(0, 6, 2), (1, 4, 1)], &[(0, 1, 2)]] {
            counts.groups = groups(wrong);
            assert_eq!(counts.check(), Err(InvalidCounts::Groups), "{wrong:?}");
        }
    }
}
