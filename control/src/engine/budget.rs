//! How often workers may report, so that all together keep to what one engine takes.
//!
//! Sources share the budget, not workers: one that invents workers makes its own reports rarer, and nobody else's. The shares
//! are max-min fair: who wants less than an equal share gets what it wants, and what it leaves is shared by the others.

use std::collections::BTreeMap;

/// Reports a second that one engine grants; more workers report less often (P26). It takes 2,000: a twentieth is left to those
/// that were granted a shorter tick before others came, and to urgent reports.
const REPORTS_PER_SECOND: u64 = 1_900;
/// Bounds of the granted tick while a rollout runs, in milliseconds. Above the upper one, more than
/// [`REPORTS_PER_SECOND`] come.
const TICK_MS: (u64, u64) = (100, 5_000);
/// Bounds of the granted tick while none does. A filter takes up to a minute.
pub(super) const IDLE_TICK_MS: (u64, u64) = (1_000, 60_000);
/// Reports are counted in millionths: a worker that reports every `t` ms makes `PART / t` of them in a millisecond.
const PART: u64 = 1_000_000;

/// How many sources have so many workers each. Sizes that differ are few: a thousand of them would have half a million workers.
#[derive(Debug, Default)]
pub(super) struct Budget {
    sizes: BTreeMap<u64, u64>,
}

impl Budget {
    /// Notes that a source has another number of workers than before.
    pub(super) fn change(&mut self, from: usize, to: usize) {
        let (from, to) = (size(from), size(to));
        if let Some(sources) = self.sizes.get_mut(&from) {
            *sources = sources.saturating_sub(1);
            if *sources == 0 {
                self.sizes.remove(&from);
            }
        }
        if to > 0 {
            let sources = self.sizes.entry(to).or_default();
            *sources = sources.saturating_add(1);
        }
    }

    /// Returns the time between two reports of each worker of a source that has so many, in milliseconds.
    pub(super) fn tick_ms(&self, workers: usize, is_judging: bool) -> u64 {
        let workers = size(workers);
        let (least, most) = if is_judging { TICK_MS } else { IDLE_TICK_MS };
        let wants = |workers: u64| workers.saturating_mul(PART) / least;
        let mut rest = REPORTS_PER_SECOND.saturating_mul(PART) / 1_000;
        let mut sources = self.sizes.values().fold(0, |sum: u64, sources| sum.saturating_add(*sources));
        for (&each, &of_these) in &self.sizes {
            if wants(each).saturating_mul(sources) > rest {
                break;
            }
            rest = rest.saturating_sub(wants(each).saturating_mul(of_these));
            sources = sources.saturating_sub(of_these);
        }
        if wants(workers).saturating_mul(sources) <= rest {
            return least;
        }
        workers.saturating_mul(PART).saturating_mul(sources).div_ceil(rest.max(1)).clamp(least, most)
    }
}

fn size(workers: usize) -> u64 {
    u64::try_from(workers).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(sizes: &[usize]) -> Budget {
        let mut budget = Budget::default();
        sizes.iter().for_each(|size| budget.change(0, *size));
        budget
    }

    #[test]
    fn who_invents_workers_slows_itself_down_only() {
        let budget = of(&[4_096, 2, 8]);
        assert_eq!([2, 8, 4_096].map(|workers| budget.tick_ms(workers, true)), [100, 100, 2_276]);
        // As many sources as there is room for, beside each other.
        let budget = of(&[[1_000; 60].as_slice(), &[4]].concat());
        assert_eq!([4, 1_000].map(|workers| budget.tick_ms(workers, true)), [129, 5_000]);
    }

    #[test]
    fn voices_that_are_gone_take_nothing() {
        let mut budget = of(&[4_096, 2_000]);
        budget.change(4_096, 0);
        budget.change(2_000, 2_001);
        budget.change(2_001, 190);
        assert_eq!((budget.tick_ms(190, true), budget.sizes.len()), (100, 1));
        budget.change(190, 191);
        assert_eq!(budget.tick_ms(191, true), 101);
    }

    proptest! {
        /// All together keep to the budget as long as nobody is at the longest tick, and nobody who is slowed down has less
        /// than an equal share.
        #[test]
        fn shares_are_fair(sizes in proptest::collection::vec(1_usize..2_000, 1..80), is_judging in any::<bool>()) {
            let budget = of(&sizes);
            let (least, most) = if is_judging { TICK_MS } else { IDLE_TICK_MS };
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let rate = |workers: usize| workers as f64 * 1e3 / budget.tick_ms(workers, is_judging) as f64;
            let bounded = sizes.iter().all(|size| budget.tick_ms(*size, is_judging) < most);
            let total: f64 = sizes.iter().map(|size| rate(*size)).sum();
            prop_assert!(!bounded || total <= 1_900.001, "{total}");
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let equal = 1_900.0 / sizes.len() as f64;
            for size in &sizes {
                let is_slowed = budget.tick_ms(*size, is_judging) > least;
                prop_assert!(!is_slowed || rate(*size) >= equal * 0.98, "{} of {equal}", rate(*size));
            }
        }
    }
}
