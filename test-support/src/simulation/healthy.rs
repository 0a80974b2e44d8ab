//! Healthy canaries: how many are rolled back all the same, looked at after every window.
//!
//! Where something makes the comparison unfair there are two figures, without the remedy and with it. What is without
//! is done by the world, or by the bare tests: the product has no switch for it.

use wingbeat_core::analysis::judge::{Comparison, JudgeConfig};
use wingbeat_core::analysis::sequential::{LimitTest, RatioTest, Split};
use wingbeat_core::analysis::window::{Batch, WINDOW};
use wingbeat_core::time::{Span, Timestamp};

use crate::simulation::draw::Draw;
use crate::simulation::line::{Line, Row, Tally, each};
use crate::simulation::rollout::{Watched, shipped};
use crate::simulation::traffic::{Answers, Besides, Law, Traffic, Wave, with_latency};
use crate::simulation::users;
use crate::simulation::watching::{ALPHA, REQUESTS, above_alpha, rolled_back, watched};

const NAME: &str = "judge-false";

const RPS: f64 = 1_000.0;

const LAW: Law = Law::of(20_000.0);

/// Workers whose pools to the canary are cold.
const WORKERS: u64 = 10_000;

fn suspected(watched: &[Watched]) -> Tally {
    Tally::of(&watched.iter().map(|one| one.suspected).collect::<Vec<_>>())
}

/// The table.
pub const ROWS: &[Row] = &[
    |effort| vec![independent(effort.of(10_000)), everything(effort.of(1_000))],
    |effort| waves(effort.of(1_000)),
    |effort| {
        let bursts = [(0.01, 2.0), (0.01, 5.0), (0.01, 10.0), (0.001, 5.0)];
        bursts.into_iter().map(|(rate, mean)| burst(effort.of(1_000), rate, mean).line()).collect()
    },
    |effort| {
        let pods = [1, 3].into_iter().flat_map(|pods| [0.1, 0.2, 0.3, 0.5].map(|deviation| (pods, deviation)));
        pods.map(|(canary, deviation)| pod_spread(effort.of(1_000), canary, deviation).line()).collect()
    },
    |effort| {
        let (many, few) = (effort.of(1_000), effort.of(500));
        [cold_pools(few), cold_start(many), matched_users(many)].iter().map(Remedied::line).collect()
    },
    users::rows,
];

/// What makes the arms differ by itself, and how many are rolled back without the remedy and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedied {
    what: String,
    /// Rolled back without the remedy.
    pub off: Tally,
    /// And with it.
    pub on: Tally,
    /// What else came of it.
    more: String,
}

impl Remedied {
    fn new(what: impl Into<String>, off: Tally, on: Tally) -> Self {
        Self { what: what.into(), off, on, more: String::new() }
    }

    fn line(&self) -> Line {
        let figure = format!("without remedy {}; with {}{}{}", self.off, self.on, above_alpha(self.on), self.more);
        Line::shown(NAME, self.what.clone(), figure)
    }
}

/// Independent errors: the promise itself.
pub fn independent(runs: u64) -> Line {
    let rates = [0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8];
    let mut each_rate = rates.iter().cycle();
    let rate_of: Vec<f64> = (0..runs).filter_map(|_| each_rate.next().copied()).collect();
    let world = |seed: u64| {
        let same = || Answers::failing(rate_of.get(seed as usize).copied().unwrap_or_default());
        Traffic::new(seed, RPS, same(), same())
    };
    let tally = rolled_back(&watched(runs, &shipped(), world));
    let most = (2.0 * ALPHA * runs as f64).ceil() as u64;
    Line::new(
        NAME,
        "independent errors, base rates 0.01, 0.1, 1, 5, 20, 50 and 80 %",
        tally.to_string(),
        format!("≤ {most}"),
        tally.hits <= most,
    )
}

/// All signals have something to look at.
fn everything(runs: u64) -> Line {
    let besides = Besides { redirects: 0.02, client_faults: 0.04, left: 0.005, retried: 0.02 };
    let same = || Answers { besides, ..Answers::taking(0.01, LAW) };
    let tally = rolled_back(&watched(runs, &shipped(), |seed| Traffic::new(seed, RPS, same(), same())));
    let most = (2.0 * ALPHA * runs as f64).ceil() as u64;
    Line::new(
        NAME,
        "1 % errors, 2 % 3xx, 4 % 4xx, 2 % retried, 0.5 % left, latencies log-normal (20 ms, 0.7)",
        tally.to_string(),
        format!("≤ {most}"),
        tally.hits <= most,
    )
}

/// The load and the errors of both arms rise and fall.
fn waves(runs: u64) -> Vec<Line> {
    let wave = |(errors, load, tau): (f64, f64, f64)| {
        let same = || Answers::failing(0.01);
        let world = |seed| Traffic::new(seed, RPS, same(), same()).with_wave(Wave { errors, load, tau });
        let tally = rolled_back(&watched(runs, &shipped(), world));
        let what = format!("errors 1 %, waves of log-sd {errors} in errors and {load} in load, over {tau} s");
        Line::shown(NAME, what, format!("{tally}{}", above_alpha(tally)))
    };
    [(1.0, 0.5, 30.0), (1.0, 0.5, 3.0)].into_iter().map(wave).collect()
}

/// Errors come in bursts, at both arms.
pub fn burst(runs: u64, rate: f64, mean: f64) -> Remedied {
    let same = || Answers { burst: mean, ..Answers::failing(rate) };
    let world = |seed| Traffic::new(seed, RPS, same(), same());
    let off = Tally::of(&each(runs, |seed| bare_rolls_back(world(seed))));
    let on = rolled_back(&watched(runs, &shipped(), world));
    Remedied::new(format!("errors {} %, in bursts of mean {mean}", 100.0 * rate), off, on)
}

/// Returns true if the error test without allowance for bursts speaks, floor and tolerance as shipped.
fn bare_rolls_back(mut traffic: Traffic) -> bool {
    let config = JudgeConfig::default();
    let mut ratio = RatioTest::harm(config.error_ratio);
    let mut floor = LimitTest::above(config.error_floor);
    let (mut now, mut canary) = (Timestamp::EPOCH, 0);
    while canary < REQUESTS {
        now = now.plus(WINDOW);
        let arms = traffic.window(0.05, now).judged;
        let (bad, all) = (arms.canary.errors(), arms.canary.judged());
        let split =
            Split { canary_bad: bad, canary: all, primary_bad: arms.primary.errors(), primary: arms.primary.judged() };
        ratio.observe(split, WINDOW);
        floor.observe(bad, all, WINDOW);
        canary += all;
        if ratio.evidence().min(floor.evidence()) >= config.decision_threshold() {
            return true;
        }
    }
    false
}

/// Pods of one revision differ: log-normal, for as long as they live.
pub fn pod_spread(runs: u64, canary_pods: usize, deviation: f64) -> Remedied {
    let world = |seed: u64, reports_pods: bool| {
        let mut traffic = Traffic::new(seed, RPS, Answers::failing(0.01), Answers::failing(0.01));
        let mut multiples = |count: usize| (0..count).map(|_| traffic.draw.log_normal(1.0, deviation)).collect();
        let (primary, canary) = (multiples(19), multiples(canary_pods));
        (traffic.primary.pods, traffic.canary.pods, traffic.reports_pods) = (primary, canary, reports_pods);
        traffic
    };
    let off = rolled_back(&watched(runs, &shipped(), |seed| world(seed, false)));
    let on = watched(runs, &shipped(), |seed| world(seed, true));
    let what = format!("{canary_pods} canary pods of {}, log-sd {deviation} of errors", 19 + canary_pods);
    let more = format!(", suspected {}", suspected(&on).hits);
    Remedied { more, ..Remedied::new(what, off, rolled_back(&on)) }
}

/// The canary's first request of each worker pays for a connection.
pub fn cold_pools(runs: u64) -> Remedied {
    let world = |seed: u64, pays: bool| {
        let same = || Answers::taking(0.001, LAW);
        let mut traffic = Traffic::new(seed, RPS, same(), same());
        let mut warm = vec![false; WORKERS as usize];
        let mut draw = Draw::new(!seed);
        move |share: f64, end: Timestamp| -> Batch {
            let mut batch = traffic.window(share, end);
            let latencies: Vec<f64> = (0..batch.judged.canary.finished)
                .map(|_| {
                    let latency = LAW.draw(&mut traffic.draw);
                    let cold =
                        warm.get_mut(draw.below(WORKERS) as usize).is_some_and(|warm| !std::mem::replace(warm, true));
                    if cold && pays { latency + draw.log_normal(30_000.0, 0.3) } else { latency }
                })
                .collect();
            batch.judged.canary = with_latency(batch.judged.canary, latencies.into_iter());
            batch
        }
    };
    let off = rolled_back(&watched(runs, &shipped(), |seed| world(seed, true)));
    let on = rolled_back(&watched(runs, &shipped(), |seed| world(seed, false)));
    Remedied::new("10,000 workers, cold pools to the canary: + 30 ms (σ 0.3) on each one's first request", off, on)
}

/// A canary makes ten times as many errors in its first ten seconds.
pub fn cold_start(runs: u64) -> Remedied {
    let world = |seed: u64| {
        let mut traffic = Traffic::new(seed, RPS, Answers::failing(0.01), Answers::failing(0.1));
        let mut began = None;
        move |share: f64, end: Timestamp| -> Batch {
            let batch = traffic.window(share, end);
            if batch.judged.canary.started > 0 && end.since(*began.get_or_insert(end)) >= Span::from_secs(10) {
                traffic.canary.errors = 0.01;
            }
            batch
        }
    };
    let off = rolled_back(&watched(runs, &JudgeConfig { warmup: Span::ZERO, ..shipped() }, world));
    let on = rolled_back(&watched(runs, &shipped(), world));
    Remedied::new("errors 1 %, and 10 % in the canary's first 10 s", off, on)
}

/// The matched users of an A/B test have twice the errors of the others.
pub fn matched_users(runs: u64) -> Remedied {
    let world = |seed| Traffic::new(seed, RPS, Answers::failing(0.01), Answers::failing(0.02));
    let off = rolled_back(&watched(runs, &shipped(), world));
    let absolute = JudgeConfig { comparison: Comparison::Absolute, ..shipped() };
    let on = rolled_back(&watched(runs, &absolute, world));
    Remedied::new("A/B: matched users have 2 % errors, the others 1 %; remedy: absolute limits", off, on)
}
