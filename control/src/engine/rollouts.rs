//! What is shown of the rollouts of one canary: the steps of its plan, the latest rollout over time, and those before.

use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Gate, HookKind, Phase, Share, StepClock};
use wingbeat_core::time::Timestamp;

use crate::engine::canary::Canary;
use crate::engine::canary::chronicle::{Past, Point, Sample, Timeline};
use crate::engine::{Engine, rfc3339};
use crate::view::{
    ClockView, PastCountsView, PastRolloutView, PointView, RolloutsView, SampleView, SeriesView, StepView,
};

/// Steps of a plan that are shown; of a longer one, the first.
const MAX_STEPS: usize = 256;

impl Engine {
    /// Keeps the points of a rollout that has ended, for those who look at it now.
    pub(super) fn keep_chart(&mut self, name: &CanaryName) {
        let leaving = self.charted.push(name);
        if let Some(canary) = leaving.and_then(|name| self.canaries.measure(&name))
            && !canary.state.has_rollout()
        {
            canary.chronicle.timeline = None;
        }
    }

    /// Returns what is shown of a canary's rollouts.
    pub fn rollouts(&self, name: &CanaryName, now: Timestamp) -> Option<RolloutsView> {
        let canary = self.canaries.get(name)?;
        Some(RolloutsView {
            rollout: canary.state.rollout.get(),
            gate: gate(canary).map(|kind| kind.as_str().to_owned()),
            steps: steps(canary),
            position: u64::try_from(canary.chronicle.reached).unwrap_or(u64::MAX),
            clock: clock(canary, now),
            series: canary.chronicle.timeline.as_ref().map(|timeline| series(canary, timeline, now)),
            past: canary.chronicle.past.iter().rev().map(past).collect(),
        })
    }
}

/// Returns the kind of hook that a rollout waits for.
fn gate(canary: &Canary) -> Option<HookKind> {
    match &canary.state.phase {
        Phase::Waiting(_) => Some(HookKind::ConfirmRollout),
        Phase::Progressing(progress) => progress.gate.map(|gate| match gate {
            Gate::TrafficIncrease => HookKind::ConfirmTrafficIncrease,
            Gate::Promotion => HookKind::ConfirmPromotion,
        }),
        Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Promoting(_)
        | Phase::Finalising { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => None,
    }
}

/// Returns the positions of the plan from the first one, equal ones after each other as one step.
fn steps(canary: &Canary) -> Vec<StepView> {
    let plan = &canary.config.plan;
    let mut steps: Vec<(Share, u64)> = Vec::new();
    for share in (1..plan.positions()).filter_map(|position| plan.share(position)) {
        let shown = steps.len();
        match steps.last_mut() {
            Some((last, positions)) if *last == share => *positions = positions.saturating_add(1),
            Some(_) | None if shown >= MAX_STEPS => break,
            Some(_) | None => steps.push((share, 1)),
        }
    }
    let view = |(share, positions): (Share, u64)| StepView {
        share: match share {
            Share::Nothing => "nothing",
            Share::Mirrored(_) => "mirrored",
            Share::Weight(_) => "weight",
            Share::Matched => "matched",
            Share::Everything => "everything",
        }
        .to_owned(),
        weight: share.shown().percent(),
        positions,
    };
    steps.into_iter().map(view).collect()
}

fn clock(canary: &Canary, now: Timestamp) -> Option<ClockView> {
    let Phase::Progressing(progress) = &canary.state.phase else { return None };
    let state = match progress.clock {
        StepClock::Running { .. } => "running",
        StepClock::Standing(_) => "standing",
    };
    Some(ClockView {
        state: state.to_owned(),
        elapsed_ms: progress.clock.elapsed(now).as_millis(),
        interval_ms: canary.config.plan.interval().as_millis(),
    })
}

fn series(canary: &Canary, timeline: &Timeline, now: Timestamp) -> SeriesView {
    let open = canary.state.has_rollout().then(|| (canary.routes().canary_weight(), now));
    SeriesView {
        rollout: timeline.rollout.get(),
        began_ms: timeline.began.as_millis(),
        span_ms: timeline.span.as_millis(),
        decisive: canary.decision_threshold(),
        points: timeline.points(open).map(point).collect(),
    }
}

fn point(point: Point) -> PointView {
    PointView {
        t_ms: point.end.as_millis(),
        weight: point.weight.percent(),
        harm: point.harm,
        primary: sample(point.primary),
        canary: sample(point.canary),
    }
}

fn sample(sample: Sample) -> SampleView {
    let [p50_ms, p90_ms, p99_ms] = sample.micros.map(|micros| micros.map(|micros| f64::from(micros) / 1e3));
    SampleView { requests: sample.requests, errors: sample.errors, p50_ms, p90_ms, p99_ms }
}

fn past(past: &Past) -> PastRolloutView {
    let revision = |revision: &Option<wingbeat_core::id::Revision>| revision.as_ref().map(ToString::to_string);
    let [primary, canary] = past.counts.map(|(requests, errors)| PastCountsView { requests, errors });
    PastRolloutView {
        rollout: past.rollout.get(),
        began: past.began.map(rfc3339),
        ended: rfc3339(past.ended),
        result: past.ending.as_str().to_owned(),
        reason: past.reason.clone(),
        primary_revision: revision(&past.primary),
        canary_revision: revision(&past.canary),
        attempt: past.attempt,
        highest_weight: past.highest.percent(),
        primary,
        canary,
    }
}
