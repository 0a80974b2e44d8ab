//! The pure half of Wingbeat in a cluster: the kinds that its API server is given, and the objects that should be there.
//!
//! ```text
//!  api::shape ─► crds ─► YAML for kubectl
//!  objects ─► world ─► Canaries that are concerned, ready endpoints
//!  Canary, target ─► desire ─► primary, Services       template ─► revision ─► fence ─► "did it change?"
//!  all of them ─► reconcile ─► what the engine is given, and what is to be written
//! ```
//!
//! Objects are JSON as the API server gives it: a Pod template that went through types of ours would lose the fields that
//! they do not know. Nothing here has a client, a clock or a thread.

pub mod crds;
pub mod desire;
pub mod fence;
mod object;
pub mod reconcile;
pub mod revision;
pub mod world;
