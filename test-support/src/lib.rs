//! What tests share.
#![expect(clippy::expect_used, reason = "tests")]

pub mod corpus;
