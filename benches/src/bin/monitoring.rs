//! What `deploy/` has for Prometheus and Grafana, at a real Prometheus that scrapes a real rollout: each panel of the dashboard
//! shows something, each alert can be evaluated, and the one on failed rollouts fires when a canary breaks.
//!
//! Prometheus and promtool are taken from the PATH or, on Debian, from the package `prometheus`, which is unpacked under
//! `target/`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use wingbeat_benches::print;
use wingbeat_benches::site::{Site, envoy};
use wingbeat_benches::table::Table;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::free;

const RULES: &str = "deploy/prometheus/alerts.yaml";
const DASHBOARD: &str = "deploy/grafana/wingbeat.json";
/// Requests a second of users.
const RATE: u32 = 200;
/// A step that does not end.
const LONG: &str = "interval: 10m, threshold: 100, maxWeight: 50, stepWeight: 50";

fn document(revision: u8, entry: SocketAddr, old: SocketAddr, new: SocketAddr) -> String {
    let (address, port) = (entry.ip(), entry.port());
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: public}}\n\
         spec: {{address: {address}, port: {port}}}\n---\n\
         apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: backend, namespace: prod}}\n\
         spec: {{revision: \"{revision}\", revisions: {{\"1\": {{endpoints: [\"{old}\"]}}, \"2\": {{endpoints: [\"{new}\"]}}}}}}\n\
         ---\napiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: backend, namespace: prod}}\n\
         spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}}\n  \
         service: {{port: 80, hosts: [backend.local], listeners: [public]}}\n  analysis: {{{LONG}}}\n"
    )
}

/// Runs a program to its end. Returns what it wrote to standard output.
async fn run(program: &Path, args: &[&OsStr], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).current_dir(folder).output().await;
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} fails: {}", program.display(), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the folder that has Prometheus and promtool.
async fn prometheus() -> anyhow::Result<PathBuf> {
    let is_there = |folder: &PathBuf| ["prometheus", "promtool"].iter().all(|name| folder.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(is_there) {
        return Ok(folder);
    }
    let folder = std::path::absolute("target/prometheus")?;
    let programs = folder.join("usr/bin");
    if !is_there(&programs) {
        std::fs::create_dir_all(&folder)?;
        let unpack = async {
            run(Path::new("apt-get"), &["download", "prometheus"].map(OsStr::new), &folder).await?;
            for package in std::fs::read_dir(&folder)? {
                let package = package?.path();
                if package.extension() == Some(OsStr::new("deb")) {
                    let args = [OsStr::new("-x"), package.as_os_str(), folder.as_os_str()];
                    run(Path::new("dpkg"), &args, &folder).await?;
                }
            }
            anyhow::Ok(())
        };
        unpack.await.context("there is no Prometheus: put prometheus and promtool into the PATH")?;
    }
    ensure!(is_there(&programs), "{} has no Prometheus", programs.display());
    Ok(programs)
}

/// A running Prometheus. Killed when dropped.
struct Prometheus {
    _process: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes this server each second, and evaluates the rules as often.
    fn start(program: &Path, folder: &Path, address: SocketAddr, scraped: SocketAddr) -> anyhow::Result<Self> {
        let rules = std::path::absolute(RULES)?;
        let config = folder.join("prometheus.yml");
        let text = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "wingbeat", "static_configs": [{"targets": [scraped.to_string()]}]}],
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string())?;
        let arg = |name: &str, value: &OsStr| {
            let mut arg = std::ffi::OsString::from(name);
            arg.push(value);
            arg
        };
        let process = Command::new(program)
            .arg(arg("--config.file=", config.as_os_str()))
            .arg(arg("--storage.tsdb.path=", folder.join("series").as_os_str()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { _process: process, address })
    }

    /// Returns the `data` of an answer; `None` while it does not listen.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Option<Value>> {
        let url = reqwest::Url::parse_with_params(&format!("http://{}{path}", self.address), query)?;
        let Ok(answer) = reqwest::get(url).await else { return Ok(None) };
        let answer: Value = answer.json().await?;
        let error = answer.get("error").and_then(Value::as_str);
        ensure!(error.is_none(), "{path} {query:?}: {}", error.unwrap_or_default());
        Ok(answer.get("data").cloned())
    }

    /// Returns how many series a query has.
    async fn series(&self, query: &str) -> anyhow::Result<usize> {
        let data = self.get("/api/v1/query", &[("query", query)]).await?;
        Ok(data.and_then(|data| Some(data.get("result")?.as_array()?.len())).unwrap_or_default())
    }
}

/// Returns title and query of every panel, for this canary.
fn panels() -> anyhow::Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(DASHBOARD)?)?;
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let mut all = Vec::new();
    for panel in dashboard.get("panels").and_then(Value::as_array).context("no panels")? {
        let title = text(panel, "title").context("a panel without a title")?;
        for target in panel.get("targets").and_then(Value::as_array).context("no targets")? {
            let query = text(target, "expr").context("a target without a query")?;
            all.push((title.clone(), query.replace("$namespace", "prod").replace("$name", "backend")));
        }
    }
    Ok(all)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let programs = prometheus().await?;
    let mut table = Table::default();
    let here = std::env::current_dir()?;
    let checked = run(&programs.join("promtool"), &["check", "rules", RULES].map(OsStr::new), &here).await;
    table.row("promtool check rules", if checked.is_ok() { "right" } else { "wrong" }, "right", checked.is_ok())?;

    let (old, new) =
        (Service::start("1", 1, Behaviour::default()).await?, Service::start("2", 2, Behaviour::default()).await?);
    let entry = free().await;
    let text = |revision| document(revision, entry, old.address(), new.address());
    let site = Site::start(&[("canary".to_owned(), text(1))], &[]).await?;
    site.reaches("backend", "Initialized").await?;
    let _envoy = envoy(site.bootstrap("edge-1", "edge").render(), entry).await?;
    let prometheus = Prometheus::start(&programs.join("prometheus"), site.folder(), free().await, site.http())?;
    let host = "backend.local".to_owned();
    let users = Load::start(LoadConfig { target: entry, host, rate: RATE, patience: None, visitors: ANYONE });
    site.write("canary", &text(2))?;
    site.until("the canary has users", async |_| Ok(new.received_since_change() >= 100)).await?;
    let seen = "wingbeat_rollout_requests{arm=\"canary\"} > 0";
    site.until("Prometheus sees the rollout", async |_| Ok(prometheus.series(seen).await? > 0)).await?;
    // A rate takes two scrapes.
    let twice = "count_over_time(wingbeat_rollout_requests{arm=\"canary\"}[1m]) > 2";
    site.until("Prometheus sees it go on", async |_| Ok(prometheus.series(twice).await? > 0)).await?;

    new.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
    site.reaches("backend", "Failed").await?;
    let firing = "ALERTS{alertname=\"WingbeatRolloutFailed\",alertstate=\"firing\",name=\"backend\"}";
    let fires = site.until("the alert fires", async |_| Ok(prometheus.series(firing).await? > 0)).await;
    table.row(
        "a canary fails: WingbeatRolloutFailed",
        if fires.is_ok() { "fires" } else { "does not" },
        "fires",
        fires.is_ok(),
    )?;
    drop(users.stop(Duration::from_secs(5)).await);

    for (title, query) in panels()? {
        // What was there in the last minute: after the end, some of it is not.
        let series = prometheus.series(&format!("last_over_time(({query})[1m:1s])")).await;
        let (figure, holds) = match &series {
            Ok(series) => (format!("{series} series"), *series > 0),
            Err(error) => (format!("{error:#}"), false),
        };
        table.row(&format!("{title}: {query}"), &figure, "≥ 1", holds)?;
    }
    let rules = prometheus.get("/api/v1/rules", &[]).await?.context("an answer")?;
    let groups = rules.get("groups").and_then(Value::as_array).context("no groups")?;
    for rule in groups.iter().filter_map(|group| group.get("rules")?.as_array()).flatten() {
        let of = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
        table.row(&format!("alert {}", of("name")), of("health"), "ok", of("health") == "ok")?;
    }
    Ok(print(&json!({"failed": table.failed()}))?)
}
