//! A cluster: everything that runs, and where it is reached.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{mpsc as requests, oneshot};

use crate::audit::Audit;
use crate::binaries::Binaries;
use crate::control_plane::{ControlPlane, Disturbance};
use crate::cri::Runtime;
use crate::kubeconfig;
use crate::kubelet;
use crate::namespace::Namespace;
use crate::options::Options;
use crate::process;

/// Time for all processes to be gone when a cluster is dropped. They are killed without warning; a moment is enough.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for kubectl to end. What is waited for with it has a shorter `--timeout`.
const KUBECTL_TIMEOUT: Duration = Duration::from_mins(5);

/// A running cluster. Dropping it ends all of its processes and waits until they are gone; should the process that holds it be
/// killed, they are killed, too.
#[derive(Debug)]
pub struct Cluster {
    /// First, so that it is dropped first: the folder is removed once nothing uses it.
    keeper: Keeper,
    disturbances: requests::Sender<DisturbanceRequest>,
    namespace: Namespace,
    binaries: Binaries,
    kubeconfig: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// Starts a cluster with a node, and waits until it is ready: some seconds. Builds the binaries if need be: some minutes.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wingbeat-cluster-").tempdir().context("no temporary folder")?;
        let path = folder.path().to_owned();
        let (ready, started) = oneshot::channel();
        let (disturbances, requested) = requests::channel(1);
        let keeper = Keeper::spawn(move |stop| keep(&path, &options, ready, stop, requested))?;
        let (namespace, binaries) = started.await.context("the thread of the cluster has ended")??;
        let kubeconfig = folder.path().join("kubeconfig");
        Ok(Self { keeper, disturbances, namespace, binaries, kubeconfig, folder })
    }

    /// Returns a cluster that tests share which run at the same time, each in a namespace of its own: the first one starts it,
    /// the last one ends it.
    pub async fn shared() -> anyhow::Result<Arc<Self>> {
        /// Held while a cluster starts, so that there is one.
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        /// The cluster, as long as somebody has it.
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let _alone = STARTING.lock().await;
        let running = SHARED.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(cluster) = running {
            return Ok(cluster);
        }
        let cluster = Arc::new(Self::start(Options::default()).await?);
        *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    /// The same for a test of this name, or nothing where no cluster can be had: the test is reported as left out then, and
    /// fails where `CI=true`.
    pub async fn for_test(name: &str) -> anyhow::Result<Option<Arc<Self>>> {
        if Self::may_start(name).await? { Self::shared().await.map(Some) } else { Ok(None) }
    }

    /// The same, of this test alone.
    pub async fn for_test_alone(name: &str) -> anyhow::Result<Option<Arc<Self>>> {
        Self::for_test_with(name, Options::default()).await
    }

    /// The same, with options.
    pub async fn for_test_with(name: &str, options: Options) -> anyhow::Result<Option<Arc<Self>>> {
        if !Self::may_start(name).await? {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::start(options).await?)))
    }

    async fn may_start(name: &str) -> anyhow::Result<bool> {
        let Err(why) = Binaries::prerequisites().await else { return Ok(true) };
        if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
            return Err(why.context("CI=true, and there can be no cluster"));
        }
        writeln!(std::io::stderr(), "left out: {name}: {why:#}").context("cannot write to standard error")?;
        Ok(false)
    }

    /// Returns a program that will run in the cluster's network, with its kubeconfig.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command.env("KUBECONFIG", &self.kubeconfig).kill_on_drop(true);
        command
    }

    /// Runs kubectl to its success and returns what it printed.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run_kubectl(args, None).await
    }

    /// Applies documents.
    pub async fn apply(&self, documents: &str) -> anyhow::Result<String> {
        self.run_kubectl(&["apply", "-f", "-"], Some(documents)).await
    }

    async fn run_kubectl(&self, args: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let shown = format!("kubectl {}", args.join(" "));
        let mut command = self.command(self.binaries.folder().join("kubectl"));
        command.args(args);
        let run = process::run(&mut command, input);
        let output = tokio::time::timeout(KUBECTL_TIMEOUT, run).await;
        let output = output.with_context(|| format!("{shown}: not within {KUBECTL_TIMEOUT:?}"))?;
        let output = output.with_context(|| format!("{shown} cannot be run"))?;
        if !output.status.success() {
            bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Moves the calling thread into the cluster's network, for good: what it connects to then is the cluster's.
    pub fn enter(&self) -> anyhow::Result<()> {
        self.namespace.enter()
    }

    /// Returns the cluster's network.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns where its programs are.
    pub const fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Returns the file that says where the API server is, and lets its reader do anything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns the same for a service account, with a token for an hour: its reader can do what roles let it.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.kubectl(&["create", "token", account, "--namespace", namespace, "--duration=1h"]).await?;
        let file = self.folder.path().join(format!("{namespace}.{account}.kubeconfig"));
        let text = kubeconfig::of(self.folder.path(), token.trim()).to_string();
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Returns which calls the API server answered so far.
    pub fn audit(&self) -> anyhow::Result<Audit> {
        Ok(Audit::read(&self.audit_log(0)?))
    }

    /// Waits until nobody whose name begins so has read or written anything for a time, as [`Audit::reads_and_writes`] counts it; for
    /// ever, where that never comes.
    pub async fn until_quiet(&self, user_agent: &str, quiet: Duration) -> anyhow::Result<()> {
        let mut before = self.audit()?.reads_and_writes(user_agent);
        loop {
            tokio::time::sleep(quiet).await;
            let now = self.audit()?.reads_and_writes(user_agent);
            if std::mem::replace(&mut before, now) == now {
                return Ok(());
            }
        }
    }

    /// Returns the log of what the API server answered, a JSON object a line, from this byte on.
    pub fn audit_log(&self, from: u64) -> anyhow::Result<String> {
        let path = self.folder.path().join("log/audit.jsonl");
        let mut text = String::new();
        let read = File::open(&path).and_then(|mut log| {
            log.seek(SeekFrom::Start(from))?;
            log.read_to_string(&mut text)
        });
        read.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text)
    }

    /// Returns how many bytes that log has by now.
    pub fn audit_end(&self) -> anyhow::Result<u64> {
        let path = self.folder.path().join("log/audit.jsonl");
        Ok(std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len())
    }

    /// Returns the end of the log of `etcd`, `kube-apiserver`, `kube-controller-manager` or `kubelet`.
    pub fn log(&self, program: &str) -> String {
        process::tail(&self.folder.path().join("log").join(format!("{program}.log")))
    }

    /// Returns the ids of the processes that are in the cluster's network.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let network = std::fs::read_link(self.namespace.path()).context("the cluster is gone")?;
        processes_in(&network)
    }

    /// Returns what identifies the cluster's network: no other one has it, as long as there is a process in it.
    pub fn network(&self) -> anyhow::Result<PathBuf> {
        std::fs::read_link(self.namespace.path()).context("the cluster is gone")
    }

    /// Kills the API server, starts it with these flags beside those that it had at first, and waits until it is ready. Who
    /// watches loses the connection, and finds that the API server has forgotten what it was at.
    pub async fn restart_api_server(&self, flags: &[&str]) -> anyhow::Result<()> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.disturb(Disturbance::RestartApiServer(flags)).await
    }

    /// Stops etcd where it is (SIGSTOP): the API server's calls of it hang.
    pub async fn pause_etcd(&self) -> anyhow::Result<()> {
        self.disturb(Disturbance::PauseEtcd).await
    }

    /// Lets etcd go on, and waits until the API server is ready.
    pub async fn resume_etcd(&self) -> anyhow::Result<()> {
        self.disturb(Disturbance::ResumeEtcd).await
    }

    /// Kills etcd: the API server's calls of it fail.
    pub async fn kill_etcd(&self) -> anyhow::Result<()> {
        self.disturb(Disturbance::KillEtcd).await
    }

    /// Starts etcd again, with what it had stored, and waits until the API server is ready.
    pub async fn start_etcd(&self) -> anyhow::Result<()> {
        self.disturb(Disturbance::StartEtcd).await
    }

    async fn disturb(&self, disturbance: Disturbance) -> anyhow::Result<()> {
        let (done, disturbed) = oneshot::channel();
        let gone = "the thread of the cluster has ended";
        self.disturbances.send(DisturbanceRequest { disturbance, done }).await.ok().context(gone)?;
        disturbed.await.context(gone)?
    }

    /// Ends the cluster and waits until it is gone, as dropping it does.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.keeper.stop()
    }
}

/// Returns the ids of the processes of a network.
pub fn processes_in(network: &Path) -> anyhow::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context("there is no /proc")?.filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ended meanwhile has none.
    Ok(ids.filter(|id| std::fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|of| of == network)).collect())
}

/// The thread that everything is started by, and is bound to.
#[derive(Debug)]
struct Keeper {
    stop: Option<oneshot::Sender<()>>,
    ended: Mutex<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn spawn(run: impl FnOnce(oneshot::Receiver<()>) + Send + 'static) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("test-cluster".to_owned()).spawn(move || {
            run(stopped);
            drop(end);
        });
        let thread = Some(thread.context("no thread for the cluster")?);
        Ok(Self { stop: Some(stop), ended: Mutex::new(ended), thread })
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        // It is told by the end of the channel.
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(STOP_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            bail!("the cluster is not gone within {STOP_TIMEOUT:?}");
        }
        thread.join().map_err(|_| anyhow::anyhow!("the thread of the cluster panicked"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _nobody_to_tell = self.stop();
    }
}

/// That a part of the control plane is to be disturbed.
#[derive(Debug)]
struct DisturbanceRequest {
    disturbance: Disturbance,
    done: oneshot::Sender<anyhow::Result<()>>,
}

/// What starting ends with.
type Started = anyhow::Result<(Namespace, Binaries)>;

/// Runs a cluster until it is to stop.
fn keep(
    folder: &Path,
    options: &Options,
    ready: oneshot::Sender<Started>,
    mut stop: oneshot::Receiver<()>,
    mut disturbances: requests::Receiver<DisturbanceRequest>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime.context("no runtime for the cluster") {
        Ok(runtime) => runtime,
        Err(error) => {
            let _nobody_waits = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let start = async {
            let binaries = Binaries::ensure(&|_| {}).await?;
            let running = Running::start(folder, &binaries, options).await?;
            Ok((running, binaries))
        };
        let started = tokio::select! {
            started = start => started,
            _ = &mut stop => Err(anyhow::anyhow!("nobody waits for the cluster any more")),
        };
        match started {
            Ok((mut running, binaries)) => {
                if ready.send(Ok((running.namespace.clone(), binaries))).is_ok() {
                    loop {
                        let request = tokio::select! {
                            _ = &mut stop => break,
                            Some(request) = disturbances.recv() => request,
                        };
                        let disturb = running.control_plane.disturb(&request.disturbance);
                        let disturbed = tokio::select! {
                            _ = &mut stop => break,
                            disturbed = disturb => disturbed,
                        };
                        let _nobody_waits = request.done.send(disturbed);
                    }
                }
                running.kill().await;
            }
            Err(error) => {
                let _nobody_waits = ready.send(Err(error));
            }
        }
    });
}

/// All that runs.
struct Running {
    namespace: Namespace,
    control_plane: ControlPlane,
    kubelet: process::Process,
    runtime: Runtime,
}

impl Running {
    async fn start(folder: &Path, binaries: &Binaries, options: &Options) -> anyhow::Result<Self> {
        let namespace = Namespace::create().await?;
        for name in ["log", "pods", "kubelet", "volume-plugins"] {
            std::fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot create {name}"))?;
        }
        let (mut control_plane, api) = ControlPlane::start(folder, binaries.folder(), options).await?;
        let socket = folder.join("cri.sock");
        let node = async {
            let runtime = Runtime::serve(&socket, options.images.clone())?;
            let kubelet = kubelet::start(folder, binaries.folder(), &socket, &api).await?;
            Ok((runtime, kubelet))
        };
        match node.await {
            Ok((runtime, kubelet)) => Ok(Self { namespace, control_plane, kubelet, runtime }),
            Err(error) => {
                control_plane.kill().await;
                Err(error)
            }
        }
    }

    /// Kills all of it, who restarts others first.
    async fn kill(&mut self) {
        self.kubelet.kill().await;
        self.runtime.kill().await;
        self.control_plane.kill().await;
    }
}
