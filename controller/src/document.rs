//! Documents: what users write, with everything that is wrong told at once and by its place.
//!
//! ```text
//!  text ─► yaml::Node (with lines) ─► Decoder ─► Canary, Workload, Listener ─► set::Set ─► Setup
//! ```

mod canary;
mod decoder;
mod hosts;
mod http;
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
pub mod yaml;

pub use canary::CanaryDocument;
pub use decoder::{Problem, Report};
pub use set::{Files, Set};
