//! How a rollout went over time, for people to see: a bounded number of points, and how the rollouts before ended.
//!
//! Nothing is decided by it, and it is not stored: after a restart it begins anew.

use std::collections::VecDeque;

use wingbeat_core::analysis::window::Batch;
use wingbeat_core::counts::Counts;
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::histogram::Histogram;
use wingbeat_core::id::{Arm, Revision, RolloutId};
use wingbeat_core::rollout::{Cause, Phase, State, project};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::weight::BasisPoints;

/// Points of a rollout, each of 112 bytes. When there would be more, each two become one, and the next ones cover
/// twice the time.
const MAX_POINTS: usize = 120;
/// Time that a point covers at first.
const FIRST_SPAN: Span = Span::from_millis(500);
/// Ended rollouts that are kept of a canary; the oldest one is forgotten.
const MAX_PAST: usize = 8;
/// Characters of the reason why a rollout ended; the rest is cut off.
const MAX_REASON_LEN: usize = 400;
/// The quantiles of latency that a point has.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// What is kept of the rollouts of a canary.
#[derive(Debug, Default)]
pub(in crate::engine) struct Chronicle {
    /// Of the latest rollout; none before the first one, and where others have ended since.
    pub(in crate::engine) timeline: Option<Timeline>,
    /// Those that ended, the latest last.
    pub(in crate::engine) past: VecDeque<Past>,
    /// The position in the plan that the latest rollout came to.
    pub(in crate::engine) reached: usize,
}

/// A rollout over time.
#[derive(Debug)]
pub(in crate::engine) struct Timeline {
    pub(in crate::engine) rollout: RolloutId,
    /// Where it begins: with the rollout, or with the process if that is younger.
    pub(in crate::engine) began: Timestamp,
    /// Time that a new point covers.
    pub(in crate::engine) span: Span,
    points: Vec<Point>,
    open: Open,
}

/// What came to pass in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::engine) struct Point {
    pub(in crate::engine) end: Timestamp,
    /// The canary's share at its end.
    pub(in crate::engine) weight: BasisPoints,
    /// The highest evidence of harm in it; none where nothing was judged.
    pub(in crate::engine) harm: Option<f64>,
    pub(in crate::engine) primary: Sample,
    pub(in crate::engine) canary: Sample,
}

/// What was measured of an arm in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Sample {
    /// Requests that count for the judge, with those that hang.
    pub(in crate::engine) requests: u64,
    /// Errors, and requests that hang.
    pub(in crate::engine) errors: u64,
    /// Median, 90 % and 99 % quantile of the latency, in microseconds.
    pub(in crate::engine) micros: [Option<u32>; 3],
}

/// The point that is not over.
#[derive(Debug)]
struct Open {
    began: Timestamp,
    harm: Option<f64>,
    primary: Tally,
    canary: Tally,
}

/// What is counted for a sample.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    errors: u64,
    latency: Histogram,
}

/// A rollout that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Past {
    pub(in crate::engine) rollout: RolloutId,
    /// When it began, if this process saw it.
    pub(in crate::engine) began: Option<Timestamp>,
    pub(in crate::engine) ended: Timestamp,
    pub(in crate::engine) ending: Ending,
    /// Why, where it did not end in promotion.
    pub(in crate::engine) reason: String,
    pub(in crate::engine) primary: Option<Revision>,
    pub(in crate::engine) canary: Option<Revision>,
    pub(in crate::engine) attempt: u32,
    /// The highest share of the canary while it was judged.
    pub(in crate::engine) highest: BasisPoints,
    /// Requests and errors of primary and canary.
    pub(in crate::engine) counts: [(u64, u64); 2],
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Ending {
    /// The canary became the primary.
    Promoted,
    /// The canary, or a person, ended it.
    RolledBack,
    /// The workload asked for the primary again.
    TakenBack,
    /// The workload asked for another revision.
    Replaced,
}

impl Ending {
    /// Returns its name in the API.
    pub(in crate::engine) const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled-back",
            Self::TakenBack => "taken-back",
            Self::Replaced => "replaced",
        }
    }

    /// Returns how the rollout of the state before ended, if the next one ends it, and why.
    pub(super) fn of<'a>(before: &State, next: &'a State) -> Option<(Self, &'a str)> {
        if !before.has_rollout() {
            return None;
        }
        match &next.phase {
            Phase::Failed { cause: Cause::RolledBack, reason, .. } => Some((Self::RolledBack, reason)),
            Phase::Failed { cause: Cause::TakenBack, reason, .. } => Some((Self::TakenBack, reason)),
            Phase::Finalising { .. } | Phase::Succeeded { .. } => Some((Self::Promoted, "")),
            Phase::Waiting(_) | Phase::Progressing(_)
                if before.rollout != next.rollout && !matches!(before.phase, Phase::Waiting(_)) =>
            {
                Some((Self::Replaced, ""))
            }
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_) => None,
        }
    }
}

impl Chronicle {
    /// Takes a rollout in that has ended.
    pub(super) fn ended(&mut self, past: Past) {
        if self.past.len() >= MAX_PAST {
            self.past.pop_front();
        }
        let reason = ForeignText::new(&past.reason, MAX_REASON_LEN).into_string();
        self.past.push_back(Past { reason, ..past });
    }
}

impl Tally {
    fn merge(&mut self, counts: &Counts) {
        self.requests = self.requests.saturating_add(counts.judged_and_hangs());
        self.errors = self.errors.saturating_add(counts.errors_and_hangs());
        self.latency.merge(&counts.latency);
    }

    fn sample(&self) -> Sample {
        let micros = |q| self.latency.quantile(q).and_then(|(low, high)| u32::try_from(low.midpoint(high)).ok());
        Sample { requests: self.requests, errors: self.errors, micros: QUANTILES.map(micros) }
    }
}

impl Sample {
    /// Returns both together. Quantiles become their mean, by requests: those of the sum are not known any more.
    fn and(self, next: Self) -> Self {
        let scaled =
            |micros: Option<u32>, requests: u64| micros.map(|micros| (u128::from(micros), u128::from(requests)));
        let mean = |before, after| match (scaled(before, self.requests), scaled(after, next.requests)) {
            (Some((before, m)), Some((after, n))) => {
                u32::try_from((before * m + after * n).checked_div(m + n).unwrap_or(before)).ok()
            }
            (Some(_), None) => before,
            (None, _) => after,
        };
        let [(p50, q50), (p90, q90), (p99, q99)] = [0, 1, 2]
            .map(|place: usize| (self.micros.get(place).copied().flatten(), next.micros.get(place).copied().flatten()));
        Self {
            requests: self.requests.saturating_add(next.requests),
            errors: self.errors.saturating_add(next.errors),
            micros: [mean(p50, q50), mean(p90, q90), mean(p99, q99)],
        }
    }
}

impl Point {
    fn and(self, next: Self) -> Self {
        Self {
            end: next.end,
            weight: next.weight,
            harm: highest(self.harm, next.harm),
            primary: self.primary.and(next.primary),
            canary: self.canary.and(next.canary),
        }
    }
}

fn highest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, None) => a,
        (None, b) => b,
    }
}

impl Open {
    fn new(began: Timestamp) -> Self {
        Self { began, harm: None, primary: Tally::default(), canary: Tally::default() }
    }

    fn point(&self, weight: BasisPoints, now: Timestamp) -> Point {
        Point { end: now, weight, harm: self.harm, primary: self.primary.sample(), canary: self.canary.sample() }
    }
}

impl Timeline {
    pub(super) fn new(rollout: RolloutId, now: Timestamp) -> Self {
        Self { rollout, began: now, span: FIRST_SPAN, points: Vec::new(), open: Open::new(now) }
    }

    /// Returns all points, with what is known of the one that is not over where the rollout goes on.
    pub(in crate::engine) fn points(&self, open: Option<(BasisPoints, Timestamp)>) -> impl Iterator<Item = Point> + '_ {
        let open = open.filter(|(_, now)| *now > self.open.began).map(|(weight, now)| self.open.point(weight, now));
        // One that has just begun tells nothing yet.
        let tells = |point: &Point| point.primary.requests > 0 || point.canary.requests > 0 || self.points.is_empty();
        self.points.iter().copied().chain(open.filter(tells))
    }

    pub(super) fn observe(&mut self, batch: &Batch) {
        self.open.primary.merge(batch.judged.arm(Arm::Primary));
        self.open.canary.merge(batch.judged.arm(Arm::Canary));
    }

    /// Notes how far the evidence is, and ends the point if it is over.
    pub(super) fn sample(&mut self, weight: BasisPoints, harm: Option<f64>, now: Timestamp) {
        self.open.harm = highest(self.open.harm, harm);
        if now.since(self.open.began) >= self.span {
            self.close(weight, now);
        }
    }

    /// Ends the point.
    pub(super) fn close(&mut self, weight: BasisPoints, now: Timestamp) {
        if now <= self.open.began {
            return;
        }
        let open = std::mem::replace(&mut self.open, Open::new(now));
        if self.points.len() >= MAX_POINTS {
            self.halve();
        }
        self.points.push(open.point(weight, now));
    }

    fn halve(&mut self) {
        self.span = self.span.times(2);
        let pairs = self.points.chunks(2).filter_map(|pair| match pair {
            [first, second] => Some(first.and(*second)),
            [last] => Some(*last),
            _ => None,
        });
        self.points = pairs.collect();
    }
}

impl Timeline {
    /// Ends with the rollout. Returns the highest share that it shows.
    pub(super) fn end(&mut self, before: &State, harm: Option<f64>, now: Timestamp) -> BasisPoints {
        let weight = project(before).routes.canary_weight();
        if before.is_judged() {
            self.open.harm = highest(self.open.harm, harm);
        }
        self.close(weight, now);
        self.points.iter().map(|point| point.weight).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_points_together_have_the_requests_of_both_and_the_mean_of_their_quantiles() {
        let sample = |requests, errors, micros: [Option<u32>; 3]| Sample { requests, errors, micros };
        let (quick, slow) = (sample(30, 1, [Some(100); 3]), sample(10, 2, [Some(500), None, Some(900)]));
        assert_eq!(quick.and(slow), sample(40, 3, [Some(200), Some(100), Some(300)]));
        assert_eq!(Sample::default().and(quick), quick);
        assert_eq!(quick.and(Sample::default()), quick);
        let most = sample(u64::MAX, u64::MAX, [Some(u32::MAX); 3]);
        assert_eq!(most.and(most), most);
    }
}
