//! What people and scripts read of a Canary: Flagger's fields, and conditions.

use serde_json::{Map, Value, json};
use wingbeat_control::engine::{Standing, held_conditions, promoted_condition};
use wingbeat_control::view::ConditionView;

use wingbeat_core::id::{Arm, Revision};
use wingbeat_core::rollout::{Gate, Phase, State, Strategy, project};
use wingbeat_core::time::Timestamp;

use super::objects::Scaled;
use super::time::seconds;
use crate::configs::Contents;
use crate::object::{list, number, text};

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) canary: &'a Value,
    /// Nothing before the engine has it.
    pub(super) standing: Option<&'a Standing>,
    /// The generation of the spec that is in force.
    pub(super) accepted: Option<u64>,
    /// What is wrong with the spec as it is written.
    pub(super) refused: &'a [String],
    /// What is wrong, all of it: also what is in the way of a spec that is in force.
    pub(super) problems: &'a [String],
    /// What of the spec in force is not carried out.
    pub(super) warnings: &'a [String],
    pub(super) scaled: &'a Scaled,
    /// The workload that has not been ready for some time, and why.
    pub(super) late: Option<(Arm, &'a str)>,
    /// One is not ready, and it is not known yet whether that lasts.
    pub(super) is_unsettled: bool,
    /// The name of the target.
    pub(super) target: &'a str,
    /// How far its deletion is.
    pub(super) leaving: Option<&'a Leaving>,
    /// What is in the ConfigMaps and Secrets of the target.
    pub(super) configs: Option<&'a Contents>,
    /// The conditions that were composed last: they may not be there yet.
    pub(super) composed: &'a Value,
    /// Why its routes are not in force.
    pub(super) route_blockers: &'a [&'a ConditionView],
    /// What the status says of them that stays.
    pub(super) kept: &'a [Value],
}

/// Fields of a status that only a standing tells. Until there is one, after a restart, they are as they were: what is not applied
/// again is taken away.
const OF_STANDING: [&str; 7] = [
    "phase",
    "canaryWeight",
    "failedChecks",
    "iterations",
    "lastAppliedSpec",
    "lastPromotedSpec",
    "lastTransitionTime",
];

/// How far a Canary's deletion is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Whether the target has its requests back.
    pub(super) is_handed_back: bool,
    /// In a word.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What Flagger calls the phase of a Canary that is being deleted.
const TERMINATING: &str = "Terminating";

impl Source<'_> {
    /// Returns the status as it should be: what is there, where nothing is different.
    pub(super) fn status(&self, now: Timestamp) -> Value {
        let before = self.canary.get("status").unwrap_or(&Value::Null);
        let mut status = Map::new();
        if let Some(Standing { state, config }) = self.standing {
            let spec = |revision: Option<&Revision>| json!(revision.map(Revision::as_str));
            let applied = if let Phase::Failed { seen, .. } = &state.phase {
                Some(seen)
            } else {
                state.canary().or_else(|| state.primary())
            };
            status.extend([
                ("phase".to_owned(), json!(state.phase.as_str())),
                ("canaryWeight".to_owned(), json!(weight(state))),
                ("failedChecks".to_owned(), json!(state.failed_checks())),
                ("iterations".to_owned(), json!(iterations(state, config.plan.strategy(), config.plan.iterations()))),
                ("lastAppliedSpec".to_owned(), spec(applied)),
                ("lastPromotedSpec".to_owned(), spec(state.primary())),
                ("lastTransitionTime".to_owned(), json!(seconds(state.changed))),
            ]);
        } else if text(before, "/phase").is_none() {
            status.insert("phase".to_owned(), json!("Initializing"));
            status.insert("canaryWeight".to_owned(), json!(0));
            status.insert("failedChecks".to_owned(), json!(0));
            status.insert("iterations".to_owned(), json!(0));
            status.insert("lastTransitionTime".to_owned(), json!(seconds(now)));
        } else {
            let kept = OF_STANDING.iter().filter_map(|field| Some(((*field).to_owned(), before.get(field)?.clone())));
            status.extend(kept);
        }
        if self.leaving.is_some() {
            status.insert("phase".to_owned(), json!(TERMINATING));
        }
        let tracked = self.configs.into_iter().flat_map(Contents::tracked);
        let tracked: Map<String, Value> = tracked.map(|(id, checksum)| (id.to_owned(), json!(checksum))).collect();
        if !tracked.is_empty() {
            status.insert("trackedConfigs".to_owned(), Value::Object(tracked));
        }
        status.retain(|_, value| !value.is_null());
        if let Some(generation) = self.accepted {
            status.insert("observedGeneration".to_owned(), json!(generation));
        }
        // After a restart, until the engine has it again: what was said last.
        let there = |kind: &str| list(before, "/conditions").iter().find(|it| text(it, "/type") == Some(kind)).cloned();
        let kept = |kind: &str| there(kind).filter(|_| self.standing.is_none());
        let ready = there("Ready").filter(|_| self.standing.is_none() || self.is_unsettled);
        let (of_routes, ours): (Vec<ConditionView>, Vec<ConditionView>) =
            self.conditions().into_iter().partition(|it| self.route_blockers.iter().any(|other| other.kind == it.kind));
        let is_kept = ready.is_some();
        let ours = ours.iter().filter(|it| !is_kept || it.kind != "Ready").map(|it| self.timed(it, before, now));
        let last = ["Paused", "Suspended", "Waiting"].into_iter().filter_map(kept);
        let of_routes = of_routes.iter().map(|it| self.timed(it, before, now));
        // Another order would be a difference.
        let conditions = kept("Promoted").into_iter().chain(ours).chain(last).chain(ready).chain(of_routes);
        let conditions: Vec<Value> = conditions.chain(self.kept.iter().cloned()).collect();
        status.insert("conditions".to_owned(), Value::Array(conditions));
        Value::Object(status)
    }

    fn conditions(&self) -> Vec<ConditionView> {
        let mut conditions = Vec::new();
        if let Some(Standing { state, config }) = self.standing {
            let (status, message) = promoted_condition(&state.phase, config.plan.kind());
            let (status, reason, message) = match self.leaving {
                Some(_) => ("Unknown", TERMINATING, "The canary is being deleted.".to_owned()),
                None => (status, state.phase.as_str(), message),
            };
            let reason = reason.to_owned();
            conditions.push(ConditionView { kind: "Promoted".to_owned(), status: status.to_owned(), reason, message });
        }
        let accepted = if self.problems.is_empty() {
            let in_force = std::iter::once("The spec is in force.").chain(self.warnings.iter().map(String::as_str));
            let message = in_force.collect::<Vec<&str>>().join("\n");
            ConditionView {
                kind: "Accepted".to_owned(),
                status: "True".to_owned(),
                reason: "Accepted".to_owned(),
                message,
            }
        } else {
            let reason = match (self.refused, self.accepted) {
                ([], _) => "Blocked",
                (_, Some(_)) => "KeepsFormerSpec",
                (_, None) => "Invalid",
            };
            let message = self.problems.join("\n");
            ConditionView {
                kind: "Accepted".to_owned(),
                status: "False".to_owned(),
                reason: reason.to_owned(),
                message,
            }
        };
        conditions.push(accepted);
        if let Some(Leaving { is_handed_back, reason, message }) = self.leaving {
            let status = if *is_handed_back { "True" } else { "False" };
            let (reason, message) = ((*reason).to_owned(), message.clone());
            conditions.push(ConditionView {
                kind: "HandedBack".to_owned(),
                status: status.to_owned(),
                reason,
                message,
            });
        }
        if let Scaled::ByOthers { replicas, who } = self.scaled {
            // The API server notes no field manager of who scales to zero there.
            let who = who.as_deref().unwrap_or("Who scales by the scale subresource, as `kubectl scale` does,");
            let message = format!(
                "{who} gave the target {replicas} Pods after it was scaled for the rollout: it is left so. Take \
                 spec.replicas out of what applies the Deployment."
            );
            conditions.push(ConditionView {
                kind: "Scaled".to_owned(),
                status: "False".to_owned(),
                reason: "ReplicasOwnedByOthers".to_owned(),
                message,
            });
        }
        if let Some(Standing { state, config }) = self.standing {
            conditions.extend(held_conditions(&config.plan, &state.phase));
            conditions.push(self.ready(&state.phase));
        }
        conditions.extend(self.route_blockers.iter().map(|&condition| condition.clone()));
        conditions
    }

    /// Returns whether what is to serve can. For some seconds nothing is said: every rollout waits for its Pods.
    fn ready(&self, phase: &Phase) -> ConditionView {
        let target = self.target;
        let (status, reason, message) = match (self.late, phase) {
            (Some((Arm::Primary, why)), _) => {
                ("False", "PrimaryNotReady", format!("Deployment {target}-primary: {why}."))
            }
            (Some((Arm::Canary, why)), _) => ("False", "TargetNotReady", format!("Deployment {target}: {why}.")),
            (None, Phase::Initializing) => ("False", "Initializing", "The primary is not ready yet.".to_owned()),
            (None, _) => ("True", "Ready", "The workloads are ready, or on their way.".to_owned()),
        };
        ConditionView { kind: "Ready".to_owned(), status: status.to_owned(), reason: reason.to_owned(), message }
    }

    /// Returns a condition as it is written, with the times of the one that is there where it says the same.
    fn timed(&self, condition: &ConditionView, before: &Value, now: Timestamp) -> Value {
        let ConditionView { kind, status, reason, message } = condition;
        let generation = self.accepted.or_else(|| number(self.canary, "/metadata/generation"));
        let composed = self.composed.as_array().into_iter().flatten();
        let known = composed.chain(list(before, "/conditions"));
        let there = known.into_iter().find(|it| text(it, "/type") == Some(kind.as_str()));
        let since = |field: &str, is_same: bool| {
            let kept = there.filter(|_| is_same).and_then(|there| text(there, field));
            kept.map_or_else(|| seconds(now), str::to_owned)
        };
        let is = |field: &str, value: &str| there.is_some_and(|there| text(there, field) == Some(value));
        let (same_status, same_text) = (is("/status", status), is("/reason", reason) && is("/message", message));
        let mut fields = json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since("/lastTransitionTime", same_status),
            "lastUpdateTime": since("/lastUpdateTime", same_status && same_text),
        });
        if let (Some(fields), Some(generation)) = (fields.as_object_mut(), generation) {
            fields.insert("observedGeneration".to_owned(), json!(generation));
        }
        fields
    }
}

/// Returns percent of traffic, whole where it is, as Flagger writes it.
fn weight(state: &State) -> Value {
    let weight = project(state).routes.canary_weight();
    let (whole, part) = (weight.get() / 100, weight.get() % 100);
    if part == 0 { json!(whole) } else { json!(weight.percent()) }
}

fn iterations(state: &State, strategy: Strategy, all: Option<usize>) -> usize {
    let Phase::Progressing(progress) = &state.phase else { return 0 };
    match (strategy, progress.gate) {
        (Strategy::Weighted, _) => 0,
        (Strategy::AbTesting | Strategy::BlueGreen, Some(Gate::Promotion)) => all.unwrap_or_default(),
        (Strategy::AbTesting | Strategy::BlueGreen, Some(Gate::TrafficIncrease) | None) => {
            progress.position.min(all.unwrap_or_default())
        }
    }
}
