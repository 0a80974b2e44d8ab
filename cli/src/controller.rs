//! `wingbeat controller`: the control plane of a cluster.
//!
//! ```text
//!  watch ─► lead ─► load CanaryStates ─► engine ─► xDS
//!            │ another leads: healthy, not ready
//! ```

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::TcpListener;
use tokio::runtime::Handle as Tokio;
use tokio::signal::unix::{SignalKind, signal};
use wingbeat_control::engine::Engine;
use wingbeat_controller::clock::Clock;
use wingbeat_controller::disk::Disk;
use wingbeat_controller::handle::Handle;
use wingbeat_controller::runtime::{Runtime, random};
use wingbeat_controller::standings::Standings;
use wingbeat_core::time::Timestamp;
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::desire::Settings;
use wingbeat_kubernetes::edge::client::{Access, Connection};
use wingbeat_kubernetes::edge::driver::Driver;
use wingbeat_kubernetes::edge::lease::{Elector, Leadership, lease};
use wingbeat_kubernetes::edge::state::{ClusterStore, States};
use wingbeat_kubernetes::edge::watch::Scopes;
use wingbeat_kubernetes::lease::Election;
use wingbeat_kubernetes::permit::Permits;
use wingbeat_kubernetes::resource::ObjectRef;
use wingbeat_xds_server::publisher::Publisher as Snapshots;

use crate::daemon::ports::{self, Ports};
use crate::daemon::{LogFormat, state_folder, stop_signal};
use crate::output::{Outcome, Wrong};

/// How this program calls itself to the API server. Behind it is which replica it is, as in the Lease.
const USER_AGENT: &str = concat!("wingbeat/", env!("CARGO_PKG_VERSION"));
/// The Lease that the leader holds.
const LEASE: &str = "wingbeat";
/// The same with Flagger's API: a Flagger beside it waits, and the other way round.
const FLAGGERS_LEASE: &str = "flagger-leader-election";
/// While the API server cannot be read at the start, it is tried again every 2 s, for ever: the Pod lives, and is not ready.
const LOAD_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Which cluster, and what of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat controller --kubeconfig ~/.kube/config --lease-namespace wingbeat")]
pub(crate) struct Args {
    /// Says where the API server is, and who this is to it [default: $KUBECONFIG, or the service account of the Pod]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Keeps to the Canaries of one namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Where the Lease is by which one of several replicas leads
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// UID of the Pod that this runs in. What an earlier container of it led, this one leads at once
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Takes Canaries of flagger.app, too, and leads by Flagger's Lease
    #[arg(long)]
    pub(crate) flagger_api: bool,
    /// Keys of labels, the first that a target's selector has tells its Pods from those of the primary
    #[arg(long, value_name = "KEYS", value_delimiter = ',', default_value = "app,name,app.kubernetes.io/name")]
    selector_labels: Vec<String>,
    /// Prefixes of keys of labels and annotations of a target that its primary gets, too; * is all
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    include_label_prefix: Vec<String>,
    /// Rolls out changes of ConfigMaps and Secrets that targets refer to; false: they are neither watched nor copied
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    enable_config_tracking: bool,
    /// How the log on standard error looks; how much it tells is up to $WINGBEAT_LOG, like debug or wingbeat_control=warn
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Folder that keeps counts and evidence; what was decided is in CanaryStates [default: as of serve]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    ports: ports::Args,
}

/// Runs until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let _broken_pipes = signal(SignalKind::pipe()).context("cannot handle signals")?;
    let ports = Ports::of(&args.ports)?;
    let disk = Disk::open(&state_folder(args.state.clone())?).map_err(|error| Wrong(error.to_string()))?;
    let http = Arc::new(ports.bind_http().await?);
    let mut stopped = pin!(stop_signal());
    let mut health = pin!(ports.serve_waiting(&http));
    let mut replica = tokio::select! {
        replica = Replica::connect(&args) => replica?,
        ended = &mut health => return Err(ended.map_or_else(Into::into, |()| anyhow!("the HTTP server ended"))),
        () = &mut stopped => return Ok(Outcome::Done),
    };
    let taken_over = tokio::select! {
        leader = replica.take_over(disk) => leader.map(Some),
        ended = &mut health => Err(ended.map_or_else(Into::into, |()| anyhow!("the HTTP server ended"))),
        () = &mut stopped => Ok(None),
    };
    let ended = match taken_over {
        Ok(Some(leader)) => tokio::select! {
            ended = replica.lead(leader, &ports, http.clone()) => ended,
            () = &mut stopped => Ok(()),
        },
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    tracing::info!("stopping: Envoys keep what they have, the state is stored");
    replica.stop().await;
    ended.map(|()| Outcome::Done)
}

/// What a leader has beside what every replica has.
struct Leader {
    /// How often the Lease had changed hands.
    epoch: u64,
    snapshots: Snapshots,
    standings: Standings,
    handle: Handle,
}

/// One of several replicas.
struct Replica {
    lease: ObjectRef,
    states: Arc<States>,
    driver: Driver,
    elector: Elector,
    /// While it leads.
    runtime: Option<Runtime>,
}

impl Replica {
    /// Begins to watch, and to take part in the election.
    async fn connect(args: &Args) -> anyhow::Result<Self> {
        let access = args.kubeconfig.clone().map_or(Access::Environment, Access::Kubeconfig);
        let identity = Identity::of(args.pod_uid.as_deref())?;
        let agent = format!("{USER_AGENT} ({})", identity.name);
        let connect = async || Connection::open(&access, &agent).await.map_err(|error| Wrong(error.to_string()));
        let connection = connect().await?;
        let clock = Clock::start(Timestamp::EPOCH);
        let permits = Permits::default();
        let groups: &[Group] = if args.flagger_api { &[Group::Wingbeat, Group::Flagger] } else { &[Group::Wingbeat] };
        let namespace = args.namespace.as_deref();
        let states = Arc::new(States::new(connection.clone(), clock, permits.clone(), groups, namespace));
        let configs = args.enable_config_tracking;
        let scopes = Scopes { groups: groups.to_vec(), namespace: namespace.map(str::to_owned), configs };
        let settings = Settings {
            selector_labels: args.selector_labels.clone(),
            copied_prefixes: args.include_label_prefix.clone(),
            tracks_configs: configs,
        };
        let driver = Driver::start(&connection, clock, &scopes, settings, permits.clone(), states.clone());
        let mut told = String::new();
        while let Err(error) = states.load().await {
            let why = error.to_string();
            if why != told {
                tracing::warn!("{why}");
            }
            told = why;
            tokio::time::sleep(LOAD_RETRY_INTERVAL).await;
        }
        let name = lease_name(args.flagger_api);
        let mut election = Election::new(&args.lease_namespace, name, &identity.name);
        if let Some(predecessors) = &identity.predecessors {
            election.set_predecessors(predecessors);
        }
        if let Some(epoch) = states.max_epoch().await {
            // Where somebody has deleted the Lease, it does not begin anew.
            election.set_floor(epoch.saturating_add(1));
        }
        let lease = lease(&args.lease_namespace, name);
        // By a connection of its own, which nothing else delays.
        let elector = Elector::start(connect().await?, clock, &lease, election, permits);
        Ok(Self { lease, states, driver, elector, runtime: None })
    }

    /// Waits until it leads and knows what is in the cluster. Returns how often the Lease had changed hands.
    async fn wait_to_lead(&mut self) -> anyhow::Result<u64> {
        let mut leadership = self.elector.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            match now {
                Leadership::Leading { epoch } if self.driver.is_listed() => return Ok(epoch),
                Leadership::Leading { .. } | Leadership::Following { .. } | Leadership::Waiting => {}
            }
            tokio::select! {
                () = self.driver.observe() => {}
                changed = leadership.changed() => changed.context("the election has ended")?,
            }
        }
    }

    /// Waits until it leads, and goes on where the leader before was.
    async fn take_over(&mut self, disk: Disk) -> anyhow::Result<Leader> {
        let epoch = self.wait_to_lead().await?;
        let (states, lease) = (self.states.clone(), self.lease.clone());
        // The store waits for its calls, which tokio's own threads must not.
        let loaded = tokio::task::spawn_blocking(move || {
            let mut store = ClusterStore::new(states, &lease, Box::new(disk), Tokio::current());
            let engine = Engine::load(&mut store, random()?)?;
            anyhow::Ok((engine, store))
        });
        let (engine, store) = loaded.await?.context("what is stored cannot be loaded")?;
        for why in self.states.refused().await.into_values() {
            tracing::error!("{why}");
        }
        // Whatever the leader before still writes is refused from then on.
        self.states
            .raise(&engine.in_rollout())
            .await
            .context("the rollouts of an earlier leader cannot be taken over")?;
        let desired = self.driver.begin(Arc::from(wingbeat::FILTER), Clock::start(engine.latest_stored()));
        let snapshots = Snapshots::of(engine.lineage());
        let standings = Standings::default();
        let started = tokio::task::spawn_blocking({
            let (snapshots, standings) = (snapshots.clone(), standings.clone());
            move || Runtime::start_in_cluster(engine, Box::new(store), desired, snapshots, standings)
        });
        let runtime = self.runtime.insert(started.await??);
        let handle = runtime.handle().clone();
        Ok(Leader { epoch, snapshots, standings, handle })
    }

    /// Leads, until it must not any more.
    async fn lead(&mut self, leader: Leader, ports: &Ports, http: Arc<TcpListener>) -> anyhow::Result<()> {
        let Leader { epoch, snapshots, standings, handle } = leader;
        let xds = ports.bind_xds().await?;
        ports.announce(&xds, &http)?;
        let mut servers = ports.serve(xds, http, snapshots, &handle);
        let mut leadership = self.elector.leadership();
        tokio::select! {
            ended = servers.ended() => ended,
            ended = self.driver.run(&handle, &standings, &mut leadership, epoch) => Err(ended.into()),
            () = handle.ended() => bail!("the engine ended by a fault of this program, which its log shows"),
        }
    }

    /// Stores aborts that are served, writes nothing else, and lets another one lead.
    async fn stop(self) {
        let Self { lease: _, states: _, driver, elector, runtime } = self;
        drop(driver);
        let _ended = tokio::task::spawn_blocking(move || drop(runtime)).await;
        elector.release().await;
    }
}

/// Returns the name of the Lease that the leader holds.
pub(crate) const fn lease_name(flagger_api: bool) -> &'static str {
    if flagger_api { FLAGGERS_LEASE } else { LEASE }
}

/// What a replica is called.
pub(crate) struct Identity {
    /// As no other one is, also not an earlier process of the same Pod.
    pub(crate) name: String,
    /// What earlier processes of the same Pod are called begins with this. They have ended: a Pod has one container of a name.
    predecessors: Option<String>,
}

impl Identity {
    pub(crate) fn of(pod_uid: Option<&str>) -> anyhow::Result<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // It is part of a header, too.
        let host: String = host.chars().filter(char::is_ascii_graphic).collect();
        let random = random().context("there is no randomness")?;
        let [a, b, c, d, ..] = random;
        let pod_uid = pod_uid.map(str::trim).filter(|uid| !uid.is_empty());
        let prefix = pod_uid.map_or_else(|| format!("{host}_"), |uid| format!("{host}_{uid}_"));
        let name = format!("{prefix}{:08x}", u32::from_be_bytes([a, b, c, d]));
        Ok(Self { name, predecessors: pod_uid.map(|_| prefix) })
    }
}
