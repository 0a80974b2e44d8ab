//! The `MetricTemplate`.

use super::cluster::SECRET_REFERENCE;
use super::field::{Field, Kind, Object, Text};

/// Who can be asked by a `MetricTemplate` of Flagger's.
pub(crate) const PROVIDERS: [&str; 11] = [
    "prometheus",
    "influxdb",
    "datadog",
    "externalmetrics",
    "stackdriver",
    "cloudwatch",
    "newrelic",
    "graphite",
    "dynatrace",
    "keptn",
    "splunk",
];

const URL: Kind = Kind::Text(Text::Form("URL of http or https"));
const QUERY: Kind = Kind::Text(Text::Form("PromQL with {{ variables }}"));
const HEADER_VALUE: Kind = Kind::Text(Text::Form("visible ASCII characters"));

/// `spec` of a `MetricTemplate`.
pub(crate) static METRIC_TEMPLATE: Object = Object::of("MetricTemplate", &[
    Field::new("provider", Kind::Object(&PROVIDER), "Who is asked.").required(),
    Field::new(
        "query",
        QUERY,
        "What is asked: one series. `{{ name }}`, `namespace`, `target`, `service`, `ingress`, `route`, `interval` and \
         `variables.KEY` stand for those of the canary.",
    )
    .required()
    .example("'max(queue_length{workload=\"{{ target }}\"})'"),
]);

/// `provider`.
pub(crate) static PROVIDER: Object = Object::of("Provider", &[
    Field::new(
        "type",
        Kind::Choice(&PROVIDERS),
        "What is asked. Others than `prometheus` are taken with a warning, and canaries that refer to them are refused.",
    )
    .required()
    .example("prometheus"),
    Field::new("address", URL, "Where it is. Needed by `prometheus`.").example("http://127.0.0.1:9090"),
    Field::new(
        "headers",
        Kind::Map(&Kind::List { of: &HEADER_VALUE, least: 0 }),
        "Headers of every request to it, like `X-Scope-OrgID`. They may be secret: they are never logged.",
    )
    .example("{x-scope-orgid: [shop]}"),
    Field::new("region", Kind::Anything, "The region of CloudWatch.").moot("a Prometheus has none").in_cluster(Kind::TEXT),
    Field::new(
        "secretRef",
        Kind::Anything,
        "A Secret with credentials. Taken with a warning; canaries that refer to the template are refused.",
    )
    .in_cluster(Kind::Object(&SECRET_REFERENCE)),
    Field::new(
        "insecureSkipVerify",
        Kind::Truth,
        "Certificates are not checked. `true` is taken with a warning; canaries that refer to the template are refused.",
    )
    .default("false"),
]);
