//! Which requests of an A/B test get the canary, and which users of a weighted rollout.
//!
//! Rules have the form of Istio's: entries are alternatives, all conditions of one must hold, the first entry that
//! matches wins. Everything is bytes: what a client sends need not be text. Patterns are full matches ([`pattern`]).
//! Rules are written ([`input`]) and compiled ([`compile`]) in the control plane; what runs ([`rule`]) is the same there
//! and in the filter ([`assignment`]).

pub mod assignment;
pub mod bucket;
#[cfg(feature = "compile")]
pub mod compile;
#[cfg(feature = "compile")]
mod entries;
#[cfg(feature = "compile")]
pub mod input;
pub mod pattern;
pub mod request;
pub mod rule;
