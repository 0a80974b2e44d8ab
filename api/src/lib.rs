//! The API: what users write, and what it comes to. Everything that is wrong is told at once and by its place.
//!
//! ```text
//!  text ─► yaml::Node (with lines) ─► Decoder ─► Canary, Workload, Listener ─► set::Set ─► setup::DesiredState, Change
//!                                                 one text: Decoded           └ index::Index: what a change may concern
//! ```
//!
//! Nothing here has a clock, a network or a disk.

pub mod alert_provider;
mod canary;
mod conflict;
mod decoded;
mod decoder;
pub mod desired_state;
pub mod files;
pub mod hook;
mod hosts;
mod http;
mod identity;
mod index;
mod judge;
mod listener;
mod metric;
pub mod number;
mod operators;
mod outgoing;
mod part;
pub mod query;
mod refused_file;
mod retries;
mod rules;
pub mod set;
mod template;
mod traffic;
mod workload;
pub mod yaml;

pub use canary::CanaryDocument;
pub use decoder::{Problem, Report};
pub use files::Files;
pub use identity::DocumentId;
pub use refused_file::RefusedFileView;
pub use set::Set;
