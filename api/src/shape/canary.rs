//! The Canary, but for `service` and `analysis`.

use super::analysis::ANALYSIS;
use super::cluster::{AUTOSCALER_REFERENCE, UPSTREAM_REFERENCE};
use super::field::{Field, Kind, Object, Text};
use super::service::SERVICE;

/// Longer than anybody waits for a revision, a year of seconds.
pub(crate) const MAX_SECONDS: i64 = 31_536_000;
/// What Flagger's CRD takes, beside `envoy`, which is ours.
pub(crate) const PROVIDERS_OF_FLAGGER: [&str; 19] = [
    "apisix",
    "appmesh",
    "appmesh:v1beta2",
    "contour",
    "gatewayapi:v1",
    "gatewayapi:v1beta1",
    "gloo",
    "istio",
    "knative",
    "kubernetes",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "smi:v1alpha1",
    "smi:v1alpha2",
    "smi:v1alpha3",
    "traefik",
];

const URL: Kind = Kind::Text(Text::Form("URL of http or https"));
/// What is made of references to what is not here.
const NAMES_ONLY: &str = "Only its `name` is used, in queries of metrics.";
/// Why fields about scaling are without effect.
const NOT_SCALED: &str = "workloads of this server are not scaled";

/// `spec` of a Canary.
pub(crate) static CANARY: Object = Object::of(
    "Canary",
    &[
        Field::new("targetRef", Kind::Object(&TARGET_REFERENCE), "The workload whose revisions are rolled out.")
            .required(),
        Field::new(
            "provider",
            Kind::Either(&Kind::Choice(&["envoy"]), &Kind::Choice(&PROVIDERS_OF_FLAGGER)),
            "What carries the routes to the proxies. Plain Envoy is `envoy`; of Flagger's documents, others are told.",
        )
        .default("envoy"),
        Field::new("service", Kind::Object(&SERVICE), "How requests reach it.").required_here(),
        Field::new(
            "analysis",
            Kind::Object(&ANALYSIS),
            "How a rollout goes, and what ends it. Needed unless `skipAnalysis`.",
        ),
        Field::new("canaryAnalysis", Kind::Object(&ANALYSIS), "What `flagger.app/v1alpha3` calls `analysis`."),
        Field::new("metricsServer", URL, "The Prometheus that inline queries of `analysis.metrics` are sent to.")
            .example("http://127.0.0.1:9090"),
        Field::new(
            "progressDeadlineSeconds",
            Kind::Whole { low: 1, high: MAX_SECONDS },
            "Seconds that a rollout waits for its revision to become ready before it fails.",
        )
        .default("600"),
        Field::new("skipAnalysis", Kind::Truth, "New revisions are promoted without analysis. For emergencies.")
            .default("false"),
        Field::new("suspend", Kind::Truth, "Nothing is begun or moved on; what already harms is still rolled back.")
            .default("false"),
        Field::new("ingressRef", Kind::Object(&OBJECT_REFERENCE), NAMES_ONLY),
        Field::new("routeRef", Kind::Object(&OBJECT_REFERENCE), NAMES_ONLY),
        Field::ignored("upstreamRef", "An upstream of Gloo.", "this server routes itself")
            .in_cluster(Kind::Object(&UPSTREAM_REFERENCE)),
        Field::ignored("autoscalerRef", "The scaler of the workload, of which the primary gets a copy.", NOT_SCALED)
            .in_cluster(Kind::Object(&AUTOSCALER_REFERENCE))
            .makes_objects(),
        Field::ignored(
            "revertOnDeletion",
            "Whether the target has its requests back before the Canary goes: so it is unless this is `false`.",
            NOT_SCALED,
        )
        .in_cluster(Kind::Truth)
        .makes_objects(),
    ],
);

/// `targetRef`.
pub(crate) static TARGET_REFERENCE: Object = Object::of(
    "TargetReference",
    &[
        Field::new("apiVersion", Kind::Anything, "The API of the kind.")
            .moot("the kind says it")
            .in_cluster(Kind::TEXT),
        Field::new(
            "kind",
            Kind::Either(&Kind::Choice(&["Workload"]), &Kind::Choice(&["Deployment", "DaemonSet", "Service"])),
            "What it is. Plain Envoy has `Workload`; of Flagger's documents, others are told.",
        )
        .required()
        .example("Workload")
        .in_cluster(Kind::Choice(&["Deployment", "DaemonSet", "Service"])),
        Field::new("name", Kind::TEXT, "Its name, in the namespace of the Canary.").required().example("backend"),
    ],
);

/// `ingressRef` and `routeRef`.
pub(crate) static OBJECT_REFERENCE: Object = Object::of(
    "ObjectReference",
    &[
        Field::new("apiVersion", Kind::Anything, "The API of the kind.")
            .moot("only the name is used")
            .in_cluster(Kind::TEXT),
        Field::new("kind", Kind::Anything, "What it is.").moot("only the name is used").in_cluster(Kind::TEXT),
        Field::new("name", Kind::TEXT, "Stands for `{{ ingress }}` or `{{ route }}` in queries.").example("backend"),
    ],
);
