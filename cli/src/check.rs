//! `wingbeat check`.

use std::path::PathBuf;

use wingbeat_controller::document::{Report, Set};

use crate::files;
use crate::output::{Format, Outcome, complain, emit, say};

/// Which files.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat check deploy/examples/*.yaml")]
pub(crate) struct Args {
    /// Files or folders
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// text, json or yaml
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

/// Says everything that is wrong with documents.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let texts = files::read(&args.files)?;
    let report = Set::of(&texts).report;
    match args.output {
        Format::Text if report.errors.is_empty() => {
            tell(&report)?;
            say(&format!("{} files are right", texts.len()))?;
        }
        Format::Text => tell(&report)?,
        Format::Json | Format::Yaml => emit(args.output, &report)?,
    }
    Ok(if report.errors.is_empty() { Outcome::Done } else { Outcome::BadInput })
}

/// Writes errors and warnings to standard error.
pub(crate) fn tell(report: &Report) -> anyhow::Result<()> {
    report.errors.iter().try_for_each(|problem| complain(&problem.to_string()))?;
    report.warnings.iter().try_for_each(|problem| complain(&format!("warning: {problem}")))
}
