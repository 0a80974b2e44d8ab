//! What a rollout will be like: how long it takes, which regression is caught how soon, and which is missed.
//!
//! ```text
//!  Canary + assumed traffic ─► many rollouts in virtual time (the real machine, the real judge) ─► medians and shares
//! ```
//!
//! Nothing is computed from formulas: traffic is drawn from fixed seeds, and what came of the rollouts is counted. So the
//! same question has the same answer on every machine. How many rollouts there are depends on how long they take.

use assumptions::{judges_errors, judges_latency};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use serde::Serialize;
use traffic::{Answers, Bins};
use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::Share;
use wingbeat_core::time::Span;

use crate::engine::simulation::{RolloutScenario, SimulatedEnd, SimulatedRollout};

mod assumptions;
mod notes;
pub(crate) mod traffic;

pub use assumptions::ForecastAssumptions;

/// A rollout that takes longer is not followed to its end.
const MAX_DURATION: Span = Span::from_secs(24 * 3_600);
/// Rollouts of each kind at most: more would tell nothing new.
const MAX_ROLLOUTS: u64 = 200;
/// Rollouts of each kind at least, however long they take: fewer have no quantiles.
const MIN_ROLLOUTS: u64 = 10;
/// Windows of the judge, of all rollouts of a kind, after which there are no more of them.
const WINDOWS: u64 = 24_000;
/// Rollouts of a kind that does not end: others of it will not either.
const ENDLESS: u64 = 2;
/// Errors that are tried, as multiples of the primary's.
const ERRORS: [f64; 4] = [2.0, 3.0, 5.0, 10.0];
/// Latencies that are tried, as multiples of the primary's.
const LATENCIES: [f64; 3] = [1.2, 1.5, 2.0];
/// Pods of an arm; what more of them would show is the same.
const MAX_PODS: usize = 20;

/// What a rollout will be like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// How long half of the rollouts of a healthy canary take at most; nothing if half of them do not end in promotion.
    pub healthy_duration_ms: Option<u64>,
    /// And nine of ten.
    pub healthy_p90_ms: Option<u64>,
    /// Rollouts of a healthy canary that were tried.
    pub healthy_rollouts: u64,
    /// Of these, how many were rolled back.
    pub healthy_rolled_back: u64,
    /// The shares that a healthy canary has.
    pub steps: Vec<ForecastStep>,
    /// What becomes of bad canaries.
    pub detect: Vec<ForecastDetection>,
    /// What these figures do not say.
    pub notes: Vec<String>,
    /// A healthy rollout does not end: what the judge says at last.
    #[serde(skip)]
    pub stuck: Option<String>,
}

/// A share that a healthy canary has, in the median of its rollouts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForecastStep {
    /// In percent; nothing where its requests have no users (mirrored).
    pub weight: Option<f64>,
    /// For so long.
    pub duration_ms: u64,
    /// With so many requests.
    pub canary_requests: u64,
}

/// What becomes of a bad canary. Times count from the beginning of its rollout, bad from its first request on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForecastDetection {
    /// The share of its requests that fail, where that is what is bad.
    pub error_rate: Option<f64>,
    /// How many times as long as the primary it takes, where that is what is bad.
    pub latency_factor: Option<f64>,
    /// After so long, half of such canaries are rolled back; nothing if fewer than half are.
    pub detect_p50_ms: Option<u64>,
    /// After so long, nine of ten are.
    pub detect_p90_ms: Option<u64>,
    /// This share of them is promoted. Nothing, as above, where nothing looks at it.
    pub missed: Option<f64>,
    /// Rollouts that were tried.
    pub rollouts: u64,
}

/// Returns what the rollouts of a canary will be like.
pub fn forecast(config: &CanaryConfig, assumed: &ForecastAssumptions) -> Forecast {
    let worlds = ScenarioSet::new(config, assumed);
    let notes = notes::notes(config, assumed, worlds.pods);
    if config.plan.is_suspended() {
        let detect = worlds.scenarios().into_iter().map(|scenario| unseen(&scenario)).collect();
        return Forecast { detect, notes, ..nothing() };
    }
    let healthy = rollouts(&worlds.world(1.0, assumed.error_rate));
    let detect = worlds.scenarios().into_iter().map(|scenario| worlds.detect(scenario)).collect::<Vec<_>>();
    let ended = |end: SimulatedEnd| healthy.iter().filter(|course| course.end == end).count();
    let stuck = healthy.iter().find(|course| course.end == SimulatedEnd::Undecided).map(|course| course.word.clone());
    Forecast {
        healthy_duration_ms: quantile(&healthy, SimulatedEnd::Promoted, 0.5),
        healthy_p90_ms: quantile(&healthy, SimulatedEnd::Promoted, 0.9),
        healthy_rollouts: number(healthy.len()),
        healthy_rolled_back: number(ended(SimulatedEnd::RolledBack)),
        steps: steps(&healthy),
        detect,
        notes,
        stuck,
    }
}

const fn nothing() -> Forecast {
    Forecast {
        healthy_duration_ms: None,
        healthy_p90_ms: None,
        healthy_rollouts: 0,
        healthy_rolled_back: 0,
        steps: Vec::new(),
        detect: Vec::new(),
        notes: Vec::new(),
        stuck: None,
    }
}

/// What may be wrong with a canary.
#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// So many of its requests fail.
    Errors(f64),
    /// It takes so many times as long.
    Latency(f64),
}

/// The worlds of one question.
struct ScenarioSet<'a> {
    config: &'a CanaryConfig,
    assumed: &'a ForecastAssumptions,
    primary: Revision,
    /// Pods of primary and canary.
    pods: (usize, usize),
}

impl<'a> ScenarioSet<'a> {
    fn new(config: &'a CanaryConfig, assumed: &'a ForecastAssumptions) -> Self {
        let workload = &config.workload;
        let pods = |revision: &Revision| workload.revisions.get(revision).map_or(0, Vec::len).min(MAX_PODS);
        let canary = pods(&workload.revision);
        // The one with the most endpoints, of those that it may replace.
        let others = workload.revisions.keys().filter(|revision| **revision != workload.revision);
        let primary = others.max_by_key(|revision| pods(revision));
        let (primary, before) =
            primary.map_or_else(|| (Revision::new("before"), canary), |revision| (revision.clone(), pods(revision)));
        Self { config, assumed, primary, pods: (before, canary) }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let base = self.assumed.error_rate;
        // Of nothing there are no multiples: the least that must be detected stands in.
        let multiples: Vec<f64> = if base > 0.0 {
            ERRORS.map(|times| times * base).into()
        } else {
            vec![self.config.judge.must_detect.errors_at_least]
        };
        let rates = multiples.into_iter().filter(|rate| *rate < 1.0).chain([1.0]);
        rates.map(Scenario::Errors).chain(LATENCIES.map(Scenario::Latency)).collect()
    }

    fn world(&self, slower: f64, errors: f64) -> RolloutScenario {
        let law = |times: f64| {
            let (median, p99) = self.assumed.latency_ms?;
            Some(Bins::log_normal(1e3 * times * median, 1e3 * times * p99))
        };
        let (before, after) = self.pods;
        let mut config = self.config.clone();
        // Where the Workload has one revision only, the one before it has as many endpoints.
        let revisions = &mut config.workload.revisions;
        if let Some(endpoints) = revisions.get(&config.workload.revision).cloned() {
            revisions.entry(self.primary.clone()).or_insert(endpoints);
        }
        RolloutScenario {
            config,
            primary: self.primary.clone(),
            rps: self.assumed.rps,
            before: Answers::of_primary(self.assumed.error_rate, law(1.0), before),
            after: Answers::of_canary(errors, law(slower), after),
            longest: MAX_DURATION,
        }
    }

    fn detect(&self, scenario: Scenario) -> ForecastDetection {
        let world = match scenario {
            Scenario::Errors(rate) if judges_errors(self.config) => self.world(1.0, rate),
            Scenario::Latency(times) if judges_latency(self.config) && self.assumed.latency_ms.is_some() => {
                self.world(times, self.assumed.error_rate)
            }
            Scenario::Errors(_) | Scenario::Latency(_) => return unseen(&scenario),
        };
        let courses = rollouts(&world);
        let promoted = courses.iter().filter(|course| course.end == SimulatedEnd::Promoted).count();
        ForecastDetection {
            detect_p50_ms: quantile(&courses, SimulatedEnd::RolledBack, 0.5),
            detect_p90_ms: quantile(&courses, SimulatedEnd::RolledBack, 0.9),
            missed: Some(traffic::real(number(promoted)) / traffic::real(number(courses.len()).max(1))),
            rollouts: number(courses.len()),
            ..unseen(&scenario)
        }
    }
}

fn unseen(scenario: &Scenario) -> ForecastDetection {
    let (error_rate, latency_factor) = match scenario {
        Scenario::Errors(rate) => (Some(*rate), None),
        Scenario::Latency(times) => (None, Some(*times)),
    };
    ForecastDetection {
        error_rate,
        latency_factor,
        detect_p50_ms: None,
        detect_p90_ms: None,
        missed: None,
        rollouts: 0,
    }
}

/// Runs rollouts of a world, on all cores. The results are in order of the seeds.
fn rollouts(world: &RolloutScenario) -> Vec<SimulatedRollout> {
    let first = world.run(0);
    let runs = match first.end {
        SimulatedEnd::Undecided => ENDLESS,
        SimulatedEnd::Promoted | SimulatedEnd::RolledBack => {
            (WINDOWS / first.windows.max(1)).clamp(MIN_ROLLOUTS, MAX_ROLLOUTS)
        }
    };
    let mut all: Vec<SimulatedRollout> = (1..runs).into_par_iter().map(|seed| world.run(seed)).collect();
    all.insert(0, first);
    all
}

/// Returns the time within which this share of all rollouts ended so.
fn quantile(courses: &[SimulatedRollout], end: SimulatedEnd, share: f64) -> Option<u64> {
    let mut millis: Vec<u64> =
        courses.iter().filter(|course| course.end == end).map(|course| course.took.as_millis()).collect();
    millis.sort_unstable();
    let rank = libm::ceil(share * traffic::real(number(courses.len())));
    millis.get(usize::try_from(traffic::whole(rank).saturating_sub(1)).ok()?).copied()
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Returns the shares of rollouts that had the most of them, in the median.
fn steps(courses: &[SimulatedRollout]) -> Vec<ForecastStep> {
    let longest = courses.iter().map(|course| course.steps.len()).max().unwrap_or(0);
    let whole: Vec<&SimulatedRollout> = courses.iter().filter(|course| course.steps.len() == longest).collect();
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let step = |place: usize| {
        let taken: Vec<_> = whole.iter().filter_map(|course| course.steps.get(place)).collect();
        let weight = match taken.first()?.share {
            Share::Mirrored(_) | Share::Nothing => None,
            share @ (Share::Weight(_) | Share::Matched | Share::Everything) => Some(share.shown().percent()),
        };
        Some(ForecastStep {
            weight,
            duration_ms: median(taken.iter().map(|step| step.lasted.as_millis()).collect()),
            canary_requests: median(taken.iter().map(|step| step.requests).collect()),
        })
    };
    (0..longest).filter_map(step).collect()
}
