//! What a client wants of one type.

use std::collections::BTreeSet;

use crate::kind::Kind;

/// Bytes that a name is charged with beside its own: what its string and its place in the set take.
const NAME_OVERHEAD: usize = 64;

/// Names, or all.
#[derive(Debug, Default)]
pub(super) struct SubscribedNames {
    all: bool,
    names: BTreeSet<String>,
    /// Once a client has named something, an empty list means nothing.
    named_before: bool,
}

impl SubscribedNames {
    /// Returns true if the client wants this resource.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns what the client asks for by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    /// Returns how many bytes it takes to keep the names.
    pub(super) fn bytes(&self) -> usize {
        self.names.iter().map(|name| name.len().saturating_add(NAME_OVERHEAD)).sum()
    }

    /// State of the world: these are all names. Returns those that are new.
    ///
    /// "Wildcard": no names at all mean everything, unless the client has named something before.
    pub(super) fn replace(&mut self, kind: Kind, names: &[String]) -> Vec<String> {
        let named: BTreeSet<String> = names.iter().filter(|name| *name != "*").cloned().collect();
        let star = names.iter().any(|name| name == "*");
        let new = named.difference(&self.names).cloned().collect();
        self.named_before |= !names.is_empty();
        self.all = star || (kind.has_wildcard() && !self.named_before);
        self.names = named;
        new
    }

    /// Delta: more of these, less of those. Returns the names that must be answered.
    ///
    /// "Wildcard": a first request that names nothing means everything until something is named; a name that is
    /// dropped while everything is wanted is answered, since it is still wanted.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        first: bool,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Vec<String> {
        if !self.named_before {
            self.all = subscribe.is_empty() && kind.has_wildcard() && (first || self.all);
        }
        self.named_before |= !subscribe.is_empty();
        let mut forced = Vec::new();
        for name in subscribe {
            if name == "*" {
                self.all = true;
            } else {
                self.names.insert(name.clone());
                forced.push(name.clone());
            }
        }
        for name in unsubscribe {
            if name == "*" {
                self.all = false;
            } else if self.names.remove(name) && self.all {
                forced.push(name.clone());
            }
        }
        forced
    }
}
