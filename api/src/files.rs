//! Files that are followed: which text of each is in force.
//!
//! Three rules. A file that is wrong is refused, and what it said before goes on. Of two that clash, the one that was in
//! force before is right. A document that is in no file any more goes on for a while: files are emptied, moved and
//! replaced in several steps, and nobody means to stop serving between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_core::id::CanaryName;
use wingbeat_core::time::{Span, Timestamp};

use super::decoded::{Decoded, Replacement};
use super::identity::DocumentId;
use super::index::Index;
use super::platform::Severity;
use super::set::{Set, Source, Uses};
use crate::desired_state::InUse;
use crate::files::stored::{Piece, Stored};
use crate::files::taken::Listeners;
use crate::platform::Platform;
use crate::problem::Problem;
use crate::report::Report;

pub use crate::files::taken::{Extent, InForce, Moment, Removal};
pub use crate::part::Part;

mod stored;
mod taken;

/// A document that is in no file goes on for so long. Longer than a checkout or a copy of a folder takes; then its removal is
/// taken for meant, and carried out.
pub const GRACE: Span = Span::from_secs(10);

/// So many files are tried one by one for what is wrong: each time all are put together.
const MAX_FILES_TRIED: usize = 16;

/// A text, and the documents of it that are missed.
type Held<'a> = (&'a Arc<Decoded>, BTreeSet<DocumentId>);

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

/// What is in force.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The present text of every file.
    present: BTreeMap<String, Present>,
    /// Files whose present text is wrong by itself.
    wrong: BTreeSet<String>,
    /// Files whose text is another one than when all were looked at last, or gone.
    changed: BTreeSet<String>,
    /// The last good text of every file.
    good: BTreeMap<String, Arc<Decoded>>,
    /// Documents that were in force and are in no file. Location most as many as were in force, and gone after [`GRACE`], but
    /// for those that others need.
    missed: BTreeMap<DocumentId, MissingDocument>,
    set: Set,
    standing: Standing,
    stored: Stored,
}

/// A text of a file.
#[derive(Debug, Clone)]
struct Present {
    decoded: Arc<Decoded>,
    /// What is wrong with it by itself.
    errors: Vec<Problem>,
}

/// How what is in force came about.
#[derive(Debug, Clone, Default)]
enum Standing {
    /// Some text is refused for what others say, or some document is in no file: whatever changes, all are looked at.
    #[default]
    Contested,
    /// It is what files say, but for those that are wrong by themselves: what a change has to do with is all that is
    /// looked at.
    Settled(Index),
}

/// A document that is in no file.
#[derive(Debug, Clone)]
struct MissingDocument {
    /// The file that had it last, as it was then.
    decoded: Arc<Decoded>,
    since: Since,
}

/// Texts that are right by themselves.
#[derive(Debug, Default)]
struct SelfConsistent {
    files: BTreeMap<String, Arc<Decoded>>,
    /// The documents in them.
    declared: BTreeSet<DocumentId>,
    /// Those that are new.
    changed: Vec<Arc<Decoded>>,
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
                let decoded = Arc::new(Decoded::new(&file, &text, Platform::Envoy));
                match only {
                    None => {
                        files.good.insert(file.clone(), decoded);
                    }
                    Some(ids) => {
                        let missed = MissingDocument { decoded, since: Since::Time(now) };
                        files.missed.extend(ids.into_iter().map(|id| (id, missed.clone())));
                    }
                }
            }
        }
        let mut report = Report::default();
        loop {
            let missed: BTreeSet<DocumentId> = files.missed.keys().cloned().collect();
            let mut set = files.combined(&files.good, &missed, &|_| None);
            let named: BTreeSet<String> = set.report.errors.iter().map(|problem| problem.file.clone()).collect();
            report.errors.append(&mut set.report.errors);
            let before = (files.good.len(), files.missed.len());
            files.good.retain(|file, _| !named.contains(file));
            files.missed.retain(|_, missed| !named.contains(&*missed.decoded.file));
            if before == (files.good.len(), files.missed.len()) {
                set.report = Report::default();
                files.set = set;
                files.stored.take(files.pieces());
                // Until they are read: those that cannot be are what they were.
                let good = files.good.iter();
                let present = |decoded: &Arc<Decoded>| Present { decoded: decoded.clone(), errors: Vec::new() };
                files.present = good.map(|(file, decoded)| (file.clone(), present(decoded))).collect();
                return (files, report);
            }
        }
    }

    /// Returns the last good text of every file.
    pub fn texts(&self) -> BTreeMap<&str, &str> {
        self.good.iter().map(|(file, decoded)| (file.as_str(), &*decoded.text)).collect()
    }

    /// Returns the names of all files, right or wrong.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.present.keys()
    }

    /// Returns the present text of a file.
    pub fn text(&self, file: &str) -> Option<&str> {
        self.present.get(file).map(|present| &*present.decoded.text)
    }

    /// Returns true if a file was changed since they were looked at.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns the files that were changed since.
    pub fn changed(&self) -> BTreeSet<String> {
        self.changed.clone()
    }

    /// Returns the host names of endpoints in these files, right or wrong.
    pub fn host_names_of(&self, files: &BTreeSet<String>) -> BTreeSet<String> {
        let files = files.iter().filter_map(|file| self.present.get(file));
        let documents = files.flat_map(|present| present.decoded.documents());
        documents.flat_map(|document| &document.hosts).map(|host| host.name.clone()).collect()
    }

    /// Returns what is in force, file by file, to be stored.
    pub fn parts(&self) -> BTreeMap<String, Vec<Part>> {
        self.stored.parts()
    }

    fn pieces(&self) -> BTreeMap<String, Vec<Piece>> {
        let mut pieces: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
        for (file, decoded) in &self.good {
            pieces.entry(file.clone()).or_default().push(Piece { decoded: decoded.clone(), only: None });
        }
        let is_in_force = |id: &DocumentId| self.set.declared.contains_key(id);
        for (decoded, ids) in self.held(is_in_force) {
            let piece = Piece { decoded: decoded.clone(), only: Some(ids) };
            pieces.entry(decoded.file.to_string()).or_default().push(piece);
        }
        pieces
    }

    /// Returns the texts with documents that are missed, as far as these count.
    fn held(&self, counts: impl Fn(&DocumentId) -> bool) -> Vec<Held<'_>> {
        let mut held: BTreeMap<(&str, &str), Held<'_>> = BTreeMap::new();
        for (id, MissingDocument { decoded, .. }) in self.missed.iter().filter(|(id, _)| counts(id)) {
            let of_text = held.entry((&decoded.file, &decoded.text));
            of_text.or_insert_with(|| (decoded, BTreeSet::new())).1.insert(id.clone());
        }
        held.into_values().collect()
    }

    /// Notes the text of a file; none if there is no such file any more.
    pub fn change(&mut self, file: &str, text: Option<&str>) {
        self.wrong.remove(file);
        self.changed.insert(file.to_owned());
        let Some(text) = text else {
            self.present.remove(file);
            return;
        };
        let before = self.good.get(file).map(Arc::as_ref);
        let decoded = Arc::new(Decoded::after(before, file, text, Platform::Envoy));
        let errors = Set::single(&decoded).report.errors;
        if !errors.is_empty() {
            self.wrong.insert(file.to_owned());
        }
        self.present.insert(file.to_owned(), Present { decoded, errors });
    }

    /// Takes what is seen now. Files with errors keep their last good text, new ones with errors are left out.
    pub fn update(&mut self, seen: Observation<'_>) -> InForce {
        let Observation { texts, in_use, unresolved, absence, now } = seen;
        let gone: Vec<String> = self.present.keys().filter(|file| !texts.contains_key(*file)).cloned().collect();
        gone.iter().for_each(|file| self.change(file, None));
        for (file, text) in texts {
            if self.text(file) != Some(text) {
                self.change(file, Some(text));
            }
        }
        self.settle(Moment { in_use: &|name| in_use.get(name).cloned(), unresolved, absence, now })
    }

    /// Takes the texts that files have now. Where nothing is contested, what a change costs depends on what it has to do with,
    /// and not on how many files there are.
    pub fn settle(&mut self, moment: Moment<'_>) -> InForce {
        let changed = std::mem::take(&mut self.changed);
        match self.replace(&changed, &moment) {
            Some(taken) => taken,
            None => self.settle_all(&moment),
        }
    }

    /// Takes changed files alone, if that comes to the same as to look at all.
    fn replace(&mut self, changed: &BTreeSet<String>, moment: &Moment<'_>) -> Option<InForce> {
        let Standing::Settled(index) = &mut self.standing else { return None };
        if !moment.unresolved.is_empty() {
            return None;
        }
        let mut files = Vec::new();
        for file in changed {
            let Present { decoded: new, errors } = self.present.get(file)?;
            let old = self.good.get(file).cloned();
            if errors.is_empty() {
                files.push(Replacement { old, new: new.clone() });
            }
        }
        let declared: BTreeSet<&DocumentId> = files.iter().flat_map(|file| file.new.ids()).collect();
        let before = files.iter().filter_map(|file| file.old.as_ref());
        let nothing_is_missed = before.flat_map(|old| old.ids()).all(|id| declared.contains(id));
        if !nothing_is_missed || !index.allows(&files, &self.set, &self.good, moment.in_use) {
            return None;
        }
        let before = self.set.clone();
        let mut touched = index.touched(&files);
        index.replace(&files);
        touched.append(&mut index.touched(&files));
        self.set.replace(&files);
        let mut report = Report::default();
        let mut parts = BTreeMap::new();
        for Replacement { new, .. } in files {
            report.warnings.append(&mut Set::single(&new).report.warnings);
            let file = new.file.to_string();
            parts.insert(file.clone(), Some(self.stored.replace(&file, new.clone())));
            self.good.insert(file, new);
        }
        report.errors.extend(self.errors_alone());
        report.errors.sort();
        report.errors.dedup();
        Some(InForce {
            set: self.set.clone(),
            report,
            missed: Vec::new(),
            removed: BTreeSet::new(),
            rests_on: BTreeSet::new(),
            again: None,
            extent: Extent::Files(changed.clone()),
            touched,
            listeners: Listeners::of(&before, &self.set),
            parts,
        })
    }

    /// Returns what is wrong with files by themselves.
    fn errors_alone(&self) -> impl Iterator<Item = Problem> + '_ {
        let wrong = self.wrong.iter().filter_map(|file| self.present.get(file));
        wrong.flat_map(|present| present.errors.iter().cloned())
    }

    /// Takes all files, and finds out who is to blame for what is wrong between them.
    fn settle_all(&mut self, moment: &Moment<'_>) -> InForce {
        let mut report = Report::default();
        let mut rests_on = BTreeSet::new();
        let SelfConsistent { mut files, declared, changed } = self.right_alone(moment, &mut report);
        self.miss(&declared, moment);
        // What is in no file goes on for those that named it before; whoever names it now is wrong.
        for decoded in &changed {
            let wrong = naming(decoded, &self.missed);
            if !wrong.is_empty() {
                report.errors.extend(wrong);
                self.revert(decoded.file.to_string(), &mut files);
            }
        }
        let given_up = |missed: &MissingDocument| match missed.since {
            Since::Time(since) => moment.now.since(since) >= GRACE,
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
        let mut set = self.combined(&files, &kept, moment.in_use);
        // Right alone, wrong together: the files that are named go on as they were, so that they hold no other one back.
        while !set.report.errors.is_empty() {
            rests_on.append(&mut set.held_by);
            // Documents that others name are no more removed than others are broken.
            let needed: BTreeSet<DocumentId> =
                set.dangling.intersection(&given_up).filter(|id| !kept.contains(id)).cloned().collect();
            if needed.is_empty() {
                let back = self.culprits(&files, &kept, &set.report.errors, moment.in_use);
                report.errors.append(&mut set.report.errors);
                if back.is_empty() {
                    break;
                }
                back.into_iter().for_each(|file| self.revert(file, &mut files));
            } else {
                missed.extend(self.tell(&needed, "on, as other documents name it"));
                kept.extend(needed);
            }
            set = self.combined(&files, &kept, moment.in_use);
        }
        self.good = files;
        let removed = self.set.declared.keys().filter(|id| !set.declared.contains_key(*id)).cloned().collect();
        // What is in a file that is refused is missed all the same: it goes once the file is taken.
        self.missed.retain(|id, _| set.declared.contains_key(id));
        report.errors.sort();
        report.errors.dedup();
        report.warnings = std::mem::take(&mut set.report.warnings);
        let touched = set.touched(&self.set);
        let listeners = Listeners::of(&self.set, &set);
        self.set = set.clone();
        self.standing = self.standing_of(&report);
        let parts = self.stored.take(self.pieces());
        let extent = Extent::Everything;
        InForce { set, report, missed, removed, rests_on, again, extent, touched, listeners, parts }
    }

    /// Returns how what is in force came about, with this wrong.
    fn standing_of(&self, report: &Report) -> Standing {
        let alone: BTreeSet<Problem> = self.errors_alone().collect();
        let is_in_force = |(file, present): (&String, &Present)| {
            self.wrong.contains(file) || self.good.get(file).is_some_and(|good| Arc::ptr_eq(good, &present.decoded))
        };
        let all_are = self.present.iter().all(is_in_force);
        if self.missed.is_empty() && all_are && report.errors.iter().all(|problem| alone.contains(problem)) {
            Standing::Settled(Index::of(self.good.values()))
        } else {
            Standing::Contested
        }
    }

    /// Returns the texts that are right by themselves, or else the last ones that were.
    fn right_alone(&self, moment: &Moment<'_>, report: &mut Report) -> SelfConsistent {
        let mut found = SelfConsistent::default();
        for (file, Present { decoded, errors }) in &self.present {
            let mut errors = errors.clone();
            if !moment.unresolved.is_empty() {
                errors.extend(Set::single(decoded).unresolved(moment.unresolved));
            }
            let good = self.good.get(file);
            if errors.is_empty() {
                found.declared.extend(decoded.ids().cloned());
                found.files.insert(file.clone(), decoded.clone());
                if good.is_none_or(|good| good.text != decoded.text) {
                    found.changed.push(decoded.clone());
                }
            } else {
                report.errors.append(&mut errors);
                let Some(good) = good else { continue };
                found.declared.extend(good.ids().cloned());
                found.files.insert(file.clone(), good.clone());
            }
        }
        found
    }

    /// Notes which documents in force are in no file.
    fn miss(&mut self, declared: &BTreeSet<DocumentId>, moment: &Moment<'_>) {
        self.missed.retain(|id, _| !declared.contains(id));
        for (id, file) in self.set.declared.iter().filter(|(id, _)| !declared.contains(*id)) {
            let Some(decoded) = self.good.get(&**file) else { continue };
            let missed = || MissingDocument { decoded: decoded.clone(), since: Since::Time(moment.now) };
            self.missed.entry(id.clone()).or_insert_with(missed);
        }
        if moment.absence == Removal::Confirmed {
            self.missed.values_mut().for_each(|missed| missed.since = Since::Meant);
        }
    }

    /// Returns what is told of documents that are in no file, once a file.
    fn tell(&self, ids: &BTreeSet<DocumentId>, goes: &str) -> Vec<Problem> {
        let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for id in ids {
            if let Some(missed) = self.missed.get(id) {
                by_file.entry(&missed.decoded.file).or_default().push(id.to_string());
            }
        }
        let tell = |(file, ids): (&str, Vec<String>)| {
            let message = format!("{} is in no file any more: it goes {goes}; put it back to keep it", ids.join(", "));
            Problem { file: file.to_owned(), line: 0, column: 0, field: String::new(), message }
        };
        by_file.into_iter().map(tell).collect()
    }

    fn combined(&self, files: &BTreeMap<String, Arc<Decoded>>, kept: &BTreeSet<DocumentId>, in_use: Uses<'_>) -> Set {
        let held = self.held(|id| kept.contains(id));
        let whole = files.values().map(|decoded| Source::whole(decoded));
        let held = held.iter().map(|(decoded, ids)| Source { decoded: decoded.as_ref(), only: Some(ids) });
        Set::combined(whole.chain(held), &self.set, in_use)
    }

    /// Returns the changed files that are to blame for what is wrong together: those that are named, or else one without
    /// which less is wrong, or else all.
    fn culprits(
        &self,
        candidate: &BTreeMap<String, Arc<Decoded>>,
        kept: &BTreeSet<DocumentId>,
        errors: &[Problem],
        in_use: Uses<'_>,
    ) -> Vec<String> {
        let named: BTreeSet<&str> = errors.iter().map(|problem| problem.file.as_str()).collect();
        let is_changed = |file: &&String| match (candidate.get(*file), self.good.get(*file)) {
            (Some(now), Some(before)) => now.text != before.text,
            (Some(_), None) | (None, Some(_)) => true,
            (None, None) => false,
        };
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

    fn revert(&self, file: String, files: &mut BTreeMap<String, Arc<Decoded>>) {
        match self.good.get(&file) {
            Some(good) => files.insert(file, good.clone()),
            None => files.remove(&file),
        };
    }
}

/// Returns what is wrong as a file names some of these documents.
fn naming<V>(decoded: &Decoded, gone: &BTreeMap<DocumentId, V>) -> Vec<Problem> {
    let named = decoded.documents().flat_map(|document| document.references.iter().map(move |it| (document, it)));
    let wrong = named.filter(|(document, it)| it.missing == Severity::Error && gone.contains_key(&document.named(it)));
    wrong.map(|(document, it)| document.dangles(it)).collect()
}
