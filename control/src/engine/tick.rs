//! What is due: windows that are over, canaries that time or news may take further, what was reported and is not
//! written down.

use wingbeat_core::id::{CanaryName, NodeId, Rev};
use wingbeat_core::rollout::{Alert, AlertLevel, Event, QuestionSubject, Severity, next_timeout, question};
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::apply::Fed;
use crate::engine::canary::{Canary, FleetStatus};
use crate::engine::checkpoint::Checkpoint;
use crate::engine::commit::{Checkpointed, Purpose};
use crate::engine::persisted::entry;
use crate::engine::policy::{OutdatedNodes, SourcesByPlaces, StalePolicies};
use crate::engine::timeouts::REPORTS_LOST_AFTER;
use crate::engine::{Engine, RolloutAlert, status};
use crate::store::Write;

/// What filters reported is written down at least this often while there is news.
const CHECKPOINT_EVERY: Span = Span::from_secs(1);
/// A canary that is not at rest is evaluated this often, whatever happens: what was counted, and what the judge says of it,
/// changes with time. Each window of its traffic is a reason of its own, five a second.
const EVALUATE_EVERY: Span = Span::from_millis(250);
/// And this often while reports of any node may show that its share flows, or that it does not, and while nothing of it can be
/// stored.
const EVALUATE_EVERY_WHILE_PENDING: Span = Span::from_millis(50);
/// Canaries that are evaluated that often. With twice as many that are not at rest, each is evaluated half as often, but for
/// what happens to it: this alone costs some thousand evaluations a second at most.
const MAX_EVALUATED_OFTEN: u64 = 1_000;
/// Canaries whose time is up that one tick evaluates; with more, the others have to wait for the next one.
const TIMERS_AT_ONCE: usize = 256;
/// It is seen to this often that each canary that is not at rest has a timer: nothing depends on having heard of a change.
const SWEEP_EVERY: Span = Span::from_secs(1);
/// What was counted is shown this often.
const SHOW_EVERY: Span = Span::from_millis(50);
/// While some rollout is on, policies are made anew this often, also where nothing has changed that is known to change them:
/// for nodes that listeners were for until lately, which count for ten minutes more.
const POLICY_EVERY: Span = Span::from_secs(10);
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
        let mut sources = self.policies.sources(&sources);
        for (name, batch) in closed {
            if let Some(canary) = self.canaries.measure(&name) {
                let sources = sources.of(&canary.config.service.listeners);
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
        due.extend(self.timers.take(now, TIMERS_AT_ONCE));
        if now.since(self.last_sweep) >= SWEEP_EVERY {
            self.last_sweep = now;
            due.extend(self.canaries.busy().iter().filter(|name| !self.timers.has(name)).cloned());
        }
        let mut outdated = None;
        for name in due {
            // Level-triggered: a revision that came while something else was under way is not lost.
            self.observe_revision(&name, now);
            if !self.is_learning() {
                self.evaluate(&name, &mut outdated, now);
            }
            self.report_missing(&name, now);
            self.arm(&name, now);
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
        let rest = now.plus(if self.views.are_aging() { SHOW_EVERY } else { IDLE_WAKEUP });
        let times = [self.timers.next(), self.windows.next_end()].into_iter().flatten();
        times.fold(rest, Timestamp::min).max(now)
    }

    /// Has a canary looked at again when its time is up, or after a while.
    fn arm(&mut self, name: &CanaryName, now: Timestamp) {
        let Some(canary) = self.canaries.get(name).filter(|canary| !canary.is_at_rest()) else {
            return self.timers.disarm(name);
        };
        let is_refused = self.commits.failure().is_some() || self.commits.refuse_of(name, now).is_some();
        let often = if canary.is_pending() || is_refused { EVALUATE_EVERY_WHILE_PENDING } else { EVALUATE_EVERY };
        let busy = u64::try_from(self.canaries.busy().len()).unwrap_or(u64::MAX);
        let again = now.plus(often.times(busy.div_ceil(MAX_EVALUATED_OFTEN)));
        // Many have the same time, and one round.
        let again = again.window_start(EVALUATE_EVERY_WHILE_PENDING);
        let timeout = next_timeout(&canary.config.plan, &canary.state, now);
        self.timers.arm(name, timeout.map_or(again, |timeout| timeout.min(again)));
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
            self.note_standing(&name);
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

    /// Hands in what was reported, unless an earlier one is under way or nothing can be stored.
    pub(super) fn checkpoint(&mut self, now: Timestamp) {
        let is_under_way = self.commits.has(|purpose| matches!(purpose, Purpose::Checkpoint(_)));
        if is_under_way || self.commits.refuse(now).is_some() {
            return;
        }
        self.ledger.expire(now);
        let ledger = self.ledger.checkpoint();
        self.last_checkpoint = now;
        let obsolete: Vec<String> = std::mem::take(&mut self.obsolete).into_iter().collect();
        let (of_dormant, unconfigured) = self.unconfigured.write();
        let evidence = |(name, canary): (&CanaryName, &Canary)| Some((name.clone(), canary.evidence()?));
        let checkpoint = Checkpoint {
            now,
            first: obsolete.iter().cloned().map(Write::Delete).chain(of_dormant).collect(),
            changed: ledger.changed,
            removed: ledger.removed,
            windows: self.windows.open(),
            baselines: self.ledger.baselines(),
            held: self.windows.held(),
            evidence: self.canaries.judged().filter_map(evidence).collect(),
        };
        // What cannot be written down, the filters keep.
        self.reported_since_checkpoint = false;
        self.records.relieve();
        let recorded = self.records.mark();
        let written = Checkpointed { ledger: ledger.id, obsolete, unconfigured, recorded };
        self.commits.put_checkpoint(Purpose::Checkpoint(Box::new(written)), checkpoint);
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

#[cfg(test)]
impl Engine {
    /// Checks that those that are not at rest have a timer, or are due, and no others do.
    pub(super) fn check_timers(&self) {
        let busy = self.canaries.busy();
        let looked_at = |name: &CanaryName| self.timers.has(name) || self.due.contains(name);
        assert!(busy.iter().all(looked_at), "{busy:?}");
        let at_rest = |name: &&CanaryName| !busy.contains(*name) && !self.due.contains(*name);
        assert_eq!(self.timers.names().filter(at_rest).count(), 0, "{busy:?}");
    }
}
