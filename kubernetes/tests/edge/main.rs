//! The edge against a real API server: what it reads, writes and stores, and what it does while that is away.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod act;
mod crds;
mod lease;
mod state;
mod support;
mod watch;
