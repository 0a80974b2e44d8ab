//! What was reported of a stream last, so that each change is reported once.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::Kind;
use crate::session::message::Changes;

/// The state of the stream as subscribers know it.
#[derive(Debug, Default)]
pub(super) struct ReportedChanges {
    /// What the client refuses.
    refused: BTreeMap<Kind, BTreeSet<String>>,
    /// The clusters that took too long.
    overdue: BTreeSet<String>,
    /// The hosts of another state.
    foreign: BTreeSet<String>,
}

impl ReportedChanges {
    /// Returns what is different, and takes it for told.
    pub(super) fn changes<const N: usize>(
        &mut self,
        refused: [(Kind, BTreeSet<String>); N],
        overdue: BTreeSet<String>,
        foreign: BTreeSet<String>,
    ) -> Changes {
        let mut changes = Changes::default();
        for (kind, refused) in refused {
            let told = self.refused.entry(kind).or_default();
            if *told != refused {
                told.clone_from(&refused);
                changes.refused.push((kind, refused));
            }
        }
        if overdue != self.overdue {
            self.overdue.clone_from(&overdue);
            changes.overdue = Some(overdue);
        }
        if foreign != self.foreign {
            self.foreign.clone_from(&foreign);
            changes.foreign = Some(foreign);
        }
        changes
    }
}
