//! Bad canaries: how many are promoted all the same.

use wingbeat_core::analysis::judge::{JudgeConfig, MustDetect};
use wingbeat_core::time::Span;
use wingbeat_core::verdict::Verdict;

use crate::simulation::flight::{Flight, Known};
use crate::simulation::line::{Line, Row, Tally, each, quantile};
use crate::simulation::rollout::{Rollout, World, shipped};
use crate::simulation::traffic::{Answers, Law, Traffic};

const NAME: &str = "judge-missed";

/// So many bad canaries may be promoted.
const MISSED: f64 = 0.1;

/// And so many that get worse under load may be taken for safe at a weight.
const UNSAFE: f64 = 0.05;

/// What is not decided after so long is neither promoted nor rolled back.
const LONGEST: Span = Span::from_secs(6 * 3_600);

const LAW: Law = Law::of(20_000.0);

/// The table.
pub const ROWS: &[Row] = &[
    |effort| {
        let rows = [
            (1_000.0, 0.01, 0.02, 2.0),
            (1_000.0, 0.01, 0.03, 3.0),
            (1_000.0, 0.01, 0.05, 5.0),
            (100.0, 0.01, 0.03, 3.0),
            (100.0, 0.01, 0.05, 5.0),
            (10_000.0, 0.01, 0.02, 2.0),
            (10_000.0, 0.01, 0.05, 5.0),
            (1_000.0, 0.001, 0.01, 5.0),
            (1_000.0, 0.1, 0.3, 3.0),
        ];
        rows.map(|(rps, primary, canary, must)| failing(effort.of(1_000), rps, (primary, canary), must)).into()
    },
    |effort| [100.0, 1_000.0].map(|rps| slow(effort.of(300), rps)).into(),
    |effort| [100.0, 1_000.0].map(|rps| healthy(effort.of(300), rps)).into(),
    |effort| [0.03, 0.05, 0.1].map(|rate| under_load(effort.of(1_000), rate)).into(),
    |effort| [0.2, 1.0, 3.0].map(|median| censored(effort.of(500), median)).into(),
];

/// What became of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its canary serves, after so long.
    Promoted(Span),
    /// Its primary serves, after so long.
    RolledBack(Span),
    /// It was not waited for any longer.
    Undecided,
}

/// Steps from 5 to 50 %, each at least a second long.
pub fn roll_out<W: World>(rollout: &mut Rollout<W>) -> End {
    let began = rollout.now;
    for weight in (5..=50).step_by(5) {
        rollout.step(weight);
        let mut windows = 0_u64;
        loop {
            rollout.window();
            windows += 1;
            if !windows.is_multiple_of(5) {
                continue;
            }
            match rollout.assess().verdict {
                Verdict::Rollback(_) => return End::RolledBack(rollout.now.since(began)),
                Verdict::Advance(_) => break,
                Verdict::Continue(_) | Verdict::NoData(_) => {}
            }
            if rollout.now.since(began) > LONGEST {
                return End::Undecided;
            }
        }
    }
    End::Promoted(rollout.now.since(began))
}

fn promoted(ends: &[End]) -> Tally {
    Tally::of(&ends.iter().map(|end| matches!(end, End::Promoted(_))).collect::<Vec<_>>())
}

/// A canary that fails as often as must be seen, from its first request on.
pub fn failing(runs: u64, rps: f64, (primary, canary): (f64, f64), must: f64) -> Line {
    let must_detect = MustDetect { errors: must, ..JudgeConfig::default().must_detect };
    let config = JudgeConfig { must_detect, ..shipped() };
    let ends = each(runs, |seed| {
        let traffic = Traffic::new(seed, rps, Answers::failing(primary), Answers::failing(canary));
        roll_out(&mut Rollout::new(traffic, config.clone()))
    });
    let what = format!(
        "interval 1 s, 5 → 50 %, {rps} rps: errors {} → {} %, mustDetect {must}",
        100.0 * primary,
        100.0 * canary
    );
    at_most(what, promoted(&ends), MISSED)
}

/// A canary that is twice as slow.
pub fn slow(runs: u64, rps: f64) -> Line {
    let law = Law { median_us: 2.0 * LAW.median_us, ..LAW };
    let ends = each(runs, |seed| {
        let traffic = Traffic::new(seed, rps, Answers::taking(0.01, LAW), Answers::taking(0.01, law));
        roll_out(&mut Rollout::new(traffic, shipped()))
    });
    at_most(format!("interval 1 s, 5 → 50 %, {rps} rps: latency × 2"), promoted(&ends), MISSED)
}

/// And a healthy one: it is promoted.
pub fn healthy(runs: u64, rps: f64) -> Line {
    let ends = each(runs, |seed| {
        let same = || Answers::taking(0.01, LAW);
        roll_out(&mut Rollout::new(Traffic::new(seed, rps, same(), same()), shipped()))
    });
    let tally = promoted(&ends);
    let took = |end: &End| if let End::Promoted(span) = end { Some(span.as_millis() / 1_000) } else { None };
    let mut seconds: Vec<u64> = ends.iter().filter_map(took).collect();
    let [median, late] = [0.5, 0.9].map(|share| quantile(&mut seconds, share));
    let figure = format!("promoted {tally}, after {median} s in the median, {late} s at p90");
    Line::new(NAME, format!("interval 1 s, 5 → 50 %, {rps} rps: healthy"), figure, "99 %", tally.rate() >= 0.99)
}

/// Errors that begin when the canary has a quarter of the traffic, and steps that end early when they are safe.
pub fn under_load(runs: u64, rate: f64) -> Line {
    let early = each(runs, |seed| {
        let traffic = Traffic::new(seed, 1_000.0, Answers::failing(0.01), Answers::failing(0.01));
        let mut rollout = Rollout::new(traffic, JudgeConfig { early_promotion: true, ..shipped() });
        for weight in (5..=50).step_by(5) {
            if weight >= 25 {
                rollout.world.canary.errors = rate;
            }
            rollout.step(weight);
            let began = rollout.now;
            // A step that does not end early ends with its interval.
            while rollout.now.since(began) < Span::from_secs(120) {
                rollout.window();
                let assessment = rollout.assess();
                if matches!(assessment.verdict, Verdict::Rollback(_)) {
                    return false;
                }
                if matches!(assessment.verdict, Verdict::Advance(_)) && assessment.safe {
                    if weight >= 25 {
                        return true;
                    }
                    break;
                }
            }
        }
        false
    });
    let tally = Tally::of(&early);
    let what = format!("early promotion: errors 1 % below a weight of 25 %, {} % from there on", 100.0 * rate);
    // Whatever lies well beyond the margin of 2 ×.
    let bound = if rate >= 0.05 { 0.0 } else { UNSAFE };
    at_most(what, tally, bound)
}

/// A canary half as slow again, seen while the first of its requests are in flight.
pub fn censored(runs: u64, median: f64) -> Line {
    let config = JudgeConfig { early_promotion: true, warmup: Span::ZERO, ..shipped() };
    let law = Law::of(1e6 * median);
    let slower = Law { median_us: 1.5 * law.median_us, ..law };
    let safe = |canary: Law, known: Known| {
        Tally::of(&each(runs, |seed| {
            let flight = Flight::new(seed, 1_000.0, 0.05, (law, canary), known);
            let mut rollout = Rollout::new(flight, config.clone());
            rollout.step(5);
            let began = rollout.now;
            while rollout.now.since(began) < Span::from_secs(60) {
                rollout.window();
                if rollout.assess().safe {
                    return true;
                }
            }
            false
        }))
    };
    let closed = safe(slower, Known::Closed);
    let (finished, alike) = (safe(slower, Known::Finished), safe(law, Known::Closed));
    let what = format!("early promotion: latency × 1.5, median {median} s, taken for safe within 60 s");
    let mut line = at_most(what, closed, UNSAFE);
    line.figure = format!("{}; by what has finished {finished}; a canary that is as fast {alike}", line.figure);
    line.holds &= alike.rate() > 0.5;
    line
}

fn at_most(what: String, tally: Tally, share: f64) -> Line {
    let most = (share * tally.runs as f64) as u64;
    Line::new(NAME, what, tally.to_string(), format!("≤ {most}"), tally.hits <= most)
}
