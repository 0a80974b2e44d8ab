//! What objects are called.

use serde_json::Value;
use wingbeat_core::id::CanaryName;

use crate::object::text;

/// A kind of object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of either group.
    Canary,
    /// Of `wingbeat.dev`.
    CanaryState,
    /// Of either group.
    MetricTemplate,
    /// Of either group.
    AlertProvider,
    /// Of `wingbeat.dev`, in no namespace.
    Listener,
    /// Of `apps`.
    Deployment,
    /// Of `autoscaling`.
    HorizontalPodAutoscaler,
    /// Of the core group.
    Service,
    /// Of `discovery.k8s.io`.
    EndpointSlice,
    /// Of the core group, watched as metadata.
    ConfigMap,
    /// The same.
    Secret,
}

impl Kind {
    /// Returns true for what Pods are configured by, which is no part of the [`World`](super::World).
    pub const fn is_config(self) -> bool {
        matches!(self, Self::ConfigMap | Self::Secret)
    }
}

/// What an object is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty if it is in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Returns the key of an object.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Returns the key that an object has; nothing if it has no name.
    pub fn of(kind: Kind, object: &Value) -> Option<Self> {
        let namespace = text(object, "/metadata/namespace").unwrap_or_default();
        Some(Self::new(kind, namespace, text(object, "/metadata/name")?))
    }

    /// Returns the Canary that it is the key of.
    pub(super) fn canary(&self) -> CanaryName {
        CanaryName::new(self.namespace.as_str(), self.name.as_str())
    }
}
