//! `wingbeat serve`: the standalone control plane.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use follow::Known;
use room::Room;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use wingbeat_api::files::Removal;
use wingbeat_control::engine::Engine;
use wingbeat_control::store::Store;
use wingbeat_controller::disk::Disk;
use wingbeat_controller::http::{self, Api, Readers};
use wingbeat_controller::recorder::Recorder;
use wingbeat_controller::runtime::{Runtime, random};
use wingbeat_xds_server::publisher::Publisher as Snapshots;
use wingbeat_xds_server::server::{self, Access, AnonymousReports, NodeList, Security, Tls};

use crate::files::{self, Pipes};
use crate::names;
use crate::output::{Outcome, Wrong, print_line};

pub(crate) mod allocator;
mod follow;
mod room;
mod watch;

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for a person
    Text,
    /// A JSON object a line
    Json,
}

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
    /// Where Envoys connect, for xDS and reports
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "ADDR")]
    listen_xds: SocketAddr,
    /// Where the HTTP API, metrics and health are; beyond this machine over TLS, with the certificate of --tls-cert
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen_http: SocketAddr,
    /// Lets commands in, and reports from other machines: whoever shows it. Without it, commands come from this machine only
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Names that the HTTP API answers to, beside localhost and IP addresses
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// The certificate that Envoys are shown: a PEM file
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key: a PEM file
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Who signs the certificates of Envoys: a PEM file. With it, only Envoys with a certificate are served, and each only
    /// as a node that its certificate names: node.id is its URI or DNS name, or is listed in --nodes
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Which other nodes the principals of certificates are, and of which clusters: a file with lines like
    /// `spiffe://example.com/edge edge-* cluster=edge`, read at the start
    #[arg(long, requires = "client_ca", value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// Takes reports from other machines without a certificate and without the token: whoever reaches the port decides
    #[arg(long, conflicts_with = "client_ca")]
    allow_anonymous_reports: bool,
    /// Serves plain text beyond this machine
    #[arg(long, conflicts_with = "tls_cert")]
    allow_plaintext: bool,
}

/// Serves until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    // A closed pipe ends nothing. Rust sees to that, but for a program that tried in vain to start itself anew.
    let _broken_pipes = signal(SignalKind::pipe()).context("cannot handle signals")?;
    let tls = tls(&args)?;
    let access = access(&args)?;
    let room = Room::make();
    for (option, address) in [("--listen-xds", args.listen_xds), ("--listen-http", args.listen_http)] {
        if tls.is_none() && !args.allow_plaintext && !address.ip().is_loopback() {
            let why = format!(
                "{option} {address} would serve plain text beyond this machine: add --tls-cert and --tls-key, or --allow-plaintext"
            );
            return Err(Wrong(why).into());
        }
    }
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
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}: choose another port, or 0"))
    };
    let (xds, http) = (bind(args.listen_xds).await?, bind(args.listen_http).await?);
    print_line(
        &serde_json::json!({"xds": xds.local_addr()?.to_string(), "http": http.local_addr()?.to_string()}).to_string(),
    )?;

    tracing::info!(
        xds = %xds.local_addr()?, http = %http.local_addr()?, tls = tls.is_some(), version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    let snapshots = Snapshots::of(engine.lineage());
    let runtime =
        Runtime::start_recording(engine, store, known.desired_state(&taken, &filter), snapshots.clone(), recorder)?;
    let handle = runtime.handle().clone();
    drop(taken);
    let (stop_xds, xds_stopped) = oneshot::channel::<()>();
    let secured = tls.as_ref().filter(|_| !args.listen_http.ip().is_loopback());
    let limits = room.xds();
    let security = Security { tls: tls.clone(), access, limits };
    let xds = server::serve(xds, security, snapshots, Arc::new(handle.clone()), async {
        let _stopped = xds_stopped.await;
    });
    let token = args.token.map(Arc::from);
    let api = Api { handle: handle.clone(), token, hosts: args.allowed_hosts.into(), readers: Readers::default() };
    let secured = secured.cloned();
    let http = tokio::spawn(async move { http::serve(http, secured.as_ref(), room.http(), api).await });
    let xds = tokio::spawn(xds);
    tokio::select! {
        ended = xds => ended?.context("the xDS server ended")?,
        ended = http => ended?.context("the HTTP server ended")?,
        followed = follow::follow(&args.config, known, &handle) => followed?,
        () = handle.ended() => anyhow::bail!("the engine ended by a fault of this program, which its log shows"),
        () = told_to_stop() => {}
    }
    tracing::info!("stopping: Envoys keep what they have, the state is stored");
    // Envoys keep what they have; the state is stored already.
    drop(stop_xds);
    drop(runtime);
    Ok(Outcome::Done)
}

/// Returns where the state is kept. There is always one: without it, a revision that was rolled back would be taken for
/// the one that serves after a restart.
fn state_folder(chosen: Option<PathBuf>) -> Result<PathBuf, Wrong> {
    // What systemd makes for a service with `StateDirectory=`; the first if there are several.
    let of_service = std::env::var_os("STATE_DIRECTORY").filter(|folders| !folders.is_empty());
    let of_service = of_service.and_then(|folders| std::env::split_paths(&folders).next());
    let of_user = || dirs::state_dir().or_else(dirs::data_local_dir).map(|folder| folder.join("wingbeat"));
    chosen.or(of_service).or_else(of_user).ok_or_else(|| {
        Wrong("this user has no home, so there is no default for the state: name a folder by --state".to_owned())
    })
}

/// Reads who may do what.
fn access(args: &Args) -> anyhow::Result<Access> {
    let anonymous = if args.allow_anonymous_reports { AnonymousReports::Taken } else { AnonymousReports::Refused };
    let nodes = match &args.nodes {
        None => NodeList::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| Wrong(format!("--nodes {}: {error}", path.display())))?;
            match NodeList::parse(&text) {
                Ok(nodes) => nodes,
                Err(wrong) => {
                    let lines: Vec<String> = wrong.iter().map(|line| format!("{}:{line}", path.display())).collect();
                    return Err(Wrong(lines.join("\n")).into());
                }
            }
        }
    };
    let far = !args.listen_xds.ip().is_loopback();
    if far && args.client_ca.is_none() && args.token.is_none() && anonymous == AnonymousReports::Refused {
        tracing::warn!(
            "reports from other machines are refused: nothing says who sends them; add --client-ca, or --token, or \
             --allow-anonymous-reports"
        );
    }
    Ok(Access { nodes, token: args.token.as_deref().map(Arc::from), anonymous })
}

/// Reads the certificates.
fn tls(args: &Args) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
    let read = |option: &str, path: &PathBuf| {
        let pem = std::fs::read(path).map_err(|error| Wrong(format!("{option} {}: {error}", path.display())))?;
        if pem.windows(b"-----BEGIN ".len()).any(|window| window == b"-----BEGIN ") {
            return Ok(pem);
        }
        Err(Wrong(format!("{option} {}: this is no PEM file, it has no -----BEGIN line", path.display())))
    };
    let tls = Tls {
        certificate: read("--tls-cert", certificate)?,
        key: read("--tls-key", key)?,
        client_ca: args.client_ca.as_ref().map(|path| read("--client-ca", path)).transpose()?,
    };
    let fits = tls.check();
    fits.map_err(|why| Wrong(format!("--tls-cert {} and its key cannot be used: {why}", certificate.display())))?;
    Ok(Some(tls))
}

async fn told_to_stop() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        let _interrupted = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
