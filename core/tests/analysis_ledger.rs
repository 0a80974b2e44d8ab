//! The ledger against a network and a disk that lose, repeat and reorder everything.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use wingbeat_core::analysis::ledger::{Checkpoint, FOLD_AFTER, Ledger, MAX_CLUSTERS, MAX_WORKERS, Refused};
use wingbeat_core::counts::{Cohorts, Counts};
use wingbeat_core::id::{BootId, ClusterName, NodeId, Rev, WorkerId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};

const CLUSTERS: [&str; 2] = ["prod/backend/1", "prod/backend/2"];

type Report = (u64, Vec<(ClusterName, Stratum, Counts)>);

/// A worker that behaves as the filter does: cumulative counts, only bins changed since the durable mark.
#[derive(Debug, Default)]
struct Worker {
    sequence: u64,
    truth: [Counts; 2],
    /// What was counted when each report was made, from the durable one on.
    sent: Vec<(u64, [Counts; 2])>,
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

    fn report(&mut self) -> Report {
        self.sequence += 1;
        let durable = self.sent.first().map(|(_, counts)| counts.clone()).unwrap_or_default();
        if self.sent.is_empty() {
            self.sent.push((0, <[Counts; 2]>::default()));
        }
        self.sent.push((self.sequence, self.truth.clone()));
        let clusters = CLUSTERS
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
                (ClusterName::new(name), Stratum::Judged, counts)
            })
            .collect();
        (self.sequence, clusters)
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
    ]
}

/// The control plane: a ledger and what was made of its differences.
#[derive(Debug, Default)]
struct Plane {
    ledger: Ledger,
    totals: [Counts; 2],
    disk: Option<(Checkpoint, [Counts; 2])>,
}

impl Plane {
    fn take(&mut self, (sequence, clusters): &Report) -> u64 {
        let ingested =
            self.ledger.ingest(&node("a"), BootId::new(1), WorkerId::new(1), *sequence, clusters, at(0)).unwrap();
        for delta in ingested.deltas {
            let place = CLUSTERS.iter().position(|&name| name == delta.cluster.as_str()).unwrap();
            self.totals[place].merge(&delta.counts);
        }
        ingested.durable
    }

    fn crash(&mut self) {
        let (ledger, totals) = match &self.disk {
            Some((checkpoint, totals)) => (Ledger::restore(checkpoint.clone()), totals.clone()),
            None => Default::default(),
        };
        self.ledger = ledger;
        self.totals = totals;
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Span::from_secs(secs))
}

fn ingest(
    ledger: &mut Ledger,
    from: &str,
    worker: u64,
    sequence: u64,
    counts: Counts,
    now: Timestamp,
) -> Result<usize, Refused> {
    let clusters = [(ClusterName::new("c"), Stratum::Judged, counts)];
    ledger
        .ingest(&node(from), BootId::new(1), WorkerId::new(worker), sequence, &clusters, now)
        .map(|ingested| ingested.deltas.len())
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
        let mut network: Vec<Report> = Vec::new();
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
                    let mark = plane.take(&network[at]);
                    if reply_arrives {
                        worker.durable(mark);
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
                Event::Checkpoint { reaches_disk } => {
                    let checkpoint = plane.ledger.checkpoint();
                    if reaches_disk {
                        let id = checkpoint.id;
                        let text = serde_json::to_string(&checkpoint).unwrap();
                        let read = serde_json::from_str(&text).unwrap();
                        plane.disk = Some((read, plane.totals.clone()));
                        plane.ledger.mark_durable(id);
                    }
                }
                Event::Crash => plane.crash(),
            }
        }
        plane.take(&worker.report());
        prop_assert_eq!(plane.totals, worker.truth);
    }
}

#[test]
fn nothing_of_a_refused_report_counts() {
    let mut ledger = Ledger::new();
    let mut absurd = successes(5);
    absurd.finished = 6;
    let clusters =
        [(ClusterName::new("good"), Stratum::Judged, successes(5)), (ClusterName::new("bad"), Stratum::Judged, absurd)];
    let (boot, worker) = (BootId::new(1), WorkerId::new(1));
    let refused = ledger.ingest(&node("a"), boot, worker, 1, &clusters, at(0));
    assert!(matches!(refused, Err(Refused::Absurd { cluster, .. }) if cluster.as_str() == "bad"));
    let taken = ledger.ingest(&node("a"), boot, worker, 2, &clusters[..1], at(0)).unwrap();
    assert_eq!(taken.deltas[0].counts, successes(5));
}

#[test]
fn counts_that_fall_are_refused_but_late_reports_are_not() {
    let mut ledger = Ledger::new();
    assert_eq!(ingest(&mut ledger, "a", 1, 2, successes(10), at(0)), Ok(1));
    assert_eq!(ingest(&mut ledger, "a", 1, 1, successes(4), at(0)), Ok(0));
    assert!(matches!(
        ingest(&mut ledger, "a", 1, 3, successes(9), at(0)),
        Err(Refused::Backwards { before: 10, now: 9, .. })
    ));
    assert!(matches!(ingest(&mut ledger, "b", 1, 3, successes(11), at(0)), Err(Refused::OtherNode { .. })));
}

#[test]
fn cohorts_are_taken_in_once_and_begin_again_at_a_new_rev() {
    let cohorts = |rev, finished| {
        let mut counts = successes(50);
        let latency = [(1, finished)].into_iter().collect();
        counts.cohorts = Cohorts { rev: Rev::new(rev), finished, latency, ..Cohorts::default() };
        counts
    };
    let mut ledger = Ledger::new();
    let mut take = |sequence, counts: &Counts| {
        let clusters = [(ClusterName::new("c"), Stratum::Judged, counts.clone())];
        let (boot, worker) = (BootId::new(1), WorkerId::new(1));
        let ingested = ledger.ingest(&node("a"), boot, worker, sequence, &clusters, at(0));
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
    let mut ledger = Ledger::new();
    let mut streaming = Counts { started: 3, streams: 3, ..Counts::default() };
    assert_eq!(ingest(&mut ledger, "a", 1, 1, streaming.clone(), at(0)), Ok(1));
    streaming.overdue = 1;
    assert!(matches!(ingest(&mut ledger, "a", 1, 2, streaming.clone(), at(0)), Err(Refused::Absurd { .. })));
    (streaming.overdue, streaming.streams) = (0, 2);
    assert!(matches!(ingest(&mut ledger, "a", 1, 3, streaming, at(0)), Err(Refused::Backwards { .. })));
}

#[test]
fn a_worker_has_a_bounded_number_of_clusters() {
    let mut ledger = Ledger::new();
    let clusters: Vec<_> = (0..=MAX_CLUSTERS * 4)
        .map(|number| (ClusterName::new(number.to_string()), Stratum::Judged, successes(1)))
        .collect();
    let mut take = |sequence, clusters: &[_]| {
        ledger.ingest(&node("a"), BootId::new(1), WorkerId::new(1), sequence, clusters, at(0))
    };
    assert!(matches!(take(1, &clusters), Err(Refused::TooManyClusters { .. })));
    assert!(take(2, &clusters[1..]).is_ok());
    assert!(matches!(take(3, &clusters[..1]), Err(Refused::TooManyClusters { .. })));
}

#[test]
fn room_is_made_at_the_cost_of_the_silent_only() {
    let mut ledger = Ledger::new();
    for worker in 0..MAX_WORKERS as u64 {
        let now = if worker == 7 { at(0) } else { at(700) };
        ingest(&mut ledger, "a", worker, 1, successes(1), now).unwrap();
    }
    let newcomer = MAX_WORKERS as u64;
    let early = at(0).plus(FOLD_AFTER);
    assert_eq!(ingest(&mut ledger, "b", newcomer, 1, successes(1), early), Err(Refused::Full));
    assert_eq!(ingest(&mut ledger, "b", newcomer, 1, successes(1), at(701)), Ok(1));
    assert_eq!(ingest(&mut ledger, "a", 7, 2, successes(2), at(701)), Err(Refused::Folded));
    assert_eq!(ingest(&mut ledger, "b", newcomer + 1, 1, successes(1), at(702)), Err(Refused::Full));
}

#[test]
fn silence_is_listed() {
    let mut ledger = Ledger::new();
    ingest(&mut ledger, "a", 1, 1, successes(1), at(1)).unwrap();
    ingest(&mut ledger, "b", 2, 1, successes(1), at(8)).unwrap();
    ingest(&mut ledger, "a", 3, 1, successes(1), at(2)).unwrap();
    assert_eq!(ledger.silent(at(9), Span::from_secs(5)), [(node("a"), at(2))]);
    assert_eq!(ledger.silent(at(7), Span::from_secs(5)), []);
}
