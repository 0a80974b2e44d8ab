//! What can roll a canary back, and how the error budget is shared among it.

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
    pub const fn is_rate_comparison(self) -> bool {
        match self {
            Self::Errors | Self::Latency | Self::Outcomes | Self::Attempts | Self::Disconnects => true,
            Self::Guard | Self::ErrorLimit | Self::LatencyLimit => false,
        }
    }
}

/// The shares of α, by signal. Together they are at most one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares([Option<f64>; Signal::ALL.len()]);

impl Shares {
    /// Divides all of α among signals by their weights, each signal at most once.
    pub fn by_weight(weights: impl Iterator<Item = (Signal, f64)> + Clone) -> Self {
        let whole: f64 = weights.clone().map(|(_, weight)| weight).sum();
        if whole <= 0.0 {
            return Self::default();
        }
        Self::fixed(weights.map(|(signal, weight)| (signal, weight / whole)))
    }

    /// Gives signals these shares as they are; what is left of α is not spent.
    pub fn fixed(given: impl IntoIterator<Item = (Signal, f64)>) -> Self {
        let mut shares = Self::default();
        for (signal, share) in given {
            if let Some(held) = shares.0.get_mut(signal as usize) {
                *held = Some(share);
            }
        }
        shares
    }

    /// Returns the same without a signal; its share is not spent.
    #[must_use]
    pub fn without(self, signal: Signal) -> Self {
        Self::fixed(self.iter().filter(|(other, _)| *other != signal))
    }

    /// Returns the share of a signal, if it has one.
    pub fn of(&self, wanted: Signal) -> Option<f64> {
        self.0.get(wanted as usize).copied().flatten()
    }

    /// Returns all shares.
    pub fn iter(&self) -> impl Iterator<Item = (Signal, f64)> + '_ {
        Signal::ALL.into_iter().filter_map(|signal| Some((signal, self.of(signal)?)))
    }
}
