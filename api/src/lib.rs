//! The API: what users write, and what it comes to. Everything that is wrong is told at once and by its place.
//!
//! ```text
//!  text ─► yaml::Node (with lines) ─► admit ─► Canary, Workload, Listener ─► set::Set ─► desired_state::DesiredState, Change
//!                                                 one text: Decoded           └ index::Index: what a change may concern
//! ```
//!
//! Nothing here has a clock, a network or a disk.

mod admit;
pub mod alert_provider;
mod canary;
mod conflict;
mod decoded;
mod decoder;
pub mod desired_state;
mod duration;
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
pub mod object;
mod operators;
mod outgoing;
mod part;
mod platform;
mod problem;
pub mod query;
mod refused_file;
mod report;
mod retries;
mod rules;
pub mod set;
pub mod shape;
mod template;
mod traffic;
mod workload;
pub mod yaml;

pub use canary::CanaryDocument;
pub use files::Files;
pub use identity::DocumentId;
pub use platform::{Api, Platform};
pub use problem::Problem;
pub use refused_file::RefusedFileView;
pub use report::Report;
pub use set::Set;
