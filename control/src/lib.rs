//! Drives rollouts: takes reports, commands and desired state, keeps its own, and says what is served.
//!
//! ```text
//!  reports, commands, setup ─► Engine ─► Model ─► xDS
//!                                │ 1. store   2. publish   3. tell
//!                                └► ServerStatus, events ─► HTTP, terminal
//! ```
//!
//! [`engine::Engine`] has no clock, no thread and no network: each call takes what happened and the time, and what it does
//! can be replayed. Whoever drives it acts on what it says.

pub mod call;
pub mod engine;
pub mod forecast;
pub mod immediate;
pub mod recording;
pub mod rollout_end;
pub mod series;
pub mod store;
pub mod targets;
mod terms;
pub mod view;
