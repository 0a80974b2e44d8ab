//! What a worker has counted, ready to be reported until the controller has written it down.
//!
//! Everything is cumulative. Each counter's latest change carries the sequence of the report that will tell it
//! first; a report tells all that changed after the last durable mark. Lost, repeated and reordered reports then
//! cost nothing.
//!
//! Counts are kept by rollout (its epoch): those of a rollout that is over leave once they are durable.

use std::collections::BTreeMap;

use prost::Message as _;
use wingbeat_core::counts::Cohorts;
use wingbeat_core::histogram::bin_of;
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_proto::convert::{MAX_PODS, OTHER_GRPC_STATUS};
use wingbeat_proto::v1;

/// Places that a worker has room for: those of 64 rollouts at a time, each with two clusters of two strata. Requests
/// beyond it are counted as such and nothing else.
const MAX_PLACES: usize = 256;
/// Places without room whose requests are counted at least. Beyond it they are not. With the longest names they are half of
/// [`MAX_REPORT`], which leaves room for the longest report of a place (60 KiB).
const MAX_UNCOUNTED: usize = 128;
/// Bytes of a report. What does not fit comes with the next one; the server takes 256 KiB.
const MAX_REPORT: usize = 192 * 1024;

/// Where a request is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterKey {
    /// The rollout that it belongs to.
    pub epoch: u64,
    /// Where it came from.
    pub stratum: Stratum,
    /// The cluster that it went to.
    pub cluster: String,
}

/// All that a worker has counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Few, and compared by their epochs first: looking through them costs less code and time than a tree.
    places: Vec<(CounterKey, Cluster)>,
    /// Requests of places that have no room, with the latest change.
    uncounted: Vec<(CounterKey, u64, u64)>,
}

/// What a request in flight had been counted as before it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CountedAs {
    /// It was not counted.
    #[default]
    Nothing,
    /// It was overdue.
    Overdue,
    /// It was old, but its response had begun.
    Answering {
        /// Bytes of its body when it was looked at last, and when that was.
        sent: u64,
        /// See `sent`.
        looked_ns: u64,
    },
    /// Its response had begun, and then stood still.
    Stalled,
    /// It was a stream.
    Stream,
}

/// A request in flight that is counted because it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongRunning {
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
pub struct FinishedRequest {
    /// How it ended; `None` is not counted as an outcome.
    pub outcome: Option<Outcome>,
    /// How long it took.
    pub micros: u64,
    /// What it had been counted as.
    pub before: CountedAs,
    /// True if it turned out to have been a stream: its length is no latency.
    pub stream: bool,
    /// True if the client gave it up, and that counts against the server.
    pub abandoned: bool,
    /// True if its response stood still until the client gave it up, and was not counted as stalled before.
    pub stalled: bool,
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
    /// Sequence of the first report that tells of it.
    first: u64,
    /// Sequence of the first report that tells the latest change.
    changed: u64,
    /// Requests from before there was room, and requests whose pod has none.
    uncounted: u64,
    uncounted_by_pod: u64,
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
    /// As they are reported. These and the next two are few: looking through them costs less code than trees.
    grpc_statuses: Vec<v1::Count>,
    retried: u64,
    extra_attempts: u64,
    /// Count and latest change by bin.
    latency: BTreeMap<u16, (u64, u64)>,
    latency_sum_us: u64,
    rev: u64,
    rev_started: u64,
    /// As they are reported, with the latest change of each.
    pods: Vec<(v1::PodReport, u64)>,
    cohorts: ClosedCohorts,
    groups: Vec<(v1::GroupReport, u64)>,
}

/// Counts of closed cohorts at one rev, with the latest change of each bin.
#[derive(Debug, Default)]
struct ClosedCohorts {
    rev: u64,
    finished: u64,
    errors: u64,
    overdue: u64,
    latency: BTreeMap<u16, (u64, u64)>,
}

impl Counters {
    /// Counts a finished request; `sequence` is that of the next report.
    pub fn finish(&mut self, place: &CounterKey, request: &FinishedRequest, sequence: u64) {
        // What was counted in flight and is not known any more is over.
        if request.before != CountedAs::Nothing && self.find(place).is_none() {
            return;
        }
        match self.cluster(place, sequence) {
            Some(held) => held.finish(request, sequence),
            None => self.leave_out(place, 1, sequence),
        }
    }

    /// Counts a request in flight that is old. False if there is no room for its place.
    pub fn old(&mut self, place: &CounterKey, old: LongRunning, sequence: u64) -> bool {
        let Some(held) = self.cluster(place, sequence) else { return false };
        match old {
            LongRunning::Overdue => raise(&mut held.overdue, 1),
            LongRunning::Answering => raise(&mut held.answering, 1),
            LongRunning::Stalled => raise(&mut held.stalled, 1),
            LongRunning::Hung => {
                raise(&mut held.answering_finished, 1);
                raise(&mut held.stalled_settled, 1);
                raise(&mut held.overdue, 1);
            }
            LongRunning::Stream => raise(&mut held.streams, 1),
        }
        held.changed = sequence;
        true
    }

    /// Counts a closed cohort of requests that were counted here before. One of routes before the latest is left out.
    pub fn close(&mut self, place: &CounterKey, cohort: &Cohorts, sequence: u64) {
        if let Some(held) = self.find(place)
            && held.cohorts.add(cohort, sequence)
        {
            held.changed = sequence;
        }
    }

    /// Notes requests that are counted nowhere else.
    pub fn leave_out(&mut self, place: &CounterKey, requests: u64, sequence: u64) {
        if let Some((_, count, changed)) = self.uncounted.iter_mut().find(|(known, ..)| known == place) {
            raise(count, requests);
            *changed = sequence;
        } else if self.uncounted.len() < MAX_UNCOUNTED {
            self.uncounted.push((place.clone(), requests, sequence));
        }
    }

    /// Returns true if anything changed that no report up to `told` has told.
    pub fn has_changes(&self, told: u64) -> bool {
        self.places.iter().any(|(_, held)| held.changed > told)
            || self.uncounted.iter().any(|(_, _, changed)| *changed > told)
    }

    /// Returns what changed after the report `durable`, which the controller has written down, to be told by the report
    /// `sequence`. What finds no room in it counts as changed later, and comes first the next time.
    pub fn changes(&mut self, durable: u64, sequence: u64) -> Vec<v1::ClusterReport> {
        // First, since they leave room for others, and others may leave none.
        let uncounted = self.uncounted.iter().filter(|(_, _, changed)| *changed > durable);
        let mut reports: Vec<_> =
            uncounted.map(|(place, count, _)| v1::ClusterReport { uncounted: *count, ..place.report(1) }).collect();
        let mut size = reports.iter().map(v1::ClusterReport::encoded_len).fold(0, usize::saturating_add);
        let mut is_full = false;
        for (place, held) in &mut self.places {
            if held.changed <= durable {
                continue;
            }
            if !is_full {
                let report = held.report(place, durable);
                size = size.saturating_add(report.encoded_len());
                is_full = size > MAX_REPORT;
                if !is_full {
                    reports.push(report);
                    continue;
                }
            }
            held.postpone(durable, sequence);
        }
        if is_full {
            let places = std::mem::take(&mut self.places).into_iter();
            let (mut places, told): (Vec<_>, Vec<_>) = places.partition(|(_, held)| held.changed > sequence);
            places.extend(told);
            self.places = places;
        }
        reports
    }

    /// Forgets the places that are over and durable. Returns true if there were any.
    pub fn retain(&mut self, durable: u64, is_live: impl Fn(&CounterKey) -> bool) -> bool {
        let before = self.places.len();
        self.places.retain(|(place, held)| held.changed > durable || is_live(place));
        self.uncounted.retain(|(place, _, changed)| *changed > durable || is_live(place));
        self.places.len() < before
    }

    /// Forgets the places that are over, where room is needed. Returns true if there were any.
    pub fn make_room(&mut self, is_live: impl Fn(&CounterKey) -> bool) -> bool {
        self.places.len() >= MAX_PLACES && self.retain(u64::MAX, is_live)
    }

    /// Returns true if requests of this place are counted.
    pub fn holds(&self, place: &CounterKey) -> bool {
        self.places.iter().any(|(known, _)| known == place)
    }

    fn find(&mut self, place: &CounterKey) -> Option<&mut Cluster> {
        self.places.iter_mut().find(|(known, _)| known == place).map(|(_, held)| held)
    }

    fn cluster(&mut self, place: &CounterKey, sequence: u64) -> Option<&mut Cluster> {
        let known = self.places.iter().position(|(known, _)| known == place);
        let at = match known {
            Some(at) => at,
            None if self.places.len() < MAX_PLACES => {
                let before = self.uncounted.iter().position(|(known, ..)| known == place);
                let uncounted = before.map_or(0, |at| self.uncounted.swap_remove(at).1);
                // What was told without room goes on under the same sequence: with a later one it would be told twice.
                let first = if uncounted > 0 { 1 } else { sequence };
                self.places.push((place.clone(), Cluster { first, uncounted, ..Cluster::default() }));
                self.places.len().saturating_sub(1)
            }
            None => return None,
        };
        self.places.get_mut(at).map(|(_, held)| held)
    }
}

impl CounterKey {
    /// Returns a report without counts.
    fn report(&self, first_sequence: u64) -> v1::ClusterReport {
        v1::ClusterReport {
            cluster: self.cluster.clone(),
            stratum: u32::try_from(self.stratum.index()).unwrap_or_default(),
            epoch: self.epoch,
            first_sequence,
            ..v1::ClusterReport::default()
        }
    }
}

impl Cluster {
    fn finish(&mut self, request: &FinishedRequest, sequence: u64) {
        self.changed = sequence;
        raise(&mut self.finished, 1);
        let error = request.outcome.is_some_and(Outcome::is_error);
        match request.before {
            CountedAs::Nothing => {}
            CountedAs::Overdue => {
                raise(&mut self.overdue_finished, 1);
                raise(&mut self.overdue_errors, u64::from(error || request.abandoned));
            }
            CountedAs::Answering { .. } => raise(&mut self.answering_finished, 1),
            CountedAs::Stalled => {
                raise(&mut self.answering_finished, 1);
                raise(&mut self.stalled_settled, u64::from(request.outcome.is_some_and(Outcome::is_judged)));
            }
            CountedAs::Stream => raise(&mut self.streams_finished, 1),
        }
        raise(&mut self.abandoned, u64::from(request.abandoned));
        raise(&mut self.stalled, u64::from(request.stalled));
        if request.stream && request.before != CountedAs::Stream {
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
            // What else a peer sends counts as one status.
            let key = status.min(OTHER_GRPC_STATUS);
            match self.grpc_statuses.iter_mut().find(|held| held.key == key) {
                Some(held) => raise(&mut held.count, 1),
                None => self.grpc_statuses.push(v1::Count { key, count: 1 }),
            }
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
            self.count_group(u32::from(group), error, sequence);
        }
        if let Some(address) = &request.pod {
            self.count_pod(address, request, error, sequence);
        }
    }

    fn count_group(&mut self, group: u32, error: bool, sequence: u64) {
        let at = self.groups.iter().position(|(held, _)| held.group == group).unwrap_or_else(|| {
            self.groups.push((v1::GroupReport { group, ..v1::GroupReport::default() }, sequence));
            self.groups.len().saturating_sub(1)
        });
        let Some((held, changed)) = self.groups.get_mut(at) else { return };
        raise(&mut held.judged, 1);
        raise(&mut held.errors, u64::from(error));
        *changed = sequence;
    }

    fn count_pod(&mut self, address: &str, request: &FinishedRequest, error: bool, sequence: u64) {
        let known = self.pods.iter().position(|(held, _)| held.address == address);
        if known.is_none() && self.pods.len() >= MAX_PODS {
            return raise(&mut self.uncounted_by_pod, 1);
        }
        let at = known.unwrap_or_else(|| {
            self.pods.push((v1::PodReport { address: address.to_owned(), ..v1::PodReport::default() }, sequence));
            self.pods.len().saturating_sub(1)
        });
        let Some((pod, changed)) = self.pods.get_mut(at) else { return };
        raise(&mut pod.finished, u64::from(request.sampled));
        raise(&mut pod.errors, u64::from(error));
        raise(&mut pod.slow, u64::from(request.sampled && request.before == CountedAs::Overdue));
        *changed = sequence;
    }

    /// Puts off what changed after `durable` from the report `sequence` to the next one.
    fn postpone(&mut self, durable: u64, sequence: u64) {
        let next = sequence.saturating_add(1);
        let later = |changed: &mut u64| {
            if *changed > durable {
                *changed = next;
            }
        };
        if self.first == sequence {
            self.first = next;
        }
        later(&mut self.changed);
        self.latency.values_mut().for_each(|(_, changed)| later(changed));
        self.cohorts.latency.values_mut().for_each(|(_, changed)| later(changed));
        self.pods.iter_mut().for_each(|(_, changed)| later(changed));
        self.groups.iter_mut().for_each(|(_, changed)| later(changed));
    }

    fn report(&self, place: &CounterKey, durable: u64) -> v1::ClusterReport {
        v1::ClusterReport {
            uncounted: self.uncounted,
            uncounted_by_pod: self.uncounted_by_pod,
            started: self.finished.saturating_add(self.in_flight()),
            finished: self.finished,
            overdue: self.overdue,
            overdue_finished: self.overdue_finished,
            outcomes: self.outcomes.to_vec(),
            overdue_errors: self.overdue_errors,
            abandoned: self.abandoned,
            stalled: self.stalled,
            stalled_settled: self.stalled_settled,
            grpc_statuses: self.grpc_statuses.clone(),
            retried: self.retried,
            extra_attempts: self.extra_attempts,
            latency: changed_bins(&self.latency, durable),
            latency_sum_us: self.latency_sum_us,
            rev: self.rev,
            rev_started: self.rev_started,
            pods: changed_of(&self.pods, durable),
            sized: self.sized,
            empty: self.empty,
            streams: self.streams,
            streams_finished: self.streams_finished,
            cohorts: self.cohorts.report(durable),
            groups: changed_of(&self.groups, durable),
            ..place.report(self.first)
        }
    }

    /// Requests in flight that were counted as something.
    fn in_flight(&self) -> u64 {
        let overdue = self.overdue.saturating_sub(self.overdue_finished);
        let answering = self.answering.saturating_sub(self.answering_finished);
        overdue.saturating_add(answering).saturating_add(self.streams.saturating_sub(self.streams_finished))
    }
}

impl ClosedCohorts {
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

fn changed_of<T: Clone>(held: &[(T, u64)], durable: u64) -> Vec<T> {
    held.iter().filter(|(_, changed)| *changed > durable).map(|(held, _)| held.clone()).collect()
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
    use wingbeat_core::histogram::{BINS, bounds};
    use wingbeat_core::id::Rev;

    use super::*;

    fn finished(outcome: Outcome, micros: u64) -> FinishedRequest {
        FinishedRequest { outcome: Some(outcome), micros, ..FinishedRequest::default() }
    }

    fn place(cluster: &str, epoch: u64) -> CounterKey {
        CounterKey { epoch, stratum: Stratum::Judged, cluster: cluster.to_owned() }
    }

    fn at(cluster: &str) -> CounterKey {
        place(cluster, 1)
    }

    #[test]
    fn only_what_changed_after_the_durable_mark_is_told_again() {
        let mut store = Counters::default();
        store.finish(&at("a"), &finished(Outcome::Success, 10), 1);
        store.finish(&at("b"), &finished(Outcome::Success, 10), 1);
        store.finish(&at("a"), &finished(Outcome::ServerFault, 90), 2);
        assert!(store.has_changes(1) && !store.has_changes(2));
        assert_eq!(store.changes(0, 3).len(), 2);
        let changes = store.changes(1, 3);
        assert_eq!(changes.len(), 1);
        // Counters are whole, bins only those that changed.
        assert_eq!((changes[0].cluster.as_str(), changes[0].finished), ("a", 2));
        assert_eq!(changes[0].latency, [v1::Count { key: 90, count: 1 }]);
        assert_eq!(store.changes(2, 3), []);
    }

    #[test]
    fn rollouts_are_counted_apart_and_leave_when_they_are_over_and_durable() {
        let mut store = Counters::default();
        store.finish(&place("a", 1), &finished(Outcome::ServerFault, 1), 1);
        store.finish(&place("a", 2), &finished(Outcome::Success, 1), 2);
        let told: Vec<_> = store.changes(0, 2).iter().map(|it| (it.epoch, it.first_sequence, it.finished)).collect();
        assert_eq!(told, [(1, 1, 1), (2, 2, 1)]);
        let is_live = |place: &CounterKey| place.epoch == 2;
        store.retain(0, is_live);
        assert_eq!(store.changes(0, 3).len(), 2, "nobody has written it down");
        store.retain(1, is_live);
        assert_eq!(store.changes(0, 3).len(), 1);
        // One that was counted in flight, and ends after its rollout.
        let late = FinishedRequest { before: CountedAs::Overdue, ..finished(Outcome::Success, 1) };
        store.finish(&place("a", 1), &late, 4);
        assert_eq!(store.changes(0, 4).len(), 1);
    }

    /// As 10,000 rollouts leave it, a worker is as large as after one.
    #[test]
    fn age_leaves_nothing_behind() {
        let mut store = Counters::default();
        for epoch in 1..10_000 {
            store.finish(&place(&format!("prod/backend/{epoch}"), epoch), &finished(Outcome::ServerFault, 1), epoch);
            assert_eq!(store.changes(epoch - 1, epoch).len(), 1, "rollout {epoch} is counted");
            store.retain(epoch, |place| place.epoch > epoch);
            assert_eq!((store.places.len(), store.uncounted.len()), (0, 0));
        }
    }

    #[test]
    fn room_is_bounded_and_what_finds_none_is_counted() {
        let mut store = Counters::default();
        for n in 0..MAX_PLACES + 3 {
            store.finish(&at(&n.to_string()), &finished(Outcome::Success, 1), 1);
        }
        store.finish(&at(&MAX_PLACES.to_string()), &finished(Outcome::Success, 1), 2);
        let told = store.changes(0, 2);
        let uncounted: Vec<u64> = told.iter().map(|it| it.uncounted).filter(|count| *count > 0).collect();
        assert_eq!((told.len(), uncounted), (MAX_PLACES + 3, vec![2, 1, 1]));
        // What is over makes room, durable or not; what was left out stays told.
        store.make_room(|place| place.cluster != "0");
        store.finish(&at(&MAX_PLACES.to_string()), &finished(Outcome::Success, 1), 3);
        let told = store.changes(2, 3);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].finished, told[0].uncounted, told[0].first_sequence),
            (1, 2, 1),
            "not as one that begins anew"
        );
        for n in 0..100 {
            let request = FinishedRequest { pod: Some(n.to_string()), ..finished(Outcome::Success, 1) };
            store.finish(&at("1"), &request, 4);
        }
        let told = &store.changes(3, 4)[0];
        assert_eq!((told.pods.len(), told.uncounted_by_pod), (MAX_PODS, 100 - MAX_PODS as u64));
    }

    /// All of it arrives, each part with the first report that has room for it.
    #[test]
    fn what_a_report_has_no_room_for_comes_with_the_next() {
        let mut store = Counters::default();
        for cluster in 0..40 {
            for bin in 0..2_000_u64 {
                store.finish(&at(&cluster.to_string()), &finished(Outcome::Success, bin * bin), 1);
            }
        }
        let (mut sequence, mut seen, mut bins) = (0, Vec::new(), 0);
        while store.has_changes(sequence) {
            sequence += 1;
            let told = store.changes(sequence - 1, sequence);
            let report = v1::ReportRequest { clusters: told.clone(), ..v1::ReportRequest::default() };
            assert!(report.encoded_len() < 256 * 1_024);
            bins += told.iter().map(|it| it.latency.len()).sum::<usize>();
            seen.extend(told.into_iter().map(|it| (it.cluster, it.first_sequence)));
            assert!(sequence < 40);
        }
        assert!(sequence > 1);
        let each = store.changes(0, sequence).first().map_or(0, |it| it.latency.len());
        assert_eq!((seen.len(), bins), (40, 40 * each), "each once, with all of its bins");
        assert!(seen.iter().any(|(_, first)| *first == sequence), "the first report that tells of it");
    }

    /// The longest names of namespace, canary and revision, more of them than a worker has room for, and all bins.
    #[test]
    fn what_is_left_out_leaves_room_for_what_is_counted() {
        let mut store = Counters::default();
        for n in 0..MAX_PLACES + 2 * MAX_UNCOUNTED {
            store.finish(&at(&format!("{n:0>761}")), &finished(Outcome::Success, 1), 1);
        }
        let widest = at(&format!("{:0>761}", 0));
        let latency = (0..BINS).map(|bin| (bin, u64::MAX / 2)).collect();
        (0..BINS).for_each(|bin| store.finish(&widest, &finished(Outcome::Success, bounds(bin).0), 1));
        store.close(&widest, &Cohorts { rev: Rev::new(1), finished: 1, errors: 0, overdue: 0, latency }, 1);
        let told = store.changes(0, 1);
        let report = v1::ReportRequest { clusters: told.clone(), ..v1::ReportRequest::default() };
        assert!(report.encoded_len() < 256 * 1_024, "{}", report.encoded_len());
        assert_eq!(told.iter().filter(|it| it.uncounted > 0).count(), MAX_UNCOUNTED);
        assert!(told.iter().any(|it| it.finished > 1), "the longest of all is told, too");
    }

    #[test]
    fn clients_that_left_have_no_latency() {
        let mut store = Counters::default();
        store.finish(&at("a"), &finished(Outcome::DisconnectBeforeResponse, 500), 1);
        store.finish(&at("a"), &finished(Outcome::NotSent, 1), 1);
        let report = &store.changes(0, 1)[0];
        assert_eq!((report.finished, report.latency.len()), (2, 0));
    }

    #[test]
    fn users_are_counted_by_group() {
        let mut store = Counters::default();
        for (outcome, group) in [
            (Outcome::Success, Some(7)),
            (Outcome::ServerFault, Some(7)),
            (Outcome::DisconnectBeforeResponse, Some(7)),
            (Outcome::Success, None),
        ] {
            store.finish(&at("a"), &FinishedRequest { group, ..finished(outcome, 1) }, 1);
        }
        assert_eq!(store.changes(0, 1)[0].groups, [v1::GroupReport { group: 7, judged: 2, errors: 1 }]);
        store.finish(&at("a"), &FinishedRequest { group: Some(99), ..finished(Outcome::Success, 1) }, 2);
        assert_eq!(store.changes(1, 2)[0].groups, [v1::GroupReport { group: 99, judged: 1, errors: 0 }]);
    }

    #[test]
    fn a_new_rev_starts_its_own_count() {
        let mut store = Counters::default();
        for rev in [Some(3), Some(3), None, Some(4), Some(3)] {
            store.finish(&at("a"), &FinishedRequest { rev, ..finished(Outcome::Success, 1) }, 1);
        }
        assert_eq!((store.changes(0, 1)[0].rev, store.changes(0, 1)[0].rev_started), (4, 1));
    }
}
