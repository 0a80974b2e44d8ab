//! Requests from pages of other origins.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::{Cors as Filter, CorsPolicy};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use crate::model::http::Cors;
use crate::render::http::string_matcher;
use crate::resource::any;

/// The name under which virtual hosts configure the filter.
pub(super) const NAME: &str = "envoy.filters.http.cors";

/// Returns Envoy's filter. It is off but where a virtual host has a policy, and costs nothing there.
pub(super) fn filter() -> HttpFilter {
    HttpFilter {
        name: NAME.to_owned(),
        disabled: true,
        config_type: Some(http_filter::ConfigType::TypedConfig(config())),
        ..HttpFilter::default()
    }
}

/// Returns the configuration of the filter, which says nothing: policies do. Under a name for which there are none, it
/// lets every request pass as it is.
pub(super) fn config() -> Any {
    any(&Filter::default())
}

/// Returns the policy of a virtual host.
pub(super) fn policy(cors: &Cors) -> Any {
    any(&CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(|origin| string_matcher(origin, false)).collect(),
        allow_methods: cors.methods.join(","),
        allow_headers: cors.headers.join(","),
        expose_headers: cors.exposed.join(","),
        max_age: cors.max_age.map_or_else(String::new, |age| (age.as_millis() / 1_000).to_string()),
        allow_credentials: cors.credentials.map(|value| BoolValue { value }),
        ..CorsPolicy::default()
    })
}
