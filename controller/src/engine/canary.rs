//! One managed canary: its state, its judge, and what its nodes serve.

use std::collections::{BTreeMap, VecDeque};

use wingbeat_core::analysis::judge::{Assessment, Flowing, Judge};
use wingbeat_core::analysis::window::{Arms, Batch};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{Arm, ClusterName, NodeId, Rev};
use wingbeat_core::rollout::{Phase, Routes, State, project};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::weight::BasisPoints;

use crate::setup::{Managed, cluster_name};

/// Command ids that are remembered, so that a repeated command acts once.
const IDS_KEPT: usize = 256;
/// Windows that a rate is made of.
const RECENT: usize = 5;
/// Requests of a canary that nothing is known about are overdue after this time …
const OVERDUE_AT_FIRST: Span = Span::from_secs(1);
/// … and later after so many times the primary's p99, within bounds.
const OVERDUE_TIMES_P99: u64 = 4;
const OVERDUE_BOUNDS: (Span, Span) = (Span::from_millis(250), Span::from_secs(30));

/// A managed canary.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) managed: Managed,
    pub(super) state: State,
    /// The state could not be stored: an abort that is served already.
    pub(super) unstored: bool,
    pub(super) assessed: Option<Assessment>,
    /// Judged traffic of the rollout, and of the last windows.
    pub(super) totals: Arms,
    pub(super) recent: VecDeque<Batch>,
    pub(super) overdue: Span,
    judge: Judge,
    nodes: BTreeMap<NodeId, Node>,
    ids: VecDeque<String>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    rev: Rev,
    last: Timestamp,
}

impl Canary {
    pub(super) fn new(managed: Managed, state: State) -> Self {
        let judge = Judge::new(managed.judge.clone());
        Self {
            managed,
            state,
            unstored: false,
            assessed: None,
            totals: Arms::default(),
            recent: VecDeque::new(),
            overdue: OVERDUE_AT_FIRST,
            judge,
            nodes: BTreeMap::new(),
            ids: VecDeque::new(),
        }
    }

    /// Returns true while a rollout is on.
    pub(super) const fn is_judged(&self) -> bool {
        matches!(self.state.phase, Phase::Progressing(_))
    }

    /// Returns where requests go.
    pub(super) fn routes(&self) -> Routes {
        project(&self.state).routes
    }

    /// Returns the cluster of an arm, while there are two.
    pub(super) fn cluster(&self, arm: Arm) -> Option<ClusterName> {
        match self.routes() {
            Routes::Weighted { primary, canary, .. } => {
                let revision = match arm {
                    Arm::Primary => primary,
                    Arm::Canary => canary,
                };
                Some(cluster_name(&self.managed.plan, &revision))
            }
            Routes::Nowhere | Routes::Settled(_) => None,
        }
    }

    /// Returns the arm that a cluster is of.
    pub(super) fn arm_of(&self, cluster: &ClusterName) -> Option<Arm> {
        Arm::ALL.into_iter().find(|arm| self.cluster(*arm).as_ref() == Some(cluster))
    }

    /// Takes a new state over: a new rollout or a new weight begins to be judged.
    pub(super) fn adopt(&mut self, state: State, now: Timestamp) {
        let old = std::mem::replace(&mut self.state, state);
        if old.rollout != self.state.rollout {
            self.judge = Judge::new(self.managed.judge.clone());
            self.totals = Arms::default();
            self.recent.clear();
            self.assessed = None;
            self.overdue = OVERDUE_AT_FIRST;
        }
        let weight = self.routes().canary_weight();
        if old.rev != self.state.rev && weight > BasisPoints::ZERO {
            self.judge.step_started(weight, now);
        }
    }

    /// Notes what a node serves. Returns its rev if it is later than ours.
    pub(super) fn saw(&mut self, node: &NodeId, counts: &Counts, now: Timestamp) -> Option<Rev> {
        let held = self.nodes.entry(node.clone()).or_insert_with(|| Node { rev: Rev::default(), last: now });
        held.rev = held.rev.max(counts.rev);
        held.last = now;
        (counts.rev > self.state.rev).then_some(counts.rev)
    }

    /// Returns whether every node that carries traffic serves the current routes.
    pub(super) fn flowing(&mut self, now: Timestamp, silent: Span) -> Flowing {
        self.nodes.retain(|_, node| now.since(node.last) <= silent);
        let behind = self.nodes.iter().filter(|(_, node)| node.rev < self.state.rev);
        let laggards: Vec<NodeId> = behind.map(|(name, _)| name.clone()).collect();
        if laggards.is_empty() && !self.nodes.is_empty() { Flowing::Yes } else { Flowing::No { laggards } }
    }

    /// Takes a window that is over.
    pub(super) fn observe(&mut self, batch: &Batch) {
        if !self.is_judged() {
            return;
        }
        self.judge.observe(batch);
        self.totals.primary.merge(&batch.judged.primary);
        self.totals.canary.merge(&batch.judged.canary);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(batch.clone());
        if let Some((_, p99_us)) = self.totals.primary.latency.quantile(0.99) {
            let limit = Span::from_micros(p99_us.saturating_mul(OVERDUE_TIMES_P99));
            let limit = limit.clamp(OVERDUE_BOUNDS.0, OVERDUE_BOUNDS.1);
            // Every change is a new policy for all filters: small ones are not worth it.
            let (small, large) = (self.overdue.min(limit), self.overdue.max(limit));
            if large.as_nanos() > small.as_nanos().saturating_mul(3) / 2 {
                self.overdue = limit;
            }
        }
    }

    /// Returns the judge's word, while there is something to judge.
    pub(super) fn assess(&mut self, now: Timestamp, flowing: &Flowing) -> Option<Assessment> {
        if !self.is_judged() {
            return None;
        }
        let assessed = self.judge.assess(now, flowing);
        self.assessed = Some(assessed.clone());
        Some(assessed)
    }

    /// Returns true the first time that it is asked for this id.
    pub(super) fn is_first(&mut self, id: &str) -> bool {
        if self.ids.iter().any(|known| known == id) {
            return false;
        }
        if self.ids.len() >= IDS_KEPT {
            self.ids.pop_front();
        }
        self.ids.push_back(id.to_owned());
        true
    }

    /// Returns the evidence at which the judge decides, as a natural logarithm.
    pub(super) fn decisive(&self) -> f64 {
        self.managed.judge.decisive()
    }
}
