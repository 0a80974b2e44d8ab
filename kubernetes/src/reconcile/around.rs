//! What a canary is evaluated with.

use serde_json::Value;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;

use super::channels::ChannelSecrets;
use super::configs::Configs;
use super::configuration::{Listeners, has_deployment, service_name};
use super::owner::is_owned;
use crate::desire::Settings;
use crate::object::text;
use crate::world::{Kind, ObjectKey, World};

/// What a canary is evaluated with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) name: &'a CanaryName,
    pub(super) object: &'a Value,
    /// The same with the spec that is in force. One that is refused changes nothing.
    pub(super) in_force: &'a Value,
    /// Its `CanaryState`.
    pub(super) stored: Option<&'a Value>,
    pub(super) world: &'a World,
    pub(super) listeners: &'a Listeners,
    pub(super) channels: &'a ChannelSecrets,
    pub(super) configs: Configs<'a>,
    pub(super) settings: &'a Settings,
    /// How often documents that Canaries name were different.
    pub(super) documents: u64,
    pub(super) now: Timestamp,
}

impl Around<'_> {
    /// Returns an object of the canary's namespace.
    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.world.get(&ObjectKey::new(kind, &self.name.namespace, name))
    }

    /// Returns the name of the target.
    pub(super) fn target_name(&self) -> &str {
        target_name(self.in_force)
    }

    /// Returns the target.
    pub(super) fn target(&self) -> Option<Value> {
        self.target_of(self.in_force)
    }

    /// Returns the target that this Canary has.
    pub(super) fn target_of(&self, object: &Value) -> Option<Value> {
        target_of(self.world, self.name, object)
    }

    /// Returns its three Services, as far as they are there.
    pub(super) fn services(&self) -> Vec<Value> {
        let entry = service_name(self.in_force);
        let names = [entry.to_owned(), format!("{entry}-primary"), format!("{entry}-canary")];
        names.iter().filter_map(|name| self.get(Kind::Service, name)).collect()
    }

    /// Returns what has the primary's name, whosever it is.
    pub(super) fn named_as_primary(&self) -> Option<Value> {
        self.get(Kind::Deployment, &format!("{}-primary", self.target_name()))
    }

    /// Returns the primary. That of a former Canary of the same name goes with it, a moment later.
    pub(super) fn primary(&self) -> Option<Value> {
        self.named_as_primary().filter(|primary| is_owned(primary, self.object))
    }
}

/// Returns the target of a Canary.
pub(super) fn target_of(world: &World, name: &CanaryName, canary: &Value) -> Option<Value> {
    let key = ObjectKey::new(Kind::Deployment, &name.namespace, target_name(canary));
    world.get(&key).filter(|_| has_deployment(canary))
}

/// Returns the name of the target of a Canary.
pub(super) fn target_name(canary: &Value) -> &str {
    text(canary, "/spec/targetRef/name").unwrap_or_default()
}
