//! What the benches share. Each bench is a program that prints one line of JSON; `cargo xtask prove` runs them and
//! holds their figures against the bounds.

pub mod browser;
pub mod cpu;
pub mod memory;
pub mod network;
pub mod picture;
pub mod report;
pub mod site;
pub mod table;

use std::io::Write as _;

/// Returns the smallest value that this share of the values does not exceed (the nearest-rank method); 0 if there are
/// none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Prints the figures.
pub fn print(figures: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{figures}")
}

/// Returns what the environment says under this name, if it is a number.
pub fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns `SEED`, or a seed that is another one in each run.
pub fn seed() -> std::io::Result<u64> {
    let [a, b, c, ..] = wingbeat_controller::runtime::random()?;
    Ok(asked("SEED").unwrap_or_else(|| u32::from_be_bytes([0, a, b, c]).into()))
}

/// Prints a row of a table: what was done, what came of it, what may come of it at most, and whether that holds.
pub fn row(done: &str, figure: &str, bound: &str, holds: bool) -> std::io::Result<()> {
    let word = if holds { "PASS" } else { "FAIL" };
    writeln!(std::io::stdout(), "{done} | {figure} | {bound} | {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert!((quantile(&mut values, share) - expected).abs() < 1e-9, "{share}");
        }
        assert!(quantile(&mut [], 0.5).abs() < 1e-9);
    }
}
