//! A real Kubernetes without containers, for tests: what no imitation gets right (readiness, grace periods, back-off, garbage
//! collection, field ownership, admission, roles) is not imitated.

pub mod binaries;
pub mod cri;

mod process;

pub use binaries::Binaries;
