//! Documents of canaries.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Returns the listener of all.
pub(crate) fn listener(entry: SocketAddr) -> String {
    let (address, port) = (entry.ip(), entry.port());
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: public}}\n\
         spec: {{address: {address}, port: {port}}}\n"
    )
}

/// Returns a workload that wants this revision, and its canary.
pub(crate) fn canary(name: &str, revision: &str, revisions: &[(&str, SocketAddr)], analysis: &str) -> String {
    let mut endpoints = String::new();
    for (revision, address) in revisions {
        let _infallible = write!(endpoints, "\"{revision}\": {{endpoints: [\"{address}\"]}}, ");
    }
    format!(
        "---\napiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec: {{revision: \"{revision}\", revisions: {{{endpoints}}}}}\n\
         ---\napiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: {name}}}\n  \
         service: {{port: 80, hosts: [{name}.local], listeners: [public]}}\n  analysis: {{{analysis}}}\n"
    )
}

/// Returns a gate, as a webhook of this kind, that somebody else opens or leaves shut.
pub(crate) fn gate(kind: &str, address: SocketAddr) -> String {
    format!("webhooks: [{{name: sign-off, type: {kind}, url: \"http://{address}/\"}}]")
}
