//! Why the Pods of a workload are not ready, in the words of scheduler and kubelet.
//!
//! Pods are not watched: there are many, and they change often. Those of a workload that stays unready are listed, now and then.

use serde_json::Value;
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::id::{Arm, CanaryName};

use crate::object::{list, text, texts};

/// Pods of a workload that are listed: 250, those of earlier templates among them. Of more, the others say the same.
pub const MAX_PODS: usize = 250;
/// Characters of a message that are kept: 256. It is somebody else's, and as long as they like.
const MAX_MESSAGE_LEN: usize = 256;
/// What every container waits for at first.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The Pods of a workload, to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodQuery {
    /// Whose workload.
    pub canary: CanaryName,
    /// Which of both.
    pub arm: Arm,
    /// The labels that the Pods have, as an API server takes them.
    pub selector: String,
}

/// What keeps a Pod from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// In a word, like `ImagePullBackOff`.
    pub reason: String,
    /// For people: with the Pod, the container and what is said of it.
    pub text: String,
}

/// How much a blocker says, the most last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It runs, and its probe fails.
    Probe,
    /// It finds no node.
    Scheduling,
    /// It does not run.
    Container,
}

impl PodQuery {
    /// Returns what to list for a workload; nothing if it does not choose its Pods by labels.
    pub fn of(canary: &CanaryName, arm: Arm, workload: &Value) -> Option<Self> {
        let labels = texts(workload, "/spec/selector/matchLabels");
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (!selector.is_empty()).then(|| Self { canary: canary.clone(), arm, selector: selector.join(",") })
    }
}

impl Blocker {
    /// Returns what a list of Pods says; nothing if all are ready or on their way. What a container waits for comes before what
    /// the scheduler says, and the first Pod before the others.
    pub fn of(pods: &Value) -> Option<Self> {
        let alive = list(pods, "/items").iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        let mut found: Option<(Weight, Self)> = None;
        for (weight, blocker) in alive.filter_map(of_pod) {
            if found.as_ref().is_none_or(|(before, _)| *before < weight) {
                found = Some((weight, blocker));
            }
        }
        found.map(|(_, blocker)| blocker)
    }
}

fn of_pod(pod: &Value) -> Option<(Weight, Blocker)> {
    let name = text(pod, "/metadata/name").unwrap_or_default();
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = || statuses.iter().flat_map(|field| list(pod, &format!("/status/{field}")));
    let waiting = containers().find_map(|container| {
        let reason = text(container, "/state/waiting/reason").filter(|reason| !USUAL.contains(reason))?;
        let what = format!("container {} of Pod {name}", text(container, "/name").unwrap_or_default());
        Some((Weight::Container, blocker(&what, reason, text(container, "/state/waiting/message"))))
    });
    let scheduling = || {
        let of = |condition: &&Value| {
            text(condition, "/type") == Some("PodScheduled") && text(condition, "/status") == Some("False")
        };
        let condition = list(pod, "/status/conditions").iter().find(of)?;
        let reason = text(condition, "/reason").unwrap_or("Unschedulable");
        Some((Weight::Scheduling, blocker(&format!("Pod {name}"), reason, text(condition, "/message"))))
    };
    let probe = || {
        let is_unready = |container: &&Value| {
            container.pointer("/state/running").is_some() && container.get("ready") == Some(&Value::Bool(false))
        };
        let container = list(pod, "/status/containerStatuses").iter().find(is_unready)?;
        let what = format!("container {} of Pod {name}", text(container, "/name").unwrap_or_default());
        Some((Weight::Probe, blocker(&what, "NotReady", Some("it runs, and is not ready by its probe"))))
    };
    waiting.or_else(scheduling).or_else(probe)
}

fn blocker(what: &str, reason: &str, message: Option<&str>) -> Blocker {
    let message = message.map(line).filter(|message| !message.is_empty());
    let said = message.map(|message| format!(": {message}")).unwrap_or_default();
    let reason = line(reason);
    Blocker { text: format!("{what} {reason}{said}"), reason }
}

/// Returns a line of somebody else's text.
pub(crate) fn line(text: &str) -> String {
    ForeignText::new(text, MAX_MESSAGE_LEN).into_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, status: &Value) -> Value {
        json!({"metadata": {"name": name}, "status": status})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"containerStatuses": [{"name": "web", "state": {"waiting": {"reason": reason, "message": message}}}]})
    }

    fn said(pods: &[Value]) -> Option<String> {
        Blocker::of(&json!({"items": pods})).map(|blocker| blocker.text)
    }

    #[test]
    fn the_first_container_that_waits_says_why() {
        let unschedulable = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
        ]});
        let unready = json!({"containerStatuses": [{"name": "web", "ready": false, "state": {"running": {}}}]});
        let pulled = waiting("ImagePullBackOff", "Back-off pulling image \"web:2\"");
        for (pods, expected) in [
            (vec![], None),
            (vec![pod("a", &waiting("ContainerCreating", ""))], None),
            (vec![pod("a", &unready)], Some("container web of Pod a NotReady: it runs, and is not ready by its probe")),
            (vec![pod("a", &unready), pod("b", &unschedulable)], Some("Pod b Unschedulable: 0/3 nodes are available")),
            (
                vec![pod("a", &unschedulable), pod("b", &pulled), pod("c", &pulled)],
                Some("container web of Pod b ImagePullBackOff: Back-off pulling image \"web:2\""),
            ),
        ] {
            assert_eq!(said(&pods).as_deref(), expected);
        }
        let mut gone = pod("a", &pulled);
        gone["metadata"]["deletionTimestamp"] = json!("2026-11-30T10:00:00Z");
        assert_eq!(said(&[gone]), None, "one that ends is no blocker");
    }

    #[test]
    fn what_others_write_is_a_line_that_ends() {
        let long = format!("\u{1b}[31mred\n{}", "ä".repeat(1_000));
        let text = said(&[pod("a", &waiting("CrashLoopBackOff", &long))]).unwrap_or_default();
        assert!(text.chars().count() < 400 && !text.contains(|letter: char| letter.is_control()), "{text}");
    }

    #[test]
    fn pods_are_found_by_the_labels_of_their_workload() {
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "backend", "tier": "web"}}}});
        let name = CanaryName::new("prod", "backend");
        let query = PodQuery::of(&name, Arm::Canary, &workload).unwrap();
        assert_eq!(query.selector, "app=backend,tier=web");
        assert_eq!(PodQuery::of(&name, Arm::Canary, &json!({})), None, "all Pods of the namespace are nobody's");
    }
}
