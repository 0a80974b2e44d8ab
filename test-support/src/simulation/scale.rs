//! Many proxies instead of one, and one among them that lies.

use std::ops::Range;

use wingbeat_core::analysis::window::WINDOW;
use wingbeat_core::time::Span;
use wingbeat_core::verdict::Verdict;

use crate::simulation::fleet::{Fleet, Forgery};
use crate::simulation::line::{Line, Row, Tally, each, quantile};
use crate::simulation::rollout::{Rollout, WARMUP, shipped};
use crate::simulation::traffic::{Answers, Law};

const NAME: &str = "judge-scale";

const RPS: f64 = 1_000.0;

/// So much longer may many proxies take than one, or a tick and two windows more: verdicts come at the end of windows, and
/// the tests that compare rates take complete reports.
const LONGER: f64 = 1.5;

/// What takes longer is not waited for.
const LONGEST: Span = Span::from_secs(120);

/// Nodes of which one lies.
const NODES: u64 = 50;

const LAW: Law = Law::of(20_000.0);

/// The table.
pub const ROWS: &[Row] = &[
    |effort| {
        [0.05, 0.1, 1.0].iter().flat_map(|rate| fleets(effort.of(400).max(200), *rate, &[1_000, 10_000])).collect()
    },
    |effort| {
        let rows = [(1_000, 0.01), (10_000, 0.01), (10_000, 0.05), (10_000, 0.2)];
        rows.map(|(workers, rate)| healthy(effort.of(300), workers, rate)).into()
    },
    |effort| {
        let forgeries = [
            Forgery::CanaryFails,
            Forgery::CanarySlow,
            Forgery::PrimaryPerfect,
            Forgery::CanaryPerfect,
            Forgery::PrimaryFails,
        ];
        forgeries.map(|forgery| accused(0..effort.of(100), forgery)).into()
    },
    |effort| {
        let rows = [
            (Forgery::CanaryPerfect, 1.0),
            (Forgery::CanaryPerfect, 0.1),
            (Forgery::PrimaryFails, 1.0),
            (Forgery::PrimaryFails, 0.1),
        ];
        rows.map(|(forgery, rate)| hidden(effort.of(100), forgery, rate)).into()
    },
];

/// A rollout that has warmed up, and its canary in the world's hands.
fn warm(fleet: Fleet) -> Rollout<Fleet> {
    let mut rollout = Rollout::new(fleet, shipped());
    rollout.step(5);
    rollout.last(WARMUP);
    rollout
}

/// Returns how long it takes until a canary that begins to fail is rolled back, in milliseconds.
fn found(runs: u64, fleet: impl Fn(u64) -> Fleet + Sync, rate: f64) -> Vec<u64> {
    each(runs, |seed| {
        let mut rollout = warm(fleet(seed));
        rollout.world.canary.errors = rate;
        rollout.until_rolled_back(LONGEST).map_or(LONGEST, |(span, _)| span).as_millis()
    })
}

/// The time to a verdict with many workers, beside that with one.
pub fn fleets(runs: u64, rate: f64, workers: &[u64]) -> Vec<Line> {
    let fleet =
        |workers: u64| move |seed| Fleet::new(seed, workers, RPS, Answers::failing(0.01), Answers::failing(0.01));
    let seconds = |workers: u64| {
        let mut taken = found(runs, fleet(workers), rate);
        let mean = taken.iter().sum::<u64>() as f64 / 1e3 / runs as f64;
        let [median, late] = [0.5, 0.9].map(|share| quantile(&mut taken, share) as f64 / 1e3);
        (mean, format!("mean {mean:.2} s, median {median:.1} s, p90 {late:.1} s"))
    };
    let (one, of_one) = seconds(1);
    let line = |workers: &u64| {
        let (mean, many) = seconds(*workers);
        let what = format!("{workers} workers, errors 1 → {} %, {RPS} rps", 100.0 * rate);
        let figure = format!("{many}; one worker {of_one}; {:.2} ×", mean / one);
        let most = (LONGER * one).max(one + Fleet::tick(*workers).plus(WINDOW.times(2)).as_secs_f64());
        Line::new(NAME, what, figure, format!("mean ≤ {most:.2} s"), mean <= most)
    };
    workers.iter().map(line).collect()
}

/// Healthy canaries behind many workers: errors are reported at once, everything else by the tick.
pub fn healthy(runs: u64, workers: u64, rate: f64) -> Line {
    let rolled_back = each(runs, |seed| {
        let fleet = Fleet::new(seed, workers, RPS, Answers::failing(rate), Answers::failing(rate));
        let mut rollout = Rollout::new(fleet, shipped());
        for weight in [5, 10, 20, 30, 40, 50] {
            rollout.step(weight);
            rollout.last(Span::from_secs(20));
            if rollout.is_rolled_back() {
                return true;
            }
        }
        false
    });
    let tally = Tally::of(&rolled_back);
    let most = (0.002 * runs as f64).ceil() as u64;
    let what = format!("{workers} workers, healthy at {} % errors, six steps of 20 s", 100.0 * rate);
    Line::new(NAME, what, tally.to_string(), format!("≤ {most}"), tally.hits <= most)
}

/// One node of fifty makes a healthy canary look bad.
pub fn accused(seeds: Range<u64>, forgery: Forgery) -> Line {
    let runs = seeds.end - seeds.start;
    let latency = (forgery == Forgery::CanarySlow).then_some(LAW);
    let same = || Answers { latency, ..Answers::failing(0.01) };
    let ends = each(runs, |number| {
        let fleet = Fleet::new(seeds.start + number, NODES, RPS, same(), same());
        let mut rollout = warm(fleet.with_forger(forgery));
        rollout.last(Span::from_secs(30));
        rollout.assess().verdict
    });
    let count = |wanted: fn(&Verdict) -> bool| ends.iter().filter(|verdict| wanted(verdict)).count();
    let bad = count(|verdict| matches!(verdict, Verdict::Rollback(_)));
    let held = count(|verdict| matches!(verdict, Verdict::Continue(_) | Verdict::NoData(_)));
    let what = format!("one forger of {NODES} ({}), healthy canary, 30 s after its warm-up", told(forgery));
    let figure = format!("rolled back {bad} of {runs}, held {held}, may advance {}", runs as usize - bad - held);
    Line::new(NAME, what, figure, "rolled back 0", bad == 0)
}

/// One node of fifty hides that a canary is bad.
pub fn hidden(runs: u64, forgery: Forgery, rate: f64) -> Line {
    let fleet = |seed| Fleet::new(seed, NODES, RPS, Answers::failing(0.01), Answers::failing(0.01));
    let mut open = found(runs, fleet, rate);
    let mut hidden = found(runs, |seed| fleet(seed).with_forger(forgery), rate);
    let late = hidden.iter().filter(|millis| **millis >= LONGEST.as_millis()).count();
    let [open, hidden] = [&mut open, &mut hidden].map(|taken| quantile(taken, 0.5) as f64 / 1e3);
    let what = format!("one forger of {NODES} ({}), errors 1 → {} %", told(forgery), 100.0 * rate);
    let figure =
        format!("rolled back {} of {runs}, median {hidden:.1} s; without it {open:.1} s", runs as usize - late);
    Line::new(NAME, what, figure, "all", late == 0)
}

const fn told(forgery: Forgery) -> &'static str {
    match forgery {
        Forgery::CanaryFails => "the canary fails",
        Forgery::CanarySlow => "the canary is slow",
        Forgery::PrimaryPerfect => "the primary is perfect",
        Forgery::CanaryPerfect => "the canary is perfect",
        Forgery::PrimaryFails => "the primary fails",
    }
}
