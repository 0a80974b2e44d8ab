//! A network of its own, in which hosts have addresses that are not loopback: there, a host is one voice, however many nodes
//! it says it is.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Host of the control plane.
pub const CONTROL: &str = "10.99.0.1";
/// Host of one that lies.
pub const LIAR: &str = "10.99.0.66";

/// The first argument of a program that runs there.
pub const INSIDE: &str = "--inside";

/// Runs this program again in a network of its own, with [`INSIDE`] before these arguments.
pub fn rerun(args: &[&str]) -> anyhow::Result<()> {
    let script = "ip link set lo up && ip route add local 10.99.0.0/16 dev lo && exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["-rn", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .arg(INSIDE)
        .args(args)
        .status()
        .context("cannot run unshare, of util-linux")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}
