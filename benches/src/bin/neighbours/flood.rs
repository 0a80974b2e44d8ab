//! A proxy that sends garbage: a process of its own, so that its load is not that of the measurement.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use wingbeat_benches::network::LIAR;
use wingbeat_benches::print;
use wingbeat_proto::v1::report_service_client::ReportServiceClient;
use wingbeat_proto::v1::{ClusterReport, ReportRequest, ReportResponse};
use wingbeat_test_support::simulation::draw::Draw;

use crate::SEED;

/// Connections, and reports at a time on each.
const FLOOD: (usize, usize) = (4, 8);

/// A process that reports garbage as fast as it is taken.
pub(super) struct Flood(Child);

impl Flood {
    pub(super) fn start(xds: std::net::SocketAddr, odd: &str) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--flood", &xds.to_string(), odd])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self(child))
    }

    /// Returns how many were sent, and how many were taken.
    pub(super) async fn stop(mut self) -> anyhow::Result<(u64, u64)> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().context("standard output")?.read_to_string(&mut said).await?;
        let said: Value = serde_json::from_str(&said).with_context(|| format!("the flood said {said:?}"))?;
        let number = |field: &str| said.get(field).and_then(Value::as_u64).context("a number");
        Ok((number("sent")?, number("taken")?))
    }
}

/// Garbage of all kinds about one canary, until standard input ends.
pub(super) async fn flood(address: &str, odd: &str) -> anyhow::Result<()> {
    let (sent, taken, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let mut all = JoinSet::new();
    for connection in 0..FLOOD.0 {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.local_address(Some(LIAR.parse()?));
        let channel = endpoint.connect().await?;
        let told = ReportServiceClient::new(channel.clone()).report(at(String::new())).await?.into_inner();
        let clusters = told.policy.context("a policy")?.clusters;
        let cluster = clusters.into_iter().find(|cluster| cluster.canary == format!("prod/{odd}") && cluster.arm == 1);
        let (epoch, odd) = (cluster.context("the canary is judged")?.epoch, format!("prod/{odd}/2"));
        for lane in 0..FLOOD.1 {
            let (channel, odd, ends) = (channel.clone(), odd.clone(), ends.clone());
            let (sent, taken) = (sent.clone(), taken.clone());
            let mut draw = Draw::new(SEED + u64::try_from(connection * FLOOD.1 + lane)?);
            all.spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    let fine = match draw.below(8) {
                        0 => no_report(channel.clone()).await,
                        kind => {
                            let report = garbage(kind, &odd, epoch, &mut draw);
                            ReportServiceClient::new(channel.clone()).report(report).await.is_ok()
                        }
                    };
                    taken.fetch_add(u64::from(fine), Ordering::Relaxed);
                }
            });
        }
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_string(&mut String::new())).await??;
    ends.store(true, Ordering::Relaxed);
    while all.join_next().await.is_some() {}
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(print(&json!({"sent": count(&sent), "taken": count(&taken)}))?)
}

/// Bytes that are no report.
async fn no_report(channel: tonic::transport::Channel) -> bool {
    let mut grpc = Grpc::new(channel);
    if grpc.ready().await.is_err() {
        return false;
    }
    let path = PathAndQuery::from_static("/wingbeat.report.v1.ReportService/Report");
    let codec = ProstCodec::<Vec<u8>, ReportResponse>::default();
    grpc.unary(tonic::Request::new(vec![0xff_u8; 100]), path, codec).await.is_ok()
}

fn garbage(kind: u64, odd: &str, epoch: u64, draw: &mut Draw) -> ReportRequest {
    let one = ClusterReport { cluster: odd.to_owned(), epoch, first_sequence: 1, ..ClusterReport::default() };
    let clusters = match kind {
        // Impossible.
        1 => vec![ClusterReport { started: 1, finished: 5, ..one }],
        2 => vec![ClusterReport { started: u64::MAX, finished: u64::MAX, ..one }],
        // Of a rollout that never was, of a cluster that never was.
        3 => vec![ClusterReport { epoch: draw.below(u64::MAX), started: 1, finished: 1, ..one }],
        4 => vec![ClusterReport { cluster: "prod/nowhere/1".to_owned(), started: 1, finished: 1, ..one }],
        // Twice, and with a name of the largest size.
        5 => vec![one.clone(), one],
        6 => vec![ClusterReport { cluster: "x".repeat(200_000), ..one }],
        // It can be, and is not true.
        _ => {
            let finished = draw.below(1_000_000);
            vec![ClusterReport { started: finished, finished, outcomes: vec![finished], rev: draw.below(100), ..one }]
        }
    };
    ReportRequest {
        boot_id: draw.below(u64::MAX),
        worker_id: draw.below(u64::MAX),
        sequence: draw.below(1_000_000),
        policy_version: draw.below(u64::MAX),
        urgent: draw.below(2) == 0,
        clusters,
        ..at(format!("odd-{}", draw.below(1_000_000)))
    }
}

/// Returns the beginnings of a report of a node where the canaries are served: it is told of them, and heard on them.
fn at(node_id: String) -> ReportRequest {
    ReportRequest { node_id, node_cluster: "base".to_owned(), ..ReportRequest::default() }
}
