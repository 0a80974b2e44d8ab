//! What can roll a canary back, and how the error budget is shared among it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// A kind of harm that the judge looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Errors relative to the primary, above the floor.
    Errors,
    /// Latency relative to the primary.
    Latency,
    /// The hard guard: a canary that is broken outright.
    Guard,
    /// Errors above an absolute limit.
    ErrorLimit,
    /// Slow requests above an absolute limit.
    LatencyLimit,
    /// Answers of another kind: redirects, faults of the caller, gRPC statuses, empty bodies (P4).
    Outcomes,
    /// Requests that needed more than one attempt (P5).
    Attempts,
    /// Clients that left before they had their answer (P1).
    Disconnects,
}

/// What a signal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalMode {
    /// It rolls back, and has a share of α.
    #[default]
    Judge,
    /// It is told when it would have rolled back, and moves nothing.
    Warn,
    /// It is shown.
    Report,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 8] = [
        Self::Errors,
        Self::Latency,
        Self::Guard,
        Self::ErrorLimit,
        Self::LatencyLimit,
        Self::Outcomes,
        Self::Attempts,
        Self::Disconnects,
    ];

    /// Returns its name in outputs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Guard => "guard",
            Self::ErrorLimit => "error-limit",
            Self::LatencyLimit => "latency-limit",
            Self::Outcomes => "outcomes",
            Self::Attempts => "attempts",
            Self::Disconnects => "disconnects",
        }
    }

    /// Returns the signals that a metric of a Canary stands for. Two names are Flagger's.
    pub fn of_metric(name: &str) -> &'static [Self] {
        match name {
            "request-success-rate" => &[Self::Errors, Self::ErrorLimit],
            "request-duration" => &[Self::Latency, Self::LatencyLimit],
            "response-classes" => &[Self::Outcomes],
            "request-attempts" => &[Self::Attempts],
            "client-disconnects" => &[Self::Disconnects],
            _ => &[],
        }
    }

    /// Names that [`Signal::of_metric`] knows.
    pub const METRICS: [&'static str; 5] =
        ["request-success-rate", "request-duration", "response-classes", "request-attempts", "client-disconnects"];

    /// Returns true if it shows a regression that a slow or unlucky pod could cause too. The hard guard and absolute
    /// limits do not ask whose fault it is (P13).
    pub const fn is_soft(self) -> bool {
        match self {
            Self::Errors | Self::Latency | Self::Outcomes | Self::Attempts | Self::Disconnects => true,
            Self::Guard | Self::ErrorLimit | Self::LatencyLimit => false,
        }
    }
}

/// The shares of α, each signal at most once. Together they are at most one.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares(Vec<(Signal, f64)>);

impl Shares {
    /// Divides all of α among signals by their weights.
    pub fn by_weight(weights: &[(Signal, f64)]) -> Self {
        let whole: f64 = weights.iter().map(|(_, weight)| weight).sum();
        if whole <= 0.0 {
            return Self(Vec::new());
        }
        Self(weights.iter().map(|&(signal, weight)| (signal, weight / whole)).collect())
    }

    /// Gives signals these shares as they are; what is left of α is not spent.
    pub const fn fixed(shares: Vec<(Signal, f64)>) -> Self {
        Self(shares)
    }

    /// Returns the share of a signal, if it has one.
    pub fn of(&self, wanted: Signal) -> Option<f64> {
        self.iter().find(|&(signal, _)| signal == wanted).map(|(_, share)| share)
    }

    /// Returns all shares.
    pub fn iter(&self) -> impl Iterator<Item = (Signal, f64)> + '_ {
        self.0.iter().copied()
    }
}
