//! Latencies as exact counts in bins of at most 0.8 % width, the same in filter and controller.
//!
//! The layout is log-linear: microseconds below 128 have a bin each, and every octave above is cut
//! into 128 bins of equal width, so that a bin is never wider than 1/128 of its lower edge. Values
//! from 2^32 µs (71 minutes) on share the last bin. Counts are exact; only values are rounded, and
//! every answer comes as the bin's bounds, never as a point that was not measured.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

mod tally;

pub use tally::Tally;

/// Bins per octave, as a power of two.
const SUB_BITS: u32 = 7;

/// Bins per octave.
const SUB: u64 = 1 << SUB_BITS;

/// Number of bins; the highest one also takes what is longer than 2^32 µs.
pub const BINS: u16 = 26 * 128;

/// The longest value with a bin of its own, in microseconds.
pub const MAX_MICROS: u64 = u32::MAX as u64;

/// Returns the bin of a value in microseconds.
pub fn bin_of(value_us: u64) -> u16 {
    let value = value_us.min(MAX_MICROS);
    let octave = u64::from((value | 1).ilog2().saturating_sub(SUB_BITS));
    let bin = octave * SUB + (value >> octave);
    u16::try_from(bin).unwrap_or(BINS - 1)
}

/// Returns the values of a bin in microseconds: the lowest one, and the first one above it.
///
/// A bin that does not exist has the bounds of the last one.
pub fn bounds(bin: u16) -> (u64, u64) {
    let bin = u64::from(bin.min(BINS - 1));
    if bin < 2 * SUB {
        return (bin, bin + 1);
    }
    let octave = bin / SUB - 1;
    let low = (bin - octave * SUB) << octave;
    (low, low + (1 << octave))
}

/// A number of requests by the bin of their latency.
///
/// Sparse: a service uses a few hundred bins of 3,328. Recording into a known bin is a binary search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram {
    /// By bin, ascending; no bin twice, none without a count.
    bins: Vec<(u16, u64)>,
}

impl Histogram {
    /// Returns a histogram of nothing.
    pub const fn new() -> Self {
        Self { bins: Vec::new() }
    }

    /// Returns how many bins have a count.
    pub const fn bins(&self) -> usize {
        self.bins.len()
    }

    /// Counts one request.
    pub fn record(&mut self, value_us: u64) {
        self.add(bin_of(value_us), 1);
    }

    /// Counts `count` requests in a bin; one that does not exist is taken for the last.
    pub fn add(&mut self, bin: u16, count: u64) {
        self.update(bin, |held| held.saturating_add(count));
    }

    /// Raises a bin to `count` if it holds less: how cumulative reports are taken in.
    pub fn raise(&mut self, bin: u16, count: u64) {
        self.update(bin, |held| held.max(count));
    }

    /// Returns the bins that hold something, ascending, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.bins.iter().copied()
    }

    /// Returns the count of one bin.
    pub fn get(&self, bin: u16) -> u64 {
        self.bins
            .binary_search_by_key(&bin, |&(bin, _)| bin)
            .ok()
            .and_then(|at| self.bins.get(at))
            .map_or(0, |&(_, count)| count)
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Returns how many requests were counted.
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(count))
    }

    /// Returns how many requests lie in bins above `bin`: surely longer than all of its values.
    pub fn count_above(&self, bin: u16) -> u64 {
        let above = self.bins.partition_point(|&(other, _)| other <= bin);
        self.bins.iter().skip(above).fold(0, |sum: u64, &(_, count)| sum.saturating_add(count))
    }

    /// Returns how many requests lie in `bin` or above: all that may be longer than its lower edge.
    pub fn count_from(&self, bin: u16) -> u64 {
        self.count_above(bin).saturating_add(self.get(bin))
    }

    /// Returns the bin of the smallest value that at least the share `q` of all requests does not
    /// exceed, or nothing if there are none. The true quantile lies within its [`bounds`].
    pub fn quantile_bin(&self, q: f64) -> Option<u16> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = rank(q, total);
        let mut seen = 0_u64;
        for (bin, count) in self.iter() {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                return Some(bin);
            }
        }
        self.bins.last().map(|&(bin, _)| bin)
    }

    /// Returns bounds of a quantile in microseconds, as [`bounds`] gives them.
    pub fn quantile(&self, q: f64) -> Option<(u64, u64)> {
        self.quantile_bin(q).map(bounds)
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Keeps the higher count of each bin.
    pub fn max_merge(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    /// Returns what is here and was not yet in `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.iter().peekable();
        let left = self.iter().filter_map(|(bin, count)| {
            while before.next_if(|(other, _)| *other < bin).is_some() {}
            let more = count.saturating_sub(before.next_if(|(other, _)| *other == bin).map_or(0, |(_, count)| count));
            (more > 0).then_some((bin, more))
        });
        let mut bins = Vec::with_capacity(self.bins.len());
        bins.extend(left);
        Self { bins }
    }

    /// Halves every count. What is left over of a bin goes to the next one that holds something: no quantile moves by more
    /// than one request, however thinly its tail is spread over bins.
    pub fn halve(&mut self) {
        let mut left_over = 0;
        for (_, count) in &mut self.bins {
            *count = halved(*count, &mut left_over);
        }
        self.bins.retain(|&(_, count)| count > 0);
    }

    /// In place, and from the end: what is here moves up once, by as many places as there are bins that are new.
    fn combine(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        let mut ours = self.bins.len();
        let mut place = ours + self.new_in(other);
        self.bins.resize(place, (0, 0));
        for &(bin, more) in other.bins.iter().rev() {
            // What is above the bin keeps its order.
            while let Some(&(held, count)) = ours.checked_sub(1).and_then(|last| self.bins.get(last))
                && held > bin
            {
                ours -= 1;
                place -= 1;
                self.put(place, (held, count));
            }
            let count = match ours.checked_sub(1).and_then(|last| self.bins.get(last)) {
                Some(&(held, count)) if held == bin => {
                    ours -= 1;
                    join(count, more)
                }
                _ => more,
            };
            place -= 1;
            self.put(place, (bin, count));
        }
    }

    /// Returns how many bins of the other one hold nothing here.
    fn new_in(&self, other: &Self) -> usize {
        let mut ours = self.bins.iter().map(|(bin, _)| *bin).peekable();
        let is_new = |&&(bin, _): &&(u16, u64)| {
            while ours.next_if(|held| *held < bin).is_some() {}
            ours.next_if_eq(&bin).is_none()
        };
        other.bins.iter().filter(is_new).count()
    }

    fn put(&mut self, place: usize, bin: (u16, u64)) {
        if let Some(held) = self.bins.get_mut(place) {
            *held = bin;
        }
    }

    fn update(&mut self, bin: u16, change: impl FnOnce(u64) -> u64) {
        let bin = bin.min(BINS - 1);
        match self.bins.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(at) => {
                if let Some((_, held)) = self.bins.get_mut(at) {
                    *held = change(*held);
                }
            }
            Err(at) => match change(0) {
                0 => {}
                count => self.bins.insert(at, (bin, count)),
            },
        }
    }
}

impl FromIterator<(u16, u64)> for Histogram {
    /// Adds up the counts, in any order.
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(bins: I) -> Self {
        let mut histogram = Self::new();
        for (bin, count) in bins {
            histogram.add(bin, count);
        }
        histogram
    }
}

impl From<Vec<(u16, u64)>> for Histogram {
    fn from(bins: Vec<(u16, u64)>) -> Self {
        bins.into_iter().collect()
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.bins
    }
}

/// Returns half of a count with what is left over from the bins below, and leaves over what it does not divide by.
const fn halved(count: u64, left_over: &mut u64) -> u64 {
    // Halved first: the sum of both might not fit.
    let odd = count % 2 + *left_over;
    *left_over = odd % 2;
    count / 2 + odd / 2
}

/// Returns the rank of a quantile among `total` values, from 1 to `total`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=total, and a rank that is off by one in 2^53 is not seen"
)]
fn rank(q: f64, total: u64) -> u64 {
    let rank = libm::ceil(q.clamp(0.0, 1.0) * total as f64);
    (rank as u64).clamp(1, total)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bins_tile_all_values_without_gap() {
        let mut expected = 0;
        for bin in 0..BINS {
            let (low, high) = bounds(bin);
            assert_eq!(low, expected, "bin {bin}");
            assert_eq!(bin_of(low), bin);
            assert_eq!(bin_of(high - 1), bin);
            assert!((high - low) * SUB <= low.max(SUB), "bin {bin} is too wide");
            expected = high;
        }
        assert_eq!(expected, MAX_MICROS + 1);
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn small_values_are_exact() {
        for value in 0..256 {
            assert_eq!(bounds(bin_of(value)), (value, value + 1));
        }
    }

    #[test]
    fn quantiles_of_nothing_do_not_exist() {
        assert_eq!(Histogram::new().quantile(0.5), None);
    }

    #[test]
    fn tails_exclude_and_include_the_bin() {
        let histogram: Histogram = [(10, 3), (20, 5), (30, 7)].into_iter().collect();
        assert_eq!(histogram.count_above(20), 7);
        assert_eq!(histogram.count_from(20), 12);
        assert_eq!(histogram.count_above(19), 12);
        assert_eq!(histogram.count_from(31), 0);
        assert_eq!(histogram.count_from(0), 15);
    }

    #[test]
    fn halving_keeps_a_tail_of_single_requests() {
        let mut histogram: Histogram = [(10, 1), (20, 5)].into_iter().collect();
        histogram.halve();
        assert_eq!(Vec::from(histogram), vec![(20, 3)]);
        // 1,000 requests in one bin, and the slowest 64 in one each.
        let mut histogram: Histogram = core::iter::once((100, 936)).chain((200..264).map(|bin| (bin, 1))).collect();
        for left in [32, 16, 8, 4] {
            histogram.halve();
            assert_eq!((histogram.count_above(100), histogram.count()), (left, left * 1_000 / 64));
        }
    }

    #[test]
    fn unordered_and_repeated_bins_are_put_right() {
        let histogram: Histogram = serde_json::from_str("[[9,1],[3,2],[9,4],[5,0]]").unwrap();
        assert_eq!(Vec::from(histogram), vec![(3, 2), (9, 5)]);
    }

    proptest! {
        #[test]
        fn quantiles_bound_the_exact_value(
            mut values in proptest::collection::vec(0_u64..5_000_000_000, 1..200),
            q in 0.0..=1.0,
        ) {
            let mut histogram = Histogram::new();
            for &value in &values {
                histogram.record(value);
            }
            values.sort_unstable();
            let at = usize::try_from(rank(q, values.len() as u64)).unwrap() - 1;
            let exact = values[at].min(MAX_MICROS);
            let (low, high) = histogram.quantile(q).unwrap();
            prop_assert!(low <= exact && exact < high, "{exact} is not in {low}..{high}");
        }

        #[test]
        fn quantiles_agree_with_hdrhistogram(
            values in proptest::collection::vec(1_u64..4_000_000_000, 1..200),
            q in 0.01..=0.99,
        ) {
            let mut oracle = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_MICROS, 3).unwrap();
            let mut histogram = Histogram::new();
            for &value in &values {
                histogram.record(value);
                oracle.record(value).unwrap();
            }
            let theirs = oracle.value_at_quantile(q);
            let (low, high) = histogram.quantile(q).unwrap();
            let slack = theirs / 1_000 + 1;
            prop_assert!(low <= theirs + slack && theirs <= high + slack);
        }

        #[test]
        fn halving_moves_no_quantile_by_more_than_one_request(
            bins in proptest::collection::vec((0..BINS, 0_u64..9), 0..60),
            bin in 0..BINS,
        ) {
            let whole: Histogram = bins.into_iter().collect();
            let mut half = whole.clone();
            half.halve();
            let up_to = |histogram: &Histogram| histogram.count() - histogram.count_above(bin);
            prop_assert_eq!(up_to(&half), up_to(&whole) / 2);
        }

        #[test]
        fn merging_and_telling_apart_are_inverse(
            a in proptest::collection::vec((0..BINS, 0_u64..100), 0..40),
            b in proptest::collection::vec((0..BINS, 0_u64..100), 0..40),
        ) {
            let (a, b): (Histogram, Histogram) =
                (a.into_iter().collect(), b.into_iter().collect());
            let mut both = a.clone();
            both.merge(&b);
            prop_assert_eq!(both.count(), a.count() + b.count());
            prop_assert_eq!(both.since(&a), b.clone());
            let mut highest = a.clone();
            highest.max_merge(&both);
            prop_assert_eq!(highest, both);
        }
    }
}
