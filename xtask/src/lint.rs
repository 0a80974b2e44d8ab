//! `cargo xtask lint`: all that can be checked without running anything.

use std::path::Path;

use crate::run::{cargo, stage, succeed};
use crate::{generate, layers, lengths};

/// Runs every check; the first that fails ends it.
pub(crate) fn lint(root: &Path) -> anyhow::Result<()> {
    stage("formatting", || succeed(&mut cargo(root, &["fmt", "--all", "--check"])))?;
    stage("layers", || layers::check(root))?;
    stage("lengths of files", || lengths::check(root))?;
    stage("generated files", || generate::check(root))?;
    stage("clippy", || {
        succeed(&mut cargo(
            root,
            &["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        ))
    })?;
    stage("documentation", || {
        let mut doc = cargo(root, &["doc", "--quiet", "--workspace", "--no-deps", "--locked"]);
        succeed(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })
}
