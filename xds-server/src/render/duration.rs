//! Spans as Envoy takes them.

use envoy_types::pb::google::protobuf::Duration;
use wingbeat_core::time::Span;

pub(super) fn duration(span: Span) -> Duration {
    let (secs, nanos) = (span.as_nanos() / 1_000_000_000, span.as_nanos() % 1_000_000_000);
    Duration { seconds: i64::try_from(secs).unwrap_or(i64::MAX), nanos: i32::try_from(nanos).unwrap_or_default() }
}
