//! Canaries that no document names at the moment. What is stored of them is kept for their return, and not for ever.

use crate::engine::pending::Proposed;
use std::collections::{BTreeMap, BTreeSet};

use wingbeat_api::desired_state::InUse;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::canary::Evidence;
use crate::engine::persisted::{PersistedCanary, away_key, encode, entry, evidence_key, record_key};
use crate::engine::unready_record::UnreadyRecord;
use crate::store::Write;

/// How long a canary is kept that no document names: 30 days. One that returns later is taken for new.
const RETENTION: Span = Span::from_secs(30 * 24 * 3_600);

/// How many are kept. Beyond, those that are away longest are forgotten, and taken for new when they return.
const MAX_UNCONFIGURED: usize = 10_000;

/// What is kept of a canary that is away.
#[derive(Debug)]
pub(super) struct Unconfigured {
    pub(super) record: PersistedCanary,
    pub(super) evidence: Option<Evidence>,
    /// The record could not be stored before it was no longer configured: an abort that was served.
    pub(super) unstored: bool,
    /// Since when no document names it. Stored apart from its record: one that returns is not away any more, and nothing else
    /// of it changes.
    pub(super) away_since: Option<Timestamp>,
    /// A step of it that is being stored.
    pub(super) proposed: Option<Proposed>,
    /// Whether it is stored since when a workload is not ready.
    pub(super) unready_record: UnreadyRecord,
}

/// What is being written of those that are away.
#[derive(Debug)]
pub(super) struct Writing {
    unstored: BTreeSet<CanaryName>,
    noted: BTreeSet<CanaryName>,
    obsolete: BTreeSet<String>,
}

/// All that are away.
#[derive(Debug, Default)]
pub(super) struct UnconfiguredCanaries {
    all: BTreeMap<CanaryName, Unconfigured>,
    /// Those whose record is to be stored anew.
    unstored: BTreeSet<CanaryName>,
    /// Those of which it is to be stored since when they are away.
    noted: BTreeSet<CanaryName>,
    /// Keys of entries that nobody reads any more, until they are deleted.
    obsolete: BTreeSet<String>,
}

impl UnconfiguredCanaries {
    /// Keeps a canary that was stored, or is not configured any more.
    pub(super) fn insert(&mut self, name: CanaryName, unconfigured: Unconfigured) {
        if unconfigured.unstored {
            self.unstored.insert(name.clone());
        }
        self.all.insert(name, unconfigured);
    }

    /// Returns what was kept of one that is configured again.
    pub(super) fn attach(&mut self, name: &CanaryName) -> Option<Unconfigured> {
        self.unstored.remove(name);
        self.noted.remove(name);
        self.obsolete.remove(&record_key(name));
        let unconfigured = self.all.remove(name)?;
        if unconfigured.away_since.is_some() {
            // Else it would be away since then when it is away again.
            self.obsolete.insert(away_key(name));
        }
        Some(unconfigured)
    }

    /// Notes since when each is away, once it is known who is configured, and forgets those that are away too long or too
    /// many.
    pub(super) fn settle(&mut self, now: Timestamp) {
        for (name, unconfigured) in &mut self.all {
            if unconfigured.away_since.is_none() {
                unconfigured.away_since = Some(now);
                self.noted.insert(name.clone());
            }
        }
        let since = |unconfigured: &Unconfigured| unconfigured.away_since.unwrap_or(now);
        let late = self.all.iter().filter(|(_, unconfigured)| now.since(since(unconfigured)) > RETENTION);
        let late: Vec<CanaryName> = late.map(|(name, _)| name.clone()).collect();
        late.iter().for_each(|name| self.forget(name));
        let beyond = self.all.len().saturating_sub(MAX_UNCONFIGURED);
        if beyond > 0 {
            let mut by_age: Vec<(Timestamp, CanaryName)> =
                self.all.iter().map(|(name, unconfigured)| (since(unconfigured), name.clone())).collect();
            by_age.sort_unstable();
            by_age.iter().take(beyond).for_each(|(_, name)| self.forget(name));
        }
    }

    /// Keeps nothing of a canary, and has what is stored of it deleted.
    pub(super) fn forget(&mut self, name: &CanaryName) {
        self.all.remove(name);
        self.unstored.remove(name);
        self.noted.remove(name);
        self.obsolete.extend([record_key(name), evidence_key(name), away_key(name)]);
    }

    /// Returns true if something is to be written.
    pub(super) fn has_changes(&self) -> bool {
        !self.unstored.is_empty() || !self.noted.is_empty() || !self.obsolete.is_empty()
    }

    /// Returns what is to be written: what is obsolete, records, and since when who is away. Nobody writes it again, unless
    /// it is given back.
    pub(super) fn write(&mut self) -> (Vec<Write>, Writing) {
        let records = self.unstored.iter().filter_map(|name| Some((name, self.all.get(name)?)));
        let records = records.filter_map(|(name, unconfigured)| entry(name, &unconfigured.record).ok());
        let since = |name: &CanaryName| encode(&away_key(name), &self.all.get(name)?.away_since?);
        let away = self.noted.iter().filter_map(since);
        let writes = self.obsolete.iter().cloned().map(Write::Delete).chain(records).chain(away).collect();
        let writing = Writing {
            unstored: std::mem::take(&mut self.unstored),
            noted: std::mem::take(&mut self.noted),
            obsolete: std::mem::take(&mut self.obsolete),
        };
        (writes, writing)
    }

    /// Notes that it is written.
    pub(super) fn written(&mut self, writing: &Writing) {
        for name in writing.unstored.iter().filter(|name| !self.unstored.contains(*name)) {
            if let Some(unconfigured) = self.all.get_mut(name) {
                unconfigured.unstored = false;
            }
        }
    }

    /// Takes back what could not be written. What is configured again meanwhile is stored as such.
    pub(super) fn not_written(&mut self, writing: Writing, is_configured: impl Fn(&CanaryName) -> bool) {
        let Writing { unstored, noted, obsolete } = writing;
        self.unstored.extend(unstored.into_iter().filter(|name| self.all.contains_key(name)));
        self.noted.extend(noted.into_iter().filter(|name| self.all.contains_key(name)));
        let is_gone = |key: &String| {
            let name = key.strip_prefix("canary/").and_then(|rest| rest.split_once('/'));
            name.is_none_or(|(namespace, name)| {
                let name = CanaryName::new(namespace, name);
                !is_configured(&name) && !self.all.contains_key(&name)
            })
        };
        self.obsolete.extend(obsolete.into_iter().filter(is_gone));
    }

    /// Keeps this record instead of the one that there was, if the canary is away.
    pub(super) fn overwrite(&mut self, name: &CanaryName, record: PersistedCanary) {
        let Some(unconfigured) = self.all.get_mut(name) else { return };
        unconfigured.proposed = None;
        if !unconfigured.unstored {
            unconfigured.record = record;
        }
    }

    /// Returns true if one may show an abort that was served and not stored.
    pub(super) fn may_be_aborted_unstored(&self) -> bool {
        self.all.values().any(|unconfigured| unconfigured.record.state.may_be_aborted_unstored())
    }

    /// Returns when the latest change was stored.
    pub(super) fn latest_change(&self) -> Option<Timestamp> {
        self.all.values().map(|unconfigured| unconfigured.record.state.changed).max()
    }

    /// Returns those that were in a rollout.
    pub(super) fn in_rollout(&self) -> Vec<CanaryName> {
        let in_rollout = self.all.iter().filter(|(_, unconfigured)| unconfigured.record.state.has_rollout());
        in_rollout.map(|(name, _)| name.clone()).collect()
    }

    /// Returns the revisions that were in use.
    pub(super) fn in_use(&self) -> BTreeMap<CanaryName, InUse> {
        self.all.iter().map(|(name, unconfigured)| (name.clone(), InUse::of(&unconfigured.record.state))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> CanaryName {
        CanaryName::new("prod", format!("preview-{number}"))
    }

    fn away(dormants: &mut UnconfiguredCanaries, number: usize) {
        let unconfigured = Unconfigured {
            record: PersistedCanary::default(),
            evidence: None,
            unstored: false,
            away_since: None,
            proposed: None,
            unready_record: UnreadyRecord::Stored,
        };
        dormants.insert(name(number), unconfigured);
    }

    fn days(number: u64) -> Timestamp {
        Timestamp::from_millis(1_000).plus(Span::from_secs(number * 24 * 3_600))
    }

    #[test]
    fn who_is_away_for_thirty_days_is_forgotten() {
        let mut dormants = UnconfiguredCanaries::default();
        away(&mut dormants, 1);
        dormants.settle(days(0));
        assert_eq!(dormants.write().0.len(), 1, "since when it is away");
        away(&mut dormants, 2);
        dormants.settle(days(1));
        dormants.settle(days(30));
        assert!(dormants.all.contains_key(&name(1)));
        let (_, writing) = dormants.write();
        dormants.written(&writing);
        dormants.settle(days(31));
        assert_eq!(dormants.all.keys().cloned().collect::<Vec<_>>(), [name(2)]);
        let deleted = ["away/prod/preview-1", "canary/prod/preview-1", "evidence/prod/preview-1"];
        let deleted = deleted.map(|key| Write::Delete(key.to_owned()));
        assert_eq!(dormants.write().0, deleted);
        assert!(!dormants.has_changes());
    }

    #[test]
    fn who_returns_is_away_anew_and_nothing_of_it_is_deleted() {
        let mut dormants = UnconfiguredCanaries::default();
        away(&mut dormants, 1);
        dormants.settle(days(0));
        assert!(dormants.attach(&name(1)).is_some());
        let deleted = Write::Delete("away/prod/preview-1".to_owned());
        assert_eq!(dormants.write().0, [deleted], "who starts again finds it as it is");
        away(&mut dormants, 1);
        dormants.settle(days(29));
        dormants.settle(days(58));
        assert!(dormants.all.contains_key(&name(1)));
        dormants.settle(days(60));
        assert!(dormants.attach(&name(1)).is_none());
        let kept: Vec<Write> = dormants.write().0;
        let deleted = ["away/prod/preview-1", "evidence/prod/preview-1"].map(|key| Write::Delete(key.to_owned()));
        assert_eq!(kept, deleted, "its record is written anew");
    }

    #[test]
    fn of_too_many_those_that_are_away_longest_are_forgotten() {
        let mut dormants = UnconfiguredCanaries::default();
        (0..MAX_UNCONFIGURED).for_each(|number| away(&mut dormants, number));
        dormants.settle(days(0));
        assert_eq!(dormants.all.len(), MAX_UNCONFIGURED);
        (0..3).for_each(|number| away(&mut dormants, MAX_UNCONFIGURED + number));
        dormants.settle(days(1));
        assert_eq!(dormants.all.len(), MAX_UNCONFIGURED);
        assert!((0..3).all(|number| dormants.all.contains_key(&name(MAX_UNCONFIGURED + number))));
    }
}
