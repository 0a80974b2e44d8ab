//! Requests of a rollout that filters had no room to count.

use std::collections::BTreeMap;
use std::fmt;

use wingbeat_core::analysis::window::Arms;
use wingbeat_core::id::NodeId;
use wingbeat_core::verdict::Verdict;

use crate::engine::canary::node::Node;

/// No step ends while more than one request in so many was not counted: what is looked for are regressions of some
/// percent.
const ONE_IN: u64 = 100;

/// Nodes that are named; of more, the first ones.
const NAMED: usize = 3;

/// What was not counted, and where. Shown as "3 requests were not counted at edge-1: …".
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Uncounted<'a> {
    pub(super) totals: &'a Arms,
    pub(super) nodes: &'a BTreeMap<NodeId, Node>,
}

impl Uncounted<'_> {
    /// Returns how many they are.
    pub(in crate::engine) const fn requests(self) -> u64 {
        self.totals.primary.uncounted.saturating_add(self.totals.canary.uncounted)
    }

    /// Returns true if they are so large a part of an arm that they could hide what is looked for.
    pub(in crate::engine) fn may_hide_harm(self) -> bool {
        let arms = [&self.totals.primary, &self.totals.canary];
        arms.into_iter().any(|arm| arm.uncounted.saturating_mul(ONE_IN) > arm.started)
    }

    /// Returns what a verdict comes to. What was not counted may be what fails: no step ends on the rest.
    pub(super) fn hold(self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Advance(_) if self.may_hide_harm() => Verdict::NoData(self.to_string()),
            Verdict::Advance(_) | Verdict::Rollback(_) | Verdict::Continue(_) | Verdict::NoData(_) => verdict,
        }
    }
}

impl fmt::Display for Uncounted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests were not counted", self.requests())?;
        let nodes = self.nodes.iter().filter(|(_, node)| node.uncounted > 0).take(NAMED);
        let names: Vec<&str> = nodes.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            write!(f, " at {}", names.join(", "))?;
        }
        f.write_str(": filters had no room for them")
    }
}
