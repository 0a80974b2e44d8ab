//! The configured canaries, with indexes: the owner of a cluster, the canaries that are not at rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wingbeat_api::desired_state::{CanaryConfig, ObservedArms, ObservedWorkload};
use wingbeat_core::id::{Arm, CanaryName, ClusterName, Revision};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::model::{Listener, ServedHost};

use crate::engine::canary::Canary;
use crate::engine::routes::ServedHosts;

/// The canaries by name. What is derived from them is kept beside them, so that a report costs the same whether there
/// are ten or ten thousand.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    by_name: BTreeMap<CanaryName, Canary>,
    /// Whose each cluster is that filters count. Found by name only: no order is asked of it.
    owners: HashMap<ClusterName, (CanaryName, Arm)>,
    /// The clusters of each canary that is in there.
    clusters: BTreeMap<CanaryName, [ClusterName; 2]>,
    /// Those that time alone may take further, or that could not be stored.
    busy: BTreeSet<CanaryName>,
    judged: BTreeSet<CanaryName>,
    /// Those with an abort that is not stored.
    unstored: BTreeSet<CanaryName>,
    /// Those with a question to somebody outside.
    asking: BTreeSet<CanaryName>,
    served: ServedHosts,
}

impl Canaries {
    /// Returns all of them.
    pub(super) const fn all(&self) -> &BTreeMap<CanaryName, Canary> {
        &self.by_name
    }

    pub(super) fn get(&self, name: &CanaryName) -> Option<&Canary> {
        self.by_name.get(name)
    }

    /// Returns a canary to be measured: its state and what is configured stay as they are.
    pub(super) fn measure(&mut self, name: &CanaryName) -> Option<&mut Canary> {
        self.by_name.get_mut(name)
    }

    /// Changes a canary's state.
    pub(super) fn change(&mut self, name: &CanaryName, change: impl FnOnce(&mut Canary)) {
        let Some(canary) = self.by_name.get_mut(name) else { return };
        let seen = |canary: &Canary| (canary.state.rev, canary.is_counted(), canary.adoption, canary.stand_ins());
        let before = seen(canary);
        change(canary);
        // Where requests go changes with the rev, and only with it; who answers them, with who stands in for whom.
        if before != seen(canary) {
            self.served.renew(name, canary);
        }
        self.index(name);
    }

    /// Manages a canary in another way from now on. Returns the fields that began to wait for the next rollout.
    pub(super) fn configure(&mut self, name: &CanaryName, config: Arc<CanaryConfig>) -> Vec<&'static str> {
        let Some(canary) = self.by_name.get_mut(name) else { return Vec::new() };
        let waiting = canary.rewrite(config);
        self.served.renew(name, canary);
        self.index(name);
        waiting
    }

    /// Has a canary's revisions at these endpoints from now on, whatever else of its configuration waits.
    pub(super) fn move_revisions(&mut self, name: &CanaryName, revisions: BTreeMap<Revision, Vec<(String, u16)>>) {
        let Some(canary) = self.by_name.get_mut(name) else { return };
        // What is in use stays, wherever the next step leads.
        for (revision, endpoints) in revisions {
            Arc::make_mut(&mut canary.config).workload.revisions.insert(revision, endpoints);
        }
        self.served.renew(name, canary);
    }

    /// Notes how a canary's workloads stand from now on.
    pub(super) fn observe(&mut self, name: &CanaryName, arms: Arc<ObservedArms>, now: Timestamp) {
        let Some(canary) = self.by_name.get_mut(name) else { return };
        let is_served_as = |before: &ObservedArms| {
            let served = |workload: &ObservedWorkload| (workload.revision.clone(), workload.endpoints.clone());
            (served(&before.primary), served(&before.target)) == (served(&arms.primary), served(&arms.target))
        };
        let is_same = canary.observed.as_deref().is_some_and(is_served_as);
        canary.observe_arms(arms, now);
        if !is_same {
            self.served.renew(name, canary);
        }
        self.index(name);
    }

    pub(super) fn insert(&mut self, name: &CanaryName, canary: Canary) {
        self.served.renew(name, &canary);
        self.by_name.insert(name.clone(), canary);
        self.index(name);
    }

    pub(super) fn remove(&mut self, name: &CanaryName) -> Option<Canary> {
        let removed = self.by_name.remove(name);
        self.served.remove(name);
        self.index(name);
        removed
    }

    /// Notes whom the listeners are for until now: what these nodes counted of a rollout is still on its way.
    pub(super) fn note_nodes(&mut self, listeners: &[Listener], now: Timestamp) {
        for canary in self.by_name.values_mut().filter(|canary| canary.is_counted()) {
            let own = &canary.config.service.listeners;
            canary.former.note(listeners.iter().filter(|listener| own.contains(&listener.name)), now);
        }
    }

    /// Returns true if something is served in another way since that was asked for last.
    pub(super) fn have_changed(&self) -> bool {
        self.served.have_changed()
    }

    /// Returns what is served in another way since this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeMap<Arc<str>, Option<Arc<ServedHost>>> {
        self.served.take_changed()
    }

    #[cfg(test)]
    pub(super) const fn served(&self) -> &BTreeMap<CanaryName, Arc<ServedHost>> {
        self.served.all()
    }

    /// Returns the cluster that a canary's routes lead to and that there is none of, if one is missing.
    pub(super) fn missing(&self, name: &CanaryName) -> Option<&ClusterName> {
        self.served.missing(name)
    }

    /// Returns whose a cluster is.
    pub(super) fn owner(&self, cluster: &str) -> Option<&(CanaryName, Arm)> {
        self.owners.get(cluster)
    }

    /// Returns those that are not at rest.
    pub(super) const fn busy(&self) -> &BTreeSet<CanaryName> {
        &self.busy
    }

    /// Returns those with an abort that is not stored.
    pub(super) fn unstored(&self) -> impl Iterator<Item = &CanaryName> {
        self.unstored.iter()
    }

    /// Returns true while some rollout is on.
    pub(super) fn is_judging(&self) -> bool {
        !self.judged.is_empty()
    }

    /// Returns those in a rollout.
    pub(super) fn judged(&self) -> impl Iterator<Item = (&CanaryName, &Canary)> {
        self.judged.iter().filter_map(|name| self.by_name.get_key_value(name))
    }

    /// Returns those that filters are told of.
    pub(super) fn in_policy(&self) -> impl Iterator<Item = &Canary> {
        // What is told of is not at rest.
        self.busy.iter().filter_map(|name| self.by_name.get(name)).filter(|canary| canary.is_in_policy())
    }

    /// Returns those with an open question.
    pub(super) fn asking(&self) -> impl Iterator<Item = (&CanaryName, &Canary)> {
        self.asking.iter().filter_map(|name| self.by_name.get_key_value(name))
    }

    fn index(&mut self, name: &CanaryName) {
        for cluster in self.clusters.remove(name).into_iter().flatten() {
            self.owners.remove(&cluster);
        }
        let canary = self.by_name.get(name);
        if let Some([primary, canary]) = canary.and_then(Canary::clusters) {
            self.owners.insert(primary.clone(), (name.clone(), Arm::Primary));
            self.owners.insert(canary.clone(), (name.clone(), Arm::Canary));
            self.clusters.insert(name.clone(), [primary, canary]);
        }
        note(&mut self.busy, name, canary.is_some_and(|canary| !canary.is_at_rest()));
        note(&mut self.judged, name, canary.is_some_and(Canary::is_judged));
        note(&mut self.unstored, name, canary.is_some_and(|canary| canary.unstored));
        note(&mut self.asking, name, canary.is_some_and(Canary::asks));
    }
}

fn note(set: &mut BTreeSet<CanaryName>, name: &CanaryName, belongs: bool) {
    if !belongs {
        set.remove(name);
    } else if !set.contains(name) {
        set.insert(name.clone());
    }
}

#[cfg(test)]
impl Canaries {
    /// Checks what is kept beside the canaries against the canaries.
    pub(super) fn check(&self) {
        let names = |holds: &dyn Fn(&Canary) -> bool| -> BTreeSet<CanaryName> {
            self.by_name.iter().filter(|(_, canary)| holds(canary)).map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(self.busy, names(&|canary| !canary.is_at_rest()));
        assert_eq!(self.judged, names(&Canary::is_judged));
        assert_eq!(self.unstored, names(&|canary| canary.unstored));
        assert!(self.by_name.values().all(|canary| canary.epoch() == canary.made_epoch()));
        let expected = names(&Canary::is_in_policy);
        assert_eq!(self.in_policy().map(|canary| canary.config.plan.name().clone()).collect::<BTreeSet<_>>(), expected);
        assert_eq!(self.asking, names(&Canary::asks));
        let arms = self.by_name.iter().flat_map(|(name, canary)| {
            Arm::ALL.into_iter().filter_map(|arm| Some((canary.cluster(arm)?, (name.clone(), arm))))
        });
        let mut anew = ServedHosts::default();
        self.by_name.iter().for_each(|(name, canary)| anew.renew(name, canary));
        assert_eq!(self.served.all(), anew.all());
        assert_eq!(self.owners, arms.collect::<HashMap<_, _>>());
    }
}
