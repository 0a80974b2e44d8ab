//! The texts of files that are in force, stored: a file that is wrong when the process starts is what it was before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wingbeat_api::files::Part;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::version::Version;

use crate::engine::commit::{Commits, Purpose};
use crate::engine::persisted::{OpenError, StoredFormat, encode, read_or_leave_aside};
use crate::store::{Entries, Write};

/// The text of a file is stored under this and its name.
const PREFIX: &str = "file/";
/// Whether texts were ever stored. Earlier versions stored none.
const MARK: &str = "files";
/// Bytes of all texts that are stored. Files beyond, by their names among those that change at once, are not: that is logged, and
/// if one of them is wrong when the process starts, it is left out.
const MAX_BYTES: usize = 64 << 20;
/// Where they cannot be stored, it is tried again this often.
const RETRY_INTERVAL: Span = Span::from_secs(1);

/// What stands under [`MARK`].
#[derive(Debug, Serialize, Deserialize)]
struct Mark {}

impl StoredFormat for Mark {}
impl StoredFormat for Vec<Part> {}

/// What is stored of files, and what is still to be.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// What an earlier process stored, if one ever did, until it is asked for.
    opened: Option<BTreeMap<String, Vec<Part>>>,
    /// A digest of what is stored under each key, or will be once what is under way is.
    stored: BTreeMap<String, Version>,
    unstored: BTreeMap<String, Write>,
    /// Bytes of the texts that are in force and find room, by key, and of all of them.
    sizes: BTreeMap<String, usize>,
    bytes: usize,
    failed: Option<Timestamp>,
}

impl Texts {
    /// Reads what earlier processes stored. A text that cannot be read is left aside.
    pub(super) fn open(entries: &Entries) -> Result<Self, OpenError> {
        let mut texts = Self::default();
        let mut opened = BTreeMap::new();
        for (key, bytes) in entries {
            let Some(file) = key.strip_prefix(PREFIX) else { continue };
            texts.stored.insert(key.clone(), Version::of([bytes.as_slice()]));
            if let Some(parts) = read_or_leave_aside(entries, key)? {
                opened.insert(file.to_owned(), parts);
            }
        }
        if read_or_leave_aside::<Mark>(entries, MARK)?.is_some() {
            texts.stored.insert(MARK.to_owned(), Version::of([]));
            texts.opened = Some(opened);
        }
        Ok(texts)
    }

    /// Returns the texts that were in force when the state was stored, file by file, and forgets them. Nothing if none was
    /// ever stored: what served then is known to nobody.
    pub(super) fn restored(&mut self) -> Option<BTreeMap<String, Vec<Part>>> {
        self.opened.take()
    }

    /// Stores the texts that are in force; what cannot be stored now is stored later.
    pub(super) fn store(&mut self, commits: &mut Commits, now: Timestamp) {
        let is_tried = self.failed.is_none_or(|failed| now.since(failed) >= RETRY_INTERVAL);
        if self.unstored.is_empty() || !is_tried || commits.has(|purpose| matches!(purpose, Purpose::Texts(_))) {
            return;
        }
        let writes: Vec<Write> = std::mem::take(&mut self.unstored).into_values().collect();
        for write in &writes {
            match write {
                Write::Put(key, content) => self.stored.insert(key.clone(), Version::of([content.as_slice()])),
                Write::Delete(key) => self.stored.remove(key),
            };
        }
        commits.put(Purpose::Texts(writes.clone()), writes);
    }

    /// Notes that what was handed in is stored.
    pub(super) fn stored(&mut self) {
        self.failed = None;
    }

    /// Takes back what could not be stored, but for what was written anew. It is not known what is there instead.
    pub(super) fn not_stored(&mut self, writes: Vec<Write>, now: Timestamp) {
        self.failed = Some(now);
        for write in writes {
            let key = write.key().clone();
            match &write {
                Write::Put(..) if key == MARK => drop(self.stored.remove(&key)),
                // Something may be there, which is to be deleted should nobody want it any more.
                Write::Put(..) | Write::Delete(_) => drop(self.stored.insert(key.clone(), Version::of([]))),
            }
            self.unstored.entry(key).or_insert(write);
        }
    }

    /// Takes the texts that are in force, of all files, to store what changed.
    pub(super) fn take(&mut self, files: BTreeMap<String, Vec<Part>>) {
        let known = self.stored.keys().chain(self.unstored.keys()).filter_map(|key| key.strip_prefix(PREFIX));
        let gone = known.filter(|file| !files.contains_key(*file)).map(|file| (file.to_owned(), None));
        let gone: BTreeMap<String, Option<Vec<Part>>> = gone.collect();
        self.change(gone);
        self.change(files.into_iter().map(|(file, parts)| (file, Some(parts))).collect());
    }

    /// Takes the texts that are in force from now on of these files, none of those that are gone.
    pub(super) fn change(&mut self, files: BTreeMap<String, Option<Vec<Part>>>) {
        let mut is_full = false;
        for (file, parts) in files {
            let key = format!("{PREFIX}{file}");
            self.bytes = self.bytes.saturating_sub(self.sizes.remove(&key).unwrap_or_default());
            let content = match parts.and_then(|parts| encode(&key, &parts)) {
                Some(Write::Put(_, content)) => Some(content),
                Some(Write::Delete(_)) | None => None,
            };
            let fits = |content: &Vec<u8>| self.bytes.saturating_add(content.len()) <= MAX_BYTES;
            if !is_full && content.as_ref().is_some_and(|content| !fits(content)) {
                is_full = true;
                tracing::warn!(
                    file,
                    "the files are larger than {MAX_BYTES} bytes: from this one on, no text is stored"
                );
            }
            let write = match content.filter(|_| !is_full) {
                Some(content) => {
                    self.sizes.insert(key.clone(), content.len());
                    self.bytes = self.bytes.saturating_add(content.len());
                    let is_stored = self.stored.get(&key) == Some(&Version::of([content.as_slice()]));
                    (!is_stored).then(|| Write::Put(key.clone(), content))
                }
                None => self.stored.contains_key(&key).then(|| Write::Delete(key.clone())),
            };
            match write {
                Some(write) => self.unstored.insert(key, write),
                None => self.unstored.remove(&key),
            };
        }
        if !self.unstored.is_empty() && !self.stored.contains_key(MARK) {
            self.unstored.extend(encode(MARK, &Mark {}).map(|mark| (MARK.to_owned(), mark)));
        }
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_api::desired_state::DesiredState;

    use super::*;
    use crate::immediate::Immediate;
    use crate::store::Store as _;
    use crate::store::memory::Memory;

    fn desired_state(texts: &[(&str, &str)]) -> DesiredState {
        let part = |text: &str| vec![Part { text: text.to_owned(), only: None }];
        let texts = texts.iter().map(|(file, text)| ((*file).to_owned(), part(text))).collect();
        DesiredState { texts, ..DesiredState::default() }
    }

    fn opened(store: &Memory) -> Option<Vec<(String, String)>> {
        let texts = Immediate::open(Box::new(store.clone()), [7; 32]).unwrap().texts()?;
        Some(texts.into_iter().map(|(file, mut parts)| (file, parts.remove(0).text)).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn texts_in_force_are_there_after_a_restart() {
        let store = Memory::default();
        let now = |seconds| Timestamp::EPOCH.plus(Span::from_secs(seconds));
        assert_eq!(opened(&store), None, "nothing was ever stored");
        let mut engine = Immediate::open(Box::new(store.clone()), [7; 32]).unwrap();
        engine.configure(desired_state(&[("a", "1"), ("b", "1")]), now(1));
        store.set_full(true);
        engine.store_texts(now(1));
        store.set_full(false);
        engine.store_texts(now(1));
        assert_eq!(opened(&store), None, "it is not tried all the time");
        engine.store_texts(now(2));
        assert_eq!(opened(&store), Some(pairs(&[("a", "1"), ("b", "1")])));
        let writes = store.writes();
        engine.configure(desired_state(&[("a", "1"), ("b", "1")]), now(3));
        engine.store_texts(now(3));
        assert_eq!(store.writes(), writes, "nothing has changed");
        engine.configure(desired_state(&[("a", "2")]), now(4));
        engine.store_texts(now(4));
        assert_eq!(opened(&store), Some(pairs(&[("a", "2")])));
        engine.configure(desired_state(&[]), now(5));
        engine.store_texts(now(5));
        assert_eq!(opened(&store), Some(pairs(&[])), "some were stored, and are no longer in force");
    }

    #[test]
    fn more_text_than_there_is_room_for_is_not_stored() {
        let mut store = Memory::default();
        let mut engine = Immediate::open(Box::new(store.clone()), [7; 32]).unwrap();
        let large = "x".repeat(MAX_BYTES / 2);
        engine.configure(desired_state(&[("a", &large), ("b", &large), ("c", "1")]), Timestamp::EPOCH);
        engine.store_texts(Timestamp::EPOCH);
        let keys: Vec<String> = store.load().unwrap().into_keys().filter(|key| key.starts_with(PREFIX)).collect();
        assert_eq!(keys, ["file/a"]);
    }
}
