//! What is read of a request that ends, and what it costs.

use wingbeat_core::histogram::{Histogram, bin_of};

use super::*;

const PRIMARY: &str = "prod/backend/1";
const CANARY: &str = "prod/backend/2";

/// A worker whose policy asks for the time that slow requests waited.
fn waiting(slow_us: u32) -> (FakeHost, Worker) {
    let (host, mut worker) = started();
    let mut policy = policy(6);
    for cluster in &mut policy.clusters {
        cluster.slow_us = slow_us;
    }
    worker.reply(&host, &reply(0, Some(policy), 0));
    // The rev of a tick's first request of each cluster is read.
    host.request(&mut worker, 1, PRIMARY, 200, 1);
    (host, worker)
}

/// Calls that one request costs from its beginning to its end.
fn cost(host: &FakeHost, worker: &mut Worker, stream: u32, cluster: &str, code: u64, millis: u64) -> usize {
    let before = host.calls.get();
    host.request(worker, stream, cluster, code, millis);
    host.calls.get() - before
}

#[test]
fn an_ordinary_request_costs_three_calls_and_a_sampled_one_five() {
    let (host, mut worker) = waiting(5_000);
    // The first was the one before.
    for stream in 2..=50 {
        let sampled = stream % 16 == 0;
        let expected = if sampled { 5 } else { 3 };
        assert_eq!(cost(&host, &mut worker, stream, PRIMARY, 200, 3), expected, "primary {stream}");
    }
    assert_eq!(cost(&host, &mut worker, 59, CANARY, 200, 3), 6, "the rev of a tick's first request of each cluster");
    assert_eq!(cost(&host, &mut worker, 60, CANARY, 200, 3), 5, "canary: address and size");
    assert_eq!(cost(&host, &mut worker, 61, CANARY, 200, 9), 6, "canary, slow: the wait for a connection too");
    assert_eq!(cost(&host, &mut worker, 62, PRIMARY, 200, 9), 4, "primary, slow");
    assert_eq!(cost(&host, &mut worker, 63, PRIMARY, 503, 3), 5, "an error: address and wait");
    assert_eq!(cost(&host, &mut worker, 65, CANARY, 503, 3), 6, "an error of the canary: the next tick is moved");
}

#[test]
fn without_a_threshold_no_wait_is_read() {
    let (host, mut worker) = waiting(0);
    assert_eq!(cost(&host, &mut worker, 2, PRIMARY, 200, 200), 3);
    assert_eq!(cost(&host, &mut worker, 3, PRIMARY, 503, 200), 4, "an error: the address");
}

#[test]
fn bodies_are_sized_with_the_pod_and_only_of_successes() {
    let (host, mut worker) = started();
    for (stream, cluster, code, size) in [
        (2, CANARY, 200, Some(0)),
        (3, CANARY, 200, Some(9)),
        (4, CANARY, 204, Some(0)),
        (5, CANARY, 404, Some(0)),
        (6, CANARY, 503, Some(0)),
        (7, CANARY, 101, Some(0)),
        (8, CANARY, 200, None),
    ] {
        if let Some(size) = size {
            host.set(stream, "response.size", &u64::to_le_bytes(size));
        }
        host.request(&mut worker, stream, cluster, code, 1);
    }
    for stream in 10..42 {
        host.set(stream, "response.size", &0_u64.to_le_bytes());
        host.request(&mut worker, stream, PRIMARY, 200, 1);
    }
    worker.tick(&host);
    let (primary, canary) = (host.told(PRIMARY), host.told(CANARY));
    assert_eq!((canary.sized, canary.empty), (3, 2));
    assert_eq!((primary.sized, primary.empty, primary.finished), (2, 2, 32), "one in 16");
}

/// A call of gRPC costs one call more than another request; a plain response over HTTP/2 two.
#[test]
fn only_where_there_may_be_grpc_anything_is_read_of_it() {
    let (host, mut worker) = waiting(5_000);
    let mut grpc = policy(7);
    grpc.clusters[0].grpc = true;
    worker.reply(&host, &reply(0, Some(grpc), 0));
    for (stream, status, calls) in [(2, 0, 4), (3, 14, 5), (4, 2, 5)] {
        host.set(stream, "response.grpc_status", &u64::to_le_bytes(status));
        assert_eq!(cost(&host, &mut worker, stream, PRIMARY, 200, 3), calls, "{status}");
    }
    assert_eq!(cost(&host, &mut worker, 5, PRIMARY, 404, 3), 3, "its code says what happened");
}

#[test]
fn grpc_has_no_bodies_to_size() {
    let (host, mut worker) = started();
    let mut grpc = policy(6);
    grpc.clusters[1].grpc = true;
    worker.reply(&host, &reply(0, Some(grpc), 0));
    host.set(2, "response.size", &0_u64.to_le_bytes());
    host.set(2, "response.grpc_status", &0_u64.to_le_bytes());
    host.request(&mut worker, 2, CANARY, 200, 1);
    worker.tick(&host);
    assert_eq!((host.told(CANARY).finished, host.told(CANARY).sized), (1, 0));
}

#[test]
fn all_errors_of_a_pod_are_its_own_and_its_requests_a_sample() {
    let (host, mut worker) = started();
    for stream in 1..=64 {
        let (address, code) = if stream % 8 == 1 { ("10.0.0.2:80", 503) } else { ("10.0.0.1:80", 200) };
        host.set(stream, "upstream.address", address.as_bytes());
        host.request(&mut worker, stream, PRIMARY, code, 1);
    }
    // One without a connection has no address.
    host.set(70, "response.flags", &0x20_u64.to_le_bytes());
    host.request(&mut worker, 70, PRIMARY, 503, 1);
    worker.tick(&host);
    let pods = host.told(PRIMARY).pods;
    let pod = |address: &str| (pods[address].finished, pods[address].errors);
    assert_eq!(pods.len(), 2);
    assert_eq!(pod("10.0.0.1:80"), (4, 0), "64 requests, one in 16 sampled");
    assert_eq!(pod("10.0.0.2:80"), (0, 8), "every error, though none of them is in the sample");
}

#[test]
fn waiting_for_a_connection_is_no_latency() {
    let (host, mut worker) = waiting(5_000);
    let ready = |stream: u32, micros: u64| {
        host.set(stream, "upstream.cx_pool_ready_duration", &(micros * 1_000).to_le_bytes());
    };
    ready(2, 290_000);
    host.request(&mut worker, 2, CANARY, 200, 300);
    ready(3, 4_000);
    host.request(&mut worker, 3, CANARY, 200, 5);
    ready(4, 20);
    host.request(&mut worker, 4, CANARY, 503, 2);
    // Longer than the request: clocks are read at different moments.
    ready(5, 9_000);
    host.request(&mut worker, 5, CANARY, 200, 8);
    worker.tick(&host);
    let canary = host.told(CANARY);
    let latencies: Histogram = [10_000, 5_000, 1_980, 0].into_iter().map(|micros| (bin_of(micros), 1)).collect();
    assert_eq!(canary.latency, latencies, "at the threshold it is not read");
    assert_eq!(canary.latency_sum_us, 16_980);
}

#[test]
fn what_was_answered_before_it_began_is_not_counted() {
    let (mut worker, host) = (Worker::new(1, 2), FakeHost::default());
    host.set(7, "xds.cluster_name", b"prod/backend/2");
    worker.reply(&host, &reply(0, Some(policy(5)), 100));
    host.answer(&mut worker, 7, 200, 0);
    host.request(&mut worker, 8, "prod/backend/2", 200, 1);
    worker.tick(&host);
    let finished: Vec<u64> = host.last().clusters.iter().map(|cluster| cluster.finished).collect();
    assert_eq!(finished, [1]);
}

#[test]
fn of_one_that_was_not_followed_envoy_says_how_long_it_took() {
    let (host, mut worker) = waiting(0);
    for stream in 0..u32::try_from(MAX_IN_FLIGHT).unwrap() {
        worker.begin(&host, 100 + stream);
    }
    host.set(7, "xds.cluster_name", CANARY.as_bytes());
    host.set(7, REV, b"3");
    host.current.set(7);
    worker.begin(&host, 7);
    host.pass(5);
    host.answer(&mut worker, 7, 200, 40);
    worker.tick(&host);
    let canary = host.told(CANARY);
    assert_eq!((canary.finished, canary.latency), (1, Histogram::from_iter([(bin_of(40_000), 1)])));
}
