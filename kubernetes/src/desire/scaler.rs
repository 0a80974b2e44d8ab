//! The primary's scaler: the target's, as it was when the primary's template was promoted.

use core::num::NonZeroU64;

use serde_json::{Map, Value, json};

use super::metadata::copied;
use super::observed::Settings;
use super::owner::{Canary, Existing, controller_of};
use super::problem::{Problem, Problems};
use super::target::PRIMARY_SUFFIX;
use crate::object::{number, put, text, texts, to_json};
use crate::resource::Resource;

/// What of a scaler's spec is copied as it is.
const COPIED_FIELDS: [&str; 2] = ["metrics", "behavior"];
/// The fewest Pods that a copy is to have again when no rollout keeps it larger.
const MIN_REPLICAS: &str = "wingbeat.dev/min-replicas";

/// How many Pods a scaler may give a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    min: u64,
    max: u64,
}

/// What the scaler of a primary is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The target's: the primary's revision has none yet.
    Target,
    /// What is there, as it was copied when its revision was promoted.
    Copy,
}

/// The scalers of a Canary, and what is to be known for that of its primary.
#[derive(Debug, Clone, Copy)]
pub struct Scaling<'a> {
    /// The Canary, of either group.
    pub canary: &'a Value,
    /// The scaler of its target, a HorizontalPodAutoscaler; nothing: there is none of the name that the Canary gives.
    pub of_target: Option<&'a Value>,
    /// What has the name of the primary's, whosever it is.
    pub of_primary: Option<&'a Value>,
    /// The name of the primary.
    pub primary: &'a str,
    /// What the primary's is made from.
    pub source: Source,
    /// How many Pods the primary has in a rollout, none of which is to be taken away before it ends; nothing: there is none.
    pub floor: Option<NonZeroU64>,
}

/// Returns what the Canary calls the scaler of its target; nothing if it has none.
pub fn scaler_name(canary: &Value) -> Option<&str> {
    text(canary, "/spec/autoscalerRef/name")
}

/// Returns what the scaler of its primary is called; nothing if it has none.
pub fn primary_scaler_name(canary: &Value) -> Option<String> {
    scaler_name(canary).map(|name| format!("{name}{PRIMARY_SUFFIX}"))
}

impl Scaling<'_> {
    /// Returns the primary's scaler, as it should be, or what is in its way; nothing if the Canary names none.
    ///
    /// It has the fields of the target's as they were when its revision was promoted (row 16). From the moment in a rollout at
    /// which the primary is seen with more Pods than the fewest, it has no fewer until the rollout ends: all requests come back
    /// to it then, at once.
    pub fn desired(&self, settings: &Settings) -> Result<Option<Value>, Vec<Problem>> {
        let mut problems = Problems::default();
        let desired = self.with(settings, &mut problems);
        let problems = problems.into_list();
        if problems.is_empty() { Ok(desired) } else { Err(problems) }
    }

    fn with(&self, settings: &Settings, problems: &mut Problems) -> Option<Value> {
        let reference = self.canary.pointer("/spec/autoscalerRef").filter(|it| !it.is_null())?;
        let canary = Canary::read(self.canary, problems)?;
        let (kind, name) = (text(reference, "/kind").unwrap_or_default(), scaler_name(self.canary)?);
        let resource = Resource::SCALER;
        if kind != resource.kind {
            let wrong = format!("is {kind}, which is not copied: the primary keeps its size");
            problems.add(&canary.shown(), "spec.autoscalerRef.kind", wrong, format!("use {}", resource.kind));
            return None;
        }
        let name_of_primary = primary_scaler_name(self.canary)?;
        let shown = |name: &str| format!("{} {name}.{}", resource.kind, canary.namespace);
        let there: Vec<&Value> = self.of_primary.into_iter().collect();
        let there = match canary.find(&there, resource.kind, &name_of_primary) {
            Existing::Absent => None,
            Existing::Owned(object) => Some(object),
            // It was let go with its primary.
            Existing::Unowned(object) if text(object, "/spec/scaleTargetRef/name") == Some(self.primary) => {
                Some(object)
            }
            Existing::Unowned(_) => {
                let wrong = format!(
                    "is there and belongs to nobody, where that of the primary of {} should be",
                    canary.shown()
                );
                problems.add(&shown(&name_of_primary), "", wrong, "delete it or give it another name");
                return None;
            }
            Existing::Former => {
                let (wrong, mend) = canary.former();
                problems.add(&shown(&name_of_primary), "", wrong, mend);
                return None;
            }
            Existing::Foreign(object) => {
                let wrong = format!(
                    "belongs to {}, where that of the primary of {} should be",
                    controller_of(object),
                    canary.shown()
                );
                problems.add(&shown(&name_of_primary), "", wrong, "give one of both scalers another name");
                return None;
            }
        };
        let kept = there.filter(|_| self.source == Source::Copy);
        let (source, bounds) = match (kept, self.of_target) {
            (Some(kept), _) => (kept, self.kept_bounds(kept)),
            (None, Some(of_target)) => (of_target, self.copied_bounds(of_target)),
            (None, None) => {
                let mend = format!("make it, or take spec.autoscalerRef out of {}", canary.shown());
                problems.add(&shown(name), "", "is not there: the primary keeps its size", mend);
                return None;
            }
        };
        let min = self.min(there, bounds);
        let mut annotations = copied(texts(source, "/metadata/annotations"), &settings.copied_prefixes);
        annotations.remove(MIN_REPLICAS);
        if min > bounds.min {
            annotations.insert(MIN_REPLICAS.to_owned(), bounds.min.to_string());
        }
        let mut spec = Map::from_iter([
            ("scaleTargetRef".to_owned(), json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": self.primary})),
            ("minReplicas".to_owned(), json!(min)),
            ("maxReplicas".to_owned(), json!(bounds.max)),
        ]);
        for field in COPIED_FIELDS {
            put(&mut spec, field, source.pointer(&format!("/spec/{field}")).filter(|it| !it.is_null()).cloned());
        }
        let mut metadata = Map::from_iter([
            ("name".to_owned(), json!(name_of_primary)),
            ("namespace".to_owned(), json!(canary.namespace)),
            ("ownerReferences".to_owned(), canary.reference()),
        ]);
        let labels = copied(texts(source, "/metadata/labels"), &settings.copied_prefixes);
        // What is empty is not there, for an API server.
        for (field, texts) in [("labels", labels), ("annotations", annotations)] {
            put(&mut metadata, field, Some(texts).filter(|it| !it.is_empty()).map(to_json));
        }
        Some(json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata, "spec": spec,
        }))
    }

    /// Returns the bounds of a copy that is kept, without what a rollout asks for.
    fn kept_bounds(&self, kept: &Value) -> Bounds {
        let before = annotation(kept, MIN_REPLICAS).and_then(|it| it.parse().ok());
        self.overridden(before.or_else(|| number(kept, "/spec/minReplicas")), number(kept, "/spec/maxReplicas"))
    }

    fn copied_bounds(&self, of_target: &Value) -> Bounds {
        let of = |field: &str| number(of_target, &format!("/spec/{field}"));
        self.overridden(of("minReplicas"), of("maxReplicas"))
    }

    /// The Canary may say other bounds. An API server takes one as the fewest where nothing is said, and refuses bounds that
    /// cross.
    fn overridden(&self, min: Option<u64>, max: Option<u64>) -> Bounds {
        let given = |field: &str| number(self.canary, &format!("/spec/autoscalerRef/primaryScalerReplicas/{field}"));
        let min = given("minReplicas").or(min).unwrap_or(1).max(1);
        Bounds { min, max: given("maxReplicas").or(max).unwrap_or(1).max(min) }
    }

    /// Returns the fewest Pods for now. What a rollout began with stays until it ends.
    fn min(&self, there: Option<&Value>, bounds: Bounds) -> u64 {
        let Some(floor) = self.floor else { return bounds.min };
        let raised = there.filter(|there| is_raised(there));
        let floor = raised.and_then(|there| number(there, "/spec/minReplicas")).unwrap_or_else(|| floor.get());
        floor.clamp(bounds.min, bounds.max)
    }
}

/// Returns true if a rollout keeps a scaler from having fewer Pods.
pub fn is_raised(scaler: &Value) -> bool {
    annotation(scaler, MIN_REPLICAS).is_some()
}

/// Returns how many Pods a target is given for a rollout by its scaler, which takes it from there (row 17).
pub fn first_size(of_target: &Value) -> u64 {
    number(of_target, "/spec/minReplicas").unwrap_or(1).max(1)
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}
