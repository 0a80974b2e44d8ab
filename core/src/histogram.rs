//! Latencies as exact counts in bins of at most 0.8 % width, the same in filter and controller.
//!
//! ```text
//! value (µs)   0 … 127 | 128 … 255 | 256 … 511 | 512 … 1023 | …
//! bin width       1    |     1     |     2     |     4      | …   128 bins an octave
//! ```
//!
//! A bin holds the values `low ..= high`, so its middle is at most 0.4 % away from any of them. Values beyond
//! [`HIGHEST`] (71 minutes) are counted in the last bin.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Bins in an octave.
const PER_OCTAVE: u32 = 128;
/// log2 of [`PER_OCTAVE`].
const PRECISION: u32 = 7;
/// Number of bins.
pub const BINS: u16 = 3_328;
/// The highest value that has a bin of its own, in microseconds.
pub const HIGHEST: u64 = (1 << 32) - 1;

/// Returns the bin of a value in microseconds.
pub fn bin_of(micros: u64) -> u16 {
    let value = micros.min(HIGHEST);
    // The number of low bits that the bin forgets.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    let bin = (u64::from(shift) << PRECISION) + (value >> shift);
    u16::try_from(bin).unwrap_or(BINS - 1).min(BINS - 1)
}

/// Returns the lowest and the highest value of a bin, both in it.
pub fn bounds(bin: u16) -> (u64, u64) {
    let bin = u32::from(bin.min(BINS - 1));
    if bin < 2 * PER_OCTAVE {
        return (u64::from(bin), u64::from(bin));
    }
    let shift = bin / PER_OCTAVE - 1;
    let low = u64::from(bin - shift * PER_OCTAVE) << shift;
    (low, low + (1 << shift) - 1)
}

/// Counts of values by bin. Merging is addition: associative, commutative, exact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// `(bin, count)` by bin, no bin twice, no count of zero. An arm's latencies fill a few hundred of the bins.
    bins: Vec<(u16, u64)>,
}

impl Histogram {
    /// Counts one value in microseconds.
    pub fn record(&mut self, micros: u64) {
        self.add(bin_of(micros), 1);
    }

    /// Adds `count` values to a bin; a bin that does not exist is the last one.
    pub fn add(&mut self, bin: u16, count: u64) {
        if count == 0 {
            return;
        }
        let bin = bin.min(BINS - 1);
        match self.bins.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(place) => {
                if let Some((_, held)) = self.bins.get_mut(place) {
                    *held = held.saturating_add(count);
                }
            }
            Err(place) => self.bins.insert(place, (bin, count)),
        }
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        for (bin, count) in &other.bins {
            self.add(*bin, *count);
        }
    }

    /// Returns the bins that hold anything, lowest first.
    pub fn bins(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.bins.iter().copied()
    }

    /// Returns the count of one bin.
    pub fn count_in(&self, bin: u16) -> u64 {
        let place = self.bins.binary_search_by_key(&bin, |(bin, _)| *bin);
        place.ok().and_then(|place| self.bins.get(place)).map_or(0, |(_, count)| *count)
    }

    /// Returns how many values were counted.
    pub fn total(&self) -> u64 {
        self.bins.iter().fold(0, |total: u64, (_, count)| total.saturating_add(*count))
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Returns how many values are certainly above `micros`: those of bins that lie above it as a whole.
    pub fn certainly_above(&self, micros: u64) -> u64 {
        self.count_where(|low, _| low > micros)
    }

    /// Returns how many values may be above `micros`: also those of the bin that it falls into.
    pub fn possibly_above(&self, micros: u64) -> u64 {
        self.count_where(|_, high| high > micros)
    }

    /// Returns the bounds of the bin in which the `q`-quantile lies (the smallest value that at least a share of
    /// `q` does not exceed), or none if nothing was counted. The exact quantile is within the bounds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "53 bits hold nine quadrillion requests, and the share is clamped"
    )]
    pub fn quantile(&self, q: f64) -> Option<(u64, u64)> {
        let total = self.total();
        let rank = (libm::ceil(q.clamp(0.0, 1.0) * total as f64) as u64).clamp(1, total.max(1));
        let mut below = 0_u64;
        for (bin, count) in &self.bins {
            below = below.saturating_add(*count);
            if below >= rank {
                return Some(bounds(*bin));
            }
        }
        None
    }

    fn count_where(&self, wanted: impl Fn(u64, u64) -> bool) -> u64 {
        let counted = self.bins.iter().filter(|(bin, _)| {
            let (low, high) = bounds(*bin);
            wanted(low, high)
        });
        counted.fold(0, |total: u64, (_, count)| total.saturating_add(*count))
    }
}

impl FromIterator<(u16, u64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(bins: I) -> Self {
        let mut histogram = Self::default();
        bins.into_iter().for_each(|(bin, count)| histogram.add(bin, count));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bins_tile_the_line() {
        assert_eq!(bounds(0), (0, 0));
        for bin in 1..BINS {
            assert_eq!(bounds(bin).0, bounds(bin - 1).1 + 1, "bin {bin}");
        }
        assert_eq!(bounds(BINS - 1).1, HIGHEST);
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn bins_are_narrow() {
        for bin in 256..BINS {
            let (low, high) = bounds(bin);
            assert!((high - low + 1) * 128 <= low, "bin {bin} is wider than 1/128 of its values");
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bin(value in prop_oneof![0..5_000_u64, 0..HIGHEST]) {
            let (low, high) = bounds(bin_of(value));
            prop_assert!(low <= value && value <= high);
        }

        #[test]
        fn quantiles_hold_the_exact_value(mut values in prop::collection::vec(0..10_000_000_u64, 1..300), q in 0.0..1.0_f64) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let (low, high) = histogram.quantile(q).unwrap();
            prop_assert!(low <= exact && exact <= high);
        }

        #[test]
        fn merging_is_counting_together(a in prop::collection::vec(0..1_000_000_u64, 0..100), b in prop::collection::vec(0..1_000_000_u64, 0..100)) {
            let of = |values: &[u64]| values.iter().map(|value| (bin_of(*value), 1)).collect::<Histogram>();
            let (mut one, mut other) = (of(&a), of(&b));
            let together = of(&[a.clone(), b.clone()].concat());
            one.merge(&of(&b));
            other.merge(&of(&a));
            prop_assert_eq!(&one, &together);
            prop_assert_eq!(&other, &together);
        }

        #[test]
        fn what_is_above_is_between_the_bounds(values in prop::collection::vec(0..1_000_000_u64, 0..200), limit in 0..1_000_000_u64) {
            let histogram = values.iter().map(|value| (bin_of(*value), 1)).collect::<Histogram>();
            let exact = values.iter().filter(|value| **value > limit).count() as u64;
            prop_assert!(histogram.certainly_above(limit) <= exact && exact <= histogram.possibly_above(limit));
        }
    }
}
