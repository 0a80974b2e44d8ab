//! How much a client names: it is kept for as long as its stream.

use super::{Names, Session};
use crate::session::wanted::Wanted;

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
    /// Returns the bytes of all names that the client asks for.
    pub(crate) fn named(&self) -> usize {
        self.types.iter().filter_map(|subscription| subscription.wanted.as_ref()).map(Wanted::bytes).sum()
    }
}
