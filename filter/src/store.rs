//! What a worker has counted, ready to be reported until the controller has written it down.
//!
//! Everything is cumulative. Each counter's latest change carries the sequence of the report that will tell it
//! first; a report tells all that changed after the last durable mark. Lost, repeated and reordered reports then
//! cost nothing.

use std::collections::BTreeMap;

use wingbeat_core::counts::Cohorts;
use wingbeat_core::histogram::bin_of;
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_proto::v1;

/// Clusters and strata that a worker has room for.
const MAX_CLUSTERS: usize = 64;
/// Upstream addresses that a cluster has room for.
const MAX_PODS: usize = 32;

/// All that a worker has counted.
#[derive(Debug, Default)]
pub struct Store {
    clusters: BTreeMap<(String, Stratum), Cluster>,
    dropped: u64,
}

/// What a request in flight had been counted as before it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Before {
    /// It was not counted.
    #[default]
    Nothing,
    /// It was overdue.
    Overdue,
    /// It was old, but its response had begun.
    Answering,
    /// Its response had begun, and then stood still.
    Stalled,
    /// It was a stream.
    Stream,
}

/// A request in flight that is counted because it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// There is no answer.
    Overdue,
    /// Its response has begun, and is no stream as far as is known.
    Answering,
    /// Its response had begun, and then stood still.
    Stalled,
    /// Its response had stood still, and did so for too long.
    Hung,
    /// It is a stream.
    Stream,
}

/// A finished request, as it is counted.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// How it ended; `None` is not counted as an outcome.
    pub outcome: Option<Outcome>,
    /// How long it took.
    pub micros: u64,
    /// What it had been counted as.
    pub before: Before,
    /// True if it turned out to have been a stream: its length is no latency.
    pub stream: bool,
    /// True if the client gave it up, and that counts against the server.
    pub abandoned: bool,
    /// Attempts, where known.
    pub attempts: Option<u64>,
    /// gRPC status, where the traffic is gRPC.
    pub grpc: Option<u32>,
    /// Upstream address, where read.
    pub pod: Option<String>,
    /// True if the request is one of a sample, and not only read because it failed.
    pub sampled: bool,
    /// Size of the body in bytes, where read.
    pub body: Option<u64>,
    /// Rev of its route, where read.
    pub rev: Option<u64>,
    /// Group of its user, where users keep their arm.
    pub group: Option<u8>,
}

#[derive(Debug, Default)]
struct Cluster {
    /// Sequence of the first report that tells the latest change.
    changed: u64,
    finished: u64,
    overdue: u64,
    overdue_finished: u64,
    overdue_errors: u64,
    abandoned: u64,
    stalled: u64,
    stalled_settled: u64,
    answering: u64,
    answering_finished: u64,
    streams: u64,
    streams_finished: u64,
    sized: u64,
    empty: u64,
    outcomes: [u64; Outcome::ALL.len()],
    grpc_statuses: BTreeMap<u32, u64>,
    retried: u64,
    extra_attempts: u64,
    /// Count and latest change by bin.
    latency: BTreeMap<u16, (u64, u64)>,
    latency_sum_us: u64,
    rev: u64,
    rev_started: u64,
    pods: BTreeMap<String, (Pod, u64)>,
    cohorts: Closed,
    groups: BTreeMap<u8, (Group, u64)>,
}

/// Counts of closed cohorts at one rev, with the latest change of each bin.
#[derive(Debug, Default)]
struct Closed {
    rev: u64,
    finished: u64,
    errors: u64,
    overdue: u64,
    latency: BTreeMap<u16, (u64, u64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Pod {
    finished: u64,
    errors: u64,
    slow: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Group {
    judged: u64,
    errors: u64,
}

impl Store {
    /// Counts a finished request; `sequence` is that of the next report.
    pub fn finish(&mut self, cluster: &str, stratum: Stratum, request: &Finished, sequence: u64) {
        match self.cluster(cluster, stratum) {
            Some(held) => held.finish(request, sequence),
            None => raise(&mut self.dropped, 1),
        }
    }

    /// Counts a request in flight that is old. False if there is no room for its cluster.
    pub fn old(&mut self, cluster: &str, stratum: Stratum, old: Old, sequence: u64) -> bool {
        let Some(held) = self.cluster(cluster, stratum) else { return false };
        match old {
            Old::Overdue => raise(&mut held.overdue, 1),
            Old::Answering => raise(&mut held.answering, 1),
            Old::Stalled => raise(&mut held.stalled, 1),
            Old::Hung => {
                raise(&mut held.answering_finished, 1);
                raise(&mut held.stalled_settled, 1);
                raise(&mut held.overdue, 1);
            }
            Old::Stream => raise(&mut held.streams, 1),
        }
        held.changed = sequence;
        true
    }

    /// Counts a closed cohort of requests that were counted here before. One of routes before the latest is left out.
    pub fn close(&mut self, cluster: &str, stratum: Stratum, cohort: &Cohorts, sequence: u64) {
        if let Some(held) = self.clusters.get_mut(&(cluster.to_owned(), stratum))
            && held.cohorts.add(cohort, sequence)
        {
            held.changed = sequence;
        }
    }

    /// Returns true if anything changed that no report up to `told` has told.
    pub fn has_news(&self, told: u64) -> bool {
        self.clusters.values().any(|cluster| cluster.changed > told)
    }

    /// Returns what changed after the report `durable`, which the controller has written down.
    pub fn changes(&self, durable: u64) -> Vec<v1::ClusterReport> {
        let changed = self.clusters.iter().filter(|(_, cluster)| cluster.changed > durable);
        changed.map(|((name, stratum), cluster)| cluster.report(name, *stratum, durable)).collect()
    }

    /// Returns how many requests found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn cluster(&mut self, name: &str, stratum: Stratum) -> Option<&mut Cluster> {
        let key = (name.to_owned(), stratum);
        if self.clusters.len() >= MAX_CLUSTERS && !self.clusters.contains_key(&key) {
            return None;
        }
        Some(self.clusters.entry(key).or_default())
    }
}

impl Cluster {
    fn finish(&mut self, request: &Finished, sequence: u64) {
        self.changed = sequence;
        raise(&mut self.finished, 1);
        let error = request.outcome.is_some_and(Outcome::is_error);
        match request.before {
            Before::Nothing => {}
            Before::Overdue => {
                raise(&mut self.overdue_finished, 1);
                raise(&mut self.overdue_errors, u64::from(error || request.abandoned));
            }
            Before::Answering => raise(&mut self.answering_finished, 1),
            Before::Stalled => {
                raise(&mut self.answering_finished, 1);
                raise(&mut self.stalled_settled, u64::from(request.outcome.is_some_and(Outcome::is_judged)));
            }
            Before::Stream => raise(&mut self.streams_finished, 1),
        }
        raise(&mut self.abandoned, u64::from(request.abandoned));
        if request.stream && request.before != Before::Stream {
            raise(&mut self.streams, 1);
            raise(&mut self.streams_finished, 1);
        }
        if let Some(outcome) = request.outcome {
            if let Some(count) = self.outcomes.get_mut(outcome.index()) {
                raise(count, 1);
            }
            if outcome.is_judged() && !request.stream {
                let (count, changed) = self.latency.entry(bin_of(request.micros)).or_default();
                raise(count, 1);
                *changed = sequence;
                raise(&mut self.latency_sum_us, request.micros);
            }
        }
        if let Some(size) = request.body {
            raise(&mut self.sized, 1);
            raise(&mut self.empty, u64::from(size == 0));
        }
        if let Some(status) = request.grpc {
            // gRPC has 17 codes; what else a peer sends counts as one.
            raise(self.grpc_statuses.entry(status.min(17)).or_default(), 1);
        }
        if let Some(attempts) = request.attempts.filter(|attempts| *attempts > 1) {
            raise(&mut self.retried, 1);
            raise(&mut self.extra_attempts, attempts.saturating_sub(1));
        }
        match request.rev {
            Some(rev) if rev > self.rev => (self.rev, self.rev_started) = (rev, 1),
            Some(rev) if rev == self.rev => raise(&mut self.rev_started, 1),
            Some(_) | None => {}
        }
        if let Some(group) = request.group
            && request.outcome.is_some_and(Outcome::is_judged)
        {
            let (held, changed) = self.groups.entry(group).or_default();
            raise(&mut held.judged, 1);
            raise(&mut held.errors, u64::from(error));
            *changed = sequence;
        }
        if let Some(address) = &request.pod {
            self.count_pod(address, request, error, sequence);
        }
    }

    fn count_pod(&mut self, address: &str, request: &Finished, error: bool, sequence: u64) {
        if self.pods.len() >= MAX_PODS && !self.pods.contains_key(address) {
            return;
        }
        let (pod, changed) = self.pods.entry(address.to_owned()).or_default();
        raise(&mut pod.finished, u64::from(request.sampled));
        raise(&mut pod.errors, u64::from(error));
        raise(&mut pod.slow, u64::from(request.sampled && request.before == Before::Overdue));
        *changed = sequence;
    }

    fn report(&self, name: &str, stratum: Stratum, durable: u64) -> v1::ClusterReport {
        v1::ClusterReport {
            cluster: name.to_owned(),
            stratum: u32::try_from(stratum.index()).unwrap_or_default(),
            started: self.finished.saturating_add(self.in_flight()),
            finished: self.finished,
            overdue: self.overdue,
            overdue_finished: self.overdue_finished,
            outcomes: self.outcomes.to_vec(),
            overdue_errors: self.overdue_errors,
            abandoned: self.abandoned,
            stalled: self.stalled,
            stalled_settled: self.stalled_settled,
            grpc_statuses: self
                .grpc_statuses
                .iter()
                .map(|(key, count)| v1::Count { key: *key, count: *count })
                .collect(),
            retried: self.retried,
            extra_attempts: self.extra_attempts,
            latency: changed_bins(&self.latency, durable),
            latency_sum_us: self.latency_sum_us,
            rev: self.rev,
            rev_started: self.rev_started,
            pods: self
                .pods
                .iter()
                .filter(|(_, (_, changed))| *changed > durable)
                .map(|(address, (pod, _))| v1::PodReport {
                    address: address.clone(),
                    finished: pod.finished,
                    errors: pod.errors,
                    slow: pod.slow,
                })
                .collect(),
            sized: self.sized,
            empty: self.empty,
            streams: self.streams,
            streams_finished: self.streams_finished,
            cohorts: self.cohorts.report(durable),
            groups: self
                .groups
                .iter()
                .filter(|(_, (_, changed))| *changed > durable)
                .map(|(group, (held, _))| v1::GroupReport {
                    group: u32::from(*group),
                    judged: held.judged,
                    errors: held.errors,
                })
                .collect(),
        }
    }

    /// Requests in flight that were counted as something.
    fn in_flight(&self) -> u64 {
        let overdue = self.overdue.saturating_sub(self.overdue_finished);
        let answering = self.answering.saturating_sub(self.answering_finished);
        overdue.saturating_add(answering).saturating_add(self.streams.saturating_sub(self.streams_finished))
    }
}

impl Closed {
    /// Returns false if the cohort is of a rev that is over.
    fn add(&mut self, cohort: &Cohorts, sequence: u64) -> bool {
        let rev = cohort.rev.get();
        if rev < self.rev {
            return false;
        }
        if rev > self.rev {
            *self = Self { rev, ..Self::default() };
        }
        raise(&mut self.finished, cohort.finished);
        raise(&mut self.errors, cohort.errors);
        raise(&mut self.overdue, cohort.overdue);
        for (bin, more) in cohort.latency.iter() {
            let (count, changed) = self.latency.entry(bin).or_default();
            raise(count, more);
            *changed = sequence;
        }
        true
    }

    fn report(&self, durable: u64) -> Option<v1::Cohorts> {
        (self.rev > 0).then(|| v1::Cohorts {
            rev: self.rev,
            finished: self.finished,
            errors: self.errors,
            overdue: self.overdue,
            latency: changed_bins(&self.latency, durable),
        })
    }
}

fn changed_bins(bins: &BTreeMap<u16, (u64, u64)>, durable: u64) -> Vec<v1::Count> {
    let changed = bins.iter().filter(|(_, (_, changed))| *changed > durable);
    changed.map(|(bin, (count, _))| v1::Count { key: u32::from(*bin), count: *count }).collect()
}

fn raise(count: &mut u64, by: u64) {
    *count = count.saturating_add(by);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(outcome: Outcome, micros: u64) -> Finished {
        Finished { outcome: Some(outcome), micros, ..Finished::default() }
    }

    #[test]
    fn only_what_changed_after_the_durable_mark_is_told_again() {
        let mut store = Store::default();
        store.finish("a", Stratum::Judged, &finished(Outcome::Success, 10), 1);
        store.finish("b", Stratum::Judged, &finished(Outcome::Success, 10), 1);
        store.finish("a", Stratum::Judged, &finished(Outcome::ServerFault, 90), 2);
        assert!(store.has_news(1) && !store.has_news(2));
        assert_eq!(store.changes(0).len(), 2);
        let changes = store.changes(1);
        assert_eq!(changes.len(), 1);
        // Counters are whole, bins only those that changed.
        assert_eq!((changes[0].cluster.as_str(), changes[0].finished), ("a", 2));
        assert_eq!(changes[0].latency, [v1::Count { key: 90, count: 1 }]);
        assert_eq!(store.changes(2), []);
    }

    #[test]
    fn room_is_bounded_and_what_finds_none_is_counted() {
        let mut store = Store::default();
        for n in 0..MAX_CLUSTERS + 3 {
            store.finish(&n.to_string(), Stratum::Judged, &finished(Outcome::Success, 1), 1);
        }
        assert_eq!((store.changes(0).len(), store.dropped()), (MAX_CLUSTERS, 3));
        for n in 0..100 {
            let request = Finished { pod: Some(n.to_string()), ..finished(Outcome::Success, 1) };
            store.finish("0", Stratum::Judged, &request, 1);
        }
        assert_eq!(store.changes(0)[0].pods.len(), MAX_PODS);
    }

    #[test]
    fn clients_that_left_have_no_latency() {
        let mut store = Store::default();
        store.finish("a", Stratum::Judged, &finished(Outcome::DisconnectBeforeResponse, 500), 1);
        store.finish("a", Stratum::Judged, &finished(Outcome::NotSent, 1), 1);
        let report = &store.changes(0)[0];
        assert_eq!((report.finished, report.latency.len()), (2, 0));
    }

    #[test]
    fn users_are_counted_by_group() {
        let mut store = Store::default();
        for (outcome, group) in [
            (Outcome::Success, Some(7)),
            (Outcome::ServerFault, Some(7)),
            (Outcome::DisconnectBeforeResponse, Some(7)),
            (Outcome::Success, None),
        ] {
            store.finish("a", Stratum::Judged, &Finished { group, ..finished(outcome, 1) }, 1);
        }
        assert_eq!(store.changes(0)[0].groups, [v1::GroupReport { group: 7, judged: 2, errors: 1 }]);
        store.finish("a", Stratum::Judged, &Finished { group: Some(99), ..finished(Outcome::Success, 1) }, 2);
        assert_eq!(store.changes(1)[0].groups, [v1::GroupReport { group: 99, judged: 1, errors: 0 }]);
    }

    #[test]
    fn a_new_rev_starts_its_own_count() {
        let mut store = Store::default();
        for rev in [Some(3), Some(3), None, Some(4), Some(3)] {
            store.finish("a", Stratum::Judged, &Finished { rev, ..finished(Outcome::Success, 1) }, 1);
        }
        assert_eq!((store.changes(0)[0].rev, store.changes(0)[0].rev_started), (4, 1));
    }
}
