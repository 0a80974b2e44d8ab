//! The filter, as an ECDS resource that carries its module.

use envoy_types::pb::envoy::config::core::v3::async_data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::data_source;
use envoy_types::pb::envoy::config::core::v3::{AsyncDataSource, DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3::plugin_config::Vm;
use envoy_types::pb::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig, VmConfig};
use envoy_types::pb::google::protobuf::StringValue;

use crate::model::FILTER;
use crate::resource::any;

/// The bootstrap's cluster that leads to us.
pub(crate) const CONTROL_CLUSTER: &str = "wingbeat";

/// Returns the filter. If it fails, requests pass without it; `vm_id` never changes, since Envoy leaks the VMs of
/// ids that are gone.
pub(super) fn filter(module: &[u8]) -> TypedExtensionConfig {
    let code =
        DataSource { specifier: Some(data_source::Specifier::InlineBytes(module.to_vec())), ..DataSource::default() };
    let vm = VmConfig {
        vm_id: FILTER.to_owned(),
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(AsyncDataSource { specifier: Some(Specifier::Local(code)) }),
        ..VmConfig::default()
    };
    let plugin = PluginConfig {
        name: FILTER.to_owned(),
        root_id: FILTER.to_owned(),
        vm: Some(Vm::VmConfig(vm)),
        configuration: Some(any(&StringValue { value: CONTROL_CLUSTER.to_owned() })),
        failure_policy: FailurePolicy::FailOpen.into(),
        ..PluginConfig::default()
    };
    TypedExtensionConfig { name: FILTER.to_owned(), typed_config: Some(any(&Wasm { config: Some(plugin) })) }
}
