//! Faults that begin late: after 60,000 healthy canary requests.
//!
//! A plain e-process has fallen so low by then that a fault must first pay back what health took away: the reference
//! needs 550 canary requests for 1 → 20 %, and 2,650 for 1 → 5 %, beside 20 and 150 at the start. Copies that begin anew
//! owe nothing.

use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::sequential::{LimitTest, RatioTest, Split};
use wingbeat_core::analysis::window::WINDOW;
use wingbeat_core::time::Span;

use crate::simulation::draw::Draw;
use crate::simulation::line::{Line, Row, each, quantile};
use crate::simulation::past;
use crate::simulation::rollout::{Rollout, shipped};
use crate::simulation::traffic::{Answers, Traffic};

const NAME: &str = "judge-late";

/// Canary requests before the fault.
const HEALTHY: u64 = 60_000;

/// Requests of the canary and of the primary in a batch.
const EACH: (u64, u64) = (10, 190);

/// The primary's errors, and the canary's before.
const BASE: f64 = 0.01;

/// What is not seen within so many canary requests is not waited for.
const MOST: u64 = 20_000;

/// Of the reference: the canary's errors, and the median of canary requests with copies, at α 0.01 and without tolerance.
const REFERENCE: [(f64, u64); 2] = [(0.2, 60), (0.05, 480)];

/// The reference's price of α 0.001 instead of 0.01.
const STRICTER: f64 = 1.5;

/// And of tolerating a ratio of 1.25, by its tables of faults that begin at once (α 0.01): 250 instead of 160 canary
/// requests for 1 → 5 %. Of 1 → 20 % there is no such row; 1 → 10 % has 70 instead of 60.
const TOLERANT: [f64; 2] = [70.0 / 60.0, 250.0 / 160.0];

/// The table.
pub const ROWS: &[Row] = &[
    |effort| REFERENCE.map(|(rate, expected)| bare(effort.of(1_000), rate, expected)).into(),
    |effort| bounds().map(|(rate, most)| with_floor(effort.of(1_000), rate, most)).into(),
    |effort| bounds().map(|(rate, most)| everything(effort.of(300), rate, most)).into(),
    past::rows,
];

/// Returns what the shipped level and tolerance may take by the reference, rounded up to a batch.
fn bounds() -> [(f64, u64); 2] {
    let mut bounds = REFERENCE;
    for ((_, most), tolerant) in bounds.iter_mut().zip(TOLERANT) {
        *most = ((*most as f64 * STRICTER * tolerant) as u64).next_multiple_of(EACH.0);
    }
    bounds
}

/// The statistic of the reference: no tolerance, α 0.01, no floor.
pub fn bare(runs: u64, rate: f64, expected: u64) -> Line {
    let taken = tested(runs, rate, 1.0, None, 0.01);
    line(&format!("errors 1 → {} %, no tolerance, no floor, α 0.01, copies", 100.0 * rate), taken, expected)
}

/// The same as shipped, with its floor.
pub fn with_floor(runs: u64, rate: f64, most: u64) -> Line {
    let JudgeConfig { error_ratio, error_floor, alpha, .. } = JudgeConfig::default();
    let taken = tested(runs, rate, error_ratio, Some(error_floor), alpha);
    line(&format!("errors 1 → {} %, tolerance 1.25, floor 0.1 %, α 0.001, copies", 100.0 * rate), taken, most)
}

/// All defaults: α is shared with the other signals.
pub fn everything(runs: u64, rate: f64, most: u64) -> Line {
    let taken = each(runs, |seed| {
        let traffic = Traffic::new(seed, 1_000.0, Answers::failing(BASE), Answers::failing(BASE));
        let mut rollout = Rollout::new(traffic, shipped());
        rollout.step(5);
        while rollout.canary < HEALTHY {
            rollout.window();
        }
        rollout.world.canary.errors = rate;
        rollout.until_rolled_back(Span::from_secs(MOST / 50)).map_or(MOST, |(_, requests)| requests)
    });
    line(&format!("errors 1 → {} %, all defaults", 100.0 * rate), taken, most)
}

fn tested(runs: u64, rate: f64, tolerated: f64, floor: Option<f64>, alpha: f64) -> Vec<u64> {
    each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let mut ratio = RatioTest::harm(tolerated);
        let mut floor = floor.map(LimitTest::above);
        let mut seen = 0;
        while seen < HEALTHY + MOST {
            seen += EACH.0;
            let canary_bad = draw.binomial(EACH.0, if seen > HEALTHY { rate } else { BASE });
            let primary_bad = draw.binomial(EACH.1, BASE);
            ratio.observe(Split { canary_bad, canary: EACH.0, primary_bad, primary: EACH.1 }, WINDOW);
            if let Some(floor) = &mut floor {
                floor.observe(canary_bad, EACH.0, WINDOW);
            }
            let evidence = floor.as_ref().map_or(f64::INFINITY, LimitTest::evidence).min(ratio.evidence());
            if seen > HEALTHY && evidence >= -libm::log(alpha) {
                return seen - HEALTHY;
            }
        }
        MOST
    })
}

fn line(what: &str, mut taken: Vec<u64>, most: u64) -> Line {
    let [median, late] = [0.5, 0.9].map(|share| quantile(&mut taken, share));
    let what = format!("{what}, after {HEALTHY} healthy canary requests");
    let figure = format!("median {median}, p90 {late} canary requests");
    Line::new(NAME, what, figure, format!("median ≤ {most}"), median <= most)
}
