//! The primary: the target as it was promoted last, under names and labels of its own.

use serde_json::{Map, Value, json};

use super::affinity;
use super::metadata::{Texts, copied, without_toolkit};
use super::observed::{Observed, Settings};
use super::owner::{Canary, Existing, PROMOTION_KEYS, controller_of};
use super::problem::Problems;
use super::target::Target;
use crate::configs;
use crate::object::{number, put, texts, to_json};

/// What of the target's spec is the primary's too, beside its template.
const COPIED_FIELDS: [&str; 4] = ["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"];

/// The primary, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// The Deployment, without `spec.replicas`: who holds that field would fight with scalers and people. It is applied, also
    /// where it is made: of what is created in another way, no later template could take anything away.
    pub object: Value,
    /// How many Pods it is given where a template is promoted; nothing: that is left as it is.
    pub replicas: Option<u64>,
}

/// Returns the primary; nothing if there is something in its way, which is among the problems.
pub(super) fn desire(
    observed: &Observed<'_>,
    canary: &Canary<'_>,
    target: &Target<'_>,
    settings: &Settings,
    problems: &mut Problems,
) -> Option<Primary> {
    let name = target.primary_name();
    let existing = canary.find(observed.existing, "Deployment", &name);
    let shown = format!("Deployment {name}.{}", canary.namespace);
    match existing {
        Existing::Absent | Existing::Owned(_) => {}
        // It was let go, and says what was promoted into it: its Canary takes it back.
        Existing::Unowned(primary) if was_promoted(primary) => {}
        Existing::Unowned(_) => {
            let wrong = format!("is there and belongs to nobody, where the primary of {} should be", canary.shown());
            problems.add(&shown, "", wrong, "delete it or give it another name");
            return None;
        }
        Existing::Former => {
            let (wrong, mend) = canary.former();
            problems.add(&shown, "", wrong, mend);
            return None;
        }
        Existing::Foreign(object) => {
            let wrong =
                format!("belongs to {}, where the primary of {} should be", controller_of(object), canary.shown());
            problems.add(&shown, "", wrong, "give one of both targets another name");
            return None;
        }
    }
    let of_target = |pointer: &str| texts(target.object, pointer);
    let selector = selector(existing, target);
    let labels = |mut labels: Texts| {
        labels.extend(selector.clone());
        to_json(labels)
    };
    let mut metadata = json!({
        "name": name,
        "namespace": canary.namespace,
        "labels": labels(copied(of_target("/metadata/labels"), &settings.copied_prefixes)),
        "ownerReferences": canary.reference(),
    });
    let annotations = copied(of_target("/metadata/annotations"), &settings.copied_prefixes);
    if let Value::Object(metadata) = &mut metadata
        && !annotations.is_empty()
    {
        metadata.insert("annotations".to_owned(), to_json(annotations));
    }
    let mut pod_annotations = without_toolkit(of_target("/spec/template/metadata/annotations"));
    pod_annotations.insert(canary.promotion_key().to_owned(), observed.promotion.to_owned());
    let mut pod = target.object.pointer("/spec/template/spec").cloned().unwrap_or_default();
    affinity::rename(&mut pod, target, &settings.selector_labels);
    configs::rename(&mut pod, observed.renames);
    let mut spec = Map::new();
    for field in COPIED_FIELDS {
        put(&mut spec, field, target.object.pointer(&format!("/spec/{field}")).filter(|it| !it.is_null()).cloned());
    }
    spec.insert("selector".to_owned(), json!({"matchLabels": to_json(selector.clone())}));
    spec.insert(
        "template".to_owned(),
        json!({
            "metadata": {
                "labels": labels(without_toolkit(of_target("/spec/template/metadata/labels"))),
                "annotations": to_json(pod_annotations),
            },
            "spec": pod,
        }),
    );
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    Some(Primary { object, replicas: replicas(canary, target, existing) })
}

/// Returns the labels by which the primary's Pods are chosen. It keeps those that it was made with: a Deployment's cannot be
/// changed, and Services that ask for others would find nobody.
pub(super) fn selector(primary: Existing<'_>, target: &Target<'_>) -> Texts {
    let kept = if let Existing::Owned(primary) | Existing::Unowned(primary) = primary {
        texts(primary, "/spec/selector/matchLabels")
    } else {
        Texts::new()
    };
    if kept.is_empty() { Texts::from([(target.label.key.clone(), target.label.of_primary())]) } else { kept }
}

/// Returns true if a promotion made a Deployment's template, ours or Flagger's.
fn was_promoted(deployment: &Value) -> bool {
    let annotations = texts(deployment, "/spec/template/metadata/annotations");
    PROMOTION_KEYS.iter().any(|key| annotations.contains_key(*key))
}

/// A scaler has the primary's size from its first day on. Without one, it is the target's, unless that rests at zero.
fn replicas(canary: &Canary<'_>, target: &Target<'_>, existing: Existing<'_>) -> Option<u64> {
    let is_there = existing != Existing::Absent;
    if is_there && canary.has_scaler() {
        return None;
    }
    let of_target = number(target.object, "/spec/replicas").unwrap_or(1);
    match of_target {
        0 if is_there => None,
        0 => Some(1),
        replicas => Some(replicas),
    }
}
