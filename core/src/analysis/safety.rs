//! Requests that may speak for safety.
//!
//! Of a new arm only the short requests have finished: by what finished, a canary that is half as slow again looks
//! safe in four of five rollouts whose requests take a second (P2). So both arms are compared by when requests began,
//! and only those count whose whole cohort is closed: finished, or known to be too slow.

use crate::counts::{Cohorts, Counts};
use crate::histogram::Histogram;

use super::sequential::Split;
use super::window::Arms;

/// Requests of both arms of which all contemporaries are known too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// What the primary served.
    pub primary: Cohorts,
    /// What the canary served.
    pub canary: Cohorts,
}

impl Closed {
    /// Returns what filters reported as closed.
    pub fn cohorts(arms: &Arms) -> Self {
        Self { primary: arms.primary.cohorts.clone(), canary: arms.canary.cohorts.clone() }
    }

    /// Takes all that finished for closed: true of recordings, whose lines are whole. Elsewhere it is for show.
    pub fn finished(arms: &Arms) -> Self {
        Self { primary: whole(&arms.primary), canary: whole(&arms.canary) }
    }

    /// Returns the errors of both arms. What is known to be too slow may still fail.
    pub(crate) fn errors(&self) -> Split {
        let all = |arm: &Cohorts| arm.finished.saturating_add(arm.overdue);
        Split {
            canary_bad: self.canary.errors.saturating_add(self.canary.overdue),
            canary: all(&self.canary),
            primary_bad: self.primary.errors,
            primary: all(&self.primary),
        }
    }
}

fn whole(counts: &Counts) -> Cohorts {
    Cohorts {
        rev: counts.rev,
        finished: counts.judged(),
        errors: counts.errors(),
        overdue: counts.overdue.saturating_sub(counts.overdue_finished),
        latency: Histogram::clone(&counts.latency),
    }
}
