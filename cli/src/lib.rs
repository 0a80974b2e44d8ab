//! The filter, as the `wingbeat` binary carries it.

/// The proxy-wasm module that goes into every Envoy: built from the crate `wingbeat-filter`.
pub const FILTER: &[u8] = include_bytes!(env!("WINGBEAT_FILTER_WASM"));
