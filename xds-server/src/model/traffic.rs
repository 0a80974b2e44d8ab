//! How connections are made, to upstreams and from clients.

use wingbeat_core::time::Span;

/// A connection that takes longer to come about is given up, where a `trafficPolicy` says nothing else. Envoy's default is 5 s.
pub const CONNECT_TIMEOUT: Span = Span::from_secs(1);

/// How an Envoy uses the endpoints of a cluster. What is left out has no limit, as with Istio: Envoy's own limits (1,024
/// connections and requests, 3 retries at a time) turn healthy services into 503.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Connections at a time, to all endpoints together.
    pub max_connections: Option<u32>,
    /// Requests at a time that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests at a time.
    pub max_requests: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// Requests that a connection serves before it is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Longest time to connect; if left out, [`CONNECT_TIMEOUT`].
    pub connect_timeout: Option<Span>,
    /// How long a connection without requests is kept.
    pub idle_timeout: Option<Span>,
    /// Which endpoints get no requests for a while.
    pub outliers: OutlierDetection,
}

/// Which endpoints get no requests for a while. Zero switches a test off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Responses of 5xx in a row.
    pub consecutive_5xx: u32,
    /// Responses of 502, 503 and 504 in a row.
    pub consecutive_gateway: u32,
    /// Failures in a row to connect, or to get a response, where those are told from responses.
    pub consecutive_local: u32,
    /// How failures to connect count.
    pub local: LocalFailures,
    /// How often it is looked whether an endpoint may come back.
    pub interval: Span,
    /// How long it is away, for each time that it was ejected.
    pub base_ejection_time: Span,
    /// Percent of the endpoints that may be away at a time. One may in any case where the first is below it.
    pub max_ejection_percent: u32,
    /// Percent of endpoints below which all of them get requests again; none: Envoy's, 50.
    pub min_health_percent: Option<u32>,
}

/// How failures to connect count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFailures {
    /// By themselves.
    Apart,
    /// As responses of 503.
    AsResponses,
}

/// An endpoint that cannot be connected to must not keep its share of requests; what an upstream answers is left to its
/// users, and to the judge.
impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 0,
            consecutive_gateway: 0,
            consecutive_local: 5,
            local: LocalFailures::Apart,
            interval: Span::from_secs(10),
            base_ejection_time: Span::from_secs(30),
            max_ejection_percent: 50,
            min_health_percent: None,
        }
    }
}

/// How a listener speaks with its clients: as a front proxy does, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// Who the client is.
    pub address: ClientAddress,
    /// Whether HTTP/1.0 is served.
    pub http_10: Http10,
    /// What becomes of a dot at the end of a host.
    pub trailing_dot: TrailingDot,
    /// How long a stream may go without a byte; none: for ever, as with Istio.
    pub stream_idle_timeout: Option<Span>,
}

/// Who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Who connects; it is appended to `x-forwarded-for`.
    Connection {
        /// Trusted proxies in front, whose entries of `x-forwarded-for` count.
        trusted_hops: u32,
    },
    /// Who `x-forwarded-for` says, which stays as it is.
    Header {
        /// Trusted proxies in front.
        trusted_hops: u32,
    },
}

/// Whether HTTP/1.0 is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http10 {
    /// It is.
    Served,
    /// It is answered with 426.
    Refused,
}

/// What becomes of a dot at the end of a host, which makes it the same name in DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailingDot {
    /// It is taken off.
    Stripped,
    /// It stays, and the host is another one.
    Kept,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            address: ClientAddress::Connection { trusted_hops: 0 },
            http_10: Http10::Served,
            trailing_dot: TrailingDot::Stripped,
            stream_idle_timeout: None,
        }
    }
}
