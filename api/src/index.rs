//! What documents have to do with each other: which of them a change may concern, so that no others are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use wingbeat_core::id::CanaryName;

use super::conflict::Claimed;
use super::decoded::{Content, Decoded, Document, Replacement};
use super::identity::DocumentId;
use super::set::{Set, Source, Uses};

/// What documents in force have to do with each other. As large as they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Each document that is named, with one that names it.
    named: BTreeSet<(DocumentId, DocumentId)>,
    /// What canaries have for themselves.
    claims: BTreeMap<Claimed, CanaryName>,
}

impl Index {
    /// Returns the index of these files.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Arc<Decoded>>) -> Self {
        let mut index = Self::default();
        files.into_iter().flat_map(|decoded| decoded.documents()).for_each(|document| index.add(document));
        index
    }

    /// Follows files whose texts are replaced.
    pub(super) fn replace(&mut self, files: &[Replacement]) {
        for document in files.iter().filter_map(|file| file.old.as_ref()).flat_map(|decoded| decoded.documents()) {
            for (id, named) in names(document) {
                self.named.remove(&(named, id));
            }
            things(document).into_iter().for_each(|thing| drop(self.claims.remove(&thing)));
        }
        files.iter().flat_map(|file| file.new.documents()).for_each(|document| self.add(document));
    }

    fn add(&mut self, document: &Document) {
        self.named.extend(names(document).map(|(id, named)| (named, id)));
        let claims = things(document).into_iter().map(|thing| (thing, document.name.clone()));
        self.claims.extend(claims);
    }

    /// Returns the documents that name this one.
    fn naming<'a>(&'a self, id: &'a DocumentId) -> impl Iterator<Item = &'a DocumentId> {
        let nobody = DocumentId { kind: String::new(), name: CanaryName::new("", "") };
        let from = Bound::Included((id.clone(), nobody));
        self.named.range((from, Bound::Unbounded)).take_while(move |(named, _)| named == id).map(|(_, by)| by)
    }

    /// Returns the canaries that are managed in another way once these files are replaced.
    pub(super) fn touched(&self, files: &[Replacement]) -> BTreeSet<CanaryName> {
        let ids = files.iter().flat_map(Replacement::different).filter_map(|document| document.id.as_ref());
        // A canary is managed in the same way whatever its listeners are.
        let changed: BTreeSet<&DocumentId> = ids.filter(|id| id.kind != "Listener").collect();
        let concerned = changed.iter().flat_map(|id| self.naming(id)).chain(changed.iter().copied());
        concerned.filter(|id| id.kind == "Canary").map(|id| id.name.clone()).collect()
    }

    /// Returns true if all rules between documents hold once these files are replaced, as they hold now. Only documents are
    /// looked at that a rule has in common with a changed one, by the very rules that hold for all.
    pub(super) fn allows(
        &self,
        files: &[Replacement],
        set: &Set,
        in_force: &BTreeMap<String, Arc<Decoded>>,
        in_use: Uses<'_>,
    ) -> bool {
        let around = self.around(files, set, in_force);
        let mut only: BTreeMap<&str, BTreeSet<DocumentId>> = BTreeMap::new();
        for id in around {
            if let Some(file) = set.declared.get(&id) {
                only.entry(file).or_default().insert(id);
            }
        }
        let neighbours = only.iter().filter_map(|(file, ids)| {
            in_force.get(*file).map(|decoded| Source { decoded: decoded.as_ref(), only: Some(ids) })
        });
        let replaced = files.iter().map(|file| Source::whole(&file.new));
        // The others first: whoever has their names, too, is to be seen. Who is to blame is asked where something is wrong.
        Set::combined(neighbours.chain(replaced), &Set::default(), in_use).report.errors.is_empty()
    }

    /// Returns the documents of other files that a rule has in common with one of these.
    fn around(
        &self,
        files: &[Replacement],
        set: &Set,
        in_force: &BTreeMap<String, Arc<Decoded>>,
    ) -> BTreeSet<DocumentId> {
        let replaced: BTreeSet<&str> = files.iter().map(|file| &*file.new.file).collect();
        let foreign = |id: &DocumentId| set.declared.get(id).filter(|file| !replaced.contains(&***file));
        let mut found = BTreeSet::new();
        for document in files.iter().flat_map(Replacement::documents) {
            let Some(id) = &document.id else { continue };
            found.insert(id.clone());
            found.extend(self.naming(id).cloned());
            if let Some(Content::Listener(listener)) = &document.content {
                let same = set.listeners.iter().filter(|(_, (_, other))| other.port == listener.port);
                found.extend(same.map(|(name, _)| DocumentId::new("Listener", CanaryName::new("", name.clone()))));
            }
            let holders = things(document).into_iter().filter_map(|thing| self.claims.get(&thing));
            found.extend(holders.map(|name| DocumentId::new("Canary", name.clone())));
        }
        found.retain(|id| foreign(id).is_some());
        // All that these name has to be there, too.
        let mut todo: Vec<DocumentId> = found.iter().cloned().collect();
        for (_, named) in files.iter().flat_map(|file| file.new.documents()).flat_map(|document| names(document)) {
            if foreign(&named).is_some() && found.insert(named.clone()) {
                todo.push(named);
            }
        }
        while let Some(id) = todo.pop() {
            let Some(decoded) = foreign(&id).and_then(|file| in_force.get(&**file)) else { continue };
            let document = decoded.documents().find(|document| document.id.as_ref() == Some(&id));
            for (_, named) in document.into_iter().flat_map(|document| names(document)) {
                if foreign(&named).is_some() && found.insert(named.clone()) {
                    todo.push(named);
                }
            }
        }
        found
    }
}

/// Returns the id of a document with that of each that it names.
fn names(document: &Document) -> impl Iterator<Item = (DocumentId, DocumentId)> + '_ {
    let named = document.id.iter().flat_map(|id| document.references.iter().map(move |named| (id, named)));
    named.map(|(id, named)| (id.clone(), document.named(named)))
}

/// Returns what a document has for itself.
fn things(document: &Document) -> Vec<Claimed> {
    match &document.content {
        Some(Content::Canary(canary)) => Claimed::of(&document.name, canary),
        Some(Content::Workload(_) | Content::Listener(_) | Content::Channel(_) | Content::Template(_)) | None => {
            Vec::new()
        }
    }
}
