//! Each fault of the review of the foundation, and the tests that hold its mend: a table, which the proof runs row by row.

use std::collections::BTreeSet;
use std::path::Path;

use rows::ROWS;

use crate::prove::by_name::{self, Ran};
use crate::prove::told::told;
use crate::run::say;

mod row;
mod rows;

pub(super) const NAME: &str = "review";

/// Runs the tests of all rows and prints each; true if every row has tests and all of them pass.
pub(super) fn run(root: &Path) -> anyhow::Result<bool> {
    let named: BTreeSet<&str> = ROWS.iter().flat_map(|row| row.tests).copied().collect();
    let listed = by_name::listed(root)?;
    let known: BTreeSet<&str> = named.iter().filter(|name| listed.contains(**name)).copied().collect();
    let results = by_name::run(root, &known)?;
    let mut held = 0_usize;
    for row in &ROWS {
        let word = |name: &str| match results.get(name) {
            Some(Ran::Passed) => "PASS",
            Some(Ran::Failed) => "FAIL",
            None => "MISSING",
        };
        let heading = format!("{} {}", row.id, row.fault);
        if row.tests.is_empty() {
            say(&format!("    {heading} | no test | MISSING"))?;
        }
        for name in row.tests {
            say(&format!("    {heading} | {name} | {}", word(name)))?;
        }
        held += usize::from(!row.tests.is_empty() && row.tests.iter().all(|name| word(name) == "PASS"));
    }
    let figures = format!("{held} of {} rows held by {} tests", ROWS.len(), named.len());
    let bound = "every row has a test, and all pass";
    told(NAME, "cargo test --workspace, by name", &figures, bound, held == ROWS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_once_and_in_order() {
        let expected: Vec<String> =
            (1..=32).map(|n| format!("A{n}")).chain((1..=31).map(|n| format!("B{n}"))).collect();
        let ids: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids, expected);
    }

    /// Told at once, without a build of all tests.
    #[test]
    fn every_named_test_is_in_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let written = by_name::written(root).unwrap();
        let named = ROWS.iter().flat_map(|row| row.tests.iter().map(|name| (row.id, *name)));
        let missing: Vec<(&str, &str)> = named.filter(|(_, name)| !written.contains(*name)).collect();
        assert_eq!(missing, []);
    }

    #[test]
    fn every_test_of_the_threat_model_is_in_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let written = by_name::written(root).unwrap();
        let text = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
        // Names of tests are what is written as code and has several words.
        let code = text.split('`').skip(1).step_by(2);
        let is_name = |text: &&str| {
            text.matches('_').count() > 1
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let named: Vec<&str> = code.filter(is_name).collect();
        assert!(named.len() > 20, "the threats name their tests: {named:?}");
        let missing: Vec<&str> = named.into_iter().filter(|name| !written.contains(*name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
