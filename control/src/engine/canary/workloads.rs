//! What stands behind the arms: revisions of their own, or workloads of a cluster.

use wingbeat_api::desired_state::{ObservedArms, cluster_name};
use wingbeat_core::id::{ClusterName, Revision};
use wingbeat_core::rollout::{Facts, Handover, Phase, Readiness};

use super::Canary;

impl Canary {
    /// Returns the revision that is wanted. Where a cluster runs it, nothing is begun before the primary serves: no requests are
    /// taken from a target that nobody can take over from. What it serves is what is begun with, whatever the target asks for.
    pub(in crate::engine) fn wanted(&self) -> Option<&Revision> {
        let Some(arms) = &self.observed else { return Some(&self.config.workload.revision) };
        if matches!(self.state.phase, Phase::Initializing) {
            return arms.primary.revision.as_ref().filter(|revision| arms.primary.serves(revision).is_ready());
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
        let primary_cluster = primary.map(|it| (cluster_name(plan, it), arms.primary.endpoints.clone()));
        let canary = canary.filter(|canary| Some(*canary) != primary);
        let canary_cluster = canary.map(|it| (cluster_name(plan, it), arms.target.endpoints.clone()));
        primary_cluster.into_iter().chain(canary_cluster).collect()
    }

    /// Returns what is known of the workloads; nothing is measured yet.
    pub(super) fn workload_facts(&self) -> Facts {
        let (primary, canary) = (self.state.primary(), self.state.canary());
        match &self.observed {
            Some(arms) => self.observed_facts(arms),
            None => {
                let primary = self.standing(primary);
                // The revision that served can take everything back as long as it is there.
                let intact = primary.is_ready();
                Facts { intact, primary, canary: self.standing(canary), ..Facts::unmeasured() }
            }
        }
    }

    fn observed_facts(&self, arms: &ObservedArms) -> Facts {
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
            intact: primary.is_some_and(|it| arms.primary.revision.as_ref() == Some(it)),
            canary_gone: canary.is_some() && arms.target.endpoints.is_empty(),
            primary_gone: arms.primary.endpoints.is_empty() && !arms.primary.readiness.is_ready(),
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
