//! `cargo xtask test`: all tests. Those that start a real Envoy have names that begin with `real_envoy_`, and those in a real
//! Kubernetes with `real_kubernetes_`; Envoy is installed by the first that needs it, and a cluster's programs are built before.

use std::path::Path;

use anyhow::bail;

use crate::kube;
use crate::run::{cargo, say, stage, succeed};

/// Runs the tests.
pub(crate) fn test(root: &Path, fast: bool) -> anyhow::Result<()> {
    // One that fails hides none that would fail behind it.
    let command = ["test", "--workspace", "--locked", "--no-fail-fast"];
    stage("tests without Envoy and Kubernetes", || {
        let skip = ["--", "--skip", "real_envoy_", "--skip", "real_kubernetes_"];
        succeed(&mut cargo(root, &[&command[..], &skip].concat()))
    })?;
    if fast {
        return say("left out: the tests that start a real Envoy or Kubernetes (cargo xtask test runs them)");
    }
    if !python3() {
        bail!("the tests install Envoy by Python 3 with its module venv, and there is no python3");
    }
    // One after another: each measures time, and two Envoys would measure each other.
    stage("tests with Envoy", || {
        let only = ["--tests", "--", "real_envoy_", "--test-threads", "1"];
        succeed(&mut cargo(root, &[&command[..], &only].concat()))
    })?;
    match kube::available(root) {
        Ok(()) => kube::test(root),
        Err(why) => say(&format!("left out: the tests in a real Kubernetes, since there can be none: {why:#}")),
    }
}

fn python3() -> bool {
    std::process::Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}
