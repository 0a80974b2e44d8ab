//! What a person reads: every verdict in words, from fixed traffic, and that its numbers show what it claims.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wingbeat_core::analysis::judge::{Comparison, Judge, JudgeConfig, Mode, Propagation};
use wingbeat_core::analysis::replay::{Line, Replay};
use wingbeat_core::analysis::window::{Arms, Batch, WINDOW, Windows};
use wingbeat_core::counts::{Counts, PodCounts};
use wingbeat_core::histogram::bin_of;
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::{Doubt, Verdict};
use wingbeat_core::weight::BasisPoints;
use wingbeat_test_support::reasons::supports_its_claim;

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
        self.said(&Propagation::Effective)
    }

    fn verdict(&self) -> Verdict {
        self.judge.assess(self.now, &Propagation::Effective).verdict
    }

    fn said(&self, propagation: &Propagation) -> String {
        let verdict = self.judge.assess(self.now, propagation).verdict;
        format!("{}: {}", verdict.as_str(), verdict.reason())
    }
}

fn after_health(canary: &Counts) -> String {
    Course::healthy(JudgeConfig::default()).until_rolled_back(canary)
}

/// While the canary warms up, the hard guard alone looks.
fn cold(canary: &Counts) -> String {
    let config = JudgeConfig { warmup: Span::from_secs(180), ..JudgeConfig::default() };
    Course::healthy(config).until_rolled_back(canary)
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
        ("errors in all", after_health(&counts(10, 10, Outcome::ServerFault))),
        ("guard", cold(&counts(10, 10, Outcome::ServerFault))),
        ("guard, refused connections", cold(&counts(10, 10, Outcome::ConnectFailure))),
        ("guard, stalls", after_health(&Counts { started: 10, stalled: 10, ..Counts::default() })),
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
    for (name, statuses) in [
        ("outcomes, gRPC", [(5, 4)].into()),
        ("outcomes, an unknown status of gRPC", [(17, 4)].into()),
        ("outcomes, several statuses of gRPC", [(3, 2), (5, 2)].into()),
    ] {
        let grpc = Counts { grpc_statuses: statuses, ..counts(10, 4, Outcome::ClientFault) };
        let mut course = Course::healthy(JudgeConfig::default());
        course.primary.grpc_statuses = [(5, 1)].into();
        told.push((name, course.until_rolled_back(&grpc)));
    }
    told.push(("attempts", after_health(&Counts { retried: 3, extra_attempts: 3, ..ok.clone() })));
    told.push(("disconnects", after_health(&counts(10, 2, Outcome::DisconnectMidResponse))));

    let slow = |requests: u64| taking(healthy(requests), requests / 95, (20_000, 60_000));
    let mut course = Course::new(JudgeConfig::default(), slow(190), &slow(10));
    told.push(("latency", course.until_rolled_back(&taking(ok.clone(), 2, (20_000, 400_000)))));

    let mut course = Course::new(JudgeConfig::default(), slow(190), &slow(10));
    let hanging = Counts { started: 10, overdue: 2, ..taking(counts(8, 0, Outcome::Success), 0, (20_000, 20_000)) };
    told.push(("latency, since some hang", course.until_rolled_back(&hanging)));

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
    told.push(("advance, without latencies", course.said(&Propagation::Effective)));
    let slow = |requests: u64, micros: u64| taking(healthy(requests), 0, (micros, micros));
    let course = Course::new(JudgeConfig::default(), slow(190, 1_000), &slow(10, 5_900));
    told.push(("advance, below the floor", course.said(&Propagation::Effective)));
    let course = Course::new(JudgeConfig::default(), slow(190, 20_000), &slow(10, 20_000));
    told.push(("advance", course.said(&Propagation::Effective)));
    let course = Course::healthy(JudgeConfig { comparison: Comparison::Absolute, ..JudgeConfig::default() });
    told.push(("advance, other users", course.said(&Propagation::Effective)));
    let mut course = Course::healthy(JudgeConfig { mode: Mode::Guard, ..JudgeConfig::default() });
    told.push(("other modes", course.said(&Propagation::Effective)));

    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    told.push(("no data, nothing", course.said(&Propagation::Effective)));
    course.windows(1, &Counts::default());
    told.push(("no data, primary only", course.said(&Propagation::Effective)));
    told.push(("no data, older routes", course.said(&Propagation::Pending { laggards: vec![NodeId::new("edge-1")] })));
    told.push(("no data, no rules", course.said(&Propagation::Unassigned { nodes: vec![NodeId::new("edge-1")] })));
    told.push(("no data, astray", course.said(&Propagation::Skewed { nodes: vec![NodeId::new("edge-1")] })));
    course.windows(5, &ok);
    told.push(("continue", course.said(&Propagation::Effective)));
    course.now = course.now.plus(Span::from_secs(500));
    told.push(("no data, stopped", course.said(&Propagation::Effective)));
    told.push((
        "no data, unheard",
        course.said(&Propagation::Unknown { since: course.now.minus(Span::from_secs(30)) }),
    ));
    let mut course = Course::healthy(JudgeConfig::default());
    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    course.primary = Counts::default();
    course.windows(3, &ok);
    told.push(("no data, canary only", course.said(&Propagation::Effective)));
    course.primary = counts(1, 0, Outcome::Success);
    course.judge = Judge::new(JudgeConfig::default());
    course.judge.step_started(BasisPoints::from_percent(5), course.now);
    for _ in 0..60 {
        course.now = course.now.plus(Span::from_secs(9));
        course.windows(1, &Counts::default());
    }
    course.windows(1, &counts(1, 0, Outcome::Success));
    told.push(("no data, too little", course.said(&Propagation::Effective)));

    let course = Course::healthy(JudgeConfig { warmup: Span::from_secs(180), ..JudgeConfig::default() });
    told.push(("warm-up", course.said(&Propagation::Effective)));
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
        if course.judge.assess(course.now, &Propagation::Effective).doubt == Some(Doubt::OnePod) {
            break;
        }
    }
    course.said(&Propagation::Effective)
}

fn one_of_three(first: &Counts, others: &Counts) -> String {
    let mut course = Course::healthy(JudgeConfig::default());
    for _ in 0..150 {
        course.now = course.now.plus(WINDOW);
        let (mut windows, name) = (Windows::new(), CanaryName::new("prod", "backend"));
        for node in 0..3 {
            let node_group = course.judge.node_group(&NodeId::new(format!("edge-{node}")), course.now);
            let at = course.now.minus(Span::from_millis(1));
            let canary = if node == 1 { first } else { others };
            windows.add(&name, node_group, Arm::Primary, Stratum::Judged, &healthy(190), at);
            windows.add(&name, node_group, Arm::Canary, Stratum::Judged, canary, at);
        }
        course.judge.observe(&windows.close(course.now).remove(0).1);
        if matches!(course.verdict(), Verdict::Rollback(_)) {
            break;
        }
    }
    course.said(&Propagation::Effective)
}

#[test]
fn every_verdict_in_words() {
    let told = signals().into_iter().chain(no_rollback());
    let text: Vec<String> = told.map(|(name, said)| format!("[{name}]\n{said}")).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

/// A stretch of windows: weight, errors of both arms in percent, share of slow, of hangs, and its length.
fn stretch() -> impl Strategy<Value = (u64, u64, u64, u64, u64, u64)> {
    (1_u64..90, 0_u64..60, 0_u64..100, 0_u64..60, 0_u64..30, 1_u64..200)
}

/// What can roll a canary back: what the reason then says, how it is judged, and what so many bad ones of so many requests
/// are.
struct Harm {
    says: &'static str,
    config: JudgeConfig,
    counts: fn(u64, u64) -> Counts,
}

fn harms() -> Vec<Harm> {
    let default = JudgeConfig::default;
    let cold = || JudgeConfig { warmup: Span::from_secs(3_600), ..default() };
    let absolute = || JudgeConfig { comparison: Comparison::Absolute, ..default() };
    let harm = |says, config, counts| Harm { says, config, counts };
    let failing: fn(u64, u64) -> Counts = |requests, bad| counts(requests, bad, Outcome::ServerFault);
    let refused: fn(u64, u64) -> Counts = |requests, bad| counts(requests, bad, Outcome::ConnectFailure);
    let slow: fn(u64, u64) -> Counts =
        |requests, bad| taking(counts(requests, 0, Outcome::Success), bad, (20_000, 90_000));
    vec![
        harm("the canary fails", default(), failing),
        harm("connections that were refused", default(), refused),
        harm("canary requests fail or hang", cold(), failing),
        harm("canary requests are refused a connection", cold(), refused),
        harm("canary requests have been waiting", default(), |requests, bad| Counts {
            started: requests,
            overdue: bad,
            ..counts(requests - bad, 0, Outcome::Success)
        }),
        harm("canary responses began and then stood still", default(), |requests, bad| Counts {
            started: requests,
            stalled: bad,
            ..counts(requests - bad, 0, Outcome::Success)
        }),
        harm("the canary is slower", default(), slow),
        harm("above the limit of", JudgeConfig { error_limit: Some(0.02), ..absolute() }, failing),
        harm("than the limit of", JudgeConfig { latency_limit: Some(Span::from_millis(50)), ..absolute() }, slow),
        harm("redirects (3xx)", default(), |requests, bad| counts(requests, bad, Outcome::Redirect)),
        harm("faults of the caller (4xx)", default(), |requests, bad| counts(requests, bad, Outcome::ClientFault)),
        harm("no body", default(), |requests, bad| Counts {
            sized: requests,
            empty: bad,
            ..counts(requests, 0, Outcome::Success)
        }),
        harm("gRPC status 5 (NOT_FOUND)", default(), |requests, bad| Counts {
            grpc_statuses: [(0, requests - bad), (5, bad)].into(),
            ..counts(requests, bad, Outcome::ClientFault)
        }),
        harm("need another attempt", default(), |requests, bad| Counts {
            retried: bad,
            extra_attempts: bad,
            ..counts(requests, 0, Outcome::Success)
        }),
        harm("clients leave the canary", default(), |requests, bad| {
            counts(requests, bad, Outcome::DisconnectMidResponse)
        }),
    ]
}

/// Every kind of harm, each after health that differs: its words come up, and whatever is said, the numbers show it.
#[test]
fn the_numbers_of_every_kind_of_reason_show_what_it_claims() {
    // Weight, windows of health, errors of the primary in percent, share of harm in percent.
    let history = (1_u64..90, 30_u64..300, 0_u64..4, 30_u64..=100);
    for Harm { says, config, counts } in harms() {
        let (mut runner, shown) = (
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) }),
            Cell::new(0_u32),
        );
        let tried = runner.run(&history, |(weight, windows, bad, share)| {
            let (others, own) = (200 - 2 * weight, 2 * weight);
            let mut primary = counts(others, 0);
            let failed = others * bad / 100;
            primary.outcomes[Outcome::Success.index()] -= failed;
            primary.outcomes[Outcome::ServerFault.index()] += failed;
            let mut course = Course::new(config.clone(), primary, &counts(own, 0));
            course.judge.step_started(BasisPoints::from_percent(u8::try_from(weight).unwrap()), course.now);
            course.windows(windows, &counts(own, 0));
            prop_assert!(!matches!(course.verdict(), Verdict::Rollback(_)), "{says}: before");
            // The hard guard alone looks for what is broken outright.
            let share = if config.warmup == Span::ZERO { share } else { share.max(90) };
            // So it does with requests that have not ended: more than ten times what fails at the primary.
            let share = if says == "canary requests have been waiting" { share.max(12 * bad) } else { share };
            let said = course.until_rolled_back(&counts(own, (own * share).div_ceil(100)));
            let Some(reason) = said.strip_prefix("rollback: ") else {
                return Err(TestCaseError::fail(format!("{says} is not found: {said}")));
            };
            prop_assert!(supports_its_claim(reason), "{reason}");
            shown.set(shown.get() + u32::from(reason.contains(says)));
            Ok(())
        });
        assert_eq!(tried, Ok(()), "{says}");
        assert!(shown.get() >= 12, "it is called by its name: {says}, in {} of 24", shown.get());
    }
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
                    prop_assert!(supports_its_claim(&reason), "{reason}");
                    return Ok(());
                }
            }
        }
    }
}
