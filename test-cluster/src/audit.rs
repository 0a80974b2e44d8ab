//! Calls of the API, as the API server writes them down: what a client costs it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A kind of call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The client, as it names itself: `kubelet/v1.36.3 (linux/amd64) kubernetes/…`.
    pub user_agent: String,
    /// As Kubernetes counts verbs: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// The resource, and what of it: `pods`, `pods/status`. Empty for paths that are no resource.
    pub resource: String,
}

/// How many calls of each kind there were. Watches count when they begin, other calls when they end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    calls: BTreeMap<Call, u64>,
}

impl Audit {
    /// Reads a log, a call a line. The last line may be half written.
    pub fn read(log: &str) -> Self {
        let mut calls = BTreeMap::new();
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let verb = text("/verb");
            let counts = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if text("/stage") != counts {
                continue;
            }
            let (resource, of) = (text("/objectRef/resource"), text("/objectRef/subresource"));
            let resource = if of.is_empty() { resource.to_owned() } else { format!("{resource}/{of}") };
            let call = Call { user_agent: text("/userAgent").to_owned(), verb: verb.to_owned(), resource };
            *calls.entry(call).or_default() += 1;
        }
        Self { calls }
    }

    /// Returns the number of calls of clients whose name begins so, with this verb.
    pub fn count(&self, user_agent: &str, verb: &str) -> u64 {
        let of = self.calls.iter().filter(|(call, _)| call.user_agent.starts_with(user_agent) && call.verb == verb);
        of.map(|(_, count)| count).sum()
    }

    /// Returns how often clients whose name begins so have read and written, but for Leases, which cost the same whatever there is to
    /// do, and for watches, which are begun anew now and then.
    pub fn reads_and_writes(&self, user_agent: &str) -> (u64, u64) {
        let of = |(call, _): &(&Call, &u64)| call.user_agent.starts_with(user_agent) && call.resource != "leases";
        self.calls.iter().filter(of).fold((0, 0), |(reads, writes), (call, count)| match call.verb.as_str() {
            "watch" => (reads, writes),
            "get" | "list" => (reads + count, writes),
            _ => (reads, writes + count),
        })
    }

    /// Returns all kinds of calls, with how many there were.
    pub const fn calls(&self) -> &BTreeMap<Call, u64> {
        &self.calls
    }

    /// Returns the calls since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let more = self.calls.iter().filter_map(|(call, count)| {
            let more = count.saturating_sub(earlier.calls.get(call).copied().unwrap_or_default());
            (more > 0).then(|| (call.clone(), more))
        });
        Self { calls: more.collect() }
    }
}

/// Returns the calls of a user that its roles do not allow, each once, as `verb resource namespace/name`. What is refused for
/// another reason, as in a namespace that is being deleted, is none.
pub fn forbidden(log: &str, user: &str) -> BTreeSet<String> {
    let events = log.lines().filter(|line| line.contains(user)).filter_map(|line| serde_json::from_str(line).ok());
    let refused = events.filter_map(|event: Value| {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let is_refused = text("/annotations/authorization.k8s.io~1decision") == "forbid";
        (text("/user/username") == user && is_refused).then(|| {
            let of = |field: &str| text(&format!("/objectRef/{field}"));
            let what = [of("resource"), of("subresource")].join("/");
            let what = if what == "/" { text("/requestURI") } else { what.trim_end_matches('/') };
            format!("{} {what} {}/{}", text("/verb"), of("namespace"), of("name"))
        })
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_role_does_not_allow_is_found() {
        let event = |user: &str, decision: &str| {
            serde_json::json!({
                "verb": "list", "user": {"username": user}, "objectRef": {"resource": "secrets", "namespace": "a"},
                "annotations": {"authorization.k8s.io/decision": decision},
            })
            .to_string()
                + "\n"
        };
        let log = event("wingbeat", "forbid") + &event("wingbeat", "allow") + &event("another", "forbid") + "{";
        assert_eq!(forbidden(&log, "wingbeat"), BTreeSet::from(["list secrets a/".to_owned()]));
        assert!(forbidden(&log, "third").is_empty());
    }

    fn line(stage: &str, verb: &str, agent: &str, resource: &str, of: &str) -> String {
        let reference = serde_json::json!({"resource": resource, "subresource": of});
        serde_json::json!({"stage": stage, "verb": verb, "userAgent": agent, "objectRef": reference}).to_string() + "\n"
    }

    #[test]
    fn calls_count_once_by_client_and_verb() {
        let earlier = line("ResponseComplete", "patch", "kubelet/v1", "pods", "status");
        let log = earlier.clone()
            + &line("ResponseComplete", "patch", "kubelet/v1", "pods", "status")
            + &line("ResponseStarted", "watch", "kubelet/v1", "pods", "")
            + &line("ResponseComplete", "watch", "kubelet/v1", "pods", "")
            + &line("ResponseComplete", "list", "kubectl/v1", "pods", "")
            + "{\"stage\": \"Resp";
        let audit = Audit::read(&log);
        assert_eq!(audit.count("kubelet/", "patch"), 2);
        assert_eq!(audit.count("kubelet/", "watch"), 1);
        assert_eq!(audit.count("kube", "list"), 1);
        assert_eq!(audit.count("wingbeat", "list"), 0);
        let resources: Vec<&str> = audit.calls().keys().map(|call| call.resource.as_str()).collect();
        assert_eq!(resources, ["pods", "pods/status", "pods"]);
        let later = audit.since(&Audit::read(&earlier));
        assert_eq!((later.count("kubelet/", "patch"), later.count("kubelet/", "watch")), (1, 1));
    }
}
