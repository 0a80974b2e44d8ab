//! How much pods of one revision differ, and what that means for a comparison (P13).
//!
//! No number of requests tells a bad revision from a bad pod: between the two, the pod is the unit. So the canary is
//! allowed what its few pods may differ by, learnt from the primary's: exp(z·σ·√(1/k_c + 1/k_p)), where σ is the
//! standard deviation of the logarithm of a pod's error rate and k_c, k_p are the numbers of pods.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::sequential::{count, count_of};
use crate::counts::PodCounts;

/// Pods of an arm that are told apart; more of them add nothing to what is learnt.
const MAX_PODS: usize = 256;

/// Standard normal deviate of a chance of 1 in 1,000.
const RARE: f64 = 3.09;

/// Errors at the primary from which on its pods are worth comparing.
const MIN_ERRORS: u64 = 30;

/// What is known of the pods of both arms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spread {
    primary: BTreeMap<String, PodCounts>,
    canary: BTreeMap<String, PodCounts>,
}

impl Spread {
    /// Takes in what pods of both arms did. Returns true if the canary has a pod that was not seen before.
    pub(crate) fn observe(
        &mut self,
        primary: &BTreeMap<String, PodCounts>,
        canary: &BTreeMap<String, PodCounts>,
    ) -> bool {
        add(&mut self.primary, primary);
        let before = self.canary.len();
        add(&mut self.canary, canary);
        self.canary.len() > before
    }

    /// Returns the numbers of pods seen, of the primary and of the canary.
    pub(crate) fn pods(&self) -> (usize, usize) {
        (self.primary.len(), self.canary.len())
    }

    /// Returns the ratio of error rates that pods alone may cause, at least 1.
    pub(crate) fn ratio(&self) -> f64 {
        let (primary, canary) = (count_of(self.primary.len()), count_of(self.canary.len().max(1)));
        let deviation = self.deviation();
        if deviation <= 0.0 { 1.0 } else { libm::exp(RARE * deviation * libm::sqrt(1.0 / canary + 1.0 / primary)) }
    }

    /// Returns the standard deviation of the logarithm of a pod's error rate, by the method of moments: what the
    /// primary's pods differ by more than chance explains.
    fn deviation(&self) -> f64 {
        let errors = self.primary.values().fold(0_u64, |sum, pod| sum.saturating_add(pod.errors));
        let requests = self.primary.values().fold(0_u64, |sum, pod| sum.saturating_add(pod.finished));
        if errors < MIN_ERRORS || requests == 0 || self.primary.len() < 3 {
            return 0.0;
        }
        let rate = count(errors) / count(requests);
        let (mut squares, mut expected_squares) = (0.0, 0.0);
        for pod in self.primary.values() {
            let expected = rate * count(pod.finished);
            let deviation = count(pod.errors) - expected;
            // Chance explains as much as there are errors, and what the sample of requests is off by.
            squares += deviation * deviation - expected - expected * expected / count(pod.finished.max(1));
            expected_squares += expected * expected;
        }
        // A log-normal rate with this σ has the variance (e^σ² − 1) in proportion to the square of its mean.
        let relative_variance = squares / expected_squares.max(1e-9);
        let pods = count_of(self.primary.len());
        // The mean is estimated from the same pods.
        libm::sqrt(libm::log1p((relative_variance * pods / (pods - 1.0)).max(0.0)))
    }
}

fn add(held: &mut BTreeMap<String, PodCounts>, more: &BTreeMap<String, PodCounts>) {
    for (address, pod) in more {
        if held.len() >= MAX_PODS && !held.contains_key(address) {
            continue;
        }
        let known = held.entry(address.clone()).or_default();
        known.finished = known.finished.saturating_add(pod.finished);
        known.errors = known.errors.saturating_add(pod.errors);
        known.slow = known.slow.saturating_add(pod.slow);
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    fn pods(counts: &[(u64, u64)]) -> BTreeMap<String, PodCounts> {
        let pod = |(place, &(finished, errors)): (usize, &(u64, u64))| {
            (place.to_string(), PodCounts { finished, errors, slow: 0 })
        };
        counts.iter().enumerate().map(pod).collect()
    }

    fn ratio(primary: &[(u64, u64)], canary: usize) -> f64 {
        let mut spread = Spread::default();
        let one: alloc::vec::Vec<(u64, u64)> = alloc::vec![(100, 1); canary];
        assert!(spread.observe(&pods(primary), &pods(&one)));
        assert!(!spread.observe(&BTreeMap::new(), &pods(&one)), "no pod is new twice");
        spread.ratio()
    }

    #[test]
    fn pods_that_differ_by_chance_do_not_differ() {
        assert!(ratio(&[(1_000, 11), (1_000, 9), (1_000, 10), (1_000, 8), (1_000, 12)], 1) < 1.01);
        assert!(ratio(&[(1_000, 50), (1_000, 1)], 1) < 1.01, "two pods say nothing of how pods differ");
        assert!(ratio(&[(100, 5), (100, 1), (100, 2)], 1) < 1.01, "eight errors say nothing");
    }

    #[test]
    fn pods_that_differ_widen_what_is_tolerated_and_more_canary_pods_narrow_it() {
        let primary = [(10_000, 60), (10_000, 100), (10_000, 165), (10_000, 90), (10_000, 110)];
        let (one, three) = (ratio(&primary, 1), ratio(&primary, 3));
        assert!((2.0..6.0).contains(&one), "{one}");
        assert!((1.5..one).contains(&three), "{three}");
    }
}
