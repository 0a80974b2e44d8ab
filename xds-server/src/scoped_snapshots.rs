//! What is served at one moment, and to whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kind::Kind;
use crate::resource::Resource;
use crate::scope::{Scope, Scopes};
use crate::snapshot::Snapshot;

/// A snapshot for every scope. Nodes of the same scope share one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopedSnapshots {
    scopes: Scopes,
    snapshots: BTreeMap<Scope, Arc<Snapshot>>,
}

impl ScopedSnapshots {
    /// Makes the snapshot of each scope.
    pub(crate) fn new(scopes: Scopes, snapshot: impl Fn(&Scope) -> Snapshot) -> Self {
        let snapshots = scopes.all().into_iter().map(|scope| (scope.clone(), Arc::new(snapshot(scope)))).collect();
        Self { scopes, snapshots }
    }

    /// Changes the snapshot of each scope.
    pub(crate) fn change(&mut self, change: impl Fn(&Scope, &mut Arc<Snapshot>)) {
        self.snapshots.iter_mut().for_each(|(scope, snapshot)| change(scope, snapshot));
    }

    /// Returns what nodes are served that say that they are this `node.cluster`.
    pub fn of_node(&self, node_cluster: &str) -> Arc<Snapshot> {
        self.of_scope(self.scopes.of_node(node_cluster)).cloned().unwrap_or_default()
    }

    /// Returns a resource as it is served in some scope.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.snapshots.values().find_map(|snapshot| snapshot.of(kind).get(name))
    }

    /// Returns what nodes of this scope are served, if it is one.
    pub(crate) fn of_scope(&self, scope: &Scope) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(scope)
    }

    /// Returns the same, which shares with earlier ones what is the same in both: so that a stream sees at a glance what
    /// did not change.
    #[must_use]
    pub fn sharing(mut self, earlier: &Self) -> Self {
        for (scope, snapshot) in &mut self.snapshots {
            let Some(before) = earlier.of_scope(scope) else { continue };
            *snapshot =
                if snapshot == before { before.clone() } else { Arc::new(Snapshot::clone(snapshot).sharing(before)) };
        }
        self
    }
}
