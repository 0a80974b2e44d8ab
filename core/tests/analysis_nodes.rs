//! Which nodes a verdict rests on: nodes that leave, fall silent, return, carry next to nothing, restart, or lie.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking, and its counts are small")]

use wingbeat_core::analysis::judge::{Judge, JudgeConfig, NoticeSubject, Propagation, Sources};
use wingbeat_core::analysis::window::{Batch, WINDOW, Windows};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;
use wingbeat_test_support::simulation::draw::Draw;
use wingbeat_test_support::simulation::traffic::counts;

/// A canary that fails everything at the only node that has traffic is out within this time.
const PROMISED: Span = Span::from_secs(3);

/// What the primary fails, and a healthy canary.
const ERRORS: f64 = 0.01;

/// What a node claims of a window, beside what it really served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    CanaryFails(u64),
    CanaryPerfect(u64),
    PrimaryPerfect(u64),
    PrimaryFails(u64),
}

/// What becomes of the canary's requests that are not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    /// The response begins and then stands still.
    Stalls,
}

#[derive(Debug, Clone)]
struct Node {
    id: NodeId,
    rps: f64,
    lie: Option<Lie>,
}

/// Nodes that report every window.
#[derive(Debug, Clone)]
struct Nodes {
    draw: Draw,
    judge: Judge,
    now: Timestamp,
    weight: u8,
    canary: f64,
    fault: Fault,
    each: Vec<Node>,
    /// It is asked after every window, and once is enough.
    promoted: bool,
}

impl Nodes {
    fn new(seed: u64, rps: &[f64]) -> Self {
        let node =
            |(number, rps): (usize, &f64)| Node { id: NodeId::new(format!("edge-{number}")), rps: *rps, lie: None };
        let mut judge = Judge::new(JudgeConfig::default());
        judge.expect(Sources::prompt(rps.len()), |_| None, Timestamp::EPOCH);
        Self {
            draw: Draw::new(seed),
            judge,
            now: Timestamp::from_millis(1_000_000),
            weight: 0,
            canary: ERRORS,
            fault: Fault::Fails,
            each: rps.iter().enumerate().map(node).collect(),
            promoted: false,
        }
    }

    /// Returns nodes whose canary has users since a while.
    fn at_work(seed: u64, rps: &[f64], weight: u8, span: Span) -> Self {
        let mut nodes = Self::new(seed, rps);
        nodes.last(Span::from_secs(10));
        nodes.step(weight);
        nodes.last(span);
        nodes
    }

    fn step(&mut self, weight: u8) {
        self.weight = weight;
        self.judge.step_started(BasisPoints::from_percent(weight), self.now);
    }

    fn window(&mut self) {
        self.now = self.now.plus(WINDOW);
        let batch = self.report();
        if let Some(batch) = batch {
            self.judge.observe(&batch);
        }
        self.promoted |= matches!(self.verdict(), Verdict::Advance(_));
    }

    fn report(&mut self) -> Option<Batch> {
        let (mut windows, name) = (Windows::new(), CanaryName::new("prod", "backend"));
        let arrived = self.now.minus(Span::from_millis(1));
        for node in &self.each {
            let requests = self.draw.poisson(node.rps * WINDOW.as_secs_f64());
            let canary = self.draw.binomial(requests, f64::from(self.weight) / 100.0);
            let primary = requests - canary;
            let bad = (self.draw.binomial(primary, ERRORS), self.draw.binomial(canary, self.canary));
            let answered = match self.fault {
                Fault::Fails => counts(canary, bad.1),
                Fault::Stalls => Counts { started: canary, stalled: bad.1, ..counts(canary - bad.1, 0) },
            };
            let mut told = [counts(primary, bad.0), answered];
            if let Some(lie) = node.lie {
                let (arm, claimed) = match lie {
                    Lie::CanaryFails(n) => (1, counts(n, n)),
                    Lie::CanaryPerfect(n) => (1, counts(n, 0)),
                    Lie::PrimaryPerfect(n) => (0, counts(n, 0)),
                    Lie::PrimaryFails(n) => (0, counts(n, n)),
                };
                told[arm].merge(&claimed);
            }
            for (arm, told) in Arm::ALL.into_iter().zip(told) {
                if told != Counts::default() {
                    let node_group = self.judge.node_group(&node.id, self.now);
                    windows.add(&name, node_group, arm, Stratum::Judged, &told, arrived);
                }
            }
        }
        windows.close(self.now).pop().map(|(_, batch)| batch)
    }

    fn last(&mut self, span: Span) {
        let end = self.now.plus(span);
        while self.now < end {
            self.window();
        }
    }

    fn verdict(&self) -> Verdict {
        self.judge.assess(self.now, &Propagation::Effective).verdict
    }

    fn is_rolled_back(&self) -> bool {
        matches!(self.verdict(), Verdict::Rollback(_))
    }

    /// Lets the canary fail so often, and returns how long it takes until it is rolled back.
    fn fails(&mut self, rate: f64) -> Option<Span> {
        self.canary = rate;
        self.until_rolled_back(Span::from_secs(120))
    }

    fn until_rolled_back(&mut self, longest: Span) -> Option<Span> {
        let began = self.now;
        while self.now.since(began) < longest {
            self.window();
            if self.is_rolled_back() {
                return Some(self.now.since(began));
            }
        }
        None
    }
}

fn is_prompt(taken: Option<Span>) -> bool {
    taken.is_some_and(|taken| taken < PROMISED)
}

#[test]
fn where_two_of_three_have_left_the_third_decides() {
    for (seed, gone) in [(1, 0), (2, 1), (3, 5), (4, 60)] {
        for idle in [0.0, 1.0] {
            let mut nodes = Nodes::at_work(seed, &[300.0, 300.0, 300.0], 5, Span::from_secs(120));
            for node in &mut nodes.each[1..] {
                node.rps = idle;
            }
            nodes.last(Span::from_secs(gone));
            let taken = nodes.fails(1.0);
            assert!(is_prompt(taken), "gone for {gone} s, {idle} rps: {taken:?} {:?}", nodes.verdict());
        }
    }
}

#[test]
fn where_two_leave_while_the_evidence_rests_on_the_third_it_decides() {
    let mut nodes = Nodes::at_work(5, &[300.0, 300.0, 300.0], 5, Span::from_secs(20));
    nodes.each[2].lie = Some(Lie::CanaryFails(10));
    nodes.last(Span::from_secs(60));
    assert!(!nodes.is_rolled_back());
    nodes.each[0].rps = 0.0;
    nodes.each[1].rps = 0.0;
    let taken = nodes.until_rolled_back(Span::from_secs(60));
    assert!(is_prompt(taken), "{taken:?} {:?}", nodes.verdict());
}

#[test]
fn where_one_has_nearly_all_traffic_it_decides() {
    for seed in 0..20 {
        for weight in [5, 50] {
            let mut nodes = Nodes::at_work(seed, &[300.0, 2.0, 2.0], weight, Span::from_secs(120));
            let taken = nodes.fails(1.0);
            assert!(is_prompt(taken), "seed {seed}, {weight} %: {taken:?} {:?}", nodes.verdict());
        }
    }
}

#[test]
fn two_that_are_idle_from_the_start_hold_nothing() {
    for rps in [[300.0, 0.0, 0.0], [300.0, 0.5, 0.5]] {
        let mut nodes = Nodes::at_work(7, &rps, 5, Span::from_secs(5));
        let taken = nodes.fails(1.0);
        assert!(is_prompt(taken), "{rps:?}: {taken:?} {:?}", nodes.verdict());
        let nodes = Nodes::at_work(8, &rps, 5, Span::from_secs(300));
        assert!(nodes.promoted && !nodes.is_rolled_back(), "{:?}", nodes.verdict());
    }
}

#[test]
fn nodes_that_return_are_heard_again() {
    let mut nodes = Nodes::at_work(9, &[100.0, 100.0, 100.0], 5, Span::from_secs(60));
    for _ in 0..3 {
        nodes.each[0].rps = 0.0;
        nodes.each[1].rps = 0.0;
        nodes.last(Span::from_secs(30));
        nodes.each[0].rps = 100.0;
        nodes.each[1].rps = 100.0;
        nodes.last(Span::from_secs(2));
        nodes.each[2].lie = Some(Lie::CanaryFails(5));
        nodes.last(Span::from_secs(20));
        nodes.each[2].lie = None;
        assert!(!nodes.is_rolled_back(), "{:?}", nodes.verdict());
    }
    assert!(is_prompt(nodes.fails(1.0)));
}

/// Three that share the traffic find a canary that fails everything as soon as one would.
/// Responses count as stalled some 1.25 s after they began: what is left of three seconds has to be enough, also where the
/// canary was healthy for a while.
#[test]
fn what_all_three_see_is_found_also_after_a_healthy_second() {
    for fault in [Fault::Fails, Fault::Stalls] {
        for (rps, weight) in [(26.0, 50), (130.0, 10), (13.0, 100)] {
            for seed in 0..20 {
                let mut nodes = Nodes::at_work(seed, &[rps; 3], weight, Span::from_secs(1));
                nodes.fault = fault;
                let taken = nodes.fails(1.0);
                let verdict = nodes.verdict();
                let is_prompt = taken.is_some_and(|taken| taken <= Span::from_millis(1_600));
                eprintln!("{fault:?}{weight} %: {taken:?} {is_prompt} {verdict:?}");
            }
        }
    }
}

/// Where the canary has nine requests of ten it has the failures too: that the primary succeeds has to tell, as soon as there
/// are enough of its successes. Chance makes the primary's errors look as if they came in bursts now and then.
#[test]
fn at_nine_tenths_the_successes_of_the_primary_tell() {
    for fault in [Fault::Fails, Fault::Stalls] {
        let prompt = (0..20).filter(|seed| {
            let mut nodes = Nodes::at_work(*seed, &[30.0; 3], 90, Span::from_secs(1));
            nodes.fault = fault;
            nodes.fails(1.0).is_some_and(|taken| taken <= Span::from_secs(2))
        });
        let prompt = prompt.count();
        assert!(prompt >= 16, "{fault:?}: {prompt} of 20");
    }
}

#[test]
fn three_that_agree_do_not_wait() {
    for seed in 0..10 {
        let mut nodes = Nodes::at_work(seed, &[300.0, 300.0, 300.0], 5, Span::from_secs(20));
        let taken = nodes.fails(1.0);
        assert!(taken.is_some_and(|taken| taken <= Span::from_millis(1_000)), "{taken:?}");
    }
}

#[test]
fn one_of_three_that_makes_up_harm_rolls_nothing_back() {
    for (seed, rps) in (0..).zip([300.0, 100.0, 50.0, 300.0]) {
        for lie in [Lie::CanaryFails(2), Lie::CanaryFails(10_000), Lie::PrimaryPerfect(100_000)] {
            // Before the first step, in its first window, in its first second, and later.
            for (alone, before) in [(0, 0), (10, 0), (10, 200), (10, 800), (10, 5_000), (10, 60_000)] {
                let mut nodes = Nodes::new(seed, &[rps; 3]);
                nodes.last(Span::from_secs(alone));
                nodes.step(5);
                nodes.last(Span::from_millis(before));
                nodes.each[1].lie = Some(lie);
                let taken = nodes.until_rolled_back(Span::from_secs(60));
                assert_eq!(taken, None, "{rps} rps, {lie:?} after {alone} s and {before} ms: {:?}", nodes.verdict());
            }
        }
    }
}

#[test]
fn the_one_that_makes_up_harm_is_named() {
    let mut nodes = Nodes::at_work(11, &[100.0; 3], 5, Span::from_secs(20));
    nodes.each[1].lie = Some(Lie::CanaryFails(10));
    nodes.last(Span::from_secs(30));
    let assessed = nodes.judge.assess(nodes.now, &Propagation::Effective);
    assert!(assessed.verdict.reason().contains("edge-1"), "{:?}", assessed.verdict);
    assert!(assessed.notices.iter().any(|notice| notice.about == NoticeSubject::OneNode));
}

#[test]
fn one_of_three_that_hides_harm_promotes_nothing() {
    for (seed, rps) in (20..).zip([300.0, 100.0]) {
        for lie in [Lie::CanaryPerfect(10_000), Lie::CanaryPerfect(100), Lie::PrimaryFails(10_000)] {
            for rate in [0.1, 1.0] {
                for (alone, before) in [(0, 0), (10, 0), (10, 600), (10, 20_000)] {
                    let mut nodes = Nodes::new(seed, &[rps; 3]);
                    nodes.last(Span::from_secs(alone));
                    nodes.each[1].lie = Some(lie);
                    nodes.step(5);
                    nodes.last(Span::from_millis(before));
                    nodes.canary = rate;
                    // What was enough before the fault is enough until the first trial sees it.
                    nodes.last(Span::from_millis(if before >= 20_000 { 3_000 } else { 0 }));
                    nodes.promoted = false;
                    let taken = nodes.fails(rate);
                    let what = format!("{rps} rps, {lie:?}, {rate} after {alone} s and {before} ms: {taken:?}");
                    assert!(!nodes.promoted && taken.is_some(), "{what} {:?}", nodes.verdict());
                }
            }
        }
    }
}

/// An honest node leaves; the one that lies and the other one are left.
#[test]
fn one_that_leaves_does_not_help_one_that_lies() {
    for lie in [Lie::CanaryFails(10), Lie::CanaryFails(10_000)] {
        let mut nodes = Nodes::at_work(31, &[100.0; 3], 5, Span::from_secs(60));
        nodes.each[1].lie = Some(lie);
        nodes.each[2].rps = 0.0;
        assert_eq!(nodes.until_rolled_back(Span::from_secs(120)), None, "{lie:?} {:?}", nodes.verdict());
    }
    for lie in [Lie::CanaryPerfect(10_000), Lie::PrimaryFails(10_000)] {
        let mut nodes = Nodes::at_work(32, &[100.0; 3], 5, Span::from_secs(1));
        nodes.each[1].lie = Some(lie);
        nodes.each[2].rps = 0.0;
        nodes.promoted = false;
        let taken = nodes.fails(1.0);
        assert!(taken.is_some() && !nodes.promoted, "{lie:?} {taken:?}");
    }
}

#[test]
fn a_node_that_left_does_not_hold_promotion() {
    let mut nodes = Nodes::at_work(41, &[100.0; 3], 5, Span::from_secs(10));
    nodes.each[0].rps = 0.0;
    nodes.each[1].rps = 0.0;
    nodes.each[2].rps = 300.0;
    nodes.promoted = false;
    nodes.last(Span::from_secs(300));
    assert!(nodes.promoted && !nodes.is_rolled_back(), "{:?}", nodes.verdict());
}

/// Envoys restart with new ids; in between one of three lies.
#[test]
fn after_a_thousand_restarts_no_single_node_decides() {
    let mut nodes = Nodes::at_work(51, &[100.0; 3], 5, Span::from_secs(10));
    for generation in 0..1_000 {
        let node = &mut nodes.each[generation % 3];
        node.id = NodeId::new(format!("edge-{}", 10 + generation));
        nodes.last(Span::from_secs(1));
    }
    nodes.last(Span::from_secs(120));
    assert!(!nodes.is_rolled_back(), "{:?}", nodes.verdict());
    let mut harmed = nodes.clone();
    nodes.each[0].lie = Some(Lie::CanaryFails(10));
    assert_eq!(nodes.until_rolled_back(Span::from_secs(60)), None, "{:?}", nodes.verdict());
    assert!(is_prompt(harmed.fails(1.0)));
}

/// Everything that is kept has a bound.
#[test]
fn a_judge_is_as_large_after_ten_thousand_nodes_as_after_two_hundred() {
    let size = |ids: usize| {
        let mut nodes = Nodes::at_work(61, &[100.0; 3], 5, Span::from_secs(10));
        for id in 0..ids {
            let node_group = nodes.judge.node_group(&NodeId::new(format!("edge-{:05}", 10_000 + id)), nodes.now);
            assert!(node_group.0 < 8);
        }
        nodes.last(Span::from_secs(10));
        serde_json::to_string(&nodes.judge).unwrap().len()
    };
    let (few, many) = (size(200), size(10_000));
    assert!(many <= few + 100, "{few} {many}");
}

/// What chance makes of it: the few errors of honest nodes, beside a primary that one of them says never fails.
#[test]
fn made_up_harm_is_not_taken_for_hidden_harm() {
    for seed in 0..40 {
        let mut nodes = Nodes::at_work(seed, &[300.0; 3], 5, Span::from_millis(200));
        nodes.each[1].lie = Some(Lie::PrimaryPerfect(100_000));
        let taken = nodes.until_rolled_back(Span::from_secs(60));
        assert_eq!(taken, None, "seed {seed}: {:?}", nodes.verdict());
    }
}
