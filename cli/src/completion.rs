//! `wingbeat completion`: what a shell completes.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::{self, Outcome};

/// For which shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints what the shell reads.
pub(crate) fn print<C: CommandFactory>(args: &Args) -> anyhow::Result<Outcome> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}
