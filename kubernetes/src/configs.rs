//! ConfigMaps and Secrets that a target's Pods read: which there are, what is in them, and what a change of them means.
//!
//! ```text
//!  Pod template ─► references ─► Tracker ─► reads ─► checksums ─► Contents ─► revision
//!                                  ▲ watches: metadata alone
//! ```
//!
//! They are watched as metadata. What is in one is read when its version changed, and only its checksum is kept. What cannot be
//! read is not known, which is never a change.

mod content;
mod references;
mod tracker;

pub use content::{Content, Contents, checksum};
pub use references::{Reference, Renames, references, rename};
pub(crate) use tracker::{Copied, Source, tidy};
pub use tracker::{Part, Read, ReadFailure, Tracker};

/// What a copy says is in it. It is written together with what it is about.
pub const CHECKSUM_ANNOTATION: &str = "wingbeat.dev/checksum";
/// Where a ConfigMap or Secret says that it is not to be tracked, in Flagger's words: `disabled`.
pub const TRACKING_ANNOTATION: &str = "flagger.app/config-tracking";
