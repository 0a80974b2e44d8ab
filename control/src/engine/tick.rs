//! What is due: windows that are over, canaries that time or news may take further, what was reported and is not
//! written down.

use wingbeat_core::id::{CanaryName, NodeId, Rev};
use wingbeat_core::rollout::{Alert, AlertLevel, Event, QuestionSubject, Severity, question};
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::apply::Fed;
use crate::engine::canary::{Canary, FleetStatus};
use crate::engine::commit::{Checkpointed, Purpose};
use crate::engine::entries::{BASELINES_KEY, CLOCK_KEY, HELD_KEY, LEDGER_PREFIX, WINDOWS_KEY};
use crate::engine::persisted::{encode, entry, evidence_key};
use crate::engine::policy::{OutdatedNodes, SourcesByPlaces, StalePolicies};
use crate::engine::timeouts::REPORTS_LOST_AFTER;
use crate::engine::{Engine, RolloutAlert, status};
use crate::store::Write;

/// What filters reported is written down at least this often while there is news.
const CHECKPOINT_EVERY: Span = Span::from_secs(1);
/// Canaries that are not at rest are looked at this often, whatever happens: nothing depends on having heard of a
/// change.
const SWEEP_EVERY: Span = Span::from_millis(50);
/// Canaries that one sweep looks at: with more that are not at rest, each is looked at more rarely, but for those that
/// something happened to.
const SWEPT_AT_ONCE: usize = 256;
/// While some rollout is on, policies are made anew this often, also where nothing has changed that is known to change them:
/// some of it goes with time.
const POLICY_EVERY: Span = Span::from_secs(1);
/// Without anything to do, the engine wakes this often.
const IDLE_WAKEUP: Span = Span::from_millis(500);

impl Engine {
    /// Does what is due: judges the windows that are over, looks at the canaries that they are of and, every so often,
    /// at all that are not at rest, and writes down what was reported. What is at rest costs nothing.
    pub fn tick(&mut self, now: Timestamp) {
        self.store_aborts(now);
        let closed = self.windows.close(now);
        let sources = if closed.is_empty() {
            SourcesByPlaces::default()
        } else {
            self.clients.forget_silent(now, REPORTS_LOST_AFTER);
            self.clients.sources(|node_cluster| self.policies.place_of(node_cluster), now)
        };
        for (name, batch) in closed {
            if let Some(canary) = self.canaries.measure(&name) {
                let sources = self.policies.sources(&sources, canary);
                let late_since = |source: &NodeId| {
                    let is_there = self.clients.takes_configuration(source);
                    is_there.then(|| self.fleet.late_since(source, now)).flatten()
                };
                canary.expect(sources, late_since, now);
                // A window may end after the rollout did: nobody judges it.
                let is_taken = canary.is_judged();
                let told = canary.limits.take_events();
                canary.observe(batch);
                // Nothing else that a window changes is told to filters.
                if told != canary.limits.take_events() {
                    self.stale_policies.note(&name);
                }
                if self.records.is_on && is_taken {
                    self.records.hold(canary.judged_window());
                    self.records.relieve();
                }
                self.views.is_aging(&name);
                self.due.insert(name);
            }
        }
        let mut due = std::mem::take(&mut self.due);
        if now.since(self.last_sweep) >= SWEEP_EVERY {
            self.last_sweep = now;
            due.extend(self.swept.next(self.canaries.busy(), SWEPT_AT_ONCE));
        }
        let mut outdated = None;
        for name in due {
            // Level-triggered: a revision that came while something else was under way is not lost.
            self.see_revision(&name, now);
            if !self.is_learning() {
                self.evaluate(&name, &mut outdated, now);
            }
            self.report_missing(&name, now);
        }
        if self.clients.lost_all_clients(now) {
            let judged: Vec<CanaryName> = self.canaries.judged().map(|(name, _)| name.clone()).collect();
            for name in judged {
                self.emit(&name, Severity::Warning, "No Envoy takes configuration: nothing can be measured", now);
            }
        }
        if now.since(self.last_checkpoint) >= CHECKPOINT_EVERY && self.reported_since_checkpoint {
            self.checkpoint(now);
        }
        let is_old = self.canaries.is_judging() && now.since(self.last_policy) >= POLICY_EVERY;
        if is_old {
            self.stale_policies = StalePolicies::All;
        }
        if !self.stale_policies.is_empty() {
            self.update_policy(now);
        }
    }

    /// Returns when [`Engine::tick`] is due next.
    pub fn next_timeout(&self, now: Timestamp) -> Timestamp {
        if !self.due.is_empty() {
            return now;
        }
        let busy = !self.canaries.busy().is_empty();
        let rest = if self.views.are_aging() { SWEEP_EVERY } else { IDLE_WAKEUP };
        let next = if busy { self.last_sweep.plus(SWEEP_EVERY) } else { now.plus(rest) };
        self.windows.next_end().map_or(next, |end| end.min(next)).max(now)
    }

    /// Shows the machine how things stand, and answers what it asks about metrics. `outdated` are the nodes that do not
    /// have the policy in force, once somebody had to ask.
    fn evaluate(&mut self, name: &CanaryName, outdated: &mut Option<OutdatedNodes>, now: Timestamp) {
        let nothing_since = self.last_report.filter(|last| now.since(*last) > REPORTS_LOST_AFTER);
        let Some(canary) = self.canaries.measure(name) else { return };
        let unaware = if canary.is_divided() {
            let in_force = |place: &_| self.policies.number_in(place);
            self.policies.unaware(outdated.get_or_insert_with(|| self.fleet.outdated(in_force)), canary)
        } else {
            Vec::new()
        };
        let facts = canary.facts(now, FleetStatus { unaware: &unaware, nothing_since });
        canary.sample(now);
        for text in canary.take_notices() {
            self.emit(name, Severity::Warning, format!("Notice {name}: {text}"), now);
            self.alerts.push(RolloutAlert {
                canary: name.clone(),
                alert: Alert { level: AlertLevel::Warn, text, described: false },
            });
        }
        self.apply(name, &Event::Tick(facts), now);
        while let Some(canary) = self.canaries.get(name)
            && !canary.is_contested()
            && canary.proposed.is_none()
            && let Some(open) = question(&canary.config.plan, &canary.state)
            && let QuestionSubject::Metric(place) = open.asked
            && let Some(answer) = canary.evaluate(place, now)
        {
            let answer = self.screen_answer(name, open.ticket, answer, now);
            if self.apply(name, &Event::Answer(open.ticket, answer), now) != Fed::Adopted {
                // It is stored first. If it cannot be, the question is still open, and the next sweep asks again.
                return;
            }
        }
    }

    fn see_revision(&mut self, name: &CanaryName, now: Timestamp) {
        if let Some(canary) = self.canaries.get(name) {
            let revision = canary.config.workload.revision.clone();
            self.apply(name, &Event::Revision(revision), now);
        }
    }

    /// Stores the aborts that are served, all at once if none of them is refused.
    fn store_aborts(&mut self, now: Timestamp) {
        if self.routes_changed() {
            // Not served yet.
            return;
        }
        let (mut aborts, mut entries) = self.unstored_aborts(|name| self.commits.refuse_of(name, now).is_none());
        let is_under_way = || self.commits.has(|purpose| matches!(purpose, Purpose::Aborts(_)));
        if aborts.is_empty() {
            return self.commits.reset_abort_batch();
        }
        if self.commits.refuse(now).is_some() || is_under_way() {
            return;
        }
        let batch = self.commits.abort_batch(aborts.len());
        aborts.truncate(batch);
        entries.truncate(batch);
        self.commits.put(Purpose::Aborts(aborts), entries);
    }

    /// Returns the aborts of these canaries that are not stored, with what is to be stored of each.
    fn unstored_aborts(&self, of: impl Fn(&CanaryName) -> bool) -> (Vec<(CanaryName, Rev)>, Vec<Write>) {
        // What is stored after an abort comes after it: it is not to be overwritten.
        let unstored = self.canaries.unstored().filter_map(|name| Some((name, self.canaries.get(name)?)));
        let unstored = unstored.filter(|(name, canary)| canary.proposed.is_none() && of(name));
        let entry = |(name, canary): (&CanaryName, &Canary)| {
            Some(((name.clone(), canary.state.rev), entry(name, &canary.record()).ok()?))
        };
        unstored.filter_map(entry).unzip()
    }

    /// Hands the aborts in that are served and not stored, whatever else is under way or has failed: nothing comes after it.
    pub fn finish(&mut self) {
        // Each by itself: should one be refused, nobody tries the others again.
        let (aborts, entries) = self.unstored_aborts(|_| true);
        for (abort, entry) in aborts.into_iter().zip(entries) {
            self.commits.put(Purpose::Aborts(vec![abort]), vec![entry]);
        }
    }

    /// Notes that these aborts are stored: filters need not count any more for them.
    pub(super) fn aborts_are_stored(&mut self, aborts: Vec<(CanaryName, Rev)>) {
        for (name, rev) in aborts {
            self.commits.end_backoff(&name);
            let Some(canary) = self.canaries.get(&name).filter(|canary| canary.unstored && canary.state.rev == rev)
            else {
                continue;
            };
            let before = canary.is_counted().then(|| canary.epoch());
            self.canaries.change(&name, |canary| canary.unstored = false);
            self.follow_epoch(&name, before);
            self.mark_due(&name);
            self.stale_policies.note(&name);
        }
    }

    /// Tells once of routes to a cluster that is missing.
    fn report_missing(&mut self, name: &CanaryName, now: Timestamp) {
        let missing = self.canaries.missing(name);
        if self.missing.get(name) == missing {
            return;
        }
        let text = self.canaries.get(name).zip(missing).map(|(canary, cluster)| status::missing(canary, cluster));
        match missing.cloned() {
            Some(cluster) => self.missing.insert(name.clone(), cluster),
            None => self.missing.remove(name),
        };
        self.views.is_stale(name);
        if let Some(text) = text {
            self.emit(name, Severity::Warning, text, now);
        }
    }

    fn checkpoint(&mut self, now: Timestamp) {
        let is_under_way = self.commits.has(|purpose| matches!(purpose, Purpose::Checkpoint(_)));
        if is_under_way || self.commits.refuse(now).is_some() {
            return;
        }
        self.ledger.expire(now);
        let checkpoint = self.ledger.checkpoint();
        let id = checkpoint.id;
        self.last_checkpoint = now;
        // In one transaction: what the ledger calls durable is in the evidence or in an open window, and nowhere else.
        // What is obsolete first: of a canary whose next rollout is on already, there is evidence again.
        let obsolete: Vec<String> = std::mem::take(&mut self.obsolete).into_iter().collect();
        let mut writes: Vec<Write> = obsolete.iter().cloned().map(Write::Delete).collect();
        let (of_dormant, unconfigured) = self.unconfigured.write();
        writes.extend(of_dormant);
        for (key, worker) in &checkpoint.changed {
            writes.extend(encode(&format!("{LEDGER_PREFIX}{key}"), worker));
        }
        writes.extend(checkpoint.removed.iter().map(|key| Write::Delete(format!("{LEDGER_PREFIX}{key}"))));
        writes.extend(encode(WINDOWS_KEY, &self.windows.open()));
        writes.extend(encode(CLOCK_KEY, &now));
        writes.extend(encode(BASELINES_KEY, &self.ledger.baselines()));
        writes.extend(encode(HELD_KEY, &self.windows.held()));
        for (name, canary) in self.canaries.judged() {
            if let Some(evidence) = canary.evidence() {
                writes.extend(encode(&evidence_key(name), &evidence));
            }
        }
        // What cannot be written down, the filters keep.
        self.reported_since_checkpoint = false;
        self.records.relieve();
        let recorded = self.records.mark();
        let written = Checkpointed { ledger: id, obsolete, unconfigured, recorded };
        self.commits.put(Purpose::Checkpoint(Box::new(written)), writes);
    }

    /// Notes that a checkpoint is stored.
    pub(super) fn checkpointed(&mut self, written: &Checkpointed) {
        self.unconfigured.written(&written.unconfigured);
        self.ledger.mark_durable(written.ledger);
        // Of workers that are not held any more, a checkpoint deletes so many.
        self.reported_since_checkpoint |= self.ledger.has_changes();
        self.records.release_to(written.recorded);
    }
}
