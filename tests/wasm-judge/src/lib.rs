//! The judge over recorded windows, told to the last bit.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use wingbeat_core::analysis::assessment::Evidence;
use wingbeat_core::analysis::judge::{Judge, JudgeConfig, Propagation};
use wingbeat_core::analysis::window::Batch;
use wingbeat_core::time::Timestamp;
use wingbeat_core::weight::BasisPoints;

/// The whole judge is written out after so many windows, and at the end.
const WHOLE_EVERY: usize = 50;

/// What happens in a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A rollout begins.
    Rollout(Box<JudgeConfig>),
    /// A step begins.
    Step(BasisPoints, Timestamp),
    /// A window is over.
    Window(Box<Batch>),
}

/// Judges a recording, one event as JSON a line. Returns a line for each window: the bits of all evidence and of the
/// interval, and what is said; and now and then the whole judge.
pub fn judged(recording: &str) -> anyhow::Result<String> {
    let mut judge = Judge::new(JudgeConfig::default());
    let mut told = String::new();
    for (place, line) in recording.lines().enumerate() {
        match serde_json::from_str(line)? {
            Event::Rollout(config) => judge = Judge::new(*config),
            Event::Step(weight, now) => judge.step_started(weight, now),
            Event::Window(batch) => {
                judge.observe(&batch);
                let said = judge.assess(batch.end, &Propagation::Effective);
                for value in numbers(&said.evidence, judge.rate_ratio()) {
                    write!(told, "{:016x} ", value.to_bits())?;
                }
                writeln!(told, "{:?} {:?} {:?}", said.verdict, said.eta_requests, said.notices)?;
            }
        }
        if place % WHOLE_EVERY == 0 {
            writeln!(told, "{}", serde_json::to_string(&judge)?)?;
        }
    }
    writeln!(told, "{}", serde_json::to_string(&judge)?)?;
    Ok(told)
}

fn numbers(evidence: &Evidence, (low, high): (Option<f64>, Option<f64>)) -> [f64; 10] {
    [
        evidence.errors.harm,
        evidence.errors.safe,
        evidence.latency.harm,
        evidence.latency.safe,
        evidence.outcomes.harm,
        evidence.attempts.harm,
        evidence.disconnects.harm,
        evidence.harm(),
        low.unwrap_or(f64::NEG_INFINITY),
        high.unwrap_or(f64::INFINITY),
    ]
}
