//! Which requests of an A/B test get the canary.
//!
//! Rules have the form of Istio's: entries are alternatives, all conditions of one must hold, the first entry that
//! matches wins. Everything is bytes: what a client sends need not be text. Patterns are full matches, compiled to
//! automata that run in time linear in the input ([`pattern`]).

#[cfg(feature = "compile")]
pub mod pattern;
#[cfg(feature = "compile")]
pub mod rule;
