//! One canary of a cluster: what is known of it, and what follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use wingbeat_api::desired_state::{Change, Configured, ObservedArms};
use wingbeat_control::engine::Standing;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Phase, Readiness, Severity};
use wingbeat_core::time::{Span, Timestamp};

use super::arms;
use super::claims::{Claim, Claims};
use super::configuration::{Configuration, Listeners, has_deployment, service_name};
use super::deployment::promoted;
use super::events::{Events, Occurrence};
use super::objects::{Live, Plan, Scaled};
use super::record::{Accepted, Record, Template};
use super::is_owned;
use super::status::Source;
use super::write::{Write, differs};
use crate::desire::Settings;
use crate::fence::{Outcome, TargetVersion};
use crate::object::{number, text};
use crate::revision;
use crate::world::{Kind, ObjectKey, World};

/// While only counts and weights of a status are different, it is written this often at most: 10 s (P31).
const STATUS_INTERVAL: Span = Span::from_secs(10);

/// A canary of a cluster.
#[derive(Debug)]
pub(super) struct Canary {
    /// Which object it is.
    uid: String,
    record: Record,
    pub(super) standing: Option<Standing>,
    pub(super) events: Events,
    /// What the spec that was read last depended on.
    inputs: Option<Inputs>,
    spec: Spec,
    /// What is wrong with the spec as it is written.
    refused: Vec<String>,
    /// All that was wrong when that was told last.
    reported: BTreeSet<String>,
    arms: Option<Arc<ObservedArms>>,
    status_written: Timestamp,
}

/// What a spec depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inputs {
    generation: u64,
    annotations: Value,
    documents: u64,
    has_target: bool,
}

/// Which spec the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// None yet.
    None,
    /// That of a generation.
    Generation(u64),
}

/// What a canary is evaluated with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) name: &'a CanaryName,
    pub(super) object: &'a Value,
    /// Its `CanaryState`.
    pub(super) stored: Option<&'a Value>,
    pub(super) world: &'a World,
    pub(super) listeners: &'a Listeners,
    pub(super) settings: &'a Settings,
    /// How often documents that Canaries name were different.
    pub(super) documents: u64,
    pub(super) now: Timestamp,
}

/// What is to be written, and when there is more to do.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    pub(super) writes: Vec<Write>,
    pub(super) due: Option<Timestamp>,
}

impl Around<'_> {
    fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.world.get(&ObjectKey::new(kind, &self.name.namespace, name))
    }

    fn target_name(&self) -> &str {
        text(self.object, "/spec/targetRef/name").unwrap_or_default()
    }

    fn target(&self) -> Option<Value> {
        self.get(Kind::Deployment, self.target_name()).filter(|_| has_deployment(self.object))
    }

    /// Returns what has the primary's name, whosever it is.
    fn named_as_primary(&self) -> Option<Value> {
        self.get(Kind::Deployment, &format!("{}-primary", self.target_name()))
    }

    /// Returns the primary. That of a former Canary of the same name goes with it, a moment later.
    fn primary(&self) -> Option<Value> {
        self.named_as_primary().filter(|primary| is_owned(primary, self.object))
    }
}

impl Canary {
    /// Goes on with what is stored of it, if anything is.
    pub(super) fn new(object: &Value, stored: Option<&Value>) -> Self {
        Self {
            uid: text(object, "/metadata/uid").unwrap_or_default().to_owned(),
            record: stored.map(Record::read).unwrap_or_default(),
            standing: None,
            events: Events::default(),
            inputs: None,
            spec: Spec::None,
            refused: Vec::new(),
            reported: BTreeSet::new(),
            arms: None,
            status_written: Timestamp::EPOCH,
        }
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
        let target = around.target();
        if let Some(target) = &target {
            self.observe_revision(target);
        }
        let generation = number(around.object, "/metadata/generation").unwrap_or(0);
        let inputs = Inputs {
            generation,
            annotations: around.object.pointer("/metadata/annotations").cloned().unwrap_or_default(),
            documents: around.documents,
            has_target: self.record.fence.is_some(),
        };
        if self.inputs.as_ref() == Some(&inputs) {
            return BTreeSet::new();
        }
        self.inputs = Some(inputs);
        let problems = match self.accept(around.object, generation, around, claims, change) {
            Ok(waited) => {
                self.refused.clear();
                let spec = around.object.get("spec").cloned().unwrap_or_default();
                self.record.accepted = Some(Accepted { generation, spec });
                return waited;
            }
            Err(problems) => problems,
        };
        self.refused = problems;
        // After a restart, the last one that was right.
        if let (Spec::None, Some(Accepted { generation, spec })) = (self.spec, self.record.accepted.clone()) {
            let mut former = around.object.clone();
            if let Some(fields) = former.as_object_mut() {
                fields.insert("spec".to_owned(), spec);
            }
            return self.accept(&former, generation, around, claims, change).unwrap_or_default();
        }
        BTreeSet::new()
    }

    fn accept(
        &mut self,
        object: &Value,
        generation: u64,
        around: &Around<'_>,
        claims: &mut Claims,
        change: &mut Change,
    ) -> Result<BTreeSet<CanaryName>, Vec<String>> {
        let name = around.name;
        let revision = self.record.fence.as_ref().map(|fence| fence.revision.clone());
        let missing = || format!("spec.targetRef.name: there is no Deployment {}, make it", around.target_name());
        // What else is wrong is told too.
        let read_as = revision.clone().unwrap_or_else(|| wingbeat_core::id::Revision::new(""));
        let read = Configuration::read(object, name, &read_as, around.world, around.listeners);
        let Configuration { config, exposure } = match (read, revision) {
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
        change.canaries.insert(name.clone(), Some(Configured { config, file: None }));
        // Whoever is given a canary is given how it stands.
        self.arms = None;
        self.spec = Spec::Generation(generation);
        Ok(waited)
    }

    /// Notes the target's revision.
    fn observe_revision(&mut self, target: &Value) {
        let template = target.pointer("/spec/template").unwrap_or(&Value::Null);
        let hash = revision::of_template(template, &std::collections::BTreeMap::new());
        let Some(version) = TargetVersion::read(target, hash) else { return };
        self.record.fence = match self.record.fence.take() {
            None => Some(version.first()),
            Some(fence) => match fence.observe(version) {
                Outcome::Kept(now) | Outcome::Moved(now) => Some(now),
                Outcome::Pending => Some(fence),
            },
        };
    }

    /// Tells the engine how its workloads stand, if that is different.
    pub(super) fn observe(&mut self, around: &Around<'_>, change: &mut Change) {
        let Some(fence) = self.record.fence.as_ref().filter(|_| self.is_configured()) else { return };
        let (target, primary) = (around.target(), around.primary());
        let arms =
            arms::observe(around.name, around.object, &fence.revision, target.as_ref(), primary.as_ref(), around.world);
        if self.arms.as_deref() != Some(&arms) {
            let arms = Arc::new(arms);
            self.arms = Some(arms.clone());
            change.observed.insert(around.name.clone(), arms);
        }
    }

    /// Returns what is to be written.
    pub(super) fn writes(&mut self, around: &Around<'_>) -> Evaluated {
        let now = around.now;
        let stored = around.stored.map(Record::read).unwrap_or_default();
        let plan = self.plan(around, &stored);
        let mut evaluated = Evaluated { writes: plan.writes, due: plan.due };
        let problems: Vec<String> = self.refused.iter().cloned().chain(plan.problems).collect();
        self.report(around, &problems, &mut evaluated);
        // The engine's record comes first: without it there is nothing to go on with.
        if around.stored.is_some() && stored != self.record {
            evaluated.writes.push(Write::Record(around.name.clone(), self.record.to_json()));
        }
        self.set_status(around, &problems, &plan.scaled, &mut evaluated);
        evaluated.due = evaluated.due.filter(|due| *due > now);
        evaluated
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
        let template = target.pointer("/spec/template").cloned().unwrap_or_default();
        let of_target = Template { revision: revision.clone(), template };
        let of_primary = primary.and_then(promoted);
        self.record.keep_templates(state, &of_target, of_primary.as_ref());
        let apex = service_name(around.object);
        let names = [apex.to_owned(), format!("{apex}-primary"), format!("{apex}-canary")];
        let services: Vec<Value> = names.iter().filter_map(|name| around.get(Kind::Service, name)).collect();
        let services: Vec<&Value> = services.iter().collect();
        let live = Live {
            canary: around.object,
            target: &target,
            revision: &revision,
            primary,
            existing: &services.iter().copied().chain(named.as_ref()).collect::<Vec<_>>(),
            services: &services,
            stored,
        };
        Plan::of(&live, state, &mut self.record, around.settings, around.now)
    }

    /// Tells what is wrong, each once until it is mended, and why a first primary is not ready.
    fn report(&mut self, around: &Around<'_>, problems: &[String], evaluated: &mut Evaluated) {
        let mut all: BTreeSet<String> = problems.iter().cloned().collect();
        let initializing = self.standing.as_ref().is_some_and(|it| matches!(it.state.phase, Phase::Initializing));
        if let Some(Readiness::NotReady { reason, .. }) = self.arms.as_ref().map(|arms| &arms.primary.readiness)
            && initializing
            && around.primary().is_some()
        {
            all.insert(format!("{}-primary.{} not ready: {reason}", around.target_name(), around.name.namespace));
        }
        let context = number(around.object, "/metadata/generation").unwrap_or(0).to_string();
        for text in all.difference(&self.reported) {
            let occurrence = Occurrence { severity: Severity::Warning, text, context: &context, at: around.now };
            evaluated.writes.push(self.events.write(around.object, &occurrence));
        }
        self.reported = all;
    }

    fn set_status(&mut self, around: &Around<'_>, problems: &[String], scaled: &Scaled, evaluated: &mut Evaluated) {
        let accepted = match self.spec {
            Spec::None => None,
            Spec::Generation(generation) => Some(generation),
        };
        let source = Source { canary: around.object, standing: self.standing.as_ref(), accepted, problems, scaled };
        let status = source.status(around.now);
        let before = around.object.get("status").unwrap_or(&Value::Null);
        if !differs(&status, before) {
            return;
        }
        let is_same = |field: &str| status.pointer(field) == before.pointer(field);
        let waits_until = self.status_written.plus(STATUS_INTERVAL);
        if is_same("/phase") && is_same("/conditions") && around.now < waits_until {
            evaluated.due = Some(evaluated.due.map_or(waits_until, |due| due.min(waits_until)));
            return;
        }
        self.status_written = around.now;
        let object = serde_json::json!({
            "apiVersion": around.object.get("apiVersion"),
            "kind": "Canary",
            "metadata": {"name": &*around.name.name, "namespace": &*around.name.namespace},
            "status": status,
        });
        evaluated.writes.push(Write::Status(key(around.name), object));
    }
}

/// Returns what a Canary is called.
pub(super) fn key(name: &CanaryName) -> ObjectKey {
    ObjectKey::new(Kind::Canary, &name.namespace, &name.name)
}
