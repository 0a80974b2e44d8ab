//! What one principal can do that reports what is not true.
//!
//! Many rollouts at a time behind one, two and three real Envoys, each of which a forger lies about in a way of its own: of
//! broken canaries it says that all is well, of healthy ones that all fails. It may be any number of nodes and workers, and
//! it begins before the rollouts do, or in the middle of them. The control plane knows it by its certificate, by a token,
//! or by its address alone.
//!
//! Then it reports as fast as it can, and what that leaves behind is measured.
//!
//! All of it runs in a network of its own, in which the forger and each Envoy are hosts: on loopback everybody is trusted.
//!
//! Usage: `forger [MINUTES [all|decide|flood]]`: how long it floods. `CELL` in the environment: only the cells whose names
//! have it in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rcgen::SanType;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use wingbeat_benches::network::{CONTROL, INSIDE, LIAR, rerun};
use wingbeat_benches::print;
use wingbeat_benches::report::requests;
use wingbeat_benches::site::{Site, envoy, listener};
use wingbeat_benches::table::Table;
use wingbeat_demo::envoy::Envoy;
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::free;
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::{ClusterPolicy, ClusterReport, ReportRequest, ReportResponse};
use wingbeat_test_support::simulation::draw::Draw;
use wingbeat_xds_server::bootstrap::ClientTls;

use authority::Authority;
use decide::decide;
use flood::flood;

mod authority;
mod decide;
mod flood;

/// Host of the first Envoy.
const ENVOYS: &str = "10.99.1";
const TOKEN: &str = "a-token-of-the-test";
const SEED: u64 = 1;
/// Requests a second to each host, of all Envoys together; half of them to the canary.
const RATE: u32 = 24;
/// Node ids that the forger uses at a time, and workers of each.
const NODES: u64 = 4;
const WORKERS: u64 = 2;
/// It reports so often.
const TICK: Duration = Duration::from_millis(100);
/// A forger that begins in the middle begins so long after the rollouts.
const MIDDLE: Duration = Duration::from_secs(3);
/// A rollout that has not ended by then holds.
const LONGEST: Duration = Duration::from_secs(40);
const MINUTES: f64 = 10.0;
/// Reports in which it tells all of its lies once. With fewer, nothing was tried.
const ROUND: u64 = NODES * WORKERS * 7;
/// Reports that the flood has under way.
const LANES: usize = 32;

/// What the controller knows of who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Certificates,
    Token,
    Anonymous,
}

impl Access {
    const ALL: [Self; 3] = [Self::Certificates, Self::Token, Self::Anonymous];

    const fn name(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Token => "the token is known to it",
            Self::Anonymous => "anonymous reports allowed",
        }
    }
}

/// When the forger begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// There is none: what happens without it.
    Never,
    Before,
    Middle,
}

impl Moment {
    const fn name(self) -> &'static str {
        match self {
            Self::Never => "no forger",
            Self::Before => "from before the rollout",
            Self::Middle => "from its middle",
        }
    }
}

/// Who lies beside how many that do not.
#[derive(Debug, Clone, Copy)]
struct Cell {
    access: Access,
    honest: usize,
    moment: Moment,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let without = Self { access: Access::Certificates, honest: 3, moment: Moment::Never };
        let with = Access::ALL.into_iter().flat_map(|access| {
            (1..=3)
                .flat_map(move |honest| [Moment::Before, Moment::Middle].map(|moment| Self { access, honest, moment }))
        });
        std::iter::once(without).chain(with)
    }

    fn name(self) -> String {
        format!("{}, {} Envoys, {}", self.access.name(), self.honest, self.moment.name())
    }
}

/// How a canary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    /// Every request fails.
    Broken,
    /// Every fifth does.
    Fifth,
    Healthy,
}

impl Truth {
    const ALL: [Self; 3] = [Self::Broken, Self::Fifth, Self::Healthy];

    const fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Fifth => "fifth",
            Self::Healthy => "healthy",
        }
    }

    const fn error_share(self) -> f64 {
        match self {
            Self::Broken => 1.0,
            Self::Fifth => 0.2,
            Self::Healthy => 0.0,
        }
    }
}

/// How the forger lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lie {
    /// As many requests as are believable.
    Plain,
    /// A thousand million of them.
    Huge,
    /// The same report again and again, also as other workers.
    Replay,
    /// Of another rollout's epoch.
    OtherEpoch,
    /// Of an epoch that never was.
    NoEpoch,
    /// A first report that claims a long past.
    LongPast,
    /// Routes that are newer than those that there are, as after an abort that was not stored.
    NewerRoutes,
}

impl Lie {
    const ALL: [Self; 7] =
        [Self::Plain, Self::Huge, Self::Replay, Self::OtherEpoch, Self::NoEpoch, Self::LongPast, Self::NewerRoutes];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Huge => "huge",
            Self::Replay => "replay",
            Self::OtherEpoch => "other-epoch",
            Self::NoEpoch => "no-epoch",
            Self::LongPast => "long-past",
            Self::NewerRoutes => "newer-routes",
        }
    }

    /// Returns how many requests of an arm each report adds.
    const fn requests(self) -> u64 {
        match self {
            Self::Plain | Self::OtherEpoch | Self::NoEpoch | Self::NewerRoutes => 50,
            Self::Huge => 1_000_000_000,
            Self::Replay => 5_000,
            Self::LongPast => 1_000_000,
        }
    }
}

fn name(truth: Truth, lie: Lie) -> String {
    format!("{}-{}", truth.name(), lie.name())
}

fn canaries() -> impl Iterator<Item = (Truth, Lie)> {
    Truth::ALL.into_iter().flat_map(|truth| Lie::ALL.into_iter().map(move |lie| (truth, lie)))
}

fn document(name: &str, revision: u8, old: SocketAddr, new: SocketAddr, listeners: &str) -> String {
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec: {{revision: \"{revision}\", revisions: {{\"1\": {{endpoints: [\"{old}\"]}}, \"2\": {{endpoints: [\"{new}\"]}}}}}}\n\
         ---\napiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: prod}}\n\
         spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: {name}}}\n  \
         service: {{port: 80, hosts: [{name}.local], listeners: [{listeners}]}}\n  \
         analysis: {{interval: 2s, threshold: 5, maxWeight: 50, stepWeight: 50, judge: {{warmup: 0s, mustDetect: {{errors: 20, errorsAtLeast: 20%, latency: 20}}}}}}\n"
    )
}

/// Who reports, and how it is let in.
#[derive(Clone)]
struct Forger {
    reports: ReportServiceClient<Channel>,
    token: Option<&'static str>,
    /// Lies that were taken.
    taken: Arc<AtomicU64>,
    /// Lies that were refused.
    refused: Arc<AtomicU64>,
}

impl Forger {
    async fn connect(
        xds: SocketAddr,
        tls: Option<ClientTlsConfig>,
        token: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{xds}"))?.local_address(Some(LIAR.parse::<IpAddr>()?));
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls)?,
            None => endpoint,
        };
        let reports = ReportServiceClient::new(endpoint.connect().await?);
        Ok(Self { reports, token, taken: Arc::default(), refused: Arc::default() })
    }

    /// Reports, and returns the answer if it was taken.
    async fn report(&self, report: ReportRequest) -> Option<ReportResponse> {
        let is_lie = !report.clusters.is_empty();
        let mut request = tonic::Request::new(report);
        if let Some(token) = self.token.and_then(|token| MetadataValue::try_from(format!("Bearer {token}")).ok()) {
            request.metadata_mut().insert("authorization", token);
        }
        let answered = self.reports.clone().report(request).await;
        let counter = if answered.is_ok() { &self.taken } else { &self.refused };
        counter.fetch_add(u64::from(is_lie), Ordering::Relaxed);
        answered.ok().map(tonic::Response::into_inner)
    }

    /// Returns what is counted at the moment.
    async fn clusters(&self) -> Vec<ClusterPolicy> {
        let asks = ReportRequest { automaton_format: 1, ..at("forger-0".to_owned()) };
        let answer = self.report(asks).await;
        answer.and_then(|answer| answer.policy).map(|policy| policy.clusters).unwrap_or_default()
    }

    /// Lies until it is enough.
    async fn lie(self, ends: Arc<AtomicBool>) {
        let mut ticks = tokio::time::interval(TICK);
        let mut draw = Draw::new(SEED);
        for tick in 1.. {
            ticks.tick().await;
            if ends.load(Ordering::Relaxed) {
                break;
            }
            let clusters = self.clusters().await;
            for lie in Lie::ALL {
                for worker in 0..NODES * WORKERS {
                    let entries = lies(lie, &clusters, tick, &mut draw);
                    if !entries.is_empty() {
                        self.report(says(lie, entries, worker, tick, &mut draw)).await;
                    }
                }
            }
        }
    }
}

/// Returns what the forger says of those canaries that it lies about in this way.
fn lies(lie: Lie, clusters: &[ClusterPolicy], tick: u64, draw: &mut Draw) -> Vec<ClusterReport> {
    let mine = clusters.iter().filter(|cluster| cluster.canary.ends_with(&format!("-{}", lie.name())));
    let entry = |cluster: &ClusterPolicy| {
        let ticks = match lie {
            Lie::Replay | Lie::LongPast => 1,
            Lie::Plain | Lie::Huge | Lie::OtherEpoch | Lie::NoEpoch | Lie::NewerRoutes => tick,
        };
        let total = lie.requests().saturating_mul(ticks);
        let is_healthy = cluster.canary.contains("/healthy-");
        // All is well with a broken canary, and the primary fails; of a healthy one, the other way round.
        let fails = if cluster.arm == 1 { is_healthy } else { !is_healthy };
        let (fine, errors) = if fails { (0, total) } else { (total, 0) };
        let epoch = match lie {
            Lie::Plain | Lie::Huge | Lie::Replay | Lie::LongPast | Lie::NewerRoutes => cluster.epoch,
            Lie::OtherEpoch => {
                let place = usize::try_from(draw.below(u64::try_from(clusters.len()).unwrap_or(1))).unwrap_or_default();
                clusters.get(place).map_or(1, |other| other.epoch)
            }
            Lie::NoEpoch => draw.below(u64::MAX),
        };
        let ahead = if lie == Lie::NewerRoutes { 1 + tick % 5 } else { 0 };
        requests(&cluster.cluster, epoch, fine, errors, cluster.first_rev + ahead)
    };
    mine.map(entry).collect()
}

fn says(lie: Lie, clusters: Vec<ClusterReport>, worker: u64, tick: u64, draw: &mut Draw) -> ReportRequest {
    let anew = matches!(lie, Lie::LongPast | Lie::OtherEpoch | Lie::NoEpoch)
        || (lie == Lie::Replay && tick.is_multiple_of(10));
    ReportRequest {
        boot_id: if anew { draw.below(u64::MAX) } else { lie as u64 + 1 },
        worker_id: worker + 1,
        sequence: match lie {
            Lie::Replay => 1,
            Lie::LongPast => 1_000_000 + tick,
            Lie::Plain | Lie::Huge | Lie::OtherEpoch | Lie::NoEpoch | Lie::NewerRoutes => tick,
        },
        urgent: tick.is_multiple_of(2),
        automaton_format: 1,
        clusters,
        ..at(format!("forger-{}", worker / WORKERS))
    }
}

/// Returns the beginnings of a report of a node where the canaries are served: it is told of them, and heard on them.
fn at(node_id: String) -> ReportRequest {
    ReportRequest { node_id, node_cluster: "edge-1".to_owned(), ..ReportRequest::default() }
}

/// A controller, Envoys, services, and who is to lie.
struct Stage {
    site: Site,
    entries: Vec<SocketAddr>,
    services: BTreeMap<Truth, Service>,
    old: Service,
    listeners: String,
    forger: Forger,
    tls: Option<ClientTlsConfig>,
    _envoys: Vec<Envoy>,
    /// The server reads its certificates when it starts again.
    _keys: TempDir,
}

impl Stage {
    async fn build(access: Access, honest: usize) -> anyhow::Result<Self> {
        let old = Service::start("1", SEED, Behaviour::default()).await?;
        let mut services = BTreeMap::new();
        for (seed, truth) in (SEED + 1..).zip(Truth::ALL) {
            let behaviour = Behaviour { error_share: truth.error_share(), ..Behaviour::default() };
            services.insert(truth, Service::start("2", seed, behaviour).await?);
        }
        let mut entries = Vec::new();
        for _ in 0..honest {
            entries.push(free().await);
        }
        let names: Vec<String> = (1..=honest).map(|number| format!("edge-{number}")).collect();
        let listeners = names.join(", ");
        let mut documents: Vec<(String, String)> =
            names.iter().zip(&entries).map(|(name, entry)| (name.clone(), listener(name, *entry))).collect();
        for (truth, lie) in canaries() {
            let new = services.get(&truth).context("there is one")?.address();
            let name = name(truth, lie);
            documents.push((name.clone(), document(&name, 1, old.address(), new, &listeners)));
        }
        let keys = tempfile::tempdir()?;
        let authority = Authority::new()?;
        let ca = keys.path().join("ca.pem");
        std::fs::write(&ca, authority.ca.pem())?;
        let mut more: Vec<OsString> = ["--listen-xds", &format!("{CONTROL}:0")].map(Into::into).to_vec();
        let mut tls = None;
        match access {
            Access::Certificates => {
                let (certificate, key) =
                    authority.files(keys.path(), "server", SanType::IpAddress(CONTROL.parse()?))?;
                let list = keys.path().join("nodes");
                std::fs::write(&list, "forger.example forger-*\n")?;
                for (option, path) in [
                    ("--tls-cert", certificate),
                    ("--tls-key", key),
                    ("--client-ca", ca.display().to_string()),
                    ("--nodes", list.display().to_string()),
                ] {
                    more.extend([option.into(), path.into()]);
                }
                let (certificate, key) = authority.issue(SanType::DnsName("forger.example".try_into()?))?;
                tls = Some(
                    ClientTlsConfig::new()
                        .ca_certificate(Certificate::from_pem(authority.ca.pem()))
                        .identity(Identity::from_pem(certificate, key)),
                );
            }
            Access::Token => more.extend(["--allow-plaintext", "--token", TOKEN].map(Into::into)),
            Access::Anonymous => more.extend(["--allow-plaintext", "--allow-anonymous-reports"].map(Into::into)),
        }
        let site = Site::start(&documents, &more).await?;
        let all = canaries().count();
        site.until("all are there", async |site| {
            Ok(site.phases().await?.iter().filter(|(_, phase)| phase == "Initialized").count() == all)
        })
        .await?;
        let mut envoys = Vec::new();
        for (number, (name, entry)) in (1..).zip(names.iter().zip(&entries)) {
            let mut bootstrap = site.bootstrap(name, name);
            match access {
                Access::Certificates => {
                    let identity = authority.files(keys.path(), name, SanType::DnsName(name.as_str().try_into()?))?;
                    bootstrap.tls = Some(ClientTls { ca: ca.display().to_string(), identity: Some(identity) });
                }
                Access::Token => bootstrap.authorization = Some(format!("Bearer {TOKEN}")),
                Access::Anonymous => {}
            }
            envoys.push(envoy(from_host(bootstrap.render(), number), *entry).await?);
        }
        let token = (access == Access::Token).then_some(TOKEN);
        let forger = Forger::connect(site.xds(), tls.clone(), token).await?;
        if access == Access::Token {
            let stranger = Forger::connect(site.xds(), None, None).await?;
            let asks = ReportRequest { node_id: "edge-1".to_owned(), ..ReportRequest::default() };
            ensure!(stranger.report(asks).await.is_none(), "without the token nothing is taken");
        }
        if access == Access::Certificates {
            let asks = ReportRequest { node_id: "edge-1".to_owned(), ..ReportRequest::default() };
            ensure!(forger.report(asks).await.is_none(), "it cannot be a node that its certificate does not name");
        }
        Ok(Self { site, entries, services, old, listeners, forger, tls, _envoys: envoys, _keys: keys })
    }

    /// Asks for the new revision of all, and returns the phases in which their rollouts end.
    async fn play(&self, moment: Moment) -> anyhow::Result<BTreeMap<(Truth, Lie), String>> {
        let ends = Arc::<AtomicBool>::default();
        let mut lying = JoinSet::new();
        if moment == Moment::Before {
            lying.spawn(self.forger.clone().lie(ends.clone()));
        }
        let rate = RATE.div_ceil(u32::try_from(self.entries.len())?);
        let users: Vec<Load> = canaries()
            .flat_map(|(truth, lie)| self.entries.iter().map(move |entry| (name(truth, lie), *entry)))
            .map(|(name, target)| {
                Load::start(LoadConfig {
                    target,
                    host: format!("{name}.local"),
                    rate,
                    patience: None,
                    visitors: ANYONE,
                })
            })
            .collect();
        self.site.until("users are served", async |_| Ok(users.iter().all(|load| load.tally().finished > 0))).await?;
        for (truth, lie) in canaries() {
            let new = self.services.get(&truth).context("there is one")?.address();
            let name = name(truth, lie);
            self.site.write(&name, &document(&name, 2, self.old.address(), new, &self.listeners))?;
        }
        let began = Instant::now();
        if moment == Moment::Middle {
            tokio::time::sleep(MIDDLE).await;
            lying.spawn(self.forger.clone().lie(ends.clone()));
        }
        let mut ended = BTreeMap::new();
        let mut poll = tokio::time::interval(TICK);
        while began.elapsed() < LONGEST {
            poll.tick().await;
            let phases: BTreeMap<String, String> = self.site.phases().await?.into_iter().collect();
            for (truth, lie) in canaries() {
                let phase = phases.get(&name(truth, lie)).cloned().unwrap_or_default();
                ended.insert((truth, lie), phase);
            }
            let over = |phase: &String| phase == "Failed" || phase == "Succeeded";
            if began.elapsed() > MIDDLE * 2 && ended.values().all(over) {
                break;
            }
        }
        ends.store(true, Ordering::Relaxed);
        while lying.join_next().await.is_some() {}
        for load in users {
            drop(load.stop(Duration::from_secs(1)).await);
        }
        Ok(ended)
    }
}

/// Lets an Envoy speak to its control plane from a host of its own.
fn from_host(mut bootstrap: Value, number: usize) -> Value {
    if let Some(cluster) = bootstrap.pointer_mut("/static_resources/clusters/0").and_then(Value::as_object_mut) {
        let source = json!({"source_address": {"address": format!("{ENVOYS}.{number}"), "port_value": 0}});
        cluster.insert("upstream_bind_config".to_owned(), source);
    }
    bootstrap
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [INSIDE, what, minutes] => run(what, minutes.parse()?).await,
        [] => rerun(&["all", &MINUTES.to_string()]),
        [minutes] => rerun(&["all", minutes]),
        [minutes, what] => rerun(&[what, minutes]),
        _ => bail!("usage: forger [MINUTES [all|decide|flood]]"),
    }
}

async fn run(what: &str, minutes: f64) -> anyhow::Result<()> {
    let mut table = Table::default();
    if what != "flood" {
        let only = std::env::var("CELL").ok();
        for cell in Cell::all().filter(|cell| only.as_ref().is_none_or(|only| cell.name().contains(only.as_str()))) {
            decide(&mut table, cell).await?;
        }
    }
    if what != "decide" {
        for access in [Access::Certificates, Access::Anonymous] {
            flood(&mut table, access, minutes / 2.0).await?;
        }
    }
    Ok(print(&json!({"seed": SEED, "minutes": minutes, "failed": table.failed()}))?)
}
