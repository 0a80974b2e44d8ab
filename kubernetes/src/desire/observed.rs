//! What objects are made from.

use serde_json::Value;

use crate::configs::Renames;

/// What a controller was told of all targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Keys of labels that tell the Pods of a target from others, the first that it has is taken.
    pub selector_labels: Vec<String>,
    /// Prefixes of keys of the target's labels and annotations that the primary gets; `*` is all.
    pub copied_prefixes: Vec<String>,
    /// Whether ConfigMaps and Secrets of targets are tracked.
    pub tracks_configs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let labels = ["app", "name", "app.kubernetes.io/name"];
        Self { selector_labels: labels.map(str::to_owned).to_vec(), copied_prefixes: Vec::new(), tracks_configs: true }
    }
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The Canary, of either group.
    pub canary: &'a Value,
    /// Its target, a Deployment.
    pub target: &'a Value,
    /// What is there already in the namespace of the Canary; others than those that are looked for do no harm.
    pub existing: &'a [&'a Value],
    /// What tells this promotion from all others of this Canary: the primary's Pods are made anew when it changes.
    pub promotion: &'a str,
    /// What the copies are called of the ConfigMaps and Secrets that the target's Pods read: the primary's read those.
    pub renames: &'a Renames,
}
