//! Whether the canary fails most requests right now. To decide on that takes some twenty of them; to wait with the next step
//! until it is decided takes a few.

use serde::{Deserialize, Serialize};

use crate::analysis::guard::{stalled, with_hangs};
use crate::analysis::window::Arms;
use crate::time::{Span, Timestamp};

/// Canary requests that fail or stall, from which on an outage is likely. A canary that fails 1 % comes to that in windows of
/// one request each once in 10¹⁰ windows.
const FEW: u64 = 5;

/// An outage is in doubt for so long, from when it is likely: what fails everything is decided on by then, with ten requests a
/// second. What is not is no outage, or nodes contradict each other: that holds nothing up for longer.
const IN_DOUBT_FOR: Span = Span::from_secs(5);

/// So many of the primary's latest requests, at least, say what is usual. Older ones count half beyond twice as many.
const USUAL: u64 = 64;

/// Canary requests that failed or stalled in the latest windows, since one in which most did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outage {
    failed: u64,
    /// Since when it is likely.
    likely: Option<Timestamp>,
    /// The primary's latest requests, and those of them that failed or stalled.
    primary: u64,
    primary_failed: u64,
}

impl Outage {
    /// Takes in a window, which ends at this time. One without canary requests says nothing.
    pub(super) fn observe(&mut self, arms: &Arms, end: Timestamp) {
        let (broken, stalled) = (with_hangs(arms), stalled(arms));
        self.primary = self.primary.saturating_add(broken.primary).saturating_add(stalled.primary_bad);
        self.primary_failed =
            self.primary_failed.saturating_add(broken.primary_bad).saturating_add(stalled.primary_bad);
        while self.primary > 2 * USUAL {
            (self.primary, self.primary_failed) = (self.primary / 2, self.primary_failed / 2);
        }
        // Responses that stand still are usual where they are streams. Of a primary that nobody has seen it is not known.
        let stalled = if self.primary == 0 { 0 } else { stalled.canary_bad };
        let (failed, all) = (broken.canary_bad.saturating_add(stalled), broken.canary.saturating_add(stalled));
        if all == 0 {
            return;
        }
        if is_most(failed, all) && !is_most(self.primary_failed, self.primary) {
            self.failed = self.failed.saturating_add(failed);
            if self.failed >= FEW {
                self.likely.get_or_insert(end);
            }
        } else {
            (self.failed, self.likely) = (0, None);
        }
    }

    /// Returns true while it is likely, and not for so long that it would have been decided on.
    pub(super) fn is_in_doubt(&self, now: Timestamp) -> bool {
        self.likely.is_some_and(|since| now.since(since) <= IN_DOUBT_FOR)
    }
}

const fn is_most(failed: u64, all: u64) -> bool {
    failed.saturating_mul(2) > all
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::counts::Counts;
    use crate::outcome::Outcome;

    const WINDOW: Span = Span::from_millis(200);

    fn counts(succeed: u64, fail: u64, stalled: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[Outcome::Success.index()] = succeed;
        outcomes[Outcome::ServerFault.index()] = fail;
        let finished = succeed + fail;
        Counts { started: finished + stalled, finished, outcomes, stalled, ..Counts::default() }
    }

    /// Windows of a primary and a canary. Returns the number of windows after each of which there was doubt.
    fn doubted(windows: &[(Counts, Counts)]) -> usize {
        let (mut outage, mut now) = (Outage::default(), Timestamp::from_millis(1_000));
        let mut doubted = 0;
        for (primary, canary) in windows {
            now = now.plus(WINDOW);
            outage.observe(&Arms { primary: primary.clone(), canary: canary.clone() }, now);
            doubted += usize::from(outage.is_in_doubt(now));
        }
        doubted
    }

    #[test]
    fn it_ends_with_the_failures_or_after_a_time() {
        let (ok, nothing) = (counts(8, 0, 0), counts(0, 0, 0));
        for bad in [counts(0, 3, 0), counts(0, 0, 3)] {
            let healthy = vec![(ok.clone(), ok.clone()); 5];
            let with = |more: &[(Counts, Counts)]| [&healthy[..], more].concat();
            assert_eq!(doubted(&with(&[(ok.clone(), bad.clone())])), 0, "3 are too few");
            let failing = vec![(ok.clone(), bad.clone()); 2];
            assert_eq!(doubted(&with(&failing)), 1);
            assert_eq!(doubted(&[with(&failing), healthy.clone()].concat()), 1, "it recovers");
            let silent = vec![(ok.clone(), nothing.clone()); 100];
            let for_so_long = 1 + usize::try_from(IN_DOUBT_FOR.as_millis() / WINDOW.as_millis()).unwrap();
            assert_eq!(doubted(&[with(&failing), silent].concat()), for_so_long, "nobody asks any more");
            assert_eq!(doubted(&with(&vec![(ok.clone(), bad); 100])), for_so_long, "others contradict it");
        }
    }

    #[test]
    fn what_the_primary_does_too_is_none() {
        let (stream, fails) = (counts(0, 0, 8), counts(0, 8, 0));
        assert_eq!(doubted(&vec![(stream.clone(), stream.clone()); 50]), 0, "streams stand still");
        assert_eq!(doubted(&vec![(fails.clone(), fails.clone()); 50]), 0);
        // Arms in turn, as with a request now and then.
        let turns = [(stream.clone(), counts(0, 0, 0)), (counts(0, 0, 0), stream.clone())];
        assert_eq!(doubted(&turns.iter().cloned().cycle().take(100).collect::<Vec<_>>()), 0);
        // All to the canary: what the primary did before is remembered.
        let switched = [vec![(stream.clone(), counts(0, 0, 0)); 5], vec![(counts(0, 0, 0), stream.clone()); 50]];
        assert_eq!(doubted(&switched.concat()), 0);
        assert_eq!(doubted(&vec![(counts(0, 0, 0), stream); 50]), 0, "nothing is known of the primary");
        assert!(doubted(&vec![(counts(0, 0, 0), fails); 5]) > 0, "failures are failures");
    }
}
