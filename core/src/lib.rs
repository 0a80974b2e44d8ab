//! The kernel of Wingbeat: what to do with a rollout, what the measurements mean, and which arm a
//! request takes. All of it as plain functions of their arguments, the clock included.
//!
//! ```text
//!  spec ──► rollout::Plan ──┐
//!  verdict, command, … ─────┼──► rollout::step ──► State', effects, wake_at
//!  State ───────────────────┘                         │
//!                                                     └──► rollout::project ──► routes, weights
//!  filter reports ──► analysis::Ledger ──► analysis::Judge ──► verdict
//!  request ──► matching ──► rule or bucket ──► arm
//! ```
//!
//! Nothing here does IO, reads a clock or draws a random number: the same arguments give the same
//! result, to the bit, on every target. That is why the crate is `no_std` and takes its logarithms
//! from `libm`: the standard library's differ between x86-64 and wasm32.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "analysis")]
pub mod analysis;
pub mod counts;
pub mod foreign;
pub mod histogram;
pub mod id;
pub mod matching;
pub mod outcome;
#[cfg(feature = "rollout")]
pub mod rollout;
pub mod time;
pub mod verdict;
pub mod weight;
