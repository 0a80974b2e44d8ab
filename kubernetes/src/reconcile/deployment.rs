//! How a Deployment stands, in Flagger's words.

use serde_json::Value;
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::Readiness;

use super::pods::replicas;
use super::record::Template;
use crate::configs::Contents;
use crate::desire::PROMOTION_KEYS;
use crate::object::{list, number, text};
use crate::pod_status::line;

/// Hex digits of a revision: what another controller wrote there is none.
const REVISION_LEN: usize = 10;

/// Returns whether all of its pods are of its template and available.
pub(super) fn readiness(deployment: &Value) -> Readiness {
    let of = |field: &str| number(deployment, &format!("/status/{field}")).unwrap_or(0);
    let name = text(deployment, "/metadata/name").unwrap_or_default();
    let not_ready = |reason: String| Readiness::NotReady { reason, hopeless: false };
    let waiting = |what: String| not_ready(format!("waiting for rollout to finish: {what}"));
    if number(deployment, "/metadata/generation").is_none_or(|generation| of("observedGeneration") < generation) {
        return waiting("observed deployment generation less than desired generation".to_owned());
    }
    let exceeded = list(deployment, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == Some("Progressing")
            && text(condition, "/reason") == Some("ProgressDeadlineExceeded")
    });
    if exceeded {
        return Readiness::NotReady {
            reason: format!("deployment {name:?} exceeded its progress deadline"),
            hopeless: true,
        };
    }
    let (wanted, all, updated, available) =
        (replicas(deployment), of("replicas"), of("updatedReplicas"), of("availableReplicas"));
    if wanted == 0 {
        return not_ready(format!("deployment {name:?} is scaled to zero"));
    }
    if updated < wanted {
        // A quota, say: there is no Pod that could tell.
        let refused = list(deployment, "/status/conditions").iter().find(|condition| {
            text(condition, "/type") == Some("ReplicaFailure") && text(condition, "/status") == Some("True")
        });
        let why = refused.and_then(|condition| text(condition, "/message")).map(|why| format!(": {}", line(why)));
        let why = why.unwrap_or_default();
        return waiting(format!("{updated} out of {wanted} new replicas have been updated{why}"));
    }
    if all > updated {
        return waiting(format!("{} old replicas are pending termination", all.saturating_sub(updated)));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} (readyThreshold 100%) updated replicas are available"));
    }
    Readiness::Ready
}

/// Returns what a primary was made from, with its template as it runs, and without what is in its copies of
/// ConfigMaps and Secrets; nothing if no promotion of ours made it.
pub(super) fn promoted(primary: &Value) -> Option<Template> {
    let template = primary.pointer("/spec/template")?;
    let annotations = template.pointer("/metadata/annotations")?;
    let promotion = PROMOTION_KEYS.into_iter().find_map(|key| annotations.get(key)?.as_str())?;
    let is_ours = promotion.len() == REVISION_LEN && promotion.bytes().all(|it| it.is_ascii_hexdigit());
    let configs = Contents::default();
    is_ours.then(|| Template { revision: Revision::new(promotion), pods: template.clone(), configs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(deployment: &Value) -> String {
        match readiness(deployment) {
            Readiness::Ready => "ready".to_owned(),
            Readiness::NotReady { reason, hopeless } => format!("{reason}{}", if hopeless { "!" } else { "" }),
        }
    }

    #[test]
    fn the_words_are_flaggers() {
        let with = |status: Value| json!({"metadata": {"name": "backend", "generation": 2}, "spec": {"replicas": 2}, "status": status});
        let exceeded = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        for (status, words) in [
            (
                json!({"observedGeneration": 1, "conditions": exceeded}),
                "waiting for rollout to finish: observed deployment generation less than desired generation",
            ),
            (
                json!({"observedGeneration": 2, "conditions": exceeded}),
                "deployment \"backend\" exceeded its progress deadline!",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}),
                "waiting for rollout to finish: 1 out of 2 new replicas have been updated",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2}),
                "waiting for rollout to finish: 1 old replicas are pending termination",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
                "waiting for rollout to finish: 1 of 2 (readyThreshold 100%) updated replicas are available",
            ),
            (json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}), "ready"),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 0, "conditions": [
                    {"type": "ReplicaFailure", "status": "True", "message": "pods \"a\" is forbidden: exceeded quota"},
                ]}),
                "waiting for rollout to finish: 0 out of 2 new replicas have been updated: pods \"a\" is forbidden: exceeded quota",
            ),
        ] {
            assert_eq!(told(&with(status)), words);
        }
        let mut none = with(json!({"observedGeneration": 2}));
        none["spec"]["replicas"] = json!(0);
        assert_eq!(told(&none), "deployment \"backend\" is scaled to zero");
        assert!(told(&json!({})).starts_with("waiting"), "what no API server gave is not ready");
    }

    #[test]
    fn only_our_promotions_tell_a_revision() {
        let primary = |key: &str, value: &str| json!({"spec": {"template": {"metadata": {"annotations": {key: value}}, "spec": {}}}});
        let revision = |primary: Value| promoted(&primary).map(|it| it.revision);
        assert_eq!(revision(primary("wingbeat.dev/promotion", "0bda74b4a6")), Some(Revision::new("0bda74b4a6")));
        assert_eq!(revision(primary("flagger-id", "0bda74b4a6")), Some(Revision::new("0bda74b4a6")));
        assert_eq!(revision(primary("flagger-id", "6a6ff91a-2bb5-4f8c-8d4c-9d4f4bd0a1d5")), None);
        assert_eq!(revision(json!({})), None);
    }
}
