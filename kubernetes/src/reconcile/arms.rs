//! How the workloads behind the arms stand.

use serde_json::Value;
use wingbeat_api::desired_state::{ObservedArms, ObservedWorkload};
use wingbeat_core::id::{Arm, CanaryName, Revision};
use wingbeat_core::rollout::Readiness;

use super::configuration::port;
use super::deployment::{promoted, readiness};
use super::pods::replicas;
use crate::object::text;
use crate::world::World;

/// The workloads of a canary, as far as they are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workloads<'a> {
    pub(super) target: Option<&'a Value>,
    pub(super) primary: Option<&'a Value>,
    /// How many Pods the primary is yet to be given.
    pub(super) missing: Option<u64>,
    /// How many Pods a target is given for a rollout that was scaled down after the one before.
    pub(super) to_come: Option<u64>,
    /// Whether the target's Pods have read another ConfigMap or Secret than is there now.
    pub(super) is_outdated: bool,
}

/// Returns how the workloads of a canary stand, and who gets requests by the name of the target's Service.
pub(super) fn observe(
    name: &CanaryName,
    canary: &Value,
    revision: &Revision,
    workloads: Workloads<'_>,
    entry: Option<&Value>,
    world: &World,
) -> ObservedArms {
    let Workloads { target, primary, missing, to_come, is_outdated } = workloads;
    let (port_name, number) = port(canary);
    let workload = |arm: Arm, revision: Option<Revision>, object: Option<&Value>| ObservedWorkload {
        revision,
        readiness: object.map_or_else(absent, readiness),
        endpoints: world
            .endpoints(name, arm, port_name, number)
            .into_iter()
            .map(|address| (address.ip().to_string(), address.port()))
            .collect(),
    };
    let mut of_primary = workload(Arm::Primary, primary.and_then(promoted).map(|it| it.revision), primary);
    if let (Some(size), true) = (missing, of_primary.readiness.is_ready()) {
        let reason = format!("waiting for rollout to finish: it is given {size} replicas");
        of_primary.readiness = Readiness::NotReady { reason, hopeless: false };
    }
    let mut of_target = workload(Arm::Canary, Some(revision.clone()), target);
    if let (Some(size), Some(0)) = (to_come, target.map(replicas)) {
        let reason = format!("waiting for rollout to finish: 0 out of {size} new replicas have been updated");
        of_target.readiness = Readiness::NotReady { reason, hopeless: false };
    }
    if is_outdated && of_target.readiness.is_ready() {
        let reason = "waiting for rollout to finish: its pods start again, as a ConfigMap or Secret is another one";
        of_target.readiness = Readiness::NotReady { reason: reason.to_owned(), hopeless: false };
    }
    let chosen = primary.and_then(|primary| primary.pointer("/spec/selector/matchLabels"));
    let is_primarys = chosen.is_some() && entry.and_then(|entry| entry.pointer("/spec/selector")) == chosen;
    ObservedArms {
        uid: text(canary, "/metadata/uid").unwrap_or_default().into(),
        entry: if is_primarys { Arm::Primary } else { Arm::Canary },
        primary: of_primary,
        target: of_target,
    }
}

fn absent() -> Readiness {
    Readiness::NotReady { reason: "waiting for rollout to finish: there is no deployment".to_owned(), hopeless: false }
}
