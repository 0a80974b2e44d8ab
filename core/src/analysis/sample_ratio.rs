//! Whether traffic splits as the routes say.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::sequential::count;
use crate::id::NodeId;
use crate::weight::BasisPoints;

/// Requests that the prior is worth: it expects shares within a few percent of the weight.
const PRIOR: f64 = 1_000.0;

/// Evidence that the canary's share of starts is not its weight: the Dirichlet-multinomial against
/// the binomial (Lindon and Malek, arXiv 2011.03567). Starts and not completions, else a slow canary
/// looks like one that gets too little (P1). Only for weighted routes without affinity: elsewhere a
/// request's arm is not drawn by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRatio {
    weight: BasisPoints,
    canary: u64,
    primary: u64,
}

impl SampleRatio {
    /// Returns a test of one step, without evidence.
    pub const fn new(weight: BasisPoints) -> Self {
        Self { weight, canary: 0, primary: 0 }
    }

    /// Takes in requests that started.
    pub const fn observe(&mut self, canary: u64, primary: u64) {
        self.canary = self.canary.saturating_add(canary);
        self.primary = self.primary.saturating_add(primary);
    }

    /// Returns ln E. A weight of nothing or everything leaves nothing to chance: any request at the
    /// wrong arm is decisive.
    pub fn evidence(&self) -> f64 {
        let w = self.weight.fraction();
        let (canary, primary) = (count(self.canary), count(self.primary));
        if self.weight.is_zero() || self.weight == BasisPoints::FULL {
            let wrong = if self.weight.is_zero() { self.canary } else { self.primary };
            return if wrong > 0 { f64::INFINITY } else { 0.0 };
        }
        let (a, b) = (PRIOR * w, PRIOR * (1.0 - w));
        ln_beta(a + canary, b + primary) - ln_beta(a, b) - canary * libm::log(w) - primary * libm::log1p(-w)
    }

    /// Returns true if the shares differ from the weight, with a chance of at most `alpha` to say so
    /// wrongly, however often it is asked.
    pub fn objects(&self, alpha: f64) -> bool {
        self.evidence() >= -libm::log(alpha)
    }
}

/// The same for every node by itself and for all of them together: one that is stuck on old routes is named.
#[derive(Debug, Clone)]
pub struct SampleRatios {
    all: SampleRatio,
    /// Each with its evidence: they are looked at far more often than they change.
    nodes: BTreeMap<NodeId, (SampleRatio, f64)>,
}

/// Nodes that are tested by themselves in a step. Beyond it, new ones are tested with all together.
const MAX_NODES: usize = 10_000;

impl SampleRatios {
    /// Returns tests of one step, without evidence.
    pub const fn new(weight: BasisPoints) -> Self {
        Self { all: SampleRatio::new(weight), nodes: BTreeMap::new() }
    }

    /// Takes in requests that started at a node.
    pub fn observe(&mut self, node: &NodeId, canary: u64, primary: u64) {
        self.all.observe(canary, primary);
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(node) {
            return;
        }
        let (held, evidence) = match self.nodes.get_mut(node) {
            Some(held) => held,
            None => self.nodes.entry(node.clone()).or_insert_with(|| (SampleRatio::new(self.all.weight), 0.0)),
        };
        held.observe(canary, primary);
        *evidence = held.evidence();
    }

    /// Returns the nodes whose shares differ from the weight, or nothing if none do; the list is empty if only all
    /// together do. It is wrong with a chance of at most `alpha`, half of it for all together and half over the nodes.
    pub fn skewed(&self, alpha: f64) -> Option<Vec<NodeId>> {
        let each = -libm::log(alpha / 2.0 / count(self.nodes.len().max(1) as u64));
        let astray = self.nodes.iter().filter(|(_, (_, evidence))| *evidence >= each);
        let nodes: Vec<NodeId> = astray.map(|(name, _)| name.clone()).collect();
        (!nodes.is_empty() || self.all.objects(alpha / 2.0)).then_some(nodes)
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects_after(share: f64) -> u64 {
        let mut test = SampleRatio::new(BasisPoints::from_percent(5));
        let mut canary = 0.0;
        for total in 1..100_000 {
            canary += share;
            let whole = canary >= 1.0;
            if whole {
                canary -= 1.0;
            }
            test.observe(u64::from(whole), u64::from(!whole));
            if test.objects(0.001) {
                return total;
            }
        }
        u64::MAX
    }

    #[test]
    fn a_proxy_on_old_routes_shows_soon_and_the_right_share_never() {
        assert!((500..1_000).contains(&objects_after(0.0)));
        assert!((500..1_000).contains(&objects_after(0.10)));
        assert!((5_000..12_000).contains(&objects_after(0.04)));
        assert_eq!(objects_after(0.05), u64::MAX);
    }

    #[test]
    fn nothing_may_reach_a_canary_without_weight() {
        let mut test = SampleRatio::new(BasisPoints::ZERO);
        test.observe(0, 1_000);
        assert!(!test.objects(0.001));
        test.observe(1, 0);
        assert!(test.objects(0.001));
    }

    #[test]
    fn a_node_that_sends_otherwise_is_named() {
        let mut ratios = SampleRatios::new(BasisPoints::from_percent(5));
        assert_eq!(ratios.skewed(0.001), None);
        for _ in 0..60 {
            for name in ["a", "b", "c", "d"] {
                ratios.observe(&NodeId::new(name), 1, 19);
            }
            ratios.observe(&NodeId::new("stuck"), 0, 20);
        }
        assert_eq!(ratios.skewed(0.001), Some(alloc::vec![NodeId::new("stuck")]));
    }
}
