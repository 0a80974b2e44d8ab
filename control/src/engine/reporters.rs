//! Which nodes report, and which routes their reports show.

use std::collections::BTreeMap;

use wingbeat_core::time::Timestamp;

use crate::engine::Engine;
use crate::engine::reporter::Reporter;
use crate::view::ProxyRouteView;

impl Engine {
    /// Returns how many workers are held: of those that report, and of those whose counts are in some rollout.
    pub fn workers(&self) -> usize {
        self.fleet.workers().saturating_add(self.ledger.workers())
    }

    /// Returns the nodes that report. For people: it looks at every worker.
    pub fn reporters(&self, now: Timestamp) -> BTreeMap<String, Reporter> {
        let mut reporters: BTreeMap<String, Reporter> = BTreeMap::new();
        for (node, last) in self.fleet.reports() {
            reporters.entry(node.to_string()).or_default().last = Some(last);
        }
        for (name, canary) in self.canaries.all() {
            let nodes = canary.nodes.iter().filter(|(_, node)| !node.is_silent(now));
            for (id, node) in nodes {
                let (namespace, name) = (name.namespace.to_string(), name.name.to_string());
                let (rev, current_rev) = (node.rev.get(), canary.state.rev.get());
                let route = ProxyRouteView { namespace, name, rev, current_rev };
                reporters.entry(id.to_string()).or_default().routes.push(route);
            }
        }
        reporters
    }
}
