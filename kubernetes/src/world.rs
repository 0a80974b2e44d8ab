//! The index of what is in a cluster: objects go in as they come from an API server, and the Canaries that they concern come
//! out.
//!
//! ```text
//!  apply, delete ─► objects (bytes) ─► Canaries to be evaluated again
//!                └► references (who names what), slices (who is ready)
//! ```
//!
//! It has no client and asks nobody. What is kept of an object is its text: a tree of JSON takes eight times as much.

mod endpoints;
mod key;
mod references;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use wingbeat_core::id::{Arm, CanaryName};

pub use key::{Kind, ObjectKey};

use crate::desire::label_value;
use endpoints::Slice;
use references::Reference;

/// What is in a cluster, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    objects: BTreeMap<ObjectKey, Box<[u8]>>,
    /// What each Canary depends on.
    references: BTreeMap<CanaryName, BTreeSet<Reference>>,
    /// The same the other way round.
    dependents: BTreeMap<Reference, BTreeSet<CanaryName>>,
    slices: BTreeMap<ObjectKey, Slice>,
    /// Slices by namespace and what they say of their Canary.
    slices_of: BTreeMap<(Arc<str>, String), BTreeSet<ObjectKey>>,
}

impl World {
    /// Takes an object as it is now. Returns the Canaries that are concerned: none if nothing changed that counts.
    pub fn apply(&mut self, kind: Kind, object: &Value) -> BTreeSet<CanaryName> {
        let Some(key) = ObjectKey::of(kind, object) else { return BTreeSet::new() };
        let bytes = kept(object);
        if self.objects.get(&key).is_some_and(|before| *before == bytes) {
            return BTreeSet::new();
        }
        // Whoever was concerned by what it was, and whoever is by what it is.
        let mut concerned = self.concerned(&key);
        self.objects.insert(key.clone(), bytes);
        self.index(&key, Some(object));
        concerned.extend(self.concerned(&key));
        concerned
    }

    /// Takes notice that an object is gone. Returns the Canaries that are concerned, a deleted one among them.
    pub fn delete(&mut self, key: &ObjectKey) -> BTreeSet<CanaryName> {
        let concerned = self.concerned(key);
        if self.objects.remove(key).is_none() {
            return BTreeSet::new();
        }
        self.index(key, None);
        concerned
    }

    /// Notes that a Canary depends on what this says, too, beside what it says itself, until it is another one: a spec that is refused
    /// leaves the one before in force.
    pub fn depend(&mut self, canary: &CanaryName, in_force: &Value) {
        let key = ObjectKey::new(Kind::Canary, &canary.namespace, &canary.name);
        let mut references = references::of_canary(&key, in_force);
        references.extend(self.references.get(canary).into_iter().flatten().cloned());
        if self.references.get(canary).is_some_and(|known| *known != references) {
            self.refer(&key, references);
        }
    }

    /// Returns an object, parsed anew.
    pub fn get(&self, key: &ObjectKey) -> Option<Value> {
        serde_json::from_slice(self.objects.get(key)?).ok()
    }

    /// Returns the Canaries that there are.
    pub fn canaries(&self) -> impl Iterator<Item = &CanaryName> {
        self.references.keys()
    }

    /// Returns the ready endpoints of an arm, by the name of the Service's port or, where none is called so, its number.
    pub fn endpoints(&self, canary: &CanaryName, arm: Arm, name: &str, number: u16) -> BTreeSet<SocketAddr> {
        let of = (canary.namespace.clone(), label_value(&canary.name));
        let slices = self.slices_of.get(&of).into_iter().flatten().filter_map(|key| self.slices.get(key));
        slices.filter(|slice| slice.arm == arm).flat_map(|slice| slice.ready(name, number)).collect()
    }

    /// Returns how many bytes of objects are kept.
    pub fn bytes(&self) -> usize {
        self.objects.values().map(|bytes| bytes.len()).sum()
    }

    fn concerned(&self, key: &ObjectKey) -> BTreeSet<CanaryName> {
        let slices = || {
            let slice = self.slices.get(key)?;
            Some(Reference::Slices { namespace: key.namespace.clone(), canary: slice.canary.clone() })
        };
        let also = match key.kind {
            Kind::Listener => Some(Reference::Listeners),
            Kind::EndpointSlice => slices(),
            Kind::Canary
            | Kind::CanaryState
            | Kind::MetricTemplate
            | Kind::AlertProvider
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::Service
            | Kind::ConfigMap
            | Kind::Secret => None,
        };
        let named = [Some(Reference::Object(key.clone())), also].into_iter().flatten();
        let dependents = |reference: &Reference| self.dependents.get(reference).cloned().unwrap_or_default();
        let mut concerned: BTreeSet<CanaryName> = named.flat_map(|reference| dependents(&reference)).collect();
        // Two that want the same target or Service are in each other's way.
        if key.kind == Kind::Canary {
            let wanted = self.references.get(&key.canary()).into_iter().flatten().filter(|it| it.is_exclusive());
            concerned.extend(wanted.flat_map(dependents));
        }
        concerned
    }

    /// Keeps what is derived from an object; nothing: it is gone.
    fn index(&mut self, key: &ObjectKey, object: Option<&Value>) {
        match key.kind {
            Kind::Canary => {
                self.refer(key, object.map(|object| references::of_canary(key, object)).unwrap_or_default());
            }
            Kind::EndpointSlice => self.put_slice(key, object.and_then(Slice::read)),
            Kind::CanaryState
            | Kind::MetricTemplate
            | Kind::AlertProvider
            | Kind::Listener
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::Service
            | Kind::ConfigMap
            | Kind::Secret => {}
        }
    }

    /// Notes what a Canary depends on from now on; on nothing: it is gone.
    fn refer(&mut self, key: &ObjectKey, references: BTreeSet<Reference>) {
        let name = key.canary();
        for reference in self.references.remove(&name).into_iter().flatten() {
            if let Some(dependents) = self.dependents.get_mut(&reference) {
                dependents.remove(&name);
                if dependents.is_empty() {
                    self.dependents.remove(&reference);
                }
            }
        }
        if references.is_empty() {
            return;
        }
        for reference in &references {
            self.dependents.entry(reference.clone()).or_default().insert(name.clone());
        }
        self.references.insert(name, references);
    }

    fn put_slice(&mut self, key: &ObjectKey, slice: Option<Slice>) {
        if let Some(before) = self.slices.remove(key) {
            let of = (Arc::from(key.namespace.as_str()), before.canary);
            if let Some(keys) = self.slices_of.get_mut(&of) {
                keys.remove(key);
                if keys.is_empty() {
                    self.slices_of.remove(&of);
                }
            }
        }
        if let Some(slice) = slice {
            self.slices_of
                .entry((key.namespace.as_str().into(), slice.canary.clone()))
                .or_default()
                .insert(key.clone());
            self.slices.insert(key.clone(), slice);
        }
    }
}

/// Returns the text of an object without what an API server notes about writes, which concerns nobody. Its version stays: a
/// write that must not overtake another one needs it.
fn kept(object: &Value) -> Box<[u8]> {
    let mut object = object.clone();
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object.to_string().into_bytes().into_boxed_slice()
}
