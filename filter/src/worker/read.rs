//! A request that ended, as the worker reads it.

use wingbeat_core::outcome::Outcome;

use crate::counters::{CountedAs, FinishedRequest};
use crate::host::{Host, text};
use crate::outcome::{GRPC_UNKNOWN, Logged, SWITCHING_PROTOCOLS, classify, is_grpc};
use crate::worker::Worker;
use crate::worker::attributes::{AttributeSet, Timing, UploadTime};
use crate::worker::attribution::{CountedCluster, route_rev};
use crate::worker::in_flight::{body_size, stalled_ns};

/// One in so many requests of the primary tells its pod and the size of its body; every one of the canary does.
const PRIMARY_SAMPLE: u64 = 16;

impl Worker {
    /// Reads how a request of this cluster ended.
    pub(super) fn read(
        &mut self,
        host: &dyn Host,
        cluster: &str,
        reading: AttributeSet,
        timing: Timing,
        before: CountedAs,
        read_rev: bool,
    ) -> FinishedRequest {
        let code = host.status();
        let grpc = if reading.grpc { grpc_status(host, code) } else { None };
        let flags = host.number("response\0flags").unwrap_or_default();
        let outcome = classify(Logged { code, flags, grpc });
        self.logged = self.logged.wrapping_add(1);
        let sampled = reading.canary || self.logged.is_multiple_of(PRIMARY_SAMPLE);
        let upgraded = code == Some(SWITCHING_PROTOCOLS);
        let stream = match before {
            CountedAs::Stream => true,
            // It had no answer for too long, and stays what it was counted as.
            CountedAs::Overdue => false,
            CountedAs::Nothing if grpc.is_some() || reading.limit_ns.is_none_or(|limit| timing.lasted_ns < limit) => {
                upgraded
            }
            CountedAs::Nothing => upgraded || is_event_stream(host),
            // A call of gRPC that goes on after its headers is a stream.
            CountedAs::Answering { .. } | CountedAs::Stalled => upgraded || grpc.is_some() || is_event_stream(host),
        };
        let micros = timing.waited_ns() / 1_000;
        let waited = if outcome.is_judged() && !stream { reading.waited_us(host, micros, outcome) } else { 0 };
        let sized = sampled && outcome == Outcome::Success && grpc.is_none() && !upgraded;
        FinishedRequest {
            outcome: Some(outcome),
            micros: micros.saturating_sub(waited),
            before,
            stream,
            abandoned: self.is_abandoned(host, cluster, reading, (outcome, timing), before),
            stalled: !stream && self.is_left_still(host, cluster, reading, (outcome, timing), before),
            attempts: if reading.retries { host.number("upstream\0request_attempt_count") } else { None },
            grpc: grpc.map(|status| u32::try_from(status).unwrap_or(u32::MAX)),
            pod: if sampled || outcome.is_error() { text(host, "upstream\0address") } else { None },
            sampled,
            body: if sized { host.number("response\0size") } else { None },
            rev: if read_rev { route_rev(host) } else { None },
            group: None,
        }
    }
}

impl Worker {
    /// Returns true if the client gave the request up and that counts against the server: it had waited for longer than
    /// half the age at which requests are overdue (P1), not counting the time that it took to send the request (P3).
    fn is_abandoned(
        &mut self,
        host: &dyn Host,
        cluster: &str,
        reading: AttributeSet,
        (outcome, timing): (Outcome, Timing),
        before: CountedAs,
    ) -> bool {
        if before == CountedAs::Overdue {
            return !outcome.is_judged();
        }
        // Who leaves before all is sent has not waited.
        let (Outcome::DisconnectBeforeResponse, UploadTime::Complete(_)) = (outcome, timing.sent) else { return false };
        let waited = reading.limit_ns.is_none_or(|limit| timing.waited_ns() >= limit / 2);
        let now = host.monotonic_nanos();
        waited && self.has_share(host, cluster, now.saturating_sub(timing.lasted_ns), now)
    }

    /// Returns true if the client gave up a response that had stood still for half the time after which it is stalled:
    /// impatient clients end a stall before it is one, as they do with hangs (P1).
    fn is_left_still(
        &mut self,
        host: &dyn Host,
        cluster: &str,
        reading: AttributeSet,
        (outcome, timing): (Outcome, Timing),
        before: CountedAs,
    ) -> bool {
        let (Outcome::DisconnectMidResponse, CountedAs::Answering { sent, looked_ns }) = (outcome, before) else {
            return false;
        };
        let now = host.monotonic_nanos();
        let stood_ns = now.saturating_sub(looked_ns);
        let is_still = stood_ns >= stalled_ns(reading.limit_ns.unwrap_or_default()) / 2 && body_size(host) == sent;
        is_still && self.has_share(host, cluster, now.saturating_sub(timing.lasted_ns), now)
    }

    /// Returns true if another hang of this client counts here. Costs a call, and only where shares are bounded.
    pub(super) fn has_share(&mut self, host: &dyn Host, cluster: &str, started_ns: u64, now: u64) -> bool {
        let Some(CountedCluster { policy, clients, .. }) = self.clusters.get_mut(cluster) else { return true };
        let share = policy.client_share;
        // Without a bound all count. A client without an address is nobody's: all that it has count too.
        share == 0
            || text(host, "source\0address").is_none_or(|address| clients.admit(&address, share, started_ns, now))
    }
}

/// Returns the status of a response that is gRPC.
///
/// Envoy has a status for every response: UNKNOWN for each 2xx that carries none. So a call of gRPC costs one call as
/// long as its status is another one, and its content type decides otherwise. Beyond 2xx the code says what happened.
fn grpc_status(host: &dyn Host, code: Option<u64>) -> Option<u64> {
    code.filter(|code| (200..300).contains(code))?;
    let status = host.number("response\0grpc_status")?;
    (status != GRPC_UNKNOWN || is_grpc(&content_type(host))).then_some(status)
}

fn content_type(host: &dyn Host) -> Vec<u8> {
    host.property("response\0headers\0content-type").unwrap_or_default()
}

/// Returns true if the response is one of server-sent events: its length is the client's choice.
fn is_event_stream(host: &dyn Host) -> bool {
    let name = b"text/event-stream";
    content_type(host).get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}
