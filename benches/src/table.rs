//! A table of what was done, its figure, its bound, and whether that holds.

use std::io::Write as _;

/// Rows are printed as they come: a run of minutes shows how far it is.
#[derive(Debug, Default)]
pub struct Table {
    failed: usize,
}

impl Table {
    /// Prints a row.
    pub fn row(&mut self, done: &str, figure: &str, bound: &str, holds: bool) -> std::io::Result<()> {
        self.failed += usize::from(!holds);
        let word = if holds { "PASS" } else { "FAIL" };
        writeln!(std::io::stdout(), "{done} | {figure} | {bound} | {word}")
    }

    /// Prints a row that nothing is promised of.
    pub fn note(&self, done: &str, figure: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout(), "{done} | {figure} | - | -")
    }

    /// Returns how many rows were out of bounds.
    pub const fn failed(&self) -> usize {
        self.failed
    }
}
