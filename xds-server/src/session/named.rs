//! How much a client names: it is kept for as long as its stream.

use super::{MAX_NAMES, Names, Session, Subscription};
use crate::kind::Kind;
use crate::session::subscription::SubscribedNames;

impl Names {
    /// Returns how many bytes each of them has.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        let (named, taken_back, initial): (&[String], &[String], &[(String, String)]) = match self {
            Self::All { names, .. } => (names, &[], &[]),
            Self::Change { subscribe, unsubscribe, initial } => (subscribe, unsubscribe, initial),
        };
        let initial = initial.iter().map(|(name, version)| name.len().max(version.len()));
        named.iter().chain(taken_back).map(String::len).chain(initial)
    }

    /// Returns the bytes of what a client says that it holds.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::All { .. } => 0,
            Self::Change { initial, .. } => initial.iter().map(|(name, _)| name.len()).sum(),
        }
    }
}

impl Session {
    /// Returns by how many more than [`MAX_NAMES`] the client asks for names of a type that nothing here has.
    ///
    /// Envoy asks for the endpoints of each cluster and the routes of each listener that it was sent: how many these are,
    /// it is not to blame for. Before anything is served nobody can tell, and only the bytes of names have a bound.
    pub(super) fn excess(&self, kind: Kind) -> usize {
        let Subscription { wanted, lingering, .. } = self.of(kind);
        let (Some(snapshot), Some(wanted)) = (&self.snapshot, wanted) else { return 0 };
        // Few need not be looked up.
        if wanted.len() <= MAX_NAMES {
            return 0;
        }
        let served = snapshot.of(kind);
        let is_strange = |name: &&String| !served.contains_key(*name) && !lingering.contains_key(*name);
        wanted.names().filter(is_strange).count().saturating_sub(MAX_NAMES)
    }

    /// Returns the bytes of all names that the client asks for.
    pub(crate) fn named(&self) -> usize {
        self.types.iter().filter_map(|subscription| subscription.wanted.as_ref()).map(SubscribedNames::bytes).sum()
    }
}
