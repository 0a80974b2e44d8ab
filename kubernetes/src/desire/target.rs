//! The target, and the label that tells its Pods from those of the primary.

use serde_json::Value;

use super::observed::Settings;
use super::owner::MAX_LABEL_LEN;
use super::problem::Problems;
use crate::object::{list, text};

/// What the names and label values of a primary end with.
pub(super) const PRIMARY_SUFFIX: &str = "-primary";

/// The label by which Services choose Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorLabel {
    /// Its key.
    pub key: String,
    /// Its value at the target's Pods.
    pub value: String,
}

/// A target that can be rolled out.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    pub(super) object: &'a Value,
    pub(super) name: &'a str,
    pub(super) label: SelectorLabel,
}

impl SelectorLabel {
    /// Returns its value at the primary's Pods.
    pub fn of_primary(&self) -> String {
        format!("{}{PRIMARY_SUFFIX}", self.value)
    }
}

impl<'a> Target<'a> {
    pub(super) fn read(object: &'a Value, settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let Some(name) = text(object, "/metadata/name") else {
            problems.add("Deployment", "metadata.name", "is missing", "read it from the API server");
            return None;
        };
        let namespace = text(object, "/metadata/namespace").unwrap_or_default();
        let shown = format!("Deployment {name}.{namespace}");
        if object.pointer("/spec/template/spec").is_none_or(|it| !it.is_object()) {
            problems.add(&shown, "spec.template.spec", "is missing", "read it from the API server");
        }
        let of_pods = |key: &str| text_of(object, "/spec/template/metadata/labels", key);
        let of_selector = |key: &&String| text_of(object, "/spec/selector/matchLabels", key).is_some();
        let Some(key) = settings.selector_labels.iter().find(of_selector) else {
            problems.add(
                &shown,
                "spec.selector.matchLabels",
                format!("must contain one of [{}]", settings.selector_labels.join(" ")),
                "make it anew with one of them, as a selector cannot be changed, or name its label by --selector-labels",
            );
            return None;
        };
        let value = text_of(object, "/spec/selector/matchLabels", key).unwrap_or_default();
        let label = SelectorLabel { key: key.clone(), value: value.to_owned() };
        if of_pods(key) != Some(value) {
            let wrong = format!("lacks {key}: {value}, by which the Services would choose its Pods");
            problems.add(&shown, "spec.template.metadata.labels", wrong, "add it");
        }
        if label.of_primary().len() > MAX_LABEL_LEN {
            let wrong =
                format!("has {key}: {value}, which with {PRIMARY_SUFFIX} is longer than {MAX_LABEL_LEN} letters");
            problems.add(&shown, "spec.selector.matchLabels", wrong, "use a shorter value");
        }
        Some(Self { object, name, label })
    }

    /// Returns the name of the primary.
    pub(super) fn primary_name(&self) -> String {
        format!("{}{PRIMARY_SUFFIX}", self.name)
    }

    /// Returns what its Pods consist of.
    pub(super) fn containers(&self) -> &'a [Value] {
        list(self.object, "/spec/template/spec/containers")
    }
}

/// Keys of labels have slashes, which pointers would take for their own.
fn text_of<'a>(object: &'a Value, pointer: &str, key: &str) -> Option<&'a str> {
    object.pointer(pointer)?.get(key)?.as_str()
}
