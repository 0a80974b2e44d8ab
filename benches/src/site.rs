//! A site as users have it: a real `wingbeat serve` over a folder of documents, real Envoys, and who asks what they do.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_test_support::server::Server;
use wingbeat_xds_server::bootstrap::Bootstrap;

/// Longest time to wait for what has to come.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How often is looked.
const POLL: Duration = Duration::from_millis(20);

/// Whether a process stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// It does nothing, and holds what it has.
    Stands,
    /// It does what it did before.
    GoesOn,
}

/// A `wingbeat serve` with its folders.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    more: Vec<OsString>,
    server: Option<Server>,
    http: SocketAddr,
    xds: SocketAddr,
}

impl Site {
    /// Starts it over these documents, by names of their files.
    pub async fn start(documents: &[(String, String)], more: &[OsString]) -> anyhow::Result<Self> {
        let mut site = Self::prepare(documents, more)?;
        site.serve().await?;
        Ok(site)
    }

    /// Writes these documents, for a server that is started later.
    pub fn prepare(documents: &[(String, String)], more: &[OsString]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("config"))?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let site = Self { folder, more: more.to_vec(), server: None, http: any, xds: any };
        for (name, text) in documents {
            site.write(name, text)?;
        }
        Ok(site)
    }

    /// Starts the server, on the ports that it had before, and waits until it is ready. Returns how long that took.
    pub async fn serve(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut args: Vec<OsString> = Vec::new();
        // The last one of two counts nowhere: who needs another address names it.
        if !self.more.iter().any(|arg| arg == "--listen-xds") {
            args.extend(["--listen-xds".into(), self.xds.to_string().into()]);
        }
        args.extend(["--listen-http".into(), self.http.to_string().into()]);
        args.extend(["--config".into(), self.config().into(), "--state".into(), self.state().into()]);
        args.extend(self.more.iter().cloned());
        let server = Server::start(program()?, args);
        (self.http, self.xds) = (server.http.parse()?, server.xds);
        self.server = Some(server);
        self.until("the server is ready", async |site| Ok(site.get("/readyz").await?.0 == 200)).await?;
        Ok(began.elapsed())
    }

    /// Kills it and starts it again. Returns how long it took from the start until it was ready.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        drop(self.server.take());
        self.serve().await
    }

    /// Kills it.
    pub fn stop(&mut self) {
        drop(self.server.take());
    }

    /// Lets its process stand still, or go on.
    pub fn freeze(&self, freeze: Freeze) -> anyhow::Result<()> {
        let signal = match freeze {
            Freeze::Stands => "-STOP",
            Freeze::GoesOn => "-CONT",
        };
        let pid = self.server.as_ref().context("it runs")?.pid();
        let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status()?;
        ensure!(sent.success(), "kill {signal} {pid}: {sent}");
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Returns the folder of its state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns a folder for what else it needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns where Envoys connect.
    pub const fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// Returns where its HTTP API is.
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// Returns the server's resident memory, in MiB.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let server = self.server.as_ref().context("it runs")?;
        #[expect(clippy::cast_precision_loss, reason = "KiB of one machine")]
        Ok(server.memory() as f64 / 1_024.0)
    }

    /// Returns the CPU time that the server has used, by all of its threads that there are or were.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        crate::cpu::used(self.server.as_ref().context("it runs")?.pid())
    }

    /// Returns the size of its state, in KiB.
    pub fn stored(&self) -> anyhow::Result<f64> {
        let mut bytes = 0;
        for file in std::fs::read_dir(self.state())? {
            bytes += file?.metadata()?.len();
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes of one disk")]
        Ok(bytes as f64 / 1_024.0)
    }

    /// Returns what the server wrote to standard error.
    pub fn said(&self) -> String {
        self.server.as_ref().map(Server::said).unwrap_or_default()
    }

    /// Returns the last of it, for people to see why something failed.
    pub fn said_last(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        format!("the server says:\n{}", lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n"))
    }

    /// Writes a document's file as editors do: the old one is replaced.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let aside = self.folder.path().join("next");
        std::fs::write(&aside, text)?;
        Ok(std::fs::rename(aside, self.config().join(format!("{name}.yaml")))?)
    }

    /// Takes a document's file away.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.config().join(format!("{name}.yaml")))?)
    }

    /// Returns status and body of an answer of the HTTP API.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    /// Has a command carried out on a canary, by this token if one is needed.
    pub async fn command(&self, canary: &str, verb: &str, token: Option<&str>) -> anyhow::Result<()> {
        let (status, body) = self.try_command(canary, verb, token).await?;
        ensure!(status == 200, "{verb} {canary}: {status} {body}");
        Ok(())
    }

    /// Sends a command. Returns status and body of the answer.
    pub async fn try_command(&self, canary: &str, verb: &str, token: Option<&str>) -> anyhow::Result<(u16, String)> {
        let (path, body) =
            (format!("/api/v1/canaries/{canary}/{verb}"), json!({"id": format!("{canary} {verb}")}).to_string());
        let authorization = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let length = body.len();
        let head =
            format!("{authorization}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close");
        self.ask(&format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n{body}")).await
    }

    async fn ask(&self, request: &str) -> anyhow::Result<(u16, String)> {
        let mut connection = TcpStream::connect(self.http).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// Returns a canary of namespace `prod` as the API shows it; nothing if there is none.
    pub async fn canary(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let (status, body) = self.get(&format!("/api/v1/canaries/prod/{name}")).await?;
        if status == 404 {
            return Ok(None);
        }
        ensure!(status == 200, "{status}: {body}");
        Ok(Some(serde_json::from_str(&body)?))
    }

    /// Returns its phase.
    pub async fn phase(&self, name: &str) -> anyhow::Result<String> {
        let canary = self.canary(name).await?;
        Ok(canary.as_ref().and_then(|canary| canary.get("phase")?.as_str()).unwrap_or_default().to_owned())
    }

    /// Returns the phases of all canaries, by name.
    pub async fn phases(&self) -> anyhow::Result<Vec<(String, String)>> {
        let (status, body) = self.get("/api/v1/canaries").await?;
        ensure!(status == 200, "{status}: {body}");
        let all: Value = serde_json::from_str(&body)?;
        let text =
            |canary: &Value, field: &str| canary.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let all = all.as_array().context("no list of canaries")?;
        Ok(all.iter().map(|canary| (text(canary, "name"), text(canary, "phase"))).collect())
    }

    /// Waits until a canary is in this phase.
    pub async fn reaches(&self, name: &str, phase: &str) -> anyhow::Result<()> {
        let what = format!("{name} is {phase}");
        self.until(&what, async |site| Ok(site.phase(name).await? == phase)).await
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(POLL);
        let wait = async {
            while !holds(self).await? {
                poll.tick().await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(waited) => waited.with_context(|| what.to_owned()),
            Err(_) => bail!("{what}: it did not come about in {PATIENCE:?}; {}", self.said_last()),
        }
    }

    /// Returns the bootstrap of an Envoy with this id and cluster.
    pub fn bootstrap(&self, node: &str, cluster: &str) -> Bootstrap {
        Bootstrap {
            node_id: node.to_owned(),
            node_cluster: cluster.to_owned(),
            host: self.xds.ip().to_string(),
            port: self.xds.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        }
    }
}

/// Starts an Envoy with this bootstrap, and waits until it accepts connections at `entry`.
pub async fn envoy(bootstrap: Value, entry: SocketAddr) -> anyhow::Result<Envoy> {
    Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?.start(bootstrap, entry).await
}

/// Returns the program that lies beside this one.
fn program() -> anyhow::Result<&'static str> {
    let path = std::env::current_exe()?.with_file_name("wingbeat");
    ensure!(path.is_file(), "{} is not there: build the workspace with --bins", path.display());
    // It is needed as long as this process lives.
    Ok(Box::leak(path.display().to_string().into_boxed_str()))
}

/// What came of a request: who served it, if somebody did.
pub async fn served_by(entry: SocketAddr, host: &str) -> anyhow::Result<Option<String>> {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n\r\n");
    Ok(wingbeat_e2e::send(entry, request.as_bytes()).await.revision)
}

/// Returns documents of a listener for Envoys of this cluster.
pub fn listener(cluster: &str, entry: SocketAddr) -> String {
    let (address, port) = (entry.ip(), entry.port());
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: {cluster}}}\n\
         spec: {{address: {address}, port: {port}, nodes: [{cluster}]}}\n"
    )
}
