//! Which nodes are served the same: those that the same listeners are for.
//!
//! A listener names values of `node.cluster`, or none, and is for all. What is on it goes where it goes: its routes, the
//! clusters that these lead to, and what filters are told of them. There is a scope for every value that some listener names,
//! and one for all nodes that none names: whatever nodes say that they are, there are no more.
//!
//! ```text
//!  Listener "shop", nodes [edge]     node.cluster edge ─► shop, public
//!  Listener "public", for all        any other one ─────► public
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Listener;

/// What nodes are served.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: no listener says whom it is for.
    #[default]
    Everything,
    /// What is on the listeners of these names.
    Listeners(Arc<BTreeSet<String>>),
}

impl Scope {
    /// Returns true if what is on these listeners is served.
    pub fn serves(&self, listeners: &[String]) -> bool {
        listeners.iter().any(|listener| self.has(listener)) || *self == Self::Everything
    }

    /// Returns true if this listener is served.
    pub fn has(&self, listener: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Listeners(names) => names.contains(listener),
        }
    }
}

/// Which nodes are in which scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// By value of `node.cluster`, as far as listeners name it.
    named: BTreeMap<String, Scope>,
    /// Of all others.
    others: Scope,
}

impl Scopes {
    /// Returns the scopes that these listeners make.
    pub fn of_listeners(listeners: &[Listener]) -> Self {
        let names: BTreeSet<&String> = listeners.iter().flat_map(|listener| &listener.node_clusters).collect();
        if names.is_empty() {
            return Self::default();
        }
        let scope = |is_for: &dyn Fn(&Listener) -> bool| {
            let served = listeners.iter().filter(|listener| listener.node_clusters.is_empty() || is_for(listener));
            Scope::Listeners(Arc::new(served.map(|listener| listener.name.clone()).collect()))
        };
        let named =
            names.iter().map(|name| ((*name).clone(), scope(&|listener| listener.node_clusters.contains(name))));
        Self { named: named.collect(), others: scope(&|_| false) }
    }

    /// Returns each scope once.
    pub fn all(&self) -> BTreeSet<&Scope> {
        self.named.values().chain([&self.others]).collect()
    }

    /// Returns the values of `node.cluster` that listeners name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Returns the scope of nodes that no listener names.
    pub const fn others(&self) -> &Scope {
        &self.others
    }

    /// Returns the scope of nodes that say that they are this `node.cluster`.
    pub fn of_node(&self, node_cluster: &str) -> &Scope {
        self.named.get(node_cluster).unwrap_or(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::Front;

    fn listener(name: &str, nodes: &[&str]) -> Listener {
        Listener {
            name: name.to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 80,
            node_clusters: nodes.iter().map(ToString::to_string).collect(),
            access_log: None,
            front: Front::default(),
        }
    }

    #[test]
    fn scopes_are_made_by_what_listeners_name_and_by_nothing_else() {
        let everybody = Scopes::of_listeners(&[listener("a", &[]), listener("b", &[])]);
        assert_eq!((everybody.all().len(), everybody.of_node("whatever")), (1, &Scope::Everything));
        assert!(everybody.of_node("").serves(&["of no listener".to_owned()]));

        let scopes = Scopes::of_listeners(&[listener("public", &[]), listener("shop", &["edge", "spare"])]);
        assert_eq!(scopes.all().len(), 2, "nodes that the same listeners are for share one");
        for (node, public, shop) in
            [("edge", true, true), ("spare", true, true), ("edg", true, false), ("", true, false)]
        {
            let serves = |listener: &str| scopes.of_node(node).serves(&[listener.to_owned()]);
            assert_eq!((serves("public"), serves("shop"), serves("gone")), (public, shop, false), "{node}");
        }
        let alone = Scopes::of_listeners(&[listener("shop", &["edge"])]);
        assert!(!alone.of_node("other").serves(&["shop".to_owned()]), "who is named nowhere is served nothing");
    }
}
