//! Everything that a developer or CI runs: `cargo xtask --help`.
use std::path::Path;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

mod generate;

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Everything that a developer or CI runs")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Writes the checked-in generated files anew.
    Gen,
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Cli::parse().verb {
        Verb::Gen => generate::generate(root),
    }
}
