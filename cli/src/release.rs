//! `wingbeat release`: Canaries go, and what serves stays.

use std::path::PathBuf;

use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_kubernetes::edge::release::{Released, Which, release};

use crate::output::{Outcome, Wrong, complain, print_line};

/// What the API server's audit log calls this program.
const USER_AGENT: &str = concat!("wingbeat-release/", env!("CARGO_PKG_VERSION"));

/// Which Canaries.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat release backend --namespace prod")]
pub(crate) struct Args {
    /// The Canary
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// All Canaries: of the namespace if one is given, else of the cluster
    #[arg(long)]
    all: bool,
    /// The namespace of the Canary [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Says where the API server is, and who this is to it [default: $KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Lets them go, and says what stays.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let access = args.kubeconfig.map_or(Access::Environment, Access::Kubeconfig);
    let connection = Connection::open(&access, USER_AGENT).await.map_err(|error| Wrong(error.to_string()))?;
    let namespace = args.namespace.as_deref();
    let which =
        args.name.as_deref().map_or(Which::All(namespace), |name| Which::One(namespace.unwrap_or("default"), name));
    let released = release(&connection, which).await?;
    if let (Which::One(namespace, name), []) = (which, released.as_slice()) {
        let wrong =
            format!("there is no Canary {name}.{namespace}: name another one, or its namespace with --namespace");
        return Err(Wrong(wrong).into());
    }
    let mut outcome = Outcome::Done;
    for Released { canary, left } in &released {
        match left {
            Ok(left) if left.is_empty() => print_line(&format!("{canary} is released"))?,
            Ok(left) => {
                let left = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                print_line(&format!("{canary} is released: {left} stay"))?;
            }
            Err(error) => {
                complain(&format!("{canary} is held still: {error}"))?;
                outcome = Outcome::Unmet;
            }
        }
    }
    Ok(outcome)
}
