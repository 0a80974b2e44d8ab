//! `analysis.judge`: how a canary is judged.

use super::field::{Bounds, Field, Kind, Object, Text};

/// A step that needs more requests than this would never end.
pub(crate) const MAX_REQUESTS: i64 = 1_000_000_000;

const QUANTILE: Kind = Kind::Number(Bounds::Between(0.0, 1.0));
const FACTOR: Kind = Kind::Number(Bounds::Above(1.0));
const USER_AGENT: Kind = Kind::Text(Text::Pattern("^[ -~]+$", "visible ASCII characters"));
const PATH: Kind = Kind::Text(Text::Pattern("^/[ -~]*$", "a path that begins with /"));

/// `analysis.judge`.
pub(crate) static JUDGE: Object = Object::of("Judge", &[
    Field::new(
        "mode",
        Kind::Choice(&["sequential", "guard", "thresholds"]),
        "What decides. `sequential`: pace and verdicts by evidence. `guard`: Flagger's pace and checks, and a hard guard \
         that rolls back at once what fails far more often than the primary. `thresholds`: Flagger's checks alone.",
    )
    .default("sequential")
    .flaggers_default("guard"),
    Field::new(
        "alpha",
        Kind::Number(Bounds::Within(1e-9, 0.5)),
        "The chance that a healthy canary is rolled back, over all signals, looks and retries of one revision. Smaller \
         means later rollbacks.",
    )
    .default("0.001"),
    Field::new(
        "errorRatio",
        Kind::Number(Bounds::Within(1.0, 100.0)),
        "How many times as often as the primary the canary may fail.",
    )
    .default("1.25"),
    Field::new("errorFloor", Kind::PERCENT, "Below this share of failed requests nothing is rolled back.").default("0.1%"),
    Field::new("latency", Kind::Object(&LATENCY), "What slower means."),
    Field::new(
        "mustDetect",
        Kind::Object(&MUST_DETECT),
        "A step ends only once so many requests were seen that a regression of this size, there since the rollout began, \
         would have been caught with 90 %. Larger ones need less traffic.",
    ),
    Field::new(
        "minRequests",
        Kind::Whole { low: 0, high: MAX_REQUESTS },
        "Requests of the canary that each step needs, whatever else is known.",
    )
    .default("20"),
    Field::new(
        "warmup",
        Kind::DURATION,
        "So long after the first request of the canary's pod, only the hard guard compares it: caches are empty and \
         connections new. Set it to what a new pod of yours takes.",
    )
    .default("15s"),
    Field::new(
        "earlyPromotion",
        Kind::Truth,
        "A step may end before `interval` when harm beyond the margins is ruled out at its weight.",
    )
    .default("false"),
    Field::new(
        "noData",
        Kind::Choice(&["hold", "fail"]),
        "What an interval without data comes to: the rollout waits, or a failed check is counted. Without it, `hold` in \
         mode `sequential` and `fail` in the others.",
    )
    .example("fail"),
    Field::new(
        "onOnePod",
        Kind::Choice(&["suspect", "rollback"]),
        "What harm means that one pod alone may have caused, while the primary has several: hold and shrink first, or \
         roll back. The hard guard does not wait.",
    )
    .default("suspect"),
    Field::new(
        "healthChecks",
        Kind::Object(&HEALTH_CHECKS),
        "Which requests are health checks: they are served, and not counted.",
    ),
]);

/// `analysis.judge.latency`.
pub(crate) static LATENCY: Object = Object::of(
    "Latency",
    &[
        Field::new("quantiles", Kind::some(&QUANTILE), "Which quantiles are compared.").default("[0.5, 0.9, 0.99]"),
        Field::new("tolerance", Kind::PERCENT, "How much slower than the primary the canary may be.").default("25%"),
        Field::new(
            "floor",
            Kind::DURATION,
            "A difference below this is none, whatever the share. Raise it where latencies are short and scattered.",
        )
        .default("5ms"),
    ],
);

/// `analysis.judge.mustDetect`.
pub(crate) static MUST_DETECT: Object = Object::of(
    "MustDetect",
    &[
        Field::new("errors", FACTOR, "So many times as many errors as the primary has,").default("5"),
        Field::new("errorsAtLeast", Kind::PERCENT, "but at least this share of failed requests.").default("1%"),
        Field::new("latency", FACTOR, "So many times the primary's latency.").default("2"),
    ],
);

/// `analysis.judge.healthChecks`.
pub(crate) static HEALTH_CHECKS: Object = Object::of(
    "HealthChecks",
    &[
        Field::new("userAgents", Kind::list(&USER_AGENT), "How the `user-agent` of health checks begins.").default(
            "[kube-probe/, GoogleHC/, ELB-HealthChecker/, Amazon-Route53-Health-Check, Envoy/HC, Consul Health Check]",
        ),
        Field::new("paths", Kind::list(&PATH), "Paths of health checks, without the query.")
            .default("[/healthz, /livez, /readyz, /health, /-/healthy, /-/ready, /actuator/health]"),
    ],
);
