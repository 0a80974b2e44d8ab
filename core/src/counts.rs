//! What one worker has counted of one cluster since it started.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::outcome::Outcome;

/// Cumulative counts of one cluster and stratum by one worker; also the difference between two of them. No
/// counter ever goes down, so of two reports the one with the higher numbers is the later one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that finished.
    pub finished: u64,
    /// Requests that grew older than the overdue limit while in flight, each counted once, when it did.
    pub overdue: u64,
    /// Of these, how many have finished since.
    pub overdue_finished: u64,
    /// Of these, how many finished with an error.
    pub overdue_errors: u64,
    /// Finished requests by the number of their [`Outcome`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// gRPC statuses by code.
    pub grpc_statuses: BTreeMap<u32, u64>,
    /// Requests that needed more than one attempt.
    pub retried: u64,
    /// Attempts beyond the first, of all requests.
    pub extra_attempts: u64,
    /// Latencies of requests that reached an upstream and whose client stayed.
    pub latency: Histogram,
    /// Sum of these latencies, in microseconds.
    pub latency_sum_us: u64,
    /// Sampled pods by upstream address.
    pub pods: BTreeMap<String, PodCounts>,
}

/// Cumulative counts of one upstream address, of sampled requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCounts {
    /// Requests that finished.
    pub finished: u64,
    /// Those of them where the server is to blame.
    pub errors: u64,
    /// Those of them that were overdue.
    pub slow: u64,
}

impl Counts {
    /// Returns how many finished requests ended this way.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.index()).copied().unwrap_or(0)
    }

    /// Counts a finished request.
    pub fn count_outcome(&mut self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get_mut(outcome.index()) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns how many finished requests say something about the upstream.
    pub fn judged(&self) -> u64 {
        sum_where(self, Outcome::is_judged)
    }

    /// Returns how many finished requests failed by the server's fault.
    pub fn errors(&self) -> u64 {
        sum_where(self, Outcome::is_error)
    }

    /// Returns how many clients left before their response was complete.
    pub fn disconnects(&self) -> u64 {
        let before = self.outcome(Outcome::DisconnectBeforeResponse);
        before.saturating_add(self.outcome(Outcome::DisconnectMidResponse))
    }

    /// Returns overdue requests that are still in flight.
    pub const fn hanging(&self) -> u64 {
        self.overdue.saturating_sub(self.overdue_finished)
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds all counts of another.
    pub fn merge(&mut self, other: &Self) {
        combine(self, other, u64::saturating_add);
        self.latency.merge(&other.latency);
    }

    /// Raises every count to that of a cumulative report, and returns what that added. A report that is older
    /// than what is held adds nothing. Counts that a report leaves out stay as they are.
    pub fn raise_to(&mut self, reported: &Self) -> Self {
        let mut added = reported.clone();
        combine(&mut added, self, u64::saturating_sub);
        added.pods.retain(|_, pod| *pod != PodCounts::default());
        added.grpc_statuses.retain(|_, count| *count > 0);
        added.latency = reported
            .latency
            .bins()
            .map(|(bin, count)| (bin, count.saturating_sub(self.latency.count_in(bin))))
            .collect();
        self.merge(&added);
        added
    }
}

fn sum_where(counts: &Counts, wanted: fn(Outcome) -> bool) -> u64 {
    let wanted = Outcome::ALL.into_iter().filter(|outcome| wanted(*outcome));
    wanted.fold(0, |sum, outcome| sum.saturating_add(counts.outcome(outcome)))
}

/// Replaces every plain count `a` by `f(a, b)`. The histogram is left to the caller.
fn combine(into: &mut Counts, other: &Counts, f: impl Fn(u64, u64) -> u64) {
    for (a, b) in [
        (&mut into.finished, other.finished),
        (&mut into.overdue, other.overdue),
        (&mut into.overdue_finished, other.overdue_finished),
        (&mut into.overdue_errors, other.overdue_errors),
        (&mut into.retried, other.retried),
        (&mut into.extra_attempts, other.extra_attempts),
        (&mut into.latency_sum_us, other.latency_sum_us),
    ] {
        *a = f(*a, b);
    }
    for (a, b) in into.outcomes.iter_mut().zip(&other.outcomes) {
        *a = f(*a, *b);
    }
    for (status, b) in &other.grpc_statuses {
        let a = into.grpc_statuses.entry(*status).or_default();
        *a = f(*a, *b);
    }
    for (address, b) in &other.pods {
        let a = into.pods.entry(address.clone()).or_default();
        a.finished = f(a.finished, b.finished);
        a.errors = f(a.errors, b.errors);
        a.slow = f(a.slow, b.slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(successes: u64, errors: u64) -> Counts {
        let mut counts = Counts { finished: successes + errors, ..Counts::default() };
        counts.outcomes[Outcome::Success.index()] = successes;
        counts.outcomes[Outcome::ServerFault.index()] = errors;
        counts.latency.add(100, successes + errors);
        counts.pods.insert("10.0.0.1:80".into(), PodCounts { finished: successes, errors, slow: 0 });
        counts
    }

    #[test]
    fn repeated_and_older_reports_add_nothing() {
        let mut held = Counts::default();
        assert_eq!(held.raise_to(&counts(5, 1)), counts(5, 1));
        assert_eq!(held.raise_to(&counts(8, 1)).finished, 3);
        assert!(held.raise_to(&counts(8, 1)).is_empty());
        assert!(held.raise_to(&counts(5, 1)).is_empty());
        assert_eq!(held, counts(8, 1));
    }

    #[test]
    fn what_a_report_leaves_out_stays() {
        let mut held = counts(5, 1);
        let mut partial = counts(6, 1);
        partial.latency = Histogram::default();
        partial.pods.clear();
        assert_eq!(held.raise_to(&partial).judged(), 1);
        assert_eq!(held.latency.total(), 6);
        assert_eq!(held.pods.len(), 1);
    }
}
