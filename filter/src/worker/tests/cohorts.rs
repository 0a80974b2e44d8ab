//! Start cohorts: whole ones only, in order, each request once.

use proptest::prelude::*;
use wingbeat_core::counts::Cohorts;
use wingbeat_core::histogram::{BINS, Histogram, bin_of};
use wingbeat_core::id::Rev;

use super::*;

const PRIMARY: &str = "prod/backend/1";
const CANARY: &str = "prod/backend/2";
const REV: &str = "xds.route_metadata.filter_metadata.wingbeat.rev";

fn with_cohorts(version: u64) -> v1::Policy {
    v1::Policy { cohorts: true, ..policy(version) }
}

/// A worker that keeps cohorts, at the beginning of the first whole second, with its routes at rev 1.
fn keeping() -> (FakeHost, Worker) {
    let (host, mut worker) = started();
    worker.reply(&host, &reply(0, Some(with_cohorts(6)), 0));
    host.set(1, REV, b"1");
    host.request(&mut worker, 1, PRIMARY, 200, 1);
    host.now.set(1_000 * MS);
    (host, worker)
}

fn begin(host: &FakeHost, worker: &mut Worker, stream: u32, cluster: &str) {
    host.set(stream, "xds.cluster_name", cluster.as_bytes());
    host.current.set(stream);
    worker.begin(host, stream);
}

/// Time passes up to this moment, and a tick comes.
fn until(host: &FakeHost, worker: &mut Worker, millis: u64) {
    host.now.set(millis * MS);
    worker.tick(host);
}

fn cohorts(host: &FakeHost, cluster: &str) -> Cohorts {
    let sent = host.sent.borrow();
    // Nothing is durable here: a report that names the cluster tells all of it.
    let mut reports = sent.iter().rev().flat_map(|report| &report.clusters);
    let report = reports.find(|report| report.cluster == cluster && report.stratum == 0);
    report.map(|report| convert::counts(report).unwrap().2.cohorts).unwrap_or_default()
}

fn sums(cohorts: &Cohorts) -> (u64, u64, u64) {
    (cohorts.finished, cohorts.errors, cohorts.overdue)
}

#[test]
fn a_cohort_is_told_when_its_second_is_over_and_its_last_request_has_ended() {
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, PRIMARY, 200, 3);
    host.request(&mut worker, 3, CANARY, 503, 5);
    begin(&host, &mut worker, 4, CANARY);
    until(&host, &mut worker, 1_900);
    assert_eq!(cohorts(&host, PRIMARY), Cohorts::default(), "the second is not over");
    until(&host, &mut worker, 2_000);
    begin(&host, &mut worker, 5, PRIMARY);
    host.answer(&mut worker, 5, 200, 1);
    until(&host, &mut worker, 2_200);
    // Old by now: counted as overdue, the cohort is whole.
    assert_eq!(sums(&cohorts(&host, PRIMARY)), (1, 0, 0));
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 1, 1));
    assert_eq!(cohorts(&host, CANARY).rev, Rev::new(1));
    assert_eq!(cohorts(&host, CANARY).latency.get(bin_of(5_000)), 1);
    host.answer(&mut worker, 4, 503, 1_300);
    until(&host, &mut worker, 3_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 1, 1), "how it ends later changes nothing");
    assert_eq!(sums(&cohorts(&host, PRIMARY)), (2, 0, 0));
}

#[test]
fn no_cohort_overtakes_one_that_is_open() {
    let (host, mut worker) = keeping();
    host.pass(900);
    begin(&host, &mut worker, 2, CANARY);
    until(&host, &mut worker, 2_000);
    host.request(&mut worker, 3, CANARY, 200, 1);
    until(&host, &mut worker, 2_100);
    assert_eq!(cohorts(&host, CANARY), Cohorts::default(), "nothing closed: the request of before is open");
    host.answer(&mut worker, 2, 200, 210);
    until(&host, &mut worker, 3_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (2, 0, 0));
}

#[test]
fn the_second_in_which_it_begins_is_not_whole() {
    let (host, mut worker) = started();
    begin(&host, &mut worker, 2, CANARY);
    host.pass(10);
    worker.reply(&host, &reply(0, Some(with_cohorts(6)), 0));
    host.set(2, REV, b"1");
    host.answer(&mut worker, 2, 200, 10);
    host.request(&mut worker, 3, CANARY, 200, 10);
    until(&host, &mut worker, 3_000);
    assert_eq!(host.told(CANARY).finished, 2);
    assert_eq!(cohorts(&host, CANARY), Cohorts::default());
}

#[test]
fn nothing_is_kept_where_no_policy_asks() {
    let (host, mut worker) = started();
    host.set(2, REV, b"1");
    host.request(&mut worker, 2, CANARY, 200, 1);
    host.now.set(1_000 * MS);
    host.request(&mut worker, 3, CANARY, 200, 1);
    until(&host, &mut worker, 5_000);
    assert_eq!(host.last().clusters[0].cohorts, None);
    // A policy that no longer asks ends it, and what was open is gone.
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, CANARY, 200, 1);
    worker.reply(&host, &reply(0, Some(policy(7)), 0));
    worker.reply(&host, &reply(0, Some(with_cohorts(8)), 0));
    until(&host, &mut worker, 5_000);
    assert_eq!(cohorts(&host, CANARY), Cohorts::default());
}

#[test]
fn a_configuration_push_and_a_policy_of_the_same_kind_change_nothing() {
    let (host, mut worker) = keeping();
    begin(&host, &mut worker, 2, CANARY);
    host.request(&mut worker, 3, CANARY, 200, 1);
    worker.configure(&host);
    worker.reply(&host, &reply(0, Some(with_cohorts(7)), 0));
    host.answer(&mut worker, 2, 200, 1);
    until(&host, &mut worker, 2_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (2, 0, 0));
}

#[test]
fn a_worker_that_starts_again_tells_only_its_own() {
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, CANARY, 200, 1);
    begin(&host, &mut worker, 3, CANARY);
    // Envoy drops the worker, and what it counted and had not told is gone.
    let mut worker = Worker::new(7, 10);
    worker.configure(&host);
    worker.reply(&host, &reply(0, Some(with_cohorts(6)), 0));
    host.set(4, REV, b"1");
    host.request(&mut worker, 4, CANARY, 200, 1);
    host.answer(&mut worker, 3, 200, 2);
    until(&host, &mut worker, 2_000);
    assert_eq!((host.told(CANARY).finished, host.last().worker_id), (1, 10), "what began before is not its own");
    assert_eq!(cohorts(&host, CANARY), Cohorts::default(), "of a second that it did not see as a whole");
    host.request(&mut worker, 5, CANARY, 200, 1);
    until(&host, &mut worker, 3_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 0));
}

#[test]
fn a_cluster_that_the_policy_did_not_have_begins_with_the_next_second() {
    let (host, mut worker) = keeping();
    let mut wider = with_cohorts(7);
    wider.clusters.push(v1::ClusterPolicy { cluster: "prod/backend/3".to_owned(), ..wider.clusters[1].clone() });
    host.set(2, REV, b"1");
    host.request(&mut worker, 2, "prod/backend/3", 200, 1);
    worker.reply(&host, &reply(0, Some(wider), 0));
    host.request(&mut worker, 3, "prod/backend/3", 200, 1);
    until(&host, &mut worker, 2_000);
    assert_eq!(host.told("prod/backend/3").finished, 2);
    assert_eq!(cohorts(&host, "prod/backend/3"), Cohorts::default(), "the first request is in no cohort");
    host.request(&mut worker, 4, "prod/backend/3", 200, 1);
    until(&host, &mut worker, 3_000);
    assert_eq!(cohorts(&host, "prod/backend/3").finished, 1);
}

#[test]
fn what_says_nothing_about_the_upstream_is_left_out_and_holds_nothing_up() {
    let (host, mut worker) = keeping();
    // A client that leaves, one that left after its request grew old, a WebSocket, a request elsewhere, one unrouted.
    for stream in 2..=5 {
        begin(&host, &mut worker, stream, CANARY);
    }
    host.set(2, "response.flags", &0x4000_u64.to_le_bytes());
    host.set(3, "response.flags", &0x4000_u64.to_le_bytes());
    host.set(4, "response.code", &101_u64.to_le_bytes());
    host.set(5, "response.code", &101_u64.to_le_bytes());
    begin(&host, &mut worker, 6, "outbound|80||other");
    host.pass(1);
    host.current.set(2);
    worker.end(&host, 2);
    host.answer(&mut worker, 5, 101, 1);
    until(&host, &mut worker, 1_300);
    host.current.set(3);
    worker.end(&host, 3);
    until(&host, &mut worker, 2_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (0, 0, 1));
    assert_eq!(host.told(CANARY).streams, 2);
}

#[test]
fn a_response_under_way_is_no_error_and_longer_than_anything() {
    let (host, mut worker) = keeping();
    begin(&host, &mut worker, 2, CANARY);
    host.set(2, "response.code", &200_u64.to_le_bytes());
    until(&host, &mut worker, 2_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 0));
    assert_eq!(cohorts(&host, CANARY).latency.get(BINS - 1), 1);
    assert_eq!(host.told(CANARY).overdue, 0, "it has an answer");
    host.answer(&mut worker, 2, 500, 1_000);
    until(&host, &mut worker, 3_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 0), "how it ends later changes nothing");
    assert_eq!(host.told(CANARY).latency.get(bin_of(1_000_000)), 1);
}

#[test]
fn cohorts_belong_to_the_routes_that_all_of_their_requests_took() {
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, CANARY, 200, 1);
    until(&host, &mut worker, 1_500);
    // In mid-second come new routes; the first request of a tick tells.
    host.set(3, REV, b"2");
    host.request(&mut worker, 3, PRIMARY, 200, 1);
    until(&host, &mut worker, 2_000);
    assert_eq!(cohorts(&host, CANARY), Cohorts::default(), "partly of the routes before");
    host.request(&mut worker, 4, CANARY, 200, 1);
    until(&host, &mut worker, 3_000);
    let at_2 = cohorts(&host, CANARY);
    assert_eq!((at_2.rev, at_2.finished), (Rev::new(2), 1));
    // One that took old routes and ends late does not bring them back.
    host.set(5, REV, b"1");
    host.request(&mut worker, 5, CANARY, 200, 1);
    until(&host, &mut worker, 4_000);
    assert_eq!((cohorts(&host, CANARY).rev, cohorts(&host, CANARY).finished), (Rev::new(2), 2));
    // At a new rev they start again.
    host.set(6, REV, b"3");
    host.request(&mut worker, 6, CANARY, 200, 1);
    until(&host, &mut worker, 5_000);
    host.request(&mut worker, 7, CANARY, 503, 1);
    until(&host, &mut worker, 6_000);
    assert_eq!(cohorts(&host, CANARY).rev, Rev::new(3));
    assert_eq!(sums(&cohorts(&host, CANARY)), (2, 1, 0), "that of the request which told, since it began with it");
}

#[test]
fn canaries_have_routes_of_their_own() {
    let (host, mut worker) = keeping();
    let mut two = with_cohorts(7);
    two.clusters[1].canary = "prod/other".to_owned();
    worker.reply(&host, &reply(0, Some(two), 0));
    host.request(&mut worker, 2, PRIMARY, 200, 1);
    host.request(&mut worker, 3, CANARY, 200, 1);
    until(&host, &mut worker, 2_000);
    assert_eq!((cohorts(&host, PRIMARY).finished, cohorts(&host, CANARY).finished), (1, 0));
}

#[test]
fn open_cohorts_are_bounded_and_the_oldest_is_given_up() {
    let (host, mut worker) = keeping();
    let mut endless = with_cohorts(7);
    endless.clusters[0].overdue_ms = 0;
    worker.reply(&host, &reply(0, Some(endless), 0));
    begin(&host, &mut worker, 2, PRIMARY);
    for second in 1..=64 {
        until(&host, &mut worker, second * 1_000);
        host.request(&mut worker, 10, CANARY, 200, 1);
    }
    until(&host, &mut worker, 65_000);
    assert_eq!(cohorts(&host, CANARY), Cohorts::default(), "all wait for one request");
    host.request(&mut worker, 10, CANARY, 200, 1);
    until(&host, &mut worker, 66_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (64, 0, 0), "without that of the one");
    host.answer(&mut worker, 2, 200, 65_000);
    until(&host, &mut worker, 67_000);
    assert_eq!(cohorts(&host, PRIMARY), Cohorts::default(), "it never enters");
}

#[test]
fn a_request_that_is_not_followed_spoils_its_cohort() {
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, CANARY, 200, 1);
    for stream in 0..100_000 {
        worker.begin(&host, 1_000 + stream);
    }
    worker.begin(&host, 3);
    host.streams.borrow_mut().clear();
    until(&host, &mut worker, 2_000);
    host.request(&mut worker, 4, CANARY, 200, 1);
    until(&host, &mut worker, 3_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 0), "only the one of the next second");
}

#[test]
fn a_clock_that_jumps_closes_each_cohort_once() {
    let (host, mut worker) = keeping();
    host.request(&mut worker, 2, CANARY, 200, 1);
    begin(&host, &mut worker, 3, CANARY);
    until(&host, &mut worker, 3_600_000);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 1));
    // Back: these seconds are closed, whatever begins in them.
    host.now.set(1_000 * MS);
    host.request(&mut worker, 4, CANARY, 200, 1);
    until(&host, &mut worker, 2_000);
    until(&host, &mut worker, 3_600_500);
    assert_eq!(sums(&cohorts(&host, CANARY)), (1, 0, 1));
}

#[derive(Debug, Clone)]
enum Event {
    Begin {
        canary: bool,
    },
    End {
        which: usize,
        how: How,
    },
    /// The response of a request begins.
    Answer {
        which: usize,
        code: u64,
    },
    Pass {
        millis: u64,
    },
    Tick,
    Push,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Success,
    Failure,
    Left,
}

fn event() -> impl Strategy<Value = Event> {
    let how = prop_oneof![6 => Just(How::Success), 2 => Just(How::Failure), 1 => Just(How::Left)];
    prop_oneof![
        5 => any::<bool>().prop_map(|canary| Event::Begin { canary }),
        5 => (any::<usize>(), how).prop_map(|(which, how)| Event::End { which, how }),
        1 => (any::<usize>(), prop_oneof![Just(101_u64), Just(200)])
            .prop_map(|(which, code)| Event::Answer { which, code }),
        5 => (1..700_u64).prop_map(|millis| Event::Pass { millis }),
        4 => Just(Event::Tick),
        1 => Just(Event::Push),
    ]
}

/// What the test knows of a request.
#[derive(Debug, Clone)]
struct Request {
    began_ms: u64,
    lasted_ms: u64,
    canary: bool,
    code: Option<u64>,
    /// It was older than the limit at a tick while it ran.
    grew_old: bool,
    ended: Option<How>,
}

impl Request {
    const fn second(&self) -> u64 {
        self.began_ms / 1_000
    }

    const fn is_stream(&self) -> bool {
        matches!(self.code, Some(101))
    }

    /// Its cohort need not wait for it.
    const fn is_settled(&self) -> bool {
        self.grew_old || self.ended.is_some()
    }

    const fn is_finished(&self) -> bool {
        !self.grew_old && !self.is_stream() && matches!(self.ended, Some(How::Success | How::Failure))
    }

    const fn is_overdue(&self) -> bool {
        self.grew_old && self.code.is_none()
    }

    const fn is_under_way(&self) -> bool {
        self.grew_old && matches!(self.code, Some(200))
    }
}

/// Checks the cohorts told against all that is known, at a tick. Returns the number of requests in them.
fn check(host: &FakeHost, requests: &[Request], first: u64) -> Result<u64, TestCaseError> {
    let now = host.now.get() / MS / 1_000;
    let held_up_by = requests.iter().filter(|it| it.second() >= first && !it.is_settled()).map(Request::second).min();
    let closed = |it: &Request| it.second() >= first && it.second() < held_up_by.unwrap_or(now).min(now);
    for (cluster, canary) in [(PRIMARY, false), (CANARY, true)] {
        let told = cohorts(host, cluster);
        let arm = || requests.iter().filter(|it| it.canary == canary && closed(it));
        let finished = arm().filter(|it| it.is_finished());
        let errors = finished.clone().filter(|it| it.ended == Some(How::Failure)).count();
        let under_way = arm().filter(|it| it.is_under_way()).count() as u64;
        let bins = finished.clone().map(|it| (bin_of(it.lasted_ms * 1_000), 1));
        let latency: Histogram = bins.chain((under_way > 0).then_some((BINS - 1, under_way))).collect();
        let overdue = arm().filter(|it| it.is_overdue()).count();
        // Whole cohorts, no elder open, each once.
        prop_assert_eq!(&told.latency, &latency);
        prop_assert_eq!(sums(&told), (finished.count() as u64 + under_way, errors as u64, overdue as u64));
    }
    Ok(requests.iter().filter(|it| closed(it)).count() as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn cohorts_are_whole_and_no_elder_is_open(events in proptest::collection::vec(event(), 1..150)) {
        let (host, mut worker) = keeping();
        let mut requests: Vec<Request> = Vec::new();
        for event in events {
            let open = |requests: &[Request], which: usize| {
                let open: Vec<usize> = (0..requests.len()).filter(|at| requests[*at].ended.is_none()).collect();
                (!open.is_empty()).then(|| open[which % open.len()])
            };
            match event {
                Event::Begin { canary } => {
                    // Streams are numbered apart from the one that told the rev.
                    let stream = 100 + u32::try_from(requests.len()).unwrap();
                    begin(&host, &mut worker, stream, if canary { CANARY } else { PRIMARY });
                    let began_ms = host.now.get() / MS;
                    requests.push(Request { began_ms, lasted_ms: 0, canary, code: None, grew_old: false, ended: None });
                }
                Event::Answer { which, code } => {
                    let Some(at) = open(&requests, which).filter(|at| requests[*at].code.is_none()) else { continue };
                    if requests[at].grew_old {
                        continue;
                    }
                    requests[at].code = Some(code);
                    host.set(100 + u32::try_from(at).unwrap(), "response.code", &code.to_le_bytes());
                }
                Event::End { which, how } => {
                    let Some(at) = open(&requests, which) else { continue };
                    let stream = 100 + u32::try_from(at).unwrap();
                    requests[at].ended = Some(how);
                    requests[at].lasted_ms = host.now.get() / MS - requests[at].began_ms;
                    let (code, flags) = match how {
                        How::Success => (requests[at].code.unwrap_or(200), 0_u64),
                        How::Failure if requests[at].code == Some(200) => (200, 0x80_0000),
                        How::Failure => (requests[at].code.unwrap_or(503), 0),
                        How::Left => (requests[at].code.unwrap_or(200), 0x4000),
                    };
                    host.set(stream, "response.code", &code.to_le_bytes());
                    host.set(stream, "response.flags", &flags.to_le_bytes());
                    host.current.set(stream);
                    worker.end(&host, stream);
                }
                Event::Pass { millis } => host.pass(millis),
                Event::Push => worker.configure(&host),
                Event::Tick => {
                    let now = host.now.get() / MS;
                    for request in requests.iter_mut().filter(|it| it.ended.is_none()) {
                        request.grew_old |= now - request.began_ms >= 250;
                    }
                    worker.tick(&host);
                    check(&host, &requests, 1)?;
                }
            }
        }
        // In the end everything is in.
        for request in requests.iter_mut().filter(|it| it.ended.is_none()) {
            request.grew_old = true;
        }
        host.pass(2_000);
        worker.tick(&host);
        prop_assert_eq!(check(&host, &requests, 1)?, requests.len() as u64);
    }
}
