//! `wingbeat man`: pages for `man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory;

use crate::output::Outcome;

/// Where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a page for the program, and one for each verb.
pub(crate) fn write<C: CommandFactory>(args: &Args) -> anyhow::Result<Outcome> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    clap_mangen::generate_to(C::command(), folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(Outcome::Done)
}
