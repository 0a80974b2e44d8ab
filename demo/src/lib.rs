//! A test web service, a load generator, a real Envoy, and the scenes that put them together.
//!
//! They ship in the binary, so that anyone can see the main job done in one command; none of it is used in
//! production.

pub mod clock;
pub mod envoy;
pub mod load;
pub mod names;
mod play;
pub mod port;
pub mod scene;
pub mod service;
pub mod stage;
pub mod summary;
pub mod visitor;
