//! Simulates rollouts and prints what came of them: `simulate [--full] [NAME…]`. Without `--full`, a tenth of the
//! rollouts. Ends with 1 if a figure is out of its bound.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::ensure;
use wingbeat_test_support::simulation::{Effort, TABLES};

fn main() -> anyhow::Result<ExitCode> {
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let known: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    ensure!(
        flags.iter().all(|flag| flag == "--full") && names.iter().all(|name| known.contains(&name.as_str())),
        "usage: simulate [--full] [NAME…], of {}",
        known.join(", ")
    );
    let effort = if flags.is_empty() { Effort::QUICK } else { Effort::FULL };
    let mut holds = true;
    for (_, rows) in TABLES.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|asked| asked == name)) {
        for line in rows.iter().flat_map(|row| row(effort)) {
            writeln!(std::io::stdout(), "{line}")?;
            holds &= line.holds;
        }
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
