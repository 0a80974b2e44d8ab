//! What a worker counts for one cluster and stratum, and the arithmetic on it.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::id::Rev;
use crate::outcome::Outcome;

/// Requests of one cluster and stratum: cumulative since a worker started, or the difference of two
/// such counts.
///
/// A cumulative value never falls, except for [`Counts::rev_started`], which starts again at a new
/// rev. Bins and keys that a report leaves out have not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests attributed to the cluster: finished ones, and those in flight that were looked at.
    pub started: u64,
    /// Requests that ended, in whatever way.
    pub finished: u64,
    /// Requests that grew older than the policy allows, each counted once, when it did (P1).
    pub overdue: u64,
    /// Of these, how many have finished since.
    pub overdue_finished: u64,
    /// Requests without an answer among those that had been counted as overdue before they finished.
    pub overdue_errors: u64,
    /// Finished requests by [`Outcome::index`].
    pub outcomes: [u64; 12],
    /// gRPC statuses by code.
    pub grpc_statuses: BTreeMap<u32, u64>,
    /// Requests that needed more than one attempt (P5).
    pub retried: u64,
    /// Attempts beyond the first.
    pub extra_attempts: u64,
    /// Latencies of requests that reached an upstream and that the client waited for.
    pub latency: Histogram,
    /// Their sum in microseconds.
    pub latency_sum_us: u64,
    /// The highest rev seen in a request's route.
    pub rev: Rev,
    /// How many requests carried it.
    pub rev_started: u64,
    /// Sampled requests by upstream address (P13).
    pub pods: BTreeMap<String, PodCounts>,
    /// Successes whose body was measured: every one of the canary, a sample of the primary's.
    pub sized: u64,
    /// Of these, the ones without a body (P4).
    pub empty: u64,
    /// Long-lived streams, each counted once, when it was recognised (P3): they are never overdue and in no latency.
    pub streams: u64,
    /// Of these, how many have ended.
    pub streams_finished: u64,
    /// Requests of closed start cohorts (P2). Empty unless the policy asks for them.
    pub cohorts: Cohorts,
}

/// Requests that began together and of which every one is known: finished, or too slow.
///
/// Cumulative at one rev; at a higher one all of it starts again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cohorts {
    /// The rev by which they were routed.
    pub rev: Rev,
    /// Finished requests that say something about the upstream.
    pub finished: u64,
    /// Of these, the errors.
    pub errors: u64,
    /// Requests that were overdue when their cohort closed; how they end later changes nothing here.
    pub overdue: u64,
    /// Latencies of the finished ones.
    pub latency: Histogram,
}

/// Sampled requests of one upstream address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCounts {
    /// Requests that ended, of those that were sampled: all of the canary's, 1 in 16 of the primary's.
    pub finished: u64,
    /// Errors, all of them: they are rare, and what pods differ in.
    pub errors: u64,
    /// Of the sampled requests, the ones longer than the policy's threshold.
    pub slow: u64,
}

/// Counts that no worker can have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Absurd {
    /// More ended than began.
    #[error("{finished} requests finished, but only {started} started")]
    FinishedAboveStarted {
        /// Requests that began.
        started: u64,
        /// Requests that ended.
        finished: u64,
    },
    /// The outcome classes do not add up.
    #[error("outcomes add up to {outcomes}, but {finished} requests finished")]
    OutcomesDoNotAddUp {
        /// Sum over the classes.
        outcomes: u64,
        /// Requests that ended.
        finished: u64,
    },
    /// The overdue requests contradict each other or the rest.
    #[error("{overdue} overdue requests, {finished} of them finished and {errors} of them errors, do not fit together")]
    Overdue {
        /// Requests that grew too old.
        overdue: u64,
        /// Of these, finished since.
        finished: u64,
        /// Of these, errors.
        errors: u64,
    },
    /// More latencies than finished requests.
    #[error("{latencies} latencies, but only {finished} requests finished")]
    LatenciesAboveFinished {
        /// Count of the histogram.
        latencies: u64,
        /// Requests that ended.
        finished: u64,
    },
    /// The streams contradict each other or the rest.
    #[error("{streams} streams, {finished} of them finished, do not fit to {in_flight} requests in flight")]
    Streams {
        /// Streams that were recognised.
        streams: u64,
        /// Of these, finished since.
        finished: u64,
        /// Requests that began and did not end.
        in_flight: u64,
    },
    /// More bodies without content than bodies, or than successes.
    #[error("{empty} empty bodies of {sized} that were measured, of {successes} successes")]
    Bodies {
        /// Empty ones.
        empty: u64,
        /// Measured ones.
        sized: u64,
        /// Successes.
        successes: u64,
    },
    /// Closed cohorts with more errors or latencies than requests, or more requests than there were.
    #[error("{finished} requests in closed cohorts with {errors} errors and {latencies} latencies do not fit together")]
    Cohorts {
        /// Finished requests in them.
        finished: u64,
        /// Errors in them.
        errors: u64,
        /// Latencies in them.
        latencies: u64,
    },
    /// More requests at the current rev than requests.
    #[error("{rev_started} requests at the current rev, but only {started} started")]
    RevAboveStarted {
        /// Requests at the rev.
        rev_started: u64,
        /// Requests that began.
        started: u64,
    },
}

impl Counts {
    /// Returns how many requests ended in this class.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.index()).copied().unwrap_or(0)
    }

    /// Returns the requests that ended in a way the server is to blame for.
    pub fn errors(&self) -> u64 {
        self.sum_of(Outcome::is_error)
    }

    /// Returns the finished requests that say something about the upstream.
    pub fn judged(&self) -> u64 {
        self.sum_of(Outcome::is_judged)
    }

    /// Returns errors with hangs among them, each request once: a request that grew overdue counts
    /// at once, and not again if it ends without an answer later. A client that gives up before an answer counts too:
    /// impatient clients end a hang before it grows overdue (P1).
    pub fn errors_and_hangs(&self) -> u64 {
        self.sum_of(Outcome::is_no_answer).saturating_sub(self.overdue_errors).saturating_add(self.overdue)
    }

    /// Returns the requests that [`Counts::errors_and_hangs`] is a share of.
    pub fn judged_and_hangs(&self) -> u64 {
        let gave_up = self.outcome(Outcome::DisconnectBeforeResponse);
        self.judged().saturating_add(gave_up).saturating_sub(self.overdue_finished).saturating_add(self.overdue)
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.started == 0 && self.finished == 0 && self.overdue == 0
    }

    /// Checks what must hold in every cumulative count; a difference of two counts need not fulfil it.
    pub fn check(&self) -> Result<(), Absurd> {
        let (started, finished) = (self.started, self.finished);
        if finished > started {
            return Err(Absurd::FinishedAboveStarted { started, finished });
        }
        let outcomes = self.sum_of(|_| true);
        if outcomes != finished {
            return Err(Absurd::OutcomesDoNotAddUp { outcomes, finished });
        }
        let in_flight = started.saturating_sub(finished);
        let streaming = self.streams.saturating_sub(self.streams_finished);
        if self.streams_finished > self.streams || self.streams_finished > finished || streaming > in_flight {
            return Err(Absurd::Streams { streams: self.streams, finished: self.streams_finished, in_flight });
        }
        if self.overdue_finished > self.overdue
            || self.overdue_errors > self.overdue_finished
            || self.overdue_finished > finished
            || self.overdue.saturating_sub(self.overdue_finished) > in_flight.saturating_sub(streaming)
        {
            return Err(Absurd::Overdue {
                overdue: self.overdue,
                finished: self.overdue_finished,
                errors: self.overdue_errors,
            });
        }
        let latencies = self.latency.count();
        if latencies > finished {
            return Err(Absurd::LatenciesAboveFinished { latencies, finished });
        }
        let successes = self.outcome(Outcome::Success);
        if self.empty > self.sized || self.sized > successes {
            return Err(Absurd::Bodies { empty: self.empty, sized: self.sized, successes });
        }
        let closed = &self.cohorts;
        let (errors, latencies) = (closed.errors, closed.latency.count());
        if errors > closed.finished || latencies > closed.finished || closed.finished > finished {
            return Err(Absurd::Cohorts { finished: closed.finished, errors, latencies });
        }
        if self.rev_started > started {
            return Err(Absurd::RevAboveStarted { rev_started: self.rev_started, started });
        }
        Ok(())
    }

    /// Adds the counts of `other`, of another worker or a later stretch of time.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
        self.latency.merge(&other.latency);
        self.cohorts.combine(&other.cohorts, u64::saturating_add, Histogram::merge);
    }

    /// Keeps the higher of both cumulative counts, everywhere: taking in the same report twice, or
    /// an older one late, changes nothing.
    pub fn max_merge(&mut self, other: &Self) {
        self.combine(other, u64::max);
        self.latency.max_merge(&other.latency);
        self.cohorts.combine(&other.cohorts, u64::max, Histogram::max_merge);
    }

    /// Returns what is here and was not yet in `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut outcomes = self.outcomes;
        for (count, before) in outcomes.iter_mut().zip(earlier.outcomes) {
            *count = count.saturating_sub(before);
        }
        let before_at_rev = if earlier.rev == self.rev { earlier.rev_started } else { 0 };
        Self {
            started: self.started.saturating_sub(earlier.started),
            finished: self.finished.saturating_sub(earlier.finished),
            overdue: self.overdue.saturating_sub(earlier.overdue),
            overdue_finished: self.overdue_finished.saturating_sub(earlier.overdue_finished),
            overdue_errors: self.overdue_errors.saturating_sub(earlier.overdue_errors),
            outcomes,
            grpc_statuses: self
                .grpc_statuses
                .iter()
                .map(|(&code, &count)| {
                    let before = earlier.grpc_statuses.get(&code).copied().unwrap_or(0);
                    (code, count.saturating_sub(before))
                })
                .filter(|&(_, count)| count > 0)
                .collect(),
            retried: self.retried.saturating_sub(earlier.retried),
            extra_attempts: self.extra_attempts.saturating_sub(earlier.extra_attempts),
            latency: self.latency.since(&earlier.latency),
            latency_sum_us: self.latency_sum_us.saturating_sub(earlier.latency_sum_us),
            rev: self.rev,
            rev_started: self.rev_started.saturating_sub(before_at_rev),
            pods: self
                .pods
                .iter()
                .map(|(address, pod)| {
                    let before = earlier.pods.get(address).copied().unwrap_or_default();
                    (address.clone(), pod.join(before, u64::saturating_sub))
                })
                .filter(|(_, pod)| *pod != PodCounts::default())
                .collect(),
            sized: self.sized.saturating_sub(earlier.sized),
            empty: self.empty.saturating_sub(earlier.empty),
            streams: self.streams.saturating_sub(earlier.streams),
            streams_finished: self.streams_finished.saturating_sub(earlier.streams_finished),
            cohorts: self.cohorts.since(&earlier.cohorts),
        }
    }

    fn sum_of(&self, wanted: fn(Outcome) -> bool) -> u64 {
        Outcome::ALL
            .into_iter()
            .filter(|&outcome| wanted(outcome))
            .fold(0, |sum, outcome| sum.saturating_add(self.outcome(outcome)))
    }

    /// Joins everything but the histograms, which know a faster way.
    fn combine(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        for (mine, theirs) in [
            (&mut self.started, other.started),
            (&mut self.finished, other.finished),
            (&mut self.overdue, other.overdue),
            (&mut self.overdue_finished, other.overdue_finished),
            (&mut self.overdue_errors, other.overdue_errors),
            (&mut self.retried, other.retried),
            (&mut self.extra_attempts, other.extra_attempts),
            (&mut self.latency_sum_us, other.latency_sum_us),
            (&mut self.sized, other.sized),
            (&mut self.empty, other.empty),
            (&mut self.streams, other.streams),
            (&mut self.streams_finished, other.streams_finished),
        ] {
            *mine = join(*mine, theirs);
        }
        for (mine, theirs) in self.outcomes.iter_mut().zip(other.outcomes) {
            *mine = join(*mine, theirs);
        }
        for (&code, &theirs) in &other.grpc_statuses {
            let mine = self.grpc_statuses.entry(code).or_insert(0);
            *mine = join(*mine, theirs);
        }
        for (address, &theirs) in &other.pods {
            match self.pods.get_mut(address) {
                Some(mine) => *mine = mine.join(theirs, join),
                None => {
                    self.pods.insert(address.clone(), theirs);
                }
            }
        }
        if other.rev > self.rev {
            self.rev = other.rev;
            self.rev_started = other.rev_started;
        } else if other.rev == self.rev {
            self.rev_started = join(self.rev_started, other.rev_started);
        }
    }
}

impl Cohorts {
    fn combine(&mut self, other: &Self, join: fn(u64, u64) -> u64, join_all: fn(&mut Histogram, &Histogram)) {
        if other.rev > self.rev {
            self.clone_from(other);
        } else if other.rev == self.rev {
            self.finished = join(self.finished, other.finished);
            self.errors = join(self.errors, other.errors);
            self.overdue = join(self.overdue, other.overdue);
            join_all(&mut self.latency, &other.latency);
        }
    }

    /// Returns what is here and was not yet in `earlier`; all of it at another rev.
    fn since(&self, earlier: &Self) -> Self {
        if self.rev != earlier.rev {
            return self.clone();
        }
        Self {
            rev: self.rev,
            finished: self.finished.saturating_sub(earlier.finished),
            errors: self.errors.saturating_sub(earlier.errors),
            overdue: self.overdue.saturating_sub(earlier.overdue),
            latency: self.latency.since(&earlier.latency),
        }
    }
}

impl PodCounts {
    fn join(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            finished: join(self.finished, other.finished),
            errors: join(self.errors, other.errors),
            slow: join(self.slow, other.slow),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    fn counts(success: u64, faults: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[Outcome::Success.index()] = success;
        outcomes[Outcome::ServerFault.index()] = faults;
        Counts { started: success + faults, finished: success + faults, outcomes, ..Counts::default() }
    }

    #[test]
    fn a_hang_is_one_error_however_it_ends() {
        let mut hung = counts(8, 0);
        hung.started = 10;
        hung.overdue = 2;
        assert_eq!((hung.errors_and_hangs(), hung.judged_and_hangs()), (2, 10));

        let mut ended = counts(9, 1);
        ended.overdue = 2;
        ended.overdue_finished = 2;
        ended.overdue_errors = 1;
        assert_eq!((ended.errors_and_hangs(), ended.judged_and_hangs()), (2, 10));
        assert_eq!(ended.check(), Ok(()));
    }

    #[test]
    fn a_client_that_gives_up_got_no_answer() {
        let mut left = counts(7, 0);
        left.outcomes[Outcome::DisconnectBeforeResponse.index()] = 3;
        (left.started, left.finished) = (10, 10);
        assert_eq!((left.errors_and_hangs(), left.judged_and_hangs()), (3, 10));
        assert_eq!((left.errors(), left.judged()), (0, 7), "the server is not to blame by this alone");
        // Two of them had grown overdue before: each counts once.
        (left.overdue, left.overdue_finished, left.overdue_errors) = (2, 2, 2);
        assert_eq!((left.errors_and_hangs(), left.judged_and_hangs()), (3, 10));
    }

    #[test]
    fn counts_at_a_new_rev_start_again() {
        let mut early = counts(10, 0);
        early.rev = Rev::new(1);
        early.rev_started = 10;
        let mut late = counts(14, 0);
        late.rev = Rev::new(2);
        late.rev_started = 3;
        let delta = late.since(&early);
        assert_eq!((delta.started, delta.rev, delta.rev_started), (4, Rev::new(2), 3));
        early.max_merge(&late);
        assert_eq!(early, late);
    }

    #[test]
    fn closed_cohorts_start_again_at_a_new_rev() {
        let cohorts = |rev, finished| Counts {
            cohorts: Cohorts { rev: Rev::new(rev), finished, ..Cohorts::default() },
            ..Counts::default()
        };
        let mut held = cohorts(1, 90);
        held.max_merge(&cohorts(1, 100));
        held.max_merge(&cohorts(2, 5));
        held.max_merge(&cohorts(1, 120));
        assert_eq!(held, cohorts(2, 5));
        assert_eq!(cohorts(2, 8).since(&held), cohorts(2, 3));
        assert_eq!(cohorts(3, 2).since(&held), cohorts(3, 2));
        let mut both = cohorts(2, 5);
        both.merge(&cohorts(2, 6));
        both.merge(&cohorts(1, 50));
        assert_eq!(both, cohorts(2, 11), "what was routed otherwise is not added to it");
    }

    #[test]
    fn streams_in_flight_are_neither_overdue_nor_absurd() {
        let mut streaming = counts(5, 0);
        (streaming.started, streaming.streams) = (7, 2);
        assert_eq!(streaming.check(), Ok(()));
        streaming.overdue = 1;
        assert!(matches!(streaming.check(), Err(Absurd::Overdue { .. })));
        (streaming.overdue, streaming.streams) = (0, 3);
        assert!(matches!(streaming.check(), Err(Absurd::Streams { .. })));
    }

    #[test]
    fn taking_in_an_old_report_changes_nothing() {
        let mut held = counts(100, 5);
        let before = held.clone();
        held.max_merge(&counts(80, 5));
        held.max_merge(&before.clone());
        assert_eq!(held, before);
    }

    #[test]
    fn impossible_counts_say_what_is_wrong() {
        let mut wrong = counts(5, 0);
        wrong.finished = 9;
        assert_eq!(wrong.check().unwrap_err().to_string(), "9 requests finished, but only 5 started");
        let mut wrong = counts(5, 0);
        wrong.outcomes[3] = 1;
        assert!(matches!(wrong.check(), Err(Absurd::OutcomesDoNotAddUp { .. })));
        let mut wrong = counts(5, 0);
        wrong.overdue = 1;
        assert!(matches!(wrong.check(), Err(Absurd::Overdue { .. })));
        let mut wrong = counts(5, 0);
        wrong.latency.add(3, 6);
        assert!(matches!(wrong.check(), Err(Absurd::LatenciesAboveFinished { .. })));
    }
}
