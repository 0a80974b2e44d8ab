//! Reports of who may say anything: what is refused changes nothing, and what is taken in adds up.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use prost::Message as _;
use wingbeat_core::analysis::ledger::{Ledger, Report, Reported, Trust, WorkerKey};
use wingbeat_core::counts::{Counts, MAX_REQUESTS};
use wingbeat_core::id::{BootId, ClusterName, Epoch, NodeId, WorkerId};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_proto::convert;
use wingbeat_proto::v1::{ClusterReport, Cohorts, Count, GroupReport, PodReport, ReportRequest};

const EPOCHS: u64 = 2;

/// A report, from few names so that reports meet.
#[derive(Debug, Arbitrary)]
enum Said {
    /// Whatever these bytes mean.
    Raw(Vec<u8>),
    Report(Told),
    /// The one before once more, or with another sequence.
    Again(u8),
    Checkpoint,
    Pass(u16),
}

#[derive(Debug, Arbitrary)]
struct Told {
    node: bool,
    worker: u8,
    sequence: u8,
    since: u8,
    entries: Vec<Entry>,
}

#[derive(Debug, Arbitrary)]
struct Entry {
    cluster: u8,
    stratum: u8,
    epoch: u8,
    first: u8,
    outcomes: [u8; 12],
    in_flight: u8,
    latency: Vec<(u16, u8)>,
    pods: Vec<(u8, u8, u8)>,
    statuses: Vec<(u8, u8)>,
    cohorts: Option<(u8, u8, u8)>,
    groups: Vec<(u8, u8, u8)>,
    absurd: Option<(u8, u64)>,
}

impl Entry {
    fn report(self) -> ClusterReport {
        let outcomes: Vec<u64> = self.outcomes.iter().copied().map(u64::from).collect();
        let finished: u64 = outcomes.iter().sum();
        let count = |(key, count): (u32, u8)| Count { key, count: count.into() };
        let mut report = ClusterReport {
            cluster: (self.cluster % 3).to_string(),
            stratum: u32::from(self.stratum % 4),
            epoch: u64::from(self.epoch) % (EPOCHS + 1),
            first_sequence: self.first.into(),
            started: finished.saturating_add(self.in_flight.into()),
            finished,
            outcomes,
            latency: self.latency.into_iter().map(|(bin, n)| count((bin.into(), n))).collect(),
            grpc_statuses: self.statuses.into_iter().map(|(status, n)| count((status.into(), n))).collect(),
            pods: self.pods.into_iter().map(pod).collect(),
            groups: self.groups.into_iter().map(group).collect(),
            cohorts: self.cohorts.map(|(rev, finished, errors)| Cohorts {
                rev: rev.into(),
                finished: finished.into(),
                errors: errors.into(),
                ..Cohorts::default()
            }),
            ..ClusterReport::default()
        };
        if let Some((field, number)) = self.absurd {
            let fields: [&mut u64; 16] = [
                &mut report.started,
                &mut report.finished,
                &mut report.overdue,
                &mut report.overdue_finished,
                &mut report.overdue_errors,
                &mut report.abandoned,
                &mut report.stalled,
                &mut report.stalled_settled,
                &mut report.streams,
                &mut report.streams_finished,
                &mut report.retried,
                &mut report.extra_attempts,
                &mut report.sized,
                &mut report.uncounted,
                &mut report.uncounted_by_pod,
                &mut report.latency_sum_us,
            ];
            let place = usize::from(field) % fields.len();
            fields.into_iter().nth(place).into_iter().for_each(|field| *field = number);
        }
        report
    }
}

fn pod((name, finished, errors): (u8, u8, u8)) -> PodReport {
    let (finished, errors) = (finished.into(), errors.into());
    PodReport { address: format!("10.0.0.{}", name % 4), finished, errors, ..PodReport::default() }
}

fn group((group, judged, errors): (u8, u8, u8)) -> GroupReport {
    GroupReport { group: group.into(), judged: judged.into(), errors: errors.into() }
}

impl Told {
    fn request(self) -> ReportRequest {
        ReportRequest {
            node_id: if self.node { "a" } else { "b" }.to_owned(),
            boot_id: 1,
            worker_id: u64::from(self.worker % 3),
            sequence: self.sequence.into(),
            since: self.since.into(),
            clusters: self.entries.into_iter().map(Entry::report).collect(),
            ..ReportRequest::default()
        }
    }
}

/// What was said of one cluster, stratum and epoch by one worker since it began to count, and what came of it.
#[derive(Debug, Default)]
struct Known {
    first: u64,
    highest: Counts,
    added: Counts,
}

type Place = (WorkerKey, ClusterName, Stratum, Epoch);

/// Plays a conversation.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut ledger = Ledger::new();
    (1..=EPOCHS).for_each(|epoch| ledger.open(Epoch::new(epoch), Trust::Complete));
    let mut known: BTreeMap<Place, Known> = BTreeMap::new();
    let mut last = ReportRequest::default();
    let mut now = Timestamp::EPOCH;
    while !input.is_empty() {
        let Ok(said) = Said::arbitrary(&mut input) else { return };
        match said {
            Said::Raw(bytes) => {
                let Ok(request) = ReportRequest::decode(bytes.as_slice()) else { continue };
                last = request;
            }
            Said::Report(told) => last = told.request(),
            Said::Again(sequence) if sequence > 0 => last.sequence = sequence.into(),
            Said::Again(_) => {}
            Said::Checkpoint => {
                let checkpoint = ledger.checkpoint();
                ledger.mark_durable(checkpoint.id);
                continue;
            }
            // Nobody expires: what is held is all that was said.
            Said::Pass(millis) => {
                now = now.plus(Span::from_millis(millis.into()));
                continue;
            }
        }
        take(&mut ledger, &mut known, &last, now);
    }
}

fn take(ledger: &mut Ledger, known: &mut BTreeMap<Place, Known>, request: &ReportRequest, now: Timestamp) {
    assert_eq!(ReportRequest::decode(request.encode_to_vec().as_slice()).as_ref(), Ok(request), "on the wire");
    let mut entries = Vec::new();
    for report in &request.clusters {
        let Ok((cluster, stratum, counts)) = convert::counts(report) else { return };
        let epoch = Epoch::new(report.epoch);
        if ledger.is_open(epoch) {
            entries.push(Reported { cluster, stratum, epoch, first_sequence: report.first_sequence, counts });
        }
    }
    let node = NodeId::new(request.node_id.clone());
    let key = WorkerKey { boot: BootId::new(request.boot_id), worker: WorkerId::new(request.worker_id) };
    let (sequence, since) = (request.sequence, request.since);
    let report = Report { source: "peer", node: &node, key, sequence, since, entries: &entries };
    let before = format!("{ledger:?}");
    let ingested = match ledger.ingest(&report, now) {
        Ok(ingested) => ingested,
        Err(refused) => {
            assert!(!refused.to_string().is_empty(), "what is refused says why");
            assert_eq!(format!("{ledger:?}"), before, "of what is refused nothing counts");
            return;
        }
    };
    assert!(ingested.durable <= ingested.received, "durable is what was received");
    assert!(ingested.deltas.len() <= entries.len(), "what was not said is not added");
    if ingested.incomplete {
        assert!(ingested.deltas.is_empty(), "who has to say it again has added nothing");
        return;
    }
    for entry in &entries {
        let place = (key, entry.cluster.clone(), entry.stratum, entry.epoch);
        let known = known.entry(place).or_default();
        if entry.first_sequence < known.first {
            continue;
        }
        if entry.first_sequence > known.first {
            *known = Known { first: entry.first_sequence, ..Known::default() };
        }
        known.highest.max_merge(&entry.counts);
        let is_it = |delta: &&wingbeat_core::analysis::ledger::Delta| {
            (&delta.cluster, delta.stratum, delta.epoch) == (&entry.cluster, entry.stratum, entry.epoch)
        };
        for delta in ingested.deltas.iter().filter(is_it) {
            known.added.merge(&delta.counts);
        }
        adds_up(&known.added, &known.highest);
        is_bounded(&known.highest);
    }
}

/// The sum of all differences is the highest count that was said, everywhere but where counts begin again.
fn adds_up(added: &Counts, highest: &Counts) {
    let plain = |counts: &Counts| {
        let mut plain = counts.clone();
        // These begin again at a new rev.
        (plain.rev_started, plain.cohorts) = (0, wingbeat_core::counts::Cohorts::default());
        plain
    };
    assert_eq!(plain(added), plain(highest), "the sum of the differences is what was said");
}

/// No number is beyond what floats hold exactly, in which the judge reckons.
fn is_bounded(counts: &Counts) {
    let Counts { started, finished, overdue, stalled, streams, retried, extra_attempts, sized, .. } = counts;
    let some = [started, finished, overdue, stalled, streams, retried, extra_attempts, sized];
    let more = [&counts.uncounted, &counts.uncounted_by_pod, &counts.latency_sum_us, &counts.abandoned];
    let largest = some.into_iter().chain(more).chain(&counts.outcomes).max();
    assert!(largest.is_none_or(|largest| *largest <= MAX_REQUESTS), "{counts:?}");
}
