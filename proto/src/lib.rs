//! The messages between filters and control plane: generated types (package
//! `wingbeat.report.v1`) and their conversion to and from the types of `wingbeat-core`.
//!
//! The generated files are checked in, so that building needs no protobuf compiler;
//! `cargo xtask gen` writes them.

pub mod convert;

/// Package `wingbeat.report.v1`.
pub mod v1 {
    include!("gen/wingbeat.report.v1.rs");
}
