//! The shapes of documents: every field with its type, range, default and meaning.
//!
//! One table per mapping. The decoder looks up in it which fields have no effect on plain Envoy, and why; the JSON schema
//! for editors and the field reference are rendered from it. What the decoder reads and what is written here are held
//! together by `tests/agreement`, path by path.

mod alert_provider;
mod analysis;
mod canary;
mod cluster;
mod document;
mod field;
mod judge;
mod listener;
mod metric_template;
mod reference;
mod schema;
mod service;
mod traffic;
mod workload;

pub use document::Document;
pub use field::{Bounds, ClusterUse, Field, Kind, Object, Presence, Support, Text};
pub use reference::{fields_below, flagger_page, reference, support};
pub use schema::{DURATION, PERCENT, PERCENT_BELOW_ALL, bundle, schema};

pub(crate) use alert_provider::ALERT_PROVIDER;
pub(crate) use analysis::{
    ALERT, ANALYSIS, IDENTITY, MAX_HOOK_RETRIES, METRIC, PROVIDER_REFERENCE, RANGE, TEMPLATE_REFERENCE, WEBHOOK,
};
pub(crate) use canary::{CANARY, MAX_SECONDS, OBJECT_REFERENCE, PROVIDERS_OF_FLAGGER, TARGET_REFERENCE};
pub(crate) use document::{DOCUMENT, METADATA};
pub(crate) use field::MAX_DURATION;
pub(crate) use judge::{HEALTH_CHECKS, JUDGE, LATENCY, MAX_REQUESTS, MUST_DETECT};
pub(crate) use listener::{ACCESS_LOG, LISTENER, MAX_HOPS};
pub(crate) use metric_template::{METRIC_TEMPLATE, PROVIDER, PROVIDERS};
pub(crate) use service::{
    CORS_POLICY, HEADER_CHANGES, HEADERS, HTTP_MATCH, ORIGIN, RETRIES, REWRITE, SERVICE, STRING_MATCH, SUBSTITUTION,
};
pub(crate) use traffic::{CONNECTION_POOL, HTTP_POOL, OUTLIER_DETECTION, TCP_POOL, TRAFFIC_POLICY};
pub(crate) use workload::{REVISION, WORKLOAD};
