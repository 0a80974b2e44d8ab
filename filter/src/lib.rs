//! The proxy-wasm filter: matches, counts, reports.
