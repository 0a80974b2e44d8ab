//! What is read of a request when it ends. Each property costs Envoy 3 to 4 µs: of ordinary requests only four are read.

use wingbeat_core::outcome::Outcome;
use wingbeat_proto::v1;

use crate::host::{Host, number, text};
use crate::outcome::{Logged, SWITCHING_PROTOCOLS, classify};
use crate::store::{Before, Finished};
use crate::worker::Worker;
use crate::worker::attribution::route_rev;
use crate::worker::flight::limit_ns;

/// One in so many requests of the primary tells its pod and the size of its body; every one of the canary does.
const PRIMARY_SAMPLE: u64 = 16;

/// What to read of a request, by its cluster.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) canary: bool,
    grpc: bool,
    retries: bool,
    /// Requests longer than this may have waited for a connection.
    slow_us: Option<u64>,
    /// Requests longer than this may be streams.
    limit_ns: Option<u64>,
}

impl Reading {
    pub(super) fn of(policy: &v1::ClusterPolicy) -> Self {
        Self {
            canary: policy.arm == 1,
            grpc: policy.grpc,
            retries: policy.retries,
            slow_us: (policy.slow_us > 0).then_some(u64::from(policy.slow_us)),
            limit_ns: limit_ns(policy),
        }
    }
}

impl Worker {
    /// Reads how a request ended.
    pub(super) fn read(&mut self, host: &dyn Host, reading: Reading, before: Before, read_rev: bool) -> Finished {
        let grpc = if reading.grpc { number(host, "response\0grpc_status") } else { None };
        let code = number(host, "response\0code");
        let flags = number(host, "response\0flags").unwrap_or_default();
        let outcome = classify(Logged { code, flags, grpc });
        let nanos = number(host, "request\0duration").unwrap_or_default();
        self.logged = self.logged.wrapping_add(1);
        let sampled = reading.canary || self.logged.is_multiple_of(PRIMARY_SAMPLE);
        let upgraded = code == Some(SWITCHING_PROTOCOLS);
        let stream = match before {
            Before::Stream => true,
            // It had no answer for too long, and stays what it was counted as.
            Before::Overdue => false,
            Before::Nothing if reading.grpc || reading.limit_ns.is_none_or(|limit| nanos < limit) => upgraded,
            Before::Nothing | Before::Answering => upgraded || is_event_stream(host),
        };
        let micros = nanos / 1_000;
        let waited = if outcome.is_judged() && !stream { reading.waited_us(host, micros, outcome) } else { 0 };
        let sized = sampled && outcome == Outcome::Success && !reading.grpc && !upgraded;
        Finished {
            outcome: Some(outcome),
            micros: micros.saturating_sub(waited),
            before,
            stream,
            attempts: if reading.retries { number(host, "upstream\0request_attempt_count") } else { None },
            grpc: grpc.map(|status| u32::try_from(status).unwrap_or(u32::MAX)),
            pod: if sampled || outcome.is_error() { text(host, "upstream\0address") } else { None },
            sampled,
            body: if sized { number(host, "response\0size") } else { None },
            rev: if read_rev { route_rev(host) } else { None },
            group: None,
        }
    }
}

impl Reading {
    /// Returns how long a slow request waited for a connection, in microseconds: the first ones of an arm pay for
    /// connecting, which is not the arm's fault (P6). It is 20 µs where one was open, and absent where none came about.
    fn waited_us(self, host: &dyn Host, micros: u64, outcome: Outcome) -> u64 {
        match self.slow_us {
            Some(slow_us) if outcome.is_error() || micros > slow_us => {
                number(host, "upstream\0cx_pool_ready_duration").unwrap_or_default() / 1_000
            }
            Some(_) | None => 0,
        }
    }
}

/// Returns true if the response is one of server-sent events: its length is the client's choice.
fn is_event_stream(host: &dyn Host) -> bool {
    let name = b"text/event-stream";
    let content_type = host.property("response\0headers\0content-type").unwrap_or_default();
    content_type.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}
