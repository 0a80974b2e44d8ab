//! `service.retries`, of the shape that Istio gives them.

use wingbeat_xds_server::model::Retries;

use super::decoder::{Decoder, nearest};
use super::duration::span;
use super::shape;
use super::yaml::{Node, Position};

/// What Istio retries on where nothing is written.
const DEFAULT_CONDITIONS: &str = "connect-failure,refused-stream,unavailable,cancelled,503";
/// Envoy's conditions, for HTTP and gRPC. It takes others in silence and never retries on them.
const CONDITIONS: [&str; 16] = [
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

pub(super) fn decode(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Retries> {
    let mut fields = decoder.fields(node, path, &shape::RETRIES)?;
    let attempts = fields.need("attempts", "say how often", decoder);
    let attempts = attempts.and_then(|(node, path)| u32::try_from(decoder.within(node, &path, 0..=100)?).ok());
    let per_try_timeout = fields.take("perTryTimeout").and_then(|(node, path)| decoder.limit(node, &path)).map(span);
    let retry_on = fields.take("retryOn").and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        check(decoder, node.at, &path, &text);
        Some(text)
    });
    decoder.done(fields);
    let retry_on = retry_on.unwrap_or_else(|| DEFAULT_CONDITIONS.to_owned());
    Some(Retries { attempts: attempts?, per_try_timeout, retry_on })
}

fn check(decoder: &mut Decoder, at: Position, path: &str, text: &str) {
    // Envoy refuses the whole table for a line end in here.
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b',' | b' ');
    if !text.bytes().all(known) {
        decoder.wrong(at, path, format!("{text:?} is no list of conditions, write one like 5xx,reset"));
        return;
    }
    for condition in text.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        // Istio takes status codes among them.
        let is_status = condition.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
        if is_status || CONDITIONS.contains(&condition) {
            continue;
        }
        let hint = match nearest(condition, CONDITIONS) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("use some of {}, or status codes", CONDITIONS.join(", ")),
        };
        decoder.wrong(at, path, format!("has {condition}, on which Envoy never retries, {hint}"));
    }
}
