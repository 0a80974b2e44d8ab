//! Large fleets whose canary's traffic grows: its errors are reported at once, the requests beside them by the tick.

use wingbeat_core::time::Span;

use crate::simulation::fleet::Fleet;
use crate::simulation::line::{Line, Row, Tally, each};
use crate::simulation::rollout::{Rollout, WARMUP, shipped};
use crate::simulation::traffic::Answers;

const NAME: &str = "judge-fleet";

/// The promise: so many rollouts of healthy canaries are rolled back.
const ALPHA: f64 = 0.001;

/// Workers that report every five seconds: the longest tick.
const WORKERS: u64 = 10_000;

/// Steps of the default plan take so long at this load.
const STEP: Span = Span::from_millis(1_200);

/// After the last change all workers report once more, and the judge sees it.
const AFTER: Span = Span::from_secs(7);

/// Reports of the primary are half a tick old at a thousand workers: a harm that one worker shows at once is seen so much later
/// at most. Others are seen after half as long again.
const LATER: Span = Span::from_millis(300);

/// What takes longer is not waited for.
const LONGEST: Span = Span::from_secs(120);

/// The table.
pub const ROWS: &[Row] = &[
    |effort| vec![growing(effort.of(1_000), &DEFAULT_PLAN), growing(effort.of(1_000), &ONE_STEP)],
    |effort| vec![loaded(effort.of(1_000))],
    |effort| FREQUENT.iter().map(|plan| growing(effort.of(300), plan)).collect(),
    |effort| [0.05, 0.1, 1.0].map(|rate| delayed(effort.of(400).max(200), rate)).into(),
];

/// A rollout of a healthy canary.
#[derive(Debug)]
pub struct Plan {
    workers: u64,
    rps: f64,
    errors: f64,
    /// Weights in percent after the warm-up at the first one.
    weights: &'static [u8],
    step: Span,
}

/// The default plan.
pub const DEFAULT_PLAN: Plan = Plan {
    workers: WORKERS,
    rps: 10_000.0,
    errors: 0.01,
    weights: &[5, 10, 15, 20, 25, 30, 35, 40, 45, 50],
    step: STEP,
};

/// Ten times the traffic at once.
pub const ONE_STEP: Plan = Plan { weights: &[5, 50], step: AFTER, ..DEFAULT_PLAN };

const FREQUENT: [Plan; 4] = [
    Plan { rps: 1_000.0, errors: 0.2, weights: &[5, 25, 50], step: Span::from_secs(3), ..DEFAULT_PLAN },
    Plan { rps: 1_000.0, errors: 0.05, weights: &[5, 25, 50], step: Span::from_secs(3), ..DEFAULT_PLAN },
    Plan { rps: 10_000.0, errors: 0.2, ..ONE_STEP },
    Plan { workers: 4_000, weights: &[1, 10, 50], step: Span::from_secs(3), ..DEFAULT_PLAN },
];

/// Healthy canaries whose weight rises.
pub fn growing(runs: u64, plan: &Plan) -> Line {
    let rolled_back = each(runs, |seed| {
        let same = || Answers::failing(plan.errors);
        let mut rollout = Rollout::new(Fleet::new(seed, plan.workers, plan.rps, same(), same()), shipped());
        for (place, weight) in plan.weights.iter().enumerate() {
            rollout.step(*weight);
            rollout.last(if place == 0 { WARMUP } else { plan.step });
        }
        rollout.last(AFTER);
        rollout.is_rolled_back()
    });
    let what = format!(
        "{} workers, {} rps, healthy at {} % errors, weights {:?} in steps of {}",
        plan.workers,
        plan.rps,
        100.0 * plan.errors,
        plan.weights,
        plan.step
    );
    at_most(what, Tally::of(&rolled_back))
}

/// Healthy canaries at a constant weight, where the load is ten times as high for two seconds.
pub fn loaded(runs: u64) -> Line {
    let rolled_back = each(runs, |seed| {
        let same = || Answers::failing(0.05);
        let mut rollout = Rollout::new(Fleet::new(seed, WORKERS, 1_000.0, same(), same()), shipped());
        rollout.step(5);
        rollout.last(WARMUP);
        rollout.world.rps *= 10.0;
        rollout.last(Span::from_secs(2));
        rollout.world.rps /= 10.0;
        rollout.last(AFTER);
        rollout.is_rolled_back()
    });
    let what = format!("{WORKERS} workers, healthy at 5 % errors, weight 5, 1000 rps and ten times as many for 2 s");
    at_most(what, Tally::of(&rolled_back))
}

/// What it costs that there are many workers: their ticks, complete reports, and nodes that are left out (P26).
pub fn delayed(runs: u64, rate: f64) -> Line {
    let mean = |workers: u64| {
        let taken = each(runs, |seed| {
            let fleet = Fleet::new(seed, workers, 1_000.0, Answers::failing(0.01), Answers::failing(0.01));
            let mut rollout = Rollout::new(fleet, shipped());
            rollout.step(5);
            rollout.last(WARMUP);
            rollout.world.canary.errors = rate;
            rollout.until_rolled_back(LONGEST).map_or(LONGEST, |(span, _)| span).as_millis()
        });
        Span::from_millis(taken.iter().sum::<u64>() / runs)
    };
    let (one, many) = (mean(1), mean(1_000));
    let what = format!("1000 workers, errors 1 → {} %, 1000 rps", 100.0 * rate);
    let figure = format!("mean {many}; one worker {one}");
    let most = Span::from_millis((one.as_millis() * 3 / 2).max(one.as_millis() + LATER.as_millis()));
    Line::new(NAME, what, figure, format!("≤ {most}"), many <= most)
}

fn at_most(what: String, tally: Tally) -> Line {
    let most = (ALPHA * tally.runs as f64).ceil() as u64;
    Line::new(NAME, what, format!("rolled back {tally}"), format!("≤ {most}"), tally.hits <= most)
}
