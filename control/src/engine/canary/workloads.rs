//! What stands behind the arms: revisions of their own, or workloads of a cluster.

use std::sync::Arc;

use wingbeat_api::desired_state::{ObservedArms, cluster_name};
use wingbeat_core::id::{Arm, ClusterName, Revision};
use wingbeat_core::rollout::{Facts, Handover, Phase, Readiness};
use wingbeat_core::time::{Span, Timestamp};

use super::Canary;

/// Hosts and ports.
type Endpoints<'a> = &'a [(String, u16)];

/// Whose pods answer for an arm that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum StandIns {
    /// Nobody's.
    None,
    /// The canary's for the primary's: what is judged is the canary, by its own.
    ForPrimary,
    /// Each for the other: nothing is judged.
    ForBoth,
}

/// A primary without any pod that serves is replaced by the canary after this time: 3 s. One that comes back within it, after a
/// probe that failed, is what requests go back to; meanwhile the canary's pods answer for it.
const RESCUE_AFTER: Span = Span::from_secs(3);

impl Canary {
    /// Returns the revision that is wanted. Where a cluster runs it, nothing is begun before the primary serves: no requests are
    /// taken from a target that nobody can take over from. What it serves is what is begun with, whatever the target asks for.
    pub(in crate::engine) fn wanted(&self) -> Option<&Revision> {
        let Some(arms) = &self.observed else { return Some(&self.config.workload.revision) };
        if matches!(self.state.phase, Phase::Initializing) {
            // Where it has taken over before, and the state is lost, whatever it has serves.
            let goes_on = arms.entry == Arm::Primary && !arms.primary.endpoints.is_empty();
            let serves = |revision: &&Revision| goes_on || arms.primary.serves(revision).is_ready();
            return arms.primary.revision.as_ref().filter(serves);
        }
        arms.target.revision.as_ref()
    }

    /// Returns each revision's cluster with its endpoints, also those without traffic: a route never waits for one.
    pub(in crate::engine) fn revision_clusters(&self) -> Vec<(ClusterName, Vec<(String, u16)>)> {
        let plan = &self.config.plan;
        let Some(arms) = &self.observed else {
            let revisions = self.config.workload.revisions.iter();
            return revisions.map(|(revision, at)| (cluster_name(plan, revision), at.clone())).collect();
        };
        let (primary, canary) = (self.state.primary(), self.state.canary());
        // While it takes a revision over, the primary's pods are of both; and so are the target's until it is stored that there
        // is another one, and it has no requests.
        let (of_primary, of_canary) = self.endpoints(arms);
        let primary_cluster = primary.map(|it| (cluster_name(plan, it), of_primary.to_vec()));
        let canary = canary.filter(|canary| Some(*canary) != primary);
        let canary_cluster = canary.map(|it| (cluster_name(plan, it), of_canary.to_vec()));
        primary_cluster.into_iter().chain(canary_cluster).collect()
    }

    /// Returns the endpoints behind the clusters of primary and canary.
    fn endpoints<'a>(&self, arms: &'a ObservedArms) -> (Endpoints<'a>, Endpoints<'a>) {
        let (primary, target) = (arms.primary.endpoints.as_slice(), arms.target.endpoints.as_slice());
        let or = |one: Endpoints<'a>, other: Endpoints<'a>| if one.is_empty() { other } else { one };
        match self.stand_ins() {
            StandIns::None => (primary, target),
            StandIns::ForPrimary => (or(primary, target), target),
            StandIns::ForBoth => (or(primary, target), or(target, primary)),
        }
    }

    /// Returns whose pods answer for an arm that has none. No request goes nowhere while somebody serves: where the primary has no
    /// pod, as in a promotion that recreates it, the target's answer for it, unless nobody has let the canary in, or it failed.
    pub(in crate::engine) const fn stand_ins(&self) -> StandIns {
        match &self.state.phase {
            Phase::Progressing(_) => StandIns::ForPrimary,
            Phase::Promoting(_) | Phase::Finalising { .. } | Phase::Failed { on_canary: true, .. } => StandIns::ForBoth,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Succeeded { .. }
            | Phase::Failed { on_canary: false, .. } => StandIns::None,
        }
    }

    /// Takes how the workloads stand from now on.
    pub(in crate::engine) fn observe_arms(&mut self, arms: Arc<ObservedArms>, now: Timestamp) {
        let is_gone = arms.primary.endpoints.is_empty() && !arms.primary.readiness.is_ready();
        self.primary_gone = is_gone.then(|| self.primary_gone.unwrap_or(now));
        self.observed = Some(arms);
    }

    /// Returns what is known of the workloads; nothing is measured yet.
    pub(super) fn workload_facts(&self, now: Timestamp) -> Facts {
        let (primary, canary) = (self.state.primary(), self.state.canary());
        match &self.observed {
            Some(arms) => self.observed_facts(arms, now),
            None => {
                let primary = self.standing(primary);
                // The revision that served can take everything back as long as it is there.
                let intact = primary.is_ready();
                Facts { intact, primary, canary: self.standing(canary), ..Facts::unmeasured() }
            }
        }
    }

    fn observed_facts(&self, arms: &ObservedArms, now: Timestamp) -> Facts {
        let (primary, canary) = (self.state.primary(), self.state.canary());
        let heir = match &self.state.phase {
            Phase::Promoting(promotion) if promotion.handover == Handover::Copy => canary,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => primary,
        };
        Facts {
            primary: heir.map_or(Readiness::Ready, |it| arms.primary.serves(it)),
            canary: canary.map_or(Readiness::Ready, |it| arms.target.serves(it)),
            // Its pods are replaced as soon as its template is.
            intact: primary.is_some_and(|it| arms.primary.revision.as_ref() == Some(it))
                && !arms.primary.endpoints.is_empty(),
            canary_gone: canary.is_some() && arms.target.endpoints.is_empty(),
            primary_gone: self.primary_gone.is_some_and(|since| now.since(since) >= RESCUE_AFTER),
            ..Facts::unmeasured()
        }
    }

    /// Revisions that stand are ready as soon as they are wanted.
    fn standing(&self, revision: Option<&Revision>) -> Readiness {
        let Some(revision) = revision else { return Readiness::Ready };
        let endpoints = self.config.workload.revisions.get(revision);
        if endpoints.is_some_and(|endpoints| !endpoints.is_empty()) {
            return Readiness::Ready;
        }
        Readiness::NotReady { reason: format!("revision {revision} has no endpoints"), hopeless: false }
    }
}
