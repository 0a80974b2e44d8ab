use std::cell::{Cell, RefCell};

use wingbeat_core::counts::Counts;

use super::*;

mod clients;
mod cohorts;
mod ends;
mod streams;

const MS: u64 = 1_000_000;
/// The rollout of [`policy`].
const EPOCH: u64 = 11;
/// The rev of a request's route.
const REV: &str = "xds.route_metadata.filter_metadata.wingbeat.rev";

/// The time between the ticks of [`started`]'s worker where this is granted.
fn period(tick_ms: u64) -> u64 {
    tick_ms + tick_ms * 9 / 1_024
}

/// Envoy, as far as the filter knows it.
#[derive(Default)]
struct FakeHost {
    now: Cell<u64>,
    current: Cell<u32>,
    streams: RefCell<BTreeMap<u32, BTreeMap<String, Vec<u8>>>>,
    ticks: RefCell<Vec<u64>>,
    sent: RefCell<Vec<v1::ReportRequest>>,
    refuses: Cell<bool>,
    reads: Cell<usize>,
    /// All calls but those of the clock.
    calls: Cell<usize>,
    /// Header lines of the request at hand.
    headers: RefCell<Vec<(String, Vec<u8>)>>,
    /// Calls that change one.
    changed: Cell<usize>,
}

impl FakeHost {
    fn set(&self, stream: u32, path: &str, value: &[u8]) {
        self.streams.borrow_mut().entry(stream).or_default().insert(path.to_owned(), value.to_vec());
    }

    /// A request to `cluster` that is answered with `code` after `millis`.
    fn request(&self, worker: &mut Worker, stream: u32, cluster: &str, code: u64, millis: u64) {
        self.set(stream, "xds.cluster_name", cluster.as_bytes());
        self.current.set(stream);
        worker.begin(self, stream);
        self.pass(millis);
        self.answer(worker, stream, code, millis);
    }

    fn answer(&self, worker: &mut Worker, stream: u32, code: u64, millis: u64) {
        self.set(stream, "response.code", &code.to_le_bytes());
        self.set(stream, "request.duration", &(millis * MS).to_le_bytes());
        self.current.set(stream);
        worker.end(self, stream);
    }

    fn pass(&self, millis: u64) {
        self.now.set(self.now.get() + millis * MS);
    }

    fn last(&self) -> v1::ReportRequest {
        self.sent.borrow().last().cloned().unwrap()
    }

    fn called(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// What the last report says of a cluster.
    fn told(&self, cluster: &str) -> Counts {
        let report = self.last().clusters.into_iter().find(|it| it.cluster == cluster).unwrap();
        convert::counts(&report).unwrap().2
    }
}

impl Host for FakeHost {
    fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.called();
        self.reads.set(self.reads.get() + 1);
        let path = path.replace('\0', ".");
        if path == "xds.node.id" {
            return Some(b"edge-1".to_vec());
        }
        self.streams.borrow().get(&self.current.get())?.get(&path).cloned()
    }

    fn request_headers(&self) -> Vec<(String, Vec<u8>)> {
        self.called();
        self.headers.borrow().clone()
    }

    fn set_request_header(&self, name: &str, value: Option<&[u8]>) {
        self.called();
        self.changed.set(self.changed.get() + 1);
        let mut headers = self.headers.borrow_mut();
        headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        headers.extend(value.map(|value| (name.to_owned(), value.to_vec())));
    }

    fn enter(&self, stream: u32) -> bool {
        self.called();
        self.current.set(stream);
        self.streams.borrow().contains_key(&stream)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.now.get()
    }

    fn set_tick(&self, millis: u64) {
        self.called();
        self.ticks.borrow_mut().push(millis);
    }

    fn send(&self, report: &[u8]) -> bool {
        self.called();
        if self.refuses.get() {
            return false;
        }
        let report = v1::ReportRequest::decode(report).unwrap();
        for cluster in &report.clusters {
            convert::counts(cluster).unwrap().2.check().unwrap();
        }
        self.sent.borrow_mut().push(report);
        true
    }
}

fn policy(version: u64) -> v1::Policy {
    let cluster = |name: &str, arm| v1::ClusterPolicy {
        cluster: name.to_owned(),
        arm,
        overdue_ms: 250,
        canary: "prod/backend".to_owned(),
        epoch: EPOCH,
        ..v1::ClusterPolicy::default()
    };
    v1::Policy {
        version,
        clusters: vec![cluster("prod/backend/1", 0), cluster("prod/backend/2", 1)],
        ..v1::Policy::default()
    }
}

fn reply(durable: u64, policy: Option<v1::Policy>, next_tick_ms: u32) -> Vec<u8> {
    let reply = v1::ReportResponse { received: durable, durable, policy, next_tick_ms, ..Default::default() };
    reply.encode_to_vec()
}

fn started() -> (FakeHost, Worker) {
    let host = FakeHost::default();
    host.pass(1);
    let mut worker = Worker::new(7, 9);
    worker.configure(&host);
    worker.tick(&host);
    worker.reply(&host, &reply(0, Some(policy(5)), 100));
    (host, worker)
}

#[test]
fn the_first_tick_asks_for_policy() {
    let (host, mut worker) = started();
    assert_eq!(host.sent.borrow().len(), 1);
    assert_eq!((host.last().node_id.as_str(), host.last().sequence, host.last().policy_version), ("edge-1", 1, 0));
    // Nothing new and not yet time: silence.
    host.pass(100);
    worker.tick(&host);
    assert_eq!(host.sent.borrow().len(), 1);
    host.pass(1_000);
    worker.tick(&host);
    assert_eq!((host.sent.borrow().len(), host.last().policy_version), (2, 5));
}

#[test]
fn a_lost_report_is_told_again_and_a_durable_one_is_not() {
    let (host, mut worker) = started();
    host.request(&mut worker, 2, "prod/backend/1", 200, 3);
    worker.tick(&host);
    assert_eq!(host.last().clusters[0].finished, 1);
    // Lost. The next one carries everything.
    host.request(&mut worker, 3, "prod/backend/1", 200, 3);
    worker.tick(&host);
    assert_eq!((host.last().clusters[0].finished, host.last().clusters[0].latency[0].count), (2, 2));
    worker.reply(&host, &reply(host.last().sequence, None, 0));
    host.pass(2_000);
    worker.tick(&host);
    assert_eq!(host.last().clusters, []);
}

#[test]
fn a_mark_beyond_what_was_sent_is_not_believed() {
    let (host, mut worker) = started();
    worker.reply(&host, &reply(1_000, None, 0));
    host.request(&mut worker, 2, "prod/backend/1", 200, 3);
    worker.tick(&host);
    assert_eq!(host.last().clusters.len(), 1);
}

#[test]
fn what_envoy_does_not_take_stays_news() {
    let (host, mut worker) = started();
    host.request(&mut worker, 2, "prod/backend/1", 200, 3);
    host.refuses.set(true);
    worker.tick(&host);
    host.refuses.set(false);
    worker.tick(&host);
    assert_eq!((host.last().sequence, host.last().clusters.len()), (2, 1));
}

/// Silence after news means that reports are late: so who has no more says so, once.
#[test]
fn after_news_one_report_says_that_there_are_no_more() {
    let (host, mut worker) = started();
    let reports_of_ticks = |worker: &mut Worker, ticks: usize| {
        let before = host.sent.borrow().len();
        for _ in 0..ticks {
            host.pass(100);
            worker.tick(&host);
        }
        host.sent.borrow().len() - before
    };
    assert_eq!(reports_of_ticks(&mut worker, 8), 0, "nothing was told yet");
    host.request(&mut worker, 2, "prod/backend/1", 200, 3);
    assert_eq!([1, 1, 8, 1].map(|ticks| reports_of_ticks(&mut worker, ticks)), [1, 1, 0, 0]);
    assert_eq!(reports_of_ticks(&mut worker, 10), 1, "it is there");
}

#[test]
fn a_hanging_request_is_counted_once_and_then_as_what_it_becomes() {
    let (host, mut worker) = started();
    host.set(2, "xds.cluster_name", b"prod/backend/2");
    worker.begin(&host, 2);
    host.pass(200);
    worker.tick(&host);
    let reads = host.reads.get();
    host.pass(100);
    worker.tick(&host);
    assert!(host.reads.get() > reads, "an old request is looked at");
    assert_eq!(
        (host.last().clusters[0].overdue, host.last().clusters[0].started, host.last().clusters[0].finished),
        (1, 1, 0)
    );
    let (known, reads) = (host.last().clusters, host.reads.get());
    host.pass(100);
    worker.tick(&host);
    assert_eq!((host.last().clusters, host.reads.get()), (known, reads), "looked at and counted once");
    host.answer(&mut worker, 2, 503, 400);
    worker.tick(&host);
    let told = host.last().clusters[0].clone();
    assert_eq!(
        (told.overdue, told.overdue_finished, told.overdue_errors, told.finished, told.started),
        (1, 1, 1, 1, 1)
    );
}

#[test]
fn a_stream_that_envoy_drops_without_a_word_does_not_hang() {
    let (host, mut worker) = started();
    for stream in [2, 3] {
        host.set(stream, "xds.cluster_name", b"prod/backend/2");
        worker.begin(&host, stream);
    }
    host.streams.borrow_mut().remove(&2);
    host.pass(300);
    worker.tick(&host);
    assert_eq!((host.last().clusters[0].overdue, worker.in_flight.len()), (1, 1));
}

#[test]
fn young_requests_cost_no_host_calls() {
    let (host, mut worker) = started();
    for stream in 10..500 {
        host.set(stream, "xds.cluster_name", b"prod/backend/1");
        worker.begin(&host, stream);
    }
    host.pass(100);
    let reads = host.reads.get();
    worker.tick(&host);
    assert_eq!(host.reads.get(), reads);
}

#[test]
fn a_canary_error_is_reported_at_once_but_not_in_a_storm() {
    let (host, mut worker) = started();
    host.pass(100);
    host.request(&mut worker, 2, "prod/backend/1", 500, 0);
    assert_ne!(host.ticks.borrow().last(), Some(&1), "the primary's errors wait for the tick");
    host.request(&mut worker, 3, "prod/backend/2", 500, 0);
    assert_eq!(host.ticks.borrow().last(), Some(&1));
    worker.tick(&host);
    assert!(host.last().urgent);
    assert_eq!(host.ticks.borrow().last(), Some(&period(100)), "back to the granted tick");
    host.pass(5);
    host.request(&mut worker, 4, "prod/backend/2", 500, 0);
    assert_eq!(host.ticks.borrow().last(), Some(&15), "at most every 20 ms");
}

#[test]
fn clusters_of_others_are_not_counted() {
    let (host, mut worker) = started();
    host.request(&mut worker, 2, "outbound|80||other", 200, 1);
    assert!(!worker.store.has_changes(0));
}

#[test]
fn a_rollout_that_just_began_is_asked_about_at_once_and_loses_nothing() {
    let (host, mut worker) = started();
    host.pass(500);
    host.set(3, REV, b"8");
    host.request(&mut worker, 3, "prod/other/1", 500, 1);
    assert_eq!(host.ticks.borrow().last(), Some(&1));
    worker.tick(&host);
    assert_eq!(host.last().clusters, [], "whose it is, is not known yet");
    // Once asked, it does not ask for every request.
    host.set(4, REV, b"8");
    host.request(&mut worker, 4, "prod/other/1", 200, 1);
    assert_eq!(host.ticks.borrow().last(), Some(&period(100)));
    // One of routes before those of the rollout.
    host.set(5, REV, b"7");
    host.request(&mut worker, 5, "prod/other/1", 500, 1);
    let mut wider = policy(6);
    let other = |arm| v1::ClusterPolicy {
        cluster: format!("prod/other/{}", arm + 1),
        arm,
        epoch: 12,
        first_rev: 8,
        ..v1::ClusterPolicy::default()
    };
    wider.clusters.extend([other(0), other(1)]);
    worker.reply(&host, &reply(0, Some(wider), 0));
    worker.tick(&host);
    let told = &host.last().clusters[0];
    assert_eq!((told.cluster.as_str(), told.epoch, told.finished), ("prod/other/1", 12, 2));
}

/// Requests of a rollout that is over may go on for hours.
#[test]
fn a_cluster_that_no_policy_names_is_asked_about_no_more_often_than_granted() {
    let (host, mut worker) = started();
    worker.reply(&host, &reply(0, None, 5_000));
    let asks = |worker: &mut Worker, rev: u64, stream: u32| {
        host.set(stream, REV, rev.to_string().as_bytes());
        host.pass(100);
        host.request(worker, stream, "prod/other/1", 200, 1);
        let hurries = host.ticks.borrow().last() == Some(&1);
        if hurries {
            worker.tick(&host);
        }
        hurries
    };
    assert!(asks(&mut worker, 4, 2));
    assert_eq!((3..33).filter(|stream| asks(&mut worker, 4, *stream)).count(), 0);
    assert!(asks(&mut worker, 5, 40), "routes that are new");
    assert_eq!((50..100).filter(|stream| asks(&mut worker, 4, *stream)).count(), 1, "as granted");
}

#[test]
fn nothing_is_lost_before_the_first_policy() {
    let host = FakeHost::default();
    host.pass(1);
    let mut worker = Worker::new(1, 1);
    worker.configure(&host);
    host.set(2, REV, b"3");
    host.request(&mut worker, 2, "prod/backend/2", 503, 1);
    host.request(&mut worker, 3, "outbound|80||other", 200, 1);
    worker.tick(&host);
    worker.reply(&host, &reply(0, Some(policy(5)), 100));
    assert_eq!(host.ticks.borrow().last(), Some(&20), "a canary's error is reported as soon as another report may be");
    worker.tick(&host);
    let told: Vec<_> = host.last().clusters.iter().map(|it| (it.cluster.clone(), it.finished)).collect();
    assert_eq!(told, [("prod/backend/2".to_owned(), 1)]);
}

#[test]
fn what_ended_before_the_policy_came_is_read_by_its_rules() {
    let host = FakeHost::default();
    host.pass(1);
    let mut worker = Worker::new(1, 1);
    worker.configure(&host);
    let canary = "prod/backend/2";
    for (stream, millis) in [(2, 1), (3, 200)] {
        host.set(stream, REV, b"3");
        host.set(stream, "response.flags", &0x4000_u64.to_le_bytes());
        host.set(stream, "request.duration", &(millis * MS).to_le_bytes());
        host.set(stream, "xds.cluster_name", canary.as_bytes());
        host.current.set(stream);
        worker.begin(&host, stream);
        host.pass(millis);
        worker.end(&host, stream);
    }
    host.set(4, REV, b"3");
    host.set(4, "response.grpc_status", &14_u64.to_le_bytes());
    host.request(&mut worker, 4, canary, 200, 1);
    let mut grpc = policy(5);
    grpc.clusters[1].grpc = true;
    worker.reply(&host, &reply(0, Some(grpc), 100));
    worker.tick(&host);
    let counts = host.told(canary);
    assert_eq!((counts.finished, counts.abandoned, counts.outcome(Outcome::ServerFault)), (3, 1, 1));
}

#[test]
fn what_an_earlier_rollout_left_out_is_not_charged_to_the_next() {
    for (revs, uncounted) in [(&[4, 4][..], 0), (&[4, 6, 4, 7, 7][..], 2)] {
        let host = FakeHost::default();
        host.pass(1);
        let mut worker = Worker::new(1, 1);
        worker.configure(&host);
        let full = std::iter::repeat_n(&4, 1_024);
        for (stream, rev) in (1..).zip(full.chain(revs)) {
            host.set(stream, REV, rev.to_string().as_bytes());
            host.request(&mut worker, stream, "prod/backend/2", 200, 1);
        }
        let mut next = policy(5);
        next.clusters[1].first_rev = 6;
        worker.reply(&host, &reply(0, Some(next), 100));
        worker.tick(&host);
        let told: u64 = host.last().clusters.iter().map(|cluster| cluster.uncounted).sum();
        assert_eq!(told, uncounted, "{revs:?}");
    }
}

/// A retry, or the same revisions again: another epoch at the same clusters.
#[test]
fn what_an_earlier_attempt_routed_is_not_charged_to_the_next() {
    let (host, mut worker) = started();
    let attempt = |version, epoch, first_rev| {
        let mut policy = policy(version);
        policy.clusters.iter_mut().for_each(|cluster| (cluster.epoch, cluster.first_rev) = (epoch, first_rev));
        policy
    };
    worker.reply(&host, &reply(0, Some(attempt(6, 21, 3)), 100));
    for stream in 2..5 {
        host.set(stream, REV, b"4");
        host.request(&mut worker, stream, "prod/backend/2", 500, 1);
    }
    // Two that are still in flight when the next attempt begins; one of them grew too old before.
    for stream in [6, 7] {
        host.set(stream, REV, b"4");
        host.set(stream, "xds.cluster_name", b"prod/backend/2");
        host.current.set(stream);
        worker.begin(&host, stream);
        host.pass(if stream == 6 { 300 } else { 1 });
        worker.tick(&host);
    }
    worker.reply(&host, &reply(0, Some(attempt(7, 22, 6)), 100));
    // Its routes come a moment after the policy.
    host.set(8, REV, b"4");
    host.request(&mut worker, 8, "prod/backend/2", 500, 1);
    host.answer(&mut worker, 6, 500, 400);
    host.answer(&mut worker, 7, 500, 100);
    host.set(9, REV, b"6");
    host.request(&mut worker, 9, "prod/backend/2", 200, 1);
    let reads = host.reads.get();
    host.request(&mut worker, 9, "prod/backend/2", 200, 1);
    let cost = host.reads.get() - reads;
    worker.tick(&host);
    let told: Vec<_> =
        host.last().clusters.iter().map(|it| (it.epoch, it.finished, it.overdue, it.outcomes[3])).collect();
    assert_eq!(told, [(21, 3, 1, 3), (22, 2, 0, 0)]);
    worker.reply(&host, &reply(host.last().sequence, None, 0));
    host.request(&mut worker, 9, "prod/backend/2", 200, 1);
    worker.tick(&host);
    let told: Vec<u64> = host.last().clusters.iter().map(|it| it.epoch).collect();
    assert_eq!(told, [22], "what is over and written down is gone");
    let reads = host.reads.get();
    host.request(&mut worker, 9, "prod/backend/2", 200, 1);
    assert_eq!(host.reads.get() - reads, cost + 1, "the first request after a tick reads its rev, others do not");
}

#[test]
fn who_is_asked_for_everything_sends_everything() {
    let (host, mut worker) = started();
    host.request(&mut worker, 2, "prod/backend/1", 200, 3);
    worker.tick(&host);
    worker.reply(&host, &reply(host.last().sequence, None, 0));
    host.request(&mut worker, 3, "prod/backend/1", 200, 9);
    worker.tick(&host);
    assert_eq!((host.last().since, host.last().clusters[0].latency.len()), (2, 1));
    let reply = v1::ReportResponse { send_all: true, ..Default::default() };
    worker.reply(&host, &reply.encode_to_vec());
    worker.tick(&host);
    let last = host.last();
    assert_eq!((last.since, last.clusters[0].latency.len(), last.clusters[0].first_sequence), (0, 2, 2));
}

#[test]
fn the_rev_of_another_hosts_route_is_not_the_clusters() {
    let (host, mut worker) = started();
    let mut judged = policy(6);
    judged.clusters[1].virtual_host = "prod/backend".into();
    worker.reply(&host, &reply(0, Some(judged), 0));
    host.set(3, "xds.virtual_host_name", b"prod/other");
    host.set(3, REV, b"99");
    host.request(&mut worker, 3, "prod/backend/2", 200, 1);
    worker.tick(&host);
    assert_eq!((host.last().clusters[0].stratum, host.last().clusters[0].rev), (1, 0));
}

#[test]
fn direct_traffic_is_a_stratum_of_its_own() {
    let (host, mut worker) = started();
    let mut judged = policy(6);
    judged.clusters[1].virtual_host = "prod/backend".into();
    worker.reply(&host, &reply(0, Some(judged), 0));
    host.set(2, "xds.virtual_host_name", b"prod/backend");
    host.request(&mut worker, 2, "prod/backend/2", 200, 1);
    host.set(3, "xds.virtual_host_name", b"prod/backend-canary");
    host.request(&mut worker, 3, "prod/backend/2", 200, 1);
    worker.tick(&host);
    let strata: Vec<u32> = host.last().clusters.iter().map(|cluster| cluster.stratum).collect();
    assert_eq!(strata, [0, 1]);
}

#[test]
fn an_unreadable_answer_changes_nothing() {
    let (host, mut worker) = started();
    worker.reply(&host, &[0xff, 0xff, 0xff]);
    host.request(&mut worker, 2, "prod/backend/1", 200, 1);
    worker.tick(&host);
    assert_eq!(host.last().policy_version, 5);
}

#[test]
fn ticks_are_granted_within_bounds() {
    let (host, mut worker) = started();
    assert_eq!(host.ticks.borrow().last(), Some(&period(100)));
    worker.reply(&host, &reply(0, None, 1));
    assert_eq!(host.ticks.borrow().last(), Some(&period(20)));
    worker.reply(&host, &reply(0, None, u32::MAX));
    assert_eq!(host.ticks.borrow().last(), Some(&period(60_000)));
}

/// A policy by which the group of insiders gets the canary.
fn insiders(holdback: u32) -> v1::Policy {
    let insider = v1::Condition {
        subject: Some(v1::condition::Subject::Header("x-group".to_owned())),
        pattern: Some(v1::condition::Pattern::Exact(b"insider".to_vec())),
        ..Default::default()
    };
    let canary = vec![v1::Rule { conditions: vec![insider] }];
    let rules = v1::Rules { arm_value: "token".to_owned(), canary, holdback, ..Default::default() };
    let division = Some(v1::host_policy::Division::Rules(rules));
    let hosts = vec![v1::HostPolicy { virtual_host: "prod/a".to_owned(), division }];
    let mut policy = v1::Policy { hosts, ..policy(2) };
    for cluster in &mut policy.clusters {
        cluster.virtual_host = "prod/a".to_owned();
    }
    policy
}

/// A worker with this policy, and an Envoy with one request to the host that it is about.
fn divided(policy: v1::Policy) -> (Worker, FakeHost) {
    let (mut worker, host) = (Worker::new(1, 2), FakeHost::default());
    let reply = v1::ReportResponse { policy: Some(policy), ..Default::default() };
    worker.reply(&host, &reply.encode_to_vec());
    host.set(7, "xds.virtual_host_name", b"prod/a");
    host.current.set(7);
    (worker, host)
}

fn header(name: &str, value: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), value.to_vec())
}

#[test]
fn requests_that_match_carry_the_token_and_others_carry_none() {
    let (mut worker, host) = divided(insiders(0));
    let forged = || header("X-Wingbeat-Arm", b"token");
    let insider = || header("x-group", b"insider");
    let other = || header("x-group", b"\xff");
    for (sent, marked, changes) in [
        (vec![insider()], vec![insider(), header("x-wingbeat-arm", b"token")], 1),
        (vec![insider(), forged()], vec![insider(), header("x-wingbeat-arm", b"token")], 1),
        (vec![other(), forged()], vec![other()], 1),
        (vec![other()], vec![other()], 0),
    ] {
        host.headers.replace(sent);
        host.changed.set(0);
        worker.begin(&host, 7);
        assert_eq!((host.headers.borrow().clone(), host.changed.get()), (marked, changes));
    }
}

#[test]
fn hosts_without_division_cost_nothing() {
    let (mut worker, host) = divided(policy(1));
    host.reads.set(0);
    worker.begin(&host, 7);
    assert_eq!((host.reads.get(), host.changed.get()), (0, 0));
}

#[test]
fn another_host_is_left_alone() {
    let (mut worker, host) = divided(insiders(0));
    host.set(7, "xds.virtual_host_name", b"prod/b");
    host.headers.replace(vec![header("x-group", b"insider")]);
    worker.begin(&host, 7);
    assert_eq!(host.changed.get(), 0);
}

#[test]
fn a_policy_that_cannot_be_read_changes_nothing() {
    let (mut worker, host) = divided(insiders(0));
    let bad = v1::Policy { hosts: vec![v1::HostPolicy::default()], ..policy(3) };
    worker.reply(&host, &v1::ReportResponse { policy: Some(bad), ..Default::default() }.encode_to_vec());
    host.headers.replace(vec![header("x-group", b"insider")]);
    worker.begin(&host, 7);
    assert_eq!(host.changed.get(), 1);
    worker.tick(&host);
    assert_eq!(host.last().policy_version, 2, "the last good one");
}

#[test]
fn users_carry_their_bucket() {
    let identity = Some(v1::users::Identity::Cookie("uid".to_owned()));
    let users = v1::Users { identity, key: 1 };
    let division = Some(v1::host_policy::Division::Users(users));
    let hosts = vec![v1::HostPolicy { virtual_host: "prod/a".to_owned(), division }];
    let (mut worker, host) = divided(v1::Policy { hosts, ..policy(2) });
    let cookie = || header("cookie", b"uid=alice");
    host.headers.replace(vec![cookie()]);
    worker.begin(&host, 7);
    assert_eq!(*host.headers.borrow(), [cookie(), header("x-wingbeat-bucket", b"1825")]);
    host.headers.replace(vec![header("x-wingbeat-bucket", b"9999")]);
    worker.begin(&host, 7);
    assert_eq!(*host.headers.borrow(), [], "a user without a name gets no bucket of his choice");
}

#[test]
fn where_requests_are_held_back_only_they_are_compared_with_the_canary() {
    let (mut worker, host) = divided(insiders(10_000));
    let strata = |worker: &mut Worker| {
        worker.tick(&host);
        let mut counted: Vec<_> =
            host.last().clusters.iter().map(|it| (it.cluster.clone(), it.stratum, it.finished)).collect();
        counted.sort();
        counted
    };
    let cluster = policy(1).clusters.iter().find(|cluster| cluster.arm == 0).unwrap().cluster.clone();
    let mut send = |headers: Vec<(String, Vec<u8>)>| {
        host.headers.replace(headers);
        host.request(&mut worker, 7, &cluster, 200, 5);
    };
    send(vec![header("x-group", b"insider")]);
    send(vec![header("x-group", b"other")]);
    send(vec![]);
    assert_eq!(strata(&mut worker), [(cluster.clone(), 0, 1), (cluster, 1, 2)]);
}

/// Where few match, what the others take shows which routes a proxy serves; but only on the rollout's own host.
#[test]
fn requests_that_are_not_compared_tell_the_rev_of_their_own_host() {
    let mut held_back = insiders(10_000);
    held_back.clusters.iter_mut().for_each(|cluster| cluster.first_rev = 3);
    let (mut worker, host) = divided(held_back);
    let cluster = "prod/backend/1";
    host.headers.replace(vec![header("x-group", b"other")]);
    let told = |worker: &mut Worker| {
        worker.tick(&host);
        let clusters = &host.last().clusters;
        clusters.iter().map(|it| (it.stratum, it.rev, it.finished)).collect::<Vec<_>>()
    };
    host.set(7, REV, b"2");
    host.request(&mut worker, 7, cluster, 200, 5);
    assert_eq!(told(&mut worker), [], "routed before the rollout");
    host.set(7, REV, b"3");
    host.request(&mut worker, 7, cluster, 200, 5);
    assert_eq!(told(&mut worker), [(1, 3, 1)]);
    host.set(8, "xds.virtual_host_name", b"prod/other");
    host.set(8, REV, b"99");
    host.request(&mut worker, 8, cluster, 200, 5);
    assert_eq!(told(&mut worker), [(1, 3, 2)], "revs of another host are others");
}

#[test]
fn which_host_was_called_is_read_when_a_request_begins() {
    let (mut worker, host) = divided(insiders(0));
    host.set(7, "xds.cluster_name", b"prod/backend/2");
    host.headers.replace(vec![header("x-group", b"insider")]);
    worker.begin(&host, 7);
    // A second look would see this.
    host.set(7, "xds.virtual_host_name", b"prod/other");
    host.answer(&mut worker, 7, 200, 5);
    worker.tick(&host);
    assert_eq!((host.last().clusters[0].stratum, host.last().clusters[0].finished), (0, 1));
}
