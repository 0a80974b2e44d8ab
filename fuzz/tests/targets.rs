//! The targets with what was found before, and at random. `cargo xtask prove fuzz` runs them for longer, led by coverage.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wingbeat_fuzz::{TARGETS, Target};

fn target(name: &str) -> Target {
    Target::named(name).expect("the target exists")
}

fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = std::fs::read_dir(folder).expect("every target has a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("a file that can be read")).collect()
}

/// Inputs of the corpus as they are, then with bytes changed, then at random.
fn drive(name: &str, cases: u32) {
    let target = target(name);
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{name} has a corpus");
    corpus.iter().for_each(|input| (target.run)(input));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let changed = (prop::sample::select(corpus), changes).prop_map(|(mut input, changes)| {
        for (place, byte) in changes {
            if !input.is_empty() {
                let place = place.index(input.len());
                input[place] = byte;
            }
        }
        input
    });
    let random = prop::collection::vec(any::<u8>(), 0..1_024);
    let input = prop_oneof![changed, random];
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let run = TestRunner::new(config).run(&input, |input| {
        (target.run)(&input);
        Ok(())
    });
    run.expect("every input is taken");
}

#[test]
fn the_rollout_machine() {
    drive("step", 1_500);
}

#[test]
fn the_xds_session() {
    drive("session", 1_500);
}

#[test]
fn hostile_reports() {
    drive("report", 1_500);
}

#[test]
fn the_ledger() {
    drive("ledger", 1_500);
}

#[test]
fn documents() {
    drive("document", 150);
}

#[test]
fn every_target_is_driven() {
    assert_eq!(TARGETS.map(|target| target.name), ["step", "session", "report", "ledger", "document"]);
}
