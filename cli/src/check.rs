//! `wingbeat check`.

use std::path::{Path, PathBuf};

use wingbeat_api::{Report, Set};

use crate::files::{self, Found, Pipes};
use crate::names;
use crate::output::{Format, Outcome, complain, emit, print_line};

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
    let Found { texts, unreadable, empty, left_out, .. } = files::read(&args.files, Pipes::Read);
    let mut set = Set::lint(&texts);
    set.report.warnings.extend(left_out);
    let unresolved = names::unresolved(set.host_names()).await;
    set.report.errors.extend(set.unresolved(&unresolved));
    set.report.errors.extend(unreadable.into_iter().chain(empty));
    set.report.errors.sort();
    set.report.warnings.sort();
    let (files, others) = (set.files(), set.left_out);
    let report = set.report;
    match args.output {
        Format::Text if report.errors.is_empty() => {
            print_problems(&report)?;
            let right = match files {
                0 => "there is no document of Wingbeat".to_owned(),
                1 => "1 file is right".to_owned(),
                files => format!("{files} files are right"),
            };
            let others = match others {
                0 => String::new(),
                1 => ", 1 document of others was not read".to_owned(),
                others => format!(", {others} documents of others were not read"),
            };
            print_line(&format!("{right}{others}"))?;
        }
        Format::Text => print_problems(&report)?,
        Format::Json | Format::Yaml => emit(args.output, &report)?,
    }
    // Who checks what is not there has named the wrong files.
    Ok(if report.errors.is_empty() && files > 0 { Outcome::Done } else { Outcome::BadInput })
}

/// Returns what a file says, to look at it. Where something is wrong with it, tells all of that and returns nothing.
pub(crate) fn lint(file: &Path) -> anyhow::Result<Option<Set>> {
    let Found { texts, unreadable, empty, .. } = files::read(&[file.to_owned()], Pipes::Read);
    let mut set = Set::lint(&texts);
    set.report.errors.extend(unreadable.into_iter().chain(empty));
    if set.report.errors.is_empty() {
        return Ok(Some(set));
    }
    print_problems(&set.report)?;
    Ok(None)
}

/// Writes errors and warnings to standard error.
pub(crate) fn print_problems(report: &Report) -> anyhow::Result<()> {
    report.errors.iter().try_for_each(|problem| complain(&problem.to_string()))?;
    report.warnings.iter().try_for_each(|problem| complain(&format!("warning: {problem}")))
}
