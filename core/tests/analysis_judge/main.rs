//! The judge in simulated rollouts: fixed seeds, drawn as counts, bounds computed.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and its counts are small"
)]

use core::num::NonZeroU32;

use wingbeat_core::analysis::guard;
use wingbeat_core::analysis::judge::{
    Comparison, Judge, JudgeConfig, Mode, MustDetect, NoticeSubject, Propagation, SinglePodPolicy,
};
use wingbeat_core::analysis::sequential::{RatioTest, Split};
use wingbeat_core::analysis::window::{Arms, Batch, Windows};
use wingbeat_core::counts::{Cohorts, Counts, PodCounts};
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::outcome::{Outcome, Stratum};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::{Doubt, Verdict};
use wingbeat_core::weight::BasisPoints;

mod states;

const TICK: Span = Span::from_millis(200);

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// By the gaps between successes, so that rare events cost little.
    fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p >= 1.0 {
            return n;
        }
        if p <= 0.0 {
            return 0;
        }
        let scale = 1.0 / libm::log1p(-p);
        let (mut at, mut hits) = (0.0, 0);
        loop {
            at += (libm::log(self.uniform().max(1e-300)) * scale).floor() + 1.0;
            if at > n as f64 {
                return hits;
            }
            hits += 1;
        }
    }

    /// Log-normal latencies in microseconds.
    fn latency(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v) = (self.uniform().max(1e-300), self.uniform());
        let normal = libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v);
        median * libm::exp(sigma * normal)
    }
}

fn counts(requests: u64, errors: u64) -> Counts {
    let mut outcomes = [0; 12];
    outcomes[Outcome::Success.index()] = requests - errors;
    outcomes[Outcome::ServerFault.index()] = errors;
    // Requests end in the batch in which they began: every cohort is closed.
    let cohorts = Cohorts { finished: requests, errors, ..Cohorts::default() };
    Counts { started: requests, finished: requests, outcomes, cohorts, ..Counts::default() }
}

fn batch(end: Timestamp, primary: Counts, canary: Counts) -> Batch {
    Batch { end, span: TICK, judged: Arms { primary, canary }, ..Batch::default() }
}

fn percent(share: u8) -> BasisPoints {
    BasisPoints::from_percent(share)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Traffic of both arms at fixed rates.
struct World {
    random: Random,
    now: Timestamp,
    rps: u64,
    weight: u64,
    primary: f64,
    canary: f64,
}

impl World {
    fn new(seed: u64, rps: u64, primary: f64, canary: f64) -> Self {
        Self { random: Random(seed), now: Timestamp::from_millis(1_000_000), rps, weight: 5, primary, canary }
    }

    fn tick(&mut self) -> Batch {
        self.now = self.now.plus(TICK);
        let requests = self.rps / 5;
        let canary = self.random.binomial(requests, self.weight as f64 / 100.0);
        let primary = requests - canary;
        let primary_bad = self.random.binomial(primary, self.primary);
        let canary_bad = self.random.binomial(canary, self.canary);
        batch(self.now, counts(primary, primary_bad), counts(canary, canary_bad))
    }
}

/// Median canary requests until a bare test reaches `limit`, in batches of `canary` + `primary`.
fn requests_until(test: &RatioTest, limit: f64, (canary, primary): (u64, u64), rates: (f64, f64)) -> u64 {
    median(
        (0..200)
            .map(|seed| {
                let mut random = Random(seed * 7_919 + 1);
                let mut test = test.clone();
                let mut seen = 0;
                while test.evidence() < limit {
                    test.observe(
                        Split {
                            canary_bad: random.binomial(canary, rates.1),
                            canary,
                            primary_bad: random.binomial(primary, rates.0),
                            primary,
                        },
                        Span::from_millis(20 * canary),
                    );
                    seen += canary;
                }
                seen
            })
            .collect(),
    )
}

#[test]
fn detection_takes_what_the_reference_table_says() {
    let limit = libm::log(1_000.0);
    for (canary_rate, expected) in [(0.02, 4_595), (0.03, 1_075), (0.05, 300), (0.10, 90), (0.25, 30)] {
        let taken = requests_until(&RatioTest::harm(1.25), limit, (10, 190), (0.01, canary_rate));
        let slack = expected * 15 / 100 + 10;
        assert!(taken.abs_diff(expected) <= slack, "1 % to {canary_rate}: {taken}, the table says {expected}");
    }
}

#[test]
fn the_guard_is_as_fast_as_promised() {
    let limit = libm::log(4_000.0);
    for (primary_rate, promised) in [(0.0, 10), (0.01, 17), (0.05, 92)] {
        let taken = requests_until(&RatioTest::harm(guard::RATIO), limit, (1, 19), (primary_rate, 1.0));
        assert!(taken <= promised, "{primary_rate}: {taken}, promised {promised}");
    }
}

#[test]
fn a_broken_canary_is_found_within_ten_requests() {
    let mut world = World::new(1, 1_000, 0.01, 1.0);
    let mut judge = Judge::new(JudgeConfig::default());
    judge.step_started(percent(5), world.now);
    let mut seen = 0;
    loop {
        let batch = world.tick();
        seen += batch.judged.canary.finished;
        judge.observe(&batch);
        if let Verdict::Rollback(reason) = judge.assess(world.now, &Propagation::Effective).verdict {
            assert!(reason.contains("canary"), "{reason}");
            break;
        }
        assert!(seen < 40);
    }
    assert!(seen <= 20, "{seen}");
}

/// At 50 % of 50 requests a second, a ratio of 10 alone takes a hundred failures.
#[test]
fn a_broken_canary_is_found_as_soon_at_any_weight() {
    for (mode, primary) in [Mode::Sequential, Mode::Guard].into_iter().flat_map(|mode| [(mode, 0.0), (mode, 0.01)]) {
        for weight in [5, 10, 25, 50, 75] {
            let millis = median((0..40).map(|seed| broken_at(seed, weight, mode, primary)).collect());
            println!("{mode:?}, {primary} at the primary, weight {weight}: {millis} ms");
            // At 5 % it has two and a half requests a second.
            let most = if weight >= 25 { 2_000 } else { 8_000 };
            assert!(millis <= most, "{mode:?} {primary} {weight}: {millis}");
        }
    }
}

/// Milliseconds until a canary is rolled back that fails everything from its first request on, in warm-up.
fn broken_at(seed: u64, weight: u8, mode: Mode, primary: f64) -> u64 {
    let mut random = Random(seed);
    let mut judge = Judge::new(JudgeConfig {
        mode,
        warmup: Span::from_secs(15),
        attempt: NonZeroU32::new(1),
        ..JudgeConfig::default()
    });
    let start = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(weight), start);
    for number in 1..=300 {
        let now = start.plus(TICK.times(number));
        let canary = random.binomial(10, f64::from(weight) / 100.0);
        let bad = random.binomial(10 - canary, primary);
        judge.observe(&batch(now, counts(10 - canary, bad), counts(canary, canary)));
        if matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::Rollback(_)) {
            return now.since(start).as_millis();
        }
    }
    u64::MAX
}

/// The mean of the guard's evidence over all outcomes of a batch, where the canary is as the primary, and where it fails
/// half of its requests at most.
#[test]
fn the_guard_stays_below_one_on_average() {
    for (requests, primary) in [(6_u64, 6_u64), (2, 8), (8, 2)] {
        for rate in [0.01, 0.2, 0.5, 0.8] {
            let chance = |n: u64, k: u64| {
                let ways = (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64);
                ways * libm::pow(rate, k as f64) * libm::pow(1.0 - rate, (n - k) as f64)
            };
            let mut mean = 0.0;
            for x in 0..=requests {
                for y in 0..=primary {
                    let mut judge = Judge::new(JudgeConfig { mode: Mode::Guard, ..JudgeConfig::default() });
                    judge.step_started(percent(50), Timestamp::from_millis(1_000_000));
                    judge.observe(&batch(Timestamp::from_millis(1_000_200), counts(primary, y), counts(requests, x)));
                    // Its share of α is in it.
                    mean += chance(requests, x) * chance(primary, y) * libm::exp(judge.evidence().errors.harm) / 0.25;
                }
            }
            assert!(mean <= 1.0 + 1e-9, "{requests} {primary} {rate}: {mean}");
        }
    }
}

/// Median and 95 % quantile of the time to a verdict in 200 runs of the demo's scene, in milliseconds: 1,000 rps, 5 % of
/// them at the canary, which fails more often after two healthy seconds, in a rollout's first attempt.
fn time_to_verdict(primary: f64, canary: f64) -> [u64; 2] {
    let run = |seed| {
        let mut world = World::new(seed, 1_000, primary, primary);
        let mut judge = Judge::new(JudgeConfig { attempt: NonZeroU32::new(1), ..JudgeConfig::default() });
        judge.step_started(percent(5), world.now);
        for _ in 0..10 {
            judge.observe(&world.tick());
        }
        world.canary = canary;
        let start = world.now;
        loop {
            judge.observe(&world.tick());
            if matches!(judge.assess(world.now, &Propagation::Effective).verdict, Verdict::Rollback(_)) {
                return world.now.since(start).as_millis();
            }
        }
    };
    let mut millis: Vec<u64> = (0..200).map(run).collect();
    millis.sort_unstable();
    [millis[100], millis[190]]
}

/// `cargo xtask prove` holds real runs against these quantiles, and half a second.
#[test]
fn with_all_defaults_on_regressions_are_found_as_fast_as_promised() {
    for (canary, promised) in [(0.05, [10_000, 17_400]), (0.25, [1_300, 2_400])] {
        let [median, late] = time_to_verdict(0.01, canary);
        println!("0.01 -> {canary} with all defaults on: median {median} ms, 95 % quantile {late} ms");
        assert!(median <= promised[0] && late <= promised[1], "{median} {late} ms");
    }
}

#[test]
fn a_healthy_canary_is_not_rolled_back_in_three_hundred_rollouts() {
    for seed in 0..300 {
        let rate = [0.001, 0.01, 0.05, 0.2][usize::try_from(seed % 4).unwrap()];
        let mut world = World::new(seed, 1_000, rate, rate);
        let mut judge = Judge::new(JudgeConfig::default());
        judge.step_started(percent(5), world.now);
        for _ in 0..500 {
            judge.observe(&world.tick());
        }
        let verdict = judge.assess(world.now, &Propagation::Effective).verdict;
        assert!(!matches!(verdict, Verdict::Rollback(_)), "seed {seed}: {verdict:?}");
    }
}

/// Runs steps of 5 to 50 % with an interval of one second; true if the canary is promoted.
fn is_promoted(seed: u64, rps: u64, rates: (f64, f64), must: f64) -> bool {
    let mut world = World::new(seed, rps, rates.0, rates.1);
    let mut judge = Judge::new(JudgeConfig {
        must_detect: MustDetect { errors: must, ..JudgeConfig::default().must_detect },
        ..JudgeConfig::default()
    });
    for weight in (5..=50).step_by(5) {
        world.weight = weight;
        judge.step_started(percent(u8::try_from(weight).unwrap()), world.now);
        loop {
            for _ in 0..5 {
                judge.observe(&world.tick());
            }
            match judge.assess(world.now, &Propagation::Effective).verdict {
                Verdict::Rollback(_) => return false,
                Verdict::Advance(_) => break,
                Verdict::Continue(_) | Verdict::NoData(_) => {}
            }
        }
    }
    true
}

#[test]
fn at_most_a_tenth_of_bad_canaries_is_promoted() {
    for (rps, canary, must) in [(1_000, 0.02, 2.0), (1_000, 0.03, 3.0), (1_000, 0.05, 5.0), (100, 0.05, 5.0)] {
        let promoted = (0..100).filter(|&seed| is_promoted(seed, rps, (0.01, canary), must)).count();
        assert!(promoted <= 10, "1 % to {canary} at {rps} rps: {promoted} of 100");
    }
}

#[test]
fn healthy_canaries_are_promoted() {
    let promoted = (0..20).filter(|&seed| is_promoted(seed, 1_000, (0.01, 0.01), 5.0)).count();
    assert_eq!(promoted, 20);
}

fn with_latency(random: &mut Random, requests: u64, median_us: f64) -> Counts {
    let mut counts = counts(requests, 0);
    for _ in 0..requests {
        let latency = random.latency(median_us, 0.7) as u64;
        counts.latency.record(latency);
    }
    counts
}

fn slow_canary(seed: u64, primary_us: f64, canary_us: f64, ticks: usize) -> (usize, Judge) {
    let mut random = Random(seed);
    let mut judge = Judge::new(JudgeConfig::default());
    let mut now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(5), now);
    for tick in 0..ticks {
        now = now.plus(TICK);
        let primary = with_latency(&mut random, 190, primary_us);
        let canary = with_latency(&mut random, 10, canary_us);
        judge.observe(&batch(now, primary, canary));
        if let Verdict::Rollback(reason) = judge.assess(now, &Propagation::Effective).verdict {
            assert!(reason.contains("slower"), "{reason}");
            return (tick, judge);
        }
    }
    (ticks, judge)
}

#[test]
fn a_canary_twice_as_slow_is_found_and_one_within_tolerance_is_not() {
    let (tick, judge) = slow_canary(3, 100_000.0, 200_000.0, 200);
    assert!(tick < 60, "{tick} windows");
    assert!(judge.evidence().latency.harm >= judge.config().decision_threshold());
    assert_eq!(slow_canary(4, 100_000.0, 115_000.0, 200).0, 200);
    // Twice as slow, but within the floor of 5 ms (P16).
    assert_eq!(slow_canary(5, 800.0, 1_600.0, 200).0, 200);
}

#[test]
fn constant_latency_exactly_at_the_tolerance_is_no_harm() {
    let mut config = JudgeConfig::default();
    config.latency.floor = Span::ZERO;
    let mut judge = Judge::new(config);
    let mut now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(5), now);
    for _ in 0..200 {
        now = now.plus(TICK);
        let (mut primary, mut canary) = (counts(190, 0), counts(10, 0));
        primary.latency.add(wingbeat_core::histogram::bin_of(1_000), 190);
        canary.latency.add(wingbeat_core::histogram::bin_of(1_250), 10);
        judge.observe(&batch(now, primary, canary));
    }
    assert!(judge.evidence().latency.harm < 0.0);
}

#[test]
fn a_canary_that_hangs_is_found_without_a_single_response() {
    let mut judge = Judge::new(JudgeConfig::default());
    let now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(5), now);
    let hung = Counts { started: 12, overdue: 12, ..Counts::default() };
    judge.observe(&batch(now, counts(230, 0), hung));
    let verdict = judge.assess(now, &Propagation::Effective).verdict;
    assert_eq!(
        verdict,
        Verdict::Rollback(
            "hard guard: 12 of 12 canary requests have been waiting for more than they may, none of 230 at the primary"
                .into()
        )
    );
}

/// Requests whose responses began; so many of them stand still.
fn stalling(requests: u64, stalled: u64) -> Counts {
    Counts { started: requests, stalled, ..counts(requests - stalled, 0) }
}

#[test]
fn a_canary_whose_responses_stand_still_is_found() {
    let mut judge = Judge::new(JudgeConfig::default());
    let mut now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(5), now);
    for ticks in 1..=3 {
        now = now.plus(TICK);
        judge.observe(&batch(now, counts(190, 0), stalling(10, 10)));
        if let Verdict::Rollback(reason) = judge.assess(now, &Propagation::Effective).verdict {
            let (stalled, primary) = (10 * ticks, 190 * ticks);
            assert_eq!(
                reason,
                format!(
                    "hard guard: {stalled} of {stalled} canary responses began and then stood still, \
                     none of {primary} at the primary"
                )
            );
            return;
        }
    }
    panic!("{:?}", judge.assess(now, &Propagation::Effective));
}

/// At half of the requests a stall more says little beside a primary that might stall in one of ten.
#[test]
fn at_half_of_the_requests_twenty_six_stalls_are_enough() {
    let mut judge = Judge::new(JudgeConfig::default());
    let mut now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(50), now);
    for _ in 0..13 {
        now = now.plus(TICK);
        judge.observe(&batch(now, counts(2, 0), stalling(2, 2)));
    }
    let verdict = judge.assess(now, &Propagation::Effective).verdict;
    assert!(matches!(verdict, Verdict::Rollback(_)), "{verdict:?}");
}

/// At the full share there is no primary beside the canary: what it did before is the measure, if it is known.
#[test]
fn at_the_full_share_responses_that_stand_still_are_held_against_those_before() {
    let play = |comparison, requests: u64, quiet: u64| {
        let mut judge = Judge::new(JudgeConfig { comparison, ..JudgeConfig::default() });
        let mut now = Timestamp::from_millis(1_000_000);
        for _ in 0..10 {
            now = now.plus(TICK);
            judge.observe(&batch(now, stalling(requests, quiet), Counts::default()));
        }
        judge.step_started(percent(100), now);
        judge.switched();
        for _ in 0..5 {
            now = now.plus(TICK);
            judge.observe(&batch(now, Counts::default(), stalling(6, 6)));
        }
        judge.assess(now, &Propagation::Effective).verdict
    };
    for comparison in [Comparison::Randomised, Comparison::Absolute] {
        let verdict = play(comparison, 10, 0);
        assert!(matches!(verdict, Verdict::Rollback(_)), "{comparison:?} {verdict:?}");
        // It was so before, or nobody knows.
        for (requests, quiet) in [(10, 3), (1, 0), (0, 0)] {
            let verdict = play(comparison, requests, quiet);
            let reason = "no canary request of this step has ended: 30 responses began and then stood still";
            assert_eq!(verdict, Verdict::NoData(reason.into()), "{comparison:?} {requests} {quiet}");
        }
    }
}

/// Event streams and long polls stand still in both arms; a new revision may bring some of its own; and between arms that
/// chance does not divide their share says nothing.
#[test]
fn quiet_streams_are_nobodys_fault() {
    for (comparison, primary, canary) in [
        (Comparison::Randomised, 1.0, 1.0),
        (Comparison::Randomised, 0.3, 0.3),
        (Comparison::Randomised, 0.0, 0.02),
        (Comparison::Absolute, 0.0, 1.0),
    ] {
        let mut judge = Judge::new(JudgeConfig { comparison, ..JudgeConfig::default() });
        let (mut random, mut now) = (Random(3), Timestamp::from_millis(1_000_000));
        judge.step_started(percent(5), now);
        for _ in 0..3_000 {
            now = now.plus(TICK);
            let (quiet, bad) = (random.binomial(190, primary), random.binomial(10, canary));
            judge.observe(&batch(now, stalling(190, quiet), stalling(10, bad)));
        }
        let verdict = judge.assess(now, &Propagation::Effective).verdict;
        assert!(!matches!(verdict, Verdict::Rollback(_)), "{comparison:?} {primary} {canary}: {verdict:?}");
    }
}

#[test]
fn absence_is_told_apart_and_never_a_success() {
    let start = Timestamp::from_millis(1_000_000);
    let later = start.plus(TICK);
    let fresh = || {
        let mut judge = Judge::new(JudgeConfig::default());
        judge.step_started(percent(5), start);
        judge
    };
    let reason = |judge: &Judge, now, propagation: &Propagation| match judge.assess(now, propagation).verdict {
        Verdict::NoData(reason) => reason,
        Verdict::Rollback(other) | Verdict::Advance(other) | Verdict::Continue(other) => {
            panic!("{other}")
        }
    };
    assert_eq!(reason(&fresh(), later, &Propagation::Effective), "no traffic at all in this step");
    let mut judge = fresh();
    judge.observe(&batch(later, counts(200, 1), Counts::default()));
    assert_eq!(
        reason(&judge, later, &Propagation::Effective),
        "the canary got no request in this step, the primary 200"
    );
    let laggards = Propagation::Pending { laggards: vec![NodeId::new("edge-1")] };
    assert_eq!(reason(&judge, later, &laggards), "not flowing: still on older routes than weight 5 %: edge-1");
    assert_eq!(
        reason(&judge, later.plus(Span::from_secs(11)), &Propagation::Effective),
        "traffic stopped: the last request was reported 11 s ago"
    );
    let unheard = Propagation::Unknown { since: later };
    assert_eq!(
        reason(&judge, later.plus(Span::from_secs(11)), &unheard),
        "reports are stale: no proxy has reported for 11 s"
    );
    let mut judge = fresh();
    let mut slow = later;
    for _ in 0..60 {
        slow = slow.plus(Span::from_secs(9));
        judge.observe(&batch(slow, counts(1, 0), Counts::default()));
    }
    judge.observe(&batch(slow, counts(1, 0), counts(1, 0)));
    assert!(reason(&judge, slow, &Propagation::Effective).starts_with("too little traffic"));
}
