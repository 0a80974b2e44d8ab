//! What was observed and not yet taken: of each object the newest, however often it changes meanwhile.
//!
//! ```text
//!  watches ─► apply, delete, listed ─► slots, one an object ─► take ─► World
//! ```
//!
//! So a storm of changes of one object costs one evaluation, and what waits is never more than there are objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::world::{Kind, ObjectKey};

/// Which watch something comes from: a kind may be in several groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId(pub usize);

/// How an object is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Applied(Value),
    /// It is gone.
    Deleted,
}

/// What was observed since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Each object once, as it is now.
    pub changes: Vec<(ObjectKey, Change)>,
    /// What keeps watches from working, by the name of what is watched.
    pub problems: BTreeMap<String, String>,
    /// Whether everything was listed once.
    pub readiness: Readiness,
}

/// Whether everything was listed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// What was not, by name. What is not known may be there.
    Listing(BTreeSet<String>),
    /// It was: what is not known is not there.
    Listed,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::Listing(BTreeSet::new())
    }
}

/// What is known of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    kind: Kind,
    name: String,
    /// The objects that are there.
    known: BTreeSet<ObjectKey>,
    /// Those of a list that is not complete.
    listing: Option<BTreeSet<ObjectKey>>,
    is_listed: bool,
    problem: Option<String>,
}

/// What was observed and not yet taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    sources: Vec<Source>,
    waiting: BTreeMap<ObjectKey, Change>,
    is_changed: bool,
}

impl Slots {
    /// Adds a watch of objects of a kind, with its name for people.
    pub fn add(&mut self, kind: Kind, name: &str) -> SourceId {
        let name = name.to_owned();
        let (known, listing) = (BTreeSet::new(), None);
        self.sources.push(Source { kind, name, known, listing, is_listed: false, problem: None });
        self.is_changed = true;
        SourceId(self.sources.len() - 1)
    }

    /// Takes an object as it is.
    pub fn apply(&mut self, id: SourceId, object: Value) {
        let Some(source) = self.sources.get_mut(id.0) else { return };
        let Some(key) = ObjectKey::of(source.kind, &object) else { return };
        if let Some(listing) = &mut source.listing {
            listing.insert(key.clone());
        }
        source.known.insert(key.clone());
        self.is_changed = true;
        self.waiting.insert(key, Change::Applied(object));
    }

    /// Takes it that an object is gone.
    pub fn delete(&mut self, id: SourceId, object: &Value) {
        let Some(key) = self.sources.get(id.0).and_then(|source| ObjectKey::of(source.kind, object)) else { return };
        self.gone(id, key);
    }

    /// Takes it that everything is listed from the beginning.
    pub fn begin_list(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(id.0) {
            source.listing = Some(BTreeSet::new());
        }
    }

    /// Takes it that the list is complete: what is not in it was deleted while nobody watched.
    pub fn end_list(&mut self, id: SourceId) {
        let Some(source) = self.sources.get_mut(id.0) else { return };
        let listed = source.listing.take().unwrap_or_default();
        let gone: Vec<ObjectKey> = source.known.difference(&listed).cloned().collect();
        source.is_listed = true;
        self.is_changed = true;
        gone.into_iter().for_each(|key| self.gone(id, key));
    }

    /// Takes it that the kind is not defined in the cluster, so that there are no such objects. Of a kind of which objects were listed
    /// before, that says nothing: they are taken for gone when a watch or list says so.
    pub fn set_undefined(&mut self, id: SourceId) {
        if let Some(source) = self.sources.get_mut(id.0).filter(|source| !source.is_listed && source.known.is_empty()) {
            source.is_listed = true;
            self.is_changed = true;
        }
    }

    /// Takes it that a watch works, or why it does not. Returns true if that is new.
    pub fn set_problem(&mut self, id: SourceId, problem: Option<String>) -> bool {
        let Some(source) = self.sources.get_mut(id.0).filter(|source| source.problem != problem) else { return false };
        source.problem = problem;
        self.is_changed = true;
        true
    }

    /// Returns what was observed since the last time; nothing if there is nothing new.
    pub fn take(&mut self) -> Option<Batch> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let unlisted = self.sources.iter().filter(|source| !source.is_listed).map(|source| source.name.clone());
        let unlisted: BTreeSet<String> = unlisted.collect();
        let problem = |source: &Source| Some((source.name.clone(), source.problem.clone()?));
        Some(Batch {
            changes: std::mem::take(&mut self.waiting).into_iter().collect(),
            problems: self.sources.iter().filter_map(problem).collect(),
            readiness: if unlisted.is_empty() { Readiness::Listed } else { Readiness::Listing(unlisted) },
        })
    }

    /// Returns how many objects wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns true if none does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn gone(&mut self, id: SourceId, key: ObjectKey) {
        let Some(source) = self.sources.get_mut(id.0) else { return };
        let was_known = source.known.remove(&key);
        if let Some(listing) = &mut source.listing {
            listing.remove(&key);
        }
        if was_known && !self.sources.iter().any(|source| source.known.contains(&key)) {
            self.is_changed = true;
            self.waiting.insert(key, Change::Deleted);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: u64) -> Value {
        json!({"metadata": {"namespace": "prod", "name": name, "resourceVersion": version.to_string()}})
    }

    fn key(kind: Kind, name: &str) -> ObjectKey {
        ObjectKey::new(kind, "prod", name)
    }

    #[test]
    fn a_kind_that_is_not_defined_is_not_waited_for_and_takes_nothing_away() {
        let mut slots = Slots::default();
        let (undefined, listed) = (slots.add(Kind::Canary, "canaries"), slots.add(Kind::Service, "services"));
        slots.begin_list(listed);
        slots.apply(listed, object("a", 1));
        slots.set_undefined(listed);
        slots.set_undefined(undefined);
        let batch = slots.take().unwrap();
        assert_eq!(batch.readiness, Readiness::Listing(["services".to_owned()].into()));
        slots.end_list(listed);
        assert_eq!(slots.take().unwrap().readiness, Readiness::Listed);
        slots.set_undefined(listed);
        assert_eq!(slots.take(), None, "what is there stays");
        slots.apply(undefined, object("b", 1));
        assert_eq!(slots.take().unwrap().changes.len(), 1, "it is defined by now");
    }

    #[test]
    fn of_each_object_the_newest_is_taken_once() {
        let mut slots = Slots::default();
        let services = slots.add(Kind::Service, "services");
        slots.begin_list(services);
        (0..1_000).for_each(|version| slots.apply(services, object("a", version)));
        slots.apply(services, object("b", 1));
        assert_eq!((slots.len(), slots.is_empty()), (2, false));
        let batch = slots.take().unwrap();
        assert_eq!(batch.readiness, Readiness::Listing(["services".to_owned()].into()));
        assert_eq!(
            batch.changes,
            [("a", 999), ("b", 1)]
                .map(|(name, version)| { (key(Kind::Service, name), Change::Applied(object(name, version))) })
        );
        assert_eq!(slots.take(), None);
        slots.end_list(services);
        assert_eq!(slots.take(), Some(Batch { readiness: Readiness::Listed, ..Batch::default() }));
        slots.apply(services, object("a", 1_000));
        slots.delete(services, &object("a", 1_001));
        slots.delete(services, &object("never there", 1));
        assert_eq!(slots.take().unwrap().changes, [(key(Kind::Service, "a"), Change::Deleted)]);
    }

    #[test]
    fn what_a_list_lacks_was_deleted_while_nobody_watched() {
        let mut slots = Slots::default();
        let services = slots.add(Kind::Service, "services");
        for names in [&["a", "b", "c"][..], &["a", "c"]] {
            slots.begin_list(services);
            names.iter().for_each(|name| slots.apply(services, object(name, 1)));
            // A list that breaks off says nothing of what it lacks.
            slots.begin_list(services);
            names.iter().for_each(|name| slots.apply(services, object(name, 2)));
            slots.end_list(services);
        }
        let changes: BTreeMap<ObjectKey, Change> = slots.take().unwrap().changes.into_iter().collect();
        assert_eq!(changes.get(&key(Kind::Service, "b")), Some(&Change::Deleted));
        assert_eq!(changes.len(), 3);
    }

    #[test]
    fn a_name_in_two_groups_is_gone_when_it_is_in_neither() {
        let mut slots = Slots::default();
        let [ours, flaggers] =
            ["canaries.wingbeat.dev", "canaries.flagger.app"].map(|name| slots.add(Kind::Canary, name));
        [ours, flaggers].into_iter().for_each(|id| slots.apply(id, object("a", 1)));
        slots.delete(ours, &object("a", 2));
        assert!(matches!(slots.take().unwrap().changes.as_slice(), [(_, Change::Applied(_))]));
        slots.delete(flaggers, &object("a", 3));
        assert_eq!(slots.take().unwrap().changes, [(key(Kind::Canary, "a"), Change::Deleted)]);
    }

    #[test]
    fn a_problem_is_new_once() {
        let mut slots = Slots::default();
        let services = slots.add(Kind::Service, "services");
        assert!(slots.set_problem(services, Some("why".into())));
        assert!(!slots.set_problem(services, Some("why".into())));
        assert_eq!(slots.take().unwrap().problems, BTreeMap::from([("services".into(), "why".into())]));
        assert!(slots.set_problem(services, None));
        assert_eq!(slots.take().unwrap().problems, BTreeMap::new());
    }
}
