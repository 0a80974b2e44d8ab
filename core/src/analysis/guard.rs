//! The hard guard: a canary that is broken outright, from its first request.
//!
//! Two tests share its part of α in halves, decided in advance; their average is an e-process as both are:
//!
//! - **far worse**: the canary fails at most [`RATIO`] times as often as the primary. Where the canary has few of the
//!   requests, ten of its failures are enough. At a weight of 50 % each adds 0.1 only: a primary that failed in one
//!   request of ten would be tolerated beside a canary that fails all, and to rule that out takes a hundred requests of
//!   the primary, whatever the canary does.
//!   It takes errors as they arrive, a worker's regular report or not.
//! - **mostly failing**: the canary fails at most half of its requests, or no more often than the primary (times
//!   [`MARGIN`]). For this both have to be ruled out, so it takes the smaller of two e-values. It takes 16 to 20 failures
//!   in a row at any weight. An outage that both arms share, and a primary that mostly fails too, are no harm to it.

use serde::{Deserialize, Serialize};

use super::power::Power;
use super::sequential::{LimitTest, RatioTest, Split, ln_add};
use super::window::Arms;
use crate::time::Span;
use crate::weight::BasisPoints;

/// The canary may be this much worse before the guard looks at it.
pub const RATIO: f64 = 10.0;

/// Without a primary beside it, a canary may fail so often.
pub(crate) const MOST_BEARABLE: f64 = 0.5;

/// A canary that mostly fails may fail so many times as often as the primary.
const MARGIN: f64 = 1.25;

/// Bursts beyond this length count as more than one error to the guard.
const LONGEST_BURST: f64 = 4.0;

/// The error test with a wide tolerance, in which a hang is an error as soon as it is one (P1), and beside it one of
/// canaries that mostly fail.
///
/// Both are relative to the primary in the same window: "more than half of twenty" would fire on a
/// healthy canary where base errors are high or come in bursts (P15). They run in warm-up and in
/// every kind of comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenGuard")]
pub struct Guard {
    far_worse: RatioTest,
    mostly_failing: MostlyFailing,
}

/// A [`Guard`] as it was written down.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenGuard {
    Both {
        far_worse: RatioTest,
        mostly_failing: MostlyFailing,
    },
    /// By a judge that had the first test only.
    FarWorse(RatioTest),
}

impl From<WrittenGuard> for Guard {
    fn from(written: WrittenGuard) -> Self {
        match written {
            WrittenGuard::Both { far_worse, mostly_failing } => Self { far_worse, mostly_failing },
            WrittenGuard::FarWorse(far_worse) => Self { far_worse, ..Self::default() },
        }
    }
}

/// A batch of one stratum as the guard sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// All that has arrived, errors ahead of their requests.
    pub(crate) all: &'a Arms,
    /// What is complete.
    pub(crate) complete: &'a Arms,
    /// True if something came ahead.
    pub(crate) ahead: bool,
    /// The canary's share where it divides the requests, or zero.
    pub(crate) weight: BasisPoints,
}

/// Evidence that the canary fails more than half of its requests, and more often than the primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MostlyFailing {
    ratio: RatioTest,
    limit: LimitTest,
}

impl Default for Guard {
    fn default() -> Self {
        let mostly_failing = MostlyFailing { ratio: RatioTest::harm(MARGIN), limit: LimitTest::above(MOST_BEARABLE) };
        Self { far_worse: RatioTest::harm(RATIO), mostly_failing }
    }
}

impl Guard {
    /// Takes in a batch of one stratum, whose errors come in bursts of `burst`. `power` notes what a canary that always
    /// fails would have come to.
    pub(crate) fn observe(&mut self, arrived: &Arrived<'_>, burst: f64, span: Span, power: &mut Power) {
        let (split, burst) = (arrived.split(), believed(burst));
        let test = &mut self.far_worse;
        let bases = split.compares().then(|| test.bases(split));
        if let Some(bases) = &bases {
            power.observe(bases, split, burst, 0.0, 1.0);
        }
        if split.primary == 0 && split.canary > 0 {
            // Nothing to compare with is no excuse for a canary that fails more often than not.
            test.observe_alone(split.canary_bad, split.canary, MOST_BEARABLE, burst, span);
        } else {
            test.observe_by(bases.as_ref(), split, burst, span);
        }
        self.mostly_failing.observe(with_hangs(arrived.complete), burst, span);
    }

    /// Returns ln of the weight that an alternative of the test with the wide tolerance has in its first copy.
    pub(crate) fn first_weight(&self) -> f64 {
        self.far_worse.first_weight() - core::f64::consts::LN_2
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        let mostly_failing = self.mostly_failing.ratio.evidence_with(&self.mostly_failing.limit);
        ln_add(self.far_worse.evidence(), mostly_failing) - core::f64::consts::LN_2
    }
}

impl Arrived<'_> {
    /// Returns what the far wider test looks at. Errors that came ahead are held against as many requests of the canary as
    /// its share lets expect beside those of the primary, since the reports that tell of them are on their way: more
    /// requests are a wider tolerance, which is never wrong.
    fn split(&self) -> Split {
        let split = with_hangs(self.all);
        if !self.ahead || self.weight.is_zero() || self.weight >= BasisPoints::FULL || split.canary == 0 {
            return split;
        }
        let weight = u64::from(self.weight.get());
        let rest = u64::from(BasisPoints::FULL.get()).saturating_sub(weight);
        let expected = split.primary.saturating_mul(weight).checked_div(rest).unwrap_or(split.canary);
        Split { canary: split.canary.max(expected), ..split }
    }
}

impl MostlyFailing {
    fn observe(&mut self, split: Split, burst: f64, span: Span) {
        self.ratio.observe_in_bursts(split, burst, span);
        self.limit.observe_in_bursts(split.canary_bad, split.canary, burst, span);
    }
}

/// Returns the burst that the guard allows for: a canary that is broken outright is to be gone within a second also where
/// errors come in long bursts.
pub(crate) const fn believed(burst: f64) -> f64 {
    burst.min(LONGEST_BURST)
}

/// Returns errors and hangs of both arms.
pub(crate) fn with_hangs(arms: &Arms) -> Split {
    Split {
        canary_bad: arms.canary.errors_and_hangs(),
        canary: arms.canary.judged_and_hangs(),
        primary_bad: arms.primary.errors_and_hangs(),
        primary: arms.primary.judged_and_hangs(),
    }
}
