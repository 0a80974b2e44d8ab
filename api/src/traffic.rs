//! Flagger's `trafficPolicy`, of the shape that Istio gives it.

use wingbeat_core::time::Span;
use wingbeat_xds_server::model::traffic::{LocalFailures, OutlierDetection, TrafficPolicy};

use super::decoder::{Decoder, Fields};
use super::duration::span;
use super::shape;
use super::yaml::Node;

/// Limits of Envoy are 32 bits wide; the highest one is no limit.
const MAX_COUNT: i64 = u32::MAX as i64;

pub(super) fn decode(decoder: &mut Decoder, node: &Node, path: &str) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    let Some(mut fields) = decoder.fields(node, path, &shape::TRAFFIC_POLICY) else { return policy };
    if let Some((node, path)) = fields.take("connectionPool") {
        connection_pool(decoder, node, &path, &mut policy);
    }
    if let Some((node, path)) = fields.take("outlierDetection") {
        policy.outliers = outliers(decoder, node, &path);
    }
    decoder.done(fields);
    policy
}

fn connection_pool(decoder: &mut Decoder, node: &Node, path: &str, policy: &mut TrafficPolicy) {
    let Some(mut fields) = decoder.fields(node, path, &shape::CONNECTION_POOL) else { return };
    if let Some((node, path)) = fields.take("tcp")
        && let Some(mut tcp) = decoder.fields(node, &path, &shape::TCP_POOL)
    {
        policy.max_connections = limit(decoder, &mut tcp, "maxConnections");
        policy.connect_timeout = time(decoder, &mut tcp, "connectTimeout");
        decoder.done(tcp);
    }
    if let Some((node, path)) = fields.take("http")
        && let Some(mut http) = decoder.fields(node, &path, &shape::HTTP_POOL)
    {
        policy.max_pending_requests = limit(decoder, &mut http, "http1MaxPendingRequests");
        policy.max_requests = limit(decoder, &mut http, "http2MaxRequests");
        policy.max_retries = limit(decoder, &mut http, "maxRetries");
        policy.idle_timeout = time(decoder, &mut http, "idleTimeout");
        policy.max_requests_per_connection = limit(decoder, &mut http, "maxRequestsPerConnection");
        decoder.done(http);
    }
    decoder.done(fields);
}

/// Istio's defaults, where this is written at all.
fn outliers(decoder: &mut Decoder, node: &Node, path: &str) -> OutlierDetection {
    let defaults = OutlierDetection {
        consecutive_5xx: 5,
        local: LocalFailures::AsResponses,
        max_ejection_percent: 10,
        min_health_percent: Some(0),
        ..OutlierDetection::default()
    };
    let Some(mut fields) = decoder.fields(node, path, &shape::OUTLIER_DETECTION) else { return defaults };
    let apart = fields
        .take("splitExternalLocalOriginErrors")
        .and_then(|(node, path)| decoder.truth(node, &path))
        .map(|apart| if apart { LocalFailures::Apart } else { LocalFailures::AsResponses });
    let outliers = OutlierDetection {
        consecutive_5xx: count(decoder, &mut fields, "consecutive5xxErrors", MAX_COUNT)
            .unwrap_or(defaults.consecutive_5xx),
        consecutive_gateway: count(decoder, &mut fields, "consecutiveGatewayErrors", MAX_COUNT).unwrap_or_default(),
        consecutive_local: count(decoder, &mut fields, "consecutiveLocalOriginFailures", MAX_COUNT)
            .unwrap_or(defaults.consecutive_local),
        local: apart.unwrap_or(defaults.local),
        interval: time(decoder, &mut fields, "interval").unwrap_or(defaults.interval),
        base_ejection_time: time(decoder, &mut fields, "baseEjectionTime").unwrap_or(defaults.base_ejection_time),
        max_ejection_percent: count(decoder, &mut fields, "maxEjectionPercent", 100)
            .unwrap_or(defaults.max_ejection_percent),
        min_health_percent: count(decoder, &mut fields, "minHealthPercent", 100).or(defaults.min_health_percent),
    };
    decoder.done(fields);
    outliers
}

/// Reads a limit; Istio has it that zero is none.
fn limit(decoder: &mut Decoder, fields: &mut Fields<'_>, name: &'static str) -> Option<u32> {
    count(decoder, fields, name, MAX_COUNT).filter(|limit| *limit > 0)
}

fn count(decoder: &mut Decoder, fields: &mut Fields<'_>, name: &'static str, most: i64) -> Option<u32> {
    let (node, path) = fields.take(name)?;
    u32::try_from(decoder.within(node, &path, 0..=most)?).ok()
}

/// Reads a time, which Envoy wants to be more than nothing.
fn time(decoder: &mut Decoder, fields: &mut Fields<'_>, name: &'static str) -> Option<Span> {
    let (node, path) = fields.take(name)?;
    let time = span(decoder.limit(node, &path)?);
    if time == Span::ZERO {
        decoder.wrong(node.at, &path, "is no time at all, write one like 10s, or leave it out");
        return None;
    }
    Some(time)
}
