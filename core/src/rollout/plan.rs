//! A validated plan: what a Canary's spec asks for.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::CanaryName;
use crate::time::Span;
use crate::weight::BasisPoints;

/// The shortest interval that is taken; Flagger's floor is 10 s.
pub const SHORTEST_INTERVAL: Span = Span::from_millis(100);
/// Flagger's default interval.
pub const DEFAULT_INTERVAL: Span = Span::from_secs(60);

/// The numbers of a spec as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanInput {
    /// `metadata`.
    pub name: Option<CanaryName>,
    /// `targetRef.name`.
    pub target: String,
    /// `analysis.interval`.
    pub interval: Option<Span>,
    /// `analysis.stepWeight`.
    pub step_weight: Option<i64>,
    /// `analysis.stepWeights`.
    pub step_weights: Vec<i64>,
    /// `analysis.maxWeight`.
    pub max_weight: Option<i64>,
}

/// A plan that cannot be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    name: CanaryName,
    target: String,
    interval: Span,
    /// Rising, none zero, at least one.
    weights: Vec<BasisPoints>,
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

impl Plan {
    /// Returns the plan, or everything that is wrong with the spec.
    pub fn try_new(input: &PlanInput) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, wrong: String, mend: &str| {
            errors.push(PlanError { field: field.to_string(), wrong, mend: mend.to_string() });
        };
        if input.target.is_empty() {
            wrong("targetRef.name", "is missing".to_string(), "name the workload");
        }
        let interval = input.interval.unwrap_or(DEFAULT_INTERVAL);
        if interval < SHORTEST_INTERVAL {
            wrong("analysis.interval", format!("{interval} is too short"), "use 100ms or more");
        }
        let mut percent = |field: &str, value: i64| {
            if let Ok(percent @ 1..=100) = u8::try_from(value) {
                return BasisPoints::from_percent(percent);
            }
            wrong(field, format!("{value} is not a share of traffic"), "use a number from 1 to 100");
            BasisPoints::ZERO
        };
        let max = input
            .max_weight
            .filter(|max| *max != 0)
            .map_or(BasisPoints::FULL, |max| percent("analysis.maxWeight", max));
        let step = input.step_weight.map(|step| percent("analysis.stepWeight", step));
        let listed: Vec<BasisPoints> = input
            .step_weights
            .iter()
            .enumerate()
            .map(|(place, weight)| percent(&format!("analysis.stepWeights[{place}]"), *weight))
            .collect();
        if listed.windows(2).any(|pair| matches!(pair, [a, b] if a >= b)) {
            wrong("analysis.stepWeights", "does not rise".to_string(), "list the weights in rising order");
        }
        let weights = match (step, listed.is_empty()) {
            (Some(_), false) => {
                wrong("analysis", "has stepWeight and stepWeights".to_string(), "use one of them");
                Vec::new()
            }
            (None, true) => {
                wrong("analysis", "has no steps".to_string(), "set stepWeight or stepWeights");
                Vec::new()
            }
            (Some(step), true) => up_to(step, max),
            (None, false) => listed,
        };
        match (&input.name, errors.is_empty()) {
            (Some(name), true) => Ok(Self { name: name.clone(), target: input.target.clone(), interval, weights }),
            (Some(_), false) => Err(errors),
            (None, _) => {
                errors.push(PlanError {
                    field: "metadata.name".to_string(),
                    wrong: "is missing".to_string(),
                    mend: "name the canary".to_string(),
                });
                Err(errors)
            }
        }
    }

    /// Returns the canary's name.
    pub const fn name(&self) -> &CanaryName {
        &self.name
    }

    /// Returns the name of the workload.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the shortest length of a step.
    pub const fn interval(&self) -> Span {
        self.interval
    }

    /// Returns the canary's share in a step, or none past the last one.
    pub fn weight(&self, step: usize) -> Option<BasisPoints> {
        self.weights.get(step).copied()
    }

    /// Returns the number of steps, at least one.
    pub fn steps(&self) -> usize {
        self.weights.len()
    }
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

#[cfg(test)]
mod tests {
    use alloc::vec;

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

    fn percents(input: &PlanInput) -> Vec<u16> {
        let plan = Plan::try_new(input).unwrap();
        (0..plan.steps()).map(|step| plan.weight(step).unwrap().get() / 100).collect()
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
    fn all_mistakes_are_told_at_once() {
        let bad = PlanInput {
            name: None,
            target: String::new(),
            interval: Some(Span::from_millis(1)),
            step_weight: Some(0),
            step_weights: vec![5, 5, 101],
            max_weight: Some(-1),
        };
        let errors: Vec<String> = Plan::try_new(&bad).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "targetRef.name: is missing, name the workload",
                "analysis.interval: 1ms is too short, use 100ms or more",
                "analysis.maxWeight: -1 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeight: 0 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeights[2]: 101 is not a share of traffic, use a number from 1 to 100",
                "analysis.stepWeights: does not rise, list the weights in rising order",
                "analysis: has stepWeight and stepWeights, use one of them",
                "metadata.name: is missing, name the canary",
            ]
        );
    }
}
