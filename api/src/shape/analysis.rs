//! `spec.analysis`.

use super::cluster::SESSION_AFFINITY;
use super::field::{Bounds, Field, Kind, MAX_DURATION, Object, Text};
use super::judge::JUDGE;
use super::service::HTTP_MATCH;

/// More would be a loop.
pub(crate) const MAX_HOOK_RETRIES: i64 = 1_000;
/// What is said of `disableTLS`.
pub(crate) const HOOK_TLS: &str =
    "is not carried out: certificates are always checked; use http or a trusted certificate";

const WEIGHT: Kind = Kind::Whole { low: 1, high: 100 };
/// Zero is Flagger's "not set".
const WEIGHT_OR_UNSET: Kind = Kind::Whole { low: 0, high: 100 };
const BELOW_ALL: Kind = Kind::Percent { below: Some(100) };
const HEADER_OR_COOKIE: Kind = Kind::TEXT;
const URL: Kind = Kind::Text(Text::Form("URL of http or https"));
const QUERY: Kind = Kind::Text(Text::Form("PromQL with {{ variables }}"));
const READY_SHARE: Kind = Kind::Whole { low: 0, high: 100 };
/// Why fields about readiness are without effect.
const READY_AT_ONCE: &str = "revisions of a Workload are ready at once";

/// `analysis`.
pub(crate) static ANALYSIS: Object = Object::of("Analysis", &[
    Field::new(
        "interval",
        Kind::Duration { shortest: "100ms", longest: None },
        "The shortest length of a step; in modes `guard` and `thresholds`, the time between two checks.",
    )
    .default("60s")
    .example("1s"),
    Field::new(
        "threshold",
        Kind::COUNT,
        "How many failed checks end the rollout. In mode `sequential`, checks are those of queries and hooks. 0 is 1.",
    )
    .default("1")
    .example("5"),
    Field::new(
        "stepWeight",
        WEIGHT,
        "Percent of requests by which the canary's share rises at each step. One of `stepWeight`, `stepWeights` and \
         `iterations` says how the rollout goes.",
    )
    .example("5"),
    Field::new("stepWeights", Kind::list(&WEIGHT), "The share at each step in percent, rising.").example("[1, 5, 20]"),
    Field::new(
        "maxWeight",
        WEIGHT_OR_UNSET,
        "Percent at which steps end; what passes there is promoted. With `stepWeight`.",
    )
    .default("100")
    .example("50"),
    Field::new(
        "stepWeightPromotion",
        WEIGHT_OR_UNSET,
        "Percent by which the share rises at each interval of the promotion; 0 is all at once.",
    )
    .default("0")
    .example("20"),
    Field::new(
        "iterations",
        Kind::Whole { low: 0, high: 10_000 },
        "How many intervals an A/B test (with `match`) or a blue/green rollout (without) lasts.",
    )
    .example("10"),
    Field::new(
        "match",
        Kind::list(&Kind::Object(&HTTP_MATCH)),
        "Whom an A/B test gives the canary to: requests that one of these entries fits. Needs `iterations`.",
    )
    .example("[{headers: {x-canary: {exact: insider}}}]"),
    Field::new(
        "holdback",
        BELOW_ALL,
        "The share of those who match that stays with the primary, by chance. It makes an A/B test fair.",
    )
    .default("0%")
    .example("10%"),
    Field::new(
        "affinity",
        Kind::Object(&IDENTITY),
        "Users keep their arm in a rollout by weight: they only ever move from the primary to the canary.",
    )
    .example("{cookie: uid}"),
    Field::new(
        "mirror",
        Kind::Truth,
        "Before its first share, the canary gets copies of requests, whose answers are dropped.",
    )
    .default("false"),
    Field::new("mirrorWeight", WEIGHT_OR_UNSET, "Percent of requests that are copied; 0 is 100. With `mirror`.")
        .default("100")
        .example("10"),
    Field::new("judge", Kind::Object(&JUDGE), "How the canary is compared with the primary, and what follows."),
    Field::new("metrics", Kind::list(&Kind::Object(&METRIC)), "Limits, and what a Prometheus is asked."),
    Field::new("webhooks", Kind::list(&Kind::Object(&WEBHOOK)), "Services that are asked or told in a rollout."),
    Field::new("alerts", Kind::list(&Kind::Object(&ALERT)), "Channels that people are alerted by."),
    Field::ignored("primaryReadyThreshold", "Percent of the primary's pods that must be ready.", READY_AT_ONCE)
        .in_cluster(READY_SHARE),
    Field::ignored("canaryReadyThreshold", "Percent of the canary's pods that must be ready.", READY_AT_ONCE)
        .in_cluster(READY_SHARE),
    Field::refused(
        "sessionAffinity",
        "Cookies that keep users with their arm.",
        "is not carried out by this server yet, use affinity or leave it out",
    )
    .in_cluster(Kind::Object(&SESSION_AFFINITY)),
]);

/// `affinity`: one of both.
pub(crate) static IDENTITY: Object = Object::of(
    "Identity",
    &[
        Field::new("cookie", HEADER_OR_COOKIE, "The cookie that tells users apart. No cookie is set.").example("uid"),
        Field::new("header", HEADER_OR_COOKIE, "The header that tells users apart, in place of a cookie.")
            .example("x-user"),
    ],
);

/// One of `metrics`.
pub(crate) static METRIC: Object = Object::of("Metric", &[
    Field::new(
        "name",
        Kind::TEXT,
        "`request-success-rate` (percent), `request-duration` (p99 in milliseconds), `response-classes`, \
         `request-attempts` and `client-disconnects` are measured by the filters. Any other needs `templateRef` or `query`.",
    )
    .required()
    .example("request-success-rate"),
    Field::new(
        "interval",
        Kind::DURATION,
        "The window that a check looks at, in modes `guard` and `thresholds`, and `{{ interval }}` of queries.",
    )
    .default("1m")
    .example("30s"),
    Field::new(
        "thresholdRange",
        Kind::Object(&RANGE),
        "What is good. In mode `sequential`, of metrics that the filters measure, a limit that is tested within `alpha`.",
    )
    .example("{min: 99}"),
    Field::new(
        "threshold",
        Kind::Number(Bounds::Free),
        "The old form of `thresholdRange`: `min` of `request-success-rate`, `max` of everything else.",
    )
    .example("99"),
    Field::new("templateRef", Kind::Object(&TEMPLATE_REFERENCE), "The MetricTemplate that has the query."),
    Field::new(
        "templateVariables",
        Kind::Map(&Kind::TEXT),
        "What `{{ variables.KEY }}` stands for in the query.",
    )
    .example("{tier: web}"),
    Field::new("query", QUERY, "PromQL, sent to `spec.metricsServer`.").example("'sum(up{job=\"{{ target }}\"})'"),
    Field::new(
        "mode",
        Kind::Choice(&["judge", "warn", "report"]),
        "What a bad value comes to: it counts, it is an event, or it is shown.",
    )
    .default("judge"),
]);

/// `thresholdRange`. Flagger's may be empty.
pub(crate) static RANGE: Object = Object::of(
    "Range",
    &[
        Field::new("min", Kind::Number(Bounds::Free), "The lowest good value.").example("99"),
        Field::new("max", Kind::Number(Bounds::Free), "The highest good value.").example("500"),
    ],
);

/// `templateRef`.
pub(crate) static TEMPLATE_REFERENCE: Object = Object::of(
    "TemplateReference",
    &[
        Field::new("name", Kind::TEXT, "Its name.").required().example("queue"),
        Field::new("namespace", Kind::TEXT, "Its namespace; without it, that of the Canary.").example("prod"),
    ],
);

/// `providerRef`.
pub(crate) static PROVIDER_REFERENCE: Object = Object::of(
    "ProviderReference",
    &[
        Field::new("name", Kind::TEXT, "Its name.").required().example("on-call"),
        Field::new("namespace", Kind::TEXT, "Its namespace; without it, that of the Canary.").example("prod"),
    ],
);

/// One of `webhooks`.
pub(crate) static WEBHOOK: Object = Object::of("Webhook", &[
    Field::new("name", Kind::TEXT, "Its name in events.").required().example("load-test"),
    Field::new(
        "type",
        Kind::Choice(&[
            "",
            "confirm-rollout",
            "pre-rollout",
            "rollout",
            "confirm-traffic-increase",
            "confirm-promotion",
            "post-rollout",
            "rollback",
            "event",
        ]),
        "When it is called. `confirm-…` are gates that stay shut until it answers 2xx; `pre-rollout` and `rollout` are \
         checks; `rollback` rolls back when it answers 2xx; `event` is told everything. Empty is `rollout`.",
    )
    .default("rollout"),
    Field::new("url", URL, "Where it is. It is posted to.").required().example("http://127.0.0.1:8090/"),
    Field::new("timeout", Kind::Duration { shortest: "1ns", longest: Some(MAX_DURATION) }, "How long an answer may take.")
        .default("10s")
        .example("30s"),
    Field::new(
        "retries",
        Kind::Whole { low: 0, high: MAX_HOOK_RETRIES },
        "Further attempts after a failed connection, 429 or most of 5xx.",
    )
    .default("0")
    .example("3"),
    Field::new("muteAlert", Kind::Truth, "Waiting for it alerts nobody.").default("false"),
    Field::new("metadata", Kind::Map(&Kind::TEXT), "Goes along with every call.").example("{cmd: \"hey -z 1m\"}"),
    Field::refused("disableTLS", "Certificates are not checked.", HOOK_TLS).in_cluster(Kind::Truth),
]);

/// One of `alerts`.
pub(crate) static ALERT: Object = Object::of(
    "Alert",
    &[
        Field::new("name", Kind::Anything, "For people.")
            .moot("alerts carry the name of the Canary")
            .in_cluster(Kind::TEXT),
        Field::new("providerRef", Kind::Object(&PROVIDER_REFERENCE), "The AlertProvider.").required(),
        Field::new("severity", Kind::Choice(&["info", "warn", "error"]), "The least serious alerts that go there.")
            .default("info")
            .example("error"),
    ],
);
