//! What is shown of a canary.

use std::sync::Arc;

use wingbeat_core::analysis::judge::{Assessment, Comparison, Mode};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{Arm, CanaryName, Revision};
use wingbeat_core::rollout::{Phase, Progress};
use wingbeat_core::time::Timestamp;

use crate::engine::canary::Canary;
use crate::view::{ArmView, CanaryView, ConditionView, VerdictView};

/// Returns a canary as it is shown, with its key.
pub(super) fn entry(name: &CanaryName, canary: &Canary, now: Timestamp) -> ((String, String), Arc<CanaryView>) {
    let state = &canary.state;
    let progress = match &state.phase {
        Phase::Progressing(progress) => Some(progress),
        Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Promoting { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => None,
    };
    let view = CanaryView {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        target: canary.managed.plan.target().to_owned(),
        status: state.phase.as_str().to_owned(),
        weight: canary.routes().canary_weight().fraction() * 100.0,
        last_transition_time: rfc3339(state.changed),
        failed_checks: 0,
        iterations: 0,
        paused: progress.is_some_and(|progress| progress.paused),
        conditions: conditions(&state.phase, progress),
        primary_revision: state.primary().map_or_else(String::new, ToString::to_string),
        canary_revision: under_judgement(&state.phase).map(ToString::to_string),
        rev: state.rev.get(),
        mode: match canary.managed.judge.mode {
            Mode::Sequential => "sequential",
            Mode::Guard => "guard",
            Mode::Thresholds => "thresholds",
        }
        .to_owned(),
        verdict: canary.assessed.as_ref().map(|assessed| verdict(assessed, canary.decisive())),
        primary: arm(canary, Arm::Primary, now),
        canary: arm(canary, Arm::Canary, now),
    };
    ((name.namespace.clone(), name.name.clone()), Arc::new(view))
}

/// Returns a time as people write it, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

const fn under_judgement(phase: &Phase) -> Option<&Revision> {
    match phase {
        Phase::Progressing(progress) => Some(&progress.canary),
        Phase::Promoting { canary, .. } | Phase::Failed { canary, .. } => Some(canary),
        Phase::Initializing | Phase::Initialized { .. } | Phase::Succeeded { .. } => None,
    }
}

/// The wording is Flagger's.
fn conditions(phase: &Phase, progress: Option<&Progress>) -> Vec<ConditionView> {
    let (status, message) = match phase {
        Phase::Initializing => ("Unknown", "New Workload detected, starting initialization.".to_owned()),
        Phase::Initialized { .. } => ("True", "Workload initialization completed.".to_owned()),
        Phase::Progressing(_) => ("Unknown", "New revision detected, progressing canary analysis.".to_owned()),
        Phase::Promoting { .. } => {
            ("Unknown", "Canary analysis completed, starting primary rolling update.".to_owned())
        }
        Phase::Succeeded { .. } => ("True", "Canary analysis completed successfully, promotion finished.".to_owned()),
        Phase::Failed { reason, .. } => ("False", format!("Canary analysis failed: {reason}")),
    };
    let promoted = ConditionView {
        kind: "Promoted".to_owned(),
        status: status.to_owned(),
        reason: phase.as_str().to_owned(),
        message,
    };
    let paused = progress.filter(|progress| progress.paused).map(|_| ConditionView {
        kind: "Paused".to_owned(),
        status: "True".to_owned(),
        reason: "Command".to_owned(),
        message: "The weight is frozen until the rollout is resumed.".to_owned(),
    });
    std::iter::once(promoted).chain(paused).collect()
}

fn verdict(assessed: &Assessment, decisive: f64) -> VerdictView {
    VerdictView {
        verdict: assessed.verdict.as_str().to_owned(),
        reason: assessed.verdict.reason().to_owned(),
        comparison: match assessed.comparison {
            Comparison::Randomised => "randomised",
            Comparison::Absolute => "absolute",
        }
        .to_owned(),
        harm: assessed.evidence.errors.harm.max(assessed.evidence.latency.harm),
        harm_limit: decisive,
        rate_ratio: [assessed.rate_ratio.0, assessed.rate_ratio.1],
        eta_requests: assessed.eta_requests,
    }
}

fn arm(canary: &Canary, arm: Arm, _now: Timestamp) -> ArmView {
    let totals = canary.totals.arm(arm);
    let quantile = |q| totals.latency.quantile(q).map(|(low, high)| millis(low, high));
    ArmView {
        requests: totals.judged(),
        errors: totals.errors(),
        overdue: totals.overdue,
        disconnects: totals.outcome(wingbeat_core::outcome::Outcome::DisconnectBeforeResponse)
            + totals.outcome(wingbeat_core::outcome::Outcome::DisconnectMidResponse),
        rate: rate(canary, arm),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
    }
}

/// The middle of a bin, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "microseconds of an hour fit")]
fn millis(low: u64, high: u64) -> f64 {
    (low as f64 + high as f64) / 2_000.0
}

#[expect(clippy::cast_precision_loss, reason = "requests of a second fit")]
fn rate(canary: &Canary, arm: Arm) -> f64 {
    let started: u64 = canary.recent.iter().map(|batch| started(batch.judged.arm(arm))).sum();
    let span: f64 = canary.recent.iter().map(|batch| batch.span.as_secs_f64()).sum();
    if span > 0.0 { started as f64 / span } else { 0.0 }
}

const fn started(counts: &Counts) -> u64 {
    counts.started
}
