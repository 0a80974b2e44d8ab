//! What clients cause by themselves: requests that they give up, and bodies that they send slowly.

use super::*;

const CANARY: &str = "prod/backend/2";
const DISCONNECTED: u64 = 0x4000;

/// Gives up a request of this connection after so long.
fn give_up(host: &FakeHost, worker: &mut Worker, stream: u32, address: &str, millis: u64) {
    give_up_at(CANARY, host, worker, stream, address, millis);
}

fn give_up_at(cluster: &str, host: &FakeHost, worker: &mut Worker, stream: u32, address: &str, millis: u64) {
    host.set(stream, "xds.cluster_name", cluster.as_bytes());
    host.set(stream, "source.address", address.as_bytes());
    worker.begin(host, stream);
    host.pass(millis);
    leave(host, worker, stream, millis);
}

fn leave(host: &FakeHost, worker: &mut Worker, stream: u32, millis: u64) {
    host.set(stream, "response.flags", &DISCONNECTED.to_le_bytes());
    host.set(stream, "request.duration", &(millis * MS).to_le_bytes());
    host.current.set(stream);
    worker.end(host, stream);
}

fn told(host: &FakeHost, worker: &mut Worker) -> Counts {
    worker.tick(host);
    host.told(CANARY)
}

/// A canary that a rule chooses for its users: shares are bounded.
fn bounded(version: u64) -> v1::Policy {
    let mut policy = policy(version);
    policy.clusters[1].client_share = 4;
    policy
}

fn chosen() -> (FakeHost, Worker) {
    let (host, mut worker) = started();
    worker.reply(&host, &reply(0, Some(bounded(6)), 0));
    (host, worker)
}

#[test]
fn who_leaves_before_an_answer_is_due_says_nothing() {
    let (host, mut worker) = started();
    for (stream, millis, abandoned) in [(2, 1, 0), (3, 124, 0), (4, 125, 1), (5, 240, 2)] {
        give_up(&host, &mut worker, stream, "10.0.0.1:1", millis);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.abandoned, counts.errors_and_hangs()), (abandoned, abandoned), "{millis}");
        assert_eq!(counts.judged_and_hangs(), abandoned);
    }
    assert_eq!(host.told(CANARY).outcome(Outcome::DisconnectBeforeResponse), 4);
}

#[test]
fn an_overdue_request_is_one_hang_however_the_client_leaves() {
    for code in [None, Some(200_u64)] {
        let (host, mut worker) = started();
        host.set(2, "xds.cluster_name", CANARY.as_bytes());
        worker.begin(&host, 2);
        host.pass(300);
        worker.tick(&host);
        assert_eq!(host.told(CANARY).overdue, 1);
        if let Some(code) = code {
            host.set(2, "response.code", &code.to_le_bytes());
        }
        leave(&host, &mut worker, 2, 300);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.abandoned, counts.overdue_errors), (1, 1));
        assert_eq!((counts.errors_and_hangs(), counts.judged_and_hangs()), (1, 1), "{code:?}");
    }
}

#[test]
fn one_client_that_gives_up_everything_has_its_share() {
    let (host, mut worker) = chosen();
    for stream in 10..210 {
        give_up(&host, &mut worker, stream, &format!("10.0.0.1:{stream}"), 130);
    }
    let counts = told(&host, &mut worker);
    assert_eq!(counts.abandoned, 4);
    assert_eq!(counts.outcome(Outcome::DisconnectBeforeResponse), 200);
    // Another one has his own.
    give_up(&host, &mut worker, 300, "10.0.0.2:1", 130);
    assert_eq!(told(&host, &mut worker).abandoned, counts.abandoned + 1);
}

/// A canary that hangs for the few who match is tried again and hangs still: what they said of the attempt before does
/// not silence them.
#[test]
fn clients_have_a_share_in_each_attempt() {
    let (host, mut worker) = chosen();
    let hangs = |worker: &mut Worker, first: u32| {
        (first..first + 10).for_each(|stream| give_up(&host, worker, stream, "10.0.0.1:77", 130));
        told(&host, worker).abandoned
    };
    assert_eq!(hangs(&mut worker, 10), 4);
    worker.reply(&host, &reply(0, Some(bounded(7)), 0));
    assert_eq!(hangs(&mut worker, 20), 4, "another policy for the same rollout gives no further share");
    let mut retry = bounded(8);
    retry.clusters.iter_mut().for_each(|cluster| cluster.epoch = EPOCH + 1);
    // What was counted before is written down, and told no more.
    worker.reply(&host, &reply(host.last().sequence, Some(retry), 0));
    assert_eq!(hangs(&mut worker, 30), 4, "of this attempt alone");
}

/// Neither do hangs at another canary take a client's share here, nor do the many clients there take its place.
#[test]
fn clients_have_a_share_of_each_canary() {
    let (host, mut worker) = started();
    let mut both = bounded(6);
    let neighbour = v1::ClusterPolicy {
        cluster: "prod/other/2".to_owned(),
        canary: "prod/other".to_owned(),
        epoch: EPOCH + 1,
        ..both.clusters[1].clone()
    };
    both.clusters.push(neighbour);
    worker.reply(&host, &reply(0, Some(both), 0));
    for stream in 10..510 {
        let address = format!("10.0.0.{}:{stream}", stream % 100);
        give_up_at("prod/other/2", &host, &mut worker, stream, &address, 130);
    }
    for (stream, client) in (600..620).zip([50, 7].into_iter().cycle()) {
        give_up(&host, &mut worker, stream, &format!("10.0.0.{client}:77"), 130);
    }
    assert_eq!(told(&host, &mut worker).abandoned, 8, "two clients, ten hangs each");
}

/// `curl -f` leaves at the status, and so does a proxy that retries: the rest of the answer would make it no better.
#[test]
fn who_leaves_at_a_5xx_was_failed_once() {
    // When its headers came, and for how often the client looked for more.
    for (headers, looks, overdue, stalled) in [(1, 0, 0, 0), (1, 1, 0, 0), (300, 1, 1, 0), (1, 6, 0, 1)] {
        let (host, mut worker) = started();
        host.set(2, "xds.cluster_name", CANARY.as_bytes());
        worker.begin(&host, 2);
        host.pass(headers);
        worker.tick(&host);
        host.set(2, "response.code", &503_u64.to_le_bytes());
        for _ in 0..looks {
            host.pass(250);
            worker.tick(&host);
        }
        leave(&host, &mut worker, 2, headers + 250 * looks);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.overdue, counts.stalled), (overdue, stalled), "{headers} {looks}");
        assert_eq!((counts.finished, counts.outcome(Outcome::ServerFault)), (1, 1));
        assert_eq!((counts.errors_and_hangs(), counts.judged_and_hangs(), counts.judged_and_stalled()), (1, 1, 1));
    }
}

#[test]
fn one_client_whose_requests_hang_has_its_share_and_many_count() {
    for (address, overdue) in [("10.0.0.1:77", 4), ("10.0.0.1", 100)] {
        let (host, mut worker) = chosen();
        for stream in 100..204 {
            host.set(stream, "xds.cluster_name", CANARY.as_bytes());
            let address = if overdue == 4 { address.to_owned() } else { format!("{address}:{stream}") };
            host.set(stream, "source.address", address.as_bytes());
            worker.begin(&host, stream);
            host.pass(1);
        }
        host.pass(300);
        worker.tick(&host);
        let counts = host.told(CANARY);
        assert!(counts.overdue >= overdue && (overdue > 4 || counts.overdue == 4), "{}", counts.overdue);
        // What did not count is finished like any other.
        for stream in 100..204 {
            host.answer(&mut worker, stream, 200, 500);
        }
        let counts = told(&host, &mut worker);
        assert_eq!((counts.finished, counts.outcome(Outcome::Success), counts.started), (104, 104, 104));
    }
}

/// A request with a body, of which nothing has come yet.
fn upload(host: &FakeHost, worker: &mut Worker, stream: u32) {
    host.set(stream, "xds.cluster_name", CANARY.as_bytes());
    host.current.set(stream);
    worker.begin(host, stream);
    worker.expect_body(stream);
}

fn receive(host: &FakeHost, worker: &mut Worker, stream: u32, received: u64, millis: u64) -> u64 {
    host.set(stream, "request.size", &received.to_le_bytes());
    overdue(host, worker, millis)
}

fn overdue(host: &FakeHost, worker: &mut Worker, millis: u64) -> u64 {
    host.pass(millis);
    worker.tick(host);
    host.last().clusters.first().map_or(0, |_| host.told(CANARY).overdue)
}

#[test]
fn a_slow_upload_is_not_overdue_until_the_upstream_has_it() {
    let (host, mut worker) = started();
    upload(&host, &mut worker, 2);
    for sent in 1..40 {
        // Packets of a client far away come one round trip apart.
        let pause = if sent % 2 == 0 { 250 } else { 700 };
        assert_eq!(receive(&host, &mut worker, 2, sent, pause), 0);
    }
    worker.complete(&host, 2);
    assert_eq!(overdue(&host, &mut worker, 249), 0);
    assert_eq!(overdue(&host, &mut worker, 1), 1, "the upstream has had it all for as long as is allowed");
}

#[test]
fn the_time_that_an_upload_took_is_no_latency_and_no_other_time_is_left_out() {
    for (uploading, waiting) in [(1, 400), (2_000, 100), (100, 20), (240, 240)] {
        let (host, mut worker) = started();
        upload(&host, &mut worker, 2);
        host.pass(uploading);
        worker.complete(&host, 2);
        host.pass(waiting);
        // An answer that has begun is not overdue.
        host.set(2, "response.code", &200_u64.to_le_bytes());
        worker.tick(&host);
        host.answer(&mut worker, 2, 200, uploading + waiting);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.overdue, counts.latency_sum_us), (0, waiting * 1_000), "{uploading}");
    }
}

#[test]
fn a_request_with_a_body_that_has_come_hangs_like_any_other() {
    let (host, mut worker) = started();
    upload(&host, &mut worker, 2);
    worker.complete(&host, 2);
    assert_eq!(receive(&host, &mut worker, 2, 20, 249), 0);
    assert_eq!(overdue(&host, &mut worker, 1), 1);
    leave(&host, &mut worker, 2, 375);
    assert_eq!(told(&host, &mut worker).errors_and_hangs(), 1);
}

/// As calls of gRPC do whose deadline comes before a tick.
#[test]
fn who_gives_up_after_sending_a_body_has_waited_since_then() {
    for (uploading, waiting, abandoned) in [(0, 375, 1), (0, 124, 0), (400, 124, 0), (400, 125, 1)] {
        let (host, mut worker) = started();
        upload(&host, &mut worker, 2);
        host.pass(uploading);
        worker.complete(&host, 2);
        host.pass(waiting);
        leave(&host, &mut worker, 2, uploading + waiting);
        assert_eq!(told(&host, &mut worker).abandoned, abandoned, "{uploading} {waiting}");
    }
    // One that never sent all of it waited for nothing.
    let (host, mut worker) = started();
    upload(&host, &mut worker, 2);
    host.pass(700);
    leave(&host, &mut worker, 2, 700);
    assert_eq!(told(&host, &mut worker).abandoned, 0);
}

#[test]
fn a_body_costs_no_call() {
    let (host, mut worker) = started();
    upload(&host, &mut worker, 2);
    let calls = host.calls.get();
    worker.complete(&host, 2);
    upload(&host, &mut worker, 3);
    assert_eq!(host.calls.get(), calls);
}

/// Where a rule chooses who gets the canary, slow uploads of one client would count against it.
#[test]
fn a_client_that_pauses_is_not_the_canarys_fault() {
    let (mut worker, host) = divided(insiders(0));
    upload(&host, &mut worker, 7);
    for (received, millis) in [(10, 2_000), (20, 4_000), (30, 4_000), (999, 4_000)] {
        assert_eq!(receive(&host, &mut worker, 7, received, millis), 0);
    }
    worker.complete(&host, 7);
    assert_eq!(receive(&host, &mut worker, 7, 1_000, 250), 1);

    host.set(8, "xds.virtual_host_name", b"prod/a");
    upload(&host, &mut worker, 8);
    host.current.set(8);
    assert_eq!(receive(&host, &mut worker, 8, 10, 250), 1);
    assert_eq!(receive(&host, &mut worker, 8, 10, 9_900), 1);
    assert_eq!(receive(&host, &mut worker, 8, 10, 250), 2, "the upstream takes no more of it");
}

/// Between arms that chance divides, clients pause alike.
#[test]
fn a_body_that_stands_still_is_overdue() {
    let (host, mut worker) = started();
    upload(&host, &mut worker, 2);
    assert_eq!(receive(&host, &mut worker, 2, 10, 250), 0);
    assert_eq!(overdue(&host, &mut worker, 900), 0);
    assert_eq!(overdue(&host, &mut worker, 250), 1);
}

/// Impatient clients leave a response that stands still before it has stood for long enough to be called stalled. What moved
/// in the meantime, and streams of events, say nothing.
#[test]
fn who_leaves_a_response_that_stands_still_has_seen_it_stall() {
    let event_stream = b"text/event-stream".as_slice();
    let json = b"application/json".as_slice();
    for (millis, sent, content_type, stalled) in
        [(600, 100, json, 0), (800, 100, json, 1), (800, 200, json, 0), (800, 100, event_stream, 0)]
    {
        let (host, mut worker) = started();
        host.set(2, "xds.cluster_name", CANARY.as_bytes());
        host.set(2, "response.headers.content-type", content_type);
        worker.begin(&host, 2);
        host.set(2, "response.code", &200_u64.to_le_bytes());
        host.set(2, "response.size", &100_u64.to_le_bytes());
        host.pass(250);
        worker.tick(&host);
        host.pass(millis - 250);
        host.set(2, "response.size", &u64::to_le_bytes(sent));
        leave(&host, &mut worker, 2, millis);
        let counts = told(&host, &mut worker);
        assert_eq!((counts.stalled, counts.stalled_settled), (stalled, 0), "{millis} {sent}");
        assert_eq!((counts.finished, counts.outcome(Outcome::DisconnectMidResponse)), (1, 1));
        assert_eq!((counts.judged_and_hangs(), counts.judged_and_stalled()), (0, stalled));
    }
}

/// Whoever reads nothing can have every response stand still: that counts only so often.
#[test]
fn one_client_that_leaves_every_response_has_its_share() {
    let (host, mut worker) = chosen();
    for stream in 100..140 {
        host.set(stream, "xds.cluster_name", CANARY.as_bytes());
        host.set(stream, "source.address", b"10.0.0.1:77");
        host.set(stream, "response.code", &200_u64.to_le_bytes());
        worker.begin(&host, stream);
    }
    host.pass(250);
    worker.tick(&host);
    host.pass(700);
    (100..140).for_each(|stream| leave(&host, &mut worker, stream, 950));
    let counts = told(&host, &mut worker);
    assert_eq!((counts.stalled, counts.outcome(Outcome::DisconnectMidResponse)), (4, 40));
}
