//! Whether a verdict rests on one node (P24).
//!
//! A node may err, or lie. So beside the trial over all reports there is one for every node group that leaves its nodes out:
//! the jackknife (Quenouille 1949). Harm that all of them see is there whichever node is left out.
//!
//! A node that hides harm, by reporting a perfect canary or a terrible primary, is in every trial but the one that
//! leaves it out. So one trial that sees harm alone is believed too, at a level that allows for having many to choose
//! from, once it has seen it for a while: where a node makes up harm, the trials with it cross one after the other, and
//! the first of them stands alone for a moment. One that alone sees none is not enough to roll back: there, one node made
//! up the harm.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::config::JudgeConfig;
use super::sequential::count_of;
use super::test_suite::{BatchContext, TestSuite};
use super::window::{Batch, NodeGroup};
use crate::time::Span;

/// The trials take windows in together up to this length: they are asked only when the trial over all has decided.
const BATCH_SPAN: Span = Span::from_secs(1);

/// Where the trial over all decides, those that leave a node group out confirm it with evidence for a chance ten times as large:
/// that harm is found by chance stays as unlikely as it is over all, and a node that lies gets a healthy canary rolled
/// back with a chance of 10·α. To ask for all of it from each of them would take twice as long.
const CONFIRMING_EVIDENCE: f64 = core::f64::consts::LN_10;

/// A trial that sees harm alone needs evidence for this many times as rare a chance, times the number of trials: so
/// much of α is set aside for it.
const MINORITY_PENALTY: f64 = 8.0;

/// The trials without one node group each, for node groups that had something to report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Jackknife {
    trials: BTreeMap<NodeGroup, TestSuite>,
    /// What they have not taken in yet.
    pending: Option<Batch>,
    standing: BatchContext,
    /// The only node group so far: there is nothing to leave out.
    only: Option<NodeGroup>,
}

/// What leaving out says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Opinion {
    /// All see harm.
    Harm,
    /// All that count see harm; those that do not count have seen too little.
    Unopposed,
    /// Only without this node group there is harm: its nodes may hide it.
    HiddenBy {
        /// The node group.
        node_group: NodeGroup,
        /// So much more evidence there is without it than that takes.
        beyond: f64,
    },
    /// Without this node group there is no harm; or with only one more to see it, not enough yet.
    RestsOn(NodeGroup),
    /// There is no harm whichever node group is left out.
    None,
}

impl Jackknife {
    /// Takes in a window; `all` is the trial over all before it does.
    pub(crate) fn observe(&mut self, batch: &Batch, standing: BatchContext, all: &TestSuite, config: &JudgeConfig) {
        let only = *self.only.get_or_insert(batch.node_group);
        if self.trials.is_empty() && batch.node_groups().all(|node_group| node_group == only) {
            return;
        }
        if self.pending.is_some() && self.standing != standing {
            self.flush(config);
        }
        for node_group in [only].into_iter().chain(batch.node_groups()) {
            if self.trials.contains_key(&node_group) {
                continue;
            }
            // Up to now, nothing came from this node group, and everything from the only other one.
            self.flush(config);
            let without = if node_group == only { TestSuite::new(config) } else { all.clone() };
            self.trials.insert(node_group, without);
        }
        self.standing = standing;
        match &mut self.pending {
            Some(pending) => pending.extend(batch),
            None => self.pending = Some(batch.clone()),
        }
        if self.pending.as_ref().is_some_and(|pending| pending.span >= BATCH_SPAN) {
            self.flush(config);
        }
    }

    /// Lets the trials take in what waits.
    pub(crate) fn flush(&mut self, config: &JudgeConfig) {
        let Some(pending) = self.pending.take() else { return };
        for (node_group, trial) in &mut self.trials {
            trial.observe(&pending.without(*node_group), self.standing, config);
        }
    }

    /// Returns the trial without a node group.
    pub(crate) fn without(&self, node_group: NodeGroup) -> Option<&TestSuite> {
        self.trials.get(&node_group)
    }

    /// Returns true if there is no node group to be left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.trials.is_empty()
    }

    /// Notes that a step began.
    pub(crate) fn step_started(&mut self, config: &JudgeConfig) {
        self.flush(config);
        self.trials.values_mut().for_each(TestSuite::step_started);
    }

    /// Holds the canary to another limit from now on.
    pub(crate) fn limit_errors(&mut self, limit: f64) {
        self.trials.values_mut().for_each(|trial| trial.limit_errors(limit));
    }

    /// Returns what the trials say of harm, by their total evidence; `over_all` is that of the trial over all, which needs
    /// `decision_threshold`. `counts` tells of a node group whether the trial without it may contradict: where the others carry next to
    /// nothing, it cannot know.
    pub(crate) fn harm(
        &self,
        (over_all, decisive): (f64, f64),
        counts: impl Fn(NodeGroup) -> bool,
        total: impl Fn(&TestSuite) -> f64,
    ) -> Opinion {
        let has_decided = over_all >= decisive;
        let enough = if has_decided { decisive - CONFIRMING_EVIDENCE } else { decisive };
        let seen: Vec<(NodeGroup, f64)> =
            self.trials.iter().map(|(node_group, trial)| (*node_group, total(trial))).collect();
        let opposed =
            |(node_group, evidence): &&(NodeGroup, f64)| *evidence < enough && (!has_decided || counts(*node_group));
        let mut without = seen.iter().filter(opposed);
        match (without.next(), without.count()) {
            (None, _) if seen.iter().all(|(_, evidence)| *evidence >= enough) => Opinion::Harm,
            (None, _) => Opinion::Unopposed,
            (Some((node_group, _)), 0) => Opinion::RestsOn(*node_group),
            (Some(_), others) => {
                let alone = decisive + libm::log(MINORITY_PENALTY * count_of(seen.len()));
                // All but one see none.
                let mut alarmed = seen.iter().filter(|(_, evidence)| *evidence >= alone);
                let hidden = alarmed.next().filter(|_| others + 2 == seen.len());
                hidden.map_or(Opinion::None, |(node_group, seen)| Opinion::HiddenBy {
                    node_group: *node_group,
                    beyond: seen - alone,
                })
            }
        }
    }

    /// Returns true if something holds whichever node group is left out, of those whose trials count.
    pub(crate) fn all(&self, counts: impl Fn(NodeGroup) -> bool, holds: impl Fn(&TestSuite) -> bool) -> bool {
        self.trials.iter().all(|(node_group, trial)| holds(trial) || !counts(*node_group))
    }
}
