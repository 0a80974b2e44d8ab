//! The judge over recorded batches, one line after the other.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::judge::{Assessment, Evidence, Flowing, Judge, JudgeConfig};
use super::window::{Arms, Batch, WINDOW};
use crate::counts::{Cohorts, Counts};
use crate::histogram::{Histogram, bin_of};
use crate::outcome::Outcome;
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;
use crate::weight::BasisPoints;

/// One recorded batch: what happened since the line before, not a running total.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The end of the batch in milliseconds, from any start.
    pub t_ms: u64,
    /// The canary's share of traffic in percent.
    pub weight: f64,
    /// Requests of the primary.
    pub primary: LineArm,
    /// Requests of the canary.
    pub canary: LineArm,
}

/// One arm of a recorded batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineArm {
    /// Finished requests.
    pub requests: u64,
    /// Of these, the errors.
    pub errors: u64,
    /// Latencies in microseconds, each with the number of requests that took so long.
    #[serde(default)]
    pub latency_us: Vec<(u64, u64)>,
}

/// What is wrong with a line, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Time runs backwards.
    #[error("t_ms: {t_ms} is not after {before}, the line before: lines are in order of time")]
    Backwards {
        /// The time of the line.
        t_ms: u64,
        /// The time of the line before.
        before: u64,
    },
    /// The weight is no share.
    #[error("weight: must be from 0 to 100, in percent")]
    Weight,
    /// Requests at a canary that has no share.
    #[error("canary.requests: {requests} at weight 0: requests of a canary without a share cannot be judged")]
    Unrouted {
        /// Requests of the line.
        requests: u64,
    },
    /// More errors than requests.
    #[error("{arm}.errors: {errors} of {requests} requests: must be at most as many")]
    Errors {
        /// `primary` or `canary`.
        arm: &'static str,
        /// Errors of the line.
        errors: u64,
        /// Requests of the line.
        requests: u64,
    },
    /// More latencies than requests.
    #[error("{arm}.latency_us: {latencies} latencies of {requests} requests: must be at most as many")]
    Latencies {
        /// `primary` or `canary`.
        arm: &'static str,
        /// Sum of the counts.
        latencies: u64,
        /// Requests of the line.
        requests: u64,
    },
}

/// What the judge said after one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The time of the line.
    pub t_ms: u64,
    /// `rollback`, `advance`, `continue` or `no-data`.
    pub verdict: &'static str,
    /// Why, in words.
    pub reason: String,
    /// Natural logarithms of e-values.
    pub evidence: Evidence,
    /// Bounds of the rate ratio; nothing where they are 0 or infinite.
    pub rate_ratio: (Option<f64>, Option<f64>),
    /// Canary requests missing; nothing if unbounded.
    pub eta_requests: Option<u64>,
    /// The first verdict that ends a step or the rollout.
    pub first: Option<First>,
}

/// The first verdict that ended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct First {
    /// `rollback` or `advance`.
    pub verdict: &'static str,
    /// When it came.
    pub t_ms: u64,
}

/// A recording under judgement.
#[derive(Debug, Clone)]
pub struct Replay {
    judge: Judge,
    last: Option<(u64, BasisPoints)>,
    first: Option<First>,
}

impl Replay {
    /// Returns a replay at its beginning.
    pub fn new(config: JudgeConfig) -> Self {
        Self { judge: Judge::new(config), last: None, first: None }
    }

    /// Takes in a line and judges. A line with problems changes nothing; all of them are returned.
    pub fn step(&mut self, line: &Line) -> Result<Row, Vec<Problem>> {
        let weight = self.check(line)?;
        let now = Timestamp::from_millis(line.t_ms);
        let before = self.last.map(|(t_ms, _)| Timestamp::from_millis(t_ms));
        let span = before.map_or(WINDOW, |before| now.since(before));
        if self.last.is_none_or(|(_, last)| last != weight) {
            self.judge.step_started(weight, now.minus(span));
        }
        self.last = Some((line.t_ms, weight));
        self.judge.observe(&batch(line, now, span));
        let assessment = self.judge.assess(now, &Flowing::Yes);
        if matches!(assessment.verdict, Verdict::Rollback(_) | Verdict::Advance(_)) && self.first.is_none() {
            self.first = Some(First { verdict: assessment.verdict.as_str(), t_ms: line.t_ms });
        }
        Ok(self.row(line.t_ms, &assessment))
    }

    fn row(&self, t_ms: u64, assessment: &Assessment) -> Row {
        Row {
            t_ms,
            verdict: assessment.verdict.as_str(),
            reason: assessment.verdict.reason().into(),
            evidence: assessment.evidence,
            rate_ratio: assessment.rate_ratio,
            eta_requests: assessment.eta_requests,
            first: self.first,
        }
    }

    fn check(&self, line: &Line) -> Result<BasisPoints, Vec<Problem>> {
        let mut problems = Vec::new();
        if let Some((before, _)) = self.last
            && line.t_ms <= before
        {
            problems.push(Problem::Backwards { t_ms: line.t_ms, before });
        }
        let weight = share(line.weight);
        if weight.is_none() {
            problems.push(Problem::Weight);
        }
        if weight == Some(BasisPoints::ZERO) && line.canary.requests > 0 {
            problems.push(Problem::Unrouted { requests: line.canary.requests });
        }
        for (arm, counts) in [("primary", &line.primary), ("canary", &line.canary)] {
            let requests = counts.requests;
            if counts.errors > requests {
                problems.push(Problem::Errors { arm, errors: counts.errors, requests });
            }
            let latencies = counts.latency_us.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count));
            if latencies > requests {
                problems.push(Problem::Latencies { arm, latencies, requests });
            }
        }
        match weight {
            Some(weight) if problems.is_empty() => Ok(weight),
            _ => Err(problems),
        }
    }
}

/// Returns a share of so many percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000 after the check")]
fn share(percent: f64) -> Option<BasisPoints> {
    (0.0..=100.0).contains(&percent).then(|| libm::round(percent * 100.0) as u16).and_then(BasisPoints::new)
}

fn batch(line: &Line, end: Timestamp, span: Span) -> Batch {
    Batch {
        end,
        span,
        judged: Arms { primary: counts(&line.primary), canary: counts(&line.canary) },
        ..Batch::default()
    }
}

fn counts(arm: &LineArm) -> Counts {
    let outcomes = Outcome::ALL.map(|outcome| match outcome {
        Outcome::ServerFault => arm.errors,
        Outcome::Success => arm.requests.saturating_sub(arm.errors),
        Outcome::Redirect
        | Outcome::ClientFault
        | Outcome::Reset
        | Outcome::ConnectFailure
        | Outcome::Timeout
        | Outcome::Unavailable
        | Outcome::Truncated
        | Outcome::DisconnectBeforeResponse
        | Outcome::DisconnectMidResponse
        | Outcome::NotSent => 0,
    });
    let latency: Histogram = arm.latency_us.iter().map(|&(value, count)| (bin_of(value), count)).collect();
    Counts {
        started: arm.requests,
        finished: arm.requests,
        outcomes,
        // A line is whole: all of its requests have finished.
        cohorts: Cohorts { finished: arm.requests, errors: arm.errors, latency: latency.clone(), ..Cohorts::default() },
        latency,
        latency_sum_us: arm
            .latency_us
            .iter()
            .fold(0, |sum: u64, &(value, count)| sum.saturating_add(value.saturating_mul(count))),
        ..Counts::default()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    fn line(t_ms: u64, errors: u64) -> Line {
        Line {
            t_ms,
            weight: 5.0,
            primary: LineArm { requests: 950, errors: 9, latency_us: vec![(20_000, 950)] },
            canary: LineArm { requests: 50, errors, latency_us: vec![(20_000, 50)] },
        }
    }

    #[test]
    fn a_bad_line_names_all_its_problems_and_changes_nothing() {
        let mut replay = Replay::new(JudgeConfig::default());
        replay.step(&line(1_000, 0)).unwrap();
        let mut bad = line(1_000, 51);
        bad.weight = 101.0;
        bad.primary.latency_us.push((5, 1));
        let problems = replay.step(&bad).unwrap_err();
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "t_ms: 1000 is not after 1000, the line before: lines are in order of time",
                "weight: must be from 0 to 100, in percent",
                "primary.latency_us: 951 latencies of 950 requests: must be at most as many",
                "canary.errors: 51 of 50 requests: must be at most as many",
            ]
        );
        assert!(replay.step(&line(1_001, 0)).is_ok());
    }

    #[test]
    fn the_first_verdict_stays_and_the_recording_goes_on() {
        let mut replay = Replay::new(JudgeConfig::default());
        let rows: Vec<Row> = (1..=20).map(|second| replay.step(&line(second * 1_000, 25)).unwrap()).collect();
        let first = rows.last().unwrap().first.unwrap();
        assert_eq!((first.verdict, first.t_ms), ("rollback", 1_000));
        assert!(rows.iter().all(|row| row.verdict == "rollback"));
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert!(json["evidence"]["errors"]["harm"].as_f64().unwrap() > 6.9);
        assert!(json["rate_ratio"].as_array().unwrap().len() == 2);
    }

    #[test]
    fn a_healthy_recording_advances() {
        let mut replay = Replay::new(JudgeConfig::default());
        let rows: Vec<Row> =
            (1..=60).map(|second| replay.step(&line(second * 1_000, u64::from(second % 2 == 0))).unwrap()).collect();
        assert_eq!(rows[0].verdict, "continue");
        assert!(rows[0].eta_requests.unwrap() > 100);
        assert_eq!(rows.last().unwrap().first.unwrap().verdict, "advance");
    }
}
