//! Tests by their names: which there are, and what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;

use crate::run::cargo;

/// Tests that start a real Envoy: each measures time, and two at once would measure each other.
pub(super) const WITH_ENVOY: &str = "real_envoy_";

/// What came of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ran {
    Passed,
    Failed,
}

/// Returns the names of all tests of the workspace, without their modules.
pub(super) fn listed(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let args = ["test", "--workspace", "--locked", "--tests", "--", "--list"];
    let printed = crate::run::output(&mut cargo(root, &args))?;
    Ok(printed.lines().filter_map(|line| line.strip_suffix(": test")).map(|path| last(path).to_owned()).collect())
}

/// Returns the names of all functions in the sources: what no build is needed for to tell that a test is not there.
#[cfg(test)]
pub(super) fn written(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let sources = crate::lengths::Source::all(root)?;
    let lines = sources.iter().flat_map(|source| source.text.lines());
    let name = |line: &str| {
        line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split(['(', '<']).next().map(str::to_owned)
    };
    Ok(lines.filter_map(name).collect())
}

/// Runs these tests and no others, those with an Envoy one after another.
pub(super) fn run(root: &Path, names: &BTreeSet<&str>) -> anyhow::Result<BTreeMap<String, Ran>> {
    let (with_envoy, without): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with(WITH_ENVOY));
    let mut all = BTreeMap::new();
    for (names, threads) in [(without, &[][..]), (with_envoy, &["--test-threads", "1"][..])] {
        if names.is_empty() {
            continue;
        }
        let args = [&["test", "--workspace", "--locked", "--tests", "--no-fail-fast", "--"], names.as_slice(), threads];
        let run = cargo(root, &args.concat()).output().context("cannot run the tests")?;
        all.extend(results(&String::from_utf8_lossy(&run.stdout)));
    }
    Ok(all)
}

/// Reads what a run of tests printed. A name that stands for several tests has passed if all have.
fn results(printed: &str) -> BTreeMap<String, Ran> {
    let mut results = BTreeMap::new();
    for line in printed.lines() {
        let Some((path, result)) = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... ")) else {
            continue;
        };
        // A test that ought to panic is told as such beside its name.
        let name = last(path.split(' ').next().unwrap_or(path)).to_owned();
        let ran = if result == "ok" { Ran::Passed } else { Ran::Failed };
        let worst = if results.get(&name) == Some(&Ran::Failed) { Ran::Failed } else { ran };
        results.insert(name, worst);
    }
    results
}

fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_tests_is_read_by_their_names() {
        let printed = "running 4 tests\ntest a::b::holds ... ok\ntest breaks ... FAILED\ntest c::holds ... FAILED\n\
            test d::panics - should panic ... ok\ntest result: FAILED. 2 passed; 2 failed\n";
        let read = results(printed);
        let read: Vec<(&str, Ran)> = read.iter().map(|(name, ran)| (name.as_str(), *ran)).collect();
        assert_eq!(read, [("breaks", Ran::Failed), ("holds", Ran::Failed), ("panics", Ran::Passed)]);
    }
}
