//! What the controller writes, as it writes it.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::{Gateway, OURS};

/// How often the audit log is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The target is given its Pods, or they are taken away.
    ScaleTarget,
    /// The primary is given its Pods.
    ScalePrimary,
    /// The primary is made, or given a template.
    ApplyPrimary,
    /// A Service is made or changed.
    ApplyService,
    /// A CanaryState is made.
    CreateState,
    /// What was decided is stored.
    UpdateState,
    /// The status of the Canary.
    Status,
    /// An event, or its repetition.
    Event,
}

impl Kind {
    /// What is written in a rollout of a canary that is there.
    pub const OF_ROLLOUT: [Self; 5] =
        [Self::ScaleTarget, Self::ApplyPrimary, Self::UpdateState, Self::Status, Self::Event];
    /// What is written when a canary is new.
    pub const OF_START: [Self; 7] = [
        Self::CreateState,
        Self::UpdateState,
        Self::ApplyPrimary,
        Self::ScalePrimary,
        Self::ApplyService,
        Self::Status,
        Self::Event,
    ];

    /// Returns what a line of the audit log is, if it is a write of the controller.
    fn of(event: &Value, namespace: &str) -> Option<Self> {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let is_ours = text("/userAgent").starts_with(OURS) && text("/objectRef/namespace") == namespace;
        if !is_ours || text("/stage") != "ResponseComplete" {
            return None;
        }
        let is_primary = text("/objectRef/name").ends_with("-primary");
        let is_scale = text("/requestURI").contains("fieldManager=wingbeat-scale");
        let what = (text("/verb"), text("/objectRef/resource"), text("/objectRef/subresource"));
        match what {
            ("patch", "deployments", "") => match (is_primary, is_scale) {
                (true, true) => Some(Self::ScalePrimary),
                (true, false) => Some(Self::ApplyPrimary),
                (false, true) => Some(Self::ScaleTarget),
                (false, false) => None,
            },
            ("patch", "services", "") => Some(Self::ApplyService),
            ("create", "canarystates", "") => Some(Self::CreateState),
            ("update", "canarystates", "status") => Some(Self::UpdateState),
            ("patch", "canaries", "status") => Some(Self::Status),
            ("create" | "patch", "events", "") => Some(Self::Event),
            _ => None,
        }
    }
}

/// Writes from a moment on, in the order in which they were answered.
#[derive(Debug)]
pub struct Writes {
    from: u64,
    rest: String,
    waiting: VecDeque<Kind>,
}

impl Writes {
    /// Begins now.
    pub fn begin(gateway: &Gateway) -> Self {
        Self::from(gateway.audit_end())
    }

    /// Begins at this byte of the audit log.
    pub const fn from(from: u64) -> Self {
        Self { from, rest: String::new(), waiting: VecDeque::new() }
    }

    /// Waits for the next one, of whatever kind.
    pub async fn next(&mut self, gateway: &Gateway) -> Kind {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        loop {
            if let Some(kind) = self.waiting.pop_front() {
                return kind;
            }
            poll.tick().await;
            let log = gateway.audit_log(self.from);
            self.from += u64::try_from(log.len()).unwrap_or_default();
            self.rest.push_str(&log);
            // What has no end of line yet is read with the rest of it.
            let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
            for line in self.rest.drain(..whole).collect::<String>().lines() {
                let event = serde_json::from_str(line).unwrap_or_default();
                self.waiting.extend(Kind::of(&event, gateway.namespace()));
            }
        }
    }

    /// Waits for so many of a kind, from now on.
    pub async fn until(&mut self, gateway: &Gateway, kind: Kind, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.next(gateway).await == kind {
                left -= 1;
            }
        }
    }
}

impl Gateway {
    /// Returns which replica has the Lease.
    pub async fn leader(&self) -> String {
        self.kubectl(&["get", "lease/wingbeat", "--output=jsonpath={.spec.holderIdentity}"]).await
    }

    /// Returns what a replica has written since this byte of the audit log, Leases included: when it was received, and what.
    pub fn writes_of(&self, replica: &str, from: u64) -> Vec<(String, String)> {
        let log = self.audit_log(from);
        let events = log.lines().filter(|line| line.contains(replica));
        let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let writes = events.filter_map(|event| {
            let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let is_its = text("/userAgent").contains(replica) && text("/stage") == "ResponseComplete";
            let is_write = !["get", "list", "watch"].contains(&text("/verb"));
            let what = [text("/verb"), text("/objectRef/resource"), text("/objectRef/subresource")].join(" ");
            (is_its && is_write).then(|| (text("/requestReceivedTimestamp").to_owned(), what))
        });
        let mut writes: Vec<(String, String)> = writes.collect();
        writes.sort();
        writes
    }
}
