//! `cargo xtask simulate`: what the judge is worth where the truth is known.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::run::{cargo, output, say, succeed};

const WRITTEN: &str = "docs/simulations.md";

/// Builds what simulates.
pub(crate) fn build(root: &Path) -> anyhow::Result<()> {
    succeed(&mut cargo(root, &["build", "--release", "--locked", "--workspace", "--bins"]))
}

/// Simulates the named tables, or all, and writes them down after a full run of all of them. Fails if a figure is out of
/// its bound.
pub(crate) fn simulate(root: &Path, full: bool, names: &[String]) -> anyhow::Result<()> {
    build(root)?;
    let mut arguments: Vec<&str> = names.iter().map(String::as_str).collect();
    arguments.extend(full.then_some("--full"));
    let (lines, holds) = run(root, &arguments)?;
    if full && names.is_empty() {
        std::fs::write(root.join(WRITTEN), page(&lines)?).with_context(|| format!("cannot write {WRITTEN}"))?;
    }
    if !holds {
        bail!("a figure is out of its bound");
    }
    Ok(())
}

/// Runs the simulations and shows their lines. True if all figures are within their bounds.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<(Vec<String>, bool)> {
    let mut command = Command::new(root.join("target/release/simulate"));
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().context("cannot run simulate")?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line?;
        say(&line)?;
        lines.push(line);
    }
    let holds = child.wait()?.success() && !lines.is_empty();
    Ok((lines, holds))
}

fn page(lines: &[String]) -> anyhow::Result<String> {
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut page = format!(
        "# Simulations\n\nWhat the judge is worth where the truth is known: written by `cargo xtask simulate --full` on \
         {}, {cores} × {model}. Seeds are fixed: the figures are the same on every machine. The worlds are in \
         `test-support/src/simulation/`, and `docs/statistics.md` says what the tests are. Where there is no bound, \
         nothing is promised: the figure says what to expect.\n",
        date.trim()
    );
    let mut table = "";
    for line in lines {
        let (name, rest) = line.split_once(" | ").with_context(|| format!("{line} is no line of a table"))?;
        if name != table {
            write!(page, "\n## {name}\n\n| what | figure | bound | |\n|---|---|---|---|\n")?;
            table = name;
        }
        writeln!(page, "| {rest} |")?;
    }
    Ok(page)
}
