//! The engine: everything that happens to the managed canaries, one thing after another.
//!
//! It has no clock, no thread and no network. Each call takes what happened and the time, stores what must
//! survive, and returns what is to be served and told. Rules that it keeps: state is stored before it is acted
//! on, with one exception (an abort is served even if it cannot be stored, and stored later); what cannot be
//! stored is not adopted; the routes are derived from the state anew after every change.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_api::desired_state::{InUse, MetricProvider};
use wingbeat_api::files::Part;
use wingbeat_core::analysis::ledger::{Ledger, Trust, WorkerKey};
use wingbeat_core::analysis::window::{Batch, Windows, WrittenHeld};
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::id::{CanaryName, ClusterName, Epoch, RolloutId};
use wingbeat_core::rollout::{Alert, Answer, Event, QuestionSubject, Severity, Ticket, question};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::client_event::ClientEvent;
use wingbeat_xds_server::lineage::Lineage;
use wingbeat_xds_server::model::ModelChange;

use crate::call::{Call, CallTarget, CallTurn};
use crate::engine::around::Around;
use crate::engine::canaries::Canaries;
use crate::engine::canary::Evidence;
use crate::engine::charted::Charted;
use crate::engine::clients::Clients;
use crate::engine::commit::Commits;
use crate::engine::entries::{BASELINES_KEY, CLOCK_KEY, HELD_KEY, OLD_LEDGER_KEY, WINDOWS_KEY, lineage, read_ledger};
use crate::engine::event_journal::EventJournal;
use crate::engine::fleet::Fleet;
use crate::engine::persisted::{PersistedCanary, away_key, evidence_key, read, read_or_leave_aside};
use crate::engine::policy::{Policies, StalePolicies};
use crate::engine::recording::RecordingBuffer;
use crate::engine::standing::Standings;
use crate::engine::status::{BlockerSources, StatusCache};
use crate::engine::step_event::MAX_EVENT_LEN;
use crate::engine::texts::Texts;
use crate::engine::timeouts::NODE_TIMEOUT;
use crate::engine::timers::Timers;
use crate::engine::unconfigured::{Unconfigured, UnconfiguredCanaries};
use crate::engine::unready_record::UnreadyRecord;
use crate::recording::{JudgedWindow, RecordingLoss};
use crate::rollout_end::RolloutEnd;
use crate::store::{Entries, Store};
use crate::view::{ConditionView, EventView, ServerStatus};

mod adoption;
mod apply;
mod around;
mod budget;
mod canaries;
mod canary;
mod charted;
mod checkpoint;
mod clients;
mod commit;
mod configure;
mod entries;
mod event_journal;
mod fleet;
mod intake;
mod limits;
mod pending;
mod persisted;
mod policy;
mod recording;
mod reporter;
mod reporters;
mod rollouts;
mod route_blockers;
mod routes;
pub(crate) mod simulation;
mod standing;
mod status;
mod step_event;
mod texts;
mod tick;
mod timeouts;
mod timers;
mod turns;
mod unconfigured;
mod unready_record;

pub use commit::{Commanded, Commit};
pub use entries::cluster_lineage;
pub use event_journal::MAX_EVENTS;
pub use fleet::MAX_IDLE_REPORT_INTERVAL;
pub use pending::{CommandTicket, CommitId};
pub use persisted::OpenError;
pub use reporter::Reporter;
pub use route_blockers::{CONNECTED, PROGRAMMED, ROUTE_CONDITIONS};
pub use standing::Standing;
pub use status::{held_conditions, promoted_condition, rfc3339};

/// The engine.
pub struct Engine {
    commits: Commits,
    random: [u8; 32],
    lineage: Lineage,
    around: Around,
    canaries: Canaries,
    ledger: Ledger,
    /// Whether the ledger held everything of the rollouts that were in progress when it was read.
    ledger_trust: Trust,
    /// Rollouts of which it did not hold everything when it was written down.
    baselines: BTreeSet<Epoch>,
    /// Keys of entries that nobody reads any more, until they are deleted.
    obsolete: BTreeSet<String>,
    windows: Windows,
    policies: Policies,
    fleet: Fleet,
    clients: Clients,
    /// Canaries whose routes lead to a cluster that is missing, as that was told.
    missing: BTreeMap<CanaryName, ClusterName>,
    unconfigured: UnconfiguredCanaries,
    reported_since_checkpoint: bool,
    last_checkpoint: Timestamp,
    /// When the last checkpoint was written that an earlier process wrote.
    stored_clock: Timestamp,
    /// Those that the next tick looks at in any case: something happened to them.
    due: BTreeSet<CanaryName>,
    /// After a restart in mid-rollout: the workers that had traffic before and did not report since. Until all have, no
    /// rollout is moved: one of them may show an abort that was served and not stored (P28).
    awaited: Option<BTreeSet<WorkerKey>>,
    /// When each of those that are not at rest is looked at again.
    timers: Timers,
    /// When it was seen to that each of them has a timer.
    last_sweep: Timestamp,
    /// When the policies were made anew.
    last_policy: Timestamp,
    /// Canaries of which policies are to be made anew.
    stale_policies: StalePolicies,
    /// True if listeners or the filter may be others than those that are served.
    front_changed: bool,
    views: StatusCache,
    standings: Standings,
    /// Events that may have been written before a restart.
    retold: Vec<RolloutEvent>,
    charted: Charted,
    event_journal: EventJournal,
    texts: Texts,
    reports: u64,
    /// Parts of reports that are of no rollout in progress.
    foreign: u64,
    last_report: Option<Timestamp>,
    records: RecordingBuffer,
    outbox: Vec<RolloutEvent>,
    alerts: Vec<RolloutAlert>,
    ended: Vec<RolloutEnd>,
}

/// An event of a rollout, as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutEvent {
    /// The canary that it concerns.
    pub canary: CanaryName,
    /// Its rollout at that time.
    pub rollout: RolloutId,
    /// How serious it is.
    pub severity: Severity,
    /// The text.
    pub text: String,
    /// When it happened.
    pub at: Timestamp,
}

/// An alert about a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutAlert {
    /// The canary that it concerns.
    pub canary: CanaryName,
    /// The message.
    pub alert: Alert,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("canaries", self.canaries.all()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Goes on with what a store holds.
    pub fn load(store: &mut dyn Store, random: [u8; 32]) -> Result<Self, OpenError> {
        Self::open(&store.load()?, random)
    }

    /// Goes on with what is stored. Secrets are made from `random`, which nobody else may know.
    pub fn open(entries: &Entries, random: [u8; 32]) -> Result<Self, OpenError> {
        let mut unconfigured = UnconfiguredCanaries::default();
        for key in entries.keys() {
            let Some((namespace, name)) = key.strip_prefix("canary/").and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            if let Some(record) = read::<PersistedCanary>(entries, key)? {
                let record = PersistedCanary { state: record.state.resumed(), ..record };
                let name = CanaryName::new(namespace, name);
                let evidence = read_or_leave_aside::<Evidence>(entries, &evidence_key(&name))?;
                let away_since = read_or_leave_aside(entries, &away_key(&name))?;
                let (unstored, proposed) = (false, None);
                let unready_record = UnreadyRecord::Stored;
                let stored = Unconfigured { record, evidence, unstored, away_since, proposed, unready_record };
                unconfigured.insert(name, stored);
            }
        }
        let (lineage, unstored_lineage) = lineage(entries, &random)?;
        let windows = read_or_leave_aside::<Vec<(CanaryName, Batch)>>(entries, WINDOWS_KEY)?.unwrap_or_default();
        let held = read_or_leave_aside::<Vec<WrittenHeld>>(entries, HELD_KEY)?.unwrap_or_default();
        let windows = Windows::restore(windows, held);
        let (ledger, ledger_trust) = read_ledger(entries)?;
        let awaited = unconfigured.may_be_aborted_unstored().then(|| ledger.active(NODE_TIMEOUT));
        Ok(Self {
            commits: Commits::beginning_with(unstored_lineage),
            random,
            lineage,
            around: Around::default(),
            canaries: Canaries::default(),
            ledger,
            ledger_trust,
            baselines: read_or_leave_aside(entries, BASELINES_KEY)?.unwrap_or_default(),
            obsolete: entries.keys().filter(|key| *key == OLD_LEDGER_KEY).cloned().collect(),
            windows,
            policies: Policies::default(),
            fleet: Fleet::default(),
            clients: Clients::default(),
            missing: BTreeMap::new(),
            unconfigured,
            reported_since_checkpoint: false,
            last_checkpoint: Timestamp::EPOCH,
            stored_clock: read_or_leave_aside(entries, CLOCK_KEY)?.unwrap_or_default(),
            due: BTreeSet::new(),
            awaited,
            timers: Timers::default(),
            last_sweep: Timestamp::EPOCH,
            last_policy: Timestamp::EPOCH,
            stale_policies: StalePolicies::default(),
            front_changed: true,
            views: StatusCache::default(),
            standings: Standings::default(),
            retold: Vec::new(),
            charted: Charted::default(),
            event_journal: EventJournal::open(entries),
            texts: Texts::open(entries)?,
            reports: 0,
            foreign: 0,
            last_report: None,
            records: RecordingBuffer::default(),
            outbox: Vec::new(),
            alerts: Vec::new(),
            ended: Vec::new(),
        })
    }

    /// Returns the latest time that was stored: no clock may start before it, or what is in the evidence would be yet to
    /// come.
    pub fn latest_stored(&self) -> Timestamp {
        self.unconfigured.latest_change().max(Some(self.stored_clock)).unwrap_or_default()
    }

    /// Returns the revisions that were in use when the state was stored.
    pub fn in_use(&self) -> BTreeMap<CanaryName, InUse> {
        self.unconfigured.in_use()
    }

    /// Returns the canaries that are stored as in a rollout and not managed yet.
    pub fn in_rollout(&self) -> Vec<CanaryName> {
        self.unconfigured.in_rollout()
    }

    /// Takes news of a client of xDS. What it refuses is told of the canaries that it concerns.
    pub fn observe(&mut self, news: &ClientEvent, now: Timestamp) {
        self.contest(news, now);
        for (name, text) in self.clients.observe(news, self.canaries.all(), now) {
            self.emit(&name, Severity::Warning, text, now);
        }
        if self.clients.take_changed() {
            self.views.all_are_stale();
        }
    }

    /// Returns true unless storing failed the last time.
    pub fn stores(&self) -> bool {
        self.commits.failure().is_none()
    }

    /// Returns the questions that are open. The same ones until they are answered; who asks has to remember.
    pub fn calls(&self, now: Timestamp) -> Vec<Call> {
        let mut calls = Vec::new();
        if self.is_learning() {
            return calls;
        }
        for (name, canary) in self.canaries.asking().filter(|(_, canary)| !canary.is_contested()) {
            let Some(open) = question(&canary.config.plan, &canary.state) else { continue };
            let target = match open.asked {
                QuestionSubject::Hook(place) => canary.config.hooks.get(place).map(|hook| CallTarget::Hook {
                    hook: hook.clone(),
                    phase: open.phase.to_owned(),
                    checksum: status::checksum(canary),
                }),
                QuestionSubject::Metric(place) => match canary.config.metric_providers.get(place) {
                    Some(MetricProvider::Prometheus(query)) => Some(CallTarget::Prometheus(query.clone())),
                    // The engine answers it by itself.
                    Some(MetricProvider::Filters(_)) | None => None,
                },
            };
            // An answer leads to a step, which has to be stored.
            let may_step = canary.proposed.is_none() && self.commits.refuse_of(name, now).is_none();
            let turn = if may_step { CallTurn::Now } else { CallTurn::Later };
            calls.extend(target.map(|target| Call { canary: name.clone(), ticket: open.ticket, target, turn }));
        }
        calls
    }

    /// Notes what somebody outside has measured.
    pub fn measured(&mut self, name: &CanaryName, metric: String, value: f64) {
        if let Some(canary) = self.canaries.measure(name) {
            canary.measured.insert(metric, value);
            self.views.is_stale(name);
        }
    }

    /// Takes an answer. One that comes too late changes nothing.
    pub fn answer(&mut self, name: &CanaryName, ticket: Ticket, answer: Answer, now: Timestamp) {
        if let Some(canary) = self.canaries.measure(name).filter(|canary| canary.proposed.is_some()) {
            let open = question(&canary.config.plan, &canary.state);
            if open.is_some_and(|open| open.ticket == ticket) {
                canary.waiting_answer = Some((ticket, answer));
            }
            return;
        }
        let answer = self.screen_answer(name, ticket, answer, now);
        self.apply(name, &Event::Answer(ticket, answer), now);
    }

    /// Returns what an answer comes to: a metric that may only warn is told, and moves nothing.
    fn screen_answer(&mut self, name: &CanaryName, ticket: Ticket, answer: Answer, now: Timestamp) -> Answer {
        let Some(canary) = self.canaries.get(name) else { return answer };
        let open = question(&canary.config.plan, &canary.state).filter(|open| open.ticket == ticket);
        let Some(QuestionSubject::Metric(place)) = open.map(|open| open.asked) else { return answer };
        let (answer, warning) = canary.with_metric_mode(place, answer);
        if let Some(text) = warning {
            self.emit(name, Severity::Warning, text, now);
        }
        answer
    }

    /// Returns true if an abort is not served yet.
    pub fn has_unserved_abort(&self) -> bool {
        self.routes_changed() && self.canaries.unstored().next().is_some()
    }

    fn routes_changed(&self) -> bool {
        self.front_changed || self.canaries.have_changed()
    }

    /// Returns what is to be served in another way since this was asked last, if anything may be. Whoever asks serves it.
    pub fn take_route_changes(&mut self) -> Option<ModelChange> {
        if !self.routes_changed() {
            return None;
        }
        // Aborts that are served now can be stored.
        self.due.extend(self.canaries.unstored().cloned());
        let front = std::mem::take(&mut self.front_changed).then(|| self.around.front());
        Some(ModelChange { front, hosts: self.canaries.take_changed() })
    }

    /// Returns the status of the server and of all canaries.
    pub fn status(&mut self, ready: bool, now: Timestamp) -> ServerStatus {
        let unstorable = self.commits.failure().map(ToString::to_string);
        let nodes = self.fleet.nodes();
        let trouble = BlockerSources {
            clients: &self.clients,
            records: &self.records,
            around: &self.around,
            unstorable: unstorable.as_deref(),
        };
        ServerStatus {
            ready,
            canaries: self.views.renew(&self.canaries, &trouble, now).clone(),
            refused_files: self.around.refused_files.clone(),
            clients: self.clients.view(),
            nodes: u64::try_from(nodes).unwrap_or(u64::MAX),
            reports: self.reports,
            foreign_reports: self.foreign,
        }
    }

    /// Returns the events that earlier processes stored, oldest first, and forgets them.
    pub fn restored(&mut self) -> Vec<EventView> {
        self.event_journal.restored()
    }

    /// Stores events; those that cannot be stored now are stored later, the latest of them.
    pub fn append(&mut self, events: &[EventView], now: Timestamp) {
        self.event_journal.append(events, &mut self.commits, now);
    }

    /// Returns the texts that were in force when the state was stored, file by file, and forgets them. Nothing if none was
    /// ever stored: what served then is known to nobody.
    pub fn texts(&mut self) -> Option<BTreeMap<String, Vec<Part>>> {
        self.texts.restored()
    }

    /// Stores the texts that are in force; what cannot be stored now is stored later.
    pub fn store_texts(&mut self, now: Timestamp) {
        self.texts.store(&mut self.commits, now);
    }

    /// Returns what is to be stored, in this order, and forgets it. What came of it is told by [`Engine::committed`] and
    /// [`Engine::refused`].
    pub fn commits(&mut self) -> Vec<Commit> {
        self.commits.take()
    }

    /// Takes the events that are to be published.
    pub fn take_events(&mut self) -> Vec<RolloutEvent> {
        std::mem::take(&mut self.outbox)
    }

    /// Takes events of just before a restart, for whoever writes each event as one object: hooks and journal may have had them.
    pub fn take_retold(&mut self) -> Vec<RolloutEvent> {
        std::mem::take(&mut self.retold)
    }

    /// Returns the alerts that are to be sent, and forgets them.
    pub fn alerts(&mut self) -> Vec<RolloutAlert> {
        std::mem::take(&mut self.alerts)
    }

    /// Returns the rollouts that ended since it was asked last.
    pub fn ended(&mut self) -> Vec<RolloutEnd> {
        std::mem::take(&mut self.ended)
    }

    /// Returns where those canaries stand of which that may be different since it was asked last, where a cluster runs them.
    /// One whose abort is not stored yet is among them once it is.
    pub fn standings(&mut self) -> Vec<(CanaryName, Standing)> {
        let standing = |name: CanaryName| {
            let canary = self.canaries.get(&name).filter(|canary| !canary.unstored)?;
            Some((name, Standing { state: canary.state.clone(), config: canary.config.clone() }))
        };
        self.standings.take().into_iter().filter_map(standing).collect()
    }

    /// Returns why routes are not in force, at all proxies or at some, of those canaries of which that is different in the status
    /// since it was asked last, where a cluster runs them; nothing of one whose routes are in force again.
    pub fn route_blockers(&mut self) -> Vec<(CanaryName, Vec<ConditionView>)> {
        self.views.take_route_blockers()
    }

    /// Notes that a canary may stand elsewhere.
    fn note_standing(&mut self, name: &CanaryName) {
        if self.canaries.get(name).is_some_and(|canary| canary.observed.is_some()) {
            self.standings.note(name);
        }
    }

    /// Hands out what the judges see, from now on.
    pub const fn record(&mut self) {
        self.records.is_on = true;
    }

    /// Returns what the judges saw and a restart would find again in their evidence, and forgets it.
    pub fn recorded(&mut self) -> Vec<JudgedWindow> {
        self.records.take()
    }

    /// Returns the same with what a restart would not find: nothing comes after it.
    pub fn recorded_to_the_end(&mut self) -> Vec<JudgedWindow> {
        self.records.release();
        self.records.take()
    }

    /// Takes what is missing in the recordings. It is told once a rollout, and shown.
    pub fn not_recorded(&mut self, losses: BTreeMap<CanaryName, RecordingLoss>, now: Timestamp) {
        for (name, loss) in self.records.take_changes(losses) {
            self.views.is_stale(&name);
            if let Some(loss) = loss {
                let text = format!("Recording of {name} fails and the rollout goes on: {}", loss.why);
                self.emit(&name, Severity::Warning, text, now);
            }
        }
    }

    /// Returns what is known of a managed canary's channels and hooks.
    pub fn config(&self, name: &CanaryName) -> Option<&wingbeat_api::desired_state::CanaryConfig> {
        self.canaries.get(name).map(|canary| canary.config.as_ref())
    }

    /// Returns phase and checksum of a canary, as hooks are told them.
    pub fn describe(&self, name: &CanaryName) -> Option<(String, String)> {
        let canary = self.canaries.get(name)?;
        Some((canary.state.phase.as_str().to_owned(), status::checksum(canary)))
    }

    /// Returns true after a restart in mid-rollout, until it is known what the proxies serve. Nothing may be served
    /// meanwhile.
    pub const fn is_learning(&self) -> bool {
        self.awaited.is_some()
    }

    /// Notes that who has not reported by now is not waited for.
    pub fn stop_learning(&mut self) {
        self.awaited = None;
    }

    fn emit(&mut self, name: &CanaryName, severity: Severity, text: impl AsRef<str>, now: Timestamp) {
        // Some of it are the words of hooks, metrics and proxies.
        let text = ForeignText::new(text.as_ref(), MAX_EVENT_LEN).into_string();
        let rollout = self.canaries.get(name).map(|canary| canary.state.rollout).unwrap_or_default();
        self.outbox.push(RolloutEvent { canary: name.clone(), rollout, severity, text, at: now });
    }

    /// The next tick evaluates it, and its status is rendered anew.
    fn mark_due(&mut self, name: &CanaryName) {
        self.views.is_stale(name);
        if !self.due.contains(name) {
            self.due.insert(name.clone());
        }
    }

    fn update_policy(&mut self, now: Timestamp) {
        self.last_policy = now;
        self.policies.update(&self.canaries, std::mem::take(&mut self.stale_policies), now);
    }
}

#[cfg(test)]
mod tests;
