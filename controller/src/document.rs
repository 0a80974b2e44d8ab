//! Documents: what users write, with everything that is wrong told at once and by its place.
//!
//! ```text
//!  text ─► yaml::Node (with lines) ─► Decoder ─► Canary, Workload, Listener ─► set::Set ─► Setup
//! ```

mod canary;
mod clash;
mod decoder;
pub mod files;
mod hosts;
mod http;
mod identity;
mod judge;
mod listener;
mod metric;
mod operators;
mod outgoing;
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
pub use set::Set;
