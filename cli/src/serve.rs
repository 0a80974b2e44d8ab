//! `wingbeat serve`: the standalone control plane.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use follow::Known;
use tokio::signal::unix::{SignalKind, signal};
use wingbeat_api::files::Removal;
use wingbeat_control::engine::Engine;
use wingbeat_control::store::Store;
use wingbeat_controller::disk::Disk;
use wingbeat_controller::recorder::Recorder;
use wingbeat_controller::runtime::{Runtime, random};
use wingbeat_xds_server::publisher::Publisher as Snapshots;

use crate::daemon::ports::{self, Ports};
use crate::daemon::{LogFormat, state_folder, stop_signal};
use crate::files::{self, Pipes};
use crate::names;
use crate::output::{Outcome, Wrong};

mod follow;
mod watch;

/// What is served, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat serve --config deploy/examples/backend.yaml --state /var/lib/wingbeat")]
pub(crate) struct Args {
    /// Files or folders of documents; changes are taken over as they are written, deletions after 10 s, or on SIGHUP
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    config: Vec<PathBuf>,
    /// How the log on standard error looks; how much it tells is up to $WINGBEAT_LOG, like debug or wingbeat_control=warn
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Folder that keeps the state [default: $STATE_DIRECTORY, or wingbeat in this user's folder of states]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder for recordings, a file per rollout, of what its judge sees; `wingbeat replay` reads them
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    #[command(flatten)]
    ports: ports::Args,
}

/// Serves until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    // A closed pipe ends nothing. Rust sees to that, but for a program that tried in vain to start itself anew.
    let _broken_pipes = signal(SignalKind::pipe()).context("cannot handle signals")?;
    let ports = Ports::of(&args.ports)?;
    let folder = state_folder(args.state.clone())?;
    let mut store: Box<dyn Store> = Box::new(Disk::open(&folder).map_err(|error| Wrong(error.to_string()))?);
    tracing::info!(folder = %folder.display(), "state");
    let recorder = args.record.as_deref().map(Recorder::start).transpose();
    let recorder = recorder.map_err(|error| Wrong(format!("--record {error}")))?;
    let mut engine = Engine::load(store.as_mut(), random()?).map_err(|error| Wrong(error.to_string()))?;
    let stored = engine.texts();
    // An earlier version stored no texts: what a file that is wrong now said while its canaries were running is lost.
    let is_lost = stored.is_none() && !engine.in_use().is_empty();
    let mut known = Known::restore(stored.unwrap_or_default(), &args.config);
    let found = files::read(&args.config, Pipes::Refuse);
    known.note(found);
    let in_use = engine.in_use();
    let taken = known.take(&|name| in_use.get(name).cloned(), BTreeMap::new(), Removal::Deferred);
    if !taken.report.errors.is_empty() && (is_lost || taken.set.is_empty()) {
        let why = if is_lost { "canaries of these files may be running" } else { "there is nothing else to serve" };
        return Err(Wrong(format!("mend the files above: {why}")).into());
    }
    // Envoys resolve names themselves and keep the addresses that they have: a name that has none at the moment is no
    // reason to leave them alone.
    let unresolved = names::unresolved(taken.set.host_names()).await;
    for problem in taken.set.unresolved(&unresolved) {
        tracing::warn!(file = problem.file, "{problem}");
    }
    let filter: Arc<[u8]> = Arc::from(wingbeat::FILTER);
    let (xds, http) = (ports.bind_xds().await?, ports.bind_http().await?);
    ports.announce(&xds, &http)?;
    let snapshots = Snapshots::of(engine.lineage());
    let runtime =
        Runtime::start_recording(engine, store, known.desired_state(&taken, &filter), snapshots.clone(), recorder)?;
    let handle = runtime.handle().clone();
    drop(taken);
    let mut servers = ports.serve(xds, Arc::new(http), snapshots, &handle);
    tokio::select! {
        ended = servers.ended() => ended?,
        followed = follow::follow(&args.config, known, &handle) => followed?,
        () = handle.ended() => anyhow::bail!("the engine ended by a fault of this program, which its log shows"),
        () = stop_signal() => {}
    }
    tracing::info!("stopping: Envoys keep what they have, the state is stored");
    // Envoys keep what they have; the state is stored already.
    drop(servers);
    drop(runtime);
    Ok(Outcome::Done)
}
