//! Requests that may speak for safety.
//!
//! Of a new arm only the short requests have finished: by what finished, a canary that is half as slow again looks
//! safe in four of five rollouts whose requests take a second (P2). So both arms are compared by when requests began,
//! and only those count whose whole cohort is closed: finished, or known to be too slow.

use crate::counts::Counts;
use crate::histogram::Histogram;

use super::sequential::Split;
use super::window::Arms;

/// Requests of both arms of which all contemporaries are known too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed<'a> {
    /// What the primary served.
    pub primary: ClosedArm<'a>,
    /// What the canary served.
    pub canary: ClosedArm<'a>,
}

/// Those of one arm, as in [`Cohorts`](crate::counts::Cohorts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedArm<'a> {
    /// Requests that ended in a way that says something about the upstream.
    pub finished: u64,
    /// Of these, the errors.
    pub errors: u64,
    /// Requests that are known to be too slow, however they end.
    pub overdue: u64,
    /// Latencies of the finished.
    pub latency: &'a Histogram,
}

impl<'a> Closed<'a> {
    /// Returns what filters reported as closed.
    pub const fn cohorts(arms: &'a Arms) -> Self {
        Self { primary: reported(&arms.primary), canary: reported(&arms.canary) }
    }

    /// Takes all that finished for closed: true of recordings, whose lines are whole. Elsewhere it is for show.
    pub fn finished(arms: &'a Arms) -> Self {
        Self { primary: whole(&arms.primary), canary: whole(&arms.canary) }
    }

    /// Returns the errors of both arms. What is known to be too slow may still fail.
    pub(crate) fn errors(&self) -> Split {
        let all = |arm: &ClosedArm<'_>| arm.finished.saturating_add(arm.overdue);
        Split {
            canary_bad: self.canary.errors.saturating_add(self.canary.overdue),
            canary: all(&self.canary),
            primary_bad: self.primary.errors,
            primary: all(&self.primary),
        }
    }
}

const fn reported(counts: &Counts) -> ClosedArm<'_> {
    let closed = &counts.cohorts;
    ClosedArm { finished: closed.finished, errors: closed.errors, overdue: closed.overdue, latency: &closed.latency }
}

fn whole(counts: &Counts) -> ClosedArm<'_> {
    ClosedArm {
        finished: counts.judged(),
        errors: counts.errors(),
        overdue: counts.overdue.saturating_sub(counts.overdue_finished),
        latency: &counts.latency,
    }
}
