//! What a forecast assumes, and what a rollout is judged by.

use wingbeat_api::desired_state::{CanaryConfig, MetricProvider};
use wingbeat_core::analysis::signal::{Signal, SignalMode};
use wingbeat_core::analysis::threshold::Metric;

/// What is assumed of the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForecastAssumptions {
    /// Requests a second at the host; of an A/B test, those that match.
    pub rps: f64,
    /// The share of the primary's requests that fail.
    pub error_rate: f64,
    /// How long the primary takes: median and 99 % quantile in milliseconds. Without it, no latency is judged.
    pub latency_ms: Option<(f64, f64)>,
}

/// Returns true if anything can roll back for errors.
pub(super) fn judges_errors(config: &CanaryConfig) -> bool {
    judges_any(config, &[Signal::Errors, Signal::Guard, Signal::ErrorLimit], Metric::SuccessRate)
}

/// Returns true if anything can roll back for latency.
pub(super) fn judges_latency(config: &CanaryConfig) -> bool {
    judges_any(config, &[Signal::Latency, Signal::LatencyLimit], Metric::Duration)
}

pub(super) fn judges_any(config: &CanaryConfig, signals: &[Signal], metric: Metric) -> bool {
    if config.plan.skips_analysis() {
        return false;
    }
    let shares = config.judge.shares();
    let checked = config.metric_providers.iter().any(|measure| match measure {
        MetricProvider::Filters(check) => check.metric == metric && check.mode == SignalMode::Judge,
        MetricProvider::Prometheus(_) => false,
    });
    checked || signals.iter().any(|signal| shares.of(*signal).is_some())
}
