//! What the control plane shows of its canaries: over HTTP, in the terminal and on the page.
//!
//! Fields are added here, never renamed: scripts read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Everything that is shown, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// True once the state is rebuilt and proxies are answered.
    pub ready: bool,
    /// All canaries by `(namespace, name)`.
    pub canaries: BTreeMap<(String, String), Arc<CanaryView>>,
    /// Envoys that reported within the last five seconds.
    pub nodes: u64,
    /// Reports that were taken since the start.
    pub reports: u64,
}

/// One canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryView {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Name of the workload that the canary is of.
    pub target: String,
    /// The phase, by Flagger's name for it.
    pub status: String,
    /// Percent of traffic that the canary is given; 100 while an A/B test runs.
    pub weight: f64,
    /// RFC 3339, UTC.
    pub last_transition_time: String,
    /// Failed checks of this rollout; still there after it failed.
    pub failed_checks: u32,
    /// Iterations done, of A/B tests and blue/green.
    pub iterations: u32,
    /// True while the weight is frozen by command.
    pub paused: bool,
    /// Conditions, as in a Kubernetes status.
    pub conditions: Vec<ConditionView>,
    /// The revision that serves.
    pub primary_revision: String,
    /// The revision under judgement.
    pub canary_revision: Option<String>,
    /// Raised by every change of the routes.
    pub rev: u64,
    /// How the judge works: `sequential`, `guard` or `thresholds`.
    pub mode: String,
    /// The judge's latest word.
    pub verdict: Option<VerdictView>,
    /// Totals of this rollout on judged traffic.
    pub primary: ArmView,
    /// Totals of this rollout on judged traffic.
    pub canary: ArmView,
}

/// A condition of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionView {
    /// `Promoted`, `Paused`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The judge's word, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictView {
    /// `rollback`, `advance`, `continue` or `no-data`.
    pub verdict: String,
    /// Why, in words.
    pub reason: String,
    /// What was compared with what.
    pub comparison: String,
    /// Natural logarithm of the evidence of harm.
    pub harm: f64,
    /// Where that evidence decides.
    pub harm_limit: f64,
    /// Interval of the ratio of error rates; open ends are null.
    pub rate_ratio: [Option<f64>; 2],
    /// Canary requests that are still needed at the current rate.
    pub eta_requests: Option<u64>,
}

/// What was measured of one arm in this rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmView {
    /// Requests that count for the judge.
    pub requests: u64,
    /// Those where the server is to blame.
    pub errors: u64,
    /// Requests in flight that are older than they should be, counted since the rollout began.
    pub overdue: u64,
    /// Clients that left before a response.
    pub disconnects: u64,
    /// Requests a second over the last second.
    pub rate: f64,
    /// Quantiles of the latency, in milliseconds.
    pub p50_ms: Option<f64>,
    /// See `p50_ms`.
    pub p90_ms: Option<f64>,
    /// See `p50_ms`.
    pub p99_ms: Option<f64>,
}

/// An event, worded as Flagger words it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts events of this server; higher is later.
    pub id: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always `Synced`.
    pub reason: String,
    /// Namespace of the canary.
    pub namespace: String,
    /// Name of the canary.
    pub name: String,
    /// The text.
    pub message: String,
}
