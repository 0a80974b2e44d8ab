//! What a verdict costs, and what a canary holds in memory: with all defaults, windows of 200 requests with latencies,
//! 5 % of them at the canary. One figure each for more canaries, more nodes and more quantiles shows how it grows.
//!
//! A verdict is a window taken in and the word on it, without the interval of the rate ratio: that is reckoned when
//! somebody wants to see it. The step has had enough requests: before that, it also reckons once a second how many are
//! missing. Time is CPU time of this thread; memory is what the process grows by for many copies of a judge that has seen
//! some minutes.

use anyhow::Context as _;
use serde_json::json;
use wingbeat_benches::{print, quantile};
use wingbeat_core::analysis::judge::{Judge, JudgeConfig, Propagation};
use wingbeat_core::analysis::window::{Batch, WINDOW, Windows};
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::time::Timestamp;
use wingbeat_core::weight::BasisPoints;
use wingbeat_test_support::simulation::traffic::{Answers, Law, Traffic};

/// Requests a second, and what they are.
const RPS: f64 = 1_000.0;
const SHARE: f64 = 0.05;
const ERRORS: f64 = 0.01;
const LAW: Law = Law::of(20_000.0);

/// Windows that a judge has seen before it is looked at: two minutes.
const BEFORE: usize = 600;

/// Windows that are measured, in so many rounds; the median round counts.
const WINDOWS: usize = 200;
const ROUNDS: usize = 5;

/// Verdicts of a round: the kernel brings its account of CPU time up to date every few milliseconds.
const VERDICTS: usize = 8_000;

/// Copies of a judge, for its memory.
const COPIES: usize = 500;

/// Returns the CPU time of this thread, in nanoseconds.
fn used() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().context("schedstat is empty")?.parse()?)
}

/// Returns the memory of this process, in bytes.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().next().context("VmRSS is empty")?.parse()?;
    Ok(kilobytes * 1_024)
}

/// Canaries under judgement, and the windows of one of them.
struct Bench {
    judges: Vec<Judge>,
    windows: Vec<Batch>,
}

impl Bench {
    /// So many canaries, behind so many nodes that share the load, compared at these quantiles.
    fn new(canaries: usize, nodes: u64, quantiles: &[f64]) -> anyhow::Result<Self> {
        let mut config = JudgeConfig::default();
        config.latency.quantiles = quantiles.to_vec();
        let mut judge = Judge::new(config);
        let mut now = Timestamp::from_millis(1_000_000);
        judge.step_started(BasisPoints::from_percent(5), now);
        let names: Vec<NodeId> = (0..nodes).map(|node| NodeId::new(format!("edge-{node}"))).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few nodes")]
        let each = RPS / nodes as f64;
        let answers = || Answers::taking(ERRORS, LAW);
        let mut traffic: Vec<Traffic> = (0..nodes).map(|seed| Traffic::new(seed, each, answers(), answers())).collect();
        let canary = CanaryName::new("prod", "backend");
        let mut windows = Vec::new();
        for _ in 0..BEFORE + WINDOWS {
            let mut open = Windows::new();
            let end = now.plus(WINDOW);
            for (name, traffic) in names.iter().zip(&mut traffic) {
                let node_group = judge.node_group(name, now);
                let arms = traffic.window(SHARE, end).judged;
                open.add(&canary, node_group, Arm::Primary, Stratum::Judged, &arms.primary, now);
                open.add(&canary, node_group, Arm::Canary, Stratum::Judged, &arms.canary, now);
            }
            windows.extend(open.close(end).into_iter().map(|(_, batch)| batch));
            now = end;
        }
        let measured = windows.split_off(BEFORE);
        windows.iter().for_each(|batch| judge.observe(batch));
        anyhow::ensure!(measured.len() == WINDOWS, "every window has requests");
        Ok(Self { judges: vec![judge; canaries], windows: measured })
    }

    /// Returns the nanoseconds of a verdict.
    fn verdict(&self) -> anyhow::Result<f64> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            // Many canaries take turns: each finds its evidence out of the caches.
            let each = (WINDOWS / self.judges.len()).max(8);
            let mut groups = vec![self.judges.clone(); VERDICTS / (each * self.judges.len())];
            let mut reasons = 0;
            let before = used()?;
            let mut verdicts = 0_u32;
            for judges in &mut groups {
                for window in self.windows.iter().take(each) {
                    for judge in judges.iter_mut() {
                        judge.observe(window);
                        reasons += judge.assess(window.end, &Propagation::Effective).verdict.reason().len();
                        verdicts += 1;
                    }
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
            let spent = (used()? - before) as f64;
            anyhow::ensure!(reasons > 0, "every verdict has a reason");
            rounds.push(spent / f64::from(verdicts));
        }
        Ok(quantile(&mut rounds, 0.5))
    }

    /// Returns the bytes of a canary.
    fn bytes(&self) -> anyhow::Result<f64> {
        let judge = self.judges.first().context("there is a canary")?;
        let mut copies = Vec::with_capacity(COPIES);
        let before = resident()?;
        copies.resize_with(COPIES, || judge.clone());
        let after = resident()?;
        anyhow::ensure!(copies.iter().all(|copy| copy == judge), "copies are equal");
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let bytes = after.saturating_sub(before) as f64 / COPIES as f64;
        Ok(bytes)
    }
}

fn main() -> anyhow::Result<()> {
    let three = [0.5, 0.9, 0.99];
    let nine = [0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99];
    // Memory first: what is freed later is not given back to the system.
    let one = Bench::new(1, 1, &three)?;
    let bytes = one.bytes()?;
    let eight_nodes = Bench::new(1, 8, &three)?;
    let bytes_of_eight = eight_nodes.bytes()?;
    #[expect(clippy::cast_precision_loss, reason = "a few signals")]
    let metrics = JudgeConfig::default().shares().iter().count() as f64;
    Ok(print(&json!({
        "verdict_ns": one.verdict()?,
        "verdict_ns_1000_canaries": Bench::new(1_000, 1, &three)?.verdict()?,
        "verdict_ns_8_nodes": eight_nodes.verdict()?,
        "verdict_ns_50_nodes": Bench::new(1, 50, &three)?.verdict()?,
        "verdict_ns_1_quantile": Bench::new(1, 1, &[0.99])?.verdict()?,
        "verdict_ns_9_quantiles": Bench::new(1, 1, &nine)?.verdict()?,
        "bytes_a_canary": bytes,
        "bytes_a_canary_8_nodes": bytes_of_eight,
        "metrics": metrics,
        "bytes_a_canary_and_metric": bytes / metrics,
    }))?)
}
