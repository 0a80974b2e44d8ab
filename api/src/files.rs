//! Files that are followed: which text of each is in force.
//!
//! Three rules. A file that is wrong is refused, and what it said before goes on. Of two that clash, the one that was in
//! force before is right. A document that is in no file any more goes on for a while: files are emptied, moved and
//! replaced in several steps, and nobody means to stop serving between two of them.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::id::CanaryName;
use wingbeat_core::time::{Span, Timestamp};

use super::identity::DocumentId;
pub use super::part::Part;
use super::problem::Problem;
use super::report::Report;
use super::set::{Set, Source};
use crate::desired_state::InUse;

/// A document that is in no file goes on for so long. Longer than a checkout or a copy of a folder takes; then its removal is
/// taken for meant, and carried out.
pub const GRACE: Span = Span::from_secs(10);

/// So many files are tried one by one for what is wrong: each time all are read.
const MAX_FILES_TRIED: usize = 16;

/// What is seen of the files, and of the world, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The present text of all files.
    pub texts: &'a BTreeMap<String, String>,
    /// The revisions that carry users, or are about to: none of them may go.
    pub in_use: &'a BTreeMap<CanaryName, InUse>,
    /// Host names without an address, with the reason: a file that has one is wrong.
    pub unresolved: &'a BTreeMap<String, String>,
    /// What it means that a document is in no file.
    pub absence: Removal,
    /// The time, of a clock that never goes back.
    pub now: Timestamp,
}

/// What it means that a document is in no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It may come back, for [`GRACE`].
    Deferred,
    /// It is to be removed: somebody says so.
    Confirmed,
}

/// What is in force from now on.
#[derive(Debug)]
pub struct InForce {
    /// The documents.
    pub set: Set,
    /// What is wrong with files, and what was left out of them.
    pub report: Report,
    /// Documents that are in no file and go on for now, or for others, told at the file that had them.
    pub missed: Vec<Problem>,
    /// Documents that are not in force any more.
    pub removed: BTreeSet<DocumentId>,
    /// Canaries for whose revisions in use something was refused. Once others are in use, it is to be looked at again.
    pub rests_on: BTreeSet<CanaryName>,
    /// When a document has been missed for long enough, and the files are to be looked at again.
    pub again: Option<Timestamp>,
}

/// What is in force.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The last good text of every file.
    good: BTreeMap<String, String>,
    /// Documents that were in force and are in no file. At most as many as were in force, and gone after [`GRACE`], but
    /// for those that others need.
    missed: BTreeMap<DocumentId, MissingDocument>,
    set: Set,
}

/// A document that is in no file.
#[derive(Debug, Clone)]
struct MissingDocument {
    /// The file that had it last, and its text then.
    file: String,
    text: String,
    since: Since,
}

/// Texts that are right by themselves.
#[derive(Debug, Default)]
struct SelfConsistent {
    texts: BTreeMap<String, String>,
    /// The documents in them.
    declared: BTreeSet<DocumentId>,
    /// What those say that are new.
    changed: BTreeMap<String, Set>,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    Time(Timestamp),
    /// Its removal is meant.
    Meant,
}

impl Files {
    /// Returns what was in force when it was stored. What is no longer right is left out and told: another version may
    /// have taken it.
    pub fn restore(parts: BTreeMap<String, Vec<Part>>, now: Timestamp) -> (Self, Report) {
        let mut files = Self::default();
        for (file, parts) in parts {
            for Part { text, only } in parts {
                match only {
                    None => {
                        files.good.insert(file.clone(), text);
                    }
                    Some(ids) => {
                        let missed = MissingDocument { file: file.clone(), text, since: Since::Time(now) };
                        files.missed.extend(ids.into_iter().map(|id| (id, missed.clone())));
                    }
                }
            }
        }
        let mut report = Report::default();
        loop {
            let missed: BTreeSet<DocumentId> = files.missed.keys().cloned().collect();
            let mut set = files.combined(&files.good, &missed, &BTreeMap::new());
            let named: BTreeSet<String> = set.report.errors.iter().map(|problem| problem.file.clone()).collect();
            report.errors.append(&mut set.report.errors);
            let before = (files.good.len(), files.missed.len());
            files.good.retain(|file, _| !named.contains(file));
            files.missed.retain(|_, missed| !named.contains(&missed.file));
            if before == (files.good.len(), files.missed.len()) {
                files.set = set;
                return (files, report);
            }
        }
    }

    /// Returns the last good text of every file.
    pub const fn texts(&self) -> &BTreeMap<String, String> {
        &self.good
    }

    /// Returns what is in force, file by file, to be stored.
    pub fn parts(&self) -> BTreeMap<String, Vec<Part>> {
        let mut missed: BTreeMap<(&str, &str), BTreeSet<DocumentId>> = BTreeMap::new();
        for (id, MissingDocument { file, text, .. }) in
            self.missed.iter().filter(|(id, _)| self.set.declared.contains_key(*id))
        {
            missed.entry((file, text)).or_default().insert(id.clone());
        }
        let mut parts: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        for (file, text) in &self.good {
            parts.entry(file.clone()).or_default().push(Part { text: text.clone(), only: None });
        }
        for ((file, text), ids) in missed {
            parts.entry(file.to_owned()).or_default().push(Part { text: text.to_owned(), only: Some(ids) });
        }
        parts
    }

    /// Takes what is seen now. Files with errors keep their last good text, new ones with errors are left out.
    pub fn update(&mut self, seen: Observation<'_>) -> InForce {
        let mut report = Report::default();
        let mut rests_on = BTreeSet::new();
        let SelfConsistent { mut texts, declared, changed } = self.right_alone(&seen, &mut report);
        self.miss(&declared, &seen);
        // What is in no file goes on for those that named it before; whoever names it now is wrong.
        for (file, set) in &changed {
            let wrong = set.naming(&self.missed);
            if !wrong.is_empty() {
                report.errors.extend(wrong);
                self.revert(file.clone(), &mut texts);
            }
        }
        let given_up = |missed: &MissingDocument| match missed.since {
            Since::Time(since) => seen.now.since(since) >= GRACE,
            Since::Meant => true,
        };
        let (given_up, mut kept): (BTreeSet<DocumentId>, BTreeSet<DocumentId>) =
            self.missed.keys().cloned().partition(|id| self.missed.get(id).is_some_and(given_up));
        let again =
            self.missed.iter().filter(|(id, _)| kept.contains(id)).filter_map(|(_, missed)| match missed.since {
                Since::Time(since) => Some(since.plus(GRACE)),
                Since::Meant => None,
            });
        let again = again.min();
        let mut missed = self.tell(&kept, &format!("on for {} s, and then it is removed", GRACE.as_millis() / 1_000));
        let mut set = self.combined(&texts, &kept, seen.in_use);
        // Right alone, wrong together: the files that are named go on as they were, so that they hold no other one back.
        while !set.report.errors.is_empty() {
            rests_on.append(&mut set.held_by);
            // Documents that others name are no more removed than others are broken.
            let needed: BTreeSet<DocumentId> =
                set.dangling.intersection(&given_up).filter(|id| !kept.contains(id)).cloned().collect();
            if needed.is_empty() {
                let back = self.culprits(&texts, &kept, &set.report.errors, seen.in_use);
                report.errors.append(&mut set.report.errors);
                if back.is_empty() {
                    break;
                }
                back.into_iter().for_each(|file| self.revert(file, &mut texts));
            } else {
                missed.extend(self.tell(&needed, "on, as other documents name it"));
                kept.extend(needed);
            }
            set = self.combined(&texts, &kept, seen.in_use);
        }
        self.good = texts;
        let removed = self.set.declared.keys().filter(|id| !set.declared.contains_key(*id)).cloned().collect();
        // What is in a file that is refused is missed all the same: it goes once the file is taken.
        self.missed.retain(|id, _| set.declared.contains_key(id));
        self.set = set.clone();
        report.errors.sort();
        report.errors.dedup();
        report.warnings.clone_from(&set.report.warnings);
        InForce { set, report, missed, removed, rests_on, again }
    }

    /// Returns the texts that are right by themselves, or else the last ones that were.
    fn right_alone(&self, seen: &Observation<'_>, report: &mut Report) -> SelfConsistent {
        let mut found = SelfConsistent::default();
        for (file, text) in seen.texts {
            let mut alone = Set::single(file, text);
            alone.report.errors.extend(alone.unresolved(seen.unresolved));
            let good = self.good.get(file);
            if alone.report.errors.is_empty() {
                found.declared.extend(alone.declared.keys().cloned());
                found.texts.insert(file.clone(), text.clone());
                if good != Some(text) {
                    found.changed.insert(file.clone(), alone);
                }
            } else {
                report.errors.append(&mut alone.report.errors);
                let Some(good) = good else { continue };
                found.declared.extend(Set::single(file, good).declared.into_keys());
                found.texts.insert(file.clone(), good.clone());
            }
        }
        found
    }

    /// Notes which documents in force are in no file.
    fn miss(&mut self, declared: &BTreeSet<DocumentId>, seen: &Observation<'_>) {
        self.missed.retain(|id, _| !declared.contains(id));
        for (id, file) in self.set.declared.iter().filter(|(id, _)| !declared.contains(*id)) {
            let Some(text) = self.good.get(&**file) else { continue };
            let missed =
                || MissingDocument { file: file.to_string(), text: text.clone(), since: Since::Time(seen.now) };
            self.missed.entry(id.clone()).or_insert_with(missed);
        }
        if seen.absence == Removal::Confirmed {
            self.missed.values_mut().for_each(|missed| missed.since = Since::Meant);
        }
    }

    /// Returns what is told of documents that are in no file, once a file.
    fn tell(&self, ids: &BTreeSet<DocumentId>, goes: &str) -> Vec<Problem> {
        let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for id in ids {
            if let Some(missed) = self.missed.get(id) {
                by_file.entry(&missed.file).or_default().push(id.to_string());
            }
        }
        let tell = |(file, ids): (&str, Vec<String>)| {
            let message = format!("{} is in no file any more: it goes {goes}; put it back to keep it", ids.join(", "));
            Problem { file: file.to_owned(), line: 0, column: 0, field: String::new(), message }
        };
        by_file.into_iter().map(tell).collect()
    }

    fn combined(
        &self,
        texts: &BTreeMap<String, String>,
        kept: &BTreeSet<DocumentId>,
        in_use: &BTreeMap<CanaryName, InUse>,
    ) -> Set {
        let mut held: BTreeMap<(&str, &str), BTreeSet<DocumentId>> = BTreeMap::new();
        for (id, missed) in self.missed.iter().filter(|(id, _)| kept.contains(*id)) {
            held.entry((&missed.file, &missed.text)).or_default().insert(id.clone());
        }
        let whole = texts.iter().map(|(file, text)| Source::whole(file, text));
        let held = held.iter().map(|((file, text), ids)| Source { file, text, only: Some(ids) });
        Set::combined(whole.chain(held), &self.set, in_use)
    }

    /// Returns the changed files that are to blame for what is wrong together: those that are named, or else one without
    /// which less is wrong, or else all.
    fn culprits(
        &self,
        candidate: &BTreeMap<String, String>,
        kept: &BTreeSet<DocumentId>,
        errors: &[Problem],
        in_use: &BTreeMap<CanaryName, InUse>,
    ) -> Vec<String> {
        let named: BTreeSet<&str> = errors.iter().map(|problem| problem.file.as_str()).collect();
        let is_changed = |file: &&String| candidate.get(*file) != self.good.get(*file);
        let changed: BTreeSet<&String> = candidate.keys().chain(self.good.keys()).filter(is_changed).collect();
        let blamed: Vec<String> =
            changed.iter().filter(|file| named.contains(file.as_str())).map(ToString::to_string).collect();
        if !blamed.is_empty() {
            return blamed;
        }
        // What is wrong is in files that were good before others changed, or went.
        let mends = |file: &&&String| {
            let mut without = candidate.clone();
            self.revert((**file).clone(), &mut without);
            self.combined(&without, kept, in_use).report.errors.len() < errors.len()
        };
        match changed.iter().take(MAX_FILES_TRIED).find(mends) {
            Some(file) => vec![(*file).clone()],
            None => changed.into_iter().cloned().collect(),
        }
    }

    fn revert(&self, file: String, texts: &mut BTreeMap<String, String>) {
        match self.good.get(&file) {
            Some(good) => texts.insert(file, good.clone()),
            None => texts.remove(&file),
        };
    }
}
