//! `service.trafficPolicy`, of the shape that Istio gives it.

use super::cluster::{CLIENT_TLS, LOAD_BALANCER};
use super::field::{Field, Kind, MAX_DURATION, Object};

/// A time that is more than nothing.
const TIME: Kind = Kind::Duration { shortest: "1ns", longest: Some(MAX_DURATION) };
const PERCENT_OF_ENDPOINTS: Kind = Kind::Whole { low: 0, high: 100 };
/// Why other parts of a traffic policy are refused.
const BEYOND: &str = "of a trafficPolicy, this server carries out connectionPool and outlierDetection";
/// Why limits of TCP are refused.
const OF_TCP: &str = "it is for TCP, set http";
/// Why the protocol cannot be said here.
const OF_WORKLOAD: &str = "the protocol is up to http2 of the Workload";

/// `trafficPolicy`.
pub(crate) static TRAFFIC_POLICY: Object = Object::of(
    "TrafficPolicy",
    &[
        Field::new(
            "connectionPool",
            Kind::Object(&CONNECTION_POOL),
            "How many connections and requests there may be at a time. Without limits, nothing is refused.",
        ),
        Field::new(
            "outlierDetection",
            Kind::Object(&OUTLIER_DETECTION),
            "Which endpoints get no requests for a while. Without it, one that five times in a row cannot be connected to, \
         for half a minute. The defaults below are those where it is written.",
        ),
        Field::ignored("loadBalancer", "How an endpoint is chosen.", BEYOND).in_cluster(Kind::Object(&LOAD_BALANCER)),
        Field::ignored("portLevelSettings", "The same for single ports.", BEYOND),
        Field::ignored("tls", "TLS to the endpoints.", BEYOND).in_cluster(Kind::Object(&CLIENT_TLS)),
        Field::ignored("tunnel", "Tunnels to the endpoints.", BEYOND),
        Field::ignored("proxyProtocol", "The PROXY protocol to the endpoints.", BEYOND),
        Field::ignored("retryBudget", "How much of the traffic may be retries.", BEYOND),
    ],
);

/// `connectionPool`.
pub(crate) static CONNECTION_POOL: Object = Object::of(
    "ConnectionPool",
    &[
        Field::new("tcp", Kind::Object(&TCP_POOL), "Connections."),
        Field::new("http", Kind::Object(&HTTP_POOL), "Requests."),
    ],
);

/// `connectionPool.tcp`.
pub(crate) static TCP_POOL: Object = Object::of(
    "TcpPool",
    &[
        Field::new("maxConnections", Kind::COUNT, "Connections at a time; 0 is no limit.").default("0").example("1000"),
        Field::new("connectTimeout", TIME, "How long connecting may take.").default("1s").example("250ms"),
        Field::ignored("maxConnectionDuration", "How old a connection may become.", OF_TCP).in_cluster(TIME),
        Field::ignored("tcpKeepalive", "Probes of silent connections.", OF_TCP),
        Field::ignored("idleTimeout", "How long a silent connection is kept.", OF_TCP).in_cluster(TIME),
    ],
);

/// `connectionPool.http`.
pub(crate) static HTTP_POOL: Object = Object::of(
    "HttpPool",
    &[
        Field::new("http1MaxPendingRequests", Kind::COUNT, "Requests that wait for a connection; 0 is no limit.")
            .default("0")
            .example("1000"),
        Field::new("http2MaxRequests", Kind::COUNT, "Requests at a time, of HTTP/1 too; 0 is no limit.")
            .default("0")
            .example("1000"),
        Field::new("maxRetries", Kind::COUNT, "Retries at a time; 0 is no limit.").default("0").example("10"),
        Field::new("maxRequestsPerConnection", Kind::COUNT, "Requests until a connection is closed; 0 is no limit.")
            .default("0")
            .example("100"),
        Field::new(
            "idleTimeout",
            TIME,
            "How long a connection without requests is kept; without it, as long as Envoy does.",
        )
        .example("1h"),
        Field::ignored("h2UpgradePolicy", "Whether HTTP/1 becomes HTTP/2.", OF_WORKLOAD).in_cluster(Kind::Choice(&[
            "DEFAULT",
            "DO_NOT_UPGRADE",
            "UPGRADE",
        ])),
        Field::ignored("useClientProtocol", "Whether the client's protocol is used.", OF_WORKLOAD)
            .in_cluster(Kind::Truth),
        Field::ignored("maxConcurrentStreams", "Requests at a time on a connection of HTTP/2.", OF_WORKLOAD)
            .in_cluster(Kind::COUNT),
    ],
);

/// `outlierDetection`.
pub(crate) static OUTLIER_DETECTION: Object = Object::of(
    "OutlierDetection",
    &[
        Field::new("consecutive5xxErrors", Kind::COUNT, "Answers of 5xx in a row that eject an endpoint; 0 is never.")
            .default("5"),
        Field::new("consecutiveGatewayErrors", Kind::COUNT, "The same of 502, 503 and 504.").default("0").example("5"),
        Field::new(
            "consecutiveLocalOriginFailures",
            Kind::COUNT,
            "Failures in a row to connect or to get an answer, where they are counted by themselves.",
        )
        .default("5"),
        Field::new(
            "splitExternalLocalOriginErrors",
            Kind::Truth,
            "Failures to connect count by themselves, and not as answers of 5xx.",
        )
        .default("false"),
        Field::new("interval", TIME, "How often it is looked whether an endpoint may come back.").default("10s"),
        Field::new("baseEjectionTime", TIME, "How long an endpoint is away, times how often it was ejected.")
            .default("30s"),
        Field::new("maxEjectionPercent", PERCENT_OF_ENDPOINTS, "Percent of endpoints that may be away at a time.")
            .default("10"),
        Field::new(
            "minHealthPercent",
            PERCENT_OF_ENDPOINTS,
            "Below this percent of endpoints, all get requests again.",
        )
        .default("0"),
        Field::ignored("consecutiveErrors", "The old form.", "Istio has given it up, write consecutive5xxErrors")
            .in_cluster(Kind::COUNT),
    ],
);
