//! `cargo xtask kube`: a real Kubernetes to look at, and the programs that tests start one of. All of it is in the crate
//! `wingbeat-test-cluster`: what is built for every run of this program stays small.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run::{cargo, stage, succeed};

const PACKAGE: &str = "wingbeat-test-cluster";

/// Tests in Kubernetes that run at a time: all of them, since they share a cluster and mostly wait for it.
pub(crate) const TEST_THREADS: &str = "16";

/// Runs the tests in Kubernetes. Fails where there can be no cluster, and says why.
pub(crate) fn test(root: &Path) -> anyhow::Result<()> {
    prepare(root)?;
    stage("tests with Kubernetes", || {
        let command = ["test", "--workspace", "--locked", "--no-fail-fast", "--tests", "--", "real_kubernetes_"];
        succeed(&mut cargo(root, &[&command[..], &["--test-threads", TEST_THREADS]].concat()))
    })
}

/// Builds what tests in Kubernetes start. Fails where there can be no cluster, and says why.
pub(crate) fn prepare(root: &Path) -> anyhow::Result<()> {
    available(root)?;
    let ours = ["--bin", "wingbeat", "--bin", "wingbeat-test-web", "--bin", PACKAGE];
    succeed(&mut cargo(root, &[&["build", "--quiet", "--workspace", "--locked"], &ours[..]].concat()))?;
    stage("programs of Kubernetes", || build(root))
}

/// Becomes the program that does what these arguments say: Ctrl-C is for it.
pub(crate) fn kube(root: &Path, args: &[String]) -> anyhow::Result<()> {
    if args == ["test"] {
        return test(root);
    }
    // The web service of the tests is among them.
    succeed(&mut cargo(root, &["build", "--quiet", "--locked", "--package", PACKAGE, "--bins"]))?;
    let mut run = program(root);
    let error = run.args(args).exec();
    Err(error).with_context(|| format!("cannot run {run:?}"))
}

/// Builds the programs of a cluster that are missing.
fn build(root: &Path) -> anyhow::Result<()> {
    succeed(program(root).arg("build"))
}

/// Fails where there can be no cluster, and says why.
pub(crate) fn available(root: &Path) -> anyhow::Result<()> {
    let output = program(root).arg("check").output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn program(root: &Path) -> Command {
    cargo(root, &["run", "--quiet", "--locked", "--package", PACKAGE, "--bin", PACKAGE, "--"])
}
