//! From the numbers of a spec to a plan, with everything that is wrong told at once.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::{Handover, Hook, HookKind, MetricSource, NoData, Pace, Plan, PlannedMetric, Share, Strategy};
use crate::id::CanaryName;
use crate::time::Span;
use crate::weight::BasisPoints;

/// The shortest interval that is taken; Flagger's floor is 10 s.
pub const MIN_INTERVAL: Span = Span::from_millis(100);
/// Flagger's default interval.
pub const DEFAULT_INTERVAL: Span = Span::from_secs(60);
/// Flagger's default of `progressDeadlineSeconds`.
const DEFAULT_DEADLINE: Span = Span::from_secs(600);
/// More iterations than this are a slip of the pen.
const MAX_ITERATIONS: i64 = 10_000;

/// What a spec says, as it was written. Absence means Flagger's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanInput {
    /// `metadata`.
    pub name: Option<CanaryName>,
    /// `targetRef.name`.
    pub target: String,
    /// `targetRef.kind`; nothing: a Deployment.
    pub kind: Option<String>,
    /// `progressDeadlineSeconds`.
    pub progress_deadline: Option<Span>,
    /// `skipAnalysis`.
    pub skip_analysis: bool,
    /// `suspend`.
    pub suspend: bool,
    /// What moves the rollout on, by `analysis.judge.mode`.
    pub pace: Pace,
    /// `analysis.interval`.
    pub interval: Option<Span>,
    /// `analysis.threshold`.
    pub threshold: Option<i64>,
    /// `analysis.iterations`.
    pub iterations: Option<i64>,
    /// True if `analysis.match` has entries.
    pub matches: bool,
    /// `analysis.stepWeight`.
    pub step_weight: Option<i64>,
    /// `analysis.stepWeights`.
    pub step_weights: Vec<i64>,
    /// `analysis.maxWeight`.
    pub max_weight: Option<i64>,
    /// `analysis.stepWeightPromotion`.
    pub step_weight_promotion: Option<i64>,
    /// `analysis.mirror`.
    pub mirror: bool,
    /// `analysis.mirrorWeight`.
    pub mirror_weight: Option<i64>,
    /// `analysis.webhooks`, in order.
    pub hooks: Vec<HookInput>,
    /// `analysis.judge.noData`.
    pub no_data: Option<NoData>,
    /// `analysis.metrics`, in the order in which they are looked at.
    pub metrics: Vec<MetricInput>,
    /// How a revision that passed becomes the primary, which the provider decides.
    pub handover: Handover,
}

/// One of `analysis.metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricInput {
    /// `name`.
    pub name: String,
    /// Who measures it.
    pub source: MetricSource,
}

impl From<&str> for MetricInput {
    /// A metric that somebody outside measures.
    fn from(name: &str) -> Self {
        Self { name: name.into(), source: MetricSource::External }
    }
}

/// One of `analysis.webhooks`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookInput {
    /// `name`.
    pub name: String,
    /// `type`.
    pub kind: String,
    /// `muteAlert`.
    pub mute_alert: bool,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}, {mend}")]
pub struct PlanError {
    /// Path of the field below `spec`.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub mend: String,
}

/// The errors so far.
#[derive(Default)]
struct Errors(Vec<PlanError>);

pub(super) fn parse(input: &PlanInput) -> Result<Plan, Vec<PlanError>> {
    let mut errors = Errors::default();
    if input.name.is_none() {
        errors.add("metadata.name", "is missing", "name the canary");
    }
    if input.target.is_empty() {
        errors.add("targetRef.name", "is missing", "name the workload");
    }
    let interval = input.interval.unwrap_or(DEFAULT_INTERVAL);
    if interval < MIN_INTERVAL {
        errors.add("analysis.interval", format!("{interval} is too short"), "use 100ms or more");
    }
    let threshold = errors.number("analysis.threshold", input.threshold, 1..=i64::from(u32::MAX));
    let promotion_step = errors.percent("analysis.stepWeightPromotion", input.step_weight_promotion);
    let mirrored = errors.percent("analysis.mirrorWeight", input.mirror_weight).unwrap_or(BasisPoints::FULL);
    let mirrored = input.mirror.then_some(Share::Mirrored(mirrored));
    let (strategy, shares) = if input.skip_analysis && !has_steps(input) {
        (Strategy::Weighted, vec![Share::Nothing, Share::Weight(BasisPoints::FULL)])
    } else {
        errors.shares(input, mirrored)
    };
    let hooks = errors.hooks(&input.hooks);
    match &input.name {
        Some(name) if errors.0.is_empty() => {
            let metrics = input.metrics.iter().map(|metric| PlannedMetric {
                name: metric.name.clone(),
                source: metric.source,
                content: 0,
            });
            let plan = Plan {
                name: name.clone(),
                target: input.target.clone(),
                kind: input.kind.clone().unwrap_or_else(|| "Deployment".to_string()),
                interval,
                threshold: threshold.and_then(|threshold| u32::try_from(threshold).ok()).unwrap_or(1),
                pace: input.pace,
                strategy,
                shares,
                promotion_step,
                deadline: input.progress_deadline.unwrap_or(DEFAULT_DEADLINE),
                skip_analysis: input.skip_analysis,
                suspended: input.suspend,
                hooks,
                metrics: metrics.collect(),
                asks: 0,
                handover: input.handover,
                no_data: input.no_data,
            };
            Ok(plan.asking(core::iter::empty(), core::iter::empty()))
        }
        Some(_) | None => Err(errors.0),
    }
}

fn has_steps(input: &PlanInput) -> bool {
    input.step_weight.is_some() || !input.step_weights.is_empty() || input.iterations.is_some()
}

impl Errors {
    fn add(&mut self, field: impl Into<String>, wrong: impl Into<String>, mend: impl Into<String>) {
        self.0.push(PlanError { field: field.into(), wrong: wrong.into(), mend: mend.into() });
    }

    /// Flagger takes 0 for "not set".
    fn number(&mut self, field: &str, value: Option<i64>, range: core::ops::RangeInclusive<i64>) -> Option<i64> {
        let value = value.filter(|value| *value != 0)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        self.add(field, format!("{value} is out of range"), format!("use a number from {low} to {high}"));
        None
    }

    fn percent(&mut self, field: &str, value: Option<i64>) -> Option<BasisPoints> {
        let value = value.filter(|value| *value != 0)?;
        self.share(field, value)
    }

    fn share(&mut self, field: &str, value: i64) -> Option<BasisPoints> {
        if let Ok(percent @ 1..=100) = u8::try_from(value) {
            return Some(BasisPoints::from_percent(percent));
        }
        self.add(field, format!("{value} is not a share of traffic"), "use a number from 1 to 100");
        None
    }

    fn shares(&mut self, input: &PlanInput, mirrored: Option<Share>) -> (Strategy, Vec<Share>) {
        let iterations = self.number("analysis.iterations", input.iterations, 1..=MAX_ITERATIONS);
        let iterations = usize::try_from(iterations.unwrap_or(0)).unwrap_or(0);
        let weighted = input.step_weight.is_some() || !input.step_weights.is_empty();
        if input.iterations.is_some() && weighted {
            self.add("analysis", "has iterations and step weights", "use iterations, stepWeight or stepWeights");
        }
        if input.matches && iterations == 0 {
            self.add("analysis.iterations", "is missing", "say how many intervals the A/B test lasts");
        }
        if input.matches && input.mirror {
            self.add("analysis.mirror", "does not go with match", "mirror, or let requests match");
        }
        if iterations > 0 && input.matches {
            return (Strategy::AbTesting, positions([], vec![Share::Matched; iterations]));
        }
        if iterations > 0 {
            let before = vec![mirrored.unwrap_or(Share::Nothing); iterations];
            return (Strategy::BlueGreen, positions([], before.into_iter().chain([Share::Everything])));
        }
        let weights = self.weights(input);
        (Strategy::Weighted, positions(mirrored, weights.into_iter().map(Share::Weight)))
    }

    fn weights(&mut self, input: &PlanInput) -> Vec<BasisPoints> {
        let max = self.percent("analysis.maxWeight", input.max_weight).unwrap_or(BasisPoints::FULL);
        let step = input.step_weight.and_then(|step| self.share("analysis.stepWeight", step));
        let named = input.step_weights.iter().enumerate();
        let listed: Vec<BasisPoints> = named
            .filter_map(|(place, weight)| self.share(&format!("analysis.stepWeights[{place}]"), *weight))
            .collect();
        if listed.windows(2).any(|pair| matches!(pair, [a, b] if a >= b)) {
            self.add("analysis.stepWeights", "does not rise", "list the weights in rising order");
        }
        match (input.step_weight, input.step_weights.is_empty()) {
            (Some(_), false) => {
                self.add("analysis", "has stepWeight and stepWeights", "use one of them");
                Vec::new()
            }
            (None, true) => {
                if !input.matches && input.iterations.is_none() {
                    self.add("analysis", "has no steps", "set stepWeight, stepWeights or iterations");
                }
                Vec::new()
            }
            (Some(_), true) => step.map_or_else(Vec::new, |step| up_to(step, max)),
            (None, false) => listed,
        }
    }

    fn hooks(&mut self, hooks: &[HookInput]) -> Vec<Hook> {
        let mut parsed = Vec::new();
        for (place, hook) in hooks.iter().enumerate() {
            if let Some(kind) = HookKind::parse(&hook.kind) {
                parsed.push(Hook { name: hook.name.clone(), kind, muted: hook.mute_alert, content: 0 });
            } else {
                let kinds = HookKind::ALL.map(HookKind::as_str).join(", ");
                let wrong = format!("there is no type {}", hook.kind);
                self.add(format!("analysis.webhooks[{place}].type"), wrong, format!("use one of {kinds}"));
            }
        }
        parsed
    }
}

fn positions(mirrored: impl IntoIterator<Item = Share>, rest: impl IntoIterator<Item = Share>) -> Vec<Share> {
    [Share::Nothing].into_iter().chain(mirrored).chain(rest).collect()
}

/// Returns `step`, twice `step`, … up to `max`, which is the last one: Flagger goes beyond it, this does not.
fn up_to(step: BasisPoints, max: BasisPoints) -> Vec<BasisPoints> {
    let mut weights = Vec::new();
    let mut weight = step;
    while weight < max && !step.is_zero() {
        weights.push(weight);
        weight = weight.plus(step);
    }
    weights.push(max);
    weights
}

impl Plan {
    /// Returns the plan, or everything that is wrong with the spec.
    pub fn try_new(input: &PlanInput) -> Result<Self, Vec<PlanError>> {
        parse(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> PlanInput {
        PlanInput {
            name: Some(CanaryName::new("prod", "backend")),
            target: "backend".into(),
            interval: Some(Span::from_secs(1)),
            step_weight: Some(5),
            max_weight: Some(50),
            ..PlanInput::default()
        }
    }

    fn shares(input: &PlanInput) -> Vec<Share> {
        let plan = parse(input).unwrap();
        (0..plan.positions()).map(|position| plan.share(position).unwrap()).collect()
    }

    fn percents(input: &PlanInput) -> Vec<u16> {
        let shares = shares(input);
        assert_eq!(shares.first(), Some(&Share::Nothing));
        shares.iter().skip(1).map(|share| share.shown().get() / 100).collect()
    }

    fn told(input: &PlanInput) -> Vec<String> {
        parse(input).unwrap_err().iter().map(alloc::string::ToString::to_string).collect()
    }

    #[test]
    fn steps_end_at_the_highest_weight_and_never_beyond() {
        assert_eq!(percents(&input()), [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
        assert_eq!(percents(&PlanInput { step_weight: Some(20), ..input() }), [20, 40, 50]);
        assert_eq!(percents(&PlanInput { step_weight: Some(80), ..input() }), [50]);
        assert_eq!(percents(&PlanInput { step_weight: Some(40), max_weight: Some(0), ..input() }), [40, 80, 100]);
        let listed = PlanInput { step_weight: None, step_weights: vec![1, 5, 60], ..input() };
        assert_eq!(percents(&listed), [1, 5, 60]);
    }

    #[test]
    fn every_strategy_has_its_positions() {
        use Share::{Everything, Matched, Mirrored, Nothing, Weight};
        let half = BasisPoints::from_percent(50);
        let weighted = PlanInput { step_weight: Some(50), mirror: true, mirror_weight: Some(50), ..input() };
        assert_eq!(shares(&weighted), [Nothing, Mirrored(half), Weight(half)]);
        let green = PlanInput { step_weight: None, iterations: Some(2), ..input() };
        assert_eq!(shares(&green), [Nothing, Nothing, Nothing, Everything]);
        let copied = PlanInput { mirror: true, ..green.clone() };
        let all = Mirrored(BasisPoints::FULL);
        assert_eq!(shares(&copied), [Nothing, all, all, Everything]);
        let tested = PlanInput { matches: true, ..green };
        assert_eq!(shares(&tested), [Nothing, Matched, Matched]);
        assert_eq!(parse(&tested).unwrap().iterations(), Some(2));
    }

    #[test]
    fn skipping_the_analysis_needs_no_steps() {
        let plan = PlanInput { step_weight: None, skip_analysis: true, ..input() };
        assert!(parse(&plan).unwrap().skips_analysis());
    }

    #[test]
    fn absence_and_zero_mean_flaggers_defaults() {
        let plan = parse(&PlanInput { interval: None, threshold: Some(0), ..input() }).unwrap();
        assert_eq!((plan.interval(), plan.threshold()), (DEFAULT_INTERVAL, 1));
        assert_eq!((plan.deadline(), plan.promotion_step()), (DEFAULT_DEADLINE, None));
        assert_eq!(plan.kind(), "Deployment");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let bad = PlanInput {
            name: None,
            target: String::new(),
            interval: Some(Span::from_millis(1)),
            threshold: Some(-2),
            step_weight: Some(0),
            step_weights: vec![5, 5, 101],
            max_weight: Some(-1),
            mirror_weight: Some(300),
            hooks: vec![HookInput { kind: "pre-flight".into(), ..HookInput::default() }],
            ..PlanInput::default()
        };
        assert_eq!(
            told(&bad),
            [
                "metadata.name: is missing, name the canary",
                "targetRef.name: is missing, name the workload",
                "analysis.interval: 1ms is too short, use 100ms or more",
                "analysis.threshold: -2 is out of range, use a number from 1 to 4294967295",
                "analysis.mirrorWeight: 300 is not a share of traffic, use a number from 1 to 100",
                "analysis.maxWeight: -1 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeight: 0 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeights[2]: 101 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeights: does not rise, list the weights in rising order",
                "analysis: has stepWeight and stepWeights, use one of them",
                "analysis.webhooks[0].type: there is no type pre-flight, use one of confirm-rollout, pre-rollout, \
                 rollout, confirm-traffic-increase, confirm-promotion, post-rollout, rollback, event",
            ]
        );
    }

    #[test]
    fn strategies_do_not_mix() {
        let both = PlanInput { iterations: Some(3), ..input() };
        assert_eq!(
            told(&both),
            ["analysis: has iterations and step weights, use iterations, stepWeight or stepWeights"]
        );
        let endless = PlanInput { step_weight: None, matches: true, ..input() };
        assert_eq!(told(&endless), ["analysis.iterations: is missing, say how many intervals the A/B test lasts"]);
        assert_eq!(
            told(&PlanInput { step_weight: None, ..input() }),
            ["analysis: has no steps, set stepWeight, stepWeights or iterations"]
        );
    }
}
