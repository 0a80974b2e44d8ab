//! A control plane that follows documents and keeps its state on a disk, and any number of Envoys, each with a listener
//! of its own. The control plane can be taken away and come back, and so can Envoys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use wingbeat_api::desired_state::{DesiredState, InUse};
use wingbeat_api::files::{Files, InForce, Observation, Removal};
use wingbeat_control::engine::Engine;
use wingbeat_control::view::CanaryView;
use wingbeat_controller::disk::Disk;
use wingbeat_controller::handle::Handle;
use wingbeat_controller::runtime::{Runtime, random};
use wingbeat_controller::verb::Verb;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::visitor::Visitor;
use wingbeat_xds_server::bootstrap::Bootstrap;
use wingbeat_xds_server::publisher::Publisher as Snapshots;
use wingbeat_xds_server::server::{self, Security};

use crate::PATIENCE;
use crate::control::free;

/// Namespace of the canaries.
pub const NAMESPACE: &str = "prod";
/// Name of the documents that say where the Envoys listen.
const LISTENERS: &str = "listeners";
/// Addresses that users of a host come from, so that none of them has more than its share of what is given up. No multiple
/// of the kinds of visitors.
const CLIENTS: u8 = 31;
/// Name of a host that is there before any other.
const SETTLED: &str = "settled";
/// Envoys end the connections of a listener that they lost within this time.
const DRAINED: Duration = Duration::from_secs(3);
/// A percentage that Envoy refuses.
const REFUSED: u32 = 101;

/// A control plane and its Envoys. Dropping it ends all of them.
#[derive(Debug)]
pub struct Fleet {
    control: Option<Control>,
    state: TempDir,
    address: SocketAddr,
    documents: Mutex<Documents>,
    edges: Vec<Edge>,
    binary: Binary,
}

/// What is to be managed.
#[derive(Debug, Default)]
struct Documents {
    files: Files,
    texts: BTreeMap<String, String>,
    /// Canaries whose clusters Envoy refuses.
    spoilt: BTreeSet<String>,
}

impl Documents {
    fn desired_state(&mut self, in_use: &BTreeMap<CanaryName, InUse>) -> anyhow::Result<DesiredState> {
        let unresolved = BTreeMap::new();
        // What a test takes out, it means.
        let (absence, now) = (Removal::Confirmed, Timestamp::EPOCH);
        let seen = Observation { texts: &self.texts, in_use, unresolved: &unresolved, absence, now };
        let InForce { set, report, .. } = self.files.update(seen);
        if !report.errors.is_empty() {
            bail!("{:?}", report.errors);
        }
        let mut setup = set.desired_state(Some(Arc::from(wingbeat::FILTER)));
        for (name, managed) in &mut setup.canaries {
            if self.spoilt.contains(&*name.name) {
                managed.service.traffic.outliers.max_ejection_percent = REFUSED;
            }
        }
        Ok(setup)
    }
}

/// Where an Envoy listens, or would.
#[derive(Debug)]
struct Edge {
    name: String,
    entry: SocketAddr,
    envoy: Option<Envoy>,
}

/// A control plane with threads of its own: they end all at once, as those of a process do.
#[derive(Debug)]
struct Control {
    engine: Runtime,
    io: Option<tokio::runtime::Runtime>,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Connections first: what is decided from here on reaches nobody.
        if let Some(io) = self.io.take() {
            io.shutdown_background();
        }
    }
}

impl Control {
    fn start(state: &Path, listener: TcpListener, documents: &mut Documents) -> anyhow::Result<Self> {
        let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        listener.set_nonblocking(true)?;
        let snapshots = Snapshots::default();
        let mut disk = Disk::open(state)?;
        let engine = Engine::load(&mut disk, random()?)?;
        let setup = documents.desired_state(&engine.in_use())?;
        let inside = io.enter();
        let engine = Runtime::start(engine, Box::new(disk), setup, snapshots.clone())?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let intake = Arc::new(engine.handle().clone());
        io.spawn(server::serve(listener, Security::default(), snapshots, intake, std::future::pending()));
        drop(inside);
        Ok(Self { engine, io: Some(io) })
    }
}

impl Fleet {
    /// Starts a control plane with room for so many Envoys; none of them runs yet.
    pub async fn start(edges: usize) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        for number in 1..=edges {
            places.push(Edge { name: format!("edge-{number}"), entry: free().await, envoy: None });
        }
        let listeners =
            places.iter().map(|Edge { name, entry, .. }| listener(name, *entry, &[name])).collect::<Vec<_>>();
        let mut fleet = Self {
            control: None,
            state: tempfile::tempdir()?,
            address: free().await,
            documents: Mutex::default(),
            edges: places,
            binary: Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?.draining(DRAINED),
        };
        // Listeners are served with a host.
        let nowhere = BTreeMap::from([("0".to_owned(), free().await)]);
        let settled = fleet.document(SETTLED, "0", &nowhere, "", "");
        fleet
            .documents()
            .texts
            .extend([(LISTENERS.to_owned(), listeners.join("---\n")), (SETTLED.to_owned(), settled)]);
        fleet.open().await?;
        Ok(fleet)
    }

    /// Returns the documents of a canary with its workload, on all listeners; `analysis` has its fields, and `workload`
    /// more of those of the workload, in YAML.
    pub fn document(
        &self,
        name: &str,
        wanted: &str,
        revisions: &BTreeMap<String, SocketAddr>,
        analysis: &str,
        workload: &str,
    ) -> String {
        let listeners: Vec<&str> = self.edges.iter().map(|edge| edge.name.as_str()).collect();
        let listeners = listeners.join(", ");
        let revisions: Vec<String> =
            revisions.iter().map(|(revision, at)| format!("\"{revision}\": {{endpoints: [\"{at}\"]}}")).collect();
        let revisions = revisions.join(", ");
        let analysis = if analysis.is_empty() { "interval: 1m, stepWeight: 10, maxWeight: 50" } else { analysis };
        format!(
            "apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec: {{revision: \"{wanted}\", revisions: {{{revisions}}}{workload}}}\n---\n\
             apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: {name}}}\n  \
             service: {{port: 80, hosts: [{name}.local], listeners: [{listeners}]}}\n  analysis: {{{analysis}}}\n"
        )
    }

    /// Starts the control plane over its state.
    pub async fn open(&mut self) -> anyhow::Result<()> {
        let bound = async {
            loop {
                // What held the port before ends in its own time.
                if let Ok(listener) = TcpListener::bind(self.address) {
                    return listener;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let listener = tokio::time::timeout(PATIENCE, bound).await.context("the port is free")?;
        let control = Control::start(self.state.path(), listener, &mut self.documents())?;
        self.control = Some(control);
        Ok(())
    }

    /// Ends the control plane; Envoys keep what they have.
    pub fn close(&mut self) {
        self.control = None;
    }

    /// Returns the way to the control plane.
    pub fn handle(&self) -> &Handle {
        self.control.as_ref().expect("it runs").engine.handle()
    }

    /// Has a canary's documents say this from now on.
    pub fn apply(&self, name: &str, text: String) -> anyhow::Result<()> {
        self.change(|documents| {
            documents.texts.insert(name.to_owned(), text);
        })
    }

    /// Has Envoys listen like this from now on: names of listeners, with an address and their nodes.
    pub fn listen(&self, listeners: &[(&str, SocketAddr, &[&str])]) -> anyhow::Result<()> {
        let texts: Vec<String> = listeners.iter().map(|(name, entry, nodes)| listener(name, *entry, nodes)).collect();
        self.apply(LISTENERS, texts.join("---\n"))
    }

    /// Takes a canary's documents away.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.change(|documents| {
            documents.texts.remove(name);
        })
    }

    /// Has Envoy refuse the clusters of a canary from now on: its host leads nowhere.
    pub fn spoil(&self, name: &str) -> anyhow::Result<()> {
        self.change(|documents| {
            documents.spoilt.insert(name.to_owned());
        })
    }

    fn change(&self, change: impl FnOnce(&mut Documents)) -> anyhow::Result<()> {
        let board = self.handle().status();
        let in_use =
            board.canaries.values().map(|view| (CanaryName::new(NAMESPACE, view.name.as_str()), view.in_use.clone()));
        let mut documents = self.documents();
        change(&mut documents);
        let setup = documents.desired_state(&in_use.collect())?;
        // Within the lock: what is configured last is what the documents say.
        Ok(self.handle().configure(setup)?)
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        self.documents.lock().expect("not poisoned")
    }

    /// Has an Envoy join, if it is not there.
    pub async fn join(&mut self, edge: usize) -> anyhow::Result<()> {
        let place = self.edges.get_mut(edge).context("it has a place")?;
        if place.envoy.is_none() {
            let bootstrap = Bootstrap {
                node_id: place.name.clone(),
                node_cluster: place.name.clone(),
                host: self.address.ip().to_string(),
                port: self.address.port(),
                admin: None,
                delta: false,
                tls: None,
                authorization: None,
            };
            place.envoy = Some(self.binary.start(bootstrap.render(), place.entry).await?);
        }
        Ok(())
    }

    /// Has an Envoy leave, without a word.
    pub fn leave(&mut self, edge: usize) {
        if let Some(place) = self.edges.get_mut(edge) {
            place.envoy = None;
        }
    }

    /// Returns where users of an Envoy connect.
    pub fn entry(&self, edge: usize) -> Option<SocketAddr> {
        self.edges.get(edge).map(|edge| edge.entry)
    }

    /// Returns an Envoy that is there.
    pub fn envoy(&self, edge: usize) -> Option<&Envoy> {
        self.edges.get(edge)?.envoy.as_ref()
    }

    /// Returns how many Envoys take configuration.
    pub fn connected(&self) -> usize {
        usize::try_from(self.handle().status().clients.streams).unwrap_or(usize::MAX)
    }

    /// Returns how often Envoys refused a configuration.
    pub fn refusals(&self) -> u64 {
        self.handle().status().clients.nacks.iter().map(|(_, count)| count).sum()
    }

    /// Returns true once the control plane answers, after it was started.
    pub fn is_ready(&self) -> bool {
        self.handle().status().ready
    }

    /// Returns where the state is.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Starts users of a host at one of the Envoys.
    pub fn users(
        &self,
        edge: usize,
        name: &str,
        rate: u32,
        patience: Option<Duration>,
        visitors: &'static [Visitor],
    ) -> Load {
        let target = self.edges.get(edge).expect("it has a place").entry;
        let config = LoadConfig { target, host: format!("{name}.local"), rate, patience, visitors };
        Load::start_from(config, CLIENTS)
    }

    /// Returns what is shown of a canary.
    pub fn view(&self, name: &str) -> Option<Arc<CanaryView>> {
        self.handle().status().canaries.get(&(NAMESPACE.to_owned(), name.to_owned())).cloned()
    }

    /// Waits until what is shown of a canary is as wanted. Nothing if it is not in time.
    pub async fn shows(
        &self,
        name: &str,
        within: Duration,
        wanted: impl Fn(&CanaryView) -> bool,
    ) -> Option<Arc<CanaryView>> {
        let key = (NAMESPACE.to_owned(), name.to_owned());
        let mut boards = self.handle().watch();
        let shown = boards.wait_for(|board| board.canaries.get(&key).is_some_and(|view| wanted(view)));
        let board = tokio::time::timeout(within, shown).await.ok()?.ok()?.clone();
        board.canaries.get(&key).cloned()
    }

    /// Carries a command out.
    pub async fn command(&self, name: &str, verb: Verb, id: &str) -> anyhow::Result<()> {
        let canary = CanaryName::new(NAMESPACE, name);
        Ok(self.handle().command(canary, verb, id.to_owned()).await?)
    }
}

/// Returns the document of a listener.
fn listener(name: &str, entry: SocketAddr, nodes: &[&str]) -> String {
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: {name}}}\n\
         spec: {{address: 127.0.0.1, port: {}, nodes: [{}]}}\n",
        entry.port(),
        nodes.join(", ")
    )
}
