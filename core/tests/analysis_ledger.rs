//! The ledger against a network and a disk that lose, repeat and reorder everything.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::collections::BTreeMap;

use wingbeat_core::analysis::ledger::{
    EXPIRE_AFTER, Ingested, Ledger, MAX_BYTES_OF_SOURCE, MAX_ENTRIES, MAX_REMOVED, MAX_WORKERS, MAX_WORKERS_OF_SOURCE,
    Refused, Report, Reported, Trust, Worker as Written, WorkerKey,
};
use wingbeat_core::counts::{Cohorts, Counts, InvalidCounts, MAX_PODS_OF_WORKER, MAX_REQUESTS, PodCounts};
use wingbeat_core::histogram::Histogram;
use wingbeat_core::id::{BootId, ClusterName, Epoch, NodeId, Rev, WorkerId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};

const CLUSTERS: [&str; 2] = ["prod/backend/1", "prod/backend/2"];
const EPOCH: Epoch = Epoch::new(7);
const KEY: WorkerKey = WorkerKey { boot: BootId::new(1), worker: WorkerId::new(1) };

/// A report on its way.
#[derive(Debug, Clone)]
struct Sent {
    sequence: u64,
    since: u64,
    entries: Vec<Reported>,
}

/// A worker that behaves as the filter does: cumulative counts, only bins changed since the durable mark.
#[derive(Debug, Default)]
struct Worker {
    sequence: u64,
    truth: [Counts; 2],
    /// What was counted when each report was made, from the durable one on.
    sent: Vec<(u64, [Counts; 2])>,
    /// It was asked to send everything.
    sends_all: bool,
}

impl Worker {
    fn serve(&mut self, cluster: usize, latency_us: u64, failed: bool) {
        let counts = &mut self.truth[cluster];
        let outcome = if failed { Outcome::ServerFault } else { Outcome::Success };
        counts.started += 1;
        counts.finished += 1;
        counts.outcomes[outcome.index()] += 1;
        counts.latency.record(latency_us);
        counts.latency_sum_us += latency_us;
        // A success of an even length has its size read, and every fourth of these no body.
        counts.sized += u64::from(!failed && latency_us.is_multiple_of(2));
        counts.empty += u64::from(!failed && latency_us.is_multiple_of(8));
    }

    /// A stream is recognised, or the oldest that is open ends.
    fn stream(&mut self, cluster: usize, ends: bool) {
        let counts = &mut self.truth[cluster];
        if !ends {
            counts.started += 1;
            counts.streams += 1;
        } else if counts.streams_finished < counts.streams {
            counts.finished += 1;
            counts.streams_finished += 1;
            counts.outcomes[Outcome::Success.index()] += 1;
        }
    }

    /// A cohort closes that holds all but `left` of the requests that are in none yet, or one of a new rev does, which
    /// begins the count again.
    fn close(&mut self, cluster: usize, left: u64, new_rev: bool) {
        let counts = &mut self.truth[cluster];
        if new_rev {
            counts.cohorts = Cohorts { rev: Rev::new(counts.cohorts.rev.get() + 1), ..Cohorts::default() };
        }
        let (judged, errors) = (counts.judged(), counts.errors());
        let cohorts = &mut counts.cohorts;
        let more = (judged - cohorts.finished).saturating_sub(left);
        cohorts.finished += more;
        cohorts.errors += more.min(errors - cohorts.errors);
        for request in 0..more {
            cohorts.latency.record(request % 5);
        }
    }

    fn report(&mut self) -> Sent {
        self.sequence += 1;
        if self.sent.is_empty() || self.sends_all {
            self.sent.insert(0, (0, <[Counts; 2]>::default()));
            self.sent.truncate(1);
        }
        self.sends_all = false;
        let (since, durable) = self.sent.first().cloned().unwrap();
        self.sent.push((self.sequence, self.truth.clone()));
        let entries = CLUSTERS
            .iter()
            .zip(self.truth.iter().zip(&durable))
            .map(|(&name, (now, durable))| {
                let mut counts = now.clone();
                counts.latency = now.latency.iter().filter(|&(bin, count)| durable.latency.get(bin) != count).collect();
                if now.cohorts.rev == durable.cohorts.rev {
                    let told = &durable.cohorts.latency;
                    counts.cohorts.latency =
                        now.cohorts.latency.iter().filter(|&(bin, count)| told.get(bin) != count).collect();
                }
                reported(name, 1, counts)
            })
            .collect();
        Sent { sequence: self.sequence, since, entries }
    }

    fn durable(&mut self, mark: u64) {
        self.sent.retain(|&(sequence, _)| sequence >= mark);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Serve {
        cluster: usize,
        latency_us: u64,
        failed: bool,
    },
    Stream {
        cluster: usize,
        ends: bool,
    },
    Close {
        cluster: usize,
        left: u64,
        new_rev: bool,
    },
    /// A report is made and waits in the network.
    Send,
    /// Some waiting report arrives; it may arrive again.
    Deliver {
        which: usize,
        keep: bool,
        reply_arrives: bool,
    },
    Lose {
        which: usize,
    },
    Checkpoint {
        reaches_disk: bool,
    },
    Crash,
    /// The worker is silent for long, and its place is given up.
    Expire,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2_usize, 1..5_000_u64, any::<bool>())
            .prop_map(|(cluster, latency_us, failed)| Event::Serve { cluster, latency_us, failed }),
        2 => (0..2_usize, any::<bool>()).prop_map(|(cluster, ends)| Event::Stream { cluster, ends }),
        2 => (0..2_usize, 0..4_u64, proptest::bool::weighted(0.2))
            .prop_map(|(cluster, left, new_rev)| Event::Close { cluster, left, new_rev }),
        3 => Just(Event::Send),
        4 => (any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, keep, reply_arrives)| Event::Deliver { which, keep, reply_arrives }),
        1 => any::<usize>().prop_map(|which| Event::Lose { which }),
        2 => any::<bool>().prop_map(|reaches_disk| Event::Checkpoint { reaches_disk }),
        1 => Just(Event::Crash),
        1 => Just(Event::Expire),
    ]
}

/// The control plane: a ledger and what was made of its differences.
#[derive(Debug)]
struct Plane {
    ledger: Ledger,
    totals: [Counts; 2],
    /// What is written down: the workers, and what was made of them.
    disk: (BTreeMap<WorkerKey, Written>, [Counts; 2], Vec<Epoch>),
    now: Timestamp,
}

impl Default for Plane {
    fn default() -> Self {
        Self { ledger: opened(), totals: Default::default(), disk: Default::default(), now: at(0) }
    }
}

impl Plane {
    fn take(&mut self, sent: &Sent) -> Ingested {
        let ingested = ingest(&mut self.ledger, "a", KEY, sent, self.now).unwrap();
        for delta in &ingested.deltas {
            let place = CLUSTERS.iter().position(|&name| name == delta.cluster.as_str()).unwrap();
            self.totals[place].merge(&delta.counts);
        }
        ingested
    }

    fn checkpoint(&mut self, reaches_disk: bool) {
        let checkpoint = self.ledger.checkpoint();
        if reaches_disk {
            for (key, worker) in &checkpoint.changed {
                let text = serde_json::to_string(worker).unwrap();
                self.disk.0.insert(*key, serde_json::from_str(&text).unwrap());
            }
            checkpoint.removed.iter().for_each(|key| drop(self.disk.0.remove(key)));
            self.disk.1 = self.totals.clone();
            self.disk.2 = self.ledger.baselines();
            self.ledger.mark_durable(checkpoint.id);
        }
    }

    fn crash(&mut self) {
        self.ledger = Ledger::restore(self.disk.0.clone());
        let trust = if self.disk.2.contains(&EPOCH) { Trust::Baseline } else { Trust::Complete };
        self.ledger.open(EPOCH, trust);
        self.totals = self.disk.1.clone();
    }
}

fn opened() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.open(EPOCH, Trust::Complete);
    ledger
}

fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Span::from_secs(secs))
}

fn key(worker: u64) -> WorkerKey {
    WorkerKey { boot: BootId::new(1), worker: WorkerId::new(worker) }
}

fn reported(cluster: &str, first_sequence: u64, counts: Counts) -> Reported {
    Reported { cluster: ClusterName::new(cluster), stratum: Stratum::Judged, epoch: EPOCH, first_sequence, counts }
}

fn ingest(ledger: &mut Ledger, from: &str, key: WorkerKey, sent: &Sent, now: Timestamp) -> Result<Ingested, Refused> {
    let Sent { sequence, since, entries } = sent;
    let node = node(from);
    ledger.ingest(&Report { source: from, node: &node, key, sequence: *sequence, since: *since, entries }, now)
}

/// Reports one cluster; returns how many differences came of it.
fn tell(
    ledger: &mut Ledger,
    from: &str,
    worker: u64,
    sequence: u64,
    counts: Counts,
    now: Timestamp,
) -> Result<usize, Refused> {
    let sent = Sent { sequence, since: 0, entries: vec![reported("c", 1, counts)] };
    ingest(ledger, from, key(worker), &sent, now).map(|ingested| ingested.deltas.len())
}

fn successes(count: u64) -> Counts {
    let mut counts = Counts { started: count, finished: count, ..Counts::default() };
    counts.outcomes[Outcome::Success.index()] = count;
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn totals_are_the_truth_whatever_happens_on_the_way(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut worker = Worker::default();
        let mut plane = Plane::default();
        let mut network: Vec<Sent> = Vec::new();
        // Once the worker was given up, what it counted before it came back whole may be missing, and nothing is doubled.
        let mut is_exact = true;
        for event in events {
            match event {
                Event::Serve { cluster, latency_us, failed } => worker.serve(cluster, latency_us, failed),
                Event::Stream { cluster, ends } => worker.stream(cluster, ends),
                Event::Close { cluster, left, new_rev } => worker.close(cluster, left, new_rev),
                Event::Send => network.push(worker.report()),
                Event::Deliver { which, keep, reply_arrives } => {
                    if network.is_empty() {
                        continue;
                    }
                    let at = which % network.len();
                    let ingested = plane.take(&network[at]);
                    if reply_arrives {
                        worker.sends_all |= ingested.incomplete;
                        worker.durable(ingested.durable);
                    }
                    if !keep {
                        network.remove(at);
                    }
                }
                Event::Lose { which } => {
                    if !network.is_empty() {
                        network.remove(which % network.len());
                    }
                }
                Event::Checkpoint { reaches_disk } => plane.checkpoint(reaches_disk),
                Event::Crash => plane.crash(),
                Event::Expire => {
                    is_exact = false;
                    // No call takes so long.
                    network.clear();
                    plane.now = plane.now.plus(EXPIRE_AFTER).plus(Span::from_secs(1));
                    plane.ledger.expire(plane.now);
                    plane.checkpoint(true);
                }
            }
        }
        for _ in 0..2 {
            worker.sends_all |= plane.take(&worker.report()).incomplete;
        }
        if is_exact {
            prop_assert_eq!(plane.totals, worker.truth);
        } else {
            for (total, truth) in plane.totals.iter().zip(&worker.truth) {
                prop_assert!(total.started <= truth.started && total.finished <= truth.finished);
                prop_assert!(total.latency.count() <= truth.latency.count());
            }
        }
    }
}

#[test]
fn nothing_of_a_refused_report_counts() {
    let mut ledger = opened();
    let mut absurd = successes(5);
    absurd.finished = 6;
    let entries = vec![reported("good", 1, successes(5)), reported("bad", 1, absurd)];
    let refused = ingest(&mut ledger, "a", KEY, &Sent { sequence: 1, since: 0, entries: entries.clone() }, at(0));
    assert!(matches!(refused, Err(Refused::Absurd { cluster, .. }) if cluster.as_str() == "bad"));
    let taken =
        ingest(&mut ledger, "a", KEY, &Sent { sequence: 2, since: 0, entries: entries[..1].to_vec() }, at(0)).unwrap();
    assert_eq!(taken.deltas[0].counts, successes(5));
}

#[test]
fn counts_beyond_what_a_float_holds_are_refused() {
    let mut ledger = opened();
    let huge = 5_000_000_000_000_000_000;
    let refused = tell(&mut ledger, "a", 1, 1, successes(huge), at(0));
    assert!(matches!(refused, Err(Refused::Absurd { absurd: InvalidCounts::TooMany { count }, .. }) if count == huge));
    assert_eq!(tell(&mut ledger, "a", 1, 2, successes(MAX_REQUESTS), at(0)), Ok(1));
}

#[test]
fn counts_that_fall_are_refused_but_late_reports_are_not() {
    let mut ledger = opened();
    assert_eq!(tell(&mut ledger, "a", 1, 2, successes(10), at(0)), Ok(1));
    assert_eq!(tell(&mut ledger, "a", 1, 1, successes(4), at(0)), Ok(0));
    assert!(matches!(
        tell(&mut ledger, "a", 1, 3, successes(9), at(0)),
        Err(Refused::Backwards { before: 10, now: 9, .. })
    ));
    assert!(matches!(tell(&mut ledger, "b", 1, 3, successes(11), at(0)), Err(Refused::OtherNode { .. })));
}

/// A worker that forgot its counts begins again; what was told of the counts before comes late and adds nothing.
#[test]
fn counts_that_begin_again_are_added() {
    let mut ledger = opened();
    let mut take = |sequence, first, counts| {
        let sent = Sent { sequence, since: 0, entries: vec![reported("c", first, counts)] };
        let ingested = ingest(&mut ledger, "a", KEY, &sent, at(0)).unwrap();
        ingested.deltas.first().map_or(0, |delta| delta.counts.started)
    };
    assert_eq!(take(1, 1, successes(10)), 10);
    assert_eq!(take(5, 4, successes(3)), 3);
    assert_eq!(take(3, 1, successes(12)), 0);
    assert_eq!(take(6, 4, successes(5)), 2);
}

#[test]
fn a_report_that_leaves_out_what_is_not_held_is_answered_by_asking_for_all() {
    let mut ledger = opened();
    let part = Sent { sequence: 9, since: 8, entries: vec![reported("c", 3, successes(10))] };
    let ingested = ingest(&mut ledger, "a", KEY, &part, at(0)).unwrap();
    assert_eq!((ingested.deltas.len(), ingested.durable, ingested.incomplete), (0, 0, true));
    let all = Sent { sequence: 10, since: 0, ..part };
    let ingested = ingest(&mut ledger, "a", KEY, &all, at(0)).unwrap();
    assert_eq!((ingested.deltas[0].counts.started, ingested.incomplete), (10, false));
    // What began after the mark is whole.
    let later = Sent { sequence: 12, since: 11, entries: vec![reported("d", 12, successes(1))] };
    assert_eq!(ingest(&mut ledger, "a", KEY, &later, at(0)).unwrap().deltas.len(), 1);
}

/// A new disk, and proxies that have counted for long: they set their counts, and add what comes after.
#[test]
fn where_the_ledger_was_lost_what_was_told_before_adds_nothing() {
    let mut ledger = Ledger::new();
    ledger.open(EPOCH, Trust::Baseline);
    let mut take = |worker, sequence, first, counts| {
        let sent = Sent { sequence, since: 0, entries: vec![reported("c", first, counts)] };
        let ingested = ingest(&mut ledger, "a", key(worker), &sent, at(0)).unwrap();
        ingested.deltas.first().map_or(0, |delta| delta.counts.started)
    };
    assert_eq!(take(1, 900, 5, successes(1_000)), 0);
    assert_eq!(take(1, 901, 5, successes(1_007)), 7);
    assert_eq!(take(2, 4, 4, successes(3)), 3, "its first word on it");
}

#[test]
fn epochs_that_are_over_leave_nothing_behind() {
    let mut ledger = Ledger::new();
    for epoch in 1..=1_000 {
        let epoch = Epoch::new(epoch);
        ledger.open(epoch, Trust::Complete);
        for worker in 0..10 {
            let sent = Sent {
                sequence: epoch.get(),
                since: epoch.get() - 1,
                entries: vec![Reported { epoch, ..reported("c", epoch.get(), successes(1)) }],
            };
            assert_eq!(ingest(&mut ledger, "a", key(worker), &sent, at(epoch.get())).unwrap().deltas.len(), 1);
        }
        let checkpoint = ledger.checkpoint();
        assert_eq!(checkpoint.changed.len(), 10);
        ledger.mark_durable(checkpoint.id);
        ledger.close(epoch);
    }
    assert_eq!((ledger.workers(), ledger.checkpoint().removed.len()), (0, 10));
}

#[test]
fn only_what_changed_is_written_down() {
    let mut ledger = opened();
    for worker in 0..100 {
        tell(&mut ledger, "a", worker, 1, successes(1), at(0)).unwrap();
    }
    let first = ledger.checkpoint();
    assert_eq!(first.changed.len(), 100);
    assert_eq!(ledger.checkpoint().changed.len(), 100, "what was not confirmed is in the next one");
    ledger.mark_durable(first.id);
    tell(&mut ledger, "a", 7, 2, successes(2), at(1)).unwrap();
    tell(&mut ledger, "a", 8, 2, successes(1), at(1)).unwrap();
    let changed: Vec<WorkerKey> = ledger.checkpoint().changed.into_iter().map(|(key, _)| key).collect();
    assert_eq!(changed, [key(7)]);
}
#[test]
fn cohorts_are_taken_in_once_and_begin_again_at_a_new_rev() {
    let cohorts = |rev, finished| {
        let mut counts = successes(50);
        let latency = [(1, finished)].into_iter().collect();
        counts.cohorts = Cohorts { rev: Rev::new(rev), finished, latency, ..Cohorts::default() };
        counts
    };
    let mut ledger = opened();
    let mut take = |sequence, counts: &Counts| {
        let sent = Sent { sequence, since: 0, entries: vec![reported("c", 1, counts.clone())] };
        let ingested = ingest(&mut ledger, "a", KEY, &sent, at(0));
        ingested.map(|it| it.deltas.into_iter().map(|delta| delta.counts.cohorts).collect::<Vec<_>>())
    };
    let whole = |rev, finished| vec![cohorts(rev, finished).cohorts];
    assert_eq!(take(1, &cohorts(3, 10)), Ok(whole(3, 10)));
    assert_eq!(take(3, &cohorts(3, 25)), Ok(whole(3, 15)));
    assert_eq!(take(2, &cohorts(3, 20)), Ok(vec![]), "late");
    assert_eq!(take(3, &cohorts(3, 25)), Ok(vec![]), "repeated");
    assert_eq!(take(5, &cohorts(4, 7)), Ok(whole(4, 7)), "a new rev: all of it");
    assert_eq!(take(4, &cohorts(3, 30)), Ok(vec![]), "of the rev before, and late");
    assert!(matches!(take(6, &cohorts(3, 40)), Err(Refused::Backwards { .. })), "revs never fall");
    assert!(matches!(take(7, &cohorts(4, 6)), Err(Refused::Backwards { .. })));
    assert!(matches!(take(8, &cohorts(4, 51)), Err(Refused::Absurd { .. })), "more than there were");
}

#[test]
fn streams_in_flight_are_part_of_what_started() {
    let mut ledger = opened();
    let mut streaming = Counts { started: 3, streams: 3, ..Counts::default() };
    assert_eq!(tell(&mut ledger, "a", 1, 1, streaming.clone(), at(0)), Ok(1));
    streaming.overdue = 1;
    assert!(matches!(tell(&mut ledger, "a", 1, 2, streaming.clone(), at(0)), Err(Refused::Absurd { .. })));
    (streaming.overdue, streaming.streams) = (0, 2);
    assert!(matches!(tell(&mut ledger, "a", 1, 3, streaming, at(0)), Err(Refused::Backwards { .. })));
}

#[test]
fn a_worker_has_a_bounded_number_of_entries() {
    let mut ledger = opened();
    let entries: Vec<_> = (0..=MAX_ENTRIES).map(|number| reported(&number.to_string(), 1, successes(1))).collect();
    let mut take = |sequence, entries: &[Reported]| {
        ingest(&mut ledger, "a", KEY, &Sent { sequence, since: 0, entries: entries.to_vec() }, at(0))
    };
    assert!(matches!(take(1, &entries), Err(Refused::TooManyEntries { .. })));
    assert!(take(2, &entries[1..]).is_ok());
    assert!(matches!(take(3, &entries[..1]), Err(Refused::TooManyEntries { .. })));
}

#[test]
fn a_source_with_many_workers_makes_room_at_its_own_cost() {
    let mut ledger = opened();
    tell(&mut ledger, "honest", 0, 1, successes(1), at(0)).unwrap();
    for worker in 1..=2 * MAX_WORKERS_OF_SOURCE as u64 {
        tell(&mut ledger, "flood", worker, 1, successes(1), at(1)).unwrap();
    }
    assert_eq!(ledger.workers(), MAX_WORKERS_OF_SOURCE + 1);
    assert_eq!(tell(&mut ledger, "honest", 0, 2, successes(3), at(2)), Ok(1));
    // Where all room is taken, who has most of it gives some.
    let mut sources = 0;
    while ledger.workers() < MAX_WORKERS {
        sources += 1;
        for worker in 0..MAX_WORKERS_OF_SOURCE as u64 {
            let worker = sources * 100_000 + worker;
            tell(&mut ledger, &format!("flood-{sources}"), worker, 1, successes(1), at(3)).unwrap();
        }
    }
    assert_eq!(tell(&mut ledger, "newcomer", 9_999_999, 1, successes(1), at(4)), Ok(1));
    assert_eq!(tell(&mut ledger, "honest", 0, 3, successes(4), at(4)), Ok(1));
    assert!(ledger.workers() <= MAX_WORKERS);
}

#[test]
fn who_is_silent_for_long_is_given_up_and_not_counted_twice() {
    let mut ledger = opened();
    tell(&mut ledger, "a", 1, 1, successes(10), at(0)).unwrap();
    tell(&mut ledger, "a", 2, 1, successes(10), at(500)).unwrap();
    let checkpoint = ledger.checkpoint();
    ledger.mark_durable(checkpoint.id);
    ledger.expire(at(0).plus(EXPIRE_AFTER).plus(Span::from_secs(1)));
    assert_eq!((ledger.workers(), ledger.checkpoint().removed), (1, vec![key(1)]));
    assert_eq!(tell(&mut ledger, "a", 1, 2, successes(12), at(700)), Ok(0), "its first word again is a baseline");
    assert_eq!(tell(&mut ledger, "a", 1, 3, successes(13), at(700)), Ok(1));
}

/// What is held of one source is bounded in bytes, whatever its workers count.
#[test]
fn a_source_with_large_workers_makes_room_at_its_own_cost() {
    let large = |worker: u64| {
        let latency: Histogram = (0..2_000).map(|bin| (bin, 1)).collect();
        let counts = Counts { latency, ..successes(2_000) };
        let entries = (0..16).map(|place| reported(&format!("c{place}"), 1, counts.clone())).collect();
        (key(worker), Sent { sequence: 1, since: 0, entries })
    };
    let mut ledger = opened();
    tell(&mut ledger, "honest", 0, 1, successes(1), at(0)).unwrap();
    for worker in 1..=400 {
        let (key, sent) = large(worker);
        ingest(&mut ledger, "flood", key, &sent, at(1)).unwrap();
    }
    let held = ledger.workers() - 1;
    let bytes = 16 * 2_000 * 16 * held;
    assert!((MAX_BYTES_OF_SOURCE / 2..=MAX_BYTES_OF_SOURCE).contains(&bytes), "{held} workers");
    assert_eq!(tell(&mut ledger, "honest", 0, 2, successes(3), at(2)), Ok(1));
    // What is over leaves no weight behind.
    ledger.close(EPOCH);
    ledger.open(EPOCH, Trust::Complete);
    for worker in 1..=u64::try_from(held).unwrap() {
        let (key, sent) = large(worker);
        ingest(&mut ledger, "flood", key, &sent, at(3)).unwrap();
    }
    assert_eq!(ledger.workers(), held);
}

#[test]
fn a_worker_tells_a_bounded_number_of_pods_apart() {
    let pods = |numbers: std::ops::Range<usize>| {
        let pod = PodCounts { finished: 1, ..PodCounts::default() };
        let pods = numbers.map(|number| (format!("10.0.0.{number}:80"), pod)).collect();
        Counts { pods, ..successes(100) }
    };
    let mut ledger = opened();
    assert_eq!(tell(&mut ledger, "a", 1, 1, pods(0..MAX_PODS_OF_WORKER), at(0)), Ok(1));
    let refused = tell(&mut ledger, "a", 1, 2, pods(1..MAX_PODS_OF_WORKER + 1), at(0));
    assert!(matches!(refused, Err(Refused::TooManyPods { .. })), "{refused:?}");
    assert_eq!(tell(&mut ledger, "a", 1, 3, pods(0..MAX_PODS_OF_WORKER), at(0)), Ok(0));
}

/// A report that was overtaken brings something that the later one left out.
#[test]
fn what_comes_late_is_written_down() {
    let mut ledger = opened();
    let sent = |sequence, cluster: &str| Sent { sequence, since: 0, entries: vec![reported(cluster, 1, successes(1))] };
    ingest(&mut ledger, "a", KEY, &sent(10, "c"), at(0)).unwrap();
    let checkpoint = ledger.checkpoint();
    ledger.mark_durable(checkpoint.id);
    assert_eq!(ingest(&mut ledger, "a", KEY, &sent(8, "d"), at(0)).unwrap().deltas.len(), 1);
    let checkpoint = ledger.checkpoint();
    assert_eq!(checkpoint.changed.len(), 1);
    ledger.mark_durable(checkpoint.id);
    assert!(!ledger.has_changes());
}

#[test]
fn a_silent_worker_is_written_down_once_when_a_rollout_ends() {
    let mut ledger = opened();
    let other = Epoch::new(77);
    ledger.open(other, Trust::Complete);
    let entries = vec![reported("c", 1, successes(1)), Reported { epoch: other, ..reported("d", 1, successes(1)) }];
    ingest(&mut ledger, "a", KEY, &Sent { sequence: 1, since: 0, entries }, at(0)).unwrap();
    ledger.close(other);
    for _ in 0..2 {
        let checkpoint = ledger.checkpoint();
        ledger.mark_durable(checkpoint.id);
    }
    assert!(!ledger.has_changes());
}

/// Of workers that no checkpoint has ever contained, nothing is kept for one to delete: a disk that is full for long does not
/// fill the memory.
#[test]
fn who_was_never_written_down_is_not_to_be_deleted() {
    let mut ledger = opened();
    for worker in 0..3 * MAX_WORKERS_OF_SOURCE as u64 {
        tell(&mut ledger, "flood", worker, 1, successes(1), at(0)).unwrap();
        if worker == 0 {
            let checkpoint = ledger.checkpoint();
            ledger.mark_durable(checkpoint.id);
        }
    }
    assert_eq!(ledger.checkpoint().removed, [key(0)]);
    // Back, and given up again before it was written down: its old record is still there.
    tell(&mut ledger, "other", 0, 2, successes(2), at(1)).unwrap();
    assert!(ledger.checkpoint().removed.is_empty());
    ledger.close(EPOCH);
    assert_eq!(ledger.checkpoint().removed, [key(0)]);
}

/// It was given up while the checkpoint that contains it was under way.
#[test]
fn who_is_given_up_on_its_way_to_the_disk_is_deleted_by_the_next_checkpoint() {
    let mut ledger = opened();
    tell(&mut ledger, "a", 1, 1, successes(1), at(0)).unwrap();
    let checkpoint = ledger.checkpoint();
    ledger.close(EPOCH);
    ledger.mark_durable(checkpoint.id);
    assert!(ledger.has_changes());
    assert_eq!(ledger.checkpoint().removed, [key(1)]);
}

#[test]
fn a_rollout_of_many_workers_is_deleted_part_by_part() {
    let mut ledger = opened();
    let many = 2 * MAX_REMOVED as u64 + 1;
    for worker in 0..many {
        tell(&mut ledger, &format!("{}", worker % 8), worker, 1, successes(1), at(0)).unwrap();
    }
    let write = |ledger: &mut Ledger| {
        let checkpoint = ledger.checkpoint();
        ledger.mark_durable(checkpoint.id);
        checkpoint.removed.len()
    };
    assert_eq!(write(&mut ledger), 0);
    ledger.close(EPOCH);
    let removed: Vec<usize> = std::iter::repeat_with(|| write(&mut ledger)).take(4).collect();
    assert_eq!((removed, ledger.has_changes()), (vec![MAX_REMOVED, MAX_REMOVED, 1, 0], false));
}
