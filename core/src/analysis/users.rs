//! How much users differ, and what that means where they keep their arm (P12).
//!
//! Which users an arm has is drawn once, and no number of requests makes it up: the user is the unit. Users are counted
//! in groups of neighbouring buckets, which the hash makes alike but for who happens to be in them. So the canary is
//! allowed what groups of users may differ by, learnt from the primary's: exp(z·σ·√(1/k_c + 1/k_p)), where σ is the
//! standard deviation of the logarithm of a group's error rate and k = (Σn)²/Σn² the number of groups of equal size
//! that would be worth as much (Kish 1965): few users with most of the requests make it small.

use serde::{Deserialize, Serialize};

use super::sequential::{count, count_of};
use crate::counts::{GroupCounts, Groups};
use crate::weight::BasisPoints;

/// Standard normal deviate of a chance of 1 in 1,000.
const RARE: f64 = 3.09;

/// Errors at the primary from which on its groups are worth comparing.
const MIN_ERRORS: u64 = 30;

/// Groups that it takes to learn how groups differ.
const MIN_GROUPS: usize = 10;

/// Buckets that the canary needs to be compared at all: 1 % of the users.
const MIN_BUCKETS: u16 = 100;

/// What is known of the groups of both arms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Users {
    primary: Groups,
    canary: Groups,
}

impl Users {
    /// Takes in what the users of both arms met with.
    pub(crate) fn observe(&mut self, primary: &Groups, canary: &Groups) {
        self.primary.merge(primary);
        self.canary.merge(canary);
    }

    /// Returns the ratio of error rates that the choice of users alone may cause, at least 1, at this weight. Nothing
    /// while that is not known: there are too few errors, users or buckets to tell.
    pub(crate) fn ratio(&self, weight: BasisPoints) -> Option<f64> {
        if weight.get() < MIN_BUCKETS || self.primary.iter().count() < MIN_GROUPS {
            return None;
        }
        let (primary, canary) = (worth(&self.primary)?, worth(&self.canary)?);
        Some(libm::exp(RARE * self.deviation()? * libm::sqrt(1.0 / canary + 1.0 / primary)))
    }

    /// Returns the standard deviation of the logarithm of a group's error rate, by the method of moments: what the
    /// primary's groups differ by more than chance explains. Groups weigh by the square of their requests, as they do in
    /// an arm's rate.
    fn deviation(&self) -> Option<f64> {
        let whole = self.primary.iter().fold(GroupCounts::default(), |sum, (_, group)| GroupCounts {
            judged: sum.judged.saturating_add(group.judged),
            errors: sum.errors.saturating_add(group.errors),
        });
        if whole.errors < MIN_ERRORS {
            return None;
        }
        let rate = count(whole.errors) / count(whole.judged);
        let (mut squares, mut expected_squares) = (0.0, 0.0);
        for (_, group) in self.primary.iter() {
            let expected = rate * count(group.judged);
            let deviation = count(group.errors) - expected;
            // Chance explains as much as there are errors.
            squares += deviation * deviation - expected * (1.0 - rate);
            expected_squares += expected * expected;
        }
        // A log-normal rate with this σ has the variance (e^σ² − 1) in proportion to the square of its mean, which is
        // estimated from the same groups.
        let groups = count_of(self.primary.iter().count());
        let relative_variance = squares / expected_squares * groups / (groups - 1.0);
        Some(libm::sqrt(libm::log1p(relative_variance.max(0.0))))
    }
}

/// Returns how many groups of equal size would be worth as much; nothing if there were no requests.
fn worth(groups: &Groups) -> Option<f64> {
    let (sum, squares) = groups.iter().fold((0.0, 0.0), |(sum, squares), (_, group)| {
        let judged = count(group.judged);
        (sum + judged, squares + judged * judged)
    });
    (squares > 0.0).then(|| sum * sum / squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(first: u8, counts: impl IntoIterator<Item = (u64, u64)>) -> Groups {
        let group = |(number, (judged, errors)): (u8, (u64, u64))| (number, GroupCounts { judged, errors });
        (first..).zip(counts).map(group).collect()
    }

    fn ratio(primary: impl IntoIterator<Item = (u64, u64)>, canary: &[(u64, u64)], percent: u8) -> Option<f64> {
        let mut users = Users::default();
        users.observe(&groups(0, primary), &groups(90, canary.iter().copied()));
        users.ratio(BasisPoints::from_percent(percent))
    }

    #[test]
    fn groups_that_differ_by_chance_do_not_differ() {
        let even = (0..90).map(|group| (1_000, 8 + group % 5));
        assert!(ratio(even, &[(1_000, 10); 10], 10).is_some_and(|ratio| ratio < 1.02));
    }

    #[test]
    fn users_that_differ_widen_what_is_tolerated_and_a_few_busy_ones_more() {
        let uneven = || (0..90).map(|group| (1_000, if group % 2 == 0 { 5 } else { 15 }));
        let alike = ratio(uneven(), &[(1_000, 10); 10], 10).expect("known");
        let busy = [(10_000, 100), (100, 1), (100, 1), (100, 1)];
        let skewed = ratio(uneven(), &busy, 10).expect("known");
        assert!((1.3..2.0).contains(&alike), "{alike}");
        assert!(skewed > 2.0 * alike, "{skewed}");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(ratio([(1_000, 1); 20], &[(100, 1)], 10), None, "20 errors say nothing");
        assert_eq!(ratio([(1_000, 10); 9], &[(100, 1)], 10), None, "nor do nine groups");
        assert_eq!(ratio([(1_000, 10); 90], &[(100, 1)], 0), None, "nor users of less than 100 buckets");
        assert_eq!(ratio([(1_000, 10); 90], &[], 10), None, "nor a canary without any");
    }
}
