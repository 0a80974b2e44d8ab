//! Little traffic, none, and traffic that only looks like some.

use wingbeat_core::analysis::judge::{Judge, Propagation};
use wingbeat_core::analysis::propagation::PropagationTracker;
use wingbeat_core::analysis::sample_ratio::SampleRatios;
use wingbeat_core::analysis::window::{Arms, Batch, WINDOW};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{NodeId, Rev};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;

use crate::simulation::draw::Draw;
use crate::simulation::fleet::Fleet;
use crate::simulation::line::{Line, Row, Tally, each, quantile};
use crate::simulation::rollout::{Rollout, World, shipped};
use crate::simulation::traffic::{Answers, Traffic, batch, counts};

const NAME: &str = "judge-low-traffic";

/// The promise: so many rollouts of healthy canaries are rolled back.
const ALPHA: f64 = 0.001;

/// A canary that fails everything, half of a request a second: at this time it is found in the median.
const FOUND_WITHIN: Span = Span::from_secs(90);

/// What takes longer is not waited for.
const LONGEST: Span = Span::from_secs(3_600);

/// Requests of a load tester in a window: 20 a second.
const TESTED: u64 = 4;

/// Outages of everything that both arms need: so long, and so often by chance, in seconds.
const OUTAGES: [(f64, f64); 2] = [(3.0, 60.0), (120.0, 1_200.0)];

/// A sample-ratio test is wrong in at most this share of steps, as in the engine.
const RATIO_ALPHA: f64 = 1e-4;

/// The table.
pub const ROWS: &[Row] = &[
    |effort| vec![broken(effort.of(300)), broken_behind_a_worker(effort.of(100))],
    |effort| [0.01, 0.2, 0.5, 0.8].map(|rate| healthy(effort.of(1_000), rate)).into(),
    |effort| vec![healthy_behind_a_worker(effort.of(300))],
    |effort| OUTAGES.map(|outage| outages(effort.of(1_000), outage)).into(),
    |effort| vec![behind_a_load_tester(effort.of(300)), blamed_for_a_load_tester(effort.of(300))],
    |_| absent(),
    |_| vec![stuck_on_old_routes(), stuck_on_a_weight()],
];

/// One request a second, half of them to a canary that fails them all.
pub fn broken(runs: u64) -> Line {
    let world = |seed| Traffic::new(seed, 1.0, Answers::failing(0.01), Answers::failing(1.0));
    found("1 rps, weight 50: the canary fails everything".to_owned(), runs, world)
}

/// The same by the reports of a worker, which tells of errors at once, and of windows with requests only.
pub fn broken_behind_a_worker(runs: u64) -> Line {
    let world = |seed| Fleet::new(seed, 1, 1.0, Answers::failing(0.01), Answers::failing(1.0));
    found("1 rps, weight 50, by the reports of one worker: the canary fails everything".to_owned(), runs, world)
}

/// One request a second, half of them to a canary like the primary, for an hour.
pub fn healthy(runs: u64, rate: f64) -> Line {
    let world = |seed| Traffic::new(seed, 1.0, Answers::failing(rate), Answers::failing(rate));
    let what = format!("1 rps, weight 50, healthy at {} % errors, for an hour", 100.0 * rate);
    not_blamed(what, runs, LONGEST, world)
}

/// The same by the reports of a worker.
pub fn healthy_behind_a_worker(runs: u64) -> Line {
    let world = |seed| {
        let rate = [0.01, 0.1, 0.5].get(seed as usize % 3).copied().unwrap_or_default();
        Fleet::new(seed, 1, 1.0, Answers::failing(rate), Answers::failing(rate))
    };
    let what = "1 rps, weight 50, by the reports of one worker, healthy at 1, 10 and 50 % errors, for 10 minutes";
    not_blamed(what.to_owned(), runs, Span::from_secs(600), world)
}

/// Now and then everything fails at both arms for some seconds: what waits for the other arm may have failed in other
/// circumstances.
pub fn outages(runs: u64, (length, every): (f64, f64)) -> Line {
    let world = |seed: u64| {
        let mut traffic = Traffic::new(seed, 1.0, Answers::failing(0.01), Answers::failing(0.01));
        let mut draw = Draw::new(!seed);
        let mut out_until = Timestamp::EPOCH;
        move |share: f64, end: Timestamp| -> Batch {
            if draw.share() < WINDOW.as_secs_f64() / every {
                out_until = end.plus(Span::from_millis((1e3 * length) as u64));
            }
            let rate = if end <= out_until { 1.0 } else { 0.01 };
            (traffic.primary.errors, traffic.canary.errors) = (rate, rate);
            traffic.window(share, end)
        }
    };
    let what = format!("1 rps, weight 50, healthy, and both arms out for {length} s once in {every} s");
    not_blamed(what, runs, LONGEST, world)
}

/// A load tester calls the canary by its own name, and all is well there; who comes by the judged host gets errors (P7).
pub fn behind_a_load_tester(runs: u64) -> Line {
    let world = |seed| {
        let mut traffic = Traffic::new(seed, 1.0, Answers::failing(0.01), Answers::failing(1.0));
        move |share: f64, end: Timestamp| tested(traffic.window(share, end), 0)
    };
    found("1 rps, weight 50, a load tester at 20 rps: only the judged path is broken".to_owned(), runs, world)
}

/// The other way round: whatever the load tester gets is not compared.
pub fn blamed_for_a_load_tester(runs: u64) -> Line {
    let world = |seed| {
        let mut traffic = Traffic::new(seed, 1.0, Answers::failing(0.01), Answers::failing(0.01));
        move |share: f64, end: Timestamp| tested(traffic.window(share, end), TESTED)
    };
    let what = "1 rps, weight 50, healthy, a load tester at 20 rps gets nothing but errors, for 10 minutes";
    not_blamed(what.to_owned(), runs, Span::from_secs(600), world)
}

/// No traffic, traffic that stops, and a load tester alone: nothing goes on, and the reason is told.
pub fn absent() -> Vec<Line> {
    let nothing = |_: f64, end: Timestamp| batch(end, Counts::default(), Counts::default());
    let alone = |share: f64, end: Timestamp| {
        if share > 0.0 { tested(nothing(share, end), 0) } else { nothing(share, end) }
    };
    let stops = |share: f64, end: Timestamp| {
        let requests = if end < Timestamp::from_millis(1_040_000) { (190, 10) } else { (0, 0) };
        let canary = if share > 0.0 { requests.1 } else { 0 };
        batch(end, counts(requests.0, 0), counts(canary, 0))
    };
    vec![
        held("0 rps, for a minute", "no traffic at all in this step", nothing),
        held("a load tester at 20 rps and nobody else, for a minute", "called the canary by its own name", alone),
        held("1,000 rps that stop after 30 s, a minute after the step began", "traffic stopped", stops),
    ]
}

/// A proxy that goes on by its old routes is named.
pub fn stuck_on_old_routes() -> Line {
    let began = Timestamp::from_millis(1_000_000);
    let (old, current) = (Rev::new(1), Rev::new(2));
    let mut flow = PropagationTracker::new(old, began);
    let mut now = began;
    for window in 0..50 {
        now = now.plus(WINDOW);
        let rev = if window < 5 { old } else { current };
        for (node, rev) in [("edge-1", rev), ("edge-2", rev), ("edge-3", old)] {
            let counts = Counts { started: 20, rev, rev_started: 20, ..Counts::default() };
            flow.observe(&NodeId::new(node), &counts, WINDOW, now);
        }
        if window == 4 {
            flow.changed(current, now);
        }
    }
    said(
        "one proxy of three on old routes, 9 s after they changed",
        "still on older routes than weight 5 %: edge-3",
        &flow.assess(now),
        now,
    )
}

/// So is one that has the current routes and sends nobody to the canary.
pub fn stuck_on_a_weight() -> Line {
    let mut ratios = SampleRatios::new(BasisPoints::from_percent(5));
    let (mut draw, mut requests, mut now) = (Draw::new(1), 0, Timestamp::from_millis(1_000_000));
    let nodes = loop {
        now = now.plus(WINDOW);
        requests += 20;
        for (node, share) in [("edge-1", 0.05), ("edge-2", 0.05), ("edge-3", 0.0)] {
            let canary = draw.binomial(20, share);
            ratios.observe(&NodeId::new(node), canary, 20 - canary);
        }
        match ratios.skewed(RATIO_ALPHA) {
            Some(nodes) if !nodes.is_empty() => break nodes,
            Some(_) | None if requests >= 10_000 => break Vec::new(),
            Some(_) | None => {}
        }
    };
    let what = format!("one proxy of three that sends nobody to the canary, after {requests} of its requests");
    said(&what, "requests do not divide by weight 5 % at edge-3", &Propagation::Skewed { nodes }, now)
}

/// When a canary is rolled back that fails everything.
fn found<W: World>(what: String, runs: u64, world: impl Fn(u64) -> W + Sync) -> Line {
    let taken = each(runs, |seed| {
        let mut rollout = Rollout::new(world(seed), shipped());
        rollout.step(50);
        rollout.until_rolled_back(LONGEST)
    });
    let late = taken.iter().filter(|taken| taken.is_none()).count();
    let taken = taken.into_iter().map(|taken| taken.unwrap_or((LONGEST, 0)));
    let (mut millis, mut requests): (Vec<u64>, Vec<u64>) =
        taken.map(|(span, requests)| (span.as_millis(), requests)).unzip();
    let [median, p90] = [0.5, 0.9].map(|share| quantile(&mut millis, share));
    let requests = quantile(&mut requests, 0.5);
    let figure = format!(
        "rolled back {} of {runs}, median {:.1} s ({requests} canary requests), p90 {:.1} s",
        runs as usize - late,
        median as f64 / 1e3,
        p90 as f64 / 1e3,
    );
    let bound = format!("all, median ≤ {} s", FOUND_WITHIN.as_millis() / 1_000);
    Line::new(NAME, what, figure, bound, late == 0 && median <= FOUND_WITHIN.as_millis())
}

/// How many canaries are rolled back though nothing is wrong with them.
fn not_blamed<W: World>(what: String, runs: u64, span: Span, world: impl Fn(u64) -> W + Sync) -> Line {
    let ends = each(runs, |seed| {
        let mut rollout = Rollout::new(world(seed), shipped());
        rollout.step(50);
        rollout.last(span);
        rollout.is_rolled_back()
    });
    let tally = Tally::of(&ends);
    let most = (2.0 * ALPHA * runs as f64).ceil() as u64;
    Line::new(NAME, what, format!("rolled back {tally}"), format!("≤ {most}"), tally.hits <= most)
}

/// A minute at 5 %: nothing is decided, and why is told.
fn held(what: &str, reason: &str, world: impl FnMut(f64, Timestamp) -> Batch) -> Line {
    let mut rollout = Rollout::new(world, shipped());
    rollout.step(5);
    rollout.last(Span::from_secs(60));
    no_data(what, reason, &rollout.assess().verdict)
}

fn said(what: &str, reason: &str, propagation: &Propagation, now: Timestamp) -> Line {
    let mut judge = Judge::new(shipped());
    judge.step_started(BasisPoints::from_percent(5), now);
    no_data(what, reason, &judge.assess(now, propagation).verdict)
}

fn no_data(what: &str, reason: &str, verdict: &Verdict) -> Line {
    let figure = format!("{}: {}", verdict.as_str(), verdict.reason());
    let holds = matches!(verdict, Verdict::NoData(said) if said.contains(reason));
    Line::new(NAME, what, figure, format!("no-data: {reason}"), holds)
}

/// Adds what a load tester sends to the canary.
fn tested(batch: Batch, errors: u64) -> Batch {
    Batch { direct: Arms { canary: counts(TESTED, errors), ..Arms::default() }, ..batch }
}
