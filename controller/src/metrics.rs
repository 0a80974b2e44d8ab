//! Prometheus metrics: Flagger's under their own names, so that dashboards and alerts go on
//! working, and `wingbeat_*` for what is new.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rpds::RedBlackTreeMapSync;
use wingbeat_control::rollout_end::RolloutEnd;
use wingbeat_control::view::{ArmView, CanaryView, ClientsView, ServerStatus};

use crate::refused_peers::RefusedPeers;

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Float = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCanary {
    name: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWorkload {
    workload: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNamespace {
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMetric {
    name: String,
    namespace: String,
    metric: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfArm {
    name: String,
    namespace: String,
    arm: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQuantile {
    name: String,
    namespace: String,
    arm: &'static str,
    quantile: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    type_url: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    version: &'static str,
    mesh_provider: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct OfRollout {
    name: String,
    namespace: String,
    deployment_strategy: String,
    analysis_status: &'static str,
}

/// Upper bounds, in seconds: rollouts last from a second to a day.
const DURATIONS: [f64; 11] = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0];

/// Rollouts that ended since the server started. Clones share what is counted.
#[derive(Debug, Clone)]
pub struct Rollouts {
    succeeded: Family<OfRollout, Counter>,
    failed: Family<OfRollout, Counter>,
    durations: Family<OfCanary, Histogram, fn() -> Histogram>,
    /// The series that there are.
    known: Arc<Mutex<BTreeSet<OfRollout>>>,
}

impl Default for Rollouts {
    fn default() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(DURATIONS);
        let durations = Family::new_with_constructor(durations);
        Self { succeeded: Family::default(), failed: Family::default(), durations, known: Arc::default() }
    }
}

impl Rollouts {
    /// Counts one.
    pub(crate) fn count(&self, ended: &RolloutEnd) {
        let RolloutEnd { namespace, target, strategy, end } = ended;
        let of_rollout = OfRollout {
            name: target.clone(),
            namespace: namespace.clone(),
            deployment_strategy: strategy.as_str().to_owned(),
            analysis_status: if end.skipped { "skipped" } else { "completed" },
        };
        let counted = if end.promoted { &self.succeeded } else { &self.failed };
        counted.get_or_create(&of_rollout).inc();
        self.lock().insert(of_rollout.clone());
        if let Some(took) = end.took {
            let OfRollout { name, namespace, .. } = of_rollout;
            self.durations.get_or_create(&OfCanary { name, namespace }).observe(took.as_secs_f64());
        }
    }

    /// Has series for every canary that is there, from zero on: one that begins with its first failure does not increase by it.
    /// Those of canaries that are gone are removed.
    fn follow(&self, canaries: &RedBlackTreeMapSync<(String, String), Arc<CanaryView>>) {
        let there: BTreeSet<(&str, &str)> =
            canaries.values().map(|canary| (canary.namespace.as_str(), canary.target.as_str())).collect();
        let mut known = self.lock();
        known.retain(|of| {
            let is_there = there.contains(&(of.namespace.as_str(), of.name.as_str()));
            if !is_there {
                self.succeeded.remove(of);
                self.failed.remove(of);
                self.durations.remove(&OfCanary { name: of.name.clone(), namespace: of.namespace.clone() });
            }
            is_there
        });
        for canary in canaries.values() {
            let of = OfRollout {
                name: canary.target.clone(),
                namespace: canary.namespace.clone(),
                deployment_strategy: canary.strategy.clone(),
                analysis_status: "completed",
            };
            drop(self.succeeded.get_or_create(&of));
            drop(self.failed.get_or_create(&of));
            known.insert(of);
        }
    }

    // A std mutex, held while a map is looked through.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<OfRollout>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("flagger_canary_successes", "Rollouts that were promoted", self.succeeded.clone());
        registry.register("flagger_canary_failures", "Rollouts that failed", self.failed.clone());
        registry.register("flagger_canary_duration_seconds", "Length of rollouts that ended", self.durations.clone());
    }
}

/// Returns all metrics in the OpenMetrics text format.
pub fn render(board: &ServerStatus, refused: &RefusedPeers, rollouts: &Rollouts) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let info = Family::<Info, Gauge>::default();
    info.get_or_create(&Info { version: env!("CARGO_PKG_VERSION"), mesh_provider: "envoy" }).set(1);
    registry.register("flagger_info", "Version and provider", info);
    let nodes = Gauge::<i64>::default();
    nodes.set(i64::try_from(board.nodes).unwrap_or(i64::MAX));
    registry.register("wingbeat_reporting_nodes", "Envoys that reported within the last five seconds", nodes);
    let reports = Counter::<u64>::default();
    reports.inc_by(board.reports);
    registry.register("wingbeat_reports", "Reports of filters that were taken", reports);
    let foreign = Counter::<u64>::default();
    foreign.inc_by(board.foreign_reports);
    let help = "Parts of reports, by cluster, that belong to no rollout in progress and were left out";
    registry.register("wingbeat_report_parts_left_out", help, foreign);
    register_clients(&mut registry, &board.clients);
    register_refused(&mut registry, refused);
    register_canaries(&mut registry, board);
    rollouts.follow(&board.canaries);
    rollouts.register(&mut registry);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn register_clients(registry: &mut Registry, clients: &ClientsView) {
    let gauge = |value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    registry.register("wingbeat_xds_streams", "Open xDS streams", gauge(clients.streams));
    registry.register(
        "wingbeat_xds_refusals",
        "Types that an xDS stream refused and has not accepted since",
        gauge(clients.refusals),
    );
    let nacks = Family::<OfType, Counter>::default();
    for (type_url, count) in &clients.nacks {
        nacks.get_or_create(&OfType { type_url }).inc_by(*count);
    }
    registry.register("wingbeat_xds_nacks", "Configurations that xDS clients refused", nacks);
}

fn register_refused(registry: &mut Registry, refused: &RefusedPeers) {
    let peers = Family::<OfCause, Counter>::default();
    for (cause, count) in refused.each() {
        peers.get_or_create(&OfCause { cause: cause.as_str() }).inc_by(count);
    }
    registry.register("wingbeat_refused_peers", "Streams and reports that were refused, by cause", peers);
}

fn register_canaries(registry: &mut Registry, board: &ServerStatus) {
    let total = Family::<OfNamespace, Gauge>::default();
    let status = Family::<OfCanary, Gauge>::default();
    let weight = Family::<OfWorkload, Float>::default();
    let analysis = Family::<OfMetric, Float>::default();
    let requests = Family::<OfArm, Gauge>::default();
    let errors = Family::<OfArm, Gauge>::default();
    let latency = Family::<OfQuantile, Float>::default();
    let rev = Family::<OfCanary, Gauge>::default();
    let harm = Family::<OfCanary, Float>::default();
    for canary in board.canaries.values() {
        let arms = canary.measured();
        let of_canary = OfCanary { name: canary.target.clone(), namespace: canary.namespace.clone() };
        total.get_or_create(&OfNamespace { namespace: canary.namespace.clone() }).inc();
        status.get_or_create(&of_canary).set(status_number(canary));
        for (workload, percent) in
            [(canary.target.clone(), canary.weight), (format!("{}-primary", canary.target), 100.0 - canary.weight)]
        {
            weight.get_or_create(&OfWorkload { workload, namespace: canary.namespace.clone() }).set(percent);
        }
        let own = [
            ("request-success-rate", success_rate(&arms.canary)),
            ("request-duration", arms.canary.p99_ms.map(|ms| ms / 1_000.0)),
        ];
        let own = own.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
        for (metric, value) in canary.metrics.iter().map(|(metric, value)| (metric.as_str(), value.get())).chain(own) {
            let OfCanary { name, namespace } = of_canary.clone();
            analysis.get_or_create(&OfMetric { name, namespace, metric: metric.to_owned() }).set(value);
        }
        for (arm, measured) in [("primary", &arms.primary), ("canary", &arms.canary)] {
            let of_arm = OfArm { name: canary.target.clone(), namespace: canary.namespace.clone(), arm };
            requests.get_or_create(&of_arm).set(i64::try_from(measured.requests).unwrap_or(i64::MAX));
            errors.get_or_create(&of_arm).set(i64::try_from(measured.errors).unwrap_or(i64::MAX));
            for (quantile, value) in [("0.5", measured.p50_ms), ("0.9", measured.p90_ms), ("0.99", measured.p99_ms)] {
                if let Some(ms) = value {
                    let of_quantile =
                        OfQuantile { name: canary.target.clone(), namespace: canary.namespace.clone(), arm, quantile };
                    latency.get_or_create(&of_quantile).set(ms / 1_000.0);
                }
            }
        }
        rev.get_or_create(&of_canary).set(i64::try_from(canary.rev).unwrap_or(i64::MAX));
        if let Some(evidence) = &canary.evidence {
            harm.get_or_create(&of_canary).set(evidence.harm);
        }
    }
    registry.register("flagger_canary_total", "Canaries", total);
    registry.register("flagger_canary_status", "0 progressing, 1 fine, 2 failed", status);
    registry.register("flagger_canary_weight", "Percent of traffic that a workload is given", weight);
    registry.register(
        "flagger_canary_metric_analysis",
        "Latest value of a metric of the canary: percent, or seconds",
        analysis,
    );
    registry.register("wingbeat_rollout_requests", "Judged requests of the current rollout", requests);
    registry.register(
        "wingbeat_rollout_errors",
        "Judged requests of the current rollout where the server is to blame",
        errors,
    );
    registry.register("wingbeat_rollout_latency_seconds", "Latency of judged requests of the current rollout", latency);
    registry.register("wingbeat_route_rev", "Raised by every change of a canary's routes", rev);
    registry.register(
        "wingbeat_evidence_of_harm",
        "Natural logarithm of the judge's evidence against the canary",
        harm,
    );
}

/// Returns Flagger's number for the phase: an alert on `> 1` means a failed rollout.
fn status_number(canary: &CanaryView) -> i64 {
    match canary.phase.as_str() {
        "Progressing" => 0,
        "Failed" => 2,
        _ => 1,
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are more than a rollout's requests")]
fn success_rate(arm: &ArmView) -> Option<f64> {
    (arm.requests > 0).then(|| 100.0 * (1.0 - arm.errors as f64 / arm.requests as f64))
}

#[cfg(test)]
mod tests {
    use wingbeat_api::number::Number;
    use wingbeat_control::rollout_end::End;
    use wingbeat_control::view::ArmsView;
    use wingbeat_core::rollout::Strategy;
    use wingbeat_core::time::Span;

    use super::*;

    #[test]
    fn flaggers_names_and_values() {
        let canary = CanaryView {
            namespace: "prod".into(),
            name: "backend".into(),
            target: "backend".into(),
            phase: "Failed".into(),
            weight: 5.0,
            metrics: [("lag".to_owned(), Number::new(f64::INFINITY))].into(),
            arms: Some(ArmsView {
                canary: ArmView { requests: 100, errors: 5, p99_ms: Some(250.0), ..ArmView::default() },
                ..ArmsView::default()
            }),
            ..CanaryView::default()
        };
        let shop = CanaryView {
            namespace: "prod".into(),
            target: "shop".into(),
            strategy: "ab-testing".into(),
            ..CanaryView::default()
        };
        let mut board = ServerStatus {
            ready: true,
            canaries: [(("prod".into(), "backend".into()), canary), (("prod".into(), "shop".into()), shop)]
                .into_iter()
                .map(|(name, canary)| (name, Arc::new(canary)))
                .collect(),
            nodes: 2,
            reports: 7,
            clients: ClientsView { streams: 3, refusals: 1, nacks: vec![("type/Cluster", 4)] },
            ..ServerStatus::default()
        };
        let rollouts = Rollouts::default();
        let failed = End { promoted: false, skipped: false, took: None };
        for end in [
            failed,
            End { took: Some(Span::from_millis(7_500)), ..failed },
            End { promoted: true, skipped: true, took: Some(Span::from_secs(2)) },
        ] {
            let (namespace, target) = ("prod".to_owned(), "backend".to_owned());
            rollouts.count(&RolloutEnd { namespace, target, strategy: Strategy::AbTesting, end });
        }
        let shown = |board: &ServerStatus| render(board, &RefusedPeers::default(), &rollouts).unwrap();
        let text = shown(&board);
        for line in [
            r#"flagger_canary_total{namespace="prod"} 2"#,
            r#"flagger_canary_status{name="backend",namespace="prod"} 2"#,
            r#"flagger_canary_weight{workload="backend",namespace="prod"} 5.0"#,
            r#"flagger_canary_weight{workload="backend-primary",namespace="prod"} 95.0"#,
            r#"flagger_canary_metric_analysis{name="backend",namespace="prod",metric="request-success-rate"} 95.0"#,
            r#"flagger_canary_metric_analysis{name="backend",namespace="prod",metric="request-duration"} 0.25"#,
            // As OpenMetrics writes it.
            r#"flagger_canary_metric_analysis{name="backend",namespace="prod",metric="lag"} inf"#,
            r#"flagger_canary_failures_total{name="backend",namespace="prod",deployment_strategy="ab-testing",analysis_status="completed"} 2"#,
            r#"flagger_canary_successes_total{name="backend",namespace="prod",deployment_strategy="ab-testing",analysis_status="skipped"} 1"#,
            // From zero on.
            r#"flagger_canary_failures_total{name="shop",namespace="prod",deployment_strategy="ab-testing",analysis_status="completed"} 0"#,
            r#"wingbeat_refused_peers_total{cause="busy"} 0"#,
            r#"flagger_canary_duration_seconds_sum{name="backend",namespace="prod"} 9.5"#,
            r#"flagger_canary_duration_seconds_bucket{le="5.0",name="backend",namespace="prod"} 1"#,
            "wingbeat_reporting_nodes 2",
            "wingbeat_reports_total 7",
            "wingbeat_xds_streams 3",
            "wingbeat_xds_refusals 1",
            r#"wingbeat_xds_nacks_total{type_url="type/Cluster"} 4"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in:\n{text}");
        }
        // A canary that is gone has none.
        board.canaries = RedBlackTreeMapSync::default();
        let text = shown(&board);
        assert!(!text.contains("name=\"shop\"") && !text.contains("name=\"backend\""), "{text}");
    }
}
