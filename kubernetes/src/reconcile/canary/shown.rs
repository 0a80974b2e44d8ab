//! What people are shown of a canary: events and a status.

use std::collections::BTreeSet;

use serde_json::Value;
use wingbeat_control::engine::Standing;
use wingbeat_core::rollout::{Phase, Readiness, Severity};
use wingbeat_core::time::Span;

use super::super::around::Around;
use super::super::events::Occurrence;
use super::super::objects::Scaled;
use super::super::route_blockers::without_messages;
use super::super::status::Source;
use super::super::write::{Write, differs};
use super::{Canary, Evaluated, Spec, key};
use crate::object::{list, number, text};

/// While only counts and weights of a status are different, or what an Envoy says, it is written this often at most: 10 s (P31).
const STATUS_INTERVAL: Span = Span::from_secs(10);

impl Canary {
    /// Tells what is wrong, each once until it is mended, and why a first primary is not ready.
    pub(super) fn report(&mut self, around: &Around<'_>, problems: &[String], evaluated: &mut Evaluated) {
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
            evaluated.writes.extend(self.events.write(around.object, &occurrence));
        }
        self.reported = all;
    }

    pub(super) fn set_status(
        &mut self,
        around: &Around<'_>,
        problems: &[String],
        scaled: &Scaled,
        evaluated: &mut Evaluated,
    ) {
        let accepted = match self.spec {
            Spec::None => None,
            Spec::Generation(generation) => Some(generation),
        };
        let is_served = |it: &Standing| !matches!(it.state.phase, Phase::Initializing);
        let is_served = self.standing.as_ref().is_some_and(is_served);
        let before = around.object.get("status").unwrap_or(&Value::Null);
        let kept = self.route_blockers.kept(before, around.now);
        let lasting = self.route_blockers.lasting(before, around.now);
        let due = self.route_blockers.due(&kept, around.now);
        evaluated.due = evaluated.due.into_iter().chain(due).min();
        let source = Source {
            canary: around.object,
            standing: self.standing.as_ref(),
            accepted,
            refused: &self.refused,
            problems,
            warnings: &self.warnings,
            scaled,
            late: self.arms.as_ref().and_then(|arms| self.unready.late(arms, is_served, around.now)),
            is_unsettled: self.arms.as_ref().is_some_and(|arms| self.unready.is_unsettled(arms, around.now)),
            target: around.target_name(),
            leaving: self.leaving.as_ref(),
            configs: self.record.fence.as_ref().map(|fence| &fence.configs),
            composed: &self.conditions,
            route_blockers: &lasting,
            kept: &kept,
        };
        let status = source.status(around.now);
        self.conditions = status.get("conditions").cloned().unwrap_or_default();
        if !differs(&status, before) {
            return;
        }
        let conditions = |status: &Value| without_messages(list(status, "/conditions"));
        let is_same = text(&status, "/phase") == text(before, "/phase") && conditions(&status) == conditions(before);
        let waits_until = self.status_written.plus(STATUS_INTERVAL);
        if is_same && around.now < waits_until {
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
