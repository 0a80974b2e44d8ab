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
use wingbeat_core::matching::assignment::{ARM_HEADER, BUCKET_HEADER};
use wingbeat_core::time::Span;

use crate::model::traffic::{ClientAddress, Http10, TrailingDot};
use crate::model::{FILTER, Listener};
use crate::render::access_log::access_log;
use crate::render::cluster::{ads, socket};
use crate::render::cors;
use crate::render::duration::duration;
use crate::resource::any;

/// Type URL of the filter.
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
        let without = cors::config();
        http_filters.push(HttpFilter {
            name: FILTER.to_owned(),
            disabled: true,
            config_type: Some(http_filter::ConfigType::ConfigDiscovery(ExtensionConfigSource {
                config_source: Some(ads()),
                type_urls: vec![WASM.to_owned(), without.type_url.clone()],
                // Where there is neither this nor the module, Envoy answers 500 to every request for which the filter is
                // on; an Envoy without V8 refuses the module.
                default_config: Some(without),
                // The listener waits for the module, or for its refusal: else the first requests would not be counted.
                apply_default_config_without_warming: false,
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
        rendered(front, false)
    }

    fn rendered(front: Front, filter: bool) -> HttpConnectionManager {
        let message = listener(
            &Listener {
                name: "l".to_owned(),
                address: "127.0.0.1".to_owned(),
                port: 80,
                node_clusters: Vec::new(),
                access_log: None,
                front,
            },
            filter,
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

    /// An Envoy without V8 refuses the module, and would answer 500 to all users of a host whose rollout begins.
    #[test]
    fn who_refuses_the_filter_goes_on_without_it() {
        let filters = rendered(Front::default(), true).http_filters;
        let ours = filters.into_iter().find(|filter| filter.name == FILTER).unwrap();
        assert!(ours.disabled, "it costs nothing where no rollout runs");
        let Some(http_filter::ConfigType::ConfigDiscovery(source)) = ours.config_type else {
            panic!("it does not come by ECDS")
        };
        let without = source.default_config.unwrap();
        let cors = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
        assert_eq!((without.type_url.as_str(), without.value.len()), (cors, 0), "a filter that does nothing");
        assert_eq!(source.type_urls, [WASM, cors], "Envoy takes no other types, by default neither");
        assert!(!source.apply_default_config_without_warming, "no request comes before the filter");
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
