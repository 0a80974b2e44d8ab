//! Listeners: one HTTP connection manager each, its routes and its filter by ADS.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation::Action};
use envoy_types::pb::envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener as Message};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
    http_connection_manager::UpgradeConfig, http_filter,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as Early;

use crate::model::{FILTER, Listener};
use crate::render::access_log::access_log;
use crate::render::cluster::{ads, socket};
use crate::render::cors;
use crate::resource::any;
use wingbeat_core::matching::division::{ARM_HEADER, BUCKET_HEADER};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

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
    let manager = HttpConnectionManager {
        stat_prefix: listener.name.clone(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: listener.name.clone(),
        })),
        http_filters,
        access_log: listener.access_log.iter().map(access_log).collect(),
        early_header_mutation_extensions: vec![without_our_headers()],
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

/// Removes the headers that steer requests from what clients send, before anything reads them: where the filter
/// is off, nobody else would.
fn without_our_headers() -> TypedExtensionConfig {
    let remove = |name: &str| HeaderMutation { action: Some(Action::Remove(name.to_owned())) };
    let early = Early { mutations: vec![remove(ARM_HEADER), remove(BUCKET_HEADER)] };
    TypedExtensionConfig {
        name: "envoy.http.early_header_mutation.header_mutation".to_owned(),
        typed_config: Some(any(&early)),
    }
}
