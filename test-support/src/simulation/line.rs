//! A line of the table: what was simulated, what came of it, and what it may be.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use statrs::distribution::{Beta, ContinuousCDF as _};

/// What was simulated and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The table that it belongs to.
    pub name: &'static str,
    /// The world, in words.
    pub what: String,
    /// What came of it.
    pub figure: String,
    /// What it may be; empty where it is only shown.
    pub bound: String,
    /// The figure is within its bound.
    pub holds: bool,
}

/// Some lines of a table, for so much effort.
pub type Row = fn(Effort) -> Vec<Line>;

/// How much is simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    share: f64,
}

/// How often something happened among rollouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// It happened so often.
    pub hits: u64,
    /// Rollouts.
    pub runs: u64,
}

impl Line {
    /// Returns a line whose figure must be within a bound.
    pub fn new(
        name: &'static str,
        what: impl Into<String>,
        figure: impl Into<String>,
        bound: impl Into<String>,
        holds: bool,
    ) -> Self {
        Self { name, what: what.into(), figure: figure.into(), bound: bound.into(), holds }
    }

    /// Returns a line that is only shown: what happens where nothing is promised.
    pub fn shown(name: &'static str, what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self::new(name, what, figure, "", true)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.bound.is_empty(), self.holds) {
            (true, true) => "-",
            (false, true) => "PASS",
            (_, false) => "FAIL",
        };
        write!(f, "{} | {} | {} | {} | {word}", self.name, self.what, self.figure, self.bound)
    }
}

impl Effort {
    /// All rollouts that a table asks for.
    pub const FULL: Self = Self { share: 1.0 };
    /// A tenth of them: minutes instead of an hour.
    pub const QUICK: Self = Self { share: 0.1 };

    /// Returns this share of the effort.
    pub const fn new(share: f64) -> Self {
        Self { share }
    }

    /// Returns how many of `full` rollouts are simulated, at least 30.
    pub fn of(self, full: u64) -> u64 {
        ((full as f64 * self.share).ceil() as u64).max(30.min(full))
    }
}

impl Tally {
    /// Returns how often something is true.
    pub fn of(happened: &[bool]) -> Self {
        Self { hits: happened.iter().filter(|happened| **happened).count() as u64, runs: happened.len() as u64 }
    }

    /// Returns the share of rollouts.
    pub fn rate(self) -> f64 {
        self.hits as f64 / self.runs.max(1) as f64
    }

    /// Returns an interval that holds the true chance in 95 % of all cases (Clopper and Pearson 1934): exact.
    pub fn interval(self) -> (f64, f64) {
        let (hits, runs) = (self.hits as f64, self.runs as f64);
        let quantile = |a: f64, b: f64, p: f64| Beta::new(a, b).expect("both are positive").inverse_cdf(p);
        let low = if self.hits == 0 { 0.0 } else { quantile(hits, runs - hits + 1.0, 0.025) };
        let high = if self.hits == self.runs { 1.0 } else { quantile(hits + 1.0, runs - hits, 0.975) };
        (low, high)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.interval();
        write!(f, "{} of {} ({:.2}–{:.2} %)", self.hits, self.runs, 100.0 * low, 100.0 * high)
    }
}

/// Does something for the seeds 0, 1, … on all cores. The results are in order of the seeds.
pub fn each<T: Send>(runs: u64, f: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs {
                return done;
            }
            done.push((seed, f(seed)));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a simulation does not panic")).collect::<Vec<_>>()
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Returns the smallest value that this share of the values does not exceed.
pub fn quantile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        let close = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 5e-5 && (high - expected.1).abs() < 5e-5, "{low} {high}");
        };
        close(Tally { hits: 0, runs: 10 }.interval(), (0.0, 0.3085));
        close(Tally { hits: 3, runs: 10 }.interval(), (0.0667, 0.6525));
        close(Tally { hits: 10, runs: 10 }.interval(), (0.6915, 1.0));
    }

    #[test]
    fn seeds_come_back_in_order() {
        assert_eq!(each(100, |seed| seed * 2), (0..100).map(|seed| seed * 2).collect::<Vec<_>>());
    }
}
