//! `wingbeat crds`: the kinds that a cluster is given.

use wingbeat_kubernetes::crds::Group;

use crate::output::{self, Outcome};

/// Of which groups.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat crds --flagger-api > crds.yaml")]
pub(crate) struct Args {
    /// Those of flagger.app too: they take the place of Flagger's own, and keep its objects
    #[arg(long)]
    flagger_api: bool,
}

/// Prints them as YAML.
pub(crate) fn print(args: &Args) -> anyhow::Result<Outcome> {
    output::print(&Group::Wingbeat.manifest())?;
    if args.flagger_api {
        output::print(&Group::Flagger.manifest())?;
    }
    Ok(Outcome::Done)
}
