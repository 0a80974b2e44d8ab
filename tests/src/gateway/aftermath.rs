//! What is left behind by a run: nothing that belongs to nobody, nothing twice, nothing that a role does not allow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wingbeat_test_cluster::audit;

use super::Gateway;

/// The label of what is made for a Canary.
const LABEL: &str = "wingbeat.dev/canary";

impl Gateway {
    /// Fails if the controller has called what its role does not allow.
    pub fn assert_allowed(&self) {
        self.assert_allowed_between(0, u64::MAX);
    }

    /// The same from one byte of the audit log to another one. An API server that is not ready yet does not know roles.
    pub fn assert_allowed_between(&self, from: u64, to: u64) {
        let user = format!("system:serviceaccount:{}:wingbeat", self.role().namespace);
        let log = self.audit_log(from);
        let end = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(log.len());
        let forbidden = audit::forbidden(log.get(..end).unwrap_or(&log), &user);
        assert!(forbidden.is_empty(), "its role does not allow {forbidden:?}");
    }

    /// Returns the objects of the namespace that are of a Canary which is not there.
    pub async fn orphans(&self) -> Vec<String> {
        let items = async |kinds: &str| {
            let listed: Value =
                serde_json::from_str(&self.kubectl(&["get", kinds, "--output=json"]).await).expect("a list");
            listed.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let text = |object: &Value, path: &str| {
            object.pointer(path).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let canaries = items("canaries.wingbeat.dev").await;
        let uids: BTreeSet<String> = canaries.iter().map(|canary| text(canary, "/metadata/uid")).collect();
        let names: BTreeSet<String> = canaries.iter().map(|canary| text(canary, "/metadata/name")).collect();
        let ours = items("deployments,services,canarystates.wingbeat.dev").await;
        let is_orphan = |object: &&Value| {
            let owner = text(object, "/metadata/ownerReferences/0/uid");
            let is_owned = text(object, "/metadata/ownerReferences/0/kind") == "Canary";
            let label = object.pointer("/metadata/labels").and_then(|labels| labels.get(LABEL)).and_then(Value::as_str);
            (is_owned && !uids.contains(&owner)) || label.is_some_and(|label| !names.contains(label))
        };
        let name = |object: &Value| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
        ours.iter().filter(is_orphan).map(name).collect()
    }

    /// Returns the events of the controller in the namespace: how many objects have each text.
    pub async fn events(&self) -> BTreeMap<String, usize> {
        let template = r#"{range .items[?(@.reportingController=="wingbeat")]}{.note}{"\n"}{end}"#;
        let listed = self.kubectl(&["get", "events.events.k8s.io", &format!("--output=jsonpath={template}")]).await;
        let mut counts = BTreeMap::new();
        for note in listed.lines().filter(|line| !line.is_empty()) {
            *counts.entry(note.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Fails if something is left behind that nobody owns, a text is told twice, or the role was not enough. These events, which were
    /// there before, are of another rollout.
    pub async fn assert_whole(&self, before: &BTreeMap<String, usize>) {
        self.assert_allowed();
        self.assert_tidy(before).await;
    }

    /// The same without the role.
    pub async fn assert_tidy(&self, before: &BTreeMap<String, usize>) {
        let orphans = self.orphans().await;
        let since = self.events().await.into_iter().map(|(note, count)| {
            let earlier = before.get(&note).copied().unwrap_or_default();
            (note, count - earlier)
        });
        let doubled: Vec<(String, usize)> = since.filter(|(_, count)| *count > 1).collect();
        let is_clean = orphans.is_empty() && doubled.is_empty();
        assert!(is_clean, "orphans: {orphans:?}, events that were told twice: {doubled:?}\n{}", self.said());
    }
}
