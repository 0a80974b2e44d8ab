//! Quantiles for people, with bounds that are honest: those of the histogram's bins, and those of what was seen.

use alloc::vec::Vec;

use super::sequential::count;
use crate::histogram::{Histogram, bounds};

/// Requests that the mixture's prior is worth, in proportion to how rare the quantile's tail is.
const PRIOR: f64 = 10.0;

/// A quantile of a latency, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantile {
    /// The bin that it lies in by what was counted: its lowest value, and the first one above it.
    pub bin: (u64, u64),
    /// What it surely is at least; 0 if nothing can be said.
    pub at_least: u64,
    /// What it surely is at most; nothing if nothing can be said yet.
    pub at_most: Option<u64>,
}

/// Returns a quantile with bounds that hold at all times at once, but for a chance of `alpha`; nothing if there are no
/// requests.
///
/// For a fixed latency the requests at or below it are a binomial count, and the beta-binomial mixture against the share
/// `q` is an e-process (Howard and Ramdas, "Sequential estimation of quantiles", Bernoulli 2022). The bounds are the
/// edges that it has ruled out. They assume that requests are alike over time; a load that changes moves the quantile
/// itself.
pub fn quantile(histogram: &Histogram, q: f64, alpha: f64) -> Option<Quantile> {
    let bin = histogram.quantile_bin(q)?;
    let total = count(histogram.count());
    let limit = -libm::log(alpha);
    let rules_out = |below: f64| evidence(below, total, q) >= limit;
    let running = histogram.iter().scan(0_u64, |seen, (bin, requests)| {
        *seen = seen.saturating_add(requests);
        Some((bin, count(*seen)))
    });
    let edges: Vec<(u16, f64)> = running.collect();
    // Evidence falls up to the quantile and rises from there: each bound is found by halving.
    let too_few = edges.partition_point(|(_, below)| *below < q * total && rules_out(*below));
    let enough = edges.partition_point(|(_, below)| *below < q * total || !rules_out(*below));
    let edge = |place: usize| edges.get(place).map(|(bin, _)| bounds(*bin).1);
    let at_least = too_few.checked_sub(1).and_then(edge).unwrap_or(0);
    Some(Quantile { bin: bounds(bin), at_least, at_most: edge(enough) })
}

/// Returns ln E against "a share `q` of requests lies at or below", of which `below` of `total` do.
fn evidence(below: f64, total: f64, q: f64) -> f64 {
    let (a, b) = (PRIOR.max(1.0 / (1.0 - q)) * q, PRIOR.max(1.0 / (1.0 - q)) * (1.0 - q));
    let above = total - below;
    ln_beta(a + below, b + above) - ln_beta(a, b) - below * libm::log(q) - above * libm::log1p(-q)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(requests: u64) -> Histogram {
        let mut histogram = Histogram::new();
        for number in 0..requests {
            histogram.record(1_000 + number * 100_000 / requests);
        }
        histogram
    }

    #[test]
    fn bounds_close_in_on_the_quantile() {
        let mut last = u64::MAX;
        for requests in [1_000, 10_000, 100_000] {
            let p90 = quantile(&even(requests), 0.9, 0.05).unwrap();
            assert!(p90.at_least <= p90.bin.0 && p90.bin.1 <= p90.at_most.unwrap(), "{p90:?}");
            assert!(p90.at_least < 91_000 && 91_000 < p90.at_most.unwrap(), "{p90:?}");
            let width = p90.at_most.unwrap() - p90.at_least;
            assert!(width < last, "{requests}: {p90:?}");
            last = width;
        }
        assert!(last < 3_000, "{last}");
    }

    #[test]
    fn few_requests_bound_little() {
        assert_eq!(quantile(&Histogram::new(), 0.99, 0.05), None);
        let p99 = quantile(&even(20), 0.99, 0.05).unwrap();
        assert_eq!(p99.at_most, None, "twenty requests say nothing of the slowest in a hundred");
    }

    #[test]
    fn the_true_quantile_is_left_out_as_rarely_as_promised() {
        // Every count of requests at or below the true quantile has its binomial chance; the mixture may rule it out at
        // any of a thousand looks.
        let (q, alpha) = (0.9, 0.05);
        let mut state = 7_u64;
        let mut wrong = 0;
        for _ in 0..400 {
            let mut below = 0.0;
            for total in 1..=1_000_u32 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if f64::from(u32::try_from(state >> 32).unwrap()) < q * f64::from(u32::MAX) {
                    below += 1.0;
                }
                if evidence(below, f64::from(total), q) >= -libm::log(alpha) {
                    wrong += 1;
                    break;
                }
            }
        }
        assert!(wrong <= 20, "{wrong} of 400");
    }
}
