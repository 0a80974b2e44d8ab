//! The judge over recorded batches, one line after the other.
//!
//! A line says what people and other programs can write: requests, errors, latencies. A control plane that records its own
//! rollouts adds what else its judge saw ([`RecordedWindow`]), so that the replay comes to the same verdicts.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::judge::{Assessment, Evidence, Judge, JudgeConfig, Propagation};
use super::window::{Arms, Batch, WINDOW};
use crate::counts::{Cohorts, Counts};
use crate::histogram::{Histogram, MAX_MICROS, bin_of, bounds};
use crate::id::NodeId;
use crate::outcome::Outcome;
use crate::time::{Span, Timestamp};
use crate::verdict::Verdict;
use crate::weight::BasisPoints;

/// The latest time that there is, in milliseconds: nanoseconds since the epoch end in the year 2554.
const MAX_MS: u64 = u64::MAX / 1_000_000;

/// More requests than this in one line are a slip of the pen.
const MAX_REQUESTS: u64 = 1_000_000_000_000;

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
    /// What else the judge saw, if a control plane recorded the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<RecordedWindow>>,
}

/// What the judge of a running rollout saw, and was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedWindow {
    /// Which attempt at the same template this was: of use where α is divided among attempts.
    pub attempt: NonZeroU32,
    /// When the step began; nothing while the canary had no users.
    pub step_began: Option<Timestamp>,
    /// Every request that is looked at goes to the canary since then.
    pub switched: bool,
    /// The window, as it is.
    pub batch: Batch,
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
    /// There is no such time.
    #[error("t_ms: {t_ms} is beyond the year 2554: milliseconds from any start, at most {MAX_MS}")]
    TooLate {
        /// The time of the line.
        t_ms: u64,
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
    /// So many that nobody can have counted them.
    #[error("{arm}.requests: {requests} are more than a line may have, at most {MAX_REQUESTS}")]
    Requests {
        /// `primary` or `canary`.
        arm: &'static str,
        /// Requests of the line.
        requests: u64,
    },
    /// A latency that is none.
    #[error("{arm}.latency_us: {value} is longer than an hour: microseconds, at most {MAX_MICROS}")]
    Latency {
        /// `primary` or `canary`.
        arm: &'static str,
        /// The latency.
        value: u64,
    },
    /// What the judge saw is of another line.
    #[error("seen.batch: does not fit to {field} of its line: leave seen out where a recording is changed")]
    Contradiction {
        /// `t_ms`, `primary` or `canary`.
        field: &'static str,
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
    /// The time of the line before, with its weight and when its step began, as far as that is known.
    last: Option<(u64, BasisPoints, Option<Timestamp>)>,
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
        match &line.seen {
            Some(seen) => self.observe_seen(seen, weight),
            None => self.observe_told(line, weight, now),
        }
        self.last = Some((line.t_ms, weight, line.seen.as_ref().and_then(|seen| seen.step_began)));
        let assessment = self.judge.assess(now, &Propagation::Effective);
        if matches!(assessment.verdict, Verdict::Rollback(_) | Verdict::Advance(_)) && self.first.is_none() {
            self.first = Some(First { verdict: assessment.verdict.as_str(), t_ms: line.t_ms });
        }
        Ok(self.row(line.t_ms, &assessment))
    }

    /// Takes in a line that says no more than it must: it lasted since the one before.
    fn observe_told(&mut self, line: &Line, weight: BasisPoints, now: Timestamp) {
        let before = self.last.map(|(t_ms, ..)| Timestamp::from_millis(t_ms));
        let span = before.map_or(WINDOW, |before| now.since(before));
        if self.last.is_none_or(|(_, last, _)| last != weight) {
            self.judge.step_started(weight, now.minus(span));
        }
        self.judge.observe(&batch(line, now, span));
    }

    /// Takes in what a judge saw, after what it was told before.
    fn observe_seen(&mut self, seen: &RecordedWindow, weight: BasisPoints) {
        if self.last.is_none() && self.judge.config().attempt.is_some() {
            self.judge = Judge::new(JudgeConfig { attempt: Some(seen.attempt), ..self.judge.config().clone() });
        }
        if let Some(began) = seen.step_began
            && self.last.is_none_or(|(_, last, step)| (last, step) != (weight, Some(began)))
        {
            self.judge.step_started(weight, began);
        }
        if seen.switched {
            self.judge.switched();
        }
        // It was reported by nodes, and is judged as such.
        let _seat = self.judge.node_group(&NodeId::new("recorded"), seen.batch.end);
        self.judge.observe(&seen.batch);
    }

    fn row(&self, t_ms: u64, assessment: &Assessment) -> Row {
        Row {
            t_ms,
            verdict: assessment.verdict.as_str(),
            reason: assessment.verdict.reason().into(),
            evidence: assessment.evidence,
            rate_ratio: self.judge.rate_ratio(),
            eta_requests: assessment.eta_requests,
            first: self.first,
        }
    }

    fn check(&self, line: &Line) -> Result<BasisPoints, Vec<Problem>> {
        let mut problems = Vec::new();
        if line.t_ms > MAX_MS {
            problems.push(Problem::TooLate { t_ms: line.t_ms });
        }
        if let Some((before, ..)) = self.last
            && line.t_ms <= before
        {
            problems.push(Problem::Backwards { t_ms: line.t_ms, before });
        }
        let weight = share(line.weight);
        if weight.is_none() {
            problems.push(Problem::Weight);
        }
        // Requests that were on their way when the share was taken back are no slip in a recording of ours.
        if weight == Some(BasisPoints::ZERO) && line.canary.requests > 0 && line.seen.is_none() {
            problems.push(Problem::Unrouted { requests: line.canary.requests });
        }
        for (arm, counts) in [("primary", &line.primary), ("canary", &line.canary)] {
            let requests = counts.requests;
            if requests > MAX_REQUESTS {
                problems.push(Problem::Requests { arm, requests });
            }
            if counts.errors > requests {
                problems.push(Problem::Errors { arm, errors: counts.errors, requests });
            }
            let latencies = counts.latency_us.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count));
            if latencies > requests {
                problems.push(Problem::Latencies { arm, latencies, requests });
            }
            if let Some((value, _)) = counts.latency_us.iter().find(|(value, _)| *value > MAX_MICROS) {
                problems.push(Problem::Latency { arm, value: *value });
            }
        }
        if let Some(seen) = &line.seen {
            problems.extend(seen.contradicted(line).map(|field| Problem::Contradiction { field }));
        }
        match weight {
            Some(weight) if problems.is_empty() => Ok(weight),
            _ => Err(problems),
        }
    }
}

impl Line {
    /// Returns the line of a window that a judge saw while the canary had this share.
    pub fn recorded(weight: BasisPoints, seen: RecordedWindow) -> Self {
        let (primary, canary) = LineArm::both(&seen.batch);
        Self { t_ms: seen.batch.end.as_millis(), weight: weight.percent(), primary, canary, seen: Some(Box::new(seen)) }
    }
}

impl LineArm {
    /// Returns what both arms of a window came to.
    fn both(batch: &Batch) -> (Self, Self) {
        (Self::of(&batch.judged.primary), Self::of(&batch.judged.canary))
    }

    fn of(counts: &Counts) -> Self {
        // Requests of which nothing is known about the upstream have a latency too, at times.
        let mut left = counts.judged();
        let mut latency_us = Vec::new();
        for (bin, count) in counts.latency.iter() {
            let taken = count.min(left);
            left = left.saturating_sub(taken);
            if taken > 0 {
                latency_us.push((bounds(bin).0, taken));
            }
        }
        Self { requests: counts.judged(), errors: counts.errors(), latency_us }
    }
}

impl RecordedWindow {
    /// Returns the field of the line that tells something else.
    fn contradicted(&self, line: &Line) -> Option<&'static str> {
        let (primary, canary) = LineArm::both(&self.batch);
        if self.batch.end.as_millis() != line.t_ms || self.batch.span > self.batch.end.since(Timestamp::EPOCH) {
            Some("t_ms")
        } else if primary != line.primary {
            Some("primary")
        } else {
            (canary != line.canary).then_some("canary")
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
            seen: None,
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

    #[test]
    fn absurd_numbers_are_refused_by_their_field() {
        let mut replay = Replay::new(JudgeConfig::default());
        let bad = Line {
            t_ms: u64::MAX,
            weight: f64::NAN,
            primary: LineArm { requests: u64::MAX, errors: u64::MAX, latency_us: vec![(u64::MAX, u64::MAX), (1, 1)] },
            canary: LineArm::default(),
            seen: None,
        };
        let problems = replay.step(&bad).unwrap_err();
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "t_ms: 18446744073709551615 is beyond the year 2554: milliseconds from any start, at most 18446744073709",
                "weight: must be from 0 to 100, in percent",
                "primary.requests: 18446744073709551615 are more than a line may have, at most 1000000000000",
                "primary.latency_us: 18446744073709551615 is longer than an hour: microseconds, at most 4294967295",
            ]
        );
        let unrouted = Line { weight: 0.0, ..line(1_000, 0) };
        let problems = replay.step(&unrouted).unwrap_err();
        assert_eq!(problems, [Problem::Unrouted { requests: 50 }]);
        for text in [
            r#"{"t_ms":-1,"weight":5,"primary":{"requests":1,"errors":0},"canary":{"requests":0,"errors":0}}"#,
            r#"{"t_ms":1,"weight":NaN,"primary":{"requests":1,"errors":0},"canary":{"requests":0,"errors":0}}"#,
            r#"{"t_ms":1,"weight":5,"primary":{"requests":1,"errors":0,"latency_us":[[-5,1]]},"canary":{"requests":0,"errors":0}}"#,
        ] {
            assert!(serde_json::from_str::<Line>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_largest_numbers_and_gaps_are_judged() {
        let mut replay = Replay::new(JudgeConfig::default());
        for t_ms in [1, MAX_MS / 2, MAX_MS] {
            let most =
                LineArm { requests: MAX_REQUESTS, errors: MAX_REQUESTS / 100, latency_us: vec![(MAX_MICROS, 9)] };
            let line = Line { t_ms, weight: 5.0, primary: most.clone(), canary: most, seen: None };
            let row = replay.step(&line).unwrap();
            assert!(row.evidence.errors.harm.is_finite());
        }
    }

    #[test]
    fn a_recorded_line_that_was_changed_is_refused() {
        let told = line(1_000, 3);
        let batch = batch(&told, Timestamp::from_millis(1_000), WINDOW);
        let seen = RecordedWindow { attempt: NonZeroU32::MIN, step_began: None, switched: false, batch };
        let recorded = Line::recorded(BasisPoints::from_percent(5), seen);
        assert_eq!((recorded.t_ms, recorded.canary.errors), (1_000, 3));
        let mut changed = recorded.clone();
        changed.canary.errors = 0;
        let mut replay = Replay::new(JudgeConfig::default());
        assert_eq!(replay.step(&changed).unwrap_err(), [Problem::Contradiction { field: "canary" }]);
        assert!(replay.step(&recorded).is_ok());
    }
}
