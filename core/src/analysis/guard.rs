//! The hard guard: a canary that is broken outright, from its first request.

use serde::{Deserialize, Serialize};

use super::power::Power;
use super::sequential::{RatioTest, Split};
use super::window::Arms;
use crate::time::Span;

/// The canary may be this much worse before the guard looks at it.
pub const RATIO: f64 = 10.0;

/// Without a primary beside it, a canary may fail so often.
pub(crate) const MOST_BEARABLE: f64 = 0.5;

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
