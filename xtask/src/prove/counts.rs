//! Tests per crate, and the largest files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::layers;
use crate::prove::told;
use crate::run::{output, say};

/// Files that one can hold in the head have at most about so many lines without tests.
const LARGEST: usize = 560;
const SHOWN: usize = 10;

/// Counts; true if no file is too large and the layers are kept.
pub(super) fn count(root: &Path) -> anyhow::Result<bool> {
    let listed = output(std::process::Command::new("git").current_dir(root).args(["ls-files", "*.rs"]))?;
    let mut tests: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines: Vec<(usize, PathBuf)> = Vec::new();
    for path in listed.lines().map(Path::new) {
        let text = std::fs::read_to_string(root.join(path))?;
        let part = path.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let attributes =
            text.lines().map(str::trim).filter(|line| *line == "#[test]" || line.starts_with("#[tokio::test"));
        *tests.entry(part.unwrap_or_default()).or_default() += attributes.count();
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        let is_generated = path.components().any(|part| part.as_os_str() == "gen");
        if !is_test && !is_generated {
            lines.push((text.lines().take_while(|line| *line != "#[cfg(test)]").count(), path.to_owned()));
        }
    }
    lines.sort_by(|a, b| b.cmp(a));
    for (part, count) in tests.iter().filter(|(_, count)| **count > 0) {
        say(&format!("    {count:>4} tests in {part}"))?;
    }
    for (count, path) in lines.iter().take(SHOWN) {
        say(&format!("    {count:>4} lines without tests in {}", path.display()))?;
    }
    let total: usize = tests.values().sum();
    let largest = lines.first().map_or(0, |(count, _)| *count);
    let layers = layers::check(root);
    let kept = layers.as_ref().map_or_else(ToString::to_string, |()| "kept".to_owned());
    let figures = format!("{total} tests, largest file {largest} lines without tests, layers {kept}");
    told(
        "counts",
        "cargo xtask check-layers",
        &figures,
        &format!("≤ {LARGEST} lines"),
        largest <= LARGEST && layers.is_ok(),
    )
}
