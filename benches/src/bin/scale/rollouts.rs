//! Many rollouts at once, with all their reports: what they cost, and how fast an abort is in force.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use futures::future::join_all;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use wingbeat_benches::quantile;
use wingbeat_benches::report::requests;
use wingbeat_benches::site::{PATIENCE, Site};
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::{ClusterPolicy, ReportRequest};
use wingbeat_xds_server::kind::Kind;

use crate::documents::{Change, Documents, Layout, OF_A_LISTENER, name, of_listener};
use crate::{AFTER, Figures, Meter, float};

/// Each worker reports so often, of one rollout.
const TICK: Duration = Duration::from_millis(100);
/// Requests between two reports, of either arm.
const PRIMARY: u64 = 19;
const CANARY: u64 = 1;
/// Connections that reports come over.
const CONNECTIONS: usize = 8;
/// Reports come for so long before anything is measured, and while what they cost is.
const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);
/// Aborts, one after the other, and the time between two of them.
const ABORTS: usize = 100;
const BETWEEN: Duration = Duration::from_millis(50);

/// The routes that proxies have: of each virtual host, its rev and when it came.
#[derive(Debug, Default)]
struct Routes {
    revs: Mutex<BTreeMap<String, (Vec<u8>, Instant)>>,
    changed: watch::Sender<()>,
}

impl Routes {
    fn take(&self, table: RouteConfiguration) {
        let now = Instant::now();
        let mut revs = self.revs.lock().unwrap_or_else(PoisonError::into_inner);
        for host in table.virtual_hosts {
            let rev = rev(&host);
            if revs.get(&host.name).is_none_or(|(known, _)| *known != rev) {
                revs.insert(host.name, (rev, now));
            }
        }
        drop(revs);
        self.changed.send_replace(());
    }

    /// Returns when the routes of a canary came that are in force.
    fn since(&self, canary: &str) -> Option<Instant> {
        let revs = self.revs.lock().unwrap_or_else(PoisonError::into_inner);
        revs.get(&format!("prod/{canary}")).map(|(_, since)| *since)
    }

    /// Waits for other routes of a canary than those of this time.
    async fn after(&self, canary: &str, before: Option<Instant>) -> anyhow::Result<Instant> {
        let mut changes = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(since) = self.since(canary).filter(|since| Some(*since) != before) {
                    return anyhow::Ok(since);
                }
                changes.changed().await?;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("no other routes of {canary} came"))?
    }
}

/// Returns the rev in the metadata of the first route, as it is encoded.
fn rev(host: &VirtualHost) -> Vec<u8> {
    let metadata = host.routes.first().and_then(|route| route.metadata.as_ref());
    metadata.map(|metadata| metadata.encode_to_vec()).unwrap_or_default()
}

/// A proxy that takes all of its configuration, as Envoy does.
async fn proxy(xds: SocketAddr, cluster: String, routes: Arc<Routes>) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{xds}"))?;
    // What Envoy's bootstrap asks for, or more.
    let channel =
        endpoint.initial_stream_window_size(1 << 24).initial_connection_window_size(1 << 24).connect().await?;
    let (requests, stream) = mpsc::unbounded_channel();
    let node = Some(Node { id: format!("{cluster}-1"), cluster: cluster.clone(), ..Node::default() });
    let mut names: BTreeMap<Kind, Vec<String>> = BTreeMap::from([(Kind::Routes, vec![cluster])]);
    let request = |kind: Kind, names: &BTreeMap<Kind, Vec<String>>| DiscoveryRequest {
        node: node.clone(),
        type_url: kind.type_url().to_owned(),
        resource_names: names.get(&kind).cloned().unwrap_or_default(),
        ..DiscoveryRequest::default()
    };
    for kind in [Kind::Cluster, Kind::Listener, Kind::Routes] {
        requests.send(request(kind, &names))?;
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut responses = client.stream_aggregated_resources(UnboundedReceiverStream::new(stream)).await?.into_inner();
    let mut endpoints: Option<(String, String)> = None;
    while let Some(response) = responses.message().await? {
        let kind = Kind::from_type_url(&response.type_url).context("a type")?;
        let DiscoveryResponse { version_info, nonce, resources, .. } = response;
        match kind {
            Kind::Routes => {
                for table in &resources {
                    routes.take(RouteConfiguration::decode(table.value.as_slice())?);
                }
            }
            Kind::Cluster => {
                let mut wanted = Vec::new();
                for cluster in &resources {
                    let cluster = Cluster::decode(cluster.value.as_slice())?;
                    let by_eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
                    if cluster.cluster_discovery_type == Some(by_eds) {
                        wanted.push(cluster.name);
                    }
                }
                names.insert(Kind::Endpoints, wanted);
                let (version_info, response_nonce) = endpoints.clone().unwrap_or_default();
                requests.send(DiscoveryRequest { version_info, response_nonce, ..request(Kind::Endpoints, &names) })?;
            }
            Kind::Endpoints => endpoints = Some((version_info.clone(), nonce.clone())),
            Kind::Listener | Kind::Extension => {}
        }
        requests.send(DiscoveryRequest { version_info, response_nonce: nonce, ..request(kind, &names) })?;
    }
    anyhow::bail!("the server ended the stream")
}

/// Reports of one worker on one rollout.
struct Worker {
    number: usize,
    cluster: String,
    canary: String,
    clusters: Vec<ClusterPolicy>,
    policy_version: u64,
    sequence: u64,
}

impl Worker {
    fn new(number: usize, canary: usize) -> Self {
        let (cluster, canary) = (of_listener(canary / OF_A_LISTENER), format!("prod/{}", name(canary)));
        Self { number, cluster, canary, clusters: Vec::new(), policy_version: 0, sequence: 0 }
    }

    /// Reports what was counted since its rollout began.
    async fn report(&mut self, reports: &mut ReportServiceClient<Channel>) -> anyhow::Result<()> {
        self.sequence += 1;
        let counted = |cluster: &ClusterPolicy| {
            let each = if cluster.arm == 0 { PRIMARY } else { CANARY };
            requests(&cluster.cluster, cluster.epoch, each * self.sequence, 0, cluster.first_rev)
        };
        let number = u64::try_from(self.number)?;
        let report = ReportRequest {
            node_id: format!("{}-{number}", self.cluster),
            node_cluster: self.cluster.clone(),
            boot_id: number + 1,
            worker_id: number,
            sequence: self.sequence,
            policy_version: self.policy_version,
            automaton_format: AUTOMATON_FORMAT,
            clusters: self.clusters.iter().map(counted).collect(),
            ..ReportRequest::default()
        };
        if let Some(policy) = reports.report(report).await?.into_inner().policy {
            self.policy_version = policy.version;
            self.clusters = policy.clusters.into_iter().filter(|cluster| cluster.canary == self.canary).collect();
        }
        Ok(())
    }
}

/// All reports of some workers, over one connection, until it is enough.
async fn report(
    xds: SocketAddr,
    mut workers: Vec<Worker>,
    [taken, lost]: [Arc<AtomicUsize>; 2],
    ends: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{xds}"))?.connect().await?;
    let reports = ReportServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !ends.load(Ordering::Relaxed) {
        ticks.tick().await;
        let all = workers.iter_mut().map(|worker| {
            let mut reports = reports.clone();
            async move { worker.report(&mut reports).await }
        });
        for reported in join_all(all).await {
            // A server that takes too long has lost it; filters send it again.
            let counter = if reported.is_ok() { &taken } else { &lost };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Aborts rollouts, one after the other. Returns how long each took in milliseconds, until it was answered and until the
/// proxy had its routes.
async fn abort(site: &Site, routes: &Routes, canaries: &[usize]) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut answered, mut in_force) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for canary in canaries {
        ticks.tick().await;
        let name = name(*canary);
        let before = routes.since(&name);
        let began = Instant::now();
        let (status, body) = site.try_command(&format!("prod/{name}"), "abort", None).await?;
        answered.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(status == 200, "{status}: {body}");
        in_force.push(routes.after(&name, before).await?.saturating_duration_since(began).as_secs_f64() * 1e3);
    }
    Ok((answered, in_force))
}

/// Measures so many rollouts among so many canaries.
pub(super) async fn measure(canaries: usize, rollouts: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let mut documents = Documents::new(canaries, Layout::Files);
    let mut site = Site::prepare(&documents.all(), &[])?;
    site.serve().await?;
    site.reaches(&name(canaries - 1), "Initialized").await?;
    let routes = Arc::<Routes>::default();
    let listeners = canaries.div_ceil(OF_A_LISTENER);
    let mut proxies = JoinSet::new();
    for listener in 0..listeners {
        proxies.spawn(proxy(site.xds(), of_listener(listener), routes.clone()));
    }
    // The same number on each listener, as far as that goes.
    let chosen: Vec<usize> =
        (0..rollouts).map(|number| number % listeners * OF_A_LISTENER + number / listeners).collect();
    for (file, text) in documents.change(&chosen, Change::Revision) {
        site.write(&file, &text)?;
    }
    for canary in &chosen {
        site.reaches(&name(*canary), "Progressing").await?;
    }
    let (taken, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let ends = Arc::<AtomicBool>::default();
    let mut workers: Vec<Vec<Worker>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, canary) in chosen.iter().enumerate() {
        if let Some(workers) = workers.get_mut(number % CONNECTIONS) {
            workers.push(Worker::new(number, *canary));
        }
    }
    let mut reporting = JoinSet::new();
    for workers in workers {
        reporting.spawn(report(site.xds(), workers, [taken.clone(), lost.clone()], ends.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let (meter, before, began) = (Meter::start(&site)?, taken.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let reports = taken.load(Ordering::Relaxed) - before;
    let rate = float(reports) / began.elapsed().as_secs_f64();
    figures.note("reports_a_second", rate)?;
    // Of each rollout, so many are due.
    figures.note("reports_short_a_second", (float(rollouts) / TICK.as_secs_f64() - rate).max(0.0))?;
    figures.note("rollouts_cores", meter.cores()?)?;
    figures.note("rollouts_rss_mib", site.memory()?)?;
    let (quiet, busy) = chosen.split_at(chosen.len() / 2);
    let p99 = |figures: &mut Figures, what: &str, (mut answered, mut in_force): (Vec<f64>, Vec<f64>)| {
        figures.note(&format!("{what}_answered_p99_ms"), quantile(&mut answered, 0.99))?;
        figures.note(&format!("{what}_median_ms"), quantile(&mut in_force, 0.5))?;
        figures.note(&format!("{what}_p99_ms"), quantile(&mut in_force, 0.99))
    };
    let take = |canaries: &[usize]| -> Vec<usize> { canaries.iter().copied().take(ABORTS).collect() };
    p99(figures, "abort", abort(&site, &routes, &take(quiet)).await?)?;
    // All files change at once, and the server goes through them.
    let all: Vec<usize> = (0..canaries).collect();
    let meter = Meter::start(&site)?;
    for (file, text) in documents.change(&all, Change::Timeout) {
        site.write(&file, &text)?;
    }
    p99(figures, "abort_in_changes", abort(&site, &routes, &take(busy)).await?)?;
    tokio::time::sleep(AFTER).await;
    figures.note("all_files_cpu_ms", meter.beyond(0.0)?)?;
    figures.note("rss_at_last_mib", site.memory()?)?;
    figures.note("reports_lost", float(lost.load(Ordering::Relaxed)))?;
    ends.store(true, Ordering::Relaxed);
    while let Some(reported) = reporting.join_next().await {
        reported??;
    }
    proxies.abort_all();
    while let Some(ended) = proxies.join_next().await {
        // Those that were aborted went on to the end; one that ended before is a failure.
        if let Ok(ended) = ended {
            ended?;
        }
    }
    Ok(())
}
