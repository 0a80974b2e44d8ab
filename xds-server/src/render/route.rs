//! Route configurations: one per listener, a virtual host per canary.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Metadata, RuntimeFractionalPercent};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::RetryBackOff;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteMatch, VirtualHost as Message, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Any, Struct, UInt32Value, Value};
use prost::Message as _;
use prost::bytes::Bytes;
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_core::matching::division::{ARM_HEADER, BUCKET_HEADER};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;

use crate::model::{FILTER, Retries, Split, VirtualHost};
use crate::render::duration;
use crate::resource::{Kind, Part, Resource, Version, any};

/// First pause before a retry: Istio's.
const RETRY_PAUSE: Span = Span::from_millis(25);

/// A route configuration whose hosts are encoded already: on the wire, a message within another one is a run of bytes
/// like any other. The tags are those of Envoy's message.
#[derive(Clone, PartialEq, ::prost::Message)]
struct Encoded {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    virtual_hosts: Vec<Bytes>,
    #[prost(bool, tag = "14")]
    ignore_port_in_host_matching: bool,
}

/// Returns the route configuration of a listener, made of its hosts.
pub(crate) fn routes(listener: &str, parts: Vec<Arc<Part>>) -> Resource {
    let virtual_hosts = parts.iter().map(|part| part.body.clone()).collect();
    // A host with and without the port is the same host.
    let message = Encoded { name: listener.to_owned(), virtual_hosts, ignore_port_in_host_matching: true };
    let versions: Vec<[u8; 8]> = parts.iter().map(|part| part.version.bytes()).collect();
    let pieces = [listener.as_bytes()].into_iter().chain(versions.iter().map(<[u8; 8]>::as_slice));
    Resource {
        name: listener.to_owned(),
        version: Version::of(pieces),
        body: Any { type_url: Kind::Routes.type_url().to_owned(), value: message.encode_to_vec() },
        refers_to: parts.iter().flat_map(|part| part.refers_to.iter().cloned()).collect(),
        node_clusters: Vec::new(),
        parts,
    }
}

/// Returns a host as a part of route configurations.
pub(super) fn part(host: &VirtualHost) -> Part {
    let body = virtual_host(host).encode_to_vec();
    Part {
        name: host.name.clone(),
        version: Version::of([body.as_slice()]),
        identity: Version::of(host.domains.iter().map(String::as_bytes)),
        body: Bytes::from(body),
        refers_to: host.split.clusters().into_iter().map(ToString::to_string).collect(),
    }
}

/// Returns a host with its routes.
pub(super) fn virtual_host(host: &VirtualHost) -> Message {
    let route = |headers: Vec<HeaderMatcher>, specifier: ClusterSpecifier, mirrors: Vec<RequestMirrorPolicy>| Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            headers,
            ..RouteMatch::default()
        }),
        metadata: Some(metadata(host.rev)),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(specifier),
            // Zero switches Envoy's own limit of 15 s off.
            timeout: Some(duration(host.timeout.unwrap_or(Span::ZERO))),
            retry_policy: host.retries.as_ref().map(retry_policy),
            request_mirror_policies: mirrors,
            ..RouteAction::default()
        })),
        ..Route::default()
    };
    let to = |cluster: &ClusterName| ClusterSpecifier::Cluster(cluster.to_string());
    let routes = match &host.split {
        Split::Single(cluster) => vec![route(Vec::new(), to(cluster), Vec::new())],
        Split::Weighted { primary, canary, weight, by_bucket } => {
            vec![route(Vec::new(), weighted(primary, canary, *weight, *by_bucket), Vec::new())]
        }
        Split::Header { primary, canary, value } => {
            vec![route(vec![arm_header(value)], to(canary), Vec::new()), route(Vec::new(), to(primary), Vec::new())]
        }
        Split::Mirror { primary, canary, share } => {
            vec![route(Vec::new(), to(primary), vec![mirror(canary, *share)])]
        }
    };
    Message {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes,
        typed_per_filter_config: if host.filter { filter_on() } else { HashMap::new() },
        ..Message::default()
    }
}

/// Both clusters, in the order primary, canary: a bucket's number counts from the first on, so that the canary
/// has the highest ones.
fn weighted(primary: &ClusterName, canary: &ClusterName, weight: BasisPoints, by_bucket: bool) -> ClusterSpecifier {
    let share = |cluster: &ClusterName, weight: BasisPoints| ClusterWeight {
        name: cluster.to_string(),
        weight: Some(UInt32Value { value: weight.get().into() }),
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: vec![share(primary, weight.complement()), share(canary, weight)],
        random_value_specifier: by_bucket.then(|| RandomValueSpecifier::HeaderName(BUCKET_HEADER.to_owned())),
        ..WeightedCluster::default()
    })
}

fn arm_header(value: &str) -> HeaderMatcher {
    let exact =
        StringMatcher { match_pattern: Some(MatchPattern::Exact(value.to_owned())), ..StringMatcher::default() };
    HeaderMatcher {
        name: ARM_HEADER.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
        ..HeaderMatcher::default()
    }
}

fn mirror(canary: &ClusterName, share: BasisPoints) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: canary.to_string(),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: share.get().into(),
                denominator: DenominatorType::TenThousand.into(),
            }),
            runtime_key: String::new(),
        }),
        ..RequestMirrorPolicy::default()
    }
}

fn retry_policy(retries: &Retries) -> RetryPolicy {
    RetryPolicy {
        retry_on: retries.retry_on.clone(),
        num_retries: Some(UInt32Value { value: retries.attempts }),
        per_try_timeout: retries.per_try_timeout.map(duration),
        retry_back_off: Some(RetryBackOff { base_interval: Some(duration(RETRY_PAUSE)), max_interval: None }),
        ..RetryPolicy::default()
    }
}

/// The rev, as text: the filter reads it from the route of a request.
fn metadata(rev: Rev) -> Metadata {
    let value = Value { kind: Some(ValueKind::StringValue(rev.to_string())) };
    let fields = Struct { fields: HashMap::from([("rev".to_owned(), value)]) };
    Metadata { filter_metadata: HashMap::from([(FILTER.to_owned(), fields)]), ..Metadata::default() }
}

fn filter_on() -> HashMap<String, Any> {
    let on = FilterConfig { config: Some(Any::default()), ..FilterConfig::default() };
    HashMap::from([(FILTER.to_owned(), any(&on))])
}
