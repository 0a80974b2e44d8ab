//! Whether traffic splits as the routes say.

use serde::{Deserialize, Serialize};

use super::sequential::count;
use crate::weight::BasisPoints;

/// Requests that the prior is worth: it expects shares within a few percent of the weight.
const PRIOR: f64 = 1_000.0;

/// Evidence that the canary's share of starts is not its weight: the Dirichlet-multinomial against
/// the binomial (Lindon and Malek, arXiv 2011.03567). Starts and not completions, else a slow canary
/// looks like one that gets too little (P1). Only for weighted routes without affinity: elsewhere a
/// request's arm is not drawn by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRatio {
    weight: BasisPoints,
    canary: u64,
    primary: u64,
}

impl SampleRatio {
    /// Returns a test of one step, without evidence.
    pub const fn new(weight: BasisPoints) -> Self {
        Self { weight, canary: 0, primary: 0 }
    }

    /// Takes in requests that started.
    pub const fn observe(&mut self, canary: u64, primary: u64) {
        self.canary = self.canary.saturating_add(canary);
        self.primary = self.primary.saturating_add(primary);
    }

    /// Returns ln E. A weight of nothing or everything leaves nothing to chance: any request at the
    /// wrong arm is decisive.
    pub fn evidence(&self) -> f64 {
        let w = self.weight.fraction();
        let (canary, primary) = (count(self.canary), count(self.primary));
        if self.weight.is_zero() || self.weight == BasisPoints::FULL {
            let wrong = if self.weight.is_zero() { self.canary } else { self.primary };
            return if wrong > 0 { f64::INFINITY } else { 0.0 };
        }
        let (a, b) = (PRIOR * w, PRIOR * (1.0 - w));
        ln_beta(a + canary, b + primary) - ln_beta(a, b) - canary * libm::log(w) - primary * libm::log1p(-w)
    }

    /// Returns true if the shares differ from the weight, with a chance of at most `alpha` to say so
    /// wrongly, however often it is asked.
    pub fn objects(&self, alpha: f64) -> bool {
        self.evidence() >= -libm::log(alpha)
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects_after(share: f64) -> u64 {
        let mut test = SampleRatio::new(BasisPoints::from_percent(5));
        let mut canary = 0.0;
        for total in 1..100_000 {
            canary += share;
            let whole = canary >= 1.0;
            if whole {
                canary -= 1.0;
            }
            test.observe(u64::from(whole), u64::from(!whole));
            if test.objects(0.001) {
                return total;
            }
        }
        u64::MAX
    }

    #[test]
    fn a_proxy_on_old_routes_shows_soon_and_the_right_share_never() {
        assert!((500..1_000).contains(&objects_after(0.0)));
        assert!((500..1_000).contains(&objects_after(0.10)));
        assert!((5_000..12_000).contains(&objects_after(0.04)));
        assert_eq!(objects_after(0.05), u64::MAX);
    }

    #[test]
    fn nothing_may_reach_a_canary_without_weight() {
        let mut test = SampleRatio::new(BasisPoints::ZERO);
        test.observe(0, 1_000);
        assert!(!test.objects(0.001));
        test.observe(1, 0);
        assert!(test.objects(0.001));
    }
}
