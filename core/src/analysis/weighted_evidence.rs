//! The evidence of each signal, weighted by its share of α.

use super::sequential::ln_sum;
use super::signal::{Shares, Signal};
use super::test_suite::TestSuite;

/// For each signal, ln of its e-value times its share of α; of what has no share, −∞.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightedEvidence([f64; Signal::ALL.len()]);

/// Weighted evidence that was computed already, since it takes most of the time of a verdict. It follows from the evidence: it is
/// not stored, and judges that differ in it alone are equal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CachedEvidence(pub(super) Option<WeightedEvidence>);

impl WeightedEvidence {
    /// Returns the evidence of a trial, where `level` of the ratios of errors is tolerated.
    pub(super) fn of_trial(trial: &TestSuite, shares: &Shares, level: usize) -> Self {
        Self(Signal::ALL.map(|signal| {
            shares.of(signal).map_or(f64::NEG_INFINITY, |share| trial.evidence(signal, level) + libm::log(share))
        }))
    }

    /// Returns one of them.
    pub(super) fn of(&self, signal: Signal) -> f64 {
        self.0.get(signal as usize).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Returns the signal with the most weighted evidence, of those with a share.
    pub(super) fn dominant(&self, shares: &Shares) -> Option<Signal> {
        shares.iter().map(|(signal, _)| signal).max_by(|a, b| self.of(*a).total_cmp(&self.of(*b)))
    }

    /// Returns ln of the sum over the wanted signals that have a share.
    pub(super) fn total(&self, shares: &Shares, wanted: impl Fn(Signal) -> bool) -> f64 {
        ln_sum(shares.iter().map(|(signal, _)| signal).filter(|signal| wanted(*signal)).map(|signal| self.of(signal)))
    }
}

impl From<Option<WeightedEvidence>> for CachedEvidence {
    fn from(weighted: Option<WeightedEvidence>) -> Self {
        Self(weighted)
    }
}

impl PartialEq for CachedEvidence {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
