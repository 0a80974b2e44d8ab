//! Windows of one arm wait for the other.
//!
//! With little traffic, a window of 200 ms holds requests of one arm only, and the tests that compare arms learn nothing
//! from it: at one request a second, a canary that fails everything would never be found by them. So such a window is
//! held, together with those that follow, until the other arm has had requests too, and is given to the tests as one
//! batch.
//!
//! **Why the tests stay valid.** A batch is a factor whose expectation is at most 1, whatever its numbers of requests
//! are, as long as their errors are independent of these numbers (see
//! [`RatioTest`](super::sequential::RatioTest)). Whether to wait is decided by the clock and by which arm had requests,
//! never by what became of these; so the numbers of a batch that has waited are as good as those of one that has not.
//! What that adds to the assumptions: within a batch, the rates of both arms are compared though their requests may be
//! seconds apart. Hence the bounds below.
//!
//! **What does not wait**: a window with requests of both arms, and one whose arm had so many that the other is not just
//! late. Where there is traffic, nothing is put together and nothing is later than without. Totals, the primary's
//! baseline, pods and warm-up see every window at once.
//!
//! Limits: the last window before traffic stops waits for the next one, whenever that comes. A window that was held is
//! part of what is written down; a step that begins, also by a restart, does not wait for it.

use alloc::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::test_suite::BatchContext;
use super::window::Batch;
use crate::counts::Counts;
use crate::time::{Span, Timestamp};

/// So long a batch may become by waiting: beyond it, rates may be others.
const MAX_WAIT: Span = Span::from_secs(10);

/// An arm that has had so many requests, and the other none, does not wait for it.
const MAX_UNPAIRED_REQUESTS: u64 = 10;

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pairing {
    held: Option<Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    batch: Batch,
    standing: BatchContext,
    began: Timestamp,
}

/// A batch for the tests, with how it counts.
pub(crate) type Ready<'a> = (Cow<'a, Batch>, BatchContext);

/// Which arms had requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArmsWithTraffic {
    Neither,
    /// So many, all of one arm.
    Single(u64),
    Both,
}

impl Pairing {
    /// Takes in a window, and returns what the tests are to take in now, in this order.
    pub(crate) fn add<'a>(&mut self, batch: &'a Batch, standing: BatchContext) -> [Option<Ready<'a>>; 2] {
        let began = batch.end.minus(batch.span);
        let together = |held: &Held| held.standing == standing && batch.end.since(held.began) <= MAX_WAIT;
        let overtaken = if self.held.as_ref().is_some_and(together) { None } else { self.release() };
        let ready = match self.held.take() {
            Some(mut held) => {
                held.batch.extend(batch);
                if waits(&held.batch) {
                    self.held = Some(held);
                    None
                } else {
                    Some((Cow::Owned(held.batch), standing))
                }
            }
            None if waits(batch) => {
                self.held = Some(Held { batch: batch.clone(), standing, began });
                None
            }
            None => Some((Cow::Borrowed(batch), standing)),
        };
        [overtaken, ready]
    }

    /// Returns what waits, as it is.
    pub(crate) fn release(&mut self) -> Option<Ready<'static>> {
        self.held.take().map(|held| (Cow::Owned(held.batch), held.standing))
    }
}

/// Decides by numbers of requests alone.
fn waits(batch: &Batch) -> bool {
    waits_for(batch) || batch.complete.as_deref().is_some_and(waits_for)
}

fn waits_for(batch: &Batch) -> bool {
    match present(batch) {
        ArmsWithTraffic::Neither | ArmsWithTraffic::Both => false,
        ArmsWithTraffic::Single(requests) => requests < MAX_UNPAIRED_REQUESTS,
    }
}

fn present(batch: &Batch) -> ArmsWithTraffic {
    match (requests(&batch.judged.primary), requests(&batch.judged.canary)) {
        (0, 0) => ArmsWithTraffic::Neither,
        (0, alone) | (alone, 0) => ArmsWithTraffic::Single(alone),
        (_, _) => ArmsWithTraffic::Both,
    }
}

/// Counts requests whatever became of them. One that was told of while it was in flight may end in a window of its own.
const fn requests(counts: &Counts) -> u64 {
    if counts.started > counts.finished { counts.started } else { counts.finished }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::analysis::sequential::{RatioTest, Split};
    use crate::analysis::window::{Arms, WINDOW};
    use crate::outcome::Outcome;
    use crate::weight::BasisPoints;

    const NOBODY_NEW: BatchContext = BatchContext { warmup: false, shared_harm: false, weight: BasisPoints::ZERO };

    fn counts(requests: u64, errors: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[Outcome::Success.index()] = requests - errors;
        outcomes[Outcome::ServerFault.index()] = errors;
        Counts { started: requests, finished: requests, outcomes, ..Counts::default() }
    }

    fn window(number: u64, primary: u64, canary: u64) -> Batch {
        let end = Timestamp::from_millis(1_000_000).plus(WINDOW.times(number));
        let judged = Arms { primary: counts(primary, 0), canary: counts(canary, 0) };
        Batch { end, span: WINDOW, judged, ..Batch::default() }
    }

    /// The numbers of requests of what is released, window by window.
    fn released(windows: &[Batch]) -> Vec<(usize, u64, u64)> {
        let mut pairing = Pairing::default();
        let mut all = Vec::new();
        for (place, window) in windows.iter().enumerate() {
            let ready = pairing.add(window, NOBODY_NEW);
            all.extend(
                ready
                    .iter()
                    .flatten()
                    .map(|(batch, _)| (place, batch.judged.primary.started, batch.judged.canary.started)),
            );
        }
        all
    }

    #[test]
    fn windows_with_both_arms_pass_as_they_are() {
        let windows: Vec<Batch> = (1..=5).map(|number| window(number, 19, 1)).collect();
        let mut pairing = Pairing::default();
        for window in &windows {
            let [overtaken, ready] = pairing.add(window, NOBODY_NEW);
            assert_eq!((overtaken, ready), (None, Some((Cow::Borrowed(window), NOBODY_NEW))));
        }
    }

    #[test]
    fn a_window_of_one_arm_waits_for_the_other_and_no_longer_than_bounded() {
        let of = |numbers: &[(u64, u64, u64)]| {
            released(
                &numbers.iter().map(|(number, primary, canary)| window(*number, *primary, *canary)).collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&[(1, 0, 1), (2, 0, 2), (3, 0, 0), (4, 1, 0), (5, 0, 1)]), [(3, 1, 3)]);
        assert_eq!(of(&[(1, 0, 9), (2, 0, 1), (3, 200, 0)]), [(1, 0, 10), (2, 200, 0)], "nobody waits with ten");
        assert_eq!(of(&[(1, 0, 1), (50, 1, 0)]), [(1, 1, 1)], "ten seconds are not too long");
        assert_eq!(of(&[(1, 0, 1), (51, 1, 0), (52, 0, 3)]), [(1, 0, 1), (2, 1, 3)], "more are");
        assert_eq!(of(&[(1, 0, 0), (2, 0, 0)]), [(0, 0, 0), (1, 0, 0)], "time passes without requests");
    }

    #[test]
    fn warm_up_is_not_mixed_with_what_follows() {
        let warm = BatchContext { warmup: true, ..NOBODY_NEW };
        let mut pairing = Pairing::default();
        assert_eq!(pairing.add(&window(3, 0, 1), warm), [None, None]);
        let later = window(4, 1, 0);
        let [overtaken, ready] = pairing.add(&later, NOBODY_NEW);
        assert_eq!((overtaken.map(|(_, standing)| standing), ready), (Some(warm), None));
        assert_eq!(pairing.release().unwrap().0.judged.primary.started, 1);
        assert_eq!(pairing, Pairing::default());
    }

    /// The windows that go together, by places: each time, all that wait are gone through anew.
    fn naive(windows: &[(u64, u64, u64)]) -> Vec<Vec<usize>> {
        let (mut groups, mut waiting) = (Vec::new(), Vec::new());
        for (place, (number, _, _)) in windows.iter().enumerate() {
            let first = waiting.first().and_then(|first: &usize| windows.get(*first));
            if first.is_some_and(|(first, _, _)| (number - first + 1) * 200 > 10_000) {
                groups.push(core::mem::take(&mut waiting));
            }
            waiting.push(place);
            let sum = |of: fn(&(u64, u64, u64)) -> u64| waiting.iter().map(|place| of(&windows[*place])).sum::<u64>();
            let (primary, canary) = (sum(|window| window.1), sum(|window| window.2));
            let few = (primary == 0 && (1..10).contains(&canary)) || (canary == 0 && (1..10).contains(&primary));
            if !few {
                groups.push(core::mem::take(&mut waiting));
            }
        }
        groups
    }

    proptest! {
        #[test]
        fn what_is_released_is_what_a_naive_look_puts_together(
            windows in proptest::collection::vec((1_u64..30, 0_u64..4, 0_u64..4), 1..80),
        ) {
            let mut number = 0;
            let windows: Vec<(u64, u64, u64)> = windows
                .into_iter()
                // Mostly one after the other, and few with requests.
                .map(|(gap, primary, canary)| {
                    number += if gap > 25 { gap } else { 1 };
                    (number, primary.saturating_sub(2), canary.saturating_sub(2))
                })
                .collect();
            let sums = naive(&windows).into_iter().map(|group| {
                let sum = |of: fn(&(u64, u64, u64)) -> u64| group.iter().map(|place| of(&windows[*place])).sum::<u64>();
                (sum(|window| window.1), sum(|window| window.2), group.len() as u64)
            });
            let mut pairing = Pairing::default();
            let mut released = Vec::new();
            for &(number, primary, canary) in &windows {
                let window = window(number, primary, canary);
                let ready = pairing.add(&window, NOBODY_NEW);
                released.extend(ready.into_iter().flatten().map(|(batch, _)| {
                    let length = batch.span.as_millis() / WINDOW.as_millis();
                    (batch.judged.primary.started, batch.judged.canary.started, length)
                }));
            }
            prop_assert_eq!(sums.collect::<Vec<_>>(), released);
        }
    }

    /// Requests and errors of the primary and of the canary, with their chance.
    type Happening = ((u64, u64), (u64, u64), f64);

    /// What a window with at most one request of each arm may hold.
    fn outcomes(weight: f64, rates: (f64, f64)) -> Vec<Happening> {
        let request = |rate: f64| [(0, 1.0 - rate), (1, rate)];
        let primary = request(rates.0).map(|(bad, chance)| ((1, bad), (0, 0), 0.6 * (1.0 - weight) * chance));
        let canary = request(rates.1).map(|(bad, chance)| ((0, 0), (1, bad), 0.6 * weight * chance));
        let both = request(rates.0)
            .into_iter()
            .flat_map(|(p, chance)| request(rates.1).map(|(c, more)| ((1, p), (1, c), 0.1 * chance * more)));
        primary.into_iter().chain(canary).chain(both).chain([((0, 0), (0, 0), 0.3)]).collect()
    }

    /// The mean of E over all histories of so many windows, exactly.
    fn mean(test: &RatioTest, pairing: &Pairing, left: u64, weight: f64, rates: (f64, f64)) -> f64 {
        if left == 0 {
            return libm::exp(test.evidence());
        }
        let next = |((primary, primary_bad), (canary, canary_bad), chance)| {
            let (mut test, mut pairing) = (test.clone(), pairing.clone());
            let mut window = window(100 - left, 0, 0);
            window.judged = Arms { primary: counts(primary, primary_bad), canary: counts(canary, canary_bad) };
            for (batch, _) in pairing.add(&window, NOBODY_NEW).into_iter().flatten() {
                let (primary, canary) = (&batch.judged.primary, &batch.judged.canary);
                let split = Split {
                    canary_bad: canary.errors(),
                    canary: canary.judged(),
                    primary_bad: primary.errors(),
                    primary: primary.judged(),
                };
                test.observe(split, batch.span);
            }
            chance * mean(&test, &pairing, left - 1, weight, rates)
        };
        outcomes(weight, rates).into_iter().map(next).sum()
    }

    /// After any number of windows, by going through everything that can happen in them.
    #[test]
    fn under_the_null_the_mean_never_exceeds_one() {
        for weight in [0.05, 0.5, 0.9] {
            for (primary, canary) in [(0.01, 0.0125), (0.3, 0.375), (0.8, 0.8), (0.8, 1.0)] {
                for windows in 1..=5 {
                    let fresh = (RatioTest::harm(1.25), Pairing::default());
                    let mean = mean(&fresh.0, &fresh.1, windows, weight, (primary, canary));
                    assert!(mean <= 1.0 + 1e-9, "{weight} {primary} {canary} {windows}: {mean}");
                }
            }
        }
    }
}
