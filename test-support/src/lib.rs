//! What tests share.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

pub mod corpus;
pub mod reasons;
pub mod server;
pub mod simulation;
