//! What is to be written so that the objects of a canary are as they should be: nothing, where they are.

use serde_json::{Value, json};
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{Apex, Phase, PrimaryTemplate, State, TargetScale, workloads};
use wingbeat_core::time::Timestamp;

use super::deployment::{promoted, readiness, replicas};
use super::record::Record;
use super::write::{Write, differs};
use crate::desire::{Desired, Observed, Settings};
use crate::object::text;
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
    /// What is stored of the canary, which is what a restart finds.
    pub(super) stored: &'a Record,
}

/// What is to be done about the objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) writes: Vec<Write>,
    /// What is in the way.
    pub(super) problems: Vec<String>,
    /// When there is something to do without anything else happening.
    pub(super) due: Option<Timestamp>,
    /// How the size of the target stands.
    pub(super) scaled: Scaled,
}

/// How the size of a target stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Scaled {
    /// As it should be, or on its way.
    #[default]
    Right,
    /// Somebody gave it this many Pods after we scaled it.
    ByOthers(u64),
}

impl Plan {
    /// Returns what is to be done in a state. What the target was scaled for is noted in the record.
    pub(super) fn of(live: &Live<'_>, state: &State, record: &mut Record, settings: &Settings, now: Timestamp) -> Self {
        let mut plan = Self::default();
        let wanted = workloads(state);
        let desired = match live.desired(live.target, live.revision, settings) {
            Ok(desired) => desired,
            Err(problems) => {
                plan.problems = problems;
                return plan;
            }
        };
        let is_ready = live.primary.is_some_and(|primary| readiness(primary).is_ready());
        if wanted.primary == PrimaryTemplate::Wanted && is_ready && live.primary.and_then(promoted).is_none() {
            let name = text(&desired.primary.object, "/metadata/name").unwrap_or_default();
            plan.problems.push(format!(
                "Deployment {name} runs what another controller promoted, and it is not known which revision that is: \
                 delete it, and it is made anew from the target"
            ));
        }
        let revision = match wanted.primary {
            PrimaryTemplate::Keep => None,
            // What runs already and is ready is what a rollout begins from, whatever the target asks for by now.
            PrimaryTemplate::Wanted => (!is_ready).then(|| live.revision.clone()),
            PrimaryTemplate::Of(revision) => Some(revision),
        };
        if let Some(revision) = revision {
            plan.set_template(live, state, record, &desired, &revision, settings);
        }
        let services = [
            Some(&desired.services.primary),
            Some(&desired.services.canary),
            (wanted.apex == Apex::Primary).then_some(&desired.services.apex),
        ];
        let before = plan.writes.len();
        for service in services.into_iter().flatten() {
            let name = text(service, "/metadata/name").unwrap_or_default();
            let there = live.services.iter().find(|it| text(it, "/metadata/name") == Some(name));
            if there.is_none_or(|there| differs(service, there))
                && let Some(key) = ObjectKey::of(Kind::Service, service)
            {
                plan.writes.push(Write::Apply(key, service.clone()));
            }
        }
        let is_switched = plan.writes.len() == before;
        plan.scale(live, state, record, wanted.target, is_switched, now);
        plan
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
        let runs = live.primary.and_then(promoted);
        if runs.is_some_and(|runs| runs.revision == *revision) {
            return;
        }
        // What served before is overwritten only once it is stored.
        if let Phase::Promoting(promotion) = &state.phase
            && !live.stored.has_promoted(&promotion.primary)
        {
            return;
        }
        let primary = if live.revision == revision {
            Some(desired.primary.clone())
        } else if let Some(kept) = record.candidate.as_ref().filter(|kept| kept.revision == *revision) {
            let mut target = live.target.clone();
            put(&mut target, kept.template.clone());
            match live.desired(&target, revision, settings) {
                Ok(desired) => Some(desired.primary),
                Err(problems) => {
                    self.problems.extend(problems);
                    return;
                }
            }
        } else {
            record.promoted.as_ref().filter(|kept| kept.revision == *revision).map(|kept| {
                let mut primary = desired.primary.clone();
                put(&mut primary.object, kept.template.clone());
                primary
            })
        };
        let Some(primary) = primary else {
            let name = text(&desired.primary.object, "/metadata/name").unwrap_or_default();
            self.problems.push(format!(
                "Deployment {name} should have the template of revision {revision}, which is not known any more: \
                 give the target that template, and it is rolled out anew"
            ));
            return;
        };
        let Some(key) = ObjectKey::of(Kind::Deployment, &primary.object) else { return };
        let Some(there) = live.primary else {
            self.writes.push(Write::Create(key, primary.to_create()));
            return;
        };
        // Before its Pods are replaced: never fewer than there were (P29).
        if let Some(wanted) = primary.replicas.filter(|wanted| *wanted > replicas(there)) {
            self.writes.push(Write::Scale(key.clone(), wanted));
        }
        self.writes.push(Write::Apply(key, primary.object));
    }

    fn scale(
        &mut self,
        live: &Live<'_>,
        state: &State,
        record: &mut Record,
        wanted: TargetScale,
        is_switched: bool,
        now: Timestamp,
    ) {
        let (has, Some(key)) = (replicas(live.target), ObjectKey::of(Kind::Deployment, live.target)) else { return };
        let (transition, is_there, replicas) = match wanted {
            TargetScale::Keep => return,
            TargetScale::Up => {
                (format!("{}/up", state.rollout), has > 0, live.primary.map_or(1, |it| replicas(it).max(1)))
            }
            TargetScale::Zero { from } if now < from => {
                self.due = (has > 0).then_some(from);
                return;
            }
            // Its Pods are still asked by its name.
            TargetScale::Zero { .. } if !is_switched => return,
            TargetScale::Zero { .. } => (format!("{}/zero", state.rollout), has == 0, 0),
        };
        match (is_there, record.scaled_for.as_deref() == Some(&transition)) {
            (true, _) => record.scaled_for = Some(transition),
            (false, false) => self.writes.push(Write::Scale(key, replicas)),
            // Once: whoever holds the field would write it back, and again (P33).
            (false, true) => self.scaled = Scaled::ByOthers(has),
        }
    }
}

impl Live<'_> {
    fn desired(&self, target: &Value, revision: &Revision, settings: &Settings) -> Result<Desired, Vec<String>> {
        let observed = Observed { canary: self.canary, target, existing: self.existing, promotion: revision.as_str() };
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
