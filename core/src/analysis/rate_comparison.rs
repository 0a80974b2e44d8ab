//! One kind of bad event, compared between the arms with all that makes the comparison fair.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::dispersion::Dispersion;
use super::power::Power;
use super::sequential::{Bases, LimitTest, RatioTest, Split};
use crate::time::Span;

/// A comparison of rates: tolerant of a ratio, of what stays below a floor, and of bursts.
///
/// There may be several tolerances, of which the caller asks for the one that the pods' differences call for. All of
/// them see everything, since evidence against the wider one cannot be had from that against the narrower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RateComparison {
    levels: Vec<RatioTest>,
    powers: Vec<Power>,
    floor: Option<LimitTest>,
    bursts: Dispersion,
}

impl RateComparison {
    /// Returns a comparison without evidence. Below the rate `floor` nothing is harm.
    pub(crate) fn new(tolerances: &[f64], floor: Option<f64>) -> Self {
        Self {
            levels: tolerances.iter().map(|tolerated| RatioTest::harm(*tolerated)).collect(),
            powers: alloc::vec![Power::default(); tolerances.len()],
            floor: floor.map(LimitTest::above),
            bursts: Dispersion::default(),
        }
    }

    /// Takes in a batch that lasted `span`.
    pub(crate) fn observe(&mut self, split: Split, span: Span) {
        let burst = self.bursts.factor();
        for level in &mut self.levels {
            level.observe_in_bursts(split, burst, span);
        }
        self.observe_besides(split, span);
    }

    /// Takes in a batch, and notes what the tests would have made of a regression in it: the canary's rates without and
    /// with it. `known` are the bases that were reckoned last.
    pub(crate) fn counterfactual(
        &mut self,
        split: Split,
        (base, regressed): (f64, f64),
        span: Span,
        known: &mut Option<Bases>,
    ) {
        let burst = self.bursts.factor();
        for (level, power) in self.levels.iter_mut().zip(&mut self.powers) {
            let bases = split.compares().then(|| level.bases_cached(split, known));
            if let Some(bases) = &bases {
                power.observe(bases, split, burst, base, regressed);
            }
            level.observe_by(bases.as_ref(), split, burst, span);
        }
        self.observe_besides(split, span);
    }

    fn observe_besides(&mut self, split: Split, span: Span) {
        if let Some(floor) = &mut self.floor {
            floor.observe(split.canary_bad, split.canary, span);
        }
        self.learn(split, span);
    }

    /// Learns from the primary alone, while the canary is not compared.
    pub(crate) fn learn(&mut self, split: Split, span: Span) {
        self.bursts.observe(split.primary_bad, split.primary, span);
    }

    /// Returns the size of bursts.
    pub(crate) fn burst(&self) -> f64 {
        self.bursts.factor()
    }

    /// Returns ln E at a level; at the last one if there is none so high.
    pub(crate) fn evidence(&self, level: usize) -> f64 {
        // Both must speak against it: the smaller of two e-values is one.
        match (self.level(level), &self.floor) {
            (Some(relative), Some(floor)) => relative.evidence_with(floor),
            (Some(relative), None) => relative.evidence(),
            (None, Some(floor)) => floor.evidence().min(0.0),
            (None, None) => 0.0,
        }
    }

    /// Returns the test and the power of a level.
    pub(crate) fn power(&self, level: usize) -> Option<(&RatioTest, &Power)> {
        let power = self.powers.get(level).or_else(|| self.powers.last())?;
        Some((self.level(level)?, power))
    }

    /// Returns the test of the floor.
    pub(crate) const fn floor(&self) -> Option<&LimitTest> {
        self.floor.as_ref()
    }

    fn level(&self, level: usize) -> Option<&RatioTest> {
        self.levels.get(level).or_else(|| self.levels.last())
    }
}
