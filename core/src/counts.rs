//! What a worker counts for one cluster and stratum, and the arithmetic on it.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::id::Rev;
use crate::outcome::Outcome;

mod cohorts;
mod groups;

pub use cohorts::Cohorts;
pub use groups::{GroupCounts, Groups};

/// Requests of one cluster and stratum: cumulative since a worker started, or the difference of two
/// such counts.
///
/// A cumulative value never falls, except for [`Counts::rev_started`] and [`Counts::cohorts`], which start again at a
/// new rev. Bins and keys that a report leaves out have not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests attributed to the cluster: finished ones, and those in flight that grew so old that they were looked
    /// at.
    pub started: u64,
    /// Requests that ended, in whatever way.
    pub finished: u64,
    /// Requests that grew older than the policy allows and had no response headers, or whose response then stood still
    /// for a minute; each counted once, when it did (P1). Time that the client took to send the request is not counted.
    pub overdue: u64,
    /// Of these, how many have finished since.
    pub overdue_finished: u64,
    /// Of these, how many ended as errors or [`Counts::abandoned`].
    pub overdue_errors: u64,
    /// Requests that the client gave up and that count against the server: it had waited for an answer longer than
    /// half of what makes a request overdue, or its request had been counted as overdue. A subset of the disconnects and
    /// of the requests that never reached an upstream.
    pub abandoned: u64,
    /// Requests whose response had begun, was not complete when they were overdue, and then brought no byte for the
    /// time that the policy allows, at least 1 s, or for half of it until the client gave it up; each counted once, when it
    /// did. Streams that are quiet are among them: what they are is known when they end. So the shares of both arms are
    /// compared, and one share alone only with the primary's of before.
    pub stalled: u64,
    /// Of these, how many are part of [`Counts::judged_and_hangs`] since: they ended, and not by the client, or are
    /// overdue.
    pub stalled_settled: u64,
    /// Long-lived streams, each counted once, when it was recognised (P3): upgraded connections (WebSocket) and gRPC
    /// calls that stay open after their response headers, in flight; server-sent events, when they end, since their
    /// content type cannot be read before.
    pub streams: u64,
    /// Of these, how many have finished since. Their outcome counts like any other; their length is no latency.
    pub streams_finished: u64,
    /// Finished requests by [`Outcome::index`].
    pub outcomes: [u64; 12],
    /// gRPC statuses by code.
    pub grpc_statuses: BTreeMap<u32, u64>,
    /// Requests that needed more than one attempt (P5).
    pub retried: u64,
    /// Attempts beyond the first.
    pub extra_attempts: u64,
    /// Of the responses with [`Outcome::Success`], how many had the size of their body read: all of the canary, a sample
    /// of the primary (P4). Never of gRPC nor of upgraded connections.
    pub sized: u64,
    /// Of these, how many had no body.
    pub empty: u64,
    /// Latencies of requests that reached an upstream and that the client waited for, without streams. Where the
    /// policy asks for it, the time that a long request waited for a connection is not in it (P6).
    pub latency: Histogram,
    /// Their sum in microseconds.
    pub latency_sum_us: u64,
    /// The highest rev seen in a request's route.
    pub rev: Rev,
    /// How many requests carried it.
    pub rev_started: u64,
    /// Sampled requests and all errors by upstream address (P13).
    pub pods: BTreeMap<String, PodCounts>,
    /// Requests that a filter had no room to count. Nothing else here knows of them, and what is missing may be what
    /// fails: a step does not end on such counts.
    pub uncounted: u64,
    /// Sampled requests whose pod had no room among [`Counts::pods`]. Everything else here knows of them.
    pub uncounted_by_pod: u64,
    /// Requests of closed start cohorts, where the policy asks for them (P2).
    pub cohorts: Cohorts,
    /// Requests by group of users, where users keep their arm (P12).
    pub groups: Groups,
}

/// Requests of one upstream address. Its address is read of every request of the canary, and of the primary of one in 16
/// and of every error. So a primary's pod has served about 16 times the `finished` requests, and with few requests
/// more errors than these are known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCounts {
    /// Sampled requests that ended.
    pub finished: u64,
    /// All errors, sampled or not.
    pub errors: u64,
    /// Of the sampled requests, the ones that had been counted as overdue.
    pub slow: u64,
}

/// Counts that no worker can have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCounts {
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
    /// More requests were given up than ended without an answer of the upstream.
    #[error("{abandoned} requests were given up, but only {left} ended without an answer of the upstream")]
    Abandoned {
        /// Requests that clients gave up.
        abandoned: u64,
        /// Requests that ended in a way that says nothing about the upstream.
        left: u64,
    },
    /// The stalled responses contradict each other or the rest.
    #[error("{stalled} stalled responses, {settled} of them settled, do not fit to {started} requests")]
    Stalled {
        /// Responses that stood still.
        stalled: u64,
        /// Of these, counted as something else since.
        settled: u64,
        /// Requests that began.
        started: u64,
    },
    /// The streams contradict the rest.
    #[error("{streams} streams, {finished} of them finished, do not fit to {in_flight} requests in flight")]
    Streams {
        /// Streams that were recognised.
        streams: u64,
        /// Of these, finished since.
        finished: u64,
        /// Requests that began and have not ended.
        in_flight: u64,
    },
    /// More bodies were read than there were responses.
    #[error("{empty} of {sized} responses without a body do not fit to {success} successes")]
    Sizes {
        /// Successes whose size was read.
        sized: u64,
        /// Of these, without a body.
        empty: u64,
        /// All successes.
        success: u64,
    },
    /// The closed cohorts hold what did not happen.
    #[error(
        "cohorts of {finished} finished requests, {errors} errors and {overdue} overdue ones do not fit to the rest"
    )]
    Cohorts {
        /// Requests that ended.
        finished: u64,
        /// Of these, errors.
        errors: u64,
        /// Requests that were overdue.
        overdue: u64,
    },
    /// Groups of users hold what did not happen.
    #[error("requests by group of users do not fit to the rest")]
    Groups,
    /// More requests than there can be.
    #[error("{count} requests are more than the {MAX_REQUESTS} that one worker can have counted")]
    TooMany {
        /// The count.
        count: u64,
    },
    /// More latencies than finished requests.
    #[error("{latencies} latencies, but only {finished} requests finished")]
    LatenciesAboveFinished {
        /// Count of the histogram.
        latencies: u64,
        /// Requests that ended.
        finished: u64,
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

/// Requests that one worker may count, at most: up to here a count is exact as a float, so that evidence made of it
/// stays finite. Higher counts are refused.
pub const MAX_REQUESTS: u64 = 1 << 53;

/// Pods of one cluster that a worker tells apart. A report with more, or with others than these, is refused.
pub const MAX_PODS_OF_WORKER: usize = 32;

/// Pods that are told apart in one sum of counts. Those that come later are counted in
/// [`Counts::uncounted_by_pod`].
pub const MAX_PODS: usize = 1_024;

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
    /// at once, and not again if it ends without an answer later. A client that gives up after a long wait counts too:
    /// impatient clients end a hang before it grows overdue (P1). One that leaves earlier says nothing about the server.
    pub fn errors_and_hangs(&self) -> u64 {
        let no_answer = self.errors().saturating_add(self.abandoned);
        no_answer.saturating_sub(self.overdue_errors).saturating_add(self.overdue)
    }

    /// Returns the requests that [`Counts::errors_and_hangs`] is a share of.
    pub fn judged_and_hangs(&self) -> u64 {
        let ended = self.judged().saturating_add(self.abandoned);
        ended.saturating_sub(self.overdue_finished).saturating_add(self.overdue)
    }

    /// Returns the requests that [`Counts::stalled`] is a share of.
    pub fn judged_and_stalled(&self) -> u64 {
        self.judged_and_hangs().saturating_add(self.stalled).saturating_sub(self.stalled_settled)
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.started == 0 && self.finished == 0 && self.overdue == 0
    }

    /// Checks what must hold in every cumulative count; a difference of two counts need not fulfil it.
    pub fn check(&self) -> Result<(), InvalidCounts> {
        let (started, finished) = (self.started, self.finished);
        let counted = [started, self.overdue, self.streams, self.retried, self.extra_attempts];
        let uncounted = [self.uncounted, self.uncounted_by_pod, self.latency_sum_us];
        let largest = counted.into_iter().chain(uncounted);
        let largest = largest.chain(self.grpc_statuses.values().copied());
        let largest = largest.chain(self.pods.values().flat_map(|pod| [pod.finished, pod.errors, pod.slow]));
        if let Some(count) = largest.max().filter(|count| *count > MAX_REQUESTS) {
            return Err(InvalidCounts::TooMany { count });
        }
        if finished > started {
            return Err(InvalidCounts::FinishedAboveStarted { started, finished });
        }
        let outcomes = self.sum_of(|_| true);
        if outcomes != finished {
            return Err(InvalidCounts::OutcomesDoNotAddUp { outcomes, finished });
        }
        let in_flight = started.saturating_sub(finished);
        if self.overdue_finished > self.overdue
            || self.overdue_errors > self.overdue_finished
            || self.overdue_finished > finished
            || self.overdue.saturating_sub(self.overdue_finished) > in_flight
        {
            return Err(InvalidCounts::Overdue {
                overdue: self.overdue,
                finished: self.overdue_finished,
                errors: self.overdue_errors,
            });
        }
        let left = finished.saturating_sub(self.judged());
        if self.abandoned > left {
            return Err(InvalidCounts::Abandoned { abandoned: self.abandoned, left });
        }
        if self.stalled_settled > self.stalled || self.stalled > started {
            return Err(InvalidCounts::Stalled { stalled: self.stalled, settled: self.stalled_settled, started });
        }
        let streaming = self.streams.saturating_sub(self.streams_finished);
        let overdue = self.overdue.saturating_sub(self.overdue_finished);
        if self.streams_finished > self.streams
            || self.streams_finished > finished
            || streaming.saturating_add(overdue) > in_flight
        {
            return Err(InvalidCounts::Streams { streams: self.streams, finished: self.streams_finished, in_flight });
        }
        let success = self.outcome(Outcome::Success);
        if self.sized > success || self.empty > self.sized {
            return Err(InvalidCounts::Sizes { sized: self.sized, empty: self.empty, success });
        }
        if self.cohorts.contradict(self.errors(), self.overdue, self.started) {
            let Cohorts { finished, errors, overdue, .. } = self.cohorts;
            return Err(InvalidCounts::Cohorts { finished, errors, overdue });
        }
        if self.groups.contradict(self.judged(), self.errors()) {
            return Err(InvalidCounts::Groups);
        }
        let latencies = self.latency.count();
        if latencies > finished {
            return Err(InvalidCounts::LatenciesAboveFinished { latencies, finished });
        }
        if self.rev_started > started {
            return Err(InvalidCounts::RevAboveStarted { rev_started: self.rev_started, started });
        }
        Ok(())
    }

    /// Adds the counts of `other`, of another worker or a later stretch of time.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
        self.latency.merge(&other.latency);
        self.cohorts.merge(&other.cohorts);
    }

    /// Keeps the higher of both cumulative counts, everywhere: taking in the same report twice, or
    /// an older one late, changes nothing.
    pub fn max_merge(&mut self, other: &Self) {
        self.combine(other, u64::max);
        self.latency.max_merge(&other.latency);
        self.cohorts.max_merge(&other.cohorts);
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
            abandoned: self.abandoned.saturating_sub(earlier.abandoned),
            stalled: self.stalled.saturating_sub(earlier.stalled),
            stalled_settled: self.stalled_settled.saturating_sub(earlier.stalled_settled),
            streams: self.streams.saturating_sub(earlier.streams),
            streams_finished: self.streams_finished.saturating_sub(earlier.streams_finished),
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
            sized: self.sized.saturating_sub(earlier.sized),
            empty: self.empty.saturating_sub(earlier.empty),
            uncounted: self.uncounted.saturating_sub(earlier.uncounted),
            uncounted_by_pod: self.uncounted_by_pod.saturating_sub(earlier.uncounted_by_pod),
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
            cohorts: self.cohorts.since(&earlier.cohorts),
            groups: self.groups.since(&earlier.groups),
        }
    }

    /// Inlined, it is a sum of those that are known to be wanted.
    #[inline]
    fn sum_of(&self, wanted: impl Fn(Outcome) -> bool) -> u64 {
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
            (&mut self.abandoned, other.abandoned),
            (&mut self.stalled, other.stalled),
            (&mut self.stalled_settled, other.stalled_settled),
            (&mut self.streams, other.streams),
            (&mut self.streams_finished, other.streams_finished),
            (&mut self.sized, other.sized),
            (&mut self.empty, other.empty),
            (&mut self.uncounted, other.uncounted),
            (&mut self.uncounted_by_pod, other.uncounted_by_pod),
            (&mut self.retried, other.retried),
            (&mut self.extra_attempts, other.extra_attempts),
            (&mut self.latency_sum_us, other.latency_sum_us),
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
            if let Some(mine) = self.pods.get_mut(address) {
                *mine = mine.join(theirs, join);
            } else if self.pods.len() < MAX_PODS {
                self.pods.insert(address.clone(), theirs);
            } else {
                self.uncounted_by_pod = self.uncounted_by_pod.saturating_add(theirs.finished);
            }
        }
        self.groups.combine(&other.groups, join);
        if other.rev > self.rev {
            self.rev = other.rev;
            self.rev_started = other.rev_started;
        } else if other.rev == self.rev {
            self.rev_started = join(self.rev_started, other.rev_started);
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
    fn a_client_that_gives_up_after_a_long_wait_got_no_answer() {
        let mut left = counts(7, 0);
        left.outcomes[Outcome::DisconnectBeforeResponse.index()] = 2;
        left.outcomes[Outcome::DisconnectMidResponse.index()] = 2;
        (left.started, left.finished) = (11, 11);
        assert_eq!((left.errors_and_hangs(), left.judged_and_hangs()), (0, 7), "who leaves soon says nothing");
        left.abandoned = 3;
        assert_eq!((left.errors_and_hangs(), left.judged_and_hangs()), (3, 10));
        assert_eq!((left.errors(), left.judged()), (0, 7), "the server is not to blame by this alone");
        // Two of them had grown overdue before: each counts once.
        (left.overdue, left.overdue_finished, left.overdue_errors) = (2, 2, 2);
        assert_eq!((left.errors_and_hangs(), left.judged_and_hangs()), (3, 10));
        assert_eq!(left.check(), Ok(()));
        left.abandoned = 5;
        assert_eq!(left.check(), Err(InvalidCounts::Abandoned { abandoned: 5, left: 4 }));
    }

    /// However a stalled response goes on, its request is one of those that the share is of, in every difference.
    #[test]
    fn a_stalled_response_is_counted_once_however_it_ends() {
        let before = Counts { started: 12, ..counts(10, 0) };
        let stalled = Counts { stalled: 2, ..before.clone() };
        assert_eq!(stalled.since(&before).judged_and_stalled(), 2);
        assert_eq!((stalled.errors_and_hangs(), stalled.judged_and_hangs(), stalled.judged_and_stalled()), (0, 10, 12));
        let ended = Counts { stalled: 2, stalled_settled: 2, ..counts(12, 0) };
        let hung = Counts { overdue: 2, stalled_settled: 2, ..stalled.clone() };
        let mut left = Counts { started: 12, finished: 12, ..stalled.clone() };
        left.outcomes[Outcome::DisconnectMidResponse.index()] = 2;
        for after in [ended, hung, left] {
            assert_eq!(after.check(), Ok(()));
            assert_eq!((after.judged_and_stalled(), after.since(&stalled).judged_and_stalled()), (12, 0), "{after:?}");
        }
        let wrong = Counts { stalled_settled: 3, ..stalled };
        assert!(matches!(wrong.check(), Err(InvalidCounts::Stalled { stalled: 2, settled: 3, .. })));
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
    fn taking_in_an_old_report_changes_nothing() {
        let mut held = counts(100, 5);
        let before = held.clone();
        held.max_merge(&counts(80, 5));
        held.max_merge(&before.clone());
        assert_eq!(held, before);
    }

    #[test]
    fn streams_in_flight_are_neither_overdue_nor_errors() {
        let mut streaming = counts(8, 1);
        streaming.started = 12;
        (streaming.overdue, streaming.streams, streaming.streams_finished) = (1, 3, 1);
        assert_eq!(streaming.check(), Ok(()));
        assert_eq!((streaming.errors_and_hangs(), streaming.judged_and_hangs()), (2, 10));
        streaming.streams = 4;
        assert!(matches!(streaming.check(), Err(InvalidCounts::Streams { streams: 4, finished: 1, in_flight: 3 })));
        assert_eq!(streaming.since(&counts(8, 1)).streams, 4);
    }

    #[test]
    fn cohorts_are_part_of_the_whole() {
        let mut whole = counts(8, 2);
        (whole.sized, whole.empty) = (8, 8);
        whole.cohorts = Cohorts { rev: Rev::new(1), finished: 10, errors: 2, ..Cohorts::default() };
        assert_eq!(whole.check(), Ok(()));
        for change in [
            |counts: &mut Counts| counts.cohorts.finished = 11,
            |counts: &mut Counts| counts.cohorts.errors = 3,
            |counts: &mut Counts| counts.cohorts.overdue = 1,
            |counts: &mut Counts| counts.cohorts.latency.add(3, 11),
        ] {
            let mut wrong = whole.clone();
            change(&mut wrong);
            assert!(matches!(wrong.check(), Err(InvalidCounts::Cohorts { .. })), "{wrong:?}");
        }
        let mut more = whole.clone();
        more.merge(&whole);
        assert_eq!((more.cohorts.finished, more.sized, more.empty), (20, 16, 16));
        assert_eq!(more.since(&whole), whole, "the same again");
        more.max_merge(&whole);
        assert_eq!(more.cohorts.finished, 20);
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let mut written = serde_json::to_value(counts(3, 0)).unwrap();
        let fields = written.as_object_mut().unwrap();
        for later in ["sized", "empty", "streams", "streams_finished", "cohorts", "groups"] {
            assert!(fields.remove(later).is_some(), "{later}");
        }
        assert_eq!(serde_json::from_value::<Counts>(written).unwrap(), counts(3, 0));
    }

    #[test]
    fn impossible_counts_say_what_is_wrong() {
        let mut wrong = counts(5, 0);
        wrong.finished = 9;
        assert_eq!(wrong.check().unwrap_err().to_string(), "9 requests finished, but only 5 started");
        let mut wrong = counts(5, 0);
        wrong.outcomes[3] = 1;
        assert!(matches!(wrong.check(), Err(InvalidCounts::OutcomesDoNotAddUp { .. })));
        let mut wrong = counts(5, 0);
        wrong.overdue = 1;
        assert!(matches!(wrong.check(), Err(InvalidCounts::Overdue { .. })));
        let mut wrong = counts(5, 1);
        wrong.sized = 6;
        assert!(matches!(wrong.check(), Err(InvalidCounts::Sizes { sized: 6, empty: 0, success: 5 })));
        let mut wrong = counts(5, 0);
        wrong.latency.add(3, 6);
        assert!(matches!(wrong.check(), Err(InvalidCounts::LatenciesAboveFinished { .. })));
        // Beyond what floats hold exactly, also of what nothing else bounds.
        let fields: [fn(&mut Counts) -> &mut u64; 5] = [
            |counts| &mut counts.retried,
            |counts| &mut counts.extra_attempts,
            |counts| &mut counts.uncounted,
            |counts| &mut counts.uncounted_by_pod,
            |counts| &mut counts.latency_sum_us,
        ];
        for field in fields {
            let mut wrong = counts(5, 0);
            *field(&mut wrong) = MAX_REQUESTS + 1;
            assert!(matches!(wrong.check(), Err(InvalidCounts::TooMany { .. })), "{wrong:?}");
        }
    }
}
