//! What is managed, and how it changes: canary by canary.

use std::collections::BTreeMap;
use std::sync::Arc;

use wingbeat_api::RefusedFileView;
use wingbeat_api::desired_state::{CanaryConfig, Change, Configured, DesiredState, ObservedArms};
use wingbeat_core::analysis::ledger::Trust;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Event, Severity};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::lineage::Adoption;
use wingbeat_xds_server::version::Version;

use crate::engine::around::Around;
use crate::engine::canary::Canary;
use crate::engine::persisted::PersistedCanary;
use crate::engine::policy::StalePolicies;
use crate::engine::unconfigured::Unconfigured;
use crate::engine::unready_record::UnreadyRecord;
use crate::engine::{Engine, RolloutEvent};

impl Engine {
    /// Manages this and nothing else from now on. What a rollout in progress takes over of a changed spec, and what waits for
    /// the next one, is in `terms`.
    pub fn configure(&mut self, desired: DesiredState, now: Timestamp) {
        let DesiredState { canaries, listeners, filter, mut files, refused_files, texts, observed } = desired;
        let gone = self.canaries.all().keys().filter(|name| !canaries.contains_key(*name));
        let mut change = Change {
            canaries: gone.map(|name| (name.clone(), None)).collect(),
            listeners: Some(listeners),
            refused_files: Some(refused_files),
            texts: BTreeMap::new(),
            observed,
        };
        change.canaries.extend(canaries.into_iter().map(|(name, config)| {
            let file = files.remove(&name);
            (name, Some(Configured { config: Arc::new(config), file }))
        }));
        self.texts.take(texts);
        (self.around.filter, self.front_changed) = (filter, true);
        self.apply_change(&mut change, usize::MAX, now);
        self.unconfigured.settle(now);
        // The next checkpoint writes it.
        self.reported_since_checkpoint |= self.unconfigured.has_changes();
        // Of rollouts that did not come back with the first configuration, nothing is held; should they later, …
        self.ledger.retain_open();
        // … who reports may have been counted before.
        self.ledger_trust = Trust::Baseline;
        self.stale_policies = StalePolicies::All;
        self.update_policy(now);
    }

    /// Manages what a change says from now on: all that concerns what canaries have for themselves, and at most so many
    /// canaries of the rest, which stays in the change. A host goes from one canary to another in one step.
    pub fn apply_change(&mut self, change: &mut Change, most: usize, now: Timestamp) {
        if let Some(refused) = change.refused_files.take() {
            self.refuse_files(refused);
        }
        self.texts.change(std::mem::take(&mut change.texts));
        if let Some(listeners) = change.listeners.take() {
            self.canaries.note_nodes(&self.around.listeners, now);
            if self.policies.follow(&listeners) {
                self.fleet.misplaced();
            }
            (self.around.listeners, self.front_changed) = (listeners, true);
            self.stale_policies = StalePolicies::All;
        }
        let gives_up = |(name, configured): &(&CanaryName, &Option<Configured>)| match configured {
            None => true,
            Some(Configured { config, .. }) => self.canaries.get(name).is_some_and(|canary| {
                let (had, has) = (&canary.config.service, &config.service);
                (&had.hosts, &had.listeners) != (&has.hosts, &has.listeners)
            }),
        };
        let mut names: Vec<CanaryName> =
            change.canaries.iter().filter(gives_up).map(|(name, _)| name.clone()).collect();
        let more = change.canaries.keys().filter(|name| names.binary_search(name).is_err()).take(most);
        let more: Vec<CanaryName> = more.cloned().collect();
        names.extend(more);
        let taken: Vec<(CanaryName, Option<Configured>)> =
            names.into_iter().filter_map(|name| change.canaries.remove_entry(&name)).collect();
        let (set, gone): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(_, configured)| configured.is_some());
        for (name, _) in &gone {
            self.let_go(name, now);
        }
        if !gone.is_empty() {
            self.unconfigured.settle(now);
            self.reported_since_checkpoint |= self.unconfigured.has_changes();
        }
        for (name, configured) in set {
            if let Some(Configured { config, file }) = configured {
                match file {
                    Some(file) => drop(self.around.files.insert(name.clone(), file)),
                    None => drop(self.around.files.remove(&name)),
                }
                self.manage(&name, config, change.observed.remove(&name), now);
            }
        }
        // Those that wait to be managed take theirs along.
        let waits = |name: &CanaryName| change.canaries.contains_key(name);
        let observed = std::mem::take(&mut change.observed).into_iter();
        let (waiting, observed): (BTreeMap<_, _>, BTreeMap<_, _>) = observed.partition(|(name, _)| waits(name));
        change.observed = waiting;
        for (name, arms) in observed {
            self.observe_arms(&name, arms, now);
        }
    }

    /// Takes which files are refused, and shows the canaries of those that are or were anew.
    fn refuse_files(&mut self, refused: Vec<RefusedFileView>) {
        if *self.around.refused_files == *refused {
            return;
        }
        let is_concerned = |around: &Around, name: &CanaryName| around.refused(name).is_some();
        let names = |around: &Around| -> Vec<CanaryName> {
            around.files.keys().filter(|name| is_concerned(around, name)).cloned().collect()
        };
        let before = names(&self.around);
        self.around.refused_files = refused.into();
        for name in before.iter().chain(&names(&self.around)) {
            self.views.is_stale(name);
        }
    }

    /// Manages a canary no longer.
    fn let_go(&mut self, name: &CanaryName, now: Timestamp) {
        self.around.files.remove(name);
        self.commits.forget(name);
        let Some(mut canary) = self.canaries.remove(name) else { return };
        self.timers.disarm(name);
        self.standings.forget(name);
        for waiting in std::mem::take(&mut canary.waiting_commands) {
            self.commits.reply(waiting.ticket, Err(format!("{name} is not configured any more")));
        }
        let (record, evidence, unstored) = (canary.record(), canary.evidence(), canary.unstored);
        let unready_record = canary.unready_record;
        // Nobody takes in what is reported of it meanwhile.
        self.ledger.close(canary.epoch());
        self.views.forget(name);
        self.missing.remove(name);
        self.emit(name, Severity::Warning, format!("{name} is not configured any more: its routes go"), now);
        let proposed = canary.proposed;
        if canary.observed.is_some() {
            // What was decided of it went with its object; one that is made anew under its name is another one.
            self.unconfigured.forget(name);
        } else {
            let away = Unconfigured { record, evidence, unstored, away_since: None, proposed, unready_record };
            self.unconfigured.insert(name.clone(), away);
        }
        self.stale_policies.note(name);
    }

    /// Manages a canary in this way from now on.
    fn manage(
        &mut self,
        name: &CanaryName,
        config: Arc<CanaryConfig>,
        arms: Option<Arc<ObservedArms>>,
        now: Timestamp,
    ) {
        let before = self.canaries.get(name).and_then(|canary| canary.observed.as_deref());
        if before.zip(arms.as_deref()).is_some_and(|(before, arms)| before.uid != arms.uid) {
            self.let_go(name, now);
        }
        if self.canaries.get(name).is_some() {
            if let Some(arms) = arms {
                self.observe_arms(name, arms, now);
            }
            self.reconfigure(name, config, now);
            self.note_standing(name);
        } else {
            self.attach(name, config, arms, now);
        }
        self.mark_due(name);
        self.observe_revision(name, now);
    }

    /// Takes how the workloads of a canary stand. Costs the same whether there are ten canaries or ten thousand.
    fn observe_arms(&mut self, name: &CanaryName, arms: Arc<ObservedArms>, now: Timestamp) {
        if self.canaries.get(name).is_some_and(|canary| canary.observed.as_ref() != Some(&arms)) {
            self.canaries.observe(name, arms, now);
            self.standings.note(name);
            self.mark_due(name);
        }
    }

    /// Feeds the revision that is wanted, if it may be begun with.
    pub(super) fn observe_revision(&mut self, name: &CanaryName, now: Timestamp) {
        if let Some(revision) = self.canaries.get(name).and_then(Canary::wanted) {
            let revision = revision.clone();
            self.apply(name, &Event::Revision(revision), now);
        }
    }

    /// Manages a canary from now on: a new one, or one that was stored.
    fn attach(
        &mut self,
        name: &CanaryName,
        config: Arc<CanaryConfig>,
        arms: Option<Arc<ObservedArms>>,
        now: Timestamp,
    ) {
        self.stale_policies.note(name);
        let unconfigured = self.unconfigured.attach(name);
        let proposed = unconfigured.as_ref().and_then(|unconfigured| unconfigured.proposed);
        let unready_record = unconfigured.as_ref().map_or(UnreadyRecord::Stored, |it| it.unready_record);
        let fresh = || (PersistedCanary { adoption: Adoption::Open, ..PersistedCanary::default() }, None, false);
        let (mut record, evidence, unstored) = unconfigured
            .map_or_else(fresh, |unconfigured| (unconfigured.record, unconfigured.evidence, unconfigured.unstored));
        // Nobody followed it meanwhile.
        record.state = record.state.unwatched();
        if record.secret.is_empty() {
            // One that was forgotten and comes back under its name counts anew.
            let place = format!("{}/{}/{}", name.namespace, name.name, now.as_nanos());
            record.secret = Version::of([&self.random[..], place.as_bytes()]).to_string();
        }
        let mut canary = Canary::new(config, record, now);
        if arms.is_some() {
            self.standings.note(name);
            self.tell_again(name, &canary, now);
        }
        if let Some(arms) = arms {
            canary.observe_arms(arms, now);
        }
        canary.unstored = unstored;
        canary.unready_record = unready_record;
        canary.proposed = proposed.filter(|proposed| self.commits.is_under_way(proposed.id));
        // Open windows were written down with the evidence, and belong to the same rollout.
        let goes_on = evidence.is_some_and(|evidence| canary.restore(evidence, now));
        if !goes_on {
            self.windows.forget(name);
        }
        if canary.is_counted() {
            let is_complete = !self.baselines.contains(&canary.epoch());
            let trust = if is_complete { self.ledger_trust } else { Trust::Baseline };
            self.ledger.open(canary.epoch(), trust);
        }
        self.canaries.insert(name, canary);
    }

    /// Tells what the latest steps had to tell, if that is not long ago: who stored them may have been killed before it was written.
    fn tell_again(&mut self, name: &CanaryName, canary: &Canary, now: Timestamp) {
        let recent = canary.events.iter().filter(|event| event.is_recent(now));
        self.retold.extend(recent.map(|event| RolloutEvent {
            canary: name.clone(),
            rollout: event.rollout,
            severity: event.severity,
            text: event.text.clone(),
            at: event.at,
        }));
    }
}
