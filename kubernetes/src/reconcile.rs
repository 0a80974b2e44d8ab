//! From what is in a cluster to what the engine is given, and from where the engine stands to what is to be written.
//!
//! ```text
//!  watches ─► apply, delete ─► World ─┬─► Change ─► Engine ─► Standing ─► standing ─┐
//!                                     │                  └─► RolloutEvent ─► event  │
//!                                     └────────────── poll ◄─────────────────────────┘
//!                                                      └─► Writes ─► API server ─► written
//! ```
//!
//! Level-triggered: what is to be written follows from how things are, and not from what happened. A canary is evaluated
//! again when something that it depends on is different, and when its time is up; all else costs nothing. There is no client,
//! no thread and no clock in it.

mod arms;
mod around;
mod canary;
mod channels;
mod claims;
mod command;
mod configs;
mod configuration;
mod deployment;
mod events;
mod handover;
mod objects;
mod owner;
mod pods;
mod reasons;
mod record;
mod relax;
mod route_blockers;
mod scalers;
mod status;
mod time;
mod unready;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wingbeat_api::desired_state::Change;
use wingbeat_control::engine::{RolloutEvent, Standing};
use wingbeat_control::view::ConditionView;
use wingbeat_controller::verb::{Refusal, Verb};
use wingbeat_core::id::{CanaryName, Revision, RolloutId};
use wingbeat_core::rollout::Severity;
use wingbeat_core::time::{Span, Timestamp};

pub use write::{Carrier, EventKey, Urgency, Write, WriteKey};

use crate::canary_state::{self, Content};
use crate::configs::{Part, Read, ReadFailure, Tracker};
use crate::desire::{ConfigCopy, Settings};
use crate::object::text;
use crate::pod_status::{Blocker, PodQuery};
use crate::release;
use crate::world::{Kind, ObjectKey, World};
use around::{Around, target_name, target_of};
use canary::{Canary, key};
use channels::ChannelSecrets;
use claims::Claims;
use configs::{Scope, tracked_references};
use configuration::{Listeners, created};
use events::Occurrence;
use owner::is_owned;

/// What could not be written is derived anew after this time: 1 s. Whoever writes has tried for some time already.
const RETRY_INTERVAL: Span = Span::from_secs(1);

/// What was written and shows in no watch is looked at once more after this time: 90 s. Somebody may have undone it at once, and
/// nothing is written a second time within a minute.
const RECHECK_INTERVAL: Span = Span::from_secs(90);

/// Secrets of AlertProviders are read this often where Secrets are not watched: once a minute.
const CHANNEL_INTERVAL: Span = Span::from_secs(60);

/// Keeps what is in a cluster as it should be. See the module's documentation.
#[derive(Debug, Default)]
pub struct Reconciler {
    world: World,
    settings: Settings,
    listeners: Listeners,
    claims: Claims,
    configs: Tracker,
    channels: ChannelSecrets,
    canaries: BTreeMap<CanaryName, Canary>,
    /// Those that are to be evaluated.
    stale: BTreeSet<CanaryName>,
    /// When those are to be evaluated that wait for a time; each once.
    timers: BTreeMap<CanaryName, Timestamp>,
    /// How often documents that Canaries name were different.
    documents: u64,
    /// What is being written, and for which canary. At most as many as there are objects.
    in_flight: BTreeMap<WriteKey, InFlight>,
    /// Events that were not handed out yet.
    writes: Vec<Write>,
    commands: Vec<Commanded>,
    pods: Vec<PodQuery>,
    change: Change,
}

/// A write that was handed out.
#[derive(Debug)]
struct InFlight {
    canary: CanaryName,
    digest: Revision,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Output {
    /// For the engine.
    pub change: Change,
    /// For the API server.
    pub writes: Vec<Write>,
    /// What is to be read: what came of each is for [`Reconciler::read`].
    pub reads: Vec<Read>,
    /// Pods that are to be listed: what came of each list is for [`Reconciler::pods`].
    pub pods: Vec<PodQuery>,
    /// For the engine, each once.
    pub commands: Vec<Commanded>,
}

/// A command that a Canary's annotation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commanded {
    /// Whose.
    pub canary: CanaryName,
    /// What is to be done.
    pub verb: Verb,
    /// What tells it from the same at another time.
    pub id: String,
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out, or there was nothing left to do, as the same was written a moment ago and no watch has shown it yet.
    Written,
    /// It was not, and may have been. It is derived anew, and comes again if it is still needed.
    Failed,
    /// The same, for this reason, which does not pass by itself.
    Refused(String),
    /// It was not, as the namespace is being deleted.
    NamespaceEnds,
}

impl Reconciler {
    /// Makes one that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes an object as it is now.
    pub fn apply(&mut self, kind: Kind, object: &Value) {
        if kind.is_config() {
            let Some(key) = ObjectKey::of(kind, object) else { return };
            return self.stale.extend(self.configs.apply(&key, object));
        }
        let concerned = self.world.apply(kind, object);
        if kind == Kind::Listener {
            self.listeners.apply(object);
        }
        self.note(kind, concerned);
    }

    /// Takes notice that an object is gone.
    pub fn delete(&mut self, key: &ObjectKey) {
        if key.kind.is_config() {
            if self.channels.is_wanted(key) && self.channels.take(key, None) {
                self.documents = self.documents.saturating_add(1);
            }
            return self.stale.extend(self.configs.delete(key));
        }
        let concerned = self.world.delete(key);
        if key.kind == Kind::Listener {
            self.listeners.delete(&key.name);
        }
        self.note(key.kind, concerned);
    }

    fn note(&mut self, kind: Kind, concerned: BTreeSet<CanaryName>) {
        let is_named = matches!(kind, Kind::MetricTemplate | Kind::AlertProvider | Kind::Listener);
        if is_named && !concerned.is_empty() {
            self.documents = self.documents.saturating_add(1);
        }
        self.stale.extend(concerned);
    }

    /// Takes where a canary stands.
    pub fn standing(&mut self, name: &CanaryName, standing: Standing, now: Timestamp) {
        if let Some(canary) = self.canaries.get_mut(name) {
            canary.take(standing, now);
            self.stale.insert(name.clone());
        }
    }

    /// Takes why the routes of a canary are not in force; nothing: they are.
    pub fn route_blockers(&mut self, name: &CanaryName, conditions: Vec<ConditionView>, now: Timestamp) {
        if let Some(canary) = self.canaries.get_mut(name) {
            canary.route_blockers.take(conditions, now);
            self.stale.insert(name.clone());
        }
    }

    /// Takes the answer to a command. What was refused is told in an event; what the engine had no time for is given again.
    pub fn answered(&mut self, name: &CanaryName, answer: &Result<(), Refusal>, now: Timestamp) {
        let Some(canary) = self.canaries.get_mut(name) else { return };
        let is_taken = !matches!(answer, Err(Refusal::Unavailable));
        canary.answered(is_taken);
        self.arm(name, if is_taken { now } else { now.plus(RETRY_INTERVAL) });
        if let Err(refusal @ (Refusal::NotFound(_) | Refusal::Conflict(_))) = answer {
            let (rollout, severity) = (RolloutId::default(), Severity::Warning);
            let text = format!("The command is refused: {refusal}");
            self.event(&RolloutEvent { canary: name.clone(), rollout, severity, text, at: now });
        }
    }

    /// Takes an event of the engine.
    pub fn event(&mut self, event: &RolloutEvent) {
        let RolloutEvent { canary: name, rollout, severity, text, at } = event;
        let (Some(object), Some(canary)) = (self.world.get(&key(name)), self.canaries.get_mut(name)) else { return };
        let context = rollout.to_string();
        let occurrence = Occurrence { severity: *severity, text, context: &context, at: *at };
        self.writes.extend(canary.events.write(&object, &occurrence));
    }

    /// Takes what came of a write.
    pub fn written(&mut self, key: &WriteKey, outcome: Outcome, now: Timestamp) {
        if let (WriteKey::Event(EventKey { namespace, .. }), Outcome::NamespaceEnds) = (key, &outcome) {
            return self.namespace_ends(namespace);
        }
        let Some(InFlight { canary: name, .. }) = self.in_flight.remove(key) else { return };
        let Some(canary) = self.canaries.get_mut(&name) else { return };
        match outcome {
            // A watch shows it; where nothing was different, there is nothing to see.
            Outcome::Written => {
                canary.note_written(key, now);
                self.arm(&name, now.plus(RECHECK_INTERVAL));
            }
            Outcome::Failed | Outcome::NamespaceEnds => self.arm(&name, now.plus(RETRY_INTERVAL)),
            Outcome::Refused(why) => {
                canary.note_write(key, Some(why));
                self.arm(&name, now.plus(RETRY_INTERVAL));
            }
        }
    }

    /// Notes that a namespace goes with all that is in it: of its Canaries, those that are being deleted wait for nothing.
    fn namespace_ends(&mut self, namespace: &str) {
        for (name, canary) in self.canaries.iter_mut().filter(|(name, _)| &*name.namespace == namespace) {
            canary.namespace_ends();
            self.stale.insert(name.clone());
        }
    }

    /// Takes what came of a read: the object, or nothing where there is none. Its values are kept until the next
    /// [`Reconciler::poll`].
    pub fn read(&mut self, key: &ObjectKey, result: Result<Option<Value>, ReadFailure>, now: Timestamp) {
        let is_channels = self.channels.is_wanted(key);
        let is_news = is_channels && result.as_ref().is_ok_and(|object| self.channels.take(key, object.as_ref()));
        self.stale.extend(self.configs.take(key, result, now));
        // Where Secrets are not watched, nobody says that one is another one.
        if is_channels && !self.settings.tracks_configs {
            self.configs.reread(key, now.plus(CHANNEL_INTERVAL));
        }
        let failure = self.configs.failure(key).filter(|_| is_channels);
        if is_news || failure.is_some_and(|why| self.channels.fail(key, why)) {
            self.documents = self.documents.saturating_add(1);
        }
    }

    /// Takes what came of a list of Pods. One that failed is asked for again, later.
    pub fn pods(&mut self, query: &PodQuery, result: Result<Value, ReadFailure>, now: Timestamp) {
        let Some(canary) = self.canaries.get_mut(&query.canary) else { return };
        match result {
            Ok(pods) => canary.unready.take(query.arm, Blocker::of(&pods), now),
            Err(_) => canary.unready.fail(query.arm, now),
        }
        self.stale.insert(query.canary.clone());
    }

    /// Returns the version that is known of what a write is about; nothing: it is not there.
    pub fn version(&self, write: &Write) -> Option<String> {
        let key = match write.key() {
            WriteKey::Object(key) | WriteKey::Scale(key) | WriteKey::Status(key) | WriteKey::Merge(key) => key,
            WriteKey::Record(_) | WriteKey::Note(_) | WriteKey::Event(_) => return None,
        };
        if key.kind.is_config() {
            return self.configs.version(&key).map(str::to_owned);
        }
        text(&self.world.get(&key)?, "/metadata/resourceVersion").map(str::to_owned)
    }

    /// Returns what is to be done by now. All that is at rest costs nothing.
    pub fn poll(&mut self, now: Timestamp) -> Output {
        let due: Vec<CanaryName> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.timers.remove(&name);
            self.stale.insert(name);
        }
        // Claims that are given up concern those that waited for them.
        while !self.stale.is_empty() {
            let stale = std::mem::take(&mut self.stale);
            for name in self.in_order(stale) {
                self.evaluate(&name, now);
            }
        }
        if let Some(listeners) = self.listeners.take_changed() {
            self.change.listeners = Some(listeners);
        }
        self.configs.forget_data();
        Output {
            reads: self.configs.take_due(now),
            change: std::mem::take(&mut self.change),
            writes: std::mem::take(&mut self.writes),
            commands: std::mem::take(&mut self.commands),
            pods: std::mem::take(&mut self.pods),
        }
    }

    /// Returns canaries in the order in which they get what only one can have: after a restart, those whose spec was accepted
    /// first, and the older ones first.
    fn in_order(&self, names: BTreeSet<CanaryName>) -> Vec<CanaryName> {
        if names.len() < 2 {
            return names.into_iter().collect();
        }
        let mut ordered: Vec<(bool, String, CanaryName)> = names
            .into_iter()
            .map(|name| {
                let object = self.world.get(&key(&name));
                let stored = self.world.get(&ObjectKey::new(Kind::CanaryState, &name.namespace, &name.name));
                let is_accepted = stored.is_some_and(|stored| stored.pointer("/status/acceptedSpec").is_some());
                (!is_accepted, object.as_ref().map(created).unwrap_or_default(), name)
            })
            .collect();
        ordered.sort();
        ordered.into_iter().map(|(_, _, name)| name).collect()
    }

    /// Returns when there is something to do without anything happening before.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.values().copied().chain(self.configs.next_due()).min()
    }

    fn evaluate(&mut self, name: &CanaryName, now: Timestamp) {
        let object = self.world.get(&key(name));
        // Of one that is being deleted nothing is made anew; one that we hold back hands its requests back first.
        let Some(object) = object.filter(|object| !release::is_deleted(object) || release::is_held(object)) else {
            return self.forget(name);
        };
        let is_leaving = release::is_deleted(&object);
        let mut on_their_way = self.in_flight.iter();
        let takes_back = |(key, of): (&WriteKey, &InFlight)| of.canary == *name && key.may_take_back();
        let is_quiet = is_leaving && !on_their_way.any(takes_back);
        if self.canaries.get(name).is_some_and(|canary| !canary.is(&object)) {
            self.forget(name);
        }
        let stored = self.world.get(&ObjectKey::new(Kind::CanaryState, &name.namespace, &name.name));
        // One of a Canary that was deleted goes with it, a moment later.
        let stored = stored.filter(|stored| is_owned(stored, &object));
        let canary = self.canaries.entry(name.clone()).or_insert_with(|| Canary::new(&object, stored.as_ref()));
        let in_force = canary.in_force(&object);
        self.world.depend(name, &in_force);
        let target = target_of(&self.world, name, &in_force);
        let references = tracked_references(target.as_ref(), self.settings.tracks_configs);
        let uid = text(&object, "/metadata/uid").unwrap_or_default();
        let scope = Scope { name, uid, target: target_name(&in_force), references: &references };
        let mut wanted = canary.wanted_configs(&scope.of(&self.configs));
        let secrets = channels::wanted(&in_force, name, &self.world);
        wanted.extend(secrets.iter().map(|key| (key.clone(), Part::Whole)));
        self.configs.depend(name, wanted);
        for key in self.channels.depend(name, secrets.clone()) {
            // It may have been read for somebody else.
            self.configs.reread(&key, Timestamp::EPOCH);
        }
        // What begins with less than all that is to be had would take the rest for a change.
        if canary.is_new() && (scope.of(&self.configs).is_pending() || self.channels.is_pending(name)) {
            return;
        }
        let around = Around {
            configs: scope.of(&self.configs),
            name,
            object: &object,
            in_force: &in_force,
            stored: stored.as_ref(),
            world: &self.world,
            listeners: &self.listeners,
            channels: &self.channels,
            settings: &self.settings,
            documents: self.documents,
            now,
        };
        let (waited, evaluated) = match stored.as_ref().map(canary_state::read) {
            Some(Content::Foreign { .. }) if is_leaving => {
                let evaluated = canary.leave(&around, is_quiet);
                canary.observe(&around, &mut self.change, &mut self.pods);
                (BTreeSet::new(), evaluated)
            }
            Some(Content::Foreign { why }) => {
                let state = canary_state::object(name);
                (BTreeSet::new(), canary.disregard(&around, format!("{state}: {why}")))
            }
            Some(Content::Empty | Content::Decided(_)) | None => {
                let waited = canary.configure(&around, &mut self.claims, &mut self.change);
                let in_force = canary.in_force(&object);
                let around = Around { in_force: &in_force, ..around };
                let (due, mut evaluated) = if is_leaving {
                    let evaluated = canary.leave(&around, is_quiet);
                    (canary.observe(&around, &mut self.change, &mut self.pods), evaluated)
                } else {
                    let due = canary.observe(&around, &mut self.change, &mut self.pods);
                    if let Some((verb, id)) = canary.command(&around) {
                        self.commands.push(Commanded { canary: name.clone(), verb, id });
                    }
                    (due, canary.writes(&around))
                };
                evaluated.due = evaluated.due.into_iter().chain(due).min();
                (waited, evaluated)
            }
        };
        let mut wanted = canary.wanted_configs(&scope.of(&self.configs));
        wanted.extend(secrets.into_iter().map(|key| (key, Part::Whole)));
        self.configs.depend(name, wanted);
        for waited in waited {
            if let Some(canary) = self.canaries.get_mut(&waited) {
                canary.is_outdated();
            }
            self.stale.insert(waited);
        }
        for copy in evaluated.copies {
            self.copy(name, &object, &copy);
        }
        if let Some(due) = evaluated.due {
            self.arm(name, due);
        }
        for write in evaluated.writes {
            self.hand_out(name, write);
        }
        // What was handed out before and is not wanted any more would come late, and undo what is wanted now.
        for write in evaluated.settled {
            if self.in_flight.contains_key(&write.key()) {
                self.hand_out(name, write);
            }
        }
    }

    /// Has a ConfigMap or Secret copied: what is in it is read first.
    fn copy(&mut self, canary: &CanaryName, object: &Value, copy: &ConfigCopy) {
        self.configs.hold(&copy.to, canary);
        if self.in_flight.contains_key(&WriteKey::Object(copy.to.clone())) {
            return;
        }
        let source = self.configs.data(&copy.from, &copy.checksum);
        let copied = source.and_then(|source| copy.desire(object, &source, &self.settings));
        if let Some(copied) = copied {
            self.hand_out(canary, Write::Apply(copy.to.clone(), copied));
        }
    }

    /// Hands a write out, unless the very same is on its way.
    fn hand_out(&mut self, canary: &CanaryName, write: Write) {
        let (key, digest) = (write.key(), write.digest());
        if self.in_flight.get(&key).is_some_and(|in_flight| in_flight.digest == digest) {
            return;
        }
        if !matches!(key, WriteKey::Event(_)) {
            self.in_flight.insert(key, InFlight { canary: canary.clone(), digest });
        }
        self.writes.push(write);
    }

    fn forget(&mut self, name: &CanaryName) {
        let Some(canary) = self.canaries.remove(name) else { return };
        if canary.is_configured() {
            self.change.canaries.insert(name.clone(), None);
        }
        self.change.observed.remove(name);
        self.timers.remove(name);
        self.configs.forget(name);
        self.channels.depend(name, BTreeSet::new());
        self.in_flight.retain(|_, in_flight| in_flight.canary != *name);
        for waited in self.claims.release(name) {
            if let Some(canary) = self.canaries.get_mut(&waited) {
                canary.is_outdated();
            }
            self.stale.insert(waited);
        }
    }

    fn arm(&mut self, name: &CanaryName, at: Timestamp) {
        let timer = self.timers.entry(name.clone()).or_insert(at);
        *timer = at.min(*timer);
    }
}
