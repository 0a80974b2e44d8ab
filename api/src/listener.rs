//! The Listener document.

use core::net::IpAddr;

use wingbeat_core::time::Span;
use wingbeat_xds_server::model::traffic::{ClientAddress, Front, Http10, TrailingDot};
use wingbeat_xds_server::model::{AccessLog, Listener, LogFormat};

use super::decoder::{Decoder, Fields};
use super::duration::span;
use super::yaml::{Node, Value};
use super::{operators, shape};

/// Decodes `spec`. Errors are in the decoder.
pub(super) fn decode(decoder: &mut Decoder, node: &Node, name: &str) -> Option<Listener> {
    let mut fields = decoder.fields(node, "spec", &shape::LISTENER)?;
    let address = fields.need("address", "use an IP address, like 127.0.0.1", decoder).and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        if text.parse::<IpAddr>().is_err() {
            decoder.wrong(node.at, &path, format!("{text:?} is not an IP address, use one like 127.0.0.1"));
        }
        Some(text)
    });
    let port = fields.need("port", "use a port from 1 to 65535", decoder).and_then(|(node, path)| {
        let number = decoder.number(node, &path)?;
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            decoder.wrong(node.at, &path, format!("{number} is not a port, use one from 1 to 65535"));
        }
        port
    });
    let node_clusters = fields.take("nodes").map(|(node, path)| decoder.texts(node, &path)).unwrap_or_default();
    let access_log = fields.take("accessLog").map(|(node, path)| decode_access_log(decoder, node, &path));
    let front = decode_front(decoder, &mut fields);
    decoder.done(fields);
    let access_log = match access_log {
        Some(log) => Some(log?),
        None => None,
    };
    Some(Listener { name: name.to_owned(), address: address?, port: port?, node_clusters, access_log, front })
}

/// Takes the fields that say how clients are spoken with, by their names in Envoy.
fn decode_front(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Front {
    let mut truth = |name: &'static str| fields.take(name).and_then(|(node, path)| decoder.truth(node, &path));
    let (remote, http_10, dot) = (truth("useRemoteAddress"), truth("acceptHttp10"), truth("stripTrailingHostDot"));
    let hops =
        fields.take("xffNumTrustedHops").and_then(|(node, path)| decoder.within(node, &path, 0..=shape::MAX_HOPS));
    let trusted_hops = hops.and_then(|hops| u32::try_from(hops).ok()).unwrap_or_default();
    let idle = fields.take("streamIdleTimeout").and_then(|(node, path)| decoder.limit(node, &path)).map(span);
    Front {
        address: match remote {
            Some(true) | None => ClientAddress::Connection { trusted_hops },
            Some(false) => ClientAddress::Header { trusted_hops },
        },
        http_10: match http_10 {
            Some(true) | None => Http10::Served,
            Some(false) => Http10::Refused,
        },
        trailing_dot: match dot {
            Some(true) | None => TrailingDot::Stripped,
            Some(false) => TrailingDot::Kept,
        },
        stream_idle_timeout: idle.filter(|idle| *idle > Span::ZERO),
    }
}

fn decode_access_log(decoder: &mut Decoder, node: &Node, path: &str) -> Option<AccessLog> {
    let mut fields = decoder.fields(node, path, &shape::ACCESS_LOG)?;
    let file = fields.need("path", "name a file, like /var/log/envoy/access.log", decoder).and_then(|(node, path)| {
        let file = decoder.text(node, &path)?;
        if !file.starts_with('/') || file.ends_with('/') || file.contains('\0') {
            let message = format!("{file:?} is not the path of a file, write it from the root, like /dev/stdout");
            decoder.wrong(node.at, &path, message);
        }
        Some(file)
    });
    let format = match fields.take("format") {
        Some((node, path)) => decode_format(decoder, node, &path),
        None => LogFormat::Default,
    };
    decoder.done(fields);
    Some(AccessLog { path: file?, format })
}

/// Takes a text, or a mapping for JSON.
fn decode_format(decoder: &mut Decoder, node: &Node, path: &str) -> LogFormat {
    match &node.value {
        Value::Mapping(_) => {
            let fields = decoder.text_map(node, path);
            if fields.is_empty() {
                decoder.wrong(node.at, path, "has no fields, write them like {duration: \"%DURATION%\"}");
            }
            for (name, text) in &fields {
                let field = format!("{path}.{name}");
                check(decoder, &field, text);
            }
            LogFormat::Json(fields)
        }
        Value::Scalar { .. } | Value::Sequence(_) => {
            let text = decoder.text(node, path).unwrap_or_default();
            check(decoder, path, &text);
            LogFormat::Text(text)
        }
    }
}

fn check(decoder: &mut Decoder, field: &str, text: &str) {
    if let Some(wrong) = operators::unsupported_operator(text) {
        let at = decoder.place(field);
        decoder.wrong(at, field, wrong);
    }
}

/// Returns true if both would open the same port on some proxy.
pub(super) fn meet(a: &Listener, b: &Listener) -> bool {
    let wildcard = |address: &str| address.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let same_address = a.address == b.address || wildcard(&a.address) || wildcard(&b.address);
    // Without nodes it goes to all.
    let everywhere = a.node_clusters.is_empty() || b.node_clusters.is_empty();
    let same_nodes = everywhere || a.node_clusters.iter().any(|node| b.node_clusters.contains(node));
    same_address && same_nodes && a.port == b.port
}
