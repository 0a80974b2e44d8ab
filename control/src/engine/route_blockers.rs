//! Why routes of canaries are not in force, for whoever keeps the status of their objects.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::id::CanaryName;

use crate::view::ConditionView;

/// The condition that says whether proxies have the routes, in the word of the Gateway API for what has reached the data plane.
pub const PROGRAMMED: &str = "Programmed";
/// The condition that says whether there are proxies.
pub const CONNECTED: &str = "Connected";
/// The condition that says whether the routes may take the place of another state's.
pub(super) const ADOPTED: &str = "Adopted";
/// What may say that routes are not in force; none of them is there while they are.
pub const ROUTE_CONDITIONS: [&str; 3] = [PROGRAMMED, CONNECTED, ADOPTED];

/// Conditions of canaries whose routes are not in force, and of which that changed since it was asked for last. At most as many as are
/// managed; of those that no cluster runs, none.
#[derive(Debug, Default)]
pub(super) struct RouteBlockers {
    now: BTreeMap<CanaryName, Vec<ConditionView>>,
    changed: BTreeSet<CanaryName>,
}

impl RouteBlockers {
    /// Takes the conditions of a canary: of these, what is in the way of its routes.
    pub(super) fn note(&mut self, name: &CanaryName, conditions: &[ConditionView]) {
        let is_of_routes = |condition: &&ConditionView| ROUTE_CONDITIONS.contains(&condition.kind.as_str());
        let conditions: Vec<ConditionView> = conditions.iter().filter(is_of_routes).cloned().collect();
        if self.now.get(name).map_or(&[][..], Vec::as_slice) == conditions {
            return;
        }
        self.changed.insert(name.clone());
        if conditions.is_empty() {
            self.now.remove(name);
        } else {
            self.now.insert(name.clone(), conditions);
        }
    }

    pub(super) fn take(&mut self) -> Vec<(CanaryName, Vec<ConditionView>)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|name| (name.clone(), self.now.get(&name).cloned().unwrap_or_default())).collect()
    }

    /// Takes it that a canary is gone. One that is made anew under its name may have been given what was in this one's way: it is told
    /// that nothing is.
    pub(super) fn forget(&mut self, name: &CanaryName) {
        if self.now.remove(name).is_some() {
            self.changed.insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> ConditionView {
        ConditionView {
            kind: PROGRAMMED.to_owned(),
            status: "False".to_owned(),
            reason: "Refused".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_changed_is_taken_once_and_what_ended_is_empty() {
        let (name, mut blockers) = (CanaryName::new("prod", "backend"), RouteBlockers::default());
        blockers.note(&name, &[]);
        assert_eq!(blockers.take(), [], "in force from the beginning");
        blockers.note(&name, &[refused("one")]);
        blockers.note(&name, &[refused("one")]);
        assert_eq!(blockers.take(), [(name.clone(), vec![refused("one")])]);
        blockers.note(&name, &[refused("one")]);
        assert_eq!(blockers.take(), []);
        blockers.note(&name, &[]);
        assert_eq!(blockers.take(), [(name.clone(), Vec::new())]);
        blockers.note(&name, &[refused("two")]);
        blockers.forget(&name);
        assert_eq!(blockers.take(), [(name.clone(), Vec::new())]);
        blockers.forget(&name);
        assert_eq!(blockers.take(), []);
    }
}
