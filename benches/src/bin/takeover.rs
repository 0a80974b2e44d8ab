//! A control plane that is killed again and again in mid-rollout, and started over its state: what it counted is held
//! against what users and services counted.
//!
//! `wingbeat serve` is killed by SIGKILL at random moments while users send requests through a real Envoy. After some kills
//! the users stop, and each arm's requests and errors have to be exactly those that reached it: what is missing was lost,
//! what is too much was counted twice. Then the attempt ends, and under load the next one begins, of the same revision or of
//! another, which fails another share of its requests: what its canary has too much belongs to the attempt before. `KILLS`
//! says how often it is killed, `SEED` when.
//!
//! At last the state folder is lost in mid-rollout, and the file names the canary: proxies keep their routes, users the
//! share that they had, nothing is promoted, and a condition says what to do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, ToSocketAddrs};
use wingbeat_benches::{asked, print, row, seed};
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_demo::load::{Load, LoadConfig, Tally};
use wingbeat_demo::port::Port;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::PATIENCE;
use wingbeat_test_support::server::Server;
use wingbeat_xds_server::bootstrap::Bootstrap;

/// Kills where nothing else is said.
const KILLS: u64 = 200;
/// Kills of an attempt.
const EACH: u64 = 10;
/// Users' requests a second.
const RATE: u32 = 200;
/// Users wait for their answers, also on a machine that has much else to do: it is not they who leave.
const GRACE: Duration = Duration::from_mins(1);
/// What is killed was up for so many milliseconds at most: some of it was learning still, some wrote everything down.
const UP_MS: u64 = 1_500;
/// And is away for so many milliseconds at most.
const AWAY_MS: u64 = 200;
/// What is counted is there after so long, or never.
const LATE: Duration = Duration::from_secs(10);
/// What filters have to say they say every second and an eighth at the latest.
const REPORTED: Duration = Duration::from_millis(1_200);
/// Users' requests after which the routes of a share are those of every worker.
const ARRIVED: u64 = 100;
/// Users' requests while nobody knows what the state was.
const UNKNOWN: u64 = 1_000;
/// No round has enough requests to take the canary further, and evidence decides nothing: attempts end when they are told
/// to.
const ANALYSIS: &str = "interval: 1s, stepWeight: 40, maxWeight: 40, threshold: 1000, \
                        judge: {mode: thresholds, minRequests: 1000000}";

/// Services answer when the machine has time for them.
const TRAFFIC: &str = "connectionPool: {tcp: {connectTimeout: 30s}}";

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
    entry: Port,
    /// Held while nobody listens there.
    xds: Port,
    services: [Service; 2],
    /// Started by a name that lasts.
    program: &'static str,
}

impl Site {
    async fn build() -> anyhow::Result<Self> {
        let start = async |name, seed| Service::start(name, seed, Behaviour::default()).await;
        let services = [start("primary", 1).await?, start("canary", 2).await?];
        let beside = std::env::current_exe()?.with_file_name("wingbeat");
        ensure!(beside.is_file(), "wingbeat is not built beside this");
        let program: &'static str = Box::leak(beside.to_string_lossy().into_owned().into_boxed_str());
        let site = Self { folder: tempfile::tempdir()?, entry: Port::hold()?, xds: Port::hold()?, services, program };
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
             service: {{port: 80, hosts: [backend.local], listeners: [public], trafficPolicy: {{{TRAFFIC}}}}}\n  \
             analysis: {{{ANALYSIS}}}\n",
            self.entry.address().port()
        );
        let (written, file) = (self.path("next"), self.path("canary.yaml"));
        std::fs::write(&written, text)?;
        Ok(std::fs::rename(written, file)?)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn serve(&self) -> Server {
        let (config, state, xds) = (self.path("canary.yaml"), self.path("state"), self.xds.address().to_string());
        let args = ["--config", &config, "--state", &state, "--listen-xds", &xds, "--listen-http", "127.0.0.1:0"];
        Server::start(self.program, args)
    }

    fn users(&self) -> Load {
        let host = "backend.local".to_owned();
        Load::start(LoadConfig { target: self.entry.address(), host, rate: RATE, patience: None, visitors: ANYONE })
    }

    /// What reached both arms since they were told how to behave.
    fn received(&self) -> [u64; 2] {
        self.services.each_ref().map(Service::received_since_change)
    }
}

/// Returns what is answered to a request of this path; nothing if nobody answers.
async fn get(address: impl ToSocketAddrs, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Returns the canary as it is shown; nothing if nobody answers.
async fn shown(server: &Server) -> Option<Value> {
    let answer = get(&server.http, "/api/v1/canaries/prod/backend").await?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body.get(body.find('{')?..=body.rfind('}')?)?).ok()
}

/// Returns what is counted of both arms, by how their requests ended.
async fn counted(server: &Server) -> Option<[Arm; 2]> {
    let canary = shown(server).await?;
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
        while !shown(server).await.is_some_and(|canary| wanted(&canary)) {
            poll.tick().await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shown).await;
    shown.with_context(|| format!("{what}: it never came about; {}", server.said()))
}

/// Waits until something holds of users or services.
async fn reached(what: &'static str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let reached = async {
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.context(what)
}

/// Waits until this is counted, or will not be, and no report changes what is. Returns what is counted.
async fn settled(server: &Server, is_all: impl Fn(&[Arm; 2]) -> bool) -> anyhow::Result<[Arm; 2]> {
    let all = async {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        while !counted(server).await.is_some_and(|found| is_all(&found)) {
            poll.tick().await;
        }
    };
    let _never = tokio::time::timeout(LATE, all).await;
    // What is reported again after it was counted must change nothing.
    let unchanged = async {
        let mut found = counted(server).await;
        loop {
            tokio::time::sleep(REPORTED).await;
            let now = counted(server).await;
            if let Some(counted) = now.filter(|_| now == found) {
                return counted;
            }
            found = now;
        }
    };
    tokio::time::timeout(PATIENCE, unchanged).await.context("nobody sends anything, and counts go on rising")
}

fn text<'a>(canary: &'a Value, field: &str) -> &'a str {
    canary.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn phase(canary: &Value) -> &str {
    text(canary, "phase")
}

fn weight(canary: &Value) -> f64 {
    canary.get("weight").and_then(Value::as_f64).unwrap_or_default()
}

/// Returns the message of a condition.
fn condition<'a>(canary: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = canary.get("conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| text(condition, "type") == kind)?;
    found.get("message")?.as_str()
}

/// Returns how many requests each arm failed, as users saw it.
fn failed(tally: &Tally) -> [u64; 2] {
    ["primary", "canary"].map(|arm| tally.failed.iter().filter(|by| by.as_deref() == Some(arm)).count() as u64)
}

/// Returns how many requests no arm answered.
fn unanswered(tally: &Tally) -> u64 {
    tally.failed.iter().filter(|by| by.is_none()).count() as u64
}

impl Wrong {
    /// Takes what both arms should have and have. So many requests more may be there, of either arm: those that Envoy
    /// answered by itself.
    fn add(&mut self, expected: [u64; 2], counted: [u64; 2], more: u64) {
        let lost = expected.iter().zip(&counted).map(|(expected, counted)| expected.saturating_sub(*counted));
        let doubled = expected.iter().zip(&counted).map(|(expected, counted)| counted.saturating_sub(*expected));
        self.lost += lost.sum::<u64>();
        self.doubled += doubled.sum::<u64>().saturating_sub(more);
    }
}

/// What came of all attempts.
#[derive(Debug, Default)]
struct Total {
    killed: u64,
    attempts: u64,
    sent: u64,
    unanswered: u64,
    requests: Wrong,
    errors: Wrong,
    /// What a canary had too much when its attempt had begun.
    charged: u64,
}

/// One attempt after another.
struct Play {
    site: Site,
    server: Server,
    random: Pcg64Mcg,
    total: Total,
}

impl Play {
    /// Kills the server some time from now, and starts it over its state after some more.
    async fn kill(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(0..UP_MS))).await;
        self.server.kill();
        tokio::time::sleep(Duration::from_millis(self.random.random_range(0..AWAY_MS))).await;
        self.server = self.site.serve();
        self.total.killed += 1;
    }

    fn command(&self, verb: &str) -> anyhow::Result<()> {
        let (code, said) = self.server.client(&[verb, "prod/backend"]);
        ensure!(code == Some(0), "{verb}: {said}");
        Ok(())
    }

    /// Begins an attempt at a revision under load, and waits until its canary has a share. `again`: it failed before.
    async fn begin(&mut self, number: u64, again: bool) -> anyhow::Result<Load> {
        let [_, canary] = &self.site.services;
        let users = self.site.users();
        // No worker has routes of the attempt before.
        loop {
            let (had, answered) = (canary.received_since_change(), users.tally().finished);
            reached("users are served", || users.tally().finished >= answered + ARRIVED).await?;
            if canary.received_since_change() == had {
                break;
            }
        }
        let share = f64::from(self.random.random_range(1_u32..=9)) / 100.0;
        for (service, share) in self.site.services.iter().zip([0.02, share]) {
            service.behave(Behaviour { error_share: share, ..Behaviour::default() });
        }
        users.mark();
        if again {
            self.command("retry")?;
        } else {
            self.site.write(number)?;
        }
        let wanted = number.to_string();
        let ours = |canary: &Value| phase(canary) == "Progressing" && text(canary, "canary_revision") == wanted;
        shows(&self.server, "a rollout is under way", ours).await?;
        if self.random.random_bool(0.5) {
            self.kill().await;
        }
        shows(&self.server, "the canary has a share", |canary| ours(canary) && weight(canary) > 0.0).await?;
        let [_, canary] = &self.site.services;
        reached("the canary gets requests", || canary.received_since_change() > 0).await?;
        let answered = users.tally().finished;
        reached("users are served", || users.tally().finished >= answered + ARRIVED).await?;
        Ok(users)
    }

    /// An attempt under which the server is killed some times, of as many as are asked for in all.
    async fn attempt(&mut self, kills: u64) -> anyhow::Result<()> {
        // Every second attempt is at the revision before.
        let (again, number) = (self.total.attempts % 2 == 1, self.total.attempts / 2 + 1);
        self.total.attempts += 1;
        let users = self.begin(number, again).await?;
        let tally = users.stop(GRACE).await;
        self.total.sent += tally.sent;
        self.total.unanswered += unanswered(&tally);
        let ([received_before, canary], [_, bad_canary]) = (self.site.received(), failed(&tally));
        let expected = Arm { requests: canary, errors: bad_canary };
        let before = settled(&self.server, |[_, canary]| *canary == expected).await?;
        let [at_primary, at_canary] = before;
        // Until every worker has the routes, some requests of the primary are of no rollout. None of the canary is.
        self.total.requests.lost += expected.requests.saturating_sub(at_canary.requests);
        self.total.errors.lost += expected.errors.saturating_sub(at_canary.errors);
        let more = at_canary.requests.saturating_sub(expected.requests)
            + at_canary.errors.saturating_sub(expected.errors)
            + at_primary.requests.saturating_sub(received_before);
        // Each that Envoy answered by itself is a request and an error.
        self.total.charged += more.saturating_sub(2 * unanswered(&tally));
        let begun = format!("as it begins: canary expected {expected:?}, counted {at_canary:?}");

        let users = self.site.users();
        let first = self.total.killed;
        while self.total.killed < kills && self.total.killed < first + EACH {
            self.kill().await;
        }
        let tally = users.stop(GRACE).await;
        let ([primary, now_canary], [bad_primary, bad_canary]) = (self.site.received(), failed(&tally));
        let expected = [
            Arm { requests: at_primary.requests + primary - received_before, errors: at_primary.errors + bad_primary },
            Arm { requests: at_canary.requests + now_canary - canary, errors: at_canary.errors + bad_canary },
        ];
        let found = settled(&self.server, |found| *found == expected).await?;
        let unanswered = unanswered(&tally);
        let requests = |arms: [Arm; 2]| arms.map(|arm| arm.requests);
        let errors = |arms: [Arm; 2]| arms.map(|arm| arm.errors);
        self.total.requests.add(requests(expected), requests(found), unanswered);
        self.total.errors.add(errors(expected), errors(found), unanswered);
        self.total.sent += tally.sent;
        self.total.unanswered += unanswered;
        row(
            &format!("attempt {} (revision {number}), {} kills", self.total.attempts, self.total.killed),
            &format!("{begun}; {} requests; expected {expected:?}, counted {found:?}", tally.sent),
            "equal",
            expected == found && expected.iter().all(|arm| arm.requests > 0),
        )?;
        self.end().await
    }

    async fn end(&self) -> anyhow::Result<()> {
        self.command("abort")?;
        shows(&self.server, "the attempt is over", |canary| phase(canary) == "Failed").await
    }

    /// Loses the state while the canary, which the file names and which fails everything by then, has its share. Returns
    /// how often routes changed or something was promoted, and how often no condition said what to do.
    async fn lose_state(&mut self, admin: SocketAddr) -> anyhow::Result<[u64; 2]> {
        let number = self.total.attempts + 1;
        let users = self.begin(number, false).await?;
        self.server.kill();
        std::fs::remove_dir_all(self.site.path("state"))?;
        let [_, canary] = &self.site.services;
        canary.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
        let routes = async || get(admin, "/config_dump?resource=dynamic_route_configs").await.map(config);
        let held = routes().await.context("Envoy shows its routes")?;
        let (mut changed, mut untold) = (0, 0);
        for _ in 0..2 {
            self.server = self.site.serve();
            shows(&self.server, "what is missing is told", |canary| condition(canary, "Adopted").is_some()).await?;
            let (answered, had) = (users.tally().finished, self.site.received());
            reached("users are served", || users.tally().finished >= answered + UNKNOWN).await?;
            let ([primary, canary], [had_primary, had_canary]) = (self.site.received(), had);
            let (primary, canary) = (primary - had_primary, canary - had_canary);
            let shown = shown(&self.server).await.context("it is shown")?;
            let what = condition(&shown, "Adopted").unwrap_or_default();
            let told = what.contains(&format!("`wingbeat approve prod/backend` makes revision {number} the primary"));
            // Six standard deviations from 40 of 100.
            let shared = (30..=50).contains(&(canary * 100 / (primary + canary)));
            let stayed = shared && routes().await.as_ref() == Some(&held);
            changed += u64::from(!stayed);
            untold += u64::from(!told);
            row(
                "started without its state",
                &format!("primary {primary}, canary {canary} requests; {what}"),
                "the same routes, and what to do",
                stayed && told,
            )?;
            self.server.kill();
        }
        let _tally = users.stop(GRACE).await;
        Ok([changed, untold])
    }
}

/// Returns what Envoy answers without the head, in which there is the time.
fn config(answer: String) -> String {
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kills = asked("KILLS").unwrap_or(KILLS);
    let seed = seed()?;
    let site = Site::build().await?;
    let server = site.serve();
    let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await?;
    let bootstrap = Bootstrap {
        node_id: "edge-1".to_owned(),
        node_cluster: "edge".to_owned(),
        host: site.xds.address().ip().to_string(),
        port: site.xds.address().port(),
        admin: None,
        delta: false,
        tls: None,
        authorization: None,
    };
    let envoy = binary.start(bootstrap.render(), site.entry.address()).await?;
    shows(&server, "the first revision serves", |canary| phase(canary) == "Initialized").await?;

    let mut play = Play { site, server, random: Pcg64Mcg::seed_from_u64(seed), total: Total::default() };
    while play.total.killed < kills {
        play.attempt(kills).await?;
    }
    let admin = envoy.admin().context("Envoy has an administration interface")?;
    let [changed, untold] = play.lose_state(admin).await?;
    let Total { killed, attempts, sent, unanswered, requests, errors, charged } = play.total;
    Ok(print(&json!({
        "seed": seed,
        "kills": killed,
        "attempts": attempts,
        "requests": sent,
        "requests_lost": requests.lost,
        "requests_doubled": requests.doubled,
        "errors_lost": errors.lost,
        "errors_doubled": errors.doubled,
        "charged_with_another": charged,
        "users_without_answer": unanswered,
        "changed_without_state": changed,
        "untold_without_state": untold,
    }))?)
}
