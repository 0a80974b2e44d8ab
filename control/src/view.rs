//! What the control plane shows of its canaries: over HTTP, in the terminal and on the page.
//!
//! Fields are added here, never renamed: scripts read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};
use wingbeat_api::RefusedFileView;
use wingbeat_api::desired_state::InUse;
use wingbeat_api::number::Number;
use wingbeat_core::analysis::judge::{Harm, HarmSafe};

pub use rollouts::{
    ClockView, PastCountsView, PastRolloutView, PointView, RolloutsView, SampleView, SeriesView, StepView, SummaryView,
};

mod rollouts;

/// Everything that is shown, at one moment.
#[derive(Debug, Clone, Default)]
pub struct ServerStatus {
    /// True once the state is rebuilt and proxies are answered.
    pub ready: bool,
    /// All canaries by `(namespace, name)`. Two boards share those that are the same.
    pub canaries: RedBlackTreeMapSync<(String, String), Arc<CanaryView>>,
    /// Envoys that reported within the last five seconds.
    pub nodes: u64,
    /// Reports that were taken since the start.
    pub reports: u64,
    /// Parts of reports, by cluster, that belong to no rollout in progress and were left out.
    pub foreign_reports: u64,
    /// Clients of xDS.
    pub clients: ClientsView,
    /// Files whose present text is wrong.
    pub refused_files: Arc<[RefusedFileView]>,
}

/// Clients of xDS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientsView {
    /// Open streams.
    pub streams: u64,
    /// Types that a stream refused and has not accepted since.
    pub refusals: u64,
    /// Refusals since the start, by type URL.
    pub nacks: Vec<(&'static str, u64)>,
}

/// One canary. A field that a server of another version does not have is at its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryView {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Name of the workload that the canary is of.
    pub target: String,
    /// Flagger's name for the phase.
    pub phase: String,
    /// Percent of traffic that the canary is given; 100 while an A/B test runs.
    pub weight: f64,
    /// RFC 3339, UTC.
    pub last_transition_time: String,
    /// Failed checks of this rollout; still there after it failed.
    pub failed_checks: u32,
    /// Iterations done, of A/B tests and blue/green.
    pub iterations: u64,
    /// `canary`, `ab-testing` or `blue-green`.
    pub strategy: String,
    /// True while the share is frozen by command.
    pub paused: bool,
    /// The revision that serves.
    pub primary_revision: String,
    /// The revision under judgement, or the one that failed.
    pub canary_revision: Option<String>,
    /// Which attempt at the canary's revision this is.
    pub attempt: u32,
    /// Raised by every change of the routes.
    pub rev: u64,
    /// How the judge works: `sequential`, `guard` or `thresholds`.
    pub mode: String,
    /// Totals of this rollout on judged traffic; null before the first one.
    pub arms: Option<ArmsView>,
    /// What others have measured in this rollout, by metric.
    pub metrics: BTreeMap<String, Number>,
    /// The judge's latest word.
    pub verdict: Option<VerdictView>,
    /// What the verdict rests on.
    pub evidence: Option<EvidenceView>,
    /// The chance of rolling back a healthy canary in this attempt, and how it is shared.
    pub alpha: AlphaView,
    /// Envoys that reported on this canary within the last five seconds.
    pub nodes: Vec<NodeView>,
    /// Conditions, as in a Kubernetes status.
    pub conditions: Vec<ConditionView>,
    /// The revisions that cannot go from the workload now. Not shown.
    #[serde(skip)]
    pub in_use: InUse,
}

/// The error budget of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlphaView {
    /// All of it.
    pub total: f64,
    /// What can roll back within it: names of signals with their shares, which add up to one at most.
    pub shares: Vec<ShareView>,
    /// What can roll back beside it: webhooks, and checks where they decide.
    pub outside: Vec<String>,
}

/// A signal's share of the error budget.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShareView {
    /// The signal.
    pub signal: String,
    /// Its share.
    pub share: f64,
}

/// A condition of a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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

/// The judge's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictView {
    /// `rollback`, `advance`, `continue` or `no-data`.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// What was compared with what.
    pub comparison: String,
}

/// Evidence, as natural logarithms of e-values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvidenceView {
    /// Of all signals together: what decides.
    pub harm: f64,
    /// On errors, hard guard and absolute limit included.
    pub errors: HarmSafe,
    /// On latency.
    pub latency: HarmSafe,
    /// On kinds of answers.
    pub outcomes: Harm,
    /// On requests that needed more than one attempt.
    pub attempts: Harm,
    /// On clients that left.
    pub disconnects: Harm,
    /// Where the evidence of harm, both together, rolls the canary back.
    pub decisive: f64,
    /// Interval of the ratio of error rates; open ends are null.
    pub rate_ratio: [Option<f64>; 2],
    /// Canary requests that are still needed until a step may end; null if no number is enough.
    pub eta_requests: Option<u64>,
}

/// What was measured of both arms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmsView {
    /// The revision that serves.
    pub primary: ArmView,
    /// The revision under judgement.
    pub canary: ArmView,
}

/// What was measured of one arm in this rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmView {
    /// Requests that count for the judge.
    pub requests: u64,
    /// Those where the server is to blame.
    pub errors: u64,
    /// Requests in flight that are older than they should be, counted since the rollout began.
    pub overdue: u64,
    /// Clients that left before the response was complete.
    pub disconnects: u64,
    /// How all of them ended, by class; classes that did not occur are left out.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests that needed more than one attempt, where the route retries.
    pub retried: u64,
    /// Requests a second over the last second.
    pub rate: f64,
    /// Median of the latency, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The latency that nine of ten requests keep, in milliseconds.
    pub p90_ms: Option<f64>,
    /// The latency that 99 of 100 requests keep, in milliseconds.
    pub p99_ms: Option<f64>,
    /// What the median surely lies between, in milliseconds, at all looks but for a chance of 5 %; null while too little
    /// is known.
    pub p50_between_ms: Option<[f64; 2]>,
    /// The same for the latency that nine of ten requests keep.
    pub p90_between_ms: Option<[f64; 2]>,
    /// The same for the latency that 99 of 100 requests keep.
    pub p99_between_ms: Option<[f64; 2]>,
}

/// An Envoy that reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// The latest rev that it served a request by.
    pub rev: u64,
    /// How long ago it reported last.
    pub last_report_ms: u64,
}

/// Which event it is, among those of all runs of a server: later ones are greater.
///
/// Numbers alone do not say it: a server that was killed before it stored its latest events gives their numbers to others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// When the server was started that told it, in milliseconds since 1970.
    pub run: u64,
    /// Its number.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        // Earlier versions gave numbers alone.
        let (run, number) = text.split_once('-').unwrap_or(("0", text));
        Ok(Self { run: run.parse()?, number: number.parse()? })
    }
}

/// A proxy that takes configuration, or reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyView {
    /// Its `node.id`.
    pub node: String,
    /// Streams by which it takes configuration: one, or one a type; none if it only reports.
    pub streams: u64,
    /// When the oldest of them began: RFC 3339, UTC.
    pub connected_since: Option<String>,
    /// When it acknowledged all that it wants of a type, last: `clusters`, `endpoints`, `listeners`, `routes`, `filter`.
    pub acknowledged: BTreeMap<String, String>,
    /// What it refuses and has as it was before, by type; the first ten names of each.
    pub refuses: BTreeMap<String, BTreeSet<String>>,
    /// What it refused last.
    pub last_refusal: Option<RefusalView>,
    /// How long ago it reported last; null if it does not.
    pub last_report_ms: Option<u64>,
    /// The routes that its reports show.
    pub routes: Vec<ProxyRouteView>,
}

/// What a proxy said of a configuration that it refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalView {
    /// RFC 3339, UTC.
    pub t: String,
    /// Of which type: `clusters`, `endpoints`, `listeners`, `routes`, `filter`.
    pub resources: String,
    /// Its words.
    pub message: String,
}

/// The routes of a canary, as a proxy has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyRouteView {
    /// Namespace of the canary.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The latest rev that it served a request by.
    pub rev: u64,
    /// The rev that is served now.
    pub current_rev: u64,
}

/// An event, worded as Flagger words it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts events of this server; higher is later.
    pub id: u64,
    /// When the server was started that told it, in milliseconds since 1970; 0 if an earlier version did.
    #[serde(default)]
    pub run: u64,
    /// RFC 3339, UTC.
    pub t: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always `Synced`.
    pub reason: String,
    /// The text.
    pub message: String,
    /// Namespace of the canary.
    pub namespace: String,
    /// Name of the canary.
    pub name: String,
    /// How often it happened, from `t` to `last`.
    #[serde(default = "once")]
    pub count: u64,
    /// When it happened last: RFC 3339, UTC.
    #[serde(default)]
    pub last: String,
}

/// What was stored before events were counted happened once.
const fn once() -> u64 {
    1
}

impl EventView {
    /// Returns which one it is.
    pub const fn place(&self) -> EventId {
        EventId { run: self.run, number: self.id }
    }
}

impl CanaryView {
    /// Returns true while the verdict is about what goes on. After the end it tells how the rollout ended.
    pub fn is_judged(&self) -> bool {
        matches!(self.phase.as_str(), "Progressing" | "WaitingPromotion")
    }

    /// Returns what was measured, all zero before the first rollout.
    pub fn measured(&self) -> ArmsView {
        self.arms.clone().unwrap_or_default()
    }
}
