//! Drives rollouts: takes reports and commands, keeps state, and says what is served.
//!
//! ```text
//!  reports, commands, setup ─► Engine (one thread, no clock of its own) ─► Model ─► xDS
//!                                 │ 1. store   2. publish   3. tell
//!                                 └► Board, events ─► HTTP, terminal
//! ```
//!
//! [`engine::Engine`] is synchronous and told the time: what it does can be replayed. [`runtime`] gives it a
//! thread, a clock and a mailbox.

pub mod clock;
pub mod document;
pub mod engine;
pub mod forecast;
pub mod handle;
pub mod http;
mod mailbox;
mod memory;
pub mod metrics;
pub mod number;
pub mod outbound;
mod proxies;
pub mod recorder;
pub mod runtime;
mod series;
pub mod setup;
pub mod store;
mod terms;
pub mod view;
