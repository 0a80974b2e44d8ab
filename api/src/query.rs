//! Questions to a Prometheus.

use http::HeaderMap;
use url::Url;
use wingbeat_core::analysis::signal::SignalMode;
use wingbeat_core::analysis::threshold::Range;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Name of the metric.
    pub metric: String,
    /// Where the question was written.
    pub origin: Origin,
    /// Where the Prometheus is.
    pub address: Url,
    /// Go along; may be secret.
    pub headers: HeaderMap,
    /// PromQL.
    pub query: String,
    /// What is good.
    pub range: Range,
    /// What a value that is not good comes to.
    pub mode: SignalMode,
}

/// Where a question was written; Flagger has different words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the canary.
    Inline,
    /// In a `MetricTemplate`.
    Template,
}
