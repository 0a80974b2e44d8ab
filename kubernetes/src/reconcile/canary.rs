//! One canary of a cluster: what is known of it, and what follows.

mod deletion;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use wingbeat_api::desired_state::{Change, Configured, ObservedArms};
use wingbeat_control::engine::Standing;
use wingbeat_controller::verb::Verb;
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::rollout::{DRAIN, Phase, State};
use wingbeat_core::time::{Span, Timestamp};

use super::arms;
use super::around::{Around, target_name};
use super::claims::{Claim, Claims};
use super::command;
use super::configs::Configs;
use super::configuration::{Configuration, has_deployment, service_name};
use super::deployment::promoted;
use super::events::Events;
use super::handover::{Progress, TAKEOVER_DRAIN, note_entry};
use super::objects::{Awaits, Live, Plan, Scaled, missing_size};
use super::owner::is_owned;
use super::pods::{replicas, template_of};
use super::record::{Accepted, Record, Template};
use super::relax::Relax;
use super::route_blockers::RouteBlockers;
use super::scalers::Scalers;
use super::status::Leaving;
use super::unready::UnreadyWorkloads;
use super::write::{Write, WriteKey};
use crate::configs::{Contents, Part};
use crate::desire::ConfigCopy;
use crate::fence::{FencedRevision, TargetVersion};
use crate::object::{number, text};
use crate::pod_status::PodQuery;
use crate::release;
use crate::revision;
use crate::world::{Kind, ObjectKey};

/// What is kept beside the engine's record waits for this long to be written together with one: 1 s. Without one by then, it is
/// written by itself.
const RECORD_DELAY: Span = Span::from_secs(1);

/// What is kept of a canary, while it is not stored.
#[derive(Debug)]
struct Unstored {
    since: Timestamp,
    /// As it waits for the engine's next record.
    noted: Record,
}

/// A canary of a cluster.
#[derive(Debug)]
pub(super) struct Canary {
    /// Which object it is.
    uid: String,
    record: Record,
    unstored: Option<Unstored>,
    pub(super) standing: Option<Standing>,
    pub(super) events: Events,
    /// What the spec that was read last depended on.
    inputs: Option<Inputs>,
    spec: Spec,
    /// What is wrong with the spec as it is written.
    refused: Vec<String>,
    /// What of the spec in force is not carried out.
    warnings: Vec<String>,
    /// Who is not alerted, and why.
    muted: Vec<String>,
    /// Writes that the API server refuses, and why.
    refused_writes: BTreeMap<WriteKey, String>,
    /// The command that was handed on and is not answered yet.
    commanding: Option<String>,
    /// All that was wrong when that was told last.
    reported: BTreeSet<String>,
    arms: Option<Arc<ObservedArms>>,
    /// Why target and primary are not ready.
    pub(super) unready: UnreadyWorkloads,
    /// Why its routes are not in force.
    pub(super) route_blockers: RouteBlockers,
    status_written: Timestamp,
    /// The conditions that were composed last, with their times.
    conditions: Value,
    /// What has no requests now is drained by then.
    drained: Timestamp,
    /// When it was given its finalizer last.
    held: Option<Timestamp>,
    /// What was seen of its deletion.
    handover: Progress,
    /// How far its deletion is.
    leaving: Option<Leaving>,
}

/// What a spec depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inputs {
    generation: u64,
    annotations: Value,
    documents: u64,
    has_target: bool,
    /// Which hosts others have that it would answer to by its name.
    taken: BTreeSet<String>,
    is_frozen: bool,
}

/// Which spec the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// None yet.
    None,
    /// That of a generation.
    Generation(u64),
}

/// What is to be written, and when there is more to do.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    pub(super) writes: Vec<Write>,
    /// What is as it should be: needed only where something else is on its way there.
    pub(super) settled: Vec<Write>,
    /// ConfigMaps and Secrets that are to be copied.
    pub(super) copies: Vec<ConfigCopy>,
    pub(super) due: Option<Timestamp>,
}

impl Canary {
    /// Goes on with what is stored of it, if anything is.
    pub(super) fn new(object: &Value, stored: Option<&Value>) -> Self {
        Self {
            uid: text(object, "/metadata/uid").unwrap_or_default().to_owned(),
            record: stored.map(Record::read).unwrap_or_default(),
            unstored: None,
            standing: None,
            events: Events::default(),
            inputs: None,
            spec: Spec::None,
            refused: Vec::new(),
            warnings: Vec::new(),
            muted: Vec::new(),
            refused_writes: BTreeMap::new(),
            commanding: None,
            reported: BTreeSet::new(),
            arms: None,
            unready: UnreadyWorkloads::default(),
            route_blockers: RouteBlockers::default(),
            status_written: Timestamp::EPOCH,
            conditions: Value::Null,
            drained: Timestamp::EPOCH,
            held: None,
            handover: Progress::default(),
            leaving: None,
        }
    }

    /// Takes where it stands. Proxies are told at the same time, and those that come back to a new leader a moment later.
    pub(super) fn take(&mut self, standing: Standing, now: Timestamp) {
        let drain = if self.standing.is_none() { TAKEOVER_DRAIN } else { DRAIN };
        let is_same = |before: &Standing| before.state.phase.as_str() == standing.state.phase.as_str();
        if !self.standing.as_ref().is_some_and(is_same) {
            self.drained = now.plus(drain);
        }
        self.standing = Some(standing);
    }

    /// Takes it that a write was carried out.
    pub(super) fn note_written(&mut self, key: &WriteKey, now: Timestamp) {
        self.note_write(key, None);
        if matches!(key, WriteKey::Merge(ObjectKey { kind: Kind::Canary, .. })) {
            self.held = Some(now);
        }
    }

    /// Notes why the API server refuses a write, and will again as it is; nothing: it was carried out. It is told as long as the write
    /// is wanted, if it is one of an object.
    pub(super) fn note_write(&mut self, key: &WriteKey, refused: Option<String>) {
        match refused {
            Some(why) => drop(self.refused_writes.insert(key.clone(), why)),
            None => drop(self.refused_writes.remove(key)),
        }
    }

    /// Returns the object with the spec that is in force: the last one that was right.
    pub(super) fn in_force(&self, object: &Value) -> Value {
        let mut in_force = object.clone();
        let accepted = self.record.accepted.as_ref().filter(|accepted| {
            !self.refused.is_empty() || number(object, "/metadata/generation") != Some(accepted.generation)
        });
        if let (Some(accepted), Some(fields)) = (accepted, in_force.as_object_mut()) {
            fields.insert("spec".to_owned(), accepted.spec.clone());
        }
        in_force
    }

    /// Returns true if this is the object: one that was deleted and made anew is another one.
    pub(super) fn is(&self, object: &Value) -> bool {
        text(object, "/metadata/uid").unwrap_or_default() == self.uid
    }

    /// Returns true if the engine has it.
    pub(super) fn is_configured(&self) -> bool {
        self.spec != Spec::None
    }

    /// Has its spec read again.
    pub(super) fn is_outdated(&mut self) {
        self.inputs = None;
    }

    /// Reads the spec, if it may be another one, and gives it to the engine, if it is right: else the last one goes on. Returns
    /// the canaries that waited for what this one gave up.
    pub(super) fn configure(
        &mut self,
        around: &Around<'_>,
        claims: &mut Claims,
        change: &mut Change,
    ) -> BTreeSet<CanaryName> {
        let version =
            |target: &Value| TargetVersion::read(target, revision::of_template(template_of(target), &BTreeMap::new()));
        if let Some(target) = around.target()
            && let Some(version) = version(&target)
        {
            self.record.follow(&target, version, &around.configs.contents());
        }
        let is_same_target = target_name(around.object) == target_name(around.in_force);
        let fence = if is_same_target {
            self.record.fence.clone()
        } else {
            around.target_of(around.object).as_ref().and_then(version).map(TargetVersion::first)
        };
        let generation = number(around.object, "/metadata/generation").unwrap_or(0);
        let inputs = Inputs {
            generation,
            annotations: around.object.pointer("/metadata/annotations").cloned().unwrap_or_default(),
            documents: around.documents,
            has_target: fence.is_some(),
            taken: claims.taken_names(around.name, around.object),
            is_frozen: self.is_frozen(around),
        };
        if self.inputs.as_ref() == Some(&inputs) {
            return BTreeSet::new();
        }
        self.inputs = Some(inputs);
        let problems = match self.accept(around.object, generation, fence.as_ref(), around, claims, change) {
            Ok(waited) => {
                self.refused.clear();
                let spec = around.object.get("spec").cloned().unwrap_or_default();
                self.record.accepted = Some(Accepted { generation, spec });
                self.record.fence = fence;
                return waited;
            }
            Err(problems) => problems,
        };
        self.refused = problems;
        let former = self.record.accepted.clone();
        let (Spec::None, Some(Accepted { generation, spec })) = (self.spec, former) else { return BTreeSet::new() };
        // After a restart, the last one that was right: a canary that was served goes on to be, whatever is missing by now.
        for relax in [Relax::Nothing, Relax::Alerts, Relax::Metrics] {
            let mut former = around.object.clone();
            if let Some(fields) = former.as_object_mut() {
                fields.insert("spec".to_owned(), relax.apply(spec.clone()));
            }
            let fence = self.record.fence.clone();
            match self.accept(&former, generation, fence.as_ref(), around, claims, change) {
                Ok(waited) => return waited,
                Err(problems) if relax == Relax::Metrics => {
                    let lost =
                        problems.iter().map(|problem| format!("the former spec is not served any more: {problem}"));
                    self.refused.extend(lost);
                }
                Err(_) => {}
            }
        }
        BTreeSet::new()
    }

    fn accept(
        &mut self,
        object: &Value,
        generation: u64,
        fence: Option<&FencedRevision>,
        around: &Around<'_>,
        claims: &mut Claims,
        change: &mut Change,
    ) -> Result<BTreeSet<CanaryName>, Vec<String>> {
        let name = around.name;
        let frozen = self.is_frozen(around).then(|| release::frozen(object));
        let object = frozen.as_ref().unwrap_or(object);
        let missing = || format!("spec.targetRef.name: there is no Deployment {}, make it", target_name(object));
        // What else is wrong is told too.
        let read_as = fence.map_or_else(|| Revision::new(""), |fence| fence.revision.clone());
        let taken = claims.taken_names(name, object);
        let read = Configuration::read(object, name, &read_as, around.world, around.listeners, around.channels, &taken);
        let Configuration { config, exposure, warnings, muted } = match (read, fence) {
            (Ok(read), Some(_)) => read,
            (Ok(_), None) => return Err(vec![missing()]),
            (Err(problems), Some(_)) => return Err(problems),
            (Err(mut problems), None) => {
                if has_deployment(object) {
                    problems.push(missing());
                }
                return Err(problems);
            }
        };
        let wanted = Claim::of(name, config.plan.target(), &exposure);
        let waited = claims
            .take(name, &wanted)
            .map_err(|others| others.iter().map(|(claim, holder)| claim.refused(holder)).collect::<Vec<String>>())?;
        claims.wait(name, &taken, &exposure.listeners);
        change.canaries.insert(name.clone(), Some(Configured { config, file: None }));
        // Whoever is given a canary is given how it stands.
        self.arms = None;
        (self.warnings, self.muted) = (warnings, muted);
        self.spec = Spec::Generation(generation);
        Ok(waited)
    }

    /// Tells the engine how its workloads stand, if that is different. Returns when it has more to tell without anything happening
    /// before.
    pub(super) fn observe(
        &mut self,
        around: &Around<'_>,
        change: &mut Change,
        pods: &mut Vec<PodQuery>,
    ) -> Option<Timestamp> {
        let fence = self.record.fence.as_ref().filter(|_| self.is_configured())?;
        let (target, primary) = (around.target(), around.primary());
        let missing = target.as_ref().zip(primary.as_ref());
        let missing = missing.and_then(|(target, primary)| missing_size(primary, target, &self.record));
        let to_come = || Scalers::of(around).first_size(primary.as_ref());
        let to_come = self.record.was_scaled_down().then(to_come);
        let is_outdated = self.record.has_outdated_pods();
        let workloads =
            arms::Workloads { target: target.as_ref(), primary: primary.as_ref(), missing, to_come, is_outdated };
        let entry = around.get(Kind::Service, service_name(around.in_force));
        let mut arms =
            arms::observe(around.name, around.in_force, &fence.revision, workloads, entry.as_ref(), around.world);
        // At rest nobody waits for the target.
        let is_waited_for = |it: &Standing| match &it.state.phase {
            Phase::Progressing(_) | Phase::Promoting(_) | Phase::Failed { on_canary: true, .. } => true,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { on_canary: false, .. } => release::is_deleted(around.object),
        };
        let waited = target.as_ref().filter(|_| self.standing.as_ref().is_some_and(is_waited_for));
        let due = self.unready.follow(around.name, [waited, primary.as_ref()], &mut arms, pods, around.now);
        let arms = self.handed_over(around, arms);
        if self.arms.as_deref() != Some(&arms) {
            let arms = Arc::new(arms);
            self.arms = Some(arms.clone());
            change.observed.insert(around.name.clone(), arms);
        }
        due
    }

    /// Leaves it alone, as what is stored of it cannot be read, and tells why.
    pub(super) fn disregard(&mut self, around: &Around<'_>, why: String) -> Evaluated {
        self.refused = vec![why];
        // Once it can be read again, the spec is what counts.
        self.is_outdated();
        let (problems, mut evaluated) = (self.refused.clone(), Evaluated::default());
        self.report(around, &problems, &mut evaluated);
        self.set_status(around, &problems, &Scaled::Right, &mut evaluated);
        evaluated
    }

    /// Returns all ConfigMaps and Secrets that matter to it, and how much of each is to be known.
    pub(super) fn wanted_configs(&self, configs: &Configs<'_>) -> BTreeMap<ObjectKey, Part> {
        let Record { fence, promoted, candidate, .. } = &self.record;
        let templates = [promoted, candidate].into_iter().flatten().map(|kept| &kept.configs);
        let contents: Vec<&Contents> = fence.iter().map(|fence| &fence.configs).chain(templates).collect();
        let is_overwritten = |state: &State| match state.phase {
            Phase::Initializing | Phase::Initialized { .. } | Phase::Waiting(_) | Phase::Progressing(_) => false,
            Phase::Promoting(_) | Phase::Finalising { .. } | Phase::Succeeded { .. } | Phase::Failed { .. } => true,
        };
        configs.wanted(&contents, self.standing.as_ref().is_some_and(|standing| is_overwritten(&standing.state)))
    }

    /// Returns true for one of whose target nothing is known yet.
    pub(super) const fn is_new(&self) -> bool {
        self.record.fence.is_none()
    }

    /// Returns the command that its annotation gives, once.
    pub(super) fn command(&mut self, around: &Around<'_>) -> Option<(Verb, String)> {
        let given = command::given(around.object).filter(|_| self.standing.is_some())?;
        if [&self.record.commanded, &self.commanding].into_iter().any(|known| known.as_deref() == Some(given)) {
            return None;
        }
        let (verb, id) = command::parse(given).ok()?;
        self.commanding = Some(given.to_owned());
        Some((verb, id))
    }

    /// Takes it that a command was answered, in whichever way; one that nobody took is given again.
    pub(super) fn answered(&mut self, is_taken: bool) {
        let given = self.commanding.take();
        if is_taken {
            self.record.commanded = given.or_else(|| self.record.commanded.take());
        }
    }

    /// Returns what is to be written.
    pub(super) fn writes(&mut self, around: &Around<'_>) -> Evaluated {
        let now = around.now;
        let stored = around.stored.map(Record::read).unwrap_or_default();
        let mut plan = self.plan(around, &stored);
        self.guard(around, &stored, &mut plan);
        // What is not wanted any more is no trouble any more.
        self.refused_writes.retain(|refused, _| plan.writes.iter().any(|write| write.key() == *refused));
        let Plan { writes, settled, copies, problems: in_the_way, due, scaled, awaits } = plan;
        let mut evaluated = Evaluated { writes, settled, copies, due };
        let refused_writes = self.refused_writes.values();
        let wrong_command = command::given(around.object).and_then(|given| command::parse(given).err());
        let problems = self.refused.iter().chain(&self.muted).chain(refused_writes).cloned();
        let problems: Vec<String> =
            problems.chain(wrong_command).chain(in_the_way).chain(around.configs.problems()).collect();
        self.report(around, &problems, &mut evaluated);
        self.keep(around, &stored, awaits, &mut evaluated);
        self.set_status(around, &problems, &scaled, &mut evaluated);
        evaluated.due = evaluated.due.filter(|due| *due > now);
        evaluated
    }

    /// Has what is kept of it stored, if it is not: with the engine's next record, or after a time without one.
    fn keep(&mut self, around: &Around<'_>, stored: &Record, awaits: Awaits, evaluated: &mut Evaluated) {
        // The engine's record comes first: without it there is nothing to go on with.
        if around.stored.is_none() || *stored == self.record {
            self.unstored = None;
            return;
        }
        let since = self.unstored.as_ref().map_or(around.now, |unstored| unstored.since);
        let due = since.plus(RECORD_DELAY);
        // What is in force is known to a restart in any case: the spec as it is written may be wrong by then.
        if around.now >= due || awaits == Awaits::Record || stored.accepted != self.record.accepted {
            evaluated.writes.push(Write::Record(around.name.clone(), self.record.to_json()));
            return;
        }
        evaluated.due = Some(evaluated.due.map_or(due, |other| other.min(due)));
        if self.unstored.as_ref().is_none_or(|unstored| unstored.noted != self.record) {
            self.unstored = Some(Unstored { since, noted: self.record.clone() });
            evaluated.writes.push(Write::Note(around.name.clone(), self.record.to_json()));
        }
    }

    fn plan(&mut self, around: &Around<'_>, stored: &Record) -> Plan {
        let (Some(Standing { state, .. }), Some(target)) = (&self.standing, around.target()) else {
            return Plan::default();
        };
        let Some(revision) = self.record.fence.as_ref().map(|fence| fence.revision.clone()) else {
            return Plan::default();
        };
        let named = around.named_as_primary();
        let primary = named.as_ref().filter(|primary| is_owned(primary, around.object));
        let template = template_of(&target).clone();
        let configs = self.record.fence.as_ref().map(|fence| fence.configs.clone()).unwrap_or_default();
        let of_target = Template { revision: revision.clone(), pods: template, configs };
        let of_primary = primary.and_then(promoted);
        let of_primary = of_primary.map(|it| Template { configs: self.record.configs_of(&it.revision), ..it });
        self.record.keep_templates(state, &of_target, of_primary.as_ref(), primary.map(replicas));
        let apex = service_name(around.in_force);
        let services = around.services();
        let entry = services.iter().find(|service| text(service, "/metadata/name") == Some(apex));
        note_entry(&mut self.record, around.object, entry, &target);
        let services: Vec<&Value> = services.iter().collect();
        let scalers = Scalers::of(around);
        let live = Live {
            canary: around.in_force,
            target: &target,
            revision: &revision,
            primary,
            existing: &services.iter().copied().chain(named.as_ref()).collect::<Vec<_>>(),
            services: &services,
            scalers: &scalers,
            stored,
            configs: around.configs,
        };
        Plan::of(&live, state, &mut self.record, around.settings, self.drained, around.now)
    }
}

/// Returns what a Canary is called.
pub(super) fn key(name: &CanaryName) -> ObjectKey {
    ObjectKey::new(Kind::Canary, &name.namespace, &name.name)
}
