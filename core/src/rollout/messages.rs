//! The texts of events and alerts. They are Flagger's, to the letter, wherever Flagger has one: scripts read them.

use alloc::format;
use alloc::string::String;

use super::plan::{Plan, Share, Strategy};
use super::state::Gate;
use crate::id::Revision;

/// Returns `TARGET.NAMESPACE`.
fn target(plan: &Plan) -> String {
    format!("{}.{}", plan.target(), plan.name().namespace)
}

/// Returns `TARGET-primary.NAMESPACE`.
fn primary(plan: &Plan) -> String {
    format!("{}-primary.{}", plan.target(), plan.name().namespace)
}

pub(super) fn initialized(plan: &Plan) -> String {
    format!("Initialization done! {}", plan.name())
}

pub(super) fn initialized_alert(plan: &Plan) -> String {
    format!("New {} detected, initialization completed.", plan.kind())
}

pub(super) fn scaling_up(plan: &Plan) -> String {
    format!("New revision detected! Scaling up {}", target(plan))
}

pub(super) fn restarting(plan: &Plan) -> String {
    format!("New revision detected! Restarting analysis for {}", target(plan))
}

/// Why a rollout ended that was taken back. Flagger has no word for it: it goes on with a canary that equals its primary.
pub(super) fn taken_back(primary: &Revision) -> String {
    format!("the change was taken back, the workload asks for {primary} again")
}

pub(super) fn taken_back_alert(primary: &Revision) -> String {
    format!("Canary taken back: the workload asks for {primary} again.")
}

/// An abort was served before a restart and not stored, and shows when it is too late.
pub(super) fn late_abort(plan: &Plan) -> String {
    format!(
        "A proxy shows an abort of {} that was not stored, and its primary is already being replaced: there is no way back",
        target(plan)
    )
}

pub(super) fn late_abort_alert() -> &'static str {
    "An abort was served before it could be stored, and shows when the primary is already being replaced."
}

pub(super) fn withdrawn(plan: &Plan) -> String {
    format!("Canary taken back! Scaling down {}", plan.name())
}

pub(super) fn starting(plan: &Plan) -> String {
    format!("Starting canary analysis for {}", target(plan))
}

/// Tells that a position was reached.
pub(super) fn advance(plan: &Plan, position: usize, before: Share, share: Share) -> String {
    match (plan.strategy(), share) {
        (Strategy::BlueGreen, Share::Everything) => match before {
            Share::Mirrored(_) => "Stop traffic mirroring and route all traffic to canary".into(),
            Share::Nothing | Share::Weight(_) | Share::Matched | Share::Everything => {
                "Routing all traffic to canary".into()
            }
        },
        (Strategy::Weighted, _) => format!("Advance {} canary weight {}", plan.name(), share.shown()),
        (Strategy::AbTesting | Strategy::BlueGreen, _) => {
            let iterations = plan.iterations().unwrap_or_default();
            format!("Advance {} canary iteration {position}/{iterations}", plan.name())
        }
    }
}

pub(super) fn shrunk(plan: &Plan, share: Share) -> String {
    format!("Halt {} advancement: one pod may be bad by itself, canary weight back to {}", plan.name(), share.shown())
}

pub(super) fn withdrawn_share(plan: &Plan) -> String {
    format!("Halt {} advancement no pod of {} serves, canary weight back to 0", plan.name(), target(plan))
}

pub(super) fn no_data(plan: &Plan, reason: &str) -> String {
    format!("Halt {} advancement no data: {reason}", plan.name())
}

pub(super) fn too_few(plan: &Plan, missing: u64) -> String {
    format!("Halt {} advancement too few requests: {missing} more of the canary are needed", plan.name())
}

pub(super) fn uncounted(plan: &Plan) -> String {
    format!("Halt {} advancement filters had no room to count some requests", plan.name())
}

pub(super) fn contested(plan: &Plan) -> String {
    format!("Halt {} advancement the canary does harm at some nodes and not at others", plan.name())
}

pub(super) fn undecided(plan: &Plan) -> String {
    format!("Halt {} advancement the canary may do harm, more requests decide", plan.name())
}

/// Flagger has no word for it: it waits for the primary.
pub(super) fn rescued(plan: &Plan) -> String {
    format!("No pod of {} serves: {} gets all requests and is promoted without analysis", primary(plan), target(plan))
}

pub(super) const fn rescued_alert() -> &'static str {
    "No pod of the primary serves: the canary is promoted without analysis."
}

pub(super) fn copying(plan: &Plan) -> String {
    format!("Copying {} template spec to {}", target(plan), primary(plan))
}

pub(super) fn primary_weight(plan: &Plan, weight: crate::weight::BasisPoints) -> String {
    format!("Advance {} primary weight {weight}", plan.name())
}

pub(super) fn completed(plan: &Plan, skipped: bool) -> String {
    if skipped {
        format!("Promotion completed! Canary analysis was skipped for {}", target(plan))
    } else {
        format!("Promotion completed! Scaling down {}", target(plan))
    }
}

pub(super) const fn completed_alert(skipped: bool) -> &'static str {
    if skipped {
        "Canary analysis was skipped, promotion finished."
    } else {
        "Canary analysis completed successfully, promotion finished."
    }
}

pub(super) fn promotion_halted(reason: &str) -> String {
    format!("Promotion is halted: {reason}")
}

pub(super) fn rolling_back(plan: &Plan, reason: &str) -> String {
    format!("Rolling back {} {reason}", plan.name())
}

pub(super) fn failed(plan: &Plan) -> String {
    format!("Canary failed! Scaling down {}", plan.name())
}

pub(super) fn promotion_failed(plan: &Plan, reason: &str) -> String {
    format!("Promotion of {} failed, primary not ready: {reason}", target(plan))
}

pub(super) fn canary_not_ready(plan: &Plan, reason: &str) -> String {
    format!("canary {} {} not ready: {reason}", plan.kind().to_lowercase(), target(plan))
}

pub(super) fn primary_not_ready(plan: &Plan, reason: &str) -> String {
    format!("{} not ready: {reason}", primary(plan))
}

pub(super) fn frozen(plan: &Plan) -> String {
    format!("Halt {} advancement: neither primary nor canary is healthy, nothing is moved", plan.name())
}

pub(super) fn waiting_for_rollout(plan: &Plan, hook: &str) -> String {
    format!("Halt {} advancement waiting for approval {hook}", plan.name())
}

pub(super) fn waiting_at(plan: &Plan, gate: Gate, hook: &str) -> String {
    match gate {
        Gate::TrafficIncrease => {
            format!("Halt {} advancement waiting for traffic increase approval {hook}", plan.name())
        }
        Gate::Promotion => format!("Halt {} advancement waiting for promotion approval {hook}", plan.name()),
    }
}

pub(super) const fn waiting_alert(gate: Gate) -> &'static str {
    match gate {
        Gate::TrafficIncrease => "Canary traffic increase is waiting for approval.",
        Gate::Promotion => "Canary promotion is waiting for approval.",
    }
}

pub(super) fn pre_rollout_failed(plan: &Plan, hook: &str, why: &str) -> String {
    format!("Halt {} advancement pre-rollout check {hook} failed {why}", plan.name())
}

pub(super) fn rollout_failed(plan: &Plan, hook: &str, why: &str) -> String {
    format!("Halt {} advancement external check {hook} failed {why}", plan.name())
}
