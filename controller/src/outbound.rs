//! What goes out: hooks that are asked, channels that are told.
//!
//! Plain input, plain output; what follows from an answer is decided in `core::rollout`.

pub mod alert;
mod delivery;
pub mod messenger;
pub mod prometheus;
pub mod webhook;
