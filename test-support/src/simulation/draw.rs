//! Random numbers from a seed: the same on every machine.

use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _, Poisson, StandardNormal};
use rand_pcg::Pcg64Mcg;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Draw(Pcg64Mcg);

impl Draw {
    /// Returns the stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Returns a number from 0 up to 1, 1 excluded.
    pub fn share(&mut self) -> f64 {
        self.0.random()
    }

    /// Returns a whole number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end.max(1))
    }

    /// Returns how many of `n` happen, each with chance `p`.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        let p = p.clamp(0.0, 1.0);
        Binomial::new(n, p).expect("p is a chance").sample(&mut self.0)
    }

    /// Returns how many happen where `mean` are expected.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 { 0 } else { Poisson::new(mean).expect("mean is positive").sample(&mut self.0) as u64 }
    }

    /// Returns a length of at least 1 with this mean, geometrically distributed.
    pub fn length(&mut self, mean: f64) -> u64 {
        if mean <= 1.0 {
            return 1;
        }
        1 + (libm::log(1.0 - self.share()) / libm::log1p(-1.0 / mean)) as u64
    }

    /// Returns a standard normal deviate.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Returns a log-normal value.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }
}
