//! What one canary does wrong costs its neighbours nothing: a listener with fifty hosts, one of which is in trouble.
//!
//! In each cell, an Envoy joins while one canary is wrong in one way. It has to serve the 49 others at once; and one of
//! these, which is broken in the moment in which the Envoy is ready, has to leave as fast as in the same minute without
//! the trouble: measured in turn.
//!
//! Users send requests to the victim through an Envoy that was there before. Time is from the fault to the last request that the
//! broken revision gets.
//!
//! Usage: `neighbours [REPETITIONS [CELL]]`. A flood of reports is a process of its own (`--flood ADDRESS CLUSTER`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wingbeat_benches::network::{CONTROL, INSIDE, rerun};
use wingbeat_benches::site::{PATIENCE, Site, envoy, listener, served_by};
use wingbeat_benches::table::Table;
use wingbeat_benches::{print, quantile};
use wingbeat_demo::envoy::Envoy;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::free;
use wingbeat_test_support::simulation::draw::Draw;

use flood::{Flood, flood};

mod flood;

/// Hosts beside the one in trouble.
const OTHERS: usize = 49;
/// Requests a second to the one that breaks, half of them to its canary.
const RATE: u32 = 200;
const REPETITIONS: usize = 7;
const SEED: u64 = 1;
/// From when an Envoy that joins is ready, all others are served within.
const SERVED_MS: f64 = 2_000.0;
/// So many times as long as without the trouble, at most.
const RATIO: f64 = 1.5;
/// Without a canary request for so long while users go on, there are no more.
const OVER: Duration = Duration::from_millis(500);
/// More instructions than the Envoy that joins takes in a regex, in the cell where it refuses one.
const SMALL_REGEX: u32 = 100;

/// What is wrong with one canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The cluster that its routes lead to is gone from its file.
    ClusterMissing,
    /// Envoy refuses its routes, and with them those of the whole listener.
    Refused,
    /// Its file goes while it is promoted.
    RemovedInPromotion,
    /// Its Prometheus answers infinity.
    InfiniteMetric,
    /// Its hook answers without end.
    HookHuge,
    /// Its hook fails at once, each time.
    HookFails,
    /// Its hook never answers.
    HookHangs,
    /// Its file is no YAML any more.
    FileBroken,
    /// Its proxy sends garbage, as much as it can.
    Garbage,
}

impl Trouble {
    const ALL: [Self; 9] = [
        Self::ClusterMissing,
        Self::Refused,
        Self::RemovedInPromotion,
        Self::InfiniteMetric,
        Self::HookHuge,
        Self::HookFails,
        Self::HookHangs,
        Self::FileBroken,
        Self::Garbage,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::ClusterMissing => "cluster missing",
            Self::Refused => "refused by Envoy",
            Self::RemovedInPromotion => "removed in mid-promotion",
            Self::InfiniteMetric => "metric says Inf",
            Self::HookHuge => "hook answers without end",
            Self::HookFails => "hook fails at once",
            Self::HookHangs => "hook hangs",
            Self::FileBroken => "file breaks",
            Self::Garbage => "proxy sends garbage",
        }
    }

    const fn outsider(self) -> Option<Outsider> {
        match self {
            Self::InfiniteMetric => Some(Outsider::Infinite),
            Self::HookHuge => Some(Outsider::Endless),
            Self::HookFails => Some(Outsider::Failing),
            Self::HookHangs => Some(Outsider::Silent),
            Self::ClusterMissing | Self::Refused | Self::RemovedInPromotion | Self::FileBroken | Self::Garbage => None,
        }
    }
}

/// Who is asked by the controller.
#[derive(Debug, Clone, Copy)]
enum Outsider {
    Infinite,
    Endless,
    Failing,
    Silent,
}

impl Outsider {
    /// Starts it. Returns its URL and how often it was asked.
    async fn start(self) -> anyhow::Result<(String, Arc<AtomicU64>)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let asked = Arc::<AtomicU64>::default();
        let counter = asked.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let counter = counter.clone();
                tokio::spawn(async move {
                    let _ended = self.answer(connection, &counter).await;
                });
            }
        });
        Ok((url, asked))
    }

    async fn answer(self, mut connection: TcpStream, asked: &AtomicU64) -> anyhow::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            ensure!(connection.read_buf(&mut request).await? > 0, "no request");
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let head = |status: u16, length: u64| {
            format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            )
        };
        match self {
            Self::Infinite => {
                let body = json!({"status": "success", "data": {"resultType": "vector", "result": [
                    {"metric": {}, "value": [1, "+Inf"]},
                ]}});
                let body = body.to_string();
                connection.write_all((head(200, u64::try_from(body.len())?) + &body).as_bytes()).await?;
            }
            Self::Endless => {
                connection.write_all(head(200, u64::MAX >> 8).as_bytes()).await?;
                let piece = vec![b'x'; 1 << 16];
                while connection.write_all(&piece).await.is_ok() {}
            }
            Self::Failing => connection.write_all((head(500, 2) + "no").as_bytes()).await?,
            Self::Silent => {
                while connection.read_buf(&mut request).await? > 0 {
                    request.clear();
                }
            }
        }
        Ok(())
    }
}

/// Everything that is there.
struct Fifty {
    site: Site,
    old: Service,
    new: Vec<Service>,
    /// The revision that each of the others is at.
    revisions: Vec<u64>,
    odd: u64,
    entry: std::net::SocketAddr,
    joins_at: std::net::SocketAddr,
    _envoy: Envoy,
}

/// What is measured once.
struct Measured {
    served_ms: f64,
    back_ms: f64,
}

fn name(other: usize) -> String {
    format!("canary-{other:02}")
}

fn document(
    name: &str,
    revision: u64,
    revisions: &[(u64, std::net::SocketAddr)],
    service: &str,
    analysis: &str,
) -> String {
    let endpoints: Vec<String> = revisions
        .iter()
        .map(|(revision, address)| format!("    \"{revision}\": {{endpoints: [\"{address}\"]}}\n"))
        .collect();
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec:\n  revision: \"{revision}\"\n  revisions:\n{}---\n\
         apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: {name}}}\n  \
         service: {{port: 80, hosts: [{name}.local], listeners: [base, joining]{service}}}\n  analysis: {{{analysis}}}\n",
        endpoints.concat()
    )
}

/// One long step at half of the traffic.
const LONG: &str = "interval: 10m, threshold: 100, maxWeight: 50, stepWeight: 50";

impl Fifty {
    async fn start() -> anyhow::Result<Self> {
        let old = Service::start("1", 1, Behaviour::default()).await?;
        let mut new = Vec::new();
        for seed in 0..OTHERS {
            new.push(Service::start("2", u64::try_from(seed)?, Behaviour::default()).await?);
        }
        let (entry, joins_at) = (free().await, free().await);
        let mut documents =
            vec![("base".to_owned(), listener("base", entry)), ("joining".to_owned(), listener("joining", joins_at))];
        documents
            .extend((0..OTHERS).map(|other| (name(other), document(&name(other), 1, &[(1, old.address())], "", LONG))));
        let anybody = ["--listen-xds", &format!("{CONTROL}:0"), "--allow-plaintext", "--allow-anonymous-reports"];
        let site = Site::start(&documents, &anybody.map(Into::into)).await?;
        site.until("all are there", async |site| {
            Ok(site.phases().await?.iter().filter(|(_, phase)| phase == "Initialized").count() == OTHERS)
        })
        .await?;
        let base = envoy(site.bootstrap("base", "base").render(), entry).await?;
        let mut fifty = Self { site, old, new, revisions: vec![1; OTHERS], odd: 0, entry, joins_at, _envoy: base };
        for other in 0..OTHERS {
            fifty.renew(other)?;
        }
        fifty.all_progress().await?;
        Ok(fifty)
    }

    fn service(&self, other: usize) -> anyhow::Result<&Service> {
        self.new.get(other).context("one of the others")
    }

    /// Asks for the next revision of one of the others.
    fn renew(&mut self, other: usize) -> anyhow::Result<()> {
        let new = self.service(other)?.address();
        let revision = self.revisions.get_mut(other).context("one of the others")?;
        let before = (*revision > 1).then_some((*revision, new));
        *revision += 1;
        let revisions: Vec<_> = [(1, self.old.address())].into_iter().chain(before).chain([(*revision, new)]).collect();
        let text = document(&name(other), *revision, &revisions, "", LONG);
        self.site.write(&name(other), &text)
    }

    async fn all_progress(&self) -> anyhow::Result<()> {
        self.site.until("the others are in their rollouts", async |_| Ok(self.strays(None).await? == 0)).await
    }

    /// Returns how many of the others are not in their rollouts, one aside.
    async fn strays(&self, but: Option<usize>) -> anyhow::Result<usize> {
        let but = but.map(name);
        let phases = self.site.phases().await?;
        let others = phases.iter().filter(|(name, _)| name.starts_with("canary-") && but.as_ref() != Some(name));
        let fine = others.filter(|(_, phase)| phase == "Progressing").count();
        Ok(OTHERS - usize::from(but.is_some()) - fine)
    }

    /// Joins an Envoy, breaks one of the others when it is ready, and waits until that one has left.
    async fn measure(&self, victim: usize, bootstrap: Value) -> anyhow::Result<(Measured, Envoy)> {
        let service = self.service(victim)?;
        service.behave(Behaviour::default());
        let host = format!("{}.local", name(victim));
        let users = Load::start(LoadConfig { target: self.entry, host, rate: RATE, patience: None, visitors: ANYONE });
        self.site.until("the canary has users", async |_| Ok(service.received_since_change() >= 50)).await?;
        let joined = envoy(bootstrap, self.joins_at).await.with_context(|| self.site.said_last())?;
        let ready = Instant::now();
        let broken = service.behave(Behaviour { error_share: 1.0, ..Behaviour::default() });
        let served = async {
            let mut asked: JoinSet<anyhow::Result<()>> = JoinSet::new();
            for other in 0..OTHERS {
                let entry = self.joins_at;
                asked.spawn(async move {
                    let mut poll = tokio::time::interval(Duration::from_millis(10));
                    while served_by(entry, &name(other)).await?.is_none() {
                        poll.tick().await;
                    }
                    Ok(())
                });
            }
            while let Some(one) = asked.join_next().await {
                one??;
            }
            anyhow::Ok(ready.elapsed().as_secs_f64() * 1e3)
        };
        let left = async {
            self.site.reaches(&name(victim), "Failed").await?;
            let is_over = || {
                let last = service.last_request().map(Instant::from_std);
                last.is_some_and(|last| last.elapsed() >= OVER)
            };
            self.site.until("no more requests reach it", async |_| Ok(is_over())).await?;
            let last = service.last_request().context("there were requests")?;
            anyhow::Ok(last.saturating_duration_since(broken).as_secs_f64() * 1e3)
        };
        let both = async { tokio::try_join!(served, left) };
        let (served_ms, back_ms) = tokio::time::timeout(PATIENCE * 2, both).await.context("it takes too long")??;
        drop(users.stop(Duration::from_secs(5)).await);
        Ok((Measured { served_ms, back_ms }, joined))
    }

    /// Brings a fiftieth canary to where its trouble begins. Returns its name.
    async fn odd(&mut self, analysis: &str, service: &str, more: &str) -> anyhow::Result<String> {
        self.odd += 1;
        let name = format!("odd-{}", self.odd);
        let old = self.old.address();
        let one = document(&name, 1, &[(1, old)], service, analysis);
        self.site.write(&name, &(one + more))?;
        self.site.reaches(&name, "Initialized").await?;
        let both = document(&name, 2, &[(1, old), (2, old)], service, analysis);
        self.site.write(&name, &(both + more))?;
        self.site.reaches(&name, "Progressing").await?;
        Ok(name)
    }

    /// One measurement without trouble: the fiftieth is as the others.
    async fn quiet(&mut self, victim: usize) -> anyhow::Result<Measured> {
        let odd = self.odd(LONG, "", "").await?;
        let (measured, joined) = self.measure(victim, self.joining(None)).await?;
        drop(joined);
        self.site.remove(&odd)?;
        self.mend(victim).await?;
        Ok(measured)
    }

    async fn mend(&mut self, victim: usize) -> anyhow::Result<()> {
        self.service(victim)?.behave(Behaviour::default());
        self.renew(victim)?;
        self.all_progress().await
    }

    fn joining(&self, largest_regex: Option<u32>) -> Value {
        let mut bootstrap = self.site.bootstrap("joining", "joining").render();
        let regex = bootstrap.pointer_mut("/layered_runtime/layers/0/static_layer/re2/max_program_size/error_level");
        if let (Some(regex), Some(largest)) = (regex, largest_regex) {
            *regex = json!(largest);
        }
        bootstrap
    }

    /// One measurement in trouble. Fails if the trouble did not come about.
    async fn troubled(&mut self, trouble: Trouble, victim: usize) -> anyhow::Result<Measured> {
        let short = "interval: 200ms, threshold: 100000, maxWeight: 50, stepWeight: 50";
        let outsider = match trouble.outsider() {
            Some(outsider) => Some(outsider.start().await?),
            None => None,
        };
        let url = outsider.as_ref().map(|(url, _)| url.clone()).unwrap_or_default();
        let mut flood = None;
        let mut users = None;
        let odd = match trouble {
            Trouble::ClusterMissing => {
                let odd = self.odd(LONG, "", "").await?;
                self.site.remove(&odd)?;
                self.site.until("it is gone", async |site| Ok(site.canary(&odd).await?.is_none())).await?;
                let without = document(&odd, 2, &[(2, self.old.address())], "", LONG);
                self.site.write(&odd, &without)?;
                let missing = async |site: &Site| Ok(condition(site, &odd).await?.contains("ClusterMissing"));
                self.site.until("its cluster is missing", missing).await?;
                odd
            }
            Trouble::Refused => {
                let regex = ", rewrite: {uriRegexRewrite: {match: '^/([a-z]{300})/x$', rewrite: '/\\1'}}";
                self.odd(LONG, regex, "").await?
            }
            Trouble::RemovedInPromotion => {
                let quick = "interval: 200ms, threshold: 100, maxWeight: 50, stepWeight: 50, stepWeightPromotion: 1, \
                             judge: {mode: thresholds}";
                let odd = self.odd(quick, "", "").await?;
                let host = format!("{odd}.local");
                let load = LoadConfig { target: self.entry, host, rate: 50, patience: None, visitors: ANYONE };
                users = Some(Load::start(load));
                self.site.reaches(&odd, "Promoting").await?;
                self.site.remove(&odd)?;
                self.site.until("it is gone", async |site| Ok(site.canary(&odd).await?.is_none())).await?;
                odd
            }
            Trouble::InfiniteMetric => {
                let template = format!(
                    "---\napiVersion: wingbeat.dev/v1alpha1\nkind: MetricTemplate\nmetadata: {{name: odd-{}, namespace: prod}}\n\
                     spec:\n  provider: {{type: prometheus, address: \"{url}\"}}\n  query: up\n",
                    self.odd + 1
                );
                let metric = format!(
                    "{short}, metrics: [{{name: inf, thresholdRange: {{max: 1}}, templateRef: {{name: odd-{}}}}}]",
                    self.odd + 1
                );
                self.odd(&metric, "", &template).await?
            }
            Trouble::HookHuge | Trouble::HookFails | Trouble::HookHangs => {
                let hook = format!(
                    "{short}, webhooks: [{{name: odd, type: rollout, url: \"{url}\", timeout: 10s, retries: 1000}}]"
                );
                self.odd(&hook, "", "").await?
            }
            Trouble::FileBroken => {
                let odd = self.odd(LONG, "", "").await?;
                self.site.write(&odd, "kind: [\n\u{1}")?;
                let told = format!("{odd}.yaml:");
                self.site.until("it is told", async |site| Ok(site.said().contains(&told))).await?;
                odd
            }
            Trouble::Garbage => {
                let odd = self.odd(LONG, "", "").await?;
                flood = Some(Flood::start(self.site.xds(), &odd)?);
                odd
            }
        };
        if let Some((_, asked)) = &outsider {
            self.site.until("it is asked", async |_| Ok(asked.load(Ordering::Relaxed) > 0)).await?;
        }
        let largest = (trouble == Trouble::Refused).then_some(SMALL_REGEX);
        let (measured, joined) = self.measure(victim, self.joining(largest)).await?;
        if trouble == Trouble::Refused {
            let refused = async |site: &Site| Ok(condition(site, &odd).await?.contains("refuses"));
            self.site.until("it is refused", refused).await?;
        }
        let strays = self.strays(Some(victim)).await?;
        ensure!(strays == 0, "{}: {strays} of the others left their rollouts", trouble.name());
        if let Some(flood) = flood {
            let (sent, taken) = flood.stop().await?;
            ensure!(sent > 1_000, "a flood of {sent} reports is none ({taken} taken)");
        }
        drop((users, joined));
        match trouble {
            Trouble::RemovedInPromotion => {}
            Trouble::ClusterMissing
            | Trouble::Refused
            | Trouble::InfiniteMetric
            | Trouble::HookHuge
            | Trouble::HookFails
            | Trouble::HookHangs
            | Trouble::FileBroken
            | Trouble::Garbage => self.site.remove(&odd)?,
        }
        self.mend(victim).await?;
        Ok(measured)
    }
}

/// Returns the conditions of a canary as text.
async fn condition(site: &Site, name: &str) -> anyhow::Result<String> {
    let canary = site.canary(name).await?;
    Ok(canary.and_then(|canary| Some(canary.get("conditions")?.to_string())).unwrap_or_default())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--flood", address, odd] => flood(address, odd).await,
        [INSIDE, repetitions] => run(repetitions.parse()?, None).await,
        [INSIDE, repetitions, cell] => run(repetitions.parse()?, Some(cell)).await,
        [] => rerun(&[&REPETITIONS.to_string()]),
        args @ ([_] | [_, _]) => rerun(args),
        _ => bail!("usage: neighbours [REPETITIONS [CELL]]"),
    }
}

async fn run(repetitions: usize, cell: Option<&str>) -> anyhow::Result<()> {
    let mut table = Table::default();
    let mut draw = Draw::new(SEED);
    let mut victim = move || usize::try_from(draw.below(u64::try_from(OTHERS)?)).map_err(anyhow::Error::from);
    let mut fifty = Fifty::start().await?;
    let (mut worst_served, mut worst_ratio) = (0.0_f64, 0.0_f64);
    // Once before: caches are cold for the first one.
    let first = victim()?;
    fifty.quiet(first).await?;
    let mut before = Vec::new();
    for _ in 0..repetitions {
        let chosen = victim()?;
        before.push(fifty.quiet(chosen).await.context("before any trouble")?.back_ms);
    }
    // One round takes from 0.2 to 0.8 s: what is held against all rounds without trouble so far is known better.
    let mut all_quiet = before.clone();
    let before = quantile(&mut before, 0.5);
    for trouble in Trouble::ALL.into_iter().filter(|trouble| cell.is_none_or(|cell| cell == trouble.name())) {
        let (mut served, mut quiet, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let mut served_quiet = Vec::new();
        for repetition in 0..repetitions {
            // Whoever comes first comes second the next time.
            for place in 0..2 {
                let chosen = victim()?;
                if (repetition + place) % 2 == 0 {
                    let measured = fifty.quiet(chosen).await.context("without trouble")?;
                    quiet.push(measured.back_ms);
                    served_quiet.push(measured.served_ms);
                } else {
                    let measured = fifty.troubled(trouble, chosen).await.with_context(|| trouble.name())?;
                    served.push(measured.served_ms);
                    back.push(measured.back_ms);
                }
            }
        }
        let (slowest, slowest_quiet) = (quantile(&mut served, 1.0), quantile(&mut served_quiet, 1.0));
        all_quiet.extend_from_slice(&quiet);
        let (median, median_quiet) = (quantile(&mut back, 0.5), quantile(&mut quiet, 0.5));
        let expected = quantile(&mut all_quiet, 0.5);
        let ratio = median / expected;
        worst_served = worst_served.max(slowest);
        worst_ratio = worst_ratio.max(ratio);
        table.row(
            &format!("{}: an Envoy joins, {OTHERS} others served", trouble.name()),
            &format!("slowest of {repetitions}: {slowest:.0} ms (without trouble {slowest_quiet:.0} ms)"),
            &format!("≤ {SERVED_MS} ms"),
            slowest <= SERVED_MS,
        )?;
        table.row(
            &format!("{}: one of the others breaks", trouble.name()),
            &format!("median back after {median:.0} ms, {ratio:.2} × the {expected:.0} ms without trouble"),
            &format!("≤ {RATIO} ×"),
            ratio <= RATIO,
        )?;
        // A trouble that outlasts itself would make what it is held against slow, too.
        table.row(
            &format!("{}: one of the others breaks between two troubles", trouble.name()),
            &format!("median back after {median_quiet:.0} ms; {before:.0} ms before any trouble"),
            &format!("≤ {RATIO} ×"),
            median_quiet <= before * RATIO,
        )?;
    }
    Ok(print(&json!({
        "seed": SEED,
        "hosts": OTHERS + 1,
        "repetitions": repetitions,
        "slowest_served_ms": worst_served,
        "worst_ratio": worst_ratio,
        "failed": table.failed(),
    }))?)
}
