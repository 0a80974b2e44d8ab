//! Gives the engine a thread, a clock and a mailbox, a disk to keep its state on, and ways to the outside: HTTP, metrics,
//! hooks, alerts and recordings.

mod allocator;
pub mod clock;
mod committer;
pub mod disk;
pub mod handle;
pub mod http;
mod mailbox;
pub mod metrics;
pub mod outbound;
mod proxies;
pub mod recorder;
pub mod refused_peers;
pub mod runtime;
pub mod standings;
pub mod verb;
