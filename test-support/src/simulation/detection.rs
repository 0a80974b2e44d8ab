//! How soon regressions are seen: the tables of the tests' reference (Lindon and Malek's test, generalised to exposures),
//! and the same with all that the product adds.

use wingbeat_core::analysis::closed_cohorts::Closed;
use wingbeat_core::analysis::latency::{Latency, LatencyConfig};
use wingbeat_core::analysis::sequential::{RatioTest, Split};
use wingbeat_core::analysis::window::WINDOW;
use wingbeat_core::time::{Span, Timestamp};

use crate::simulation::draw::Draw;
use crate::simulation::line::{Effort, Line, Row, each, quantile};
use crate::simulation::rollout::{Rollout, WARMUP, shipped};
use crate::simulation::traffic::{Answers, Law, Traffic, batch, counts, with_latency};

const NAME: &str = "judge-table";

/// Requests of the canary and of the primary in a batch of the reference, for errors and for latency.
const ERRORS: (u64, u64) = (10, 190);
const LATENCIES: (u64, u64) = (50, 950);

/// Figures may differ from the reference by this share, or by one batch of errors, or two of latencies: the reference
/// uses a threshold before ten requests lie above it, which ours waits for. Latencies may be sooner: our bins are finer.
const SLACK: f64 = 0.15;
const BATCHES: (u64, u64) = (1, 2);

/// What is not seen within so many canary requests is not waited for.
const MOST: u64 = 200_000;

const LAW: Law = Law::of(20_000.0);

/// The table.
pub const ROWS: &[Row] = &[
    |effort| {
        let reference = [
            (0.01, 0.012, 30_375),
            (0.01, 0.015, 5_410),
            (0.01, 0.02, 1_565),
            (0.01, 0.03, 470),
            (0.01, 0.05, 160),
            (0.01, 0.10, 60),
            (0.001, 0.002, 14_185),
            (0.001, 0.01, 480),
            (0.0001, 0.01, 290),
            (0.01, 1.0, 10),
        ];
        reference.map(|(primary, canary, expected)| errors(effort.of(2_000), &PLAIN, primary, canary, expected)).into()
    },
    |effort| {
        let reference = [
            (0.01, 0.02, 4_595),
            (0.01, 0.03, 1_075),
            (0.01, 0.05, 300),
            (0.01, 0.10, 90),
            (0.01, 0.25, 30),
            (0.01, 1.0, 10),
            (0.0001, 0.01, 420),
        ];
        reference
            .map(|(primary, canary, expected)| errors(effort.of(2_000), &SHIPPED, primary, canary, expected))
            .into()
    },
    |effort| {
        let reference = [
            (1.2, NO_TAIL, 0.0, 600),
            (1.2, NO_TAIL, 0.1, 3_300),
            (1.5, NO_TAIL, 0.1, 300),
            (2.0, NO_TAIL, 0.1, 100),
            (1.0, (0.02, 10.0), 0.1, 1_450),
            (1.0, (0.05, 10.0), 0.1, 250),
        ];
        let slower =
            |(times, tail, tolerance, expected)| slower(latency_runs(effort), times, tail, tolerance, expected);
        reference.map(slower).into()
    },
    |effort| {
        let reference = [
            (0.01, 3.0, 400),
            (0.01, 2.0, 1_035),
            (0.01, 1.5, 3_485),
            (0.01, 1.25, 13_655),
            (0.001, 3.0, 3_830),
            (0.001, 2.0, 9_905),
            (0.001, 1.5, 37_690),
        ];
        reference.map(|(rate, margin, expected)| safe(effort.of(2_000), rate, margin, expected)).into()
    },
    |effort| {
        let reference = [
            (0.9, 0.1, 1_800),
            (0.9, 0.25, 400),
            (0.9, 0.5, 200),
            (0.9, 1.0, 150),
            (0.99, 0.1, 5_500),
            (0.99, 0.25, 1_400),
            (0.99, 0.5, 750),
            (0.99, 1.0, 550),
        ];
        reference.map(|(q, tolerance, expected)| fast(latency_runs(effort), q, tolerance, expected)).into()
    },
    |effort| {
        let rates = [
            (0.01, 0.02),
            (0.01, 0.03),
            (0.01, 0.05),
            (0.01, 0.10),
            (0.01, 0.25),
            (0.01, 1.0),
            (0.001, 0.01),
            (0.0001, 0.01),
        ];
        let found = |(primary, canary)| {
            let what = format!("all defaults, errors {} → {} %", 100.0 * primary, 100.0 * canary);
            found(effort.of(1_000), what, &Answers::failing(primary), &Answers::failing(canary))
        };
        rates.map(found).into()
    },
    |effort| {
        let laws = [(1.5, NO_TAIL), (2.0, NO_TAIL), (3.0, NO_TAIL), (1.0, (0.02, 10.0)), (1.0, (0.05, 10.0))];
        let found = |(times, tail)| {
            let primary = Answers::taking(0.0, LAW);
            let law = Law { median_us: times * LAW.median_us, tail, ..LAW };
            let what = format!("all defaults, latency {}", told(times, tail));
            found(effort.of(200), what, &primary, &Answers::taking(0.0, law))
        };
        laws.map(found).into()
    },
];

/// The rarest requests decide: with fewer rollouts the median itself is not known to 15 %.
fn latency_runs(effort: Effort) -> u64 {
    effort.of(2_000).max(500)
}

/// All requests follow the same law.
pub const NO_TAIL: (f64, f64) = (0.0, 1.0);

/// A test of errors and when it decides.
#[derive(Debug)]
pub struct Bare {
    what: &'static str,
    tolerated: f64,
    /// The level: with copies, the e-value itself; without, 1 is half of it from the beginning.
    alpha: f64,
    restarts: bool,
}

/// The statistic of the reference alone.
pub const PLAIN: Bare = Bare { what: "no tolerance, α 0.01", tolerated: 1.0, alpha: 0.01, restarts: false };

/// With tolerance, level and copies as shipped.
pub const SHIPPED: Bare =
    Bare { what: "tolerance 1.25, α 0.001, copies", tolerated: 1.25, alpha: 0.001, restarts: true };

impl Bare {
    /// Returns the evidence that decides. A test of ours to which no time passes has one copy, of weight a half; the
    /// other half stays as it is.
    fn limit(&self) -> f64 {
        libm::log(if self.restarts { 1.0 / self.alpha } else { f64::midpoint(1.0 / self.alpha, 1.0) })
    }

    fn span(&self) -> Span {
        if self.restarts { WINDOW } else { Span::ZERO }
    }
}

/// Canary requests until the bare test of errors decides.
pub fn errors(runs: u64, bare: &Bare, primary: f64, canary: f64, expected: u64) -> Line {
    let (canary_each, primary_each) = ERRORS;
    let taken = each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let mut test = RatioTest::harm(bare.tolerated);
        until(canary_each, || {
            let canary_bad = draw.binomial(canary_each, canary);
            let primary_bad = draw.binomial(primary_each, primary);
            let split = Split { canary_bad, canary: canary_each, primary_bad, primary: primary_each };
            test.observe(split, bare.span());
            test.evidence() >= bare.limit()
        })
    });
    let what = format!("errors {} → {} %, {}", 100.0 * primary, 100.0 * canary, bare.what);
    compared(what, taken, expected, (canary_each, BATCHES.0))
}

/// Canary requests until the bare test of latency decides: an average over three quantiles.
pub fn slower(runs: u64, times: f64, tail: (f64, f64), tolerance: f64, expected: u64) -> Line {
    let (canary_each, primary_each) = LATENCIES;
    let slow = Law { median_us: times * LAW.median_us, tail, ..LAW };
    let config = LatencyConfig { tolerance, floor: Span::ZERO, ..LatencyConfig::default() };
    let taken = each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let mut test = known(&config, &mut draw);
        until(canary_each, || {
            observe_latency(&mut test, &mut draw, (LAW, primary_each), (slow, canary_each));
            test.harm() >= PLAIN.limit()
        })
    });
    let what = format!("latency {}, tolerance {} %, α 0.01", told(times, tail), 100.0 * tolerance);
    compared(what, taken, expected, (canary_each, BATCHES.1))
}

/// Canary requests until a canary like the primary is known not to fail `margin` times as often.
pub fn safe(runs: u64, rate: f64, margin: f64, expected: u64) -> Line {
    let (canary_each, primary_each) = ERRORS;
    let taken = each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let mut test = RatioTest::safety(margin);
        until(canary_each, || {
            let canary_bad = draw.binomial(canary_each, rate);
            let primary_bad = draw.binomial(primary_each, rate);
            let split = Split { canary_bad, canary: canary_each, primary_bad, primary: primary_each };
            test.observe(split, Span::ZERO);
            test.evidence() >= libm::log(20.0)
        })
    });
    compared(
        format!("safe below {margin} ×, errors {} %, α 0.05", 100.0 * rate),
        taken,
        expected,
        (canary_each, BATCHES.0),
    )
}

/// Canary requests until a canary like the primary is known not to be slower than tolerated at a quantile.
pub fn fast(runs: u64, q: f64, tolerance: f64, expected: u64) -> Line {
    let (canary_each, primary_each) = LATENCIES;
    let config = LatencyConfig { quantiles: vec![q], tolerance, floor: Span::ZERO };
    let taken = each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let mut test = known(&config, &mut draw);
        until(canary_each, || {
            observe_latency(&mut test, &mut draw, (LAW, primary_each), (LAW, canary_each));
            test.safety() >= libm::log(20.0)
        })
    });
    let what = format!("safe below + {} % at p{}, α 0.05", 100.0 * tolerance, 100.0 * q);
    compared(what, taken, expected, (canary_each, BATCHES.1))
}

/// Returns a test of latency that knows the primary by one batch.
fn known(config: &LatencyConfig, draw: &mut Draw) -> Latency {
    let mut test = Latency::new(config.clone());
    observe_latency(&mut test, draw, (LAW, LATENCIES.1), (LAW, 0));
    test
}

fn observe_latency(test: &mut Latency, draw: &mut Draw, primary: (Law, u64), canary: (Law, u64)) {
    let mut arm =
        |(law, requests): (Law, u64)| with_latency(counts(requests, 0), (0..requests).map(|_| law.draw(draw)));
    let mut batch = batch(Timestamp::EPOCH, arm(primary), arm(canary));
    batch.span = Span::ZERO;
    test.observe(&batch, &Closed::finished(&batch.judged), 2.0);
}

/// Counts canary requests until something is so.
fn until(each: u64, mut decided: impl FnMut() -> bool) -> u64 {
    let mut seen = each;
    while !decided() && seen < MOST {
        seen += each;
    }
    seen
}

fn compared(what: String, mut taken: Vec<u64>, expected: u64, (batch, batches): (u64, u64)) -> Line {
    let [median, late] = [0.5, 0.9].map(|share| quantile(&mut taken, share));
    let slack = ((expected as f64 * SLACK) as u64).max(batch * batches);
    let exact = batches == BATCHES.0;
    let bound = format!("{expected}{}{slack}", if exact { " ± " } else { " + " });
    let holds = median <= expected + slack && (!exact || median + slack >= expected);
    Line::new(NAME, what, format!("median {median}, p90 {late} canary requests"), bound, holds)
}

/// When a canary that begins to do harm after its warm-up is rolled back, with everything on.
fn found(runs: u64, what: String, primary: &Answers, canary: &Answers) -> Line {
    let taken = each(runs, |seed| {
        let healthy = Answers { errors: primary.errors, latency: primary.latency, ..canary.clone() };
        let mut rollout = Rollout::new(Traffic::new(seed, 1_000.0, primary.clone(), healthy), shipped());
        rollout.step(5);
        rollout.last(WARMUP);
        rollout.world.canary = canary.clone();
        rollout.until_rolled_back(Span::from_secs(MOST / 50))
    });
    let late = taken.iter().filter(|taken| taken.is_none()).count();
    let taken = taken.into_iter().map(|taken| taken.unwrap_or((Span::from_secs(MOST / 50), MOST)));
    let (mut millis, mut requests): (Vec<u64>, Vec<u64>) =
        taken.map(|(span, requests)| (span.as_millis(), requests)).unzip();
    let seconds = [0.5, 0.9, 0.95].map(|share| quantile(&mut millis, share) as f64 / 1e3);
    let [median, p90, p95] = seconds;
    let requests = quantile(&mut requests, 0.5);
    let never = if late > 0 { format!(", {late} not in {} s", MOST / 50) } else { String::new() };
    Line::shown(
        NAME,
        what,
        format!("median {median:.1} s ({requests} canary requests), p90 {p90:.1} s, p95 {p95:.1} s{never}"),
    )
}

fn told(times: f64, (share, longer): (f64, f64)) -> String {
    if share > 0.0 { format!("{} % of requests × {longer}", 100.0 * share) } else { format!("all × {times}") }
}
