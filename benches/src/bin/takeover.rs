//! A control plane that is killed again and again in mid-rollout, and started over its state: what it counted is held
//! against what users and services counted.
//!
//! `wingbeat serve` is killed by SIGKILL at random moments while users send requests through a real Envoy. After some kills
//! the users stop, and each arm's requests and errors have to be exactly those that reached it: what is missing was lost,
//! what is too much was counted twice or belongs to another attempt. Then the attempt ends; the next one is of the same
//! revision or of another, and fails another share of its requests. `KILLS` says how often it is killed, `SEED` when.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_benches::{asked, print, row, seed};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::load::{Load, LoadConfig, Tally};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::PATIENCE;
use wingbeat_e2e::control::free;
use wingbeat_test_support::server::Server;
use wingbeat_xds_server::bootstrap::Bootstrap;

/// Kills where nothing else is said.
const KILLS: u64 = 200;
/// Kills of an attempt.
const EACH: u64 = 10;
/// Users' requests a second.
const RATE: u32 = 300;
/// What is killed was up for so many milliseconds at most: some of it was learning still, some wrote everything down.
const UP_MS: u64 = 1_500;
/// And is away for so many milliseconds at most.
const AWAY_MS: u64 = 200;
/// What is counted is there after so long, or never.
const LATE: Duration = Duration::from_secs(10);
/// So often some requests are sent until all of them are counted.
const MOST_TRIED: usize = 10;
/// Evidence decides nothing: attempts end when they are told to.
const ANALYSIS: &str = "interval: 10m, stepWeight: 40, maxWeight: 40, threshold: 1000, judge: {mode: thresholds}";

/// Requests and errors of an arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Arm {
    requests: u64,
    errors: u64,
}

/// What is not as it was counted elsewhere.
#[derive(Debug, Clone, Copy, Default)]
struct Wrong {
    lost: u64,
    doubled: u64,
}

struct Site {
    folder: tempfile::TempDir,
    entry: SocketAddr,
    xds: SocketAddr,
    services: [Service; 2],
}

impl Site {
    async fn build() -> anyhow::Result<Self> {
        let start = async |name, seed| Service::start(name, seed, Behaviour::default()).await;
        let services = [start("primary", 1).await?, start("canary", 2).await?];
        let site = Self { folder: tempfile::tempdir()?, entry: free().await, xds: free().await, services };
        site.write(0)?;
        Ok(site)
    }

    /// Asks for a revision. Editors replace files, and so does this.
    fn write(&self, wanted: u64) -> anyhow::Result<()> {
        let [primary, canary] = self.services.each_ref().map(Service::address);
        let revision =
            if wanted == 0 { String::new() } else { format!(", \"{wanted}\": {{endpoints: [\"{canary}\"]}}") };
        let text = format!(
            "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: public}}\n\
             spec: {{address: 127.0.0.1, port: {}}}\n---\n\
             apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: backend, namespace: prod}}\n\
             spec: {{revision: \"{wanted}\", revisions: {{\"0\": {{endpoints: [\"{primary}\"]}}{revision}}}}}\n---\n\
             apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: backend, namespace: prod}}\n\
             spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}}\n  \
             service: {{port: 80, hosts: [backend.local], listeners: [public]}}\n  analysis: {{{ANALYSIS}}}\n",
            self.entry.port()
        );
        let (written, file) = (self.path("next"), self.path("canary.yaml"));
        std::fs::write(&written, text)?;
        Ok(std::fs::rename(written, file)?)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn serve(&self) -> anyhow::Result<Server> {
        let beside = std::env::current_exe()?.with_file_name("wingbeat");
        ensure!(Path::new(&beside).is_file(), "wingbeat is not built beside this");
        // As long as the process: a server is started by a name that lasts.
        let program: &'static str = Box::leak(beside.to_string_lossy().into_owned().into_boxed_str());
        let (config, state, xds) = (self.path("canary.yaml"), self.path("state"), self.xds.to_string());
        let args = ["--config", &config, "--state", &state, "--listen-xds", &xds, "--listen-http", "127.0.0.1:0"];
        Ok(Server::start(program, args))
    }

    fn users(&self) -> Load {
        let host = "backend.local".to_owned();
        Load::start(LoadConfig { target: self.entry, host, rate: RATE, patience: None, visitors: ANYONE })
    }

    /// What reached both arms since they were told how to behave.
    fn received(&self) -> [u64; 2] {
        self.services.each_ref().map(Service::received_since_change)
    }
}

/// Returns the canary as it is shown; nothing if nobody answers.
async fn canary(server: &Server) -> Option<Value> {
    let mut connection = TcpStream::connect(&server.http).await.ok()?;
    let request = "GET /api/v1/canaries/prod/backend HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body.get(body.find('{')?..=body.rfind('}')?)?).ok()
}

/// Returns what is counted of both arms, by how their requests ended.
async fn counted(server: &Server) -> Option<[Arm; 2]> {
    let canary = canary(server).await?;
    let arm = |name: &str| {
        let arm = canary.pointer(&format!("/arms/{name}"))?;
        let outcomes = arm.get("outcomes")?.as_object()?;
        let requests = outcomes.values().filter_map(Value::as_u64).sum();
        Some(Arm { requests, errors: arm.get("errors")?.as_u64()? })
    };
    Some([arm("primary")?, arm("canary")?])
}

/// Waits until the canary is shown as wanted.
async fn shows(server: &Server, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let shown = async {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        while !canary(server).await.is_some_and(|canary| wanted(&canary)) {
            poll.tick().await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shown).await;
    shown.with_context(|| format!("{what}: it never came about; {}", server.said()))
}

/// Waits until this is counted, or no more will be. Returns what is.
async fn settled(server: &Server, expected: [Arm; 2]) -> [Arm; 2] {
    let equal = async {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        while counted(server).await != Some(expected) {
            poll.tick().await;
        }
    };
    let _never = tokio::time::timeout(LATE, equal).await;
    // What is reported again after it was counted must change nothing: filters report every second at the latest.
    let mut again = tokio::time::interval(Duration::from_millis(1_200));
    again.tick().await;
    again.tick().await;
    counted(server).await.unwrap_or_default()
}

fn phase(canary: &Value) -> &str {
    canary.get("phase").and_then(Value::as_str).unwrap_or_default()
}

/// Returns how many requests each arm failed, as users saw it.
fn failed(tally: &Tally) -> [u64; 2] {
    ["primary", "canary"].map(|arm| tally.failed.iter().filter(|by| by.as_deref() == Some(arm)).count() as u64)
}

impl Wrong {
    fn add(&mut self, expected: u64, counted: u64) {
        self.lost += expected.saturating_sub(counted);
        self.doubled += counted.saturating_sub(expected);
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kills = asked("KILLS").unwrap_or(KILLS);
    let seed = seed()?;
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let site = Site::build().await?;
    let mut server = site.serve()?;
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?;
    let bootstrap = Bootstrap {
        node_id: "edge-1".to_owned(),
        node_cluster: "edge".to_owned(),
        host: site.xds.ip().to_string(),
        port: site.xds.port(),
        admin: None,
        delta: false,
        tls: None,
        authorization: None,
    };
    let _envoy = binary.start(bootstrap.render(), site.entry).await?;
    shows(&server, "the first revision serves", |canary| phase(canary) == "Initialized").await?;

    let (mut requests, mut errors, mut killed, mut sent, mut unanswered) =
        (Wrong::default(), Wrong::default(), 0_u64, 0_u64, 0_u64);
    let (mut attempt, mut charged) = (0_u64, 0_u64);
    while killed < kills {
        // Every second attempt is at the revision before.
        let again = attempt % 2 == 1;
        let number = attempt / 2 + 1;
        attempt += 1;
        let share = f64::from(random.random_range(1_u32..=9)) / 100.0;
        for (service, share) in site.services.iter().zip([0.02, share]) {
            service.behave(Behaviour { error_share: share, ..Behaviour::default() });
        }
        if again {
            let (code, said) = server.client(&["retry", "prod/backend"]);
            ensure!(code == Some(0), "{said}");
        } else {
            site.write(number)?;
        }
        let wanted = number.to_string();
        let ours = |canary: &Value| canary.get("canary_revision").and_then(Value::as_str) == Some(&wanted);
        shows(&server, "a rollout is under way", |canary| phase(canary) == "Progressing" && ours(canary)).await?;
        // Nobody sends anything at the moment: what is there already is of another attempt.
        for arm in counted(&server).await.unwrap_or_default() {
            charged += arm.requests + arm.errors;
        }
        // Until every worker has the routes, some requests of the primary are of no rollout.
        let mut before = None;
        for _ in 0..MOST_TRIED {
            let ([had_primary, had_canary], earlier) = (site.received(), counted(&server).await.unwrap_or_default());
            let users = site.users();
            let begun = async {
                while users.tally().finished < 100 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, begun).await.context("some requests")?;
            let tally = users.stop(Duration::from_secs(5)).await;
            let ([primary, canary], [bad_primary, bad_canary]) = (site.received(), failed(&tally));
            let [at_primary, at_canary] = earlier;
            let expected = [
                Arm { requests: at_primary.requests + primary - had_primary, errors: at_primary.errors + bad_primary },
                Arm { requests: at_canary.requests + canary - had_canary, errors: at_canary.errors + bad_canary },
            ];
            let found = settled(&server, expected).await;
            // The first share comes with the first requests.
            if found == expected && found.iter().all(|arm| arm.requests > 0) {
                before = Some(found);
                break;
            }
        }
        let before = before.context("every request is counted once all workers have the routes")?;
        let base = site.received();

        let users = site.users();
        let mut kills_here = 0;
        while kills_here < EACH && killed < kills {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..UP_MS))).await;
            drop(server);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..AWAY_MS))).await;
            server = site.serve()?;
            kills_here += 1;
            killed += 1;
        }
        let tally = users.stop(Duration::from_secs(10)).await;
        let ([primary, canary], [base_primary, base_canary]) = (site.received(), base);
        let ([bad_primary, bad_canary], [at_primary, at_canary]) = (failed(&tally), before);
        let expected = [
            Arm { requests: at_primary.requests + primary - base_primary, errors: at_primary.errors + bad_primary },
            Arm { requests: at_canary.requests + canary - base_canary, errors: at_canary.errors + bad_canary },
        ];
        let found = settled(&server, expected).await;
        for (expected, found) in expected.iter().zip(&found) {
            requests.add(expected.requests, found.requests);
            errors.add(expected.errors, found.errors);
        }
        sent += tally.sent;
        unanswered += tally.failed.iter().filter(|by| by.is_none()).count() as u64;
        row(
            &format!(
                "attempt {attempt} (revision {number}), killed {kills_here} times, canary fails {:.0} %",
                share * 100.0
            ),
            &format!("{} requests; expected {expected:?}, counted {found:?}", tally.sent),
            "equal",
            expected == found,
        )?;
        shows(&server, "it goes on", |canary| phase(canary) == "Progressing" && ours(canary)).await?;
        let (code, said) = server.client(&["abort", "prod/backend"]);
        ensure!(code == Some(0), "{said}");
        shows(&server, "the attempt is over", |canary| phase(canary) == "Failed").await?;
    }
    Ok(print(&json!({
        "seed": seed,
        "kills": killed,
        "attempts": attempt,
        "requests": sent,
        "requests_lost": requests.lost,
        "requests_doubled": requests.doubled,
        "errors_lost": errors.lost,
        "errors_doubled": errors.doubled,
        "charged_with_another": charged,
        "users_without_answer": unanswered,
    }))?)
}
