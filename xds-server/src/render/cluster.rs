//! Clusters and their endpoints.

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster as Message, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions,
    HttpProtocolOptions as CommonOptions, SocketAddress, address, config_source::ConfigSourceSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};

use crate::model::Cluster;
use crate::model::traffic::{self, CONNECT_TIMEOUT, LocalFailures, TrafficPolicy};
use crate::render::duration::duration;
use crate::resource::any;

/// The extension that says which protocol a cluster speaks.
const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Returns the configuration source "the stream that this came by".
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}

/// Returns an address to bind or to connect to.
pub(super) fn socket(host: &str, port: u16) -> Address {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// Returns the cluster. Names are resolved by Envoy itself; IP addresses come by EDS, so that they can change
/// without warming the cluster anew.
pub(super) fn cluster(cluster: &Cluster) -> Message {
    let (kind, family, eds_cluster_config, load_assignment) = if by_address(cluster) {
        let eds = EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() };
        (DiscoveryType::Eds, DnsLookupFamily::Auto, Some(eds), None)
    } else {
        // By default IPv6 addresses are all that is taken of a name that has any: localhost is ::1 too, where a service
        // on 127.0.0.1 does not listen. Those of both families would be endpoints side by side, some of them dead.
        (DiscoveryType::StrictDns, DnsLookupFamily::V4Preferred, None, Some(assignment(cluster)))
    };
    Message {
        name: cluster.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        dns_lookup_family: family.into(),
        eds_cluster_config,
        load_assignment,
        connect_timeout: Some(duration(cluster.traffic.connect_timeout.unwrap_or(CONNECT_TIMEOUT))),
        typed_extension_protocol_options: protocol_options(cluster),
        circuit_breakers: Some(circuit_breakers(&cluster.traffic)),
        outlier_detection: Some(outlier_detection(&cluster.traffic.outliers)),
        common_lb_config: cluster.traffic.outliers.min_health_percent.map(|percent| CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: percent.into() }),
            ..CommonLbConfig::default()
        }),
        ..Message::default()
    }
}

/// Returns the endpoints of a cluster that has them by EDS.
pub(super) fn endpoints(cluster: &Cluster) -> Option<ClusterLoadAssignment> {
    by_address(cluster).then(|| assignment(cluster))
}

fn by_address(cluster: &Cluster) -> bool {
    cluster.endpoints.iter().all(|(host, _)| host.parse::<IpAddr>().is_ok())
}

fn assignment(cluster: &Cluster) -> ClusterLoadAssignment {
    let endpoint = |(host, port): &(String, u16)| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(socket(host, *port)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.name.to_string(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: cluster.endpoints.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// Envoy's limits hold unless others are set: the highest number is none.
fn circuit_breakers(traffic: &TrafficPolicy) -> CircuitBreakers {
    let at_most = |limit: Option<u32>| number(limit.unwrap_or(u32::MAX));
    let thresholds = Thresholds {
        max_connections: at_most(traffic.max_connections),
        max_pending_requests: at_most(traffic.max_pending_requests),
        max_requests: at_most(traffic.max_requests),
        max_retries: at_most(traffic.max_retries),
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() }
}

/// Tests that compare endpoints with each other are off: which of two revisions is worse, others decide.
fn outlier_detection(outliers: &traffic::OutlierDetection) -> OutlierDetection {
    let (five, gateway, local) = (outliers.consecutive_5xx, outliers.consecutive_gateway, outliers.consecutive_local);
    // Envoy refuses zero failures; what is off has a share of zero instead.
    let enforced = |failures: u32| number(if failures == 0 { 0 } else { 100 });
    OutlierDetection {
        consecutive_5xx: number(five.max(1)),
        enforcing_consecutive_5xx: enforced(five),
        consecutive_gateway_failure: number(gateway.max(1)),
        enforcing_consecutive_gateway_failure: enforced(gateway),
        split_external_local_origin_errors: outliers.local == LocalFailures::Apart,
        consecutive_local_origin_failure: number(local.max(1)),
        enforcing_consecutive_local_origin_failure: enforced(local),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        enforcing_failure_percentage: number(0),
        enforcing_failure_percentage_local_origin: number(0),
        interval: Some(duration(outliers.interval)),
        base_ejection_time: Some(duration(outliers.base_ejection_time)),
        max_ejection_percent: number(outliers.max_ejection_percent),
        ..OutlierDetection::default()
    }
}

fn protocol_options(cluster: &Cluster) -> HashMap<String, Any> {
    let traffic = &cluster.traffic;
    let common = CommonOptions {
        idle_timeout: traffic.idle_timeout.map(duration),
        max_requests_per_connection: traffic.max_requests_per_connection.and_then(number),
        ..CommonOptions::default()
    };
    if !cluster.http2 && common == CommonOptions::default() {
        return HashMap::new();
    }
    let protocol_config = if cluster.http2 {
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    let config = ExplicitHttpConfig { protocol_config: Some(protocol_config) };
    let options = HttpProtocolOptions {
        common_http_protocol_options: (common != CommonOptions::default()).then_some(common),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(PROTOCOL_OPTIONS.to_owned(), any(&options))])
}

#[expect(clippy::unnecessary_wraps, reason = "that is what fields of messages are")]
const fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use wingbeat_core::id::ClusterName;

    use wingbeat_core::time::Span;

    use super::*;

    fn rendered(traffic: TrafficPolicy, http2: bool) -> Message {
        let endpoints = vec![("127.0.0.1".to_owned(), 1)];
        cluster(&Cluster { name: ClusterName::new("a/b/1"), listeners: Vec::new(), endpoints, http2, traffic })
    }

    /// localhost is ::1 too, where a service on 127.0.0.1 does not listen.
    #[test]
    fn of_a_name_the_addresses_of_ipv4_are_taken_if_there_are_any() {
        let found = |host: &str| {
            let message = cluster(&Cluster {
                name: ClusterName::new("a/b/1"),
                listeners: Vec::new(),
                endpoints: vec![(host.to_owned(), 9_001)],
                http2: false,
                traffic: TrafficPolicy::default(),
            });
            (message.dns_lookup_family(), message.cluster_discovery_type)
        };
        let by = |kind: DiscoveryType| Some(ClusterDiscoveryType::Type(kind.into()));
        assert_eq!(found("localhost"), (DnsLookupFamily::V4Preferred, by(DiscoveryType::StrictDns)));
        for address in ["127.0.0.1", "::1"] {
            assert_eq!(found(address), (DnsLookupFamily::Auto, by(DiscoveryType::Eds)), "nothing is resolved");
        }
    }

    #[test]
    fn without_a_policy_nothing_is_limited_and_what_cannot_be_connected_to_is_ejected() {
        let message = rendered(TrafficPolicy::default(), false);
        let limits = message.circuit_breakers.unwrap().thresholds;
        let none = number(u32::MAX);
        let [limits] = limits.as_slice() else { panic!("{limits:?}") };
        let all = [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries];
        assert_eq!(all, [none; 4]);
        let outliers = message.outlier_detection.unwrap();
        assert_eq!((outliers.enforcing_consecutive_5xx, outliers.enforcing_success_rate), (number(0), number(0)));
        assert!(outliers.split_external_local_origin_errors);
        assert_eq!(outliers.consecutive_local_origin_failure, number(5));
        assert_eq!(outliers.enforcing_consecutive_local_origin_failure, number(100));
        assert_eq!((message.common_lb_config, message.typed_extension_protocol_options.len()), (None, 0));
    }

    #[test]
    fn a_policy_sets_limits() {
        let traffic = TrafficPolicy {
            max_connections: Some(1),
            max_pending_requests: Some(2),
            max_requests: Some(3),
            max_retries: Some(4),
            max_requests_per_connection: Some(5),
            connect_timeout: Some(Span::from_secs(6)),
            idle_timeout: Some(Span::from_secs(7)),
            outliers: traffic::OutlierDetection {
                consecutive_5xx: 8,
                min_health_percent: Some(9),
                ..traffic::OutlierDetection::default()
            },
        };
        for http2 in [false, true] {
            let message = rendered(traffic.clone(), http2);
            let limits = message.circuit_breakers.unwrap().thresholds.remove(0);
            let all = [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries];
            assert_eq!(all, [1, 2, 3, 4].map(number));
            assert_eq!(message.connect_timeout, Some(duration(Span::from_secs(6))));
            let options = &message.typed_extension_protocol_options[PROTOCOL_OPTIONS];
            let options = HttpProtocolOptions::decode(options.value.as_slice()).unwrap();
            let common = options.common_http_protocol_options.unwrap();
            assert_eq!((common.max_requests_per_connection, common.idle_timeout.unwrap().seconds), (number(5), 7));
            let Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) = options.upstream_protocol_options else {
                panic!("{options:?}")
            };
            assert_eq!(matches!(config.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_))), http2);
            let outliers = message.outlier_detection.unwrap();
            assert_eq!((outliers.consecutive_5xx, outliers.enforcing_consecutive_5xx), (number(8), number(100)));
            let panic = Some(Percent { value: 9.0 });
            assert_eq!(message.common_lb_config.unwrap().healthy_panic_threshold, panic);
        }
    }
}
