//! Tests per crate, and the largest files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::layers;
use crate::lengths::{LONGEST, Source};
use crate::prove::told::told;
use crate::run::say;

const SHOWN: usize = 10;

/// Counts; true if no file is too large and the layers are kept.
pub(super) fn count(root: &Path) -> anyhow::Result<bool> {
    let sources = Source::all(root)?;
    let mut tests: BTreeMap<String, usize> = BTreeMap::new();
    for source in &sources {
        let part = source.path.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let attributes =
            source.text.lines().map(str::trim).filter(|line| *line == "#[test]" || line.starts_with("#[tokio::test"));
        *tests.entry(part.unwrap_or_default()).or_default() += attributes.count();
    }
    let code = sources.iter().filter(|source| !source.is_of_tests());
    let mut lines: Vec<(usize, &Path)> = code.map(|source| (source.lines(), source.path.as_path())).collect();
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
        &format!("≤ {LONGEST} lines"),
        largest <= LONGEST && layers.is_ok(),
    )
}
