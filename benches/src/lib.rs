//! What the benches share. Each bench is a program that prints one line of JSON; `cargo xtask prove` runs them and
//! holds their figures against the bounds.

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
