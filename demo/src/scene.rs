//! The scenes: two revisions behind a real Envoy, a rollout between them, and what becomes of it.

use std::path::PathBuf;
use std::time::Duration;

use wingbeat_control::view::CanaryView;

use crate::service::Behaviour;
use crate::summary::{Ended, Summary};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The canary answers with errors.
    Errors,
    /// The canary answers late.
    Latency,
    /// The canary takes requests and never answers.
    Hang,
    /// The canary's answers begin and then stop.
    Stall,
    /// Nothing until testers ask for errors; only they and Safari have the canary.
    Ab,
    /// Nothing: the canary is promoted.
    Promote,
    /// Nobody sends anything: the canary is held.
    NoTraffic,
}

/// A scene, in numbers.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What goes wrong.
    pub scenario: Scenario,
    /// Requests a second.
    pub rps: u32,
    /// Percent of traffic in the canary's first step, and in each more.
    pub weight: u8,
    /// Share of the canary's requests that fail.
    pub canary_errors: f64,
    /// Share of the primary's requests that fail.
    pub primary_errors: f64,
    /// How much later a slow canary answers.
    pub latency: Duration,
    /// Users give up after this time; none means never.
    pub patience: Option<Duration>,
    /// From the moment that the share flows to the fault; zero: broken from the first request on.
    pub fault_after: Duration,
    /// A rollout that takes longer is given up.
    pub max_duration: Duration,
    /// Decides which requests fail.
    pub seed: u64,
    /// An Envoy to use.
    pub envoy: Option<PathBuf>,
}

/// What spectators get to see.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// Something happened: since the rollout began, or before it.
    Line(Option<Duration>, &'a str),
    /// How things stand, ten times a second while the rollout runs.
    View(Duration, &'a CanaryView),
}

/// Whom the scene is played to.
pub type Spectator<'a> = &'a (dyn Fn(Sight<'_>) + Sync);

/// What a scene came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The figures.
    pub summary: Summary,
    /// The judge's last words.
    pub reason: String,
    /// True if it ended as the scenario should.
    pub as_it_should: bool,
    /// Of the failed requests, those that nobody answered: of the canary, or lost because the machine is too slow.
    pub unanswered: u64,
    /// Requests that had been answered when the load ended, of how many that were sent.
    pub answered: (u64, u64),
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 7] =
        [Self::Errors, Self::Latency, Self::Hang, Self::Stall, Self::Ab, Self::Promote, Self::NoTraffic];

    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Hang => "hang",
            Self::Stall => "stall",
            Self::Ab => "ab",
            Self::Promote => "promote",
            Self::NoTraffic => "no-traffic",
        }
    }

    pub(crate) const fn should_end(self) -> Ended {
        match self {
            Self::Errors | Self::Latency | Self::Hang | Self::Stall | Self::Ab => Ended::RolledBack,
            Self::Promote => Ended::Promoted,
            Self::NoTraffic => Ended::NoData,
        }
    }
}

impl Scene {
    /// Returns how a broken canary behaves.
    pub(crate) fn fault(&self) -> Option<Behaviour> {
        match self.scenario {
            Scenario::Errors => Some(Behaviour { error_share: self.canary_errors, ..Behaviour::default() }),
            Scenario::Latency => Some(Behaviour { delay: self.latency, ..Behaviour::default() }),
            Scenario::Hang => Some(Behaviour { hang: true, ..Behaviour::default() }),
            Scenario::Stall => Some(Behaviour { stall: true, ..Behaviour::default() }),
            // The canary is as good as the primary; it is what testers ask for that fails.
            Scenario::Ab => Some(Behaviour::default()),
            Scenario::Promote | Scenario::NoTraffic => None,
        }
    }
}
