//! xDS for Envoy, and the intake of reports, on one port.
//!
//! ```text
//!  Model ──render──► Views ──publish──► Store ──Snapshot of the node──► Session (one a stream, pure) ──► Envoy
//! ```
//!
//! [`model`] says what is to be served in words of routing, [`scope`] to whom, [`render`] puts it into Envoy's messages,
//! [`session`] decides what to send when and knows no network, [`server`] is the thin glue to gRPC.

pub mod bootstrap;
pub mod lineage;
pub mod model;
pub mod render;
pub mod resource;
pub mod scope;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod store;
pub mod views;
