//! Everything that a developer or CI runs: `cargo xtask --help`.

use std::path::Path;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

mod chart;
mod circles;
mod constants;
mod generate;
mod kube;
mod layers;
mod lengths;
mod lint;
mod names;
mod pictures;
mod prove;
mod run;
mod simulate;
mod test;

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Everything that a developer or CI runs")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs all tests; what they need is prepared
    Test {
        /// Leaves out the tests that start a real Envoy
        #[arg(long)]
        fast: bool,
    },
    /// Formatting, clippy, documentation, layers, lengths of files, names, generated files
    Lint,
    /// Checks that every crate depends on what it may, and nothing else
    CheckLayers,
    /// Writes the checked-in generated files anew
    Gen {
        /// Only checks that they are what would be written
        #[arg(long)]
        check: bool,
    },
    /// Writes the corpus of the fuzzers anew, from what `prove fuzz` has found
    Corpus,
    /// Simulates rollouts where the truth is known; prints what, figure, bound, PASS or FAIL
    Simulate {
        /// All rollouts instead of a tenth; all tables are then written to docs/simulations.md
        #[arg(long)]
        full: bool,
        /// Which tables; all if none is named
        names: Vec<String>,
    },
    /// Takes the pictures in docs/pictures anew: of the page in each state, and of the demo in a terminal
    Pictures,
    /// Starts a real Kubernetes without containers and keeps it until Ctrl-C; `test` runs the tests in one (--help: how to build it
    /// only, and how to enter)
    #[command(disable_help_flag = true)]
    Kube {
        /// What its program is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs what a promise claims; prints command, figure, bound, PASS or FAIL
    Prove {
        /// Which ones; all if none is named
        names: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Cli::parse().verb {
        Verb::Test { fast } => test::test(root, fast),
        Verb::Lint => lint::lint(root),
        Verb::CheckLayers => layers::check(root),
        Verb::Gen { check: false } => generate::generate(root),
        Verb::Gen { check: true } => generate::check(root),
        Verb::Corpus => prove::fuzz::write_corpus(root),
        Verb::Simulate { full, names } => simulate::simulate(root, full, &names),
        Verb::Pictures => pictures::take(root),
        Verb::Kube { args } => kube::kube(root, &args),
        Verb::Prove { names } => prove::prove(root, &names),
    }
}
