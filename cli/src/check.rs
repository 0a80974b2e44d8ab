//! `wingbeat check`.

use std::path::{Path, PathBuf};

use wingbeat_controller::document::{Report, Set};

use crate::files::{self, Found};
use crate::names;
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
pub(crate) async fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Found { texts, unreadable, empty } = files::read(&args.files);
    let mut set = Set::look(&texts);
    let unresolved = names::unresolved(set.host_names()).await;
    set.report.errors.extend(set.unresolved(&unresolved));
    set.report.errors.extend(unreadable.into_iter().chain(empty));
    set.report.errors.sort();
    let report = set.report;
    match args.output {
        Format::Text if report.errors.is_empty() => {
            tell(&report)?;
            let (files, are) = if texts.len() == 1 { ("file", "is") } else { ("files", "are") };
            say(&format!("{} {files} {are} right", texts.len()))?;
        }
        Format::Text => tell(&report)?,
        Format::Json | Format::Yaml => emit(args.output, &report)?,
    }
    Ok(if report.errors.is_empty() { Outcome::Done } else { Outcome::BadInput })
}

/// Returns what a file says, to look at it. Where something is wrong with it, tells all of that and returns nothing.
pub(crate) fn look(file: &Path) -> anyhow::Result<Option<Set>> {
    let Found { texts, unreadable, empty } = files::read(&[file.to_owned()]);
    let mut set = Set::look(&texts);
    set.report.errors.extend(unreadable.into_iter().chain(empty));
    if set.report.errors.is_empty() {
        return Ok(Some(set));
    }
    tell(&set.report)?;
    Ok(None)
}

/// Writes errors and warnings to standard error.
pub(crate) fn tell(report: &Report) -> anyhow::Result<()> {
    report.errors.iter().try_for_each(|problem| complain(&problem.to_string()))?;
    report.warnings.iter().try_for_each(|problem| complain(&format!("warning: {problem}")))
}
