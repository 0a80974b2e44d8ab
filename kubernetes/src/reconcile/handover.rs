//! How a target is given its requests back before its Canary goes.
//!
//! ```text
//!  scaled ─► ready ─► Service and Envoys lead to it ─► drained ─► the finalizer goes, and with it primary and routes
//!     └─────── not within ten minutes ─► the primary belongs to nobody, and serves on ─► the finalizer goes
//! ```
//!
//! Level-triggered: each look begins from how things are, and from what is kept of it in the `CanaryState`.

use std::collections::BTreeSet;

use serde_json::Value;
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{DRAIN, Phase, Readiness, Severity, State};
use wingbeat_core::time::{Span, Timestamp};

use super::deployment::{promoted, readiness};
use super::pods::replicas;
use super::record::{Deletion, Record, Stage};
use super::status::Leaving;
use super::write::Write;
use crate::object::{number, text};
use crate::release;
use crate::world::{Kind, ObjectKey};

/// Time for a target to become ready before its Canary goes: 10 min. Then the primary serves on, and belongs to nobody: somebody
/// has to look after it, and nobody is without an answer.
const MAX_WAIT: Span = Span::from_secs(600);
/// How long proxies may take to come back to a new leader, and requests to end that they sent before to what has none any more:
/// 10 s.
pub(super) const TAKEOVER_DRAIN: Span = Span::from_secs(10);
/// What the target is scaled for, which is done once (P33).
const TRANSITION: &str = "deletion/up";
/// Where an object has its name.
const NAME: &str = "/metadata/name";

/// What is known of a Canary that is being deleted, and of what it leaves.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) canary: &'a Value,
    /// Nothing: there is none, or it is being deleted, too.
    pub(super) target: Option<&'a Value>,
    pub(super) target_name: &'a str,
    pub(super) revision: Option<&'a Revision>,
    /// The Canary's own; nothing: there is none, or it is being deleted.
    pub(super) primary: Option<&'a Value>,
    /// What has the name of its scaler.
    pub(super) scaler: Option<&'a Value>,
    /// The Service of the target's name.
    pub(super) entry: Option<&'a Value>,
    /// Those of the arms.
    pub(super) arms: &'a [&'a Value],
    /// How many endpoints of the target Envoys would be told; nothing: they are not told of this canary.
    pub(super) endpoints: Option<usize>,
    pub(super) engine: InEngine<'a>,
    /// Whether a spec was ever right.
    pub(super) was_accepted: bool,
    /// Whether requests are to be handed back at all.
    pub(super) hands_back: bool,
    /// Whether nothing that was wanted before is on its way to the API server any more.
    pub(super) is_quiet: bool,
    pub(super) now: Timestamp,
}

/// Where the engine has a canary.
#[derive(Debug, Clone, Copy)]
pub(super) enum InEngine<'a> {
    /// It has none.
    Absent,
    /// It has not said yet.
    Asked,
    At(&'a State),
}

/// What this process has seen of a deletion. A restart begins it anew.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether Envoys are to be led to the target.
    pub(super) leads_to_target: bool,
    /// Whether its namespace is known to go, with all that is in it.
    pub(super) namespace_ends: bool,
    /// Since when all leads to the target.
    since: Option<Timestamp>,
    /// Whether it was seen before that: proxies are connected, then.
    was_apart: bool,
    told: BTreeSet<String>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Handover {
    pub(super) writes: Vec<Write>,
    /// What is as it should be: needed only where something else is on its way there.
    pub(super) settled: Vec<Write>,
    /// What people are told, each once.
    pub(super) told: Vec<(Severity, String)>,
    pub(super) due: Option<Timestamp>,
    /// How far it is; nothing: the Canary goes.
    pub(super) leaving: Option<Leaving>,
}

impl Handover {
    /// Returns what is to be done about a Canary that is being deleted. How far that is, is kept in the record.
    pub(super) fn of(scene: &Scene<'_>, record: &mut Record, progress: &mut Progress) -> Self {
        let handover = Self::default();
        let hands_back = scene.hands_back && !progress.namespace_ends;
        let Some(target) = scene.target.filter(|_| hands_back) else { return handover.end(scene) };
        if matches!(scene.engine, InEngine::Asked) {
            return handover.waits("Asked", "It is not known yet where the rollout stands.".to_owned());
        }
        if scene.has_taken() { handover.hand_back(scene, target, record, progress) } else { handover.end(scene) }
    }

    fn hand_back(mut self, scene: &Scene<'_>, target: &Value, record: &mut Record, progress: &mut Progress) -> Self {
        // What is kept of a time are its milliseconds.
        let first = Deletion { since: Timestamp::from_millis(scene.now.as_millis()), stage: Stage::Waits };
        let before = record.deletion.unwrap_or(first);
        self.scale(scene, target, record);
        let deletion = Deletion { stage: scene.stage(target, record, before), ..before };
        record.deletion = Some(deletion);
        self.tell(progress, Severity::Normal, scene.begins());
        if let Some(text) = scene.differs() {
            self.tell(progress, Severity::Warning, text);
        }
        progress.leads_to_target = deletion.stage == Stage::Leads;
        match deletion.stage {
            Stage::Waits => {
                (progress.since, progress.was_apart) = (None, true);
                self.due = Some(deletion.since.plus(MAX_WAIT));
                self.writes.extend(scene.primary.and_then(|primary| scene.lead(primary, None)));
                let why = match readiness(target) {
                    Readiness::NotReady { reason, .. } => reason,
                    Readiness::Ready => "not all of its endpoints are known".to_owned(),
                };
                let message = format!("Deployment {} gets the requests once it is ready: {why}.", scene.target_name);
                self.waits("TargetNotReady", message)
            }
            Stage::Leads => self.drain(scene, target, record, progress),
            Stage::GivenUp => {
                let text = scene.given_up();
                self.tell(progress, Severity::Warning, text.clone());
                self.writes = scene.orphan();
                if self.writes.is_empty() && scene.is_quiet { self.end(scene) } else { self.waits("GivenUp", text) }
            }
        }
    }

    /// Sees to it, once, that the target is as large as what it takes over from.
    fn scale(&mut self, scene: &Scene<'_>, target: &Value, record: &mut Record) {
        let (has, wanted) = (replicas(target), scene.size(record));
        let Some(key) = ObjectKey::of(Kind::Deployment, target) else { return };
        if has >= wanted {
            record.scaled_for = Some(TRANSITION.to_owned());
            self.settled.push(Write::Scale(key, has));
        } else if !is_scaled(record) {
            self.writes.push(Write::Scale(key, wanted));
        }
    }

    /// Leads everything to the target, and ends once nobody asks the primary any more.
    fn drain(mut self, scene: &Scene<'_>, target: &Value, record: &Record, progress: &mut Progress) -> Self {
        let revision = scene.revision.map_or_else(String::new, |revision| format!(", with revision {revision}"));
        let message = format!("Deployment {} has the requests{revision}.", scene.target_name);
        if let Some(write) = scene.lead(target, record.entry.as_ref()) {
            self.writes.push(write);
            (progress.since, progress.was_apart) = (None, true);
            return self.waits("Leading", message);
        }
        let since = *progress.since.get_or_insert(scene.now);
        let drain = if progress.was_apart { DRAIN } else { TAKEOVER_DRAIN };
        let drained = since.plus(if scene.primary.is_some() { drain } else { Span::ZERO });
        if scene.now >= drained && scene.is_quiet {
            return self.end(scene);
        }
        self.due = Some(drained).filter(|drained| *drained > scene.now);
        self.leaving = Some(Leaving { is_handed_back: true, reason: "Draining", message });
        self
    }

    /// Lets the Canary go.
    fn end(mut self, scene: &Scene<'_>) -> Self {
        (self.due, self.leaving) = (None, None);
        let go = ObjectKey::of(Kind::Canary, scene.canary).map(|key| Write::Merge(key, release::let_go(scene.canary)));
        self.writes = go.into_iter().collect();
        self
    }

    fn waits(mut self, reason: &'static str, message: String) -> Self {
        self.leaving = Some(Leaving { is_handed_back: false, reason, message });
        self
    }

    fn tell(&mut self, progress: &mut Progress, severity: Severity, text: String) {
        if progress.told.insert(text.clone()) {
            self.told.push((severity, text));
        }
    }
}

impl Scene<'_> {
    /// Returns false if nothing was ever taken from the target, so that nothing is to be given back.
    fn has_taken(&self) -> bool {
        let leads_to_primary = || {
            let chosen = self.entry.map(selector);
            chosen.zip(self.primary).is_some_and(|(chosen, primary)| chooses(chosen, primary))
        };
        match self.engine {
            InEngine::At(State { phase: Phase::Initializing, .. }) => leads_to_primary(),
            InEngine::At(_) | InEngine::Absent | InEngine::Asked => self.was_accepted || self.primary.is_some(),
        }
    }

    /// Returns how many Pods the target needs: as many as the primary has, or had.
    fn size(&self, record: &Record) -> u64 {
        let had = || record.sized.as_ref().map_or(1, |sized| sized.replicas);
        self.primary.map_or_else(had, replicas).max(1)
    }

    /// Returns who serves by now.
    fn stage(&self, target: &Value, record: &Record, before: Deletion) -> Stage {
        let has = replicas(target);
        // Whoever gave it another size after it was given ours decides.
        let is_large = has >= self.size(record) || is_scaled(record);
        let known = self.endpoints.map(|known| u64::try_from(known).unwrap_or(u64::MAX));
        let is_ready = readiness(target).is_ready() && is_large && known.is_none_or(|known| known >= has);
        let available = number(target, "/status/availableReplicas").unwrap_or(0);
        let answers = available > 0 && known.is_none_or(|known| known > 0);
        match before.stage {
            Stage::GivenUp => Stage::GivenUp,
            Stage::Waits | Stage::Leads if is_ready => Stage::Leads,
            // A Pod that is away for a moment takes nothing back.
            Stage::Leads if answers => Stage::Leads,
            // There is nobody else.
            Stage::Waits | Stage::Leads if self.primary.is_none() && has > 0 => Stage::Leads,
            Stage::Waits | Stage::Leads if self.now >= before.since.plus(MAX_WAIT) => Stage::GivenUp,
            Stage::Waits | Stage::Leads => Stage::Waits,
        }
    }

    /// Returns the write that leads the Service of the target's name to the Pods of a workload; nothing if it does, or if
    /// somebody has it choose others than the canary's.
    fn lead(&self, to: &Value, before: Option<&Value>) -> Option<Write> {
        let entry = self.entry?;
        let leads = chooses(selector(entry), to);
        let is_made = release::belongs_to(entry, self.canary);
        // What serves must not go with the Canary.
        let goes = is_made && self.target.is_some_and(|target| text(target, NAME) == text(to, NAME));
        let workloads = [self.target, self.primary];
        let is_ours = is_made || workloads.into_iter().flatten().any(|workload| chooses(selector(entry), workload));
        if !is_ours || (leads && !goes) {
            return None;
        }
        let wanted = before.filter(|before| chooses(before, to)).or_else(|| to.pointer("/spec/selector/matchLabels"));
        let patch = release::led(entry, self.canary, wanted?.as_object()?);
        Some(Write::Merge(ObjectKey::of(Kind::Service, entry)?, patch))
    }

    /// Returns what has everything that serves belong to nobody: the primary last, as it says whom its Services choose.
    fn orphan(&self) -> Vec<Write> {
        // Where the target had the requests for a time, they go back.
        let led = self.primary.and_then(|primary| self.lead(primary, None));
        let disowned = |kind: Kind, object: &Value| {
            let patch = release::disowned(object, self.canary)?;
            Some(Write::Merge(ObjectKey::of(kind, object)?, patch))
        };
        let entry = led.or_else(|| self.entry.and_then(|entry| disowned(Kind::Service, entry)));
        let arms = self.arms.iter().filter_map(|service| disowned(Kind::Service, service));
        let scaler = self.scaler.and_then(|scaler| disowned(Kind::HorizontalPodAutoscaler, scaler));
        let before: Vec<Write> = entry.into_iter().chain(arms).chain(scaler).collect();
        if !before.is_empty() {
            return before;
        }
        self.primary.and_then(|primary| disowned(Kind::Deployment, primary)).into_iter().collect()
    }

    fn begins(&self) -> String {
        format!("Terminating canary {}: Deployment {} gets its requests back", self.shown(), self.target_name)
    }

    /// Returns what is to be known where the target is not what served.
    fn differs(&self) -> Option<String> {
        let (target, primary) = (self.revision?, promoted(self.primary?)?.revision);
        (*target != primary).then(|| {
            format!(
                "Canary {} is deleted while Deployment {} has revision {target}, which was not promoted: it gets all requests, \
                 where revision {primary} had them. To go back, give the Deployment its former template",
                self.shown(),
                self.target_name,
            )
        })
    }

    fn given_up(&self) -> String {
        let seconds = MAX_WAIT.as_millis() / 1_000;
        let name = self.target_name;
        format!(
            "Deployment {name} did not become ready within {seconds} s: {name}-primary serves on and belongs to nobody, nor do its \
             Services. Delete them once the Deployment serves",
        )
    }

    fn shown(&self) -> String {
        let of = |pointer: &str| text(self.canary, pointer).unwrap_or_default();
        format!("{}.{}", of(NAME), of("/metadata/namespace"))
    }
}

fn is_scaled(record: &Record) -> bool {
    record.scaled_for.as_deref() == Some(TRANSITION)
}

fn selector(service: &Value) -> &Value {
    service.pointer("/spec/selector").unwrap_or(&Value::Null)
}

/// Returns true if a selector chooses the Pods of a workload.
fn chooses(selector: &Value, workload: &Value) -> bool {
    let labels = workload.pointer("/spec/template/metadata/labels");
    let Some(selector) = selector.as_object().filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Notes what a Service chose that was there before, as long as it leads to the target.
pub(super) fn note_entry(record: &mut Record, canary: &Value, entry: Option<&Value>, target: &Value) {
    let Some(entry) = entry.filter(|_| record.entry.is_none()) else { return };
    if !release::belongs_to(entry, canary) && chooses(selector(entry), target) {
        record.entry = Some(selector(entry).clone());
    }
}
