//! Wingbeat in a cluster: the kinds that its API server is given, the objects that should be there, and the edge that talks
//! to it.
//!
//! ```text
//!  api::shape ─► crds ─► YAML for kubectl
//!  objects ─► world ─► Canaries that are concerned, ready endpoints
//!  Canary, target ─► desire ─► primary, Services       template ─► revision ─► fence ─► "did it change?"
//!  template ─► configs ─► what is to be read, and which revision it makes
//!  all of them ─► reconcile ─► what the engine is given, and what is to be written; before a Canary goes, release
//!
//!  API server ─► edge::watch ─► slots ─► world         writes ─► edge::act ─► API server
//!                edge::lease ◄─► lease ─► permit       engine ─► edge::state ─► canary_state
//! ```
//!
//! Objects are JSON as the API server gives it: a Pod template that went through types of ours would lose the fields that
//! they do not know. Whatever decides has no client, clock or thread; all that acts is in [`edge`].

pub mod canary_state;
pub mod configs;
pub mod crds;
pub mod desire;
pub mod edge;
pub mod failure;
pub mod fence;
pub mod lease;
mod object;
pub mod permit;
pub mod pod_status;
pub mod reconcile;
pub mod release;
pub mod resource;
pub mod revision;
pub mod slots;
pub mod world;
pub mod writes;
