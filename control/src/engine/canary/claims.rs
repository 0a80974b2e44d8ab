//! What the judge claims of a canary: by which comparison, at which evidence, with which chance of an error.

use wingbeat_api::desired_state::{MetricProvider, Targeting};
use wingbeat_core::analysis::judge::Comparison;
use wingbeat_core::rollout::HookKind;

use crate::engine::canary::Canary;

impl Canary {
    /// Returns the bounds of the canary's error rate as a multiple of the primary's.
    pub(in crate::engine) fn rate_ratio(&self) -> (Option<f64>, Option<f64>) {
        self.judge.as_ref().map_or((None, None), |judge| judge.rate_ratio())
    }

    /// Returns the evidence at which the judge decides, as a natural logarithm.
    pub(in crate::engine) fn decision_threshold(&self) -> f64 {
        self.judge_config().decision_threshold()
    }

    /// Returns what can roll it back by evidence, each with its share of α.
    pub(in crate::engine) fn shares(&self) -> Vec<(&'static str, f64)> {
        self.judge_config().shares().iter().map(|(signal, share)| (signal.as_str(), share)).collect()
    }

    /// Returns what can roll it back besides, which no share of α covers.
    pub(in crate::engine) fn outside_alpha(&self) -> Vec<String> {
        let plan = &self.config.plan;
        let hooks = [HookKind::Rollback, HookKind::PreRollout, HookKind::Rollout];
        let hooks = hooks.into_iter().flat_map(|kind| plan.hooks(kind));
        let hooks = hooks.map(|(_, hook)| format!("webhook {}", hook.name));
        let judges = |place: &usize| self.config.metric_providers.get(*place).is_some_and(MetricProvider::judges);
        let judged = plan.metrics().filter(|(place, _)| judges(place));
        hooks.chain(judged.map(|(_, metric)| format!("metric {}", metric.name))).collect()
    }

    /// Returns the error budget of this attempt.
    pub(in crate::engine) fn alpha(&self) -> f64 {
        self.judge_config().alpha_of_attempt()
    }

    /// Returns what the canary is compared by.
    pub(in crate::engine) fn comparison(&self) -> &'static str {
        match self.judge_config().comparison {
            Comparison::Randomised
                if matches!(self.config.audience, Targeting::Rules { .. })
                    && self.division().is_some_and(|division| division.holds_back()) =>
            {
                "holdback"
            }
            Comparison::Randomised => "randomised",
            Comparison::Affinity => "affinity",
            Comparison::BeforeAfter => "before-after",
            Comparison::Absolute => "absolute",
        }
    }
}
