//! How long files are: one that cannot be held in the head is divided.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::run::output;

/// The most lines of a file without its tests, and of a file of tests.
pub(crate) const LONGEST: usize = 560;
const LONGEST_TESTS: usize = 700;

/// A file that people wrote.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Returns all of them.
    pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let listed = output(std::process::Command::new("git").current_dir(root).args(["ls-files", "*.rs"]))?;
        let written =
            listed.lines().map(PathBuf::from).filter(|path| !path.components().any(|part| part.as_os_str() == "gen"));
        written.map(|path| Ok(Self { text: std::fs::read_to_string(root.join(&path))?, path })).collect()
    }

    /// Returns true if there is nothing but tests in it.
    pub(crate) fn is_of_tests(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests") || self.path.ends_with("tests.rs")
    }

    /// Returns the number of lines, without the tests at the end.
    pub(crate) fn lines(&self) -> usize {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]").count()
    }
}

/// Fails if files are too long, and names them.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let limit = |source: &Source| if source.is_of_tests() { LONGEST_TESTS } else { LONGEST };
    let long: Vec<String> = Source::all(root)?
        .iter()
        .filter(|source| source.lines() > limit(source))
        .map(|source| format!("{}: {} lines, at most {}", source.path.display(), source.lines(), limit(source)))
        .collect();
    if !long.is_empty() {
        bail!("files to be divided:\n{}", long.join("\n"));
    }
    Ok(())
}
