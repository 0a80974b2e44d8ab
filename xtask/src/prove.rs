//! `cargo xtask prove`: what a promise claims is run, and its figure printed beside its bound.

use std::path::Path;

use anyhow::bail;
use bench::Bench;
use scene::Scene;
use suite::Suite;

use crate::run::{cargo, succeed};
use crate::simulate;

mod bench;
mod by_name;
mod counts;
pub(crate) mod fuzz;
mod layers;
mod names;
mod review;
mod scene;
mod start;
mod suite;
mod told;

/// Tables of simulations.
const TABLES: [&str; 8] = [
    "judge-table",
    "judge-false",
    "judge-missed",
    "judge-scale",
    "judge-fleet",
    "judge-recorded",
    "judge-late",
    "judge-low-traffic",
];

/// A claim and how it is shown.
enum Proof {
    /// By playing the demo.
    Scene(&'static Scene),
    /// By a program that measures.
    Bench(&'static Bench),
    /// By tests.
    Suite(&'static Suite),
    /// By the tests that hold the mends of a review.
    Review,
    /// By fuzzers.
    Fuzz,
    /// By the time until the demo answers.
    WarmStart,
    /// By simulated rollouts: the name of a table.
    Table(&'static str),
    /// By what crates and files need of each other.
    Layers,
    /// Tests and lines are counted.
    Counts,
    /// Names are read.
    Names,
}

impl Proof {
    fn all() -> impl Iterator<Item = Self> {
        let scenes = scene::SCENES.iter().map(Self::Scene);
        let benches = bench::BENCHES.iter().map(Self::Bench);
        let suites = suite::SUITES.iter().map(Self::Suite);
        let tables = TABLES.into_iter().map(Self::Table);
        let shown = [Self::Review, Self::Fuzz, Self::Layers, Self::Counts, Self::Names];
        scenes.chain([Self::WarmStart]).chain(benches).chain(suites).chain(tables).chain(shown)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Scene(scene) => scene.name,
            Self::Bench(bench) => bench.name,
            Self::Suite(suite) => suite.name,
            Self::Review => review::NAME,
            Self::Fuzz => fuzz::NAME,
            Self::WarmStart => start::NAME,
            Self::Table(name) => name,
            Self::Layers => layers::NAME,
            Self::Counts => "counts",
            Self::Names => names::NAME,
        }
    }
}

/// Runs the named proofs, or all. Fails if one does.
pub(crate) fn prove(root: &Path, names: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| Proof::all().all(|proof| proof.name() != **name)) {
        let known: Vec<&str> = Proof::all().map(|proof| proof.name()).collect();
        bail!("there is no proof {unknown}; there are {}", known.join(", "));
    }
    let chosen: Vec<Proof> =
        Proof::all().filter(|proof| names.is_empty() || names.iter().any(|name| name == proof.name())).collect();
    // Built before anything is measured: a compiler beside it would be measured too.
    if chosen.iter().any(|proof| matches!(proof, Proof::Scene(_) | Proof::Bench(_))) {
        succeed(&mut cargo(root, &["build", "--release", "--locked", "--workspace", "--bins"]))?;
    }
    if chosen.iter().any(|proof| matches!(proof, Proof::Table(_))) {
        simulate::build(root)?;
    }
    let mut failed = Vec::new();
    for proof in &chosen {
        let holds = match proof {
            Proof::Scene(scene) => scene.play(root)?,
            Proof::Bench(bench) => bench.run(root)?,
            Proof::Suite(suite) => suite.run(root)?,
            Proof::Review => review::run(root)?,
            Proof::Fuzz => fuzz::run(root)?,
            Proof::WarmStart => start::warm(root)?,
            Proof::Table(name) => simulate::run(root, &[*name])?.1,
            Proof::Layers => layers::run(root)?,
            Proof::Counts => counts::count(root)?,
            Proof::Names => names::prove(root)?,
        };
        if !holds {
            failed.push(proof.name());
        }
    }
    if !failed.is_empty() {
        bail!("FAIL: {}", failed.join(", "));
    }
    Ok(())
}
