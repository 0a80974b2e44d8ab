//! ConfigMaps and Secrets of a canary: what its target's Pods read, and the copies that its primary's read.
//!
//! ```text
//!  ConfigMap NAME ─► NAME-primary          what the primary's Pods read: another one with a promotion, before its template
//!                    NAME-primary-before   what that held before, until the promotion has succeeded
//! ```
//!
//! Where two canaries refer to one of them, each has a copy of its own, or the promotion of one would change what the Pods of
//! the other read: the second one's is called `NAME-TARGET-primary`.

use std::collections::BTreeMap;

use serde_json::Value;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Phase, State};

use super::write::Write;
use crate::configs::{Content, Contents, Copied, Part, Reference, Renames, Source, Tracker, references};
use crate::desire::{ConfigCopy, Settings, kept_before};
use crate::world::{Kind, ObjectKey};

/// Which ConfigMaps and Secrets are a canary's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) name: &'a CanaryName,
    /// The uid of the Canary.
    pub(super) uid: &'a str,
    /// The name of the target.
    pub(super) target: &'a str,
    /// What the target's template refers to.
    pub(super) references: &'a [Reference],
}

/// What is known of a canary's ConfigMaps and Secrets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configs<'a> {
    scope: Scope<'a>,
    tracker: &'a Tracker,
}

impl<'a> Scope<'a> {
    /// Returns what is known of them.
    pub(super) const fn of(self, tracker: &'a Tracker) -> Configs<'a> {
        Configs { scope: self, tracker }
    }
}

/// A copy of a ConfigMap or Secret that a canary is to have.
enum Named<'a> {
    /// It is not known yet what has its name.
    Pending,
    /// All names that it may have are others'.
    Taken(String),
    /// It is called so, and holds data of this checksum; nothing: it is not there, or says nothing.
    Is(ObjectKey, Option<&'a str>),
}

/// What is to be done about the copies of a revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CopyPlan {
    /// Whether they are as they should be. No template refers to them before.
    pub(super) is_ready: bool,
    pub(super) copies: Vec<ConfigCopy>,
    pub(super) problems: Vec<String>,
    pub(super) writes: Vec<Write>,
}

impl<'a> Configs<'a> {
    fn key(&self, kind: Kind, name: &str) -> ObjectKey {
        ObjectKey::new(kind, &self.scope.name.namespace, name)
    }

    /// Returns true while something that the target's template refers to is being read for the first time.
    pub(super) fn is_pending(&self) -> bool {
        let is_pending = |it: &Reference| self.tracker.source(&self.key(it.kind, &it.name)) == Source::Pending;
        self.scope.references.iter().any(is_pending)
    }

    /// Returns what is in everything that the target's template refers to; nothing where that cannot be said.
    pub(super) fn contents(&self) -> BTreeMap<String, Option<Content>> {
        let content = |reference: &Reference| match self.tracker.source(&self.key(reference.kind, &reference.name)) {
            Source::Known(content) => Some(content),
            // Pods do not start without one that is not optional: that is trouble, and no configuration.
            Source::Absent => reference.is_optional.then_some(Content::Absent),
            Source::Pending | Source::Unknown(_) => None,
        };
        let all = self.scope.references.iter();
        all.map(|it| (Contents::id(it.kind, &it.name), content(it))).collect()
    }

    /// Returns what is wrong with what the target's template refers to.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |reference: &Reference| {
            let key = self.key(reference.kind, &reference.name);
            match self.tracker.source(&key) {
                Source::Absent if !reference.is_optional => Some(format!(
                    "{} is not there, and Deployment {}.{} refers to it: make it, or make the reference optional",
                    shown(&key),
                    self.scope.target,
                    self.scope.name.namespace
                )),
                Source::Pending | Source::Absent | Source::Unknown(_) | Source::Known(_) => {
                    self.tracker.failure(&key).map(str::to_owned)
                }
            }
        };
        self.scope.references.iter().filter_map(problem).collect()
    }

    /// Returns the names that a copy may have.
    fn names(&self, kind: Kind, name: &str) -> [ObjectKey; 2] {
        [format!("{name}-primary"), format!("{name}-{}-primary", self.scope.target)].map(|name| self.key(kind, &name))
    }

    /// Returns the copy of one. Who has a copy keeps it.
    fn copy_of(&self, kind: Kind, name: &str) -> Named<'a> {
        let names = self.names(kind, name);
        let known = names.map(|key| (self.tracker.copied(&key, self.scope.name, self.scope.uid), key));
        let mut is_pending = false;
        for (copied, key) in &known {
            match copied {
                Copied::Owned(checksum) => return Named::Is(key.clone(), *checksum),
                Copied::Pending => is_pending = true,
                Copied::Absent | Copied::Foreign => {}
            }
        }
        // One that is not known yet may be the canary's, unless it is not even asked for.
        let [(first, _), _] = &known;
        if is_pending && !matches!(first, Copied::Absent) {
            return Named::Pending;
        }
        match known.into_iter().find(|(copied, _)| *copied == Copied::Absent) {
            Some((_, key)) => Named::Is(key, None),
            None => Named::Taken(self.names(kind, name).map(|key| shown(&key)).join(" and ")),
        }
    }

    /// Returns what the primary refers to instead of these.
    pub(super) fn renames(&self, contents: &Contents) -> Renames {
        let renamed = |id: &str| {
            let key = Contents::key(id, &self.scope.name.namespace)?;
            match self.copy_of(key.kind, &key.name) {
                Named::Is(copy, _) => Some(((key.kind, key.name), copy.name)),
                Named::Pending | Named::Taken(_) => None,
            }
        };
        contents.tracked().filter_map(|(id, _)| renamed(id)).collect()
    }

    /// Returns all that is to be known, and how much of each: what the target's template refers to, and copies of these.
    pub(super) fn wanted(&self, contents: &[&Contents], keeps_before: bool) -> BTreeMap<ObjectKey, Part> {
        let mut wanted = BTreeMap::new();
        let tracked = contents.iter().flat_map(|contents| contents.tracked());
        for (id, checksum) in tracked {
            let Some(key) = Contents::key(id, &self.scope.name.namespace) else { continue };
            let [first, second] = self.names(key.kind, &key.name);
            if self.tracker.copied(&first, self.scope.name, self.scope.uid) == Copied::Foreign {
                wanted.insert(second, Part::Metadata);
            }
            if let (true, Named::Is(copy, holds)) = (keeps_before, self.copy_of(key.kind, &key.name)) {
                let before = kept_before(&copy);
                let kept = self.tracker.copied(&before, self.scope.name, self.scope.uid);
                if holds.is_some_and(|holds| holds != checksum) || matches!(kept, Copied::Owned(Some(_))) {
                    wanted.insert(before, Part::Metadata);
                }
            }
            wanted.insert(first, Part::Metadata);
        }
        let sources = self.scope.references.iter().map(|it| (self.key(it.kind, &it.name), Part::Whole));
        wanted.extend(sources);
        wanted
    }

    /// Returns what is to be done so that a primary can have the template of a revision, with these ConfigMaps and Secrets; where
    /// it has that already, this is its template.
    pub(super) fn plan(&self, canary: &Value, state: &State, contents: &Contents, runs: Option<&Value>) -> CopyPlan {
        let mut plan = CopyPlan { is_ready: true, ..CopyPlan::default() };
        let read_by_primary = runs.map(references);
        for (id, checksum) in contents.tracked() {
            let Some(source) = Contents::key(id, &self.scope.name.namespace) else { continue };
            let (copy, holds) = match self.copy_of(source.kind, &source.name) {
                Named::Is(copy, holds) => (copy, holds),
                Named::Pending => {
                    plan.is_ready = false;
                    let names = self.names(source.kind, &source.name);
                    plan.problems.extend(names.iter().filter_map(|key| self.tracker.failure(key)).map(str::to_owned));
                    continue;
                }
                Named::Taken(names) => {
                    plan.is_ready = false;
                    plan.problems.push(format!(
                        "{} cannot be copied for the primary, as {names} belong to others: rename one of them",
                        shown(&source)
                    ));
                    continue;
                }
            };
            let reads = |all: &Vec<Reference>| all.iter().any(|it| it.kind == copy.kind && it.name == copy.name);
            if read_by_primary.as_ref().is_some_and(|all| !reads(all)) {
                // It was made before this one was tracked.
                continue;
            }
            let before = kept_before(&copy);
            let kept = match self.tracker.copied(&before, self.scope.name, self.scope.uid) {
                Copied::Owned(kept) => kept,
                Copied::Pending | Copied::Absent | Copied::Foreign => None,
            };
            if holds == Some(checksum) {
                let is_over = matches!(state.phase, Phase::Succeeded { .. } | Phase::Initialized { .. });
                if let (true, Some(_)) = (is_over && runs.is_some(), kept) {
                    let emptied = ConfigCopy::emptied(canary, &before);
                    plan.writes.extend(emptied.map(|object| Write::Apply(before, object)));
                }
                continue;
            }
            plan.is_ready = false;
            let unread = [&copy, &before].into_iter().filter_map(|key| self.tracker.failure(key));
            plan.problems.extend(unread.map(str::to_owned));
            // What served is overwritten only once it is kept (P27).
            if let (Phase::Promoting(_), Some(held)) = (&state.phase, holds)
                && kept != Some(held)
            {
                plan.keep(
                    &copy,
                    before,
                    held,
                    self.tracker.copied(&kept_before(&copy), self.scope.name, self.scope.uid),
                );
                continue;
            }
            let is_source = self.tracker.source(&source) == Source::Known(Content::Checksum(checksum.to_owned()));
            let from = if is_source { Some(source.clone()) } else { (kept == Some(checksum)).then(|| before.clone()) };
            match from {
                Some(from) => plan.copies.push(ConfigCopy { from, to: copy, checksum: checksum.to_owned() }),
                None => plan.problems.push(format!(
                    "{} should hold what {} held once (checksum {checksum}), which is not to be had any more: give it that again, \
                     or change it, and it is rolled out anew",
                    shown(&copy),
                    shown(&source)
                )),
            }
        }
        plan
    }

    /// Returns true unless the template refers to something of which it is not known what is in it.
    pub(super) fn knows_all(template: &Value, contents: &Contents, settings: &Settings) -> bool {
        !settings.tracks_configs || references(template).iter().all(|it| contents.knows(it.kind, &it.name))
    }
}

impl CopyPlan {
    fn keep(&mut self, copy: &ObjectKey, before: ObjectKey, held: &str, there: Copied<'_>) {
        match there {
            Copied::Pending => {}
            Copied::Absent | Copied::Owned(_) => {
                self.copies.push(ConfigCopy { from: copy.clone(), to: before, checksum: held.to_owned() });
            }
            Copied::Foreign => self.problems.push(format!(
                "{} belongs to others, where what {} holds is to be kept in a promotion: rename it",
                shown(&before),
                shown(copy)
            )),
        }
    }
}

/// Returns what an object is called in messages.
fn shown(key: &ObjectKey) -> String {
    let kind = if key.kind == Kind::Secret { "Secret" } else { "ConfigMap" };
    format!("{kind} {}.{}", key.name, key.namespace)
}

/// Returns what a target's template refers to that may be tracked.
pub(super) fn tracked_references(target: Option<&Value>, tracks: bool) -> Vec<Reference> {
    let template = target.filter(|_| tracks).and_then(|target| target.pointer("/spec/template"));
    template.map(references).unwrap_or_default()
}
