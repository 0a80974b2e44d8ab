//! The hard guard: a canary that is broken outright, from its first request.
//!
//! Two tests share its part of α in halves, decided in advance; their average is an e-process as both are:
//!
//! - **far worse**: the canary fails at most [`RATIO`] times as often as the primary. Where the canary has few of the
//!   requests, ten of its failures are enough. At a weight of 50 % each adds 0.1 only: a primary that failed in one
//!   request of ten would be tolerated beside a canary that fails all, and to rule that out takes a hundred requests of
//!   the primary, whatever the canary does.
//!   It takes errors as they arrive, a worker's regular report or not.
//! - **mostly failing**: the canary fails at most half of its requests, or does no worse than the primary. For this both
//!   have to be ruled out, so it takes the smaller of two e-values. It takes 16 to 20 failures in a row at any weight. An
//!   outage that both arms share, and a primary that mostly fails too, are no harm to it. That the canary does worse shows
//!   in failures, of which it has more than the primary (times `MARGIN`), or in successes, of which the primary has more
//!   than the canary (times `FEWER`): where the canary has most of the requests, it would have most of the failures anyway,
//!   and the few successes of the primary say more. Both are tested, in halves.

use serde::{Deserialize, Serialize};

use super::baseline::Arm;
use super::config::Comparison;
use super::dispersion::Dispersion;
use super::power::Power;
use super::sequential::{LimitTest, RatioTest, Split, ln_add};
use super::window::Arms;
use crate::time::Span;
use crate::weight::BasisPoints;

/// The canary may be this much worse before the guard looks at it.
pub const RATIO: f64 = 10.0;

/// Without a primary beside it, a canary may fail so often.
pub(crate) const MAX_ERROR_RATE: f64 = 0.5;

/// Up to this share of a canary's responses may stand still, whatever the primary's do.
const STALLS_FLOOR: f64 = 0.05;
/// A canary that mostly fails may fail so many times as often as the primary.
const MARGIN: f64 = 1.25;
/// And the primary may succeed so many times as often.
const FEWER: f64 = 2.0;

/// Bursts beyond this length count as more than one error to the guard.
const MAX_BURST: f64 = 4.0;

/// The error test with a wide tolerance, in which a hang is an error as soon as it is one (P1), and beside it one of
/// canaries that mostly fail.
///
/// Both are relative to the primary in the same window: "more than half of twenty" would fire on a
/// healthy canary where base errors are high or come in bursts (P15). They run in warm-up and in
/// every kind of comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    far_worse: RatioTest,
    mostly_failing: MostlyFailing,
}

/// A batch as the guard sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardInput<'a> {
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
    /// Of successes, with the arms exchanged.
    #[serde(default = "successes")]
    successes: RatioTest,
    limit: LimitTest,
}

fn successes() -> RatioTest {
    RatioTest::outright(FEWER)
}

impl Default for Guard {
    fn default() -> Self {
        Self { far_worse: RatioTest::harm(RATIO), mostly_failing: MostlyFailing::default() }
    }
}

impl Guard {
    /// Takes in a batch, whose errors come in bursts of `burst`. `power` notes what a canary that always
    /// fails would have come to.
    pub(crate) fn observe(&mut self, arrived: &GuardInput<'_>, burst: f64, span: Span, power: &mut Power) {
        let (split, burst) = (arrived.split(), believed(burst));
        let test = &mut self.far_worse;
        let bases = split.compares().then(|| test.bases(split));
        if let Some(bases) = &bases {
            power.observe(bases, split, burst, 0.0, 1.0);
        }
        test.observe_by(bases.as_ref(), split, burst, span);
        // Nothing to compare with is no excuse for a canary that fails more often than not.
        self.mostly_failing.observe(with_hangs(arrived.complete), Some(MAX_ERROR_RATE), burst, span);
    }

    /// Returns ln of the weight that an alternative of the test with the wide tolerance has in its first copy.
    pub(crate) fn first_weight(&self) -> f64 {
        self.far_worse.first_weight() - core::f64::consts::LN_2
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        ln_add(self.far_worse.evidence(), self.mostly_failing.evidence()) - core::f64::consts::LN_2
    }
}

impl GuardInput<'_> {
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

impl Default for MostlyFailing {
    fn default() -> Self {
        Self {
            ratio: RatioTest::harm_or_single(MARGIN),
            successes: successes(),
            limit: LimitTest::above(MAX_ERROR_RATE),
        }
    }
}

impl MostlyFailing {
    /// Returns ln E of the smaller of both.
    fn evidence(&self) -> f64 {
        let limit = self.limit.evidence();
        let enough = limit + core::f64::consts::LN_2;
        // Where all is well, the limit says least.
        if self.ratio.is_above(enough) || self.successes.is_above(enough) {
            return limit;
        }
        limit.min(ln_add(self.ratio.evidence(), self.successes.evidence()) - core::f64::consts::LN_2)
    }

    /// `alone` is the share that may be bad of a batch without any request of the primary, if something is known of it.
    fn observe(&mut self, split: Split, alone: Option<f64>, burst: f64, span: Span) {
        match alone.filter(|_| split.primary == 0) {
            Some(limit) => self.ratio.observe_single(split.canary_bad, split.canary, limit, burst, span),
            None => self.ratio.observe_in_bursts(split, burst, span),
        }
        self.successes.observe_in_bursts(succeeded(split), burst, span);
        self.limit.observe_in_bursts(split.canary_bad, split.canary, burst, span);
    }
}

/// Returns the successes of both arms, exchanged: what a test of failures says of the canary, it says of the primary.
const fn succeeded(split: Split) -> Split {
    Split {
        canary_bad: split.primary.saturating_sub(split.primary_bad),
        canary: split.primary,
        primary_bad: split.canary.saturating_sub(split.canary_bad),
        primary: split.canary,
    }
}

/// Responses that begin and then stand still: the same comparison, of another kind of hang.
///
/// A quiet stream stands still too, and what it is shows only when it ends. So these are held apart from hangs, which are
/// none for certain, and the canary's share is held against the primary's: a service whose responses are quiet in both
/// arms is never blamed. The two tests are those of the guard, halves again. The tolerance of the first is as wide: after a
/// step to a smaller weight the canary's responses that began before it still come to a stand. Below a share, standing
/// still is no harm by itself: a revision may bring streams of its own.
///
/// Where the primary has no requests beside the canary's, at the full share above all, the measure is what it did before.
/// As long as that is not known well enough, some forty requests, nothing is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stalls {
    #[serde(alias = "ratio")]
    far_worse: RatioTest,
    floor: LimitTest,
    /// Evidence that was written down without it has no part in it; so with the next one.
    #[serde(default)]
    mostly: MostlyFailing,
    /// The primary's responses, with those that stood still, and how bursty these were.
    #[serde(default)]
    primary: Arm,
    #[serde(default)]
    bursts: Dispersion,
}

impl Default for Stalls {
    fn default() -> Self {
        Self {
            far_worse: RatioTest::harm(RATIO),
            floor: LimitTest::above(STALLS_FLOOR),
            mostly: MostlyFailing::default(),
            primary: Arm::default(),
            bursts: Dispersion::default(),
        }
    }
}

impl Stalls {
    /// ln of the share that stalls have of the guard's mixture: a tenth. Hangs and errors, which are most of what
    /// breaks, are found nearly as soon as alone.
    const LN_SHARE: f64 = -core::f64::consts::LN_10;
    /// ln of what is left: 0.9.
    const LN_REST: f64 = -0.105_360_515_657_826_28;

    /// Takes in a batch.
    pub(crate) fn observe(&mut self, arms: &Arms, comparison: Comparison, span: Span) {
        let (split, burst) = (stalled(arms), believed(self.bursts.factor()));
        let beside = match comparison {
            Comparison::Randomised | Comparison::Affinity => split,
            // What the primary still answers began before the switch.
            Comparison::BeforeAfter => Split { primary_bad: 0, primary: 0, ..split },
            // Others call the primary, and may have no streams.
            Comparison::Absolute => Split { canary_bad: 0, canary: 0, ..split },
        };
        self.far_worse.observe_in_bursts(beside, burst, span);
        self.floor.observe(beside.canary_bad, beside.canary, span);
        self.mostly.observe(beside, self.bearable_alone(), burst, span);
        if comparison != Comparison::BeforeAfter {
            self.primary.add(split.primary_bad, split.primary);
            self.bursts.observe(split.primary_bad, split.primary, span);
        }
    }

    /// Returns the share of responses that may stand still without any of the primary beside them; nothing where the
    /// primary did so too often before, or where too little is known of it.
    fn bearable_alone(&self) -> Option<f64> {
        let limit = (RATIO * self.primary.cautious_rate()).max(MAX_ERROR_RATE);
        (limit < 1.0).then_some(limit)
    }

    /// Returns ln E of both tests, each of which blames nobody for what its own floor allows.
    fn evidence(&self) -> f64 {
        ln_add(self.far_worse.evidence_with(&self.floor), self.mostly.evidence()) - core::f64::consts::LN_2
    }

    /// Returns ln E of both: their weighted mean, which is an e-process again.
    pub(crate) fn evidence_with(&self, guard: &Guard) -> f64 {
        ln_add(Self::LN_REST + guard.evidence(), Self::LN_SHARE + self.evidence())
    }

    /// Returns the evidence that the guard needs alone where both together need `limit`.
    pub(crate) fn guard_threshold(limit: f64) -> f64 {
        limit - Self::LN_REST
    }

    /// Returns true if stalls say more than errors and hangs.
    pub(crate) fn dominate(&self, guard: &Guard) -> bool {
        Self::LN_SHARE + self.evidence() > Self::LN_REST + guard.evidence()
    }
}

/// Returns the responses of both arms that stand still.
pub(crate) fn stalled(arms: &Arms) -> Split {
    Split {
        canary_bad: arms.canary.stalled,
        canary: arms.canary.judged_and_stalled(),
        primary_bad: arms.primary.stalled,
        primary: arms.primary.judged_and_stalled(),
    }
}

/// Returns the burst that the guard allows for: a canary that is broken outright is to be gone within a second also where
/// errors come in long bursts.
pub(crate) const fn believed(burst: f64) -> f64 {
    burst.min(MAX_BURST)
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

/// Where the limit of errors comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LimitFrom {
    /// The document.
    #[default]
    Document,
    /// What the primary failed before, several times.
    Before,
    /// What must be detected at least.
    MustDetect,
    /// What a canary may fail without any primary.
    #[serde(rename = "MostBearable")]
    MaxErrorRate,
}
