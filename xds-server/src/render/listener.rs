//! Listeners: one HTTP connection manager each, its routes and its filter by ADS.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation::Action};
use envoy_types::pb::envoy::config::core::v3::{ExtensionConfigSource, Http1ProtocolOptions, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener as Message};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
    http_connection_manager::UpgradeConfig, http_filter,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as Early;

use envoy_types::pb::google::protobuf::BoolValue;

use crate::model::traffic::{ClientAddress, Http10, TrailingDot};
use crate::model::{FILTER, Listener};
use crate::render::access_log::access_log;
use crate::render::cluster::{ads, socket};
use crate::render::{cors, duration};
use crate::resource::any;
use wingbeat_core::matching::division::{ARM_HEADER, BUCKET_HEADER};
use wingbeat_core::time::Span;

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Headers by which a client would tell Envoy how to treat its request: to retry it, or how long to wait for it. What it
/// asks for would not be counted, nor what the service says hold; and anybody could ask for 100 retries.
const OF_ENVOY: [&str; 10] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
];

/// Returns the listener. The filter is installed but off: virtual hosts switch it on while a rollout runs.
pub(super) fn listener(listener: &Listener, filter: bool) -> Message {
    // Before ours: what a browser asks beforehand never reaches an upstream, and is not counted.
    let mut http_filters = vec![cors::filter()];
    if filter {
        http_filters.push(HttpFilter {
            name: FILTER.to_owned(),
            disabled: true,
            config_type: Some(http_filter::ConfigType::ConfigDiscovery(ExtensionConfigSource {
                config_source: Some(ads()),
                type_urls: vec![WASM.to_owned()],
                ..ExtensionConfigSource::default()
            })),
            ..HttpFilter::default()
        });
    }
    http_filters.push(HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    });
    let (is_client, trusted_hops) = match listener.front.address {
        ClientAddress::Connection { trusted_hops } => (true, trusted_hops),
        ClientAddress::Header { trusted_hops } => (false, trusted_hops),
    };
    let manager = HttpConnectionManager {
        stat_prefix: listener.name.clone(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: listener.name.clone(),
        })),
        http_filters,
        access_log: listener.access_log.iter().map(access_log).collect(),
        early_header_mutation_extensions: vec![without_our_headers()],
        // Without it, Envoy cuts streams that are silent for five minutes.
        stream_idle_timeout: Some(duration(listener.front.stream_idle_timeout.unwrap_or(Span::ZERO))),
        use_remote_address: Some(BoolValue { value: is_client }),
        xff_num_trusted_hops: trusted_hops,
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: listener.front.http_10 == Http10::Served,
            ..Http1ProtocolOptions::default()
        }),
        strip_trailing_host_dot: listener.front.trailing_dot == TrailingDot::Stripped,
        // Without it Envoy refuses WebSockets with 403.
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        ..HttpConnectionManager::default()
    };
    Message {
        name: listener.name.clone(),
        address: Some(socket(&listener.address, listener.port)),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(ConfigType::TypedConfig(any(&manager))),
            }],
            ..FilterChain::default()
        }],
        ..Message::default()
    }
}

/// Removes the headers that steer requests, and retries, from what clients send, before anything reads them: where the filter
/// is off, nobody else would.
fn without_our_headers() -> TypedExtensionConfig {
    let remove = |name: &str| HeaderMutation { action: Some(Action::Remove(name.to_owned())) };
    let early = Early { mutations: [ARM_HEADER, BUCKET_HEADER].into_iter().chain(OF_ENVOY).map(remove).collect() };
    TypedExtensionConfig {
        name: "envoy.http.early_header_mutation.header_mutation".to_owned(),
        typed_config: Some(any(&early)),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::model::traffic::Front;

    fn manager(front: Front) -> HttpConnectionManager {
        let message = listener(
            &Listener {
                name: "l".to_owned(),
                address: "127.0.0.1".to_owned(),
                port: 80,
                node_clusters: Vec::new(),
                access_log: None,
                front,
            },
            false,
        );
        match message.filter_chains[0].filters[0].config_type.clone() {
            Some(ConfigType::TypedConfig(config)) => HttpConnectionManager::decode(config.value.as_slice()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_listener_is_a_front_proxy_unless_said_otherwise() {
        let manager_of = |front| {
            let it = manager(front);
            let http_10 = it.http_protocol_options.unwrap().accept_http_10;
            let idle = it.stream_idle_timeout.unwrap().seconds;
            (it.use_remote_address.unwrap().value, it.xff_num_trusted_hops, http_10, it.strip_trailing_host_dot, idle)
        };
        assert_eq!(manager_of(Front::default()), (true, 0, true, true, 0));
        let other = Front {
            address: ClientAddress::Header { trusted_hops: 2 },
            http_10: Http10::Refused,
            trailing_dot: TrailingDot::Kept,
            stream_idle_timeout: Some(Span::from_secs(60)),
        };
        assert_eq!(manager_of(other), (false, 2, false, false, 60));
    }

    #[test]
    fn clients_cannot_ask_envoy_for_retries() {
        let early = manager(Front::default()).early_header_mutation_extensions.remove(0).typed_config.unwrap();
        let mutations = Early::decode(early.value.as_slice()).unwrap().mutations;
        let removed: Vec<String> = mutations
            .into_iter()
            .filter_map(|mutation| match mutation.action {
                Some(Action::Remove(name)) => Some(name),
                _ => None,
            })
            .collect();
        for name in ["x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", ARM_HEADER, BUCKET_HEADER] {
            assert!(removed.iter().any(|removed| removed == name), "{name}");
        }
    }
}
