//! How the workloads behind the arms stand.

use serde_json::Value;
use wingbeat_api::desired_state::{ObservedArms, ObservedWorkload};
use wingbeat_core::id::{Arm, CanaryName, Revision};
use wingbeat_core::rollout::Readiness;

use super::configuration::port;
use super::deployment::{promoted, readiness};
use crate::object::text;
use crate::world::World;

/// Returns how the workloads of a canary stand.
pub(super) fn observe(
    name: &CanaryName,
    canary: &Value,
    revision: &Revision,
    target: Option<&Value>,
    primary: Option<&Value>,
    world: &World,
) -> ObservedArms {
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
    ObservedArms {
        uid: text(canary, "/metadata/uid").unwrap_or_default().into(),
        primary: workload(Arm::Primary, primary.and_then(promoted).map(|it| it.revision), primary),
        target: workload(Arm::Canary, Some(revision.clone()), target),
    }
}

fn absent() -> Readiness {
    Readiness::NotReady { reason: "waiting for rollout to finish: there is no deployment".to_owned(), hopeless: false }
}
