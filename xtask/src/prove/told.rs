//! What came of a proof, as a line.

use crate::run::say;

/// Prints what came of a proof.
pub(super) fn told(name: &str, command: &str, figures: &str, bounds: &str, holds: bool) -> anyhow::Result<bool> {
    let word = if holds { "PASS" } else { "FAIL" };
    say(&format!("{name} | {command} | {figures} | {bounds} | {word}"))?;
    Ok(holds)
}
