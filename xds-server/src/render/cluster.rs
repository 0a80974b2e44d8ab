//! Clusters and their endpoints.

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Message;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Http2ProtocolOptions, SocketAddress, address,
    config_source::ConfigSourceSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use wingbeat_core::time::Span;

use crate::model::Cluster;
use crate::render::duration;
use crate::resource::any;

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const CONNECT_TIMEOUT: Span = Span::from_secs(1);

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
    let (kind, eds_cluster_config, load_assignment) = if by_address(cluster) {
        let eds = EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() };
        (DiscoveryType::Eds, Some(eds), None)
    } else {
        (DiscoveryType::StrictDns, None, Some(assignment(cluster)))
    };
    Message {
        name: cluster.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        eds_cluster_config,
        load_assignment,
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        typed_extension_protocol_options: if cluster.http2 { http2() } else { HashMap::new() },
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

fn http2() -> HashMap<String, envoy_types::pb::google::protobuf::Any> {
    let config = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(PROTOCOL_OPTIONS.to_owned(), any(&options))])
}
