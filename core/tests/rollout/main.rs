//! The rollout machine against Flagger's wording and order, and against random events.
#![expect(clippy::expect_used, reason = "tests")]

mod asking;
mod copies;
mod random;
mod steps;
mod turns;
mod ways;
mod world;
