//! A controller does not age: one that has seen a hundred thousand workers, ten of which live, against a fresh one.
//!
//! Both are real servers, and go through the same two rollouts; in the first one's rollout, a hundred thousand workers report
//! requests and are never heard of again. Then ten workers report to both, in turn.
//!
//! And ten thousand workers that have nothing to tell, each of which reports when it is told to, send no more than one engine takes.
//!
//! Usage: `age-controller [all|age|idle]`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use wingbeat_benches::report::requests;
use wingbeat_benches::site::Site;
use wingbeat_benches::table::Table;
use wingbeat_benches::{print, quantile};
use wingbeat_filter::worker::period_ms;
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::{ClusterPolicy, ClusterReport, ReportRequest, ReportResponse};
use wingbeat_test_support::simulation::draw::Draw;

const SEEN: u64 = 100_000;
const LIVE: u64 = 10;
/// Workers of a node.
const A_NODE: u64 = 64;
/// Reports of the many that are under way, and their connections.
const LANES: usize = 64;
const CONNECTIONS: usize = 8;
/// Reports to each server in turn, so many times.
const BLOCKS: usize = 15;
const A_BLOCK: u64 = 400;
const RESTARTS: usize = 5;
/// Until it is as before, the dead are forgotten: two of the longest ticks, and five seconds.
const FORGOTTEN: Duration = Duration::from_secs(20);
/// As a fresh one, but for so much.
const WITHIN: f64 = 1.1;
/// Until the last rollout's workers are off the disk, too: they are deleted part by part, a second each, and what they took is
/// given back.
const SETTLED: Duration = Duration::from_secs(45);
const IDLE: u64 = 10_000;
/// Idle workers report so long before and while they are counted.
const SETTLE: Duration = Duration::from_secs(15);
const COUNTED: Duration = Duration::from_secs(30);
const REPORTS_PER_SECOND: f64 = 2_000.0;
const SEED: u64 = 1;

/// What is to be the same.
struct Figures {
    tick_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    stored_kib: f64,
    memory_mib: f64,
    restart_s: f64,
}

fn document(revision: u8) -> String {
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: public}}\n\
         spec: {{address: 127.0.0.1, port: 10000}}\n---\n\
         apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: backend, namespace: prod}}\n\
         spec: {{revision: \"{revision}\", revisions: {{\"1\": {{endpoints: [\"127.0.0.1:9001\"]}}, \
         \"2\": {{endpoints: [\"127.0.0.1:9002\"]}}, \"3\": {{endpoints: [\"127.0.0.1:9003\"]}}}}}}\n---\n\
         apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: backend, namespace: prod}}\n\
         spec:\n  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}}\n  \
         service: {{port: 80, hosts: [backend.local], listeners: [public]}}\n  \
         analysis: {{interval: 1h, threshold: 100, maxWeight: 50, stepWeight: 50}}\n"
    )
}

/// A server, and a connection to it.
struct Controller {
    site: Site,
    reports: ReportServiceClient<Channel>,
    clusters: Vec<ClusterPolicy>,
    /// Reports of each of the ten in this rollout.
    told: u64,
}

async fn connect(xds: SocketAddr) -> anyhow::Result<ReportServiceClient<Channel>> {
    Ok(ReportServiceClient::new(Endpoint::from_shared(format!("http://{xds}"))?.connect().await?))
}

/// Returns what a worker says that has seen so many requests of each arm.
fn says(worker: u64, sequence: u64, clusters: Vec<ClusterReport>) -> ReportRequest {
    ReportRequest {
        node_id: format!("node-{}", worker / A_NODE),
        boot_id: 1 + worker / A_NODE,
        worker_id: worker,
        sequence,
        automaton_format: 1,
        clusters,
        ..ReportRequest::default()
    }
}

fn counted(clusters: &[ClusterPolicy], each: u64) -> Vec<ClusterReport> {
    clusters.iter().map(|cluster| requests(&cluster.cluster, cluster.epoch, each, 0, cluster.first_rev)).collect()
}

impl Controller {
    async fn start() -> anyhow::Result<Self> {
        let site = Site::start(&[("canary".to_owned(), document(1))], &[]).await?;
        site.reaches("backend", "Initialized").await?;
        let reports = connect(site.xds()).await?;
        Ok(Self { site, reports, clusters: Vec::new(), told: 0 })
    }

    /// Begins a rollout of this revision.
    async fn roll_out(&mut self, revision: u8) -> anyhow::Result<()> {
        self.site.write("canary", &document(revision))?;
        let cluster = format!("prod/backend/{revision}");
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let began = Instant::now();
        loop {
            poll.tick().await;
            let policy = self.report(says(u64::MAX >> 1, 1, Vec::new())).await?.policy.context("a policy")?;
            if policy.clusters.iter().any(|it| it.cluster == cluster) {
                self.clusters = policy.clusters;
                self.told = 0;
                return Ok(());
            }
            ensure!(began.elapsed() < wingbeat_benches::site::PATIENCE, "revision {revision} is not rolled out");
        }
    }

    async fn report(&self, report: ReportRequest) -> anyhow::Result<ReportResponse> {
        Ok(self.reports.clone().report(report).await?.into_inner())
    }

    /// A hundred thousand workers report once.
    async fn see(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(connect(self.site.xds()).await?);
        }
        let each = counted(&self.clusters, 5);
        stream::iter(0..SEEN)
            .map(|worker| {
                let place = usize::try_from(worker).unwrap_or_default() % CONNECTIONS;
                let mut reports = connections.get(place).unwrap_or(&self.reports).clone();
                let report = says(1_000_000 + worker, 1, each.clone());
                async move { reports.report(report).await }
            })
            .buffer_unordered(LANES)
            .try_for_each(|_| futures::future::ok(()))
            .await?;
        Ok(began.elapsed())
    }

    /// The ten report once, one after the other. Returns the last tick granted, and how long each took, in milliseconds.
    async fn ten(&mut self, took: &mut Vec<f64>) -> anyhow::Result<u32> {
        let mut tick = 0;
        self.told += 1;
        for worker in 0..LIVE {
            let report = says(worker, self.told, counted(&self.clusters, self.told * 5));
            let began = Instant::now();
            tick = self.report(report).await?.next_tick_ms;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(tick)
    }
}

/// Returns what reports cost at both, in turn: tick, median, and the median of the blocks' p99.
async fn compare(both: &mut [Controller; 2]) -> anyhow::Result<[(f64, f64, f64); 2]> {
    let mut figures = [(0.0, Vec::new(), Vec::new()), (0.0, Vec::new(), Vec::new())];
    for block in 0..BLOCKS {
        let mut took = [Vec::new(), Vec::new()];
        for turn in 0..A_BLOCK / LIVE {
            // Whoever comes first comes second in the next turn.
            for place in 0..2 {
                let which = usize::try_from(turn % 2)? ^ place;
                let (Some(controller), Some(took), Some((tick, ..))) =
                    (both.get_mut(which), took.get_mut(which), figures.get_mut(which))
                else {
                    continue;
                };
                *tick = f64::from(controller.ten(took).await?);
            }
        }
        // The first one finds caches cold.
        for ((_, median, last), took) in figures.iter_mut().zip(&mut took).filter(|_| block > 0) {
            median.push(quantile(took, 0.5));
            last.push(quantile(took, 0.99));
        }
    }
    Ok(figures.map(|(tick, mut median, mut last)| (tick, quantile(&mut median, 0.5), quantile(&mut last, 0.5))))
}

async fn figures(both: &mut [Controller; 2]) -> anyhow::Result<[Figures; 2]> {
    let compared = compare(both).await?;
    let mut all = Vec::new();
    for (controller, (tick_ms, p50_ms, p99_ms)) in both.iter_mut().zip(compared) {
        let (stored_kib, memory_mib) = (controller.site.stored()?, controller.site.memory()?);
        all.push(Figures { tick_ms, p50_ms, p99_ms, stored_kib, memory_mib, restart_s: 0.0 });
    }
    // In turn, and after all else: who starts anew is fresh.
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..RESTARTS {
        for (controller, took) in both.iter_mut().zip(&mut took) {
            took.push(controller.site.restart().await?.as_secs_f64());
        }
    }
    for (figures, took) in all.iter_mut().zip(&mut took) {
        figures.restart_s = quantile(took, 0.5);
    }
    all.try_into().ok().context("two")
}

async fn age(table: &mut Table) -> anyhow::Result<()> {
    let mut both = [Controller::start().await?, Controller::start().await?];
    for controller in &mut both {
        controller.roll_out(2).await?;
    }
    let [aged, fresh] = &mut both;
    let took = aged.see().await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = SEEN as f64 / took.as_secs_f64();
    table.note(&format!("{SEEN} workers report once"), &format!("{rate:.0} a second"))?;
    // The ten report while the others are forgotten.
    let forgotten = Instant::now();
    let mut poll = tokio::time::interval(Duration::from_millis(500));
    let (mut tick, mut expected) = (0, 0);
    while forgotten.elapsed() < FORGOTTEN {
        poll.tick().await;
        (tick, expected) = (aged.ten(&mut Vec::new()).await?, fresh.ten(&mut Vec::new()).await?);
    }
    let cell = "in the same rollout";
    let what = format!("{cell}: tick granted {} s after the last of them", FORGOTTEN.as_secs());
    table.row(&what, &format!("{tick} ms, fresh {expected} ms"), "the same", tick == expected)?;
    let [(_, p50, p99), (_, p50_fresh, p99_fresh)] = compare(&mut both).await?;
    let [aged, fresh] = &mut both;
    let (stored, stored_fresh) = (aged.site.stored()?, fresh.site.stored()?);
    let (memory, memory_fresh) = (aged.site.memory()?, fresh.site.memory()?);
    for (what, value, value_fresh, unit) in [
        ("median of a report", p50, p50_fresh, "ms"),
        ("p99 of a report", p99, p99_fresh, "ms"),
        ("state folder", stored, stored_fresh, "KiB"),
        ("resident memory", memory, memory_fresh, "MiB"),
    ] {
        table.note(&format!("{cell}: {what}"), &format!("{value:.2} {unit}, fresh {value_fresh:.2} {unit}"))?;
    }
    for controller in &mut both {
        controller.roll_out(3).await?;
        controller.ten(&mut Vec::new()).await?;
    }
    let settled = Instant::now();
    while settled.elapsed() < SETTLED {
        poll.tick().await;
        for controller in &mut both {
            controller.ten(&mut Vec::new()).await?;
        }
    }
    let [aged, fresh] = figures(&mut both).await?;
    let cell = "in the next rollout";
    for (what, value, value_fresh, unit) in [
        ("tick granted", aged.tick_ms, fresh.tick_ms, "ms"),
        ("p99 of a report", aged.p99_ms, fresh.p99_ms, "ms"),
        ("state folder", aged.stored_kib, fresh.stored_kib, "KiB"),
        ("resident memory", aged.memory_mib, fresh.memory_mib, "MiB"),
        ("time of a restart", aged.restart_s, fresh.restart_s, "s"),
    ] {
        let (figure, bound) = (
            format!("{value:.3} {unit}, fresh {value_fresh:.3} {unit}"),
            format!("≤ {:.3} {unit}", value_fresh * WITHIN),
        );
        table.row(&format!("{cell}: {what}"), &figure, &bound, value <= value_fresh * WITHIN)?;
    }
    table.note(
        &format!("{cell}: median of a report"),
        &format!("{:.3} ms, fresh {:.3} ms", aged.p50_ms, fresh.p50_ms),
    )?;
    Ok(())
}

/// A worker that has nothing to tell, and reports when it is told to.
async fn idle(
    mut reports: ReportServiceClient<Channel>,
    worker: u64,
    counter: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut draw = Draw::new(SEED + worker);
    // Envoys do not start at the same time.
    let mut tick = Duration::from_millis(draw.below(1_000));
    let mut policy_version = 0;
    for sequence in 1.. {
        tokio::time::sleep(tick).await;
        if ends.load(Ordering::Relaxed) {
            break;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        let report = ReportRequest { policy_version, ..says(worker, sequence, Vec::new()) };
        let answer = reports.report(report).await?.into_inner();
        policy_version = answer.policy.map_or(policy_version, |policy| policy.version);
        if answer.next_tick_ms > 0 {
            tick = Duration::from_millis(period_ms(answer.next_tick_ms.into(), worker));
        }
    }
    Ok(())
}

async fn crowd(table: &mut Table, is_judging: bool) -> anyhow::Result<f64> {
    let mut controller = Controller::start().await?;
    if is_judging {
        controller.roll_out(2).await?;
    }
    let (counter, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS * 8 {
        connections.push(connect(controller.site.xds()).await?);
    }
    let mut workers = JoinSet::new();
    for (worker, connection) in (0..IDLE).zip(connections.iter().cycle()) {
        workers.spawn(idle(connection.clone(), worker, counter.clone(), ends.clone()));
    }
    tokio::time::sleep(SETTLE).await;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    let (began, first) = (Instant::now(), counter.load(Ordering::Relaxed));
    let (mut before, mut worst) = (first, 0);
    while began.elapsed() < COUNTED {
        seconds.tick().await;
        let now = counter.load(Ordering::Relaxed);
        worst = worst.max(now - before);
        before = now;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = (before - first) as f64 / began.elapsed().as_secs_f64();
    ends.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let when = if is_judging { "while one rolls out" } else { "while none does" };
    table.row(
        &format!("{IDLE} idle workers, {when}"),
        &format!("{rate:.0} reports a second, {worst} in the worst second"),
        &format!("≤ {REPORTS_PER_SECOND} a second"),
        rate > 0.0 && rate <= REPORTS_PER_SECOND,
    )?;
    Ok(rate)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (ages, idles) = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["all"] => (true, true),
        ["age"] => (true, false),
        ["idle"] => (false, true),
        _ => bail!("usage: age-controller [all|age|idle]"),
    };
    let mut table = Table::default();
    let mut reports_a_second = None;
    if idles {
        let rates = [crowd(&mut table, false).await?, crowd(&mut table, true).await?];
        reports_a_second = Some(rates[0].max(rates[1]));
    }
    if ages {
        age(&mut table).await?;
    }
    Ok(print(&json!({
        "seed": SEED,
        "workers_seen": SEEN,
        "idle_workers": IDLE,
        "reports_a_second": reports_a_second,
        "failed": table.failed(),
    }))?)
}
