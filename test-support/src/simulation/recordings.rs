//! Recorded cases: canaries that judges of averages and thresholds have let pass, and two that are healthy.
//!
//! Four are from the issues of Kayenta, whose judge (Mann and Whitney's test of a point a minute) passed them; their
//! points are those of the issues, each a second of 950 + 50 requests here. They are replayed as `wingbeat replay` does.
//! The others answer wrongly without an error in sight.

use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::replay::{self, LineArm, Replay};
use wingbeat_core::analysis::window::Batch;
use wingbeat_core::counts::Counts;
use wingbeat_core::outcome::Outcome;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;

use crate::simulation::draw::Draw;
use crate::simulation::line::{Line, Row, Tally, each};
use crate::simulation::rollout::{Rollout, WARMUP, World, shipped};
use crate::simulation::traffic::{Answers, Besides, Law, Traffic, batch, counts, with_latency};

const NAME: &str = "judge-recorded";

/// Requests of the primary and of the canary in a window.
const EACH: (u64, u64) = (190, 10);

/// And in a point of a recording, which is a second long.
const A_POINT: (u64, u64) = (950, 50);

/// So long the primary is seen alone, in points.
const ALONE: u64 = 10;

/// What is not flagged within this time is missed.
const LONGEST: Span = Span::from_secs(120);

/// Envoy tries again so often by Istio's defaults.
const RETRIES: i32 = 2;

/// The table.
pub const ROWS: &[Row] = &[
    |_| kayenta(),
    |_| other_answers(),
    |effort| vec![hidden_by_retries(effort.of(200)), another_zone(effort.of(200)), far_away(effort.of(200))],
];

/// Kayenta's four misjudgements.
pub fn kayenta() -> Vec<Line> {
    // Milliseconds of the canary, point by point, and of the primary.
    let seven_of_ten = [100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 1.0, 1.0, 1.0];
    let steady = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7];
    let wild = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0];
    let slower = "the canary is slower";
    vec![
        replayed("spinnaker#6278: 7 of 10 points at 100 ms, the primary at 1 ms", slower, |point| {
            (taking(A_POINT.0, 1.0), taking(A_POINT.1, at(&seven_of_ten, point)))
        }),
        replayed("kayenta#780: points from 1 to 106 ms, the primary from 10 to 18 ms", slower, |point| {
            (taking(A_POINT.0, at(&steady, point)), taking(A_POINT.1, at(&wild, point)))
        }),
        replayed("kayenta#633: latency + 650 %", slower, |point| {
            let before = at(&steady, point);
            (taking(A_POINT.0, before), taking(A_POINT.1, 7.5 * before))
        }),
        replayed("kayenta#633: errors + 650 %", "the canary fails", |point| {
            (failing(A_POINT.0, 4 + point % 2), failing(A_POINT.1, at(&[1, 2, 2, 2], point)))
        }),
        replayed("kayenta#426: errors 0, 1, 2, 1, 0, 0 and again, none at the primary", "the canary fails", |point| {
            (failing(A_POINT.0, 0), failing(A_POINT.1, at(&[0, 1, 2, 1, 0, 0], point)))
        }),
    ]
}

/// Canaries that answer everything, quickly, and with something else (P4).
pub fn other_answers() -> Vec<Line> {
    let all = |requests: u64, outcome: Outcome| {
        let mut counts = counts(requests, 0);
        for class in [Outcome::Success, outcome] {
            if let Some(held) = counts.outcomes.get_mut(class.index()) {
                *held = if class == outcome { requests } else { 0 };
            }
        }
        if outcome == Outcome::ServerFault {
            counts.cohorts.errors = requests;
        }
        counts
    };
    let of_grpc = |outcome: Outcome, status: u32| {
        let mut counts = all(EACH.1, outcome);
        counts.grpc_statuses.insert(status, EACH.1);
        counts
    };
    let mut empty = counts(EACH.1, 0);
    (empty.sized, empty.empty) = (EACH.1, EACH.1);
    let cases = [
        ("401 to everything", "faults of the caller (4xx)", all(EACH.1, Outcome::ClientFault)),
        ("404 to everything", "faults of the caller (4xx)", all(EACH.1, Outcome::ClientFault)),
        ("302 to everything", "redirects (3xx)", all(EACH.1, Outcome::Redirect)),
        ("gRPC 12 to everything", "hard guard", of_grpc(Outcome::ServerFault, 12)),
        ("gRPC 5 to everything", "", of_grpc(Outcome::ClientFault, 5)),
        ("200 without a body", "no body", empty),
    ];
    let flagged = |(what, reason, canary): (&str, &str, Counts)| {
        let world = move |share: f64, end: Timestamp| -> Batch {
            let mut primary = counts(EACH.0, 1);
            if canary.grpc_statuses.is_empty() {
                // One in sixteen has its body looked at, and one in a thousand of these has none.
                (primary.sized, primary.empty) = (12, u64::from(end.as_millis().is_multiple_of(16_000)));
            } else {
                primary.grpc_statuses.insert(0, EACH.0);
            }
            batch(end, primary, if share > 0.0 { canary.clone() } else { Counts::default() })
        };
        flagged(what, reason, Rollout::new(world, shipped()))
    };
    cases.into_iter().map(flagged).collect()
}

/// Three of ten attempts at the canary fail, and retries hide most of it (P5).
pub fn hidden_by_retries(runs: u64) -> Line {
    let attempt = 0.3_f64;
    let besides = Besides { retried: attempt, ..Besides::default() };
    let canary = Answers { besides, ..Answers::failing(attempt.powi(1 + RETRIES)) };
    let reasons = each(runs, |seed| {
        let mut rollout = Rollout::new(Traffic::new(seed, 1_000.0, Answers::failing(0.001), canary.clone()), shipped());
        rollout.step(5);
        rollout.until_rolled_back(LONGEST).map(|_| rollout.assess().verdict)
    });
    // Some are found by the few requests that fail all the same.
    let named = |verdict: &Option<Verdict>| {
        verdict.as_ref().is_some_and(|verdict| verdict.reason().starts_with("retries hide what the canary does"))
    };
    let of = |told: fn(&Option<Verdict>) -> bool| Tally::of(&reasons.iter().map(told).collect::<Vec<_>>());
    let (all, by_attempts) = (of(Option::is_some), of(named));
    let what = "30 % of attempts end with 503, two retries: 2.7 % of requests fail";
    let figure = format!("rolled back {all}, for its attempts {} of these", by_attempts.hits);
    Line::new(NAME, what, figure, "all, most for their attempts", all.hits == runs && 2 * by_attempts.hits > runs)
}

/// Every request to the canary takes 0.3 ms more, of 0.8 ms (P16).
pub fn another_zone(runs: u64) -> Line {
    let tally = rolled_back_when_later(runs, 800.0, 300.0);
    Line::new(NAME, "0.3 ms of another zone on 0.8 ms", rolled_back(tally), "rolled back 0", tally.hits == 0)
}

/// And what the tolerance and the floor do not excuse: 6 ms on 0.8 ms.
pub fn far_away(runs: u64) -> Line {
    let tally = rolled_back_when_later(runs, 800.0, 6_000.0);
    Line::new(NAME, "6 ms of another region on 0.8 ms", rolled_back(tally), "all", tally.hits == runs)
}

fn rolled_back_when_later(runs: u64, median_us: f64, later_us: f64) -> Tally {
    let law = Law { sigma: 0.3, ..Law::of(median_us) };
    let ends = each(runs, |seed| {
        let mut draw = Draw::new(seed);
        let world = move |share: f64, end: Timestamp| -> Batch {
            let mut arm = |requests: u64, more: f64| {
                with_latency(counts(requests, 0), (0..requests).map(|_| law.draw(&mut draw) + more))
            };
            batch(end, arm(EACH.0, 0.0), if share > 0.0 { arm(EACH.1, later_us) } else { Counts::default() })
        };
        let mut rollout = Rollout::new(world, shipped());
        rollout.step(5);
        rollout.until_rolled_back(LONGEST).is_some()
    });
    Tally::of(&ends)
}

fn rolled_back(tally: Tally) -> String {
    format!("rolled back {tally} in {} s", LONGEST.as_millis() / 1_000)
}

/// Watches until the canary is rolled back; the reason has to say what is wrong with it.
fn flagged<W: World>(what: &str, reason: &str, mut rollout: Rollout<W>) -> Line {
    rollout.step(5);
    let taken = rollout.until_rolled_back(WARMUP.plus(LONGEST)).map(|(span, _)| span.as_millis());
    told(what, reason, taken, &rollout.assess().verdict)
}

/// Replays points, of which the primary alone has the first.
fn replayed(what: &str, reason: &str, points: impl Fn(u64) -> (LineArm, LineArm)) -> Line {
    let mut replay = Replay::new(JudgeConfig::default());
    let last = LONGEST.as_millis() / 1_000;
    for point in 0..ALONE + last {
        let (primary, canary) = points(point);
        let alone = point < ALONE;
        let (weight, canary) = if alone { (0.0, LineArm::default()) } else { (5.0, canary) };
        let row = replay.step(&replay::Line { t_ms: (1 + point) * 1_000, weight, primary, canary, seen: None });
        let row = row.expect("the recording is whole");
        if row.verdict == "rollback" {
            return told(what, reason, Some((1 + point - ALONE) * 1_000), &Verdict::Rollback(row.reason));
        }
    }
    told(what, reason, None, &Verdict::Continue("nothing was found".to_owned()))
}

fn told(what: &str, reason: &str, taken: Option<u64>, verdict: &Verdict) -> Line {
    let said = verdict.reason();
    let figure = match taken {
        Some(millis) => format!("rolled back after {:.1} s: {said}", millis as f64 / 1e3),
        None => format!("{}: {said}", verdict.as_str()),
    };
    let bound = if reason.is_empty() { "rolled back".to_owned() } else { format!("rolled back: {reason}") };
    Line::new(NAME, what, figure, bound, taken.is_some() && said.contains(reason))
}

fn at<T: Copy + Default>(points: &[T], point: u64) -> T {
    points.get(point as usize % points.len()).copied().unwrap_or_default()
}

fn taking(requests: u64, millis: f64) -> LineArm {
    LineArm { requests, errors: 0, latency_us: vec![((millis * 1e3) as u64, requests)] }
}

fn failing(requests: u64, errors: u64) -> LineArm {
    LineArm { requests, errors, latency_us: Vec::new() }
}
