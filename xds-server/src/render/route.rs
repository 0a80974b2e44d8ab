//! Route configurations: one per listener, a virtual host per canary.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Metadata, RuntimeFractionalPercent};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteMatch, VirtualHost as Message, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Any, Struct, UInt32Value, Value};
use prost::Message as _;
use prost::bytes::Bytes;
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_core::matching::assignment::{ARM_HEADER, BUCKET_HEADER};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;

use crate::model::http::TextMatch;
use crate::model::{FILTER, Retries, Split, VirtualHost};
use crate::render::duration::duration;
use crate::render::{cors, http};
use crate::resource::{Part, Resource, any};
use crate::version::Version;

/// First pause before a retry: Istio's.
const RETRY_PAUSE: Span = Span::from_millis(25);

/// So often another endpoint is drawn for a retry where those tried before come up again; then one of them is tried
/// again. Istio's.
const DRAWS: i64 = 5;

/// Envoy's condition under which it looks at the list of statuses.
const BY_STATUS: &str = "retriable-status-codes";

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
    // A host with and without the port is the same host.
    let frame = Encoded { name: listener.to_owned(), virtual_hosts: Vec::new(), ignore_port_in_host_matching: true };
    table(frame, parts)
}

/// Puts hosts into a route configuration that has none. Its version is made of all that is sent, of which the hosts,
/// most of it, have been hashed.
fn table(frame: Encoded, parts: Vec<Arc<Part>>) -> Resource {
    let versions: Vec<[u8; 8]> = parts.iter().map(|part| part.version.bytes()).collect();
    let frame_bytes = frame.encode_to_vec();
    let pieces = [frame_bytes.as_slice()].into_iter().chain(versions.iter().map(<[u8; 8]>::as_slice));
    let version = Version::of(pieces);
    let message = Encoded { virtual_hosts: parts.iter().map(|part| part.body.clone()).collect(), ..frame };
    Resource {
        version,
        body: Bytes::from(message.encode_to_vec()),
        name: message.name,
        refers_to: parts.iter().flat_map(|part| part.refers_to.iter().cloned()).collect(),
        parts,
    }
}

/// Returns a host as a part of route configurations.
pub(super) fn part(host: &VirtualHost) -> Part {
    let body = encode(host);
    Part {
        name: host.name.clone(),
        version: Version::of([body.as_slice()]),
        identity: Version::of(host.domains.iter().map(String::as_bytes)),
        body: Bytes::from(body),
        refers_to: host.split.clusters().into_iter().map(ToString::to_string).collect(),
    }
}

/// Returns a host with its routes, on the wire. Maps of messages have another order every time: each entry is written
/// alone, at the end, where it is merged with what was before.
fn encode(host: &VirtualHost) -> Vec<u8> {
    let mut message = virtual_host(host);
    let configs: BTreeMap<String, Any> = message.typed_per_filter_config.drain().collect();
    let mut bytes = message.encode_to_vec();
    for config in configs {
        let entry = Message { typed_per_filter_config: HashMap::from([config]), ..Message::default() };
        bytes.extend(entry.encode_to_vec());
    }
    bytes
}

/// Returns a host with its routes.
pub(super) fn virtual_host(host: &VirtualHost) -> Message {
    let mut routes = Vec::new();
    for (path, rewrite) in http::paths(&host.http) {
        let mut add = |leg: Leg, off: bool| {
            let action = RouteAction {
                cluster_specifier: Some(leg.to),
                // Zero switches Envoy's own limit of 15 s off.
                timeout: Some(duration(host.timeout.unwrap_or(Span::ZERO))),
                retry_policy: host.retries.as_ref().map(retry_policy),
                request_mirror_policies: leg.mirrors,
                ..RouteAction::default()
            };
            routes.push(Route {
                r#match: Some(RouteMatch { headers: leg.headers, ..path.clone() }),
                metadata: Some(metadata(host.rev)),
                action: Some(Action::Route(http::rewriting(action, &host.http, rewrite))),
                typed_per_filter_config: if off { filter_config(true) } else { HashMap::new() },
                ..Route::default()
            });
        };
        if host.filter {
            for test in http::health_checks(&host.http.health_checks) {
                add(Leg { headers: vec![test], ..unmarked(&host.split) }, true);
            }
        }
        for leg in legs(&host.split) {
            add(leg, false);
        }
    }
    let mut typed_per_filter_config = if host.filter { filter_config(false) } else { HashMap::new() };
    typed_per_filter_config.extend(host.http.cors.as_ref().map(|cors| (cors::NAME.to_owned(), cors::policy(cors))));
    Message {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes,
        request_headers_to_add: http::added(&host.http.request),
        request_headers_to_remove: host.http.request.remove.clone(),
        response_headers_to_add: http::added(&host.http.response),
        response_headers_to_remove: host.http.response.remove.clone(),
        typed_per_filter_config,
        ..Message::default()
    }
}

/// One way that requests may go.
struct Leg {
    headers: Vec<HeaderMatcher>,
    to: ClusterSpecifier,
    mirrors: Vec<RequestMirrorPolicy>,
}

fn legs(split: &Split) -> Vec<Leg> {
    let leg = |to: ClusterSpecifier| Leg { headers: Vec::new(), to, mirrors: Vec::new() };
    match split {
        Split::Single(cluster) => vec![leg(single(cluster))],
        Split::Weighted { primary, canary, weight, by_bucket } => {
            vec![leg(weighted(primary, canary, *weight, *by_bucket))]
        }
        Split::Header { primary, canary, value } => {
            vec![Leg { headers: vec![arm_header(value)], ..leg(single(canary)) }, leg(single(primary))]
        }
        Split::Mirror { primary, canary, share } => {
            vec![Leg { mirrors: vec![mirror(canary, *share)], ..leg(single(primary)) }]
        }
    }
}

/// Returns where requests go that the filter does not see: by the weights, or to the primary.
fn unmarked(split: &Split) -> Leg {
    let to = match split {
        Split::Single(cluster) => single(cluster),
        Split::Weighted { primary, canary, weight, by_bucket: _ } => weighted(primary, canary, *weight, false),
        Split::Header { primary, .. } | Split::Mirror { primary, .. } => single(primary),
    };
    Leg { headers: Vec::new(), to, mirrors: Vec::new() }
}

fn single(cluster: &ClusterName) -> ClusterSpecifier {
    ClusterSpecifier::Cluster(cluster.to_string())
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
    http::header_matcher(ARM_HEADER, &TextMatch::Exact(value.to_owned()))
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
        // A service that looks at the host would answer copies with 404.
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}

/// Envoy takes statuses apart from conditions, and passes over a number among these; Istio's lists have both in one.
fn retry_policy(retries: &Retries) -> RetryPolicy {
    let (mut conditions, mut statuses) = (Vec::new(), Vec::new());
    for asked in retries.retry_on.split(',').map(str::trim) {
        match asked.parse() {
            Ok(status) => statuses.push(status),
            Err(_) => conditions.push(asked),
        }
    }
    if !statuses.is_empty() && !conditions.contains(&BY_STATUS) {
        conditions.push(BY_STATUS);
    }
    RetryPolicy {
        retry_on: conditions.join(","),
        retriable_status_codes: statuses,
        num_retries: Some(UInt32Value { value: retries.attempts }),
        per_try_timeout: retries.per_try_timeout.map(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: DRAWS,
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

/// Switches the filter on, or off where its host has it on.
fn filter_config(disabled: bool) -> HashMap<String, Any> {
    let config = FilterConfig { config: (!disabled).then(Any::default), disabled, ..FilterConfig::default() };
    HashMap::from([(FILTER.to_owned(), any(&config))])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::http::{Cors, HealthChecks, HttpOptions};

    fn host(split: Split, filter: bool) -> VirtualHost {
        VirtualHost {
            name: "prod/backend".to_owned(),
            domains: vec!["backend.local".to_owned()],
            listeners: vec!["public".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions {
                health_checks: HealthChecks {
                    user_agents: vec!["probe/".to_owned()],
                    paths: vec!["/healthz".to_owned()],
                },
                ..HttpOptions::default()
            },
            split,
            rev: Rev::new(3),
            filter,
        }
    }

    fn header_split() -> Split {
        let (primary, canary) = (ClusterName::new("a/b/1"), ClusterName::new("a/b/2"));
        Split::Header { primary, canary, value: "token".to_owned() }
    }

    /// A client that has a table is not sent one of the same version, also by a server of another release.
    #[test]
    fn whatever_is_sent_changes_the_version() {
        let host = |name: &str, rev: u64| {
            let (name, rev) = (name.to_owned(), Rev::new(rev));
            Arc::new(part(&VirtualHost { name, rev, ..host(header_split(), true) }))
        };
        let frame = |name: &str, ports: bool| Encoded {
            name: name.to_owned(),
            virtual_hosts: Vec::new(),
            ignore_port_in_host_matching: ports,
        };
        let hosts = || vec![host("a", 1), host("b", 1)];
        let tables = [
            table(frame("public", true), hosts()),
            table(frame("public", false), hosts()),
            table(frame("private", true), hosts()),
            table(frame("public", true), vec![host("a", 2), host("b", 1)]),
            table(frame("public", true), vec![host("b", 1), host("a", 1)]),
            table(frame("public", true), vec![host("a", 1)]),
            table(frame("public", true), Vec::new()),
        ];
        let versions: BTreeSet<Version> = tables.iter().map(|table| table.version).collect();
        assert_eq!(versions.len(), tables.len());
        assert_eq!(routes("public", hosts()), tables[0]);
        // All that is sent is the frame and its hosts.
        let mut read = Encoded::decode(tables[0].body.clone()).unwrap();
        assert_eq!(
            std::mem::take(&mut read.virtual_hosts),
            hosts().iter().map(|part| part.body.clone()).collect::<Vec<_>>()
        );
        assert_eq!(read, frame("public", true));
    }

    #[test]
    fn statuses_among_the_conditions_of_a_retry_are_statuses() {
        let policy = |asked: &str| {
            let retries = Retries { attempts: 2, per_try_timeout: None, retry_on: asked.to_owned() };
            let policy = retry_policy(&retries);
            (policy.retry_on, policy.retriable_status_codes)
        };
        assert_eq!(policy("5xx, reset"), ("5xx,reset".to_owned(), vec![]));
        assert_eq!(policy("reset,503, 504"), ("reset,retriable-status-codes".to_owned(), vec![503, 504]));
        assert_eq!(policy("retriable-status-codes,429"), ("retriable-status-codes".to_owned(), vec![429]));
    }

    #[test]
    fn retries_go_to_another_endpoint() {
        let policy = retry_policy(&Retries { attempts: 2, per_try_timeout: None, retry_on: "5xx".to_owned() });
        let names: Vec<_> = policy.retry_host_predicate.iter().map(|predicate| predicate.name.as_str()).collect();
        assert_eq!(names, ["envoy.retry_host_predicates.previous_hosts"]);
        assert_eq!(policy.host_selection_retry_max_attempts, 5);
    }

    #[test]
    fn copies_are_sent_to_the_host_that_was_asked_for() {
        assert!(mirror(&ClusterName::new("a/b/2"), BasisPoints::FULL).disable_shadow_host_suffix_append);
    }

    #[test]
    fn copies_are_sent_of_as_many_requests_as_the_share_says() {
        let policy = mirror(&ClusterName::new("a/b/2"), BasisPoints::from_percent(30));
        let share = FractionalPercent { numerator: 3_000, denominator: DenominatorType::TenThousand.into() };
        assert_eq!(policy.runtime_fraction.and_then(|it| it.default_value), Some(share));
        assert_eq!(policy.cluster, "a/b/2");
    }

    /// Returns for each route which header it asks for, whether the filter is off, and its cluster.
    fn shape(host: &VirtualHost) -> Vec<(String, bool, String)> {
        let routes = virtual_host(host).routes.into_iter().map(|route| {
            let asked = route.r#match.and_then(|it| it.headers.into_iter().next()).map(|header| header.name);
            let off = route
                .typed_per_filter_config
                .get(FILTER)
                .map(|config| FilterConfig::decode(config.value.as_slice()).unwrap().disabled);
            let Some(Action::Route(RouteAction { cluster_specifier: Some(to), .. })) = route.action else { panic!() };
            let cluster = if let ClusterSpecifier::Cluster(name) = to { name } else { format!("{to:?}") };
            (asked.unwrap_or_default(), off == Some(true), cluster)
        });
        routes.collect()
    }

    /// Who refuses the filter has another one in its place, which must not take this for a word of its own.
    #[test]
    fn what_switches_the_filter_on_says_nothing_to_it() {
        let on = virtual_host(&host(header_split(), true)).typed_per_filter_config.remove(FILTER).unwrap();
        let on = FilterConfig::decode(on.value.as_slice()).unwrap();
        // Envoy takes an empty one for a switch and nothing else, whatever filter it is of; none at all it refuses.
        assert_eq!((on.config, on.disabled), (Some(Any::default()), false));
    }

    #[test]
    fn health_checks_go_to_the_primary_where_the_filter_would_decide_and_are_not_seen_by_it() {
        let route = |asked: &str, off: bool, cluster: &str| (asked.to_owned(), off, cluster.to_owned());
        assert_eq!(
            shape(&host(header_split(), true)),
            [
                route("user-agent", true, "a/b/1"),
                route(":path", true, "a/b/1"),
                route(ARM_HEADER, false, "a/b/2"),
                route("", false, "a/b/1"),
            ]
        );
        let single = Split::Single(ClusterName::new("a/b/1"));
        assert_eq!(shape(&host(single.clone(), false)), [route("", false, "a/b/1")], "the filter is off for all");
        let mut counting = host(single, true);
        counting.http.health_checks = HealthChecks { user_agents: Vec::new(), paths: Vec::new() };
        assert_eq!(shape(&counting), [route("", false, "a/b/1")]);
    }

    #[test]
    fn health_checks_are_divided_by_chance_and_not_mirrored() {
        let (primary, canary) = (ClusterName::new("a/b/1"), ClusterName::new("a/b/2"));
        let weight = BasisPoints::from_percent(5);
        let by_bucket = Split::Weighted { primary: primary.clone(), canary: canary.clone(), weight, by_bucket: true };
        let routes = virtual_host(&host(by_bucket, true)).routes;
        let chosen = |route: &Route| match &route.action {
            Some(Action::Route(action)) => match &action.cluster_specifier {
                Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted.random_value_specifier.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(routes.iter().map(|route| chosen(route).is_some()).collect::<Vec<_>>(), [false, false, true]);
        let mirrored = Split::Mirror { primary, canary, share: weight };
        let copies = virtual_host(&host(mirrored, true)).routes.into_iter().map(|route| match route.action {
            Some(Action::Route(action)) => action.request_mirror_policies.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(copies.collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn the_same_host_is_the_same_bytes() {
        let mut both = host(header_split(), true);
        both.http.cors = Some(Cors::default());
        let bytes = encode(&both);
        assert_eq!(Message::decode(bytes.as_slice()).unwrap(), virtual_host(&both));
        assert!((0..32).all(|_| encode(&both) == bytes));
    }
}
