//! Requests that live long: streams, slow bodies, hangs.

use super::*;

const CANARY: &str = "prod/backend/2";

/// A request that began `millis` ago, with the status of its response if it has begun.
fn old(host: &FakeHost, worker: &mut Worker, stream: u32, code: Option<u64>, millis: u64) {
    host.set(stream, "xds.cluster_name", CANARY.as_bytes());
    worker.begin(host, stream);
    if let Some(code) = code {
        host.set(stream, "response.code", &code.to_le_bytes());
    }
    host.pass(millis);
    worker.tick(host);
}

fn told(host: &FakeHost, worker: &mut Worker) -> Counts {
    worker.tick(host);
    host.told(CANARY)
}

fn in_flight(counts: &Counts) -> (u64, u64, u64) {
    (counts.started, counts.overdue, counts.streams)
}

#[test]
fn event_streams_are_neither_overdue_nor_latency() {
    for (content_type, stream) in [
        ("text/event-stream", true),
        ("Text/Event-Stream; charset=utf-8", true),
        ("text/event", false),
        ("application/json", false),
    ] {
        let (host, mut worker) = started();
        old(&host, &mut worker, 2, Some(200), 300);
        assert_eq!(in_flight(&host.told(CANARY)), (1, 0, 0), "its response has begun");
        host.set(2, "response.headers.content-type", content_type.as_bytes());
        host.pass(2_700);
        host.answer(&mut worker, 2, 200, 3_000);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.finished, counts.outcome(Outcome::Success)), (1, 1));
        assert_eq!((counts.streams, counts.streams_finished), (u64::from(stream), u64::from(stream)), "{content_type}");
        assert_eq!(counts.latency.count(), u64::from(!stream), "{content_type}");
        assert_eq!((counts.overdue, counts.started), (0, 1));
    }
}

#[test]
fn an_event_stream_that_no_tick_met_is_known_by_its_length() {
    let (host, mut worker) = started();
    host.set(2, "response.headers.content-type", b"text/event-stream");
    host.request(&mut worker, 2, CANARY, 200, 300);
    // A short one is a request like any other, and costs nothing more.
    host.set(3, "response.headers.content-type", b"text/event-stream");
    host.request(&mut worker, 3, CANARY, 200, 200);
    let counts = told(&host, &mut worker);
    assert_eq!((counts.streams, counts.finished, counts.latency.count()), (1, 2, 1));
}

#[test]
fn upgraded_connections_are_streams() {
    let (host, mut worker) = started();
    old(&host, &mut worker, 2, Some(101), 300);
    assert_eq!(in_flight(&host.told(CANARY)), (1, 0, 1));
    let (known, reads) = (host.last().clusters, host.reads.get());
    host.pass(100);
    worker.tick(&host);
    assert_eq!((host.last().clusters, host.reads.get()), (known, reads), "looked at and counted once");
    // The upstream closes it.
    host.set(2, "response.flags", &0x40_u64.to_le_bytes());
    host.answer(&mut worker, 2, 101, 3_000);
    // One that ends before it was looked at.
    host.request(&mut worker, 3, CANARY, 101, 10);
    let counts = told(&host, &mut worker);
    assert_eq!((counts.streams, counts.streams_finished, counts.outcome(Outcome::Success)), (2, 2, 2));
    assert_eq!((counts.started, counts.latency.count(), counts.errors_and_hangs()), (2, 0, 0));
}

#[test]
fn a_stream_that_breaks_is_an_error() {
    let (host, mut worker) = started();
    old(&host, &mut worker, 2, Some(200), 300);
    host.set(2, "response.headers.content-type", b"text/event-stream");
    host.set(2, "response.flags", &0x80_0000_u64.to_le_bytes());
    host.answer(&mut worker, 2, 200, 3_000);
    let counts = told(&host, &mut worker);
    assert_eq!((counts.outcome(Outcome::Truncated), counts.streams, counts.latency.count()), (1, 1, 0));
}

/// A worker whose canary's cluster may carry gRPC.
fn http2() -> (FakeHost, Worker) {
    let (host, mut worker) = started();
    let mut grpc = policy(6);
    grpc.clusters[1].grpc = true;
    worker.reply(&host, &reply(0, Some(grpc), 0));
    (host, worker)
}

#[test]
fn calls_of_grpc_that_go_on_after_their_headers_are_streams() {
    let (host, mut worker) = http2();
    old(&host, &mut worker, 2, Some(200), 300);
    old(&host, &mut worker, 3, None, 300);
    assert_eq!(in_flight(&host.told(CANARY)), (2, 1, 0));
    for stream in [2, 3] {
        host.set(stream, "response.headers.content-type", b"application/grpc");
        host.set(stream, "response.grpc_status", &14_u64.to_le_bytes());
        host.answer(&mut worker, stream, 200, 3_000);
    }
    let counts = told(&host, &mut worker);
    assert_eq!((counts.streams_finished, counts.overdue_errors, counts.outcome(Outcome::ServerFault)), (1, 1, 2));
    assert_eq!(counts.latency.count(), 1, "that of the call without an answer");
}

/// Envoy derives a status of gRPC for every response: HTTP/2 alone makes none of them gRPC.
#[test]
fn over_http2_each_response_is_what_it_says() {
    let (host, mut worker) = http2();
    for (stream, code, status, content_type, outcome) in [
        (2, 200, 2, "application/json", Outcome::Success),
        (3, 200, 2, "", Outcome::Success),
        (4, 503, 14, "text/plain", Outcome::ServerFault),
        (5, 404, 12, "text/plain", Outcome::ClientFault),
        (6, 200, 0, "application/grpc", Outcome::Success),
        (7, 200, 5, "application/grpc+proto", Outcome::ClientFault),
        (8, 200, 14, "application/grpc", Outcome::ServerFault),
        (9, 200, 2, "application/grpc", Outcome::ServerFault),
        (10, 200, 2, "application/grpc-web+proto", Outcome::Success),
    ] {
        host.set(stream, "response.grpc_status", &u64::to_le_bytes(status));
        host.set(stream, "response.headers.content-type", content_type.as_bytes());
        let before = host.last().clusters.first().map(|_| host.told(CANARY)).unwrap_or_default();
        host.request(&mut worker, stream, CANARY, code, 1);
        let counts = told(&host, &mut worker);
        assert_eq!(counts.outcome(outcome), before.outcome(outcome) + 1, "{code} {status} {content_type}");
    }
    assert_eq!(host.told(CANARY).grpc_statuses, [(0, 1), (2, 1), (5, 1), (14, 1)].into());
}

#[test]
fn without_a_final_status_a_request_hangs() {
    for code in [None, Some(100), Some(103)] {
        let (host, mut worker) = started();
        old(&host, &mut worker, 2, code, 300);
        assert_eq!(in_flight(&host.told(CANARY)), (1, 1, 0), "{code:?}");
        // What it becomes after that long is no stream, whatever it is.
        host.set(2, "response.headers.content-type", b"text/event-stream");
        host.answer(&mut worker, 2, 200, 3_000);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.overdue_finished, counts.streams, counts.latency.count()), (1, 0, 1));
    }
}

fn inspect(host: &FakeHost, worker: &mut Worker, millis: u64) -> (u64, u64, u64) {
    host.pass(millis);
    worker.tick(host);
    let counts = host.last().clusters.first().map(|_| host.told(CANARY)).unwrap_or_default();
    assert_eq!(counts.started, 1);
    (counts.stalled, counts.stalled_settled, counts.overdue)
}

#[test]
fn a_response_that_stands_still_has_stalled_and_after_a_minute_hangs() {
    let (host, mut worker) = started();
    host.set(2, "response.size", &10_u64.to_le_bytes());
    old(&host, &mut worker, 2, Some(200), 300);
    let reads = host.reads.get();
    assert_eq!(inspect(&host, &mut worker, 900), (0, 0, 0));
    assert_eq!(host.reads.get() - reads, 0, "nothing to look at, nothing to tell");
    host.set(2, "response.size", &11_u64.to_le_bytes());
    assert_eq!(inspect(&host, &mut worker, 100), (0, 0, 0), "one byte came");
    // It has lasted for 1.3 s, and is looked at after as long again.
    assert_eq!(inspect(&host, &mut worker, 1_200), (0, 0, 0));
    assert_eq!(inspect(&host, &mut worker, 100), (1, 0, 0));
    assert_eq!(inspect(&host, &mut worker, 57_000), (1, 0, 0), "once");
    assert_eq!(inspect(&host, &mut worker, 3_000), (1, 1, 1));
    assert_eq!(inspect(&host, &mut worker, 600_000), (1, 1, 1), "once");
    host.answer(&mut worker, 2, 200, 700_000);
    let counts = told(&host, &mut worker);
    assert_eq!((counts.overdue_finished, counts.finished, counts.started, counts.streams), (1, 1, 1, 0));
    assert_eq!((counts.stalled, counts.stalled_settled, counts.judged_and_stalled()), (1, 1, 1));
}

#[test]
fn a_stalled_response_that_goes_on_is_what_it_turns_out_to_be() {
    for (content_type, flags, streams, judged) in [
        ("text/event-stream", 0, 1, 1),
        ("text/plain", 0, 0, 1),
        ("text/plain", 0x80_0000_u64, 0, 1),
        ("text/plain", 0x4000, 0, 0),
    ] {
        let (host, mut worker) = started();
        old(&host, &mut worker, 2, Some(200), 300);
        assert_eq!(inspect(&host, &mut worker, 1_000), (1, 0, 0));
        host.set(2, "response.size", &10_u64.to_le_bytes());
        assert_eq!(inspect(&host, &mut worker, 70_000), (1, 0, 0), "it goes on");
        host.set(2, "response.headers.content-type", content_type.as_bytes());
        host.set(2, "response.flags", &flags.to_le_bytes());
        host.answer(&mut worker, 2, 200, 80_000);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.finished, counts.streams, counts.overdue), (1, streams, 0));
        assert_eq!((counts.stalled, counts.stalled_settled, counts.judged_and_stalled()), (1, judged, 1));
    }
}

/// Long streams are looked at ever more rarely.
#[test]
fn a_stream_that_goes_on_costs_a_call_a_minute_at_last() {
    let (host, mut worker) = started();
    old(&host, &mut worker, 2, Some(200), 300);
    let looks = |worker: &mut Worker, seconds: u64| {
        let reads = host.reads.get();
        for now in 0..seconds {
            host.pass(1_000);
            host.set(2, "response.size", &(host.now.get() + now).to_le_bytes());
            worker.tick(&host);
        }
        host.reads.get() - reads
    };
    assert!(looks(&mut worker, 60) <= 7);
    looks(&mut worker, 600);
    assert!(looks(&mut worker, 600) <= 10);
    assert_eq!(told(&host, &mut worker).stalled, 0);
}

#[test]
fn a_request_elsewhere_is_looked_at_once_and_again_with_a_new_policy() {
    let (host, mut worker) = started();
    host.set(2, "xds.cluster_name", b"outbound|80||other");
    worker.begin(&host, 2);
    host.pass(300);
    worker.tick(&host);
    let reads = host.reads.get();
    host.pass(300);
    worker.tick(&host);
    assert_eq!(host.reads.get(), reads);
    let mut wider = policy(6);
    wider.clusters[1].cluster = "outbound|80||other".to_owned();
    worker.reply(&host, &reply(0, Some(wider), 0));
    worker.tick(&host);
    assert_eq!(host.told("outbound|80||other").overdue, 1);
}

#[test]
fn requests_without_room_are_looked_at_once_and_told_as_uncounted() {
    let (host, mut worker) = started();
    let cluster = |number: u64| v1::ClusterPolicy {
        cluster: format!("a/b/{number}"),
        epoch: 100 + number,
        ..v1::ClusterPolicy::default()
    };
    let mut many = policy(6);
    many.clusters.extend((0..256).map(cluster));
    worker.reply(&host, &reply(0, Some(many), 0));
    for number in 0..256 {
        host.request(&mut worker, 1_000, &format!("a/b/{number}"), 200, 1);
    }
    old(&host, &mut worker, 2, None, 300);
    old(&host, &mut worker, 3, None, 300);
    let reads = host.reads.get();
    host.pass(1_000);
    worker.tick(&host);
    assert_eq!(host.reads.get(), reads, "looked at once");
    host.answer(&mut worker, 2, 200, 1_300);
    host.answer(&mut worker, 3, 503, 1_300);
    worker.tick(&host);
    assert_eq!(host.told(CANARY), Counts { uncounted: 2, ..Counts::default() });
}

#[test]
fn a_configuration_push_forgets_no_stream() {
    let (host, mut worker) = started();
    old(&host, &mut worker, 2, Some(101), 300);
    old(&host, &mut worker, 3, Some(200), 300);
    worker.configure(&host);
    worker.reply(&host, &reply(0, Some(policy(7)), 0));
    host.set(3, "response.headers.content-type", b"text/event-stream");
    host.answer(&mut worker, 2, 101, 1_000);
    host.answer(&mut worker, 3, 200, 1_000);
    let counts = told(&host, &mut worker);
    assert_eq!((counts.started, counts.finished, counts.streams, counts.streams_finished), (2, 2, 2, 2));
    assert_eq!((counts.overdue, counts.latency.count()), (0, 0));
}

#[test]
fn a_clock_that_jumps_makes_nobody_a_stream() {
    let (host, mut worker) = started();
    old(&host, &mut worker, 2, None, 3_600_000);
    assert_eq!(in_flight(&host.told(CANARY)), (1, 1, 0));
    // Back: nothing is younger than it was.
    host.now.set(1);
    worker.begin(&host, 3);
    worker.tick(&host);
    host.answer(&mut worker, 2, 200, 1);
    assert_eq!(told(&host, &mut worker).overdue_finished, 1);
}

/// The canary's file goes and comes back: the same rollout, whose counts were dropped in between.
#[test]
fn a_rollout_that_comes_back_has_nothing_of_what_it_had_in_flight() {
    for code in [None, Some(200), Some(101)] {
        let (host, mut worker) = started();
        old(&host, &mut worker, 2, code, 300);
        let before = in_flight(&host.told(CANARY));
        let gone = v1::Policy { version: 6, ..v1::Policy::default() };
        worker.reply(&host, &reply(host.last().sequence, Some(gone), 0));
        assert!(worker.store.changes(0, 9).is_empty(), "written down and over");
        worker.reply(&host, &reply(0, Some(policy(7)), 0));
        old(&host, &mut worker, 3, code, 300);
        assert_eq!(in_flight(&host.told(CANARY)), before);
        // What ends is of a life before: the host refuses a report by which more had ended than was in flight.
        host.set(2, "response.flags", &0x40_u64.to_le_bytes());
        host.answer(&mut worker, 2, 503, 900);
        host.request(&mut worker, 4, CANARY, 200, 1);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.finished, in_flight(&counts).0), (1, 2), "{code:?}");
    }
}

#[test]
fn an_upstream_that_stalls_does_not_stop_the_worker() {
    let (host, mut worker) = started();
    for stream in 10..10_010 {
        host.set(stream, "xds.cluster_name", CANARY.as_bytes());
        worker.begin(&host, stream);
    }
    host.pass(300);
    let reports = host.sent.borrow().len();
    for tick in 1..=10 {
        let reads = host.reads.get();
        worker.tick(&host);
        let read = host.reads.get() - reads;
        assert!((1..4_100).contains(&read), "{read} in tick {tick}");
        host.pass(1);
        let period = if tick < 10 { 1 } else { period(100) };
        assert_eq!(host.ticks.borrow().last(), Some(&period), "{tick}");
    }
    assert_eq!((host.told(CANARY).overdue, host.sent.borrow().len()), (10_000, reports + 1));
}

#[test]
fn of_two_plugin_contexts_none_ticks_without_end() {
    let (host, mut worker) = started();
    let other = FakeHost::default();
    worker.configure(&host);
    worker.configure(&other);
    worker.tick(&host);
    worker.tick(&other);
    assert_eq!((host.ticks.borrow().last(), other.ticks.borrow().last()), (Some(&period(100)), Some(&period(100))));
}
