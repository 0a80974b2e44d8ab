//! What comes of files at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;

use crate::desired_state::{Change, InUse};
use crate::identity::DocumentId;
use crate::part::Part;
use crate::problem::Problem;
use crate::report::Report;
use crate::set::Set;

/// What is known at one moment, beside the texts of files.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Finds the revisions of a canary that carry users, or are about to: none of them may go.
    pub in_use: &'a dyn Fn(&CanaryName) -> Option<InUse>,
    /// Host names without an address, with the reason: a file that has one is wrong.
    pub unresolved: &'a BTreeMap<String, String>,
    /// What it means that a document is in no file.
    pub absence: Removal,
    /// The time, of a clock that never goes back.
    pub now: Timestamp,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("absence", &self.absence).field("now", &self.now).finish_non_exhaustive()
    }
}

/// What it means that a document is in no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It may come back, for [`GRACE`](super::GRACE).
    Deferred,
    /// It is to be removed: somebody says so.
    Confirmed,
}

/// What is in force from now on.
#[derive(Debug)]
pub struct InForce {
    /// The documents.
    pub set: Set,
    /// What is wrong with files, and what was left out of those that [`InForce::extent`] names.
    pub report: Report,
    /// Documents that are in no file and go on for now, or for others, told at the file that had them.
    pub missed: Vec<Problem>,
    /// Documents that are not in force any more.
    pub removed: BTreeSet<DocumentId>,
    /// Canaries for whose revisions in use something was refused. Once others are in use, it is to be looked at again.
    pub rests_on: BTreeSet<CanaryName>,
    /// When a document has been missed for long enough, and the files are to be looked at again.
    pub again: Option<Timestamp>,
    /// Which files were looked at.
    pub extent: Extent,
    /// Canaries that are managed in another way from now on, or not any more.
    pub(super) touched: BTreeSet<CanaryName>,
    /// Whether listeners are different.
    pub(super) listeners: Listeners,
    /// The texts of files that are stored from now on, where they are different; none for a file that is not any more.
    pub(super) parts: BTreeMap<String, Option<Vec<Part>>>,
}

/// Which files were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of them.
    Everything,
    /// These: nothing of the others is different.
    Files(BTreeSet<String>),
}

/// Whether listeners are different than they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listeners {
    Same,
    Different,
}

impl InForce {
    /// Returns what is managed in another way from now on.
    pub fn change(&self) -> Change {
        let canaries = self.touched.iter().map(|name| (name.clone(), self.set.configured(name)));
        let problems = self.report.errors.iter().chain(&self.missed).cloned().collect();
        Change {
            canaries: canaries.collect(),
            listeners: (self.listeners == Listeners::Different).then(|| self.set.all_listeners()),
            refused_files: Some(Report { errors: problems, warnings: Vec::new() }.by_file()),
            texts: self.parts.clone(),
            observed: BTreeMap::new(),
        }
    }
}

impl Listeners {
    /// Returns whether these are other listeners than before.
    pub(super) fn of(before: &Set, set: &Set) -> Self {
        let (before, set) = (&before.listeners, &set.listeners);
        let same = before.size() == set.size()
            && before
                .iter()
                .zip(set)
                .all(|((name, (_, before)), (other, (_, now)))| name == other && Arc::ptr_eq(before, now));
        if same { Self::Same } else { Self::Different }
    }
}
