//! What is read of a request when it ends. Each property costs Envoy 1 to 4 µs: of ordinary requests only three are read,
//! and the time that they took is measured by the filter's own clock.

use wingbeat_core::outcome::Outcome;
use wingbeat_proto::v1;

use crate::host::Host;
use crate::worker::in_flight::{InFlight, Upload, limit_ns};

/// What to read of a request, by its cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttributeSet {
    pub(super) canary: bool,
    pub(super) grpc: bool,
    pub(super) retries: bool,
    /// Requests longer than this may have waited for a connection.
    slow_us: Option<u64>,
    /// Requests longer than this may be streams.
    pub(super) limit_ns: Option<u64>,
}

/// What policies may want to know of a request when it ends.
const PROPERTIES: [&str; 9] = [
    "response\0code",
    "response\0flags",
    "response\0grpc_status",
    "response\0headers\0content-type",
    "response\0size",
    "upstream\0address",
    "upstream\0request_attempt_count",
    "upstream\0cx_pool_ready_duration",
    "source\0address",
];
/// Bytes of each that are kept. Only the beginnings of content types matter, and all else is shorter.
const MAX_PROPERTY: usize = 64;

/// What Envoy said of a request that ended before a policy told how to read it: it stands in for Envoy when one does.
#[derive(Debug)]
pub(super) struct EndedAttributes {
    properties: Vec<(&'static str, Vec<u8>)>,
    at_ns: u64,
}

impl EndedAttributes {
    pub(super) fn of(host: &dyn Host) -> Self {
        let read = |path| {
            let mut value = host.property(path)?;
            value.truncate(MAX_PROPERTY);
            Some((path, value))
        };
        Self { properties: PROPERTIES.into_iter().filter_map(read).collect(), at_ns: host.monotonic_nanos() }
    }
}

impl Host for EndedAttributes {
    fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.properties.iter().find(|(known, _)| *known == path).map(|(_, value)| value.clone())
    }

    fn request_headers(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    fn set_request_header(&self, _name: &str, _value: Option<&[u8]>) {}

    fn enter(&self, _stream: u32) -> bool {
        false
    }

    fn monotonic_nanos(&self) -> u64 {
        self.at_ns
    }

    fn set_tick(&self, _millis: u64) {}

    fn send(&self, _report: &[u8]) -> bool {
        false
    }
}

/// How far the client had come with sending a request when it ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum UploadTime {
    /// Nothing of it was missing. How long it took to come.
    Complete(u64),
    /// Its body was still coming. How long it had come, as far as is known.
    Partly(u64),
}

/// How long a request took that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// From its headers to the end of its response, in nanoseconds.
    pub(super) lasted_ns: u64,
    pub(super) sent: UploadTime,
}

impl Timing {
    /// Returns what the filter's own clock says of a request that ends now: a call that costs a tenth of a property.
    /// Filters before this one are not part of it.
    pub(super) fn of(request: &InFlight, host: &dyn Host) -> Self {
        let sent = match request.upload {
            Upload::Complete { .. } => UploadTime::Complete(request.sending_ns()),
            Upload::Coming { .. } => UploadTime::Partly(request.sending_ns()),
        };
        Self { lasted_ns: host.monotonic_nanos().saturating_sub(request.started_ns), sent }
    }

    /// Returns what Envoy says of one that was not followed.
    pub(super) fn logged(host: &dyn Host) -> Self {
        Self { lasted_ns: host.number("request\0duration").unwrap_or_default(), sent: UploadTime::Complete(0) }
    }

    /// Returns how long the upstream had it, of all the time that it took.
    pub(super) const fn waited_ns(self) -> u64 {
        match self.sent {
            UploadTime::Complete(sending_ns) | UploadTime::Partly(sending_ns) => {
                self.lasted_ns.saturating_sub(sending_ns)
            }
        }
    }
}

impl AttributeSet {
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

impl AttributeSet {
    /// Returns how long a slow request waited for a connection, in microseconds: the first ones of an arm pay for
    /// connecting, which is not the arm's fault (P6). It is 20 µs where one was open, and absent where none came about.
    pub(super) fn waited_us(self, host: &dyn Host, micros: u64, outcome: Outcome) -> u64 {
        match self.slow_us {
            Some(slow_us) if outcome.is_error() || micros > slow_us => {
                host.number("upstream\0cx_pool_ready_duration").unwrap_or_default() / 1_000
            }
            Some(_) | None => 0,
        }
    }
}
