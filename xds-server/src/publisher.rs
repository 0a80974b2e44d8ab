//! What is served now, watched by every stream.

use std::sync::Arc;

use tokio::sync::watch;

use crate::lineage::Lineage;
use crate::scoped_snapshots::ScopedSnapshots;

/// Holds what is served. Nothing is answered before something is published: a server that has forgotten its state
/// must not overwrite what the Envoys still know.
#[derive(Debug, Clone)]
pub struct Publisher {
    lineage: Lineage,
    latest: watch::Sender<Option<Arc<ScopedSnapshots>>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self::of(Lineage::default())
    }
}

impl Publisher {
    /// Returns one for what is made from this state.
    pub fn of(lineage: Lineage) -> Self {
        Self { lineage, latest: watch::Sender::new(None) }
    }

    /// Returns the state that it is made from.
    pub const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Serves this from now on. The same content again wakes nobody.
    pub fn publish(&self, views: ScopedSnapshots) {
        self.latest.send_if_modified(|held| {
            let changed = held.as_deref() != Some(&views);
            if changed {
                let shared = match held.as_deref() {
                    Some(earlier) => views.sharing(earlier),
                    None => views,
                };
                *held = Some(Arc::new(shared));
            }
            changed
        });
    }

    /// Returns a receiver of all that is served later; the newest wins.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<ScopedSnapshots>>> {
        self.latest.subscribe()
    }
}
