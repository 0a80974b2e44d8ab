//! What is changed of requests and responses on their way, which pages of others may read them, and which are nobody's.

use std::collections::BTreeMap;

use wingbeat_core::time::Span;

/// User agents of the usual health checkers, by how they begin: Kubernetes, the load balancers of Google and Amazon,
/// Route 53, Envoy, Consul.
const USER_AGENTS: [&str; 6] = [
    "kube-probe/",
    "GoogleHC/",
    "ELB-HealthChecker/",
    "Amazon-Route53-Health-Check",
    "Envoy/HC",
    "Consul Health Check",
];
/// Paths that nothing but health checks asks for: those of Kubernetes, and what frameworks serve by default.
const PATHS: [&str; 7] = ["/healthz", "/livez", "/readyz", "/health", "/-/healthy", "/-/ready", "/actuator/health"];

/// How requests and responses of a host are changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// The first whose path matches counts; a path that none matches stays as it is.
    pub rewrites: Vec<PathRewrite>,
    /// Takes the place of the host that was asked for.
    pub authority: Option<String>,
    /// Changes of request headers.
    pub request: HeaderChanges,
    /// Changes of response headers.
    pub response: HeaderChanges,
    /// Which pages of other origins may read responses.
    pub cors: Option<Cors>,
    /// Which requests are not counted while a rollout runs.
    pub health_checks: HealthChecks,
}

/// A test of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// A regex of the whole text, in the syntax of RE2.
    Regex(String),
}

/// How paths are rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRewrite {
    /// Which ones, without the query.
    pub path: TextMatch,
    /// True if the case of the path does not matter.
    pub ignore_case: bool,
    /// To what.
    pub to: NewPath,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPath {
    /// The prefix that matched is replaced by this; what matched as a whole is, as a whole.
    Replaced(String),
    /// Every match of a pattern is replaced by a text that may name its groups, like `\1`.
    Substituted {
        /// The pattern, in the syntax of RE2.
        pattern: String,
        /// What takes its place.
        substitution: String,
    },
}

/// Changes of headers. Values may hold Envoy's command operators, like `%REQ(:PATH)%`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Headers that have this one value from now on.
    pub set: BTreeMap<String, String>,
    /// Values that are added to those that are there.
    pub add: BTreeMap<String, String>,
    /// Headers that are removed.
    pub remove: Vec<String>,
}

/// What browsers are told of requests by pages of other origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins whose pages may read responses; the exact `*` is every one.
    pub origins: Vec<TextMatch>,
    /// Methods that they may use.
    pub methods: Vec<String>,
    /// Request headers that they may send.
    pub headers: Vec<String>,
    /// Response headers that they may read.
    pub exposed: Vec<String>,
    /// How long a browser may rely on it.
    pub max_age: Option<Span>,
    /// Whether requests may carry cookies.
    pub credentials: Option<bool>,
}

/// Requests of health checkers: nobody waits for them, and they succeed where users do not (P7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChecks {
    /// Beginnings of `user-agent`.
    pub user_agents: Vec<String>,
    /// Paths, without the query.
    pub paths: Vec<String>,
}

impl Default for HealthChecks {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Self { user_agents: texts(&USER_AGENTS), paths: texts(&PATHS) }
    }
}
