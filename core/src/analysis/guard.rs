//! The hard guard: a canary that is broken outright, from its first request.

use serde::{Deserialize, Serialize};

use super::power::Power;
use super::sequential::{LimitTest, RatioTest, Split, ln_add};
use super::window::Arms;
use crate::time::Span;

/// The canary may be this much worse before the guard looks at it.
pub const RATIO: f64 = 10.0;

/// Without a primary beside it, a canary may fail so often.
pub(crate) const MOST_BEARABLE: f64 = 0.5;

/// Up to this share of a canary's responses may stand still, whatever the primary's do.
const STALLS_FLOOR: f64 = 0.05;

/// Bursts beyond this length count as more than one error to the guard.
const LONGEST_BURST: f64 = 4.0;

/// The error test with a wide tolerance, in which a hang is an error as soon as it is one (P1).
///
/// It is relative to the primary in the same window: "more than half of twenty" would fire on a
/// healthy canary where base errors are high or come in bursts (P15). It runs in warm-up and in
/// every kind of comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard(RatioTest);

impl Default for Guard {
    fn default() -> Self {
        Self(RatioTest::harm(RATIO))
    }
}

impl Guard {
    /// Takes in a batch of one stratum, whose errors come in bursts of `burst`. `power` notes what a canary that always
    /// fails would have come to.
    pub(crate) fn observe(&mut self, arms: &Arms, burst: f64, span: Span, power: &mut Power) {
        let (split, burst) = (with_hangs(arms), believed(burst));
        let bases = split.compares().then(|| self.0.bases(split));
        if let Some(bases) = &bases {
            power.observe(bases, split, burst, 0.0, 1.0);
        }
        if split.primary == 0 && split.canary > 0 {
            // Nothing to compare with is no excuse for a canary that fails more often than not.
            self.0.observe_alone(split.canary_bad, split.canary, MOST_BEARABLE, burst, span);
        } else {
            self.0.observe_by(bases.as_ref(), split, burst, span);
        }
    }

    /// Returns the test behind the guard.
    pub(crate) const fn test(&self) -> &RatioTest {
        &self.0
    }

    /// Returns ln E.
    pub fn evidence(&self) -> f64 {
        self.0.evidence()
    }
}

/// Responses that begin and then stand still: the same comparison, of another kind of hang.
///
/// A quiet stream stands still too, and what it is shows only when it ends. So these are held apart from hangs, which are
/// none for certain, and only the arms' shares are compared: a service whose responses are quiet in both arms is never
/// blamed. The tolerance is as wide as the guard's: after a step to a smaller weight the canary's responses that began
/// before it still come to a stand. Below a share, standing still is no harm by itself: a revision may bring streams
/// of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stalls {
    ratio: RatioTest,
    floor: LimitTest,
}

impl Default for Stalls {
    fn default() -> Self {
        Self { ratio: RatioTest::harm(RATIO), floor: LimitTest::above(STALLS_FLOOR) }
    }
}

impl Stalls {
    /// ln of the share that stalls have of the guard's mixture: a tenth. Hangs and errors, which are most of what
    /// breaks, are found nearly as soon as alone.
    const LN_SHARE: f64 = -core::f64::consts::LN_10;
    /// ln of what is left: 0.9.
    const LN_REST: f64 = -0.105_360_515_657_826_28;

    /// Takes in a batch of arms that may be compared.
    pub(crate) fn observe(&mut self, arms: &Arms, burst: f64, span: Span) {
        let split = stalled(arms);
        self.ratio.observe_in_bursts(split, believed(burst), span);
        self.floor.observe(split.canary_bad, split.canary, span);
    }

    /// Returns ln E of the smaller of both: nobody is blamed for what either test allows.
    fn evidence(&self) -> f64 {
        self.ratio.evidence_with(&self.floor)
    }

    /// Returns ln E of both: their weighted mean, which is an e-process again.
    pub(crate) fn evidence_with(&self, guard: &Guard) -> f64 {
        ln_add(Self::LN_REST + guard.evidence(), Self::LN_SHARE + self.evidence())
    }

    /// Returns the evidence that the guard needs alone where both together need `limit`.
    pub(crate) fn guard_alone(limit: f64) -> f64 {
        limit - Self::LN_REST
    }

    /// Returns true if stalls say more than errors and hangs.
    pub(crate) fn speak_loudest(&self, guard: &Guard) -> bool {
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
