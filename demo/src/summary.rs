//! What a demo came to.

use serde::Serialize;

/// How the rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The canary became the primary.
    Promoted,
    /// The canary was taken out of traffic.
    RolledBack,
    /// Nothing could be judged.
    NoData,
}

/// The last line of `demo --output json`. Time zero is the moment at which the canary began to misbehave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// How it ended.
    pub result: Ended,
    /// Requests a second.
    pub rps: u32,
    /// Percent of traffic that the canary had at time zero.
    pub weight_at_fault: Option<f64>,
    /// Time zero to the rollback.
    pub fault_to_verdict_ms: Option<u64>,
    /// Time zero to the last request that the canary received.
    pub fault_to_last_canary_request_ms: Option<u64>,
    /// Requests that the canary received after time zero.
    pub canary_requests_after_fault: Option<u64>,
    /// Requests of users, all of them.
    pub requests: u64,
    /// Users' requests after time zero that were answered 5xx, reset or given up.
    pub failed_requests: u64,
    /// Of these, those of the canary, and those that nobody answered.
    pub failed_requests_canary: u64,
    /// Of these, those of the primary.
    pub failed_requests_primary: u64,
    /// Requests that took an arm that is not theirs.
    pub misrouted: u64,
    /// Rollbacks before time zero.
    pub false_verdicts: u64,
    /// Length of the rollout.
    pub duration_ms: u64,
}
