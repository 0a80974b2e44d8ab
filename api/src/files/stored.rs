//! What of files is stored: all that is in force, so that it is there after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decoded::Decoded;
use crate::identity::DocumentId;
use crate::part::Part;

/// A part of what is in force, as long as nobody has to write it.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) decoded: Arc<Decoded>,
    pub(super) only: Option<BTreeSet<DocumentId>>,
}

impl Piece {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.decoded, &other.decoded) && self.only == other.only
    }

    fn part(&self) -> Part {
        Part { text: self.decoded.text.to_string(), only: self.only.clone() }
    }
}

/// What is stored, file by file.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored(BTreeMap<String, Vec<Piece>>);

impl Stored {
    /// Returns all of it.
    pub(super) fn parts(&self) -> BTreeMap<String, Vec<Part>> {
        self.0.iter().map(|(file, pieces)| (file.clone(), parts(pieces))).collect()
    }

    /// Takes all that is in force. Returns the files of which something else is to be stored, none for one that is gone.
    pub(super) fn take(&mut self, pieces: BTreeMap<String, Vec<Piece>>) -> BTreeMap<String, Option<Vec<Part>>> {
        let mut changed: BTreeMap<String, Option<Vec<Part>>> = BTreeMap::new();
        for (file, now) in &pieces {
            let before = self.0.get(file).map(Vec::as_slice).unwrap_or_default();
            let is_same = before.len() == now.len() && before.iter().zip(now).all(|(before, now)| before.is(now));
            if !is_same {
                changed.insert(file.clone(), Some(parts(now)));
            }
        }
        let gone = self.0.keys().filter(|file| !pieces.contains_key(*file));
        changed.extend(gone.map(|file| (file.clone(), None)));
        self.0 = pieces;
        changed
    }

    /// Takes a file's text, all of which is in force. Returns what is to be stored of it.
    pub(super) fn replace(&mut self, file: &str, decoded: Arc<Decoded>) -> Vec<Part> {
        let pieces = vec![Piece { decoded, only: None }];
        let parts = parts(&pieces);
        self.0.insert(file.to_owned(), pieces);
        parts
    }
}

fn parts(pieces: &[Piece]) -> Vec<Part> {
    pieces.iter().map(Piece::part).collect()
}
