//! What the figures of a forecast do not say, in words.

use wingbeat_api::desired_state::{CanaryConfig, MetricProvider, Targeting};
use wingbeat_core::analysis::judge::{Mode, SinglePodPolicy};
use wingbeat_core::rollout::{HookKind, Share, Strategy};

use super::assumptions::{ForecastAssumptions, judges_errors, judges_latency};

/// From this latency on, it matters that requests count when they end.
const LONG_MS: f64 = 1_000.0;

/// Returns what is to be known beside the figures. `pods` are those of primary and canary.
pub(super) fn notes(config: &CanaryConfig, assumed: &ForecastAssumptions, pods: (usize, usize)) -> Vec<String> {
    let plan = &config.plan;
    if plan.is_suspended() {
        return vec![
            "suspend is set: no rollout begins before it is taken out, so there is nothing to tell".to_owned(),
        ];
    }
    if plan.skips_analysis() {
        return vec!["skipAnalysis is set: a new revision is promoted at once, and nothing looks at it".to_owned()];
    }
    let mut notes = Vec::new();
    traffic(config, assumed, &mut notes);
    judgement(config, assumed, pods, &mut notes);
    others(config, &mut notes);
    notes
}

/// Whose requests there are, and what they may be compared with.
fn traffic(config: &CanaryConfig, assumed: &ForecastAssumptions, notes: &mut Vec<String>) {
    let plan = &config.plan;
    let shares = (0..plan.positions()).filter_map(|position| plan.share(position));
    match (plan.strategy(), &config.audience) {
        (Strategy::AbTesting, Targeting::Rules { holdback, .. }) if holdback.is_zero() => notes.push(
            "--rps counts the requests that match. Their users differ from the others: the canary is held against ten \
             times the errors that matching requests had before it, by errors alone; holdback makes a closer comparison"
                .to_owned(),
        ),
        (Strategy::AbTesting, _) => {
            notes.push("--rps counts the requests that match; those held back are what is compared with".to_owned());
        }
        (Strategy::BlueGreen, _) => notes.push(
            "before the switch the canary has no users, and nothing is judged but by hooks and metrics; after it, all \
             requests are the canary's, and it is held against ten times the errors that the primary had before"
                .to_owned(),
        ),
        (Strategy::Weighted, Targeting::Users(_)) => notes.push(
            "users keep their arm (affinity), so the arms have different users: only absolute limits and the hard guard \
             decide"
                .to_owned(),
        ),
        (Strategy::Weighted, Targeting::Served(_)) => {
            notes.push("--rps counts the requests that service.match lets in; all others stay with the primary".to_owned());
        }
        (Strategy::Weighted, Targeting::Chance | Targeting::Rules { .. }) => {}
    }
    if shares.into_iter().any(|share| matches!(share, Share::Mirrored(_))) {
        notes.push(
            "copies of requests pass no filter: while the canary is only mirrored to, nothing is judged".to_owned(),
        );
    }
    if assumed.error_rate <= 0.0 {
        notes.push(
            "the primary fails nothing, of which there are no multiples: the least rate that must be detected is tried"
                .to_owned(),
        );
    }
}

/// Who decides, and what is not looked at.
fn judgement(
    config: &CanaryConfig,
    assumed: &ForecastAssumptions,
    (before, after): (usize, usize),
    notes: &mut Vec<String>,
) {
    let plan = &config.plan;
    let pace =
        |who: &str| format!("{who} decide at each interval, and {} failed ones end the rollout", plan.threshold());
    match config.judge.mode {
        Mode::Sequential => {}
        Mode::Guard => notes.push(format!("judge.mode is guard: {}; the hard guard does not wait", pace("checks"))),
        Mode::Thresholds => notes.push(format!("judge.mode is thresholds: {}", pace("checks alone"))),
    }
    if !judges_errors(config) {
        notes
            .push("nothing looks at errors: add the metric request-success-rate, or use another judge.mode".to_owned());
    }
    match assumed.latency_ms {
        _ if !judges_latency(config) => {
            notes.push("nothing looks at latency: a thresholdRange for request-duration would".to_owned());
        }
        None => notes.push(
            "latency is left out: with --latency-ms MEDIAN,P99 it is tried too, and a step also waits until latency could \
             have been seen"
                .to_owned(),
        ),
        Some((_, p99)) if p99 >= LONG_MS => {
            notes.push("requests count when they end: what is told comes up to such a latency later".to_owned());
        }
        Some(_) => {}
    }
    if after == 0 {
        notes.push("the revision that the Workload asks for has no endpoints: it never gets ready".to_owned());
    }
    if after == 1 && before > 1 && config.judge.on_one_pod == SinglePodPolicy::Suspect {
        notes.push(format!(
            "the canary has 1 endpoint and the primary {before}: what one bad pod may have caused is a suspicion for a \
             minute first (judge.onOnePod)"
        ));
    }
}

/// Whom the figures leave out.
fn others(config: &CanaryConfig, notes: &mut Vec<String>) {
    let plan = &config.plan;
    let asked = HookKind::ALL.into_iter().filter(|kind| !matches!(kind, HookKind::Event | HookKind::PostRollout));
    let hooks: Vec<&str> = asked.flat_map(|kind| plan.hooks(kind)).map(|(_, hook)| hook.name.as_str()).collect();
    if !hooks.is_empty() {
        notes.push(format!("webhooks are taken to agree at once: {}", hooks.join(", ")));
    }
    let is_foreign = |place: &usize| matches!(config.metric_providers.get(*place), Some(MetricProvider::Prometheus(_)));
    let foreign = plan.metrics().filter(|(place, _)| is_foreign(place));
    let foreign: Vec<&str> = foreign.map(|(_, metric)| metric.name.as_str()).collect();
    if !foreign.is_empty() {
        notes.push(format!("metrics of a Prometheus are taken to be good: {}", foreign.join(", ")));
    }
}
