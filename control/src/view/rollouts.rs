//! The rollouts of one canary: the steps, the latest one over time, and how those before ended.

use serde::{Deserialize, Serialize};

use crate::view::CanaryView;

/// What there is to see of the rollouts of one canary. Points and ended rollouts do not survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutsView {
    /// The latest rollout: they are counted by canary.
    pub rollout: u64,
    /// The gate that it waits for: `confirm-rollout`, `confirm-traffic-increase` or `confirm-promotion`.
    pub gate: Option<String>,
    /// The steps of the plan, 256 at most.
    pub steps: Vec<StepView>,
    /// The position that the latest rollout came to: 0 is before the first one, more than there are is past the last.
    pub position: u64,
    /// The time of the present step.
    pub clock: Option<ClockView>,
    /// The latest rollout over time; null if there was none, or none is kept.
    pub series: Option<SeriesView>,
    /// Rollouts that ended, the latest first; eight at most.
    pub past: Vec<PastRolloutView>,
}

/// A step of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepView {
    /// What the canary is given: `weight`, `mirrored`, `matched`, `everything` or `nothing`.
    pub share: String,
    /// The share in percent.
    pub weight: f64,
    /// Positions with this share, one after another: the iterations of A/B tests and blue/green.
    pub positions: u64,
}

/// The time of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockView {
    /// `running`, or `standing` while the share does not flow.
    pub state: String,
    /// How long the step has lasted.
    pub elapsed_ms: u64,
    /// How long it lasts at least.
    pub interval_ms: u64,
}

/// A rollout over time, in 121 points at most: the longer it lasts, the longer the time that a point covers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesView {
    /// The rollout.
    pub rollout: u64,
    /// Where it begins, in milliseconds since 1970: with the rollout, or with the server if that is younger.
    pub began_ms: u64,
    /// Time that the latest points cover; a change of the share ends one earlier.
    pub span_ms: u64,
    /// The evidence of harm, as a natural logarithm, at which it is rolled back.
    pub decisive: f64,
    /// The points, oldest first.
    pub points: Vec<PointView>,
}

/// A stretch of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PointView {
    /// Its end, in milliseconds since 1970.
    pub t_ms: u64,
    /// The canary's share in percent, at its end.
    pub weight: f64,
    /// The highest evidence of harm in it, as a natural logarithm; null where nothing was judged.
    pub harm: Option<f64>,
    /// The revision that serves.
    pub primary: SampleView,
    /// The revision under judgement.
    pub canary: SampleView,
}

/// What was measured of an arm in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleView {
    /// Requests that count for the judge, with those that hang.
    pub requests: u64,
    /// Those where the server is to blame, with those that hang.
    pub errors: u64,
    /// Median of the latency, in milliseconds. Where a point was made of two, the mean of theirs by requests; so are the
    /// others.
    pub p50_ms: Option<f64>,
    /// The latency that nine of ten requests keep.
    pub p90_ms: Option<f64>,
    /// The latency that 99 of 100 requests keep.
    pub p99_ms: Option<f64>,
}

/// A rollout that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PastRolloutView {
    /// Which one.
    pub rollout: u64,
    /// When it began, RFC 3339; null if this server did not see it.
    pub began: Option<String>,
    /// When it ended, RFC 3339.
    pub ended: String,
    /// `promoted`, `rolled-back`, `taken-back` (the workload asked for its primary again) or `replaced` (by another
    /// revision).
    pub result: String,
    /// Why, where it was not promoted.
    pub reason: String,
    /// The revision that served.
    pub primary_revision: Option<String>,
    /// The revision that was judged.
    pub canary_revision: Option<String>,
    /// Which attempt at it this was.
    pub attempt: u32,
    /// The highest share that the canary had, in percent.
    pub highest_weight: f64,
    /// What was counted of the primary.
    pub primary: PastCountsView,
    /// What was counted of the canary.
    pub canary: PastCountsView,
}

/// What was counted of an arm in a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PastCountsView {
    /// Requests, with those that hang.
    pub requests: u64,
    /// Errors, with those that hang.
    pub errors: u64,
}

/// A canary in a line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SummaryView {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Flagger's name for the phase.
    pub phase: String,
    /// Percent of traffic that the canary is given.
    pub weight: f64,
    /// True while the share is frozen by command.
    pub paused: bool,
    /// True while a gate waits for approval.
    pub waits: bool,
    /// The revision that serves.
    pub primary_revision: String,
    /// The revision under judgement, or the one that failed.
    pub canary_revision: Option<String>,
    /// RFC 3339, UTC.
    pub last_transition_time: String,
    /// The first condition that is false: what a person has to look at.
    pub trouble: Option<String>,
}

/// Characters of what troubles a canary, in a line; the rest is cut off.
const MAX_BLOCKER_LEN: usize = 160;

impl SummaryView {
    /// Returns a canary in a line.
    pub fn of(canary: &CanaryView) -> Self {
        let has =
            |kind: &str| canary.conditions.iter().any(|condition| condition.kind == kind && condition.status == "True");
        let trouble = canary.conditions.iter().find(|condition| condition.status == "False");
        Self {
            namespace: canary.namespace.clone(),
            name: canary.name.clone(),
            phase: canary.phase.clone(),
            weight: canary.weight,
            paused: canary.paused,
            waits: matches!(canary.phase.as_str(), "Waiting" | "WaitingPromotion") || has("Waiting"),
            primary_revision: canary.primary_revision.clone(),
            canary_revision: canary.canary_revision.clone(),
            last_transition_time: canary.last_transition_time.clone(),
            trouble: trouble.map(|condition| cut(&condition.message)),
        }
    }
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_BLOCKER_LEN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
