//! What things are called, and what was renamed.

use std::path::Path;

use crate::names;
use crate::prove::told::told;
use crate::run::say;

/// The name of the proof.
pub(super) const NAME: &str = "names";

/// Counts names; true if none has a word of the dialect, and what things were renamed to is there.
pub(super) fn prove(root: &Path) -> anyhow::Result<bool> {
    let (count, refused) = names::names(root)?;
    let (renamed, missing) = names::renamed(root)?;
    for line in refused.iter().chain(&missing) {
        say(&format!("    {line}"))?;
    }
    let figures = format!(
        "{count} names, {} with words of the dialect; {renamed} renamed, {} of them not there any more",
        refused.len(),
        missing.len()
    );
    told(NAME, "cargo xtask lint", &figures, "0 and 0", refused.is_empty() && missing.is_empty())
}
