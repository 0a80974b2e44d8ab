//! What a Canary names, and is to be seen again for when it changes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::key::{Kind, ObjectKey};
use crate::desire::{label_value, primary_scaler_name, scaler_name};
use crate::object::{list, text};

/// Something that Canaries depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reference {
    /// One object, there or not.
    Object(ObjectKey),
    /// The slices of endpoints that say that they are a Canary's.
    Slices {
        /// Their namespace.
        namespace: String,
        /// The Canary, as their label has it.
        canary: String,
    },
    /// All Listeners: those that say that they are for whoever names none are not known by name.
    Listeners,
}

impl Reference {
    /// Returns true for what one Canary alone can have.
    pub(super) const fn is_exclusive(&self) -> bool {
        matches!(self, Self::Object(ObjectKey { kind: Kind::Deployment | Kind::Service, .. }))
    }
}

/// Returns what a Canary depends on, itself included.
pub(super) fn of_canary(key: &ObjectKey, canary: &Value) -> BTreeSet<Reference> {
    let namespace = key.namespace.as_str();
    let here = |kind: Kind, name: &str| Reference::Object(ObjectKey::new(kind, namespace, name));
    let mut references = BTreeSet::from([
        Reference::Object(key.clone()),
        here(Kind::CanaryState, &key.name),
        Reference::Slices { namespace: namespace.to_owned(), canary: label_value(&key.name) },
    ]);
    if let Some(target) = text(canary, "/spec/targetRef/name") {
        if text(canary, "/spec/targetRef/kind") == Some("Deployment") {
            references.extend([target.to_owned(), format!("{target}-primary")].map(|it| here(Kind::Deployment, &it)));
        }
        let service = text(canary, "/spec/service/name").filter(|name| !name.is_empty()).unwrap_or(target);
        let services = [service.to_owned(), format!("{service}-primary"), format!("{service}-canary")];
        references.extend(services.map(|name| here(Kind::Service, &name)));
    }
    let scalers = [scaler_name(canary).map(str::to_owned), primary_scaler_name(canary)];
    references.extend(scalers.into_iter().flatten().map(|name| here(Kind::HorizontalPodAutoscaler, &name)));
    for analysis in ["/spec/analysis", "/spec/canaryAnalysis"] {
        let named = |field: &str, reference: &str, kind: Kind| {
            let entries = list(canary, &format!("{analysis}/{field}")).iter();
            let found = entries.filter_map(|entry| {
                let name = text(entry, &format!("/{reference}/name"))?;
                let namespace = text(entry, &format!("/{reference}/namespace")).unwrap_or(namespace);
                Some(Reference::Object(ObjectKey::new(kind, namespace, name)))
            });
            found.collect::<Vec<_>>()
        };
        references.extend(named("metrics", "templateRef", Kind::MetricTemplate));
        references.extend(named("alerts", "providerRef", Kind::AlertProvider));
    }
    let listeners: Vec<&str> = list(canary, "/spec/service/listeners").iter().filter_map(Value::as_str).collect();
    if listeners.is_empty() {
        references.insert(Reference::Listeners);
    }
    references.extend(listeners.into_iter().map(|name| Reference::Object(ObjectKey::new(Kind::Listener, "", name))));
    references
}
