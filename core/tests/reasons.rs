//! What a person reads: every verdict in words, from fixed traffic, and that its numbers show what it claims.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use wingbeat_core::analysis::judge::{Comparison, Flowing, Judge, JudgeConfig, Mode};
use wingbeat_core::analysis::replay::{Line, Replay};
use wingbeat_core::analysis::window::{Arms, Batch, WINDOW, Windows};
use wingbeat_core::counts::{Counts, PodCounts};
use wingbeat_core::histogram::bin_of;
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn counts(requests: u64, bad: u64, outcome: Outcome) -> Counts {
    let mut counts = Counts { started: requests, finished: requests, ..Counts::default() };
    counts.outcomes[Outcome::Success.index()] = requests - bad;
    counts.outcomes[outcome.index()] += bad;
    counts
}

fn healthy(requests: u64) -> Counts {
    counts(requests, requests / 95, Outcome::ServerFault)
}

fn taking(mut counts: Counts, slow: u64, (micros, slow_micros): (u64, u64)) -> Counts {
    counts.latency.add(bin_of(micros), counts.finished - slow);
    counts.latency.add(bin_of(slow_micros), slow);
    counts
}

/// A judge in the midst of a rollout: two seconds of the primary alone, then a minute of health at 5 %.
struct Course {
    judge: Judge,
    now: Timestamp,
    primary: Counts,
    overdue: Option<Span>,
}

impl Course {
    fn new(config: JudgeConfig, primary: Counts, canary: &Counts) -> Self {
        let mut course = Self { judge: Judge::new(config), now: START, primary, overdue: Some(Span::from_millis(400)) };
        course.windows(10, &Counts::default());
        course.judge.step_started(BasisPoints::from_percent(5), course.now);
        course.windows(300, canary);
        course
    }

    fn healthy(config: JudgeConfig) -> Self {
        Self::new(config, healthy(190), &counts(10, 0, Outcome::Success))
    }

    fn batch(&mut self, canary: &Counts) -> Batch {
        self.now = self.now.plus(WINDOW);
        let judged = Arms { primary: self.primary.clone(), canary: canary.clone() };
        Batch { end: self.now, span: WINDOW, overdue: self.overdue, judged, ..Batch::default() }
    }

    fn windows(&mut self, windows: u64, canary: &Counts) {
        for _ in 0..windows {
            let batch = self.batch(canary);
            self.judge.observe(&batch);
        }
    }

    /// Says what is said when it ends, or after a minute.
    fn until_rolled_back(&mut self, canary: &Counts) -> String {
        for _ in 0..300 {
            self.windows(1, canary);
            if matches!(self.verdict(), Verdict::Rollback(_)) {
                break;
            }
        }
        self.said(&Flowing::Yes)
    }

    fn verdict(&self) -> Verdict {
        self.judge.assess(self.now, &Flowing::Yes).verdict
    }

    fn said(&self, flowing: &Flowing) -> String {
        let verdict = self.judge.assess(self.now, flowing).verdict;
        format!("{}: {}", verdict.as_str(), verdict.reason())
    }
}

fn after_health(canary: &Counts) -> String {
    Course::healthy(JudgeConfig::default()).until_rolled_back(canary)
}

fn replayed(text: &str) -> String {
    let mut replay = Replay::new(JudgeConfig::default());
    let rows = text.lines().map(|line| replay.step(&serde_json::from_str::<Line>(line).unwrap()).unwrap());
    let rows: Vec<_> = rows.collect();
    let row = rows.iter().find(|row| row.verdict == "rollback").or_else(|| rows.last()).unwrap();
    format!("{}: {}", row.verdict, row.reason)
}

fn signals() -> Vec<(&'static str, String)> {
    let ok = counts(10, 0, Outcome::Success);
    let mut told = vec![
        ("errors", after_health(&counts(10, 1, Outcome::ServerFault))),
        ("errors, refused connections", after_health(&counts(10, 1, Outcome::ConnectFailure))),
        ("guard", after_health(&counts(10, 10, Outcome::ServerFault))),
        ("guard, refused connections", after_health(&counts(10, 10, Outcome::ConnectFailure))),
        ("hang", after_health(&Counts { started: 10, overdue: 10, ..Counts::default() })),
        ("late errors", replayed(include_str!("cases/reason-late-errors.jsonl"))),
        ("late latency", replayed(include_str!("cases/reason-late-latency.jsonl"))),
        ("worse at every moment, better in sum", replayed(include_str!("cases/reason-simpson.jsonl"))),
    ];
    for (name, outcome) in [("outcomes, redirects", Outcome::Redirect), ("outcomes, faults", Outcome::ClientFault)] {
        told.push((name, after_health(&counts(10, 2, outcome))));
    }
    let mut course = Course::healthy(JudgeConfig::default());
    course.primary.sized = 12;
    told.push(("outcomes, empty", course.until_rolled_back(&Counts { sized: 10, empty: 5, ..ok.clone() })));
    let grpc = Counts { grpc_statuses: [(5, 4)].into(), ..counts(10, 4, Outcome::ClientFault) };
    let mut course = Course::healthy(JudgeConfig::default());
    course.primary.grpc_statuses = [(5, 1)].into();
    told.push(("outcomes, gRPC", course.until_rolled_back(&grpc)));
    told.push(("attempts", after_health(&Counts { retried: 3, extra_attempts: 3, ..ok.clone() })));
    told.push(("disconnects", after_health(&counts(10, 2, Outcome::DisconnectMidResponse))));

    let slow = |requests: u64| taking(healthy(requests), requests / 95, (20_000, 60_000));
    let mut course = Course::new(JudgeConfig::default(), slow(190), &slow(10));
    told.push(("latency", course.until_rolled_back(&taking(ok.clone(), 2, (20_000, 400_000)))));

    let absolute = JudgeConfig { comparison: Comparison::Absolute, ..JudgeConfig::default() };
    let mut course = Course::healthy(JudgeConfig { error_limit: Some(0.05), ..absolute.clone() });
    told.push(("error limit", course.until_rolled_back(&counts(10, 2, Outcome::ServerFault))));
    let limit = Some(Span::from_millis(500));
    let mut course = Course::new(JudgeConfig { latency_limit: limit, ..absolute }, slow(190), &slow(10));
    told.push(("latency limit", course.until_rolled_back(&taking(ok.clone(), 1, (20_000, 700_000)))));
    for (name, primary) in
        [("limit of before", healthy(190)), ("limit of what must be detected", counts(190, 0, Outcome::Success))]
    {
        let mut course = Course::new(JudgeConfig::default(), primary, &ok);
        course.judge.step_started(BasisPoints::FULL, course.now);
        course.primary = Counts::default();
        told.push((name, course.until_rolled_back(&counts(200, 60, Outcome::ServerFault))));
    }
    told
}

fn no_rollback() -> Vec<(&'static str, String)> {
    let ok = counts(10, 0, Outcome::Success);
    let mut told = Vec::new();
    let course = Course::healthy(JudgeConfig::default());
    told.push(("advance, without latencies", course.said(&Flowing::Yes)));
    let slow = |requests: u64, micros: u64| taking(healthy(requests), 0, (micros, micros));
    let course = Course::new(JudgeConfig::default(), slow(190, 1_000), &slow(10, 5_900));
    told.push(("advance, below the floor", course.said(&Flowing::Yes)));
    let course = Course::new(JudgeConfig::default(), slow(190, 20_000), &slow(10, 20_000));
    told.push(("advance", course.said(&Flowing::Yes)));
    let course = Course::healthy(JudgeConfig { comparison: Comparison::Absolute, ..JudgeConfig::default() });
    told.push(("advance, other users", course.said(&Flowing::Yes)));
    let mut course = Course::healthy(JudgeConfig { mode: Mode::Guard, ..JudgeConfig::default() });
    told.push(("other modes", course.said(&Flowing::Yes)));

    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    told.push(("no data, nothing", course.said(&Flowing::Yes)));
    course.windows(1, &Counts::default());
    told.push(("no data, primary only", course.said(&Flowing::Yes)));
    told.push(("no data, older routes", course.said(&Flowing::No { laggards: vec![NodeId::new("edge-1")] })));
    told.push(("no data, astray", course.said(&Flowing::Astray { nodes: vec![NodeId::new("edge-1")] })));
    course.windows(5, &ok);
    told.push(("continue", course.said(&Flowing::Yes)));
    course.now = course.now.plus(Span::from_secs(500));
    told.push(("no data, stopped", course.said(&Flowing::Yes)));
    told.push(("no data, unheard", course.said(&Flowing::Unheard { since: course.now.minus(Span::from_secs(30)) })));
    let mut course = Course::healthy(JudgeConfig::default());
    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    course.primary = Counts::default();
    course.windows(3, &ok);
    told.push(("no data, canary only", course.said(&Flowing::Yes)));
    course.primary = counts(1, 0, Outcome::Success);
    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    for _ in 0..60 {
        course.now = course.now.plus(Span::from_secs(9));
        course.windows(1, &Counts::default());
    }
    course.windows(1, &counts(1, 0, Outcome::Success));
    told.push(("no data, too little", course.said(&Flowing::Yes)));

    let course = Course::healthy(JudgeConfig { warmup: Span::from_secs(180), ..JudgeConfig::default() });
    told.push(("warm-up", course.said(&Flowing::Yes)));
    let mut course = Course::healthy(JudgeConfig::default());
    course.primary = counts(190, 150, Outcome::ServerFault);
    told.push(("both arms", course.until_rolled_back(&counts(10, 8, Outcome::ServerFault))));
    let mut course = Course::healthy(JudgeConfig::default());
    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    course.primary = counts(190, 190, Outcome::ServerFault);
    told.push(("both arms from the start", course.until_rolled_back(&counts(10, 10, Outcome::ServerFault))));
    told.push(("suspect", suspect()));
    told.push(("rests on one node", one_of_three(&counts(10, 5, Outcome::ServerFault), &ok)));
    told.push((
        "hidden by one node",
        one_of_three(&counts(10_000, 0, Outcome::Success), &counts(10, 10, Outcome::ServerFault)),
    ));
    told
}

fn suspect() -> String {
    let mut course = Course::healthy(JudgeConfig::default());
    let pods = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), PodCounts::default())).collect();
    course.primary.pods = pods(&["a", "b", "c"]);
    let failing = Counts { pods: pods(&["x"]), ..counts(10, 1, Outcome::ServerFault) };
    for _ in 0..300 {
        course.windows(1, &failing);
        if course.judge.assess(course.now, &Flowing::Yes).suspect {
            break;
        }
    }
    course.said(&Flowing::Yes)
}

fn one_of_three(first: &Counts, others: &Counts) -> String {
    let mut course = Course::healthy(JudgeConfig::default());
    for _ in 0..150 {
        course.now = course.now.plus(WINDOW);
        let (mut windows, name) = (Windows::new(), CanaryName::new("prod", "backend"));
        for node in 0..3 {
            let seat = course.judge.seat(&NodeId::new(format!("edge-{node}")), course.now);
            let at = course.now.minus(Span::from_millis(1));
            let canary = if node == 1 { first } else { others };
            windows.add(&name, seat, Arm::Primary, Stratum::Judged, &healthy(190), at);
            windows.add(&name, seat, Arm::Canary, Stratum::Judged, canary, at);
        }
        course.judge.observe(&windows.close(course.now).remove(0).1);
        if matches!(course.verdict(), Verdict::Rollback(_)) {
            break;
        }
    }
    course.said(&Flowing::Yes)
}

#[test]
fn every_verdict_in_words() {
    let told = signals().into_iter().chain(no_rollback());
    let text: Vec<String> = told.map(|(name, said)| format!("[{name}]\n{said}")).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

/// Returns the numbers of a text, with their thousands put together.
fn numbers(text: &str) -> Vec<f64> {
    let text = text.replace("none of", "0 of");
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','));
    words.filter_map(|word| word.replace(',', "").trim_end_matches('.').parse().ok()).collect()
}

/// Returns the share of the canary's requests that a reason tells, and the primary's or the limit.
fn shares(reason: &str) -> (f64, f64) {
    let reason = reason.split_once("in the last ").map_or_else(
        || reason.to_owned(),
        |(before, after)| {
            let (_, after) = after.split_once(' ').unwrap();
            let (_, after) = after.split_once(' ').unwrap();
            format!("{before}{after}")
        },
    );
    if let Some(told) = reason.strip_prefix("hard guard: ") {
        let told = told.split_once("more than ").map_or_else(
            || told.to_owned(),
            |(before, after)| format!("{before}{}", after.split_once(", ").unwrap().1),
        );
        let numbers = numbers(&told);
        return (numbers[0] / numbers[1], numbers[2] / numbers[3].max(1.0));
    }
    let percents: Vec<f64> =
        reason.match_indices(" %").map(|(at, _)| *numbers(reason.split_at(at).0).last().unwrap()).collect();
    (percents[0], *percents.get(1).unwrap_or(&1.0))
}

#[test]
fn shares_are_read_as_they_are_written() {
    assert_eq!(
        shares("in the last 2 s the canary fails 30.0 % of 1,030 requests, the primary 1.0 % of 570"),
        (30.0, 1.0)
    );
    assert_eq!(shares("hard guard: 6 of 12 canary requests fail or hang, none of 2,495 at the primary"), (0.5, 0.0));
    assert_eq!(
        shares("hard guard: 6 of 12 canary requests have been waiting for more than 0.4 s, 1 of 10 at the primary"),
        (0.5, 0.1)
    );
}

/// Requests of a stretch of windows: weight, errors of both arms in percent, share of slow, of hangs, and its length.
fn stretch() -> impl Strategy<Value = (u64, u64, u64, u64, u64, u64)> {
    (1_u64..90, 0_u64..60, 0_u64..100, 0_u64..60, 0_u64..30, 1_u64..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_numbers_of_a_reason_show_what_it_claims(stretches in proptest::collection::vec(stretch(), 1..8)) {
        let mut course = Course::healthy(JudgeConfig::default());
        for (weight, primary_bad, canary_bad, slow, hung, windows) in stretches {
            course.judge.step_started(BasisPoints::from_percent(u8::try_from(weight).unwrap()), course.now);
            let arm = |requests: u64, bad: u64, slow: u64| {
                let counts = counts(requests, requests * bad / 100, Outcome::ServerFault);
                taking(counts, requests * slow / 100, (20_000, 90_000))
            };
            course.primary = arm(200 - 2 * weight, primary_bad, 5);
            let mut canary = arm(2 * weight, canary_bad, slow);
            canary.overdue = 2 * weight * hung / 100;
            canary.started += canary.overdue;
            for _ in 0..windows {
                course.windows(1, &canary);
                if let Verdict::Rollback(reason) = course.verdict() {
                    if reason.contains("which sums do not show") {
                        return Ok(());
                    }
                    let (canary, primary) = shares(&reason);
                    prop_assert!(canary > primary, "{canary} {primary}: {reason}");
                    return Ok(());
                }
            }
        }
    }
}
