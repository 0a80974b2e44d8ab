//! Writes, as the API server notes them.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use wingbeat_e2e::gateway::{Gateway, OURS};

/// What was written is in the log by then.
const NOTED: Duration = Duration::from_secs(10);

/// A write that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// When the API server received it.
    pub(crate) at: Option<Timestamp>,
    /// Verb and object, as `patch deployments/backend`.
    pub(crate) what: String,
    /// The part of the object, as `status`.
    pub(crate) subresource: String,
}

/// Returns the writes that clients whose name begins so have made to a resource of the namespace, since this byte of the log.
pub(crate) fn writes(gateway: &Gateway, from: u64, user_agent: &str, resource: &str) -> Vec<Written> {
    let log = gateway.audit_log(from);
    let quoted = format!("\"{resource}\"");
    let events = log.lines().filter(|line| line.contains(&quoted));
    let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let writes = events.filter_map(|event| {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let is_of = text("/objectRef/resource") == resource && text("/objectRef/namespace") == gateway.namespace();
        let is_theirs = text("/userAgent").starts_with(user_agent) && text("/stage") == "ResponseComplete";
        let verb = text("/verb");
        let is_write = !["get", "list", "watch"].contains(&verb);
        (is_of && is_theirs && is_write).then(|| Written {
            at: text("/requestReceivedTimestamp").parse().ok(),
            what: format!("{verb} {resource}/{}", text("/objectRef/name")),
            subresource: text("/objectRef/subresource").to_owned(),
        })
    });
    writes.collect()
}

/// Returns those of the controller.
pub(crate) fn our_writes(gateway: &Gateway, from: u64, resource: &str) -> Vec<Written> {
    writes(gateway, from, OURS, resource)
}

/// Returns when the API server received the first write of kubectl to a resource, since this byte of its log.
pub(crate) async fn received(gateway: &Gateway, from: u64, resource: &str) -> anyhow::Result<Timestamp> {
    let noted = async {
        let mut poll = tokio::time::interval(Duration::from_millis(50));
        loop {
            poll.tick().await;
            if let Some(at) = writes(gateway, from, "kubectl/", resource).into_iter().find_map(|write| write.at) {
                return at;
            }
        }
    };
    tokio::time::timeout(NOTED, noted).await.with_context(|| format!("no write of kubectl to {resource}"))
}

/// Returns milliseconds from one time of the machine's clock to another one.
#[expect(clippy::cast_precision_loss, reason = "microseconds between two events")]
pub(crate) fn millis(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_microsecond() - from.as_microsecond()) as f64 / 1e3
}
