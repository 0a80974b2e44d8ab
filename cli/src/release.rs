//! `wingbeat release`: Canaries go, and what serves stays.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use wingbeat_controller::clock::Clock;
use wingbeat_core::time::Timestamp;
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_kubernetes::edge::lease::{Elector, Leadership, lease};
use wingbeat_kubernetes::edge::release::{Released, Which, release, stop};
use wingbeat_kubernetes::lease::Election;
use wingbeat_kubernetes::permit::Permits;

use crate::controller::{Identity, lease_name};
use crate::output::{Outcome, Wrong, complain, print_line};

/// What the API server's audit log calls this program.
const USER_AGENT: &str = concat!("wingbeat-release/", env!("CARGO_PKG_VERSION"));

/// Time for the controller to end and hand its Lease back; one that hangs loses it meanwhile.
const LEAD_TIMEOUT: Duration = Duration::from_mins(1);

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
    /// Stops the controller first, which this Deployment runs: it is scaled to zero, and its Lease is held meanwhile
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = deployment)]
    controller: Option<(String, String)>,
    /// That controller takes Canaries of flagger.app, and leads by Flagger's Lease
    #[arg(long, requires = "controller")]
    flagger_api: bool,
    /// Says where the API server is, and who this is to it [default: $KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Lets them go, and says what stays.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let access = args.kubeconfig.map_or(Access::Environment, Access::Kubeconfig);
    let connection = Connection::open(&access, USER_AGENT).await.map_err(|error| Wrong(error.to_string()))?;
    let elector = match &args.controller {
        Some((namespace, name)) => {
            stop(&connection, namespace, name).await?;
            Some(lead(&connection, namespace, lease_name(args.flagger_api)).await?)
        }
        None => None,
    };
    let namespace = args.namespace.as_deref();
    let which =
        args.name.as_deref().map_or(Which::All(namespace), |name| Which::One(namespace.unwrap_or("default"), name));
    // A controller without Flagger's API has none of its Canaries, and its role does not know them.
    let is_ours_alone = args.controller.is_some() && !args.flagger_api;
    let groups: &[Group] = if is_ours_alone { &[Group::Wingbeat] } else { &[Group::Wingbeat, Group::Flagger] };
    let released = release(&connection, groups, which).await;
    if let Some(elector) = elector {
        elector.release().await;
    }
    let released = released?;
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

/// Waits until this program leads, so that no controller takes back what is released.
async fn lead(connection: &Connection, namespace: &str, name: &str) -> anyhow::Result<Elector> {
    let identity = Identity::of(None)?;
    let (clock, election) = (Clock::start(Timestamp::EPOCH), Election::new(namespace, name, &identity.name));
    let elector = Elector::start(connection.clone(), clock, &lease(namespace, name), election, Permits::default());
    let mut leadership = elector.leadership();
    let leads = leadership.wait_for(|leadership| matches!(leadership, Leadership::Leading { .. }));
    match tokio::time::timeout(LEAD_TIMEOUT, leads).await {
        Ok(led) => {
            led.context("the election has ended")?;
            Ok(elector)
        }
        Err(_) => Err(anyhow!(
            "Lease {name}.{namespace} is still held: a controller runs, stop what started it again, as an autoscaler or GitOps may"
        )),
    }
}

/// Takes a Deployment's namespace and name.
fn deployment(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        Some(_) | None => Err("write NAMESPACE/NAME, like wingbeat/wingbeat".to_owned()),
    }
}
