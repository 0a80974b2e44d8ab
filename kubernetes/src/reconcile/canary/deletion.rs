//! The end of a canary: what holds its object back until the target has its requests again.

use serde_json::Value;
use wingbeat_api::desired_state::ObservedArms;
use wingbeat_core::id::Arm;
use wingbeat_core::rollout::Phase;
use wingbeat_core::time::Span;

use super::super::around::Around;
use super::super::configuration::{port, service_name};
use super::super::events::Occurrence;
use super::super::handover::{Handover, InEngine, Scene};
use super::super::objects::{Awaits, Plan, Scaled};
use super::super::record::Record;
use super::super::scalers::Scalers;
use super::super::write::Write;
use super::{Canary, Evaluated, key};
use crate::object::text;
use crate::release;
use crate::world::{Kind, ObjectKey};

/// Whoever takes the finalizer away has it back after this time: 1 min. Two that each insist write once a minute.
const HOLD_INTERVAL: Span = Span::from_secs(60);
/// What tells the events of a deletion from those of rollouts.
const CONTEXT: &str = "deletion";

impl Canary {
    /// Sees to it that the Canary has its finalizer before anything is taken from the target, unless it says that nothing is
    /// given back; and that what its Service chose is stored before that is written over.
    pub(super) fn guard(&mut self, around: &Around<'_>, stored: &Record, plan: &mut Plan) {
        if !self.is_configured() {
            return;
        }
        if stored.entry != self.record.entry && plan.writes.iter().any(|write| leads(write, around)) {
            plan.writes.retain(|write| !leads(write, around));
            plan.awaits = Awaits::Record;
        }
        let own = key(around.name);
        match (release::hands_back(around.in_force), release::is_held(around.object)) {
            (true, true) | (false, false) => {}
            (false, true) => plan.writes.insert(0, Write::Merge(own, release::let_go(around.object))),
            (true, false) => {
                plan.writes.retain(|write| !takes(write, around));
                plan.settled.retain(|write| !takes(write, around));
                let due = self.held.map_or(around.now, |held| held.plus(HOLD_INTERVAL));
                if due > around.now {
                    plan.due = Some(plan.due.map_or(due, |other| other.min(due)));
                } else {
                    plan.writes.insert(0, Write::Merge(own, release::held(around.object)));
                }
            }
        }
    }

    /// Returns what is to be written for one that is being deleted.
    pub(in super::super) fn leave(&mut self, around: &Around<'_>, is_quiet: bool) -> Evaluated {
        let stored = around.stored.map(Record::read).unwrap_or_default();
        let target = around.target().filter(|target| !release::is_deleted(target));
        let primary = around.named_as_primary();
        let primary = primary.filter(|it| release::belongs_to(it, around.object) && !release::is_deleted(it));
        let services = around.services();
        let (entry, arms): (Vec<&Value>, Vec<&Value>) =
            services.iter().partition(|service| text(service, "/metadata/name") == Some(service_name(around.in_force)));
        let of_canary = format!("{}-{}", service_name(around.in_force), Arm::Canary);
        let is_told = self.is_configured() && arms.iter().any(|it| text(it, "/metadata/name") == Some(&of_canary));
        let (port_name, number) = port(around.in_force);
        let endpoints = is_told.then(|| around.world.endpoints(around.name, Arm::Canary, port_name, number).len());
        let revision = self.record.fence.as_ref().map(|fence| fence.revision.clone());
        let scalers = Scalers::of(around);
        let scene = Scene {
            canary: around.object,
            target: target.as_ref(),
            target_name: around.target_name(),
            revision: revision.as_ref(),
            primary: primary.as_ref(),
            scaler: scalers.of_primary(),
            entry: entry.first().copied(),
            arms: &arms,
            endpoints,
            engine: match &self.standing {
                Some(standing) => InEngine::At(&standing.state),
                None if self.is_configured() => InEngine::Asked,
                None => InEngine::Absent,
            },
            was_accepted: self.record.accepted.is_some(),
            hands_back: release::hands_back(around.in_force),
            is_quiet,
            now: around.now,
        };
        let Handover { writes, settled, told, due, leaving } =
            Handover::of(&scene, &mut self.record, &mut self.handover);
        self.refused_writes.retain(|refused, _| writes.iter().any(|write| write.key() == *refused));
        let mut evaluated = Evaluated { writes, settled, due, ..Evaluated::default() };
        for (severity, text) in told {
            let occurrence = Occurrence { severity, text: &text, context: CONTEXT, at: around.now };
            evaluated.writes.extend(self.events.write(around.object, &occurrence));
        }
        // Of what goes, nobody reads on.
        if leaving.is_some() || !self.refused_writes.is_empty() {
            let problems: Vec<String> = self.refused_writes.values().cloned().collect();
            self.report(around, &problems, &mut evaluated);
            if around.stored.is_some() && stored != self.record {
                evaluated.writes.push(Write::Record(around.name.clone(), self.record.to_json()));
            }
            self.leaving = leaving;
            self.set_status(around, &problems, &Scaled::Right, &mut evaluated);
        }
        evaluated.due = evaluated.due.filter(|due| *due > around.now);
        evaluated
    }

    /// Returns true once nothing is begun or moved on any more: the Canary is being deleted. What begins with what its primary
    /// runs, after its state was lost, does that first.
    pub(super) fn is_frozen(&self, around: &Around<'_>) -> bool {
        let has_begun = |standing: &super::Standing| !matches!(standing.state.phase, Phase::Initializing);
        release::is_deleted(around.object) && self.standing.as_ref().is_some_and(has_begun)
    }

    /// Returns how the workloads stand for Envoys: of one that is being deleted, whoever serves answers for whoever does not.
    pub(super) fn handed_over(&self, around: &Around<'_>, mut arms: ObservedArms) -> ObservedArms {
        if !release::is_deleted(around.object) {
            return arms;
        }
        let (primary, target) = (&arms.primary.endpoints, &arms.target.endpoints);
        let or = |one: &Vec<_>, other: &Vec<_>| if one.is_empty() { other.clone() } else { one.clone() };
        let of_target = or(target, primary);
        arms.primary.endpoints = if self.handover.leads_to_target { of_target.clone() } else { or(primary, target) };
        arms.target.endpoints = of_target;
        arms
    }

    /// Takes it that its namespace goes with all that is in it.
    pub(in super::super) fn namespace_ends(&mut self) {
        self.handover.namespace_ends = true;
    }
}

/// Returns true for the write that leads the Service of the target's name to the primary.
fn leads(write: &Write, around: &Around<'_>) -> bool {
    let entry = ObjectKey::new(Kind::Service, &around.name.namespace, service_name(around.in_force));
    matches!(write, Write::Apply(service, _) if *service == entry)
}

/// Returns true for a write that takes requests or Pods from the target.
fn takes(write: &Write, around: &Around<'_>) -> bool {
    let here = |kind: Kind, name: &str| ObjectKey::new(kind, &around.name.namespace, name);
    match write {
        Write::Scale(target, 0) => *target == here(Kind::Deployment, around.target_name()),
        Write::Apply(..) => leads(write, around),
        Write::Scale(..)
        | Write::Status(..)
        | Write::Merge(..)
        | Write::Record(..)
        | Write::Note(..)
        | Write::Event(..)
        | Write::Repeat(..) => false,
    }
}
