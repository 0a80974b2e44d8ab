//! The Workload document.

use core::net::IpAddr;
use std::collections::BTreeMap;

use wingbeat_core::foreign::unfit_name;
use wingbeat_core::id::Revision;

use super::decoder::{Decoder, HostName};
use super::shape;
use super::yaml::Node;
use crate::desired_state::Workload;

/// Bytes of a revision's name, as of any other name in Kubernetes.
const MAX_REVISION_LEN: usize = 253;

/// Decodes `spec`. Errors are in the decoder.
pub(super) fn decode(decoder: &mut Decoder, node: &Node) -> Option<Workload> {
    let mut fields = decoder.fields(node, "spec", &shape::WORKLOAD)?;
    let revision = fields.need("revision", "name the one that is wanted", decoder);
    let revision = revision.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?)));
    let http2 = fields.take("http2").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    let mut revisions = BTreeMap::new();
    if let Some((node, path)) = fields.need("revisions", "list them with their endpoints", decoder) {
        for (name, _, node, path) in decoder.entries(node, &path) {
            // It is a part of the cluster's name, which every report repeats.
            if let Some(unfit) = unfit_name("the revision's name", name, MAX_REVISION_LEN) {
                decoder.wrong(node.at, &path, unfit);
                continue;
            }
            let Some(mut fields) = decoder.fields(node, &path, &shape::REVISION) else { continue };
            let listed = fields.need("endpoints", "list them like [\"127.0.0.1:9001\"]", decoder);
            let mend = "list them like [\"127.0.0.1:9001\"]";
            let listed = listed.map(|(node, path)| decoder.some(node, &path, mend)).unwrap_or_default();
            let endpoints = listed.into_iter().filter_map(|(node, path)| endpoint(decoder, node, &path)).collect();
            decoder.done(fields);
            revisions.insert(Revision::new(name), endpoints);
        }
    }
    decoder.done(fields);
    let (at, revision) = revision?;
    let revision = Revision::new(revision);
    if !revisions.contains_key(&revision) {
        let message = format!("{revision} is not among the revisions, add it there");
        decoder.wrong(at, "spec.revision", message);
        return None;
    }
    Some(Workload { revision, revisions, http2 })
}

/// Takes `host:port`, `1.2.3.4:80` or `[::1]:80`.
fn endpoint(decoder: &mut Decoder, node: &Node, path: &str) -> Option<(String, u16)> {
    let text = decoder.text(node, path)?;
    let port = text.rsplit_once(':').map(|(_, port)| port).filter(|port| port.bytes().all(|c| c.is_ascii_digit()));
    if let Some(port) = port.filter(|port| !port.is_empty() && !matches!(port.parse(), Ok(1..=u16::MAX))) {
        decoder.wrong(node.at, path, format!("{port} is not a port, use one from 1 to 65535"));
        return None;
    }
    let parsed: Option<(String, u16)> = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        let good = host.parse::<IpAddr>().is_ok()
            || (!host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')));
        good.then(|| (host.to_owned(), port))
    });
    if let Some((host, _)) = parsed.as_ref().filter(|(host, _)| host.parse::<IpAddr>().is_err()) {
        decoder.hosts.push(HostName { name: host.clone(), at: node.at, field: path.to_owned() });
    }
    if parsed.is_none() {
        decoder.wrong(node.at, path, format!("{text:?} is not an endpoint, write host:port, like 127.0.0.1:9001"));
    }
    parsed
}
