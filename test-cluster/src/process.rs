//! The programs of a cluster, each with a log of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// Time for a process to be gone that was sent SIGKILL. One that hangs in the kernel is left to it.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a log that an error shows.
const MAX_TAIL: usize = 4_096;

/// Returns a program that is killed when the calling thread ends, whatever ends it.
pub(crate) fn bound_to_thread(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program of this folder; what it writes goes to a log of its name.
    pub(crate) fn start(
        name: &'static str,
        binaries: &Path,
        logs: &Path,
        args: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = bound_to_thread(&binaries.join(name))
            .args(args)
            // Ctrl-C is for who holds the cluster: ended in their own order, its programs wait for each other.
            .process_group(0)
            .stdout(file.try_clone().context("no second descriptor for a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started: setpriv is of util-linux"))?;
        Ok(Self { name, log, child })
    }

    /// Returns what it is called.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("{} cannot be asked whether it runs", self.name))
    }

    /// Returns the end of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Stops it where it is, or lets it go on: nothing of it runs in between, and what it holds stays open.
    pub(crate) fn pause(&self, is_paused: bool) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} has ended", self.name))?;
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        kill_process(id, signal).with_context(|| format!("{} cannot be sent {signal:?}", self.name))
    }

    /// Kills it without warning, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        let _gone = tokio::time::timeout(KILL_TIMEOUT, self.child.kill()).await;
    }
}

/// Runs a command to its end, with this input.
pub(crate) async fn run(command: &mut Command, input: Option<&str>) -> anyhow::Result<Output> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipe = child.stdin.take();
    let write = async {
        if let (Some(mut pipe), Some(text)) = (pipe, input) {
            // Who does not read to the end says why in its output.
            let _unread = pipe.write_all(text.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    Ok(output?)
}

/// Returns the end of a log, from the beginning of a line on.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(MAX_TAIL);
    let end = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default());
    match end.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        Some(_) | None => end.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_begins_with_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "short\n").unwrap();
        assert_eq!(tail(&log), "short\n");
        let long = "line\n".repeat(2_000) + "last\n";
        std::fs::write(&log, &long).unwrap();
        let end = tail(&log);
        assert!(end.len() <= MAX_TAIL && end.starts_with("line\n") && long.ends_with(&end), "{end}");
        assert_eq!(tail(&folder.path().join("none")), "");
    }
}
