//! xDS for Envoy, and the intake of reports, on one port.
//!
//! ```text
//!  Model ──render──► ScopedSnapshots ──publish──► Publisher ──Snapshot of the node──► Session (one a stream, pure) ──► Envoy
//! ```
//!
//! [`model`] says what is to be served in words of routing, [`scope`] to whom, [`render`] puts it into Envoy's messages,
//! [`session`] decides what to send when and knows no network, [`server`] is the thin glue to gRPC.
//!
//! Without the feature `server` there is only what others decide by: the model, scopes, versions, and what happens to
//! clients. It needs no network, no runtime and no messages of Envoy.

#[cfg(feature = "server")]
pub mod bootstrap;
pub mod client_event;
pub mod kind;
pub mod lineage;
pub mod model;
#[cfg(feature = "server")]
pub mod publisher;
#[cfg(feature = "server")]
pub mod render;
pub mod report_refusal;
#[cfg(feature = "server")]
pub mod resource;
pub mod scope;
#[cfg(feature = "server")]
pub mod scoped_snapshots;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod snapshot;
pub mod version;
