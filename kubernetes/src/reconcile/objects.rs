//! What is to be written so that the objects of a canary are as they should be: nothing, where they are.

use serde_json::{Value, json};
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{Apex, DRAIN, Phase, PrimaryTemplate, State, TargetScale, workloads};
use wingbeat_core::time::Timestamp;

use super::configs::Configs;
use super::deployment::{promoted, readiness};
use super::pods::{has_pods, replicas};
use super::record::Record;
use super::scalers::{ScalerPlan, Scalers};
use super::write::{Write, selects_alike, service_differs};
use crate::configs::Contents;
use crate::desire::{ConfigCopy, Desired, Observed, Primary, Settings};
use crate::object::{SCALED_BY, number, text};
use crate::release;
use crate::world::{Kind, ObjectKey};

/// The objects of a canary, as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live<'a> {
    pub(super) canary: &'a Value,
    pub(super) target: &'a Value,
    /// Which revision the target has.
    pub(super) revision: &'a Revision,
    pub(super) primary: Option<&'a Value>,
    /// What has the name of an object that is to be made, whosever it is.
    pub(super) existing: &'a [&'a Value],
    /// The Services, as far as they are there.
    pub(super) services: &'a [&'a Value],
    pub(super) scalers: &'a Scalers,
    /// What is stored of the canary, which is what a restart finds.
    pub(super) stored: &'a Record,
    pub(super) configs: Configs<'a>,
}

/// What is to be done about the objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) writes: Vec<Write>,
    /// What is as it should be: needed only where something else is on its way there.
    pub(super) settled: Vec<Write>,
    /// ConfigMaps and Secrets that are to be copied.
    pub(super) copies: Vec<ConfigCopy>,
    /// What is in the way.
    pub(super) problems: Vec<String>,
    /// When there is something to do without anything else happening.
    pub(super) due: Option<Timestamp>,
    /// How the size of the target stands.
    pub(super) scaled: Scaled,
    pub(super) awaits: Awaits,
}

/// What the next write waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Nothing that is not under way.
    #[default]
    Nothing,
    /// What is kept has to be stored first.
    Record,
}

/// How the size of a target stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Scaled {
    /// As it should be, or on its way.
    #[default]
    Right,
    /// Somebody gave it another size after we scaled it.
    ByOthers {
        replicas: u64,
        /// Their field manager; nothing: that is not known.
        who: Option<String>,
    },
}

/// Returns how many Pods a primary lacks that was not given its size yet: all that it should have.
pub(super) fn missing_size(primary: &Value, target: &Value, record: &Record) -> Option<u64> {
    let sized = record.sized.as_ref();
    if sized.is_some_and(|sized| text(primary, "/metadata/uid") == Some(&sized.uid)) {
        return None;
    }
    let wanted = replicas(target).max(sized.map_or(1, |sized| sized.replicas)).max(1);
    (replicas(primary) < wanted).then_some(wanted)
}

impl Plan {
    /// Returns what is to be done in a state. What the target was scaled for is noted in the record, and which primary was
    /// given its size. A target is drained at this moment at the earliest.
    pub(super) fn of(
        live: &Live<'_>,
        state: &State,
        record: &mut Record,
        settings: &Settings,
        drained: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut plan = Self::default();
        let wanted = workloads(state);
        let contents = record.configs_of(live.revision);
        let desired = match live.desired(live.target, live.revision, &contents, settings) {
            Ok(desired) => desired,
            Err(problems) => {
                plan.problems = problems;
                return plan;
            }
        };
        let entry = live.service(&desired.services.apex);
        let is_switched = entry.is_some_and(|entry| selects_alike(&desired.services.apex, entry));
        let revision = match wanted.primary {
            PrimaryTemplate::Keep => None,
            PrimaryTemplate::Wanted => plan.first_revision(live, &desired, is_switched),
            PrimaryTemplate::Of(revision) => Some(revision),
        };
        if let Some(revision) = revision {
            plan.set_template(live, state, record, &desired, &revision, settings);
        }
        plan.set_size(live, record);
        match live.primary.map(|primary| live.scalers.plan(live.canary, primary, state, record, settings)) {
            Some(ScalerPlan::Write(write)) => plan.writes.push(write),
            Some(ScalerPlan::Settled(write)) => plan.settled.push(write),
            Some(ScalerPlan::Blocked(problems)) => plan.problems.extend(problems),
            Some(ScalerPlan::Nothing) | None => {}
        }
        let services = [
            Some(&desired.services.primary),
            Some(&desired.services.canary),
            (wanted.apex == Apex::Primary).then_some(&desired.services.apex),
        ];
        for service in services.into_iter().flatten() {
            let Some(key) = ObjectKey::of(Kind::Service, service) else { continue };
            let write = Write::Apply(key, service.clone());
            if live.service(service).is_none_or(|there| service_differs(service, there)) {
                plan.writes.push(write);
            } else {
                plan.settled.push(write);
            }
        }
        plan.scale(live, state, record, (wanted.target, drained), is_switched, now);
        plan
    }

    /// Returns the revision that a primary is made with, before anything is routed to it. What runs there and was promoted once
    /// is what a rollout begins from, whatever the target asks for by now: it may ask for what was rolled back.
    fn first_revision(&mut self, live: &Live<'_>, desired: &Desired, is_switched: bool) -> Option<Revision> {
        let Some(primary) = live.primary else { return Some(live.revision.clone()) };
        let has_pods = number(primary, "/status/availableReplicas").unwrap_or(0) > 0;
        if promoted(primary).is_some() {
            // One that never served may have a template that never can.
            return (!has_pods && !is_switched).then(|| live.revision.clone());
        }
        let name = text(&desired.primary.object, "/metadata/name").unwrap_or_default();
        self.problems.push(format!(
            "Deployment {name} runs what another controller promoted, and it is not known which revision that is: delete it, \
             and it is made anew from the target"
        ));
        None
    }

    /// Sees to it that the primary has the template of a revision.
    fn set_template(
        &mut self,
        live: &Live<'_>,
        state: &State,
        record: &Record,
        desired: &Desired,
        revision: &Revision,
        settings: &Settings,
    ) {
        let name = text(&desired.primary.object, "/metadata/name").unwrap_or_default();
        let runs = live.primary.and_then(promoted).is_some_and(|runs| runs.revision == *revision);
        // What served before is overwritten only once it is stored.
        if let Phase::Promoting(promotion) = &state.phase
            && !runs
            && !live.stored.has_promoted(&promotion.primary)
        {
            if record.has_promoted(&promotion.primary) {
                self.awaits = Awaits::Record;
            } else {
                self.problems.push(format!(
                    "Deployment {name} is not given the template of revision {revision}: what it runs is not known, and could \
                     not be taken back; abort the rollout"
                ));
            }
            return;
        }
        // What its Pods read is there before they are.
        let contents = record.configs_of(revision);
        let template = live.primary.and_then(|primary| primary.pointer("/spec/template")).filter(|_| runs);
        let copies = live.configs.plan(live.canary, state, &contents, template);
        self.copies.extend(copies.copies);
        self.problems.extend(copies.problems);
        self.writes.extend(copies.writes);
        let is_copied = copies.is_ready && live.knows_configs(record, revision, &contents, settings);
        if !runs && !is_copied {
            return;
        }
        let primary = match live.primary_of(record, desired, revision, settings) {
            Ok(primary) => primary,
            Err(problems) => {
                self.problems.extend(problems);
                return;
            }
        };
        let Some(primary) = primary else {
            if !runs {
                self.problems.push(format!(
                    "Deployment {name} should have the template of revision {revision}, which is not known any more: give the \
                     target that template, and it is rolled out anew"
                ));
            }
            return;
        };
        let Some(key) = ObjectKey::of(Kind::Deployment, &primary.object) else { return };
        if runs {
            let write = Write::Apply(key, primary.object);
            // One that was let go is this Canary's again.
            let is_ours = live.primary.is_some_and(|there| release::belongs_to(there, live.canary));
            if is_ours {
                self.settled.push(write);
            } else {
                self.writes.push(write);
            }
            return;
        }
        // Before its Pods are replaced: never fewer than there were (P29).
        let wanted = live.primary.and_then(|there| primary.replicas.filter(|wanted| *wanted > replicas(there)));
        if let Some(wanted) = wanted {
            self.writes.push(Write::Scale(key.clone(), wanted));
        }
        self.writes.push(Write::Apply(key, primary.object));
    }

    /// Gives a primary that was made its size, once: from then on that is up to scalers and people.
    fn set_size(&mut self, live: &Live<'_>, record: &mut Record) {
        let Some(primary) = live.primary else { return };
        match missing_size(primary, live.target, record) {
            Some(wanted) => {
                if let Some(key) = ObjectKey::of(Kind::Deployment, primary) {
                    self.writes.push(Write::Scale(key, wanted));
                }
            }
            None => record.note_size(text(primary, "/metadata/uid").unwrap_or_default(), replicas(primary)),
        }
    }

    fn scale(
        &mut self,
        live: &Live<'_>,
        state: &State,
        record: &mut Record,
        (wanted, drained): (TargetScale, Timestamp),
        is_switched: bool,
        now: Timestamp,
    ) {
        let (has, Some(key)) = (replicas(live.target), ObjectKey::of(Kind::Deployment, live.target)) else { return };
        let is_running = |phase: &Phase| matches!(phase, Phase::Progressing(it) if it.canary == *live.revision);
        let restarts = record.has_outdated_pods() && has_pods(live.target) && is_running(&state.phase);
        let (transition, is_there, replicas) = match wanted {
            TargetScale::Keep => return,
            // Pods read ConfigMaps and Secrets when they start. A change of the target's template would be somebody else's to make:
            // it is taken to zero and up again. Where the primary cannot serve, that would leave nobody.
            TargetScale::Up if restarts => {
                let from = state.changed.plus(DRAIN).max(drained);
                if now < from || !live.primary.is_some_and(|primary| readiness(primary).is_ready()) {
                    self.due = Some(from);
                    return;
                }
                (format!("{}/restart", state.rollout), has == 0, 0)
            }
            TargetScale::Up => (format!("{}/up", state.rollout), has > 0, live.scalers.first_size(live.primary)),
            TargetScale::Zero { from } if now < from.max(drained) => {
                self.due = (has > 0).then_some(from.max(drained));
                return;
            }
            // Its Pods are still asked by its name.
            TargetScale::Zero { .. } if !is_switched => return,
            TargetScale::Zero { .. } => (format!("{}/zero", state.rollout), has == 0, 0),
        };
        match (is_there, record.scaled_for.as_deref() == Some(&transition)) {
            (true, _) => {
                record.scaled_for = Some(transition);
                self.settled.push(Write::Scale(key, has));
            }
            (false, false) => self.writes.push(Write::Scale(key, replicas)),
            // Once: whoever holds the field would write it back, and again (P33).
            (false, true) => {
                let who = text(live.target, &format!("/{SCALED_BY}")).map(str::to_owned);
                self.scaled = Scaled::ByOthers { replicas: has, who };
            }
        }
    }
}

impl Live<'_> {
    /// Returns the Service of this name, as it is.
    fn service(&self, wanted: &Value) -> Option<&Value> {
        let name = text(wanted, "/metadata/name");
        self.services.iter().copied().find(|it| text(it, "/metadata/name") == name)
    }

    /// Returns the primary with the template of a revision: as it was judged, as it was promoted, or as the target has it; nothing
    /// if none of these is that revision.
    fn primary_of(
        &self,
        record: &Record,
        desired: &Desired,
        revision: &Revision,
        settings: &Settings,
    ) -> Result<Option<Primary>, Vec<String>> {
        if let Some(kept) = record.candidate.as_ref().filter(|kept| kept.revision == *revision) {
            let mut target = self.target.clone();
            put(&mut target, kept.pods.clone());
            return self.desired(&target, revision, &kept.configs, settings).map(|desired| Some(desired.primary));
        }
        if let Some(kept) = record.promoted.as_ref().filter(|kept| kept.revision == *revision) {
            let mut primary = desired.primary.clone();
            put(&mut primary.object, kept.pods.clone());
            return Ok(Some(primary));
        }
        Ok((self.revision == revision).then(|| desired.primary.clone()))
    }

    /// Returns true unless it is not known yet what is in a ConfigMap or Secret that Pods of a revision read. A template that served
    /// refers to copies.
    fn knows_configs(&self, record: &Record, revision: &Revision, contents: &Contents, settings: &Settings) -> bool {
        let candidate = record.candidate.as_ref().filter(|kept| kept.revision == *revision);
        let template = match candidate {
            Some(kept) => Some(&kept.pods),
            None if record.has_promoted(revision) => None,
            None => self.target.pointer("/spec/template"),
        };
        template.is_none_or(|template| Configs::knows_all(template, contents, settings))
    }

    fn desired(
        &self,
        target: &Value,
        revision: &Revision,
        contents: &Contents,
        settings: &Settings,
    ) -> Result<Desired, Vec<String>> {
        let renames = self.configs.renames(contents);
        let (canary, existing, promotion) = (self.canary, self.existing, revision.as_str());
        let observed = Observed { canary, target, existing, promotion, renames: &renames };
        Desired::of(&observed, settings).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }
}

fn put(deployment: &mut Value, template: Value) {
    if let Some(spec) = deployment.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("template".to_owned(), template);
    } else if let Some(fields) = deployment.as_object_mut() {
        fields.insert("spec".to_owned(), json!({"template": template}));
    }
}
