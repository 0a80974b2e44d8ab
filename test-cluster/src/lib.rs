//! A real Kubernetes without containers, for tests: what no imitation gets right (readiness, grace periods, back-off, garbage
//! collection, field ownership, admission, roles) is not imitated.
//!
//! ```text
//!  test ─ enter, command, kubectl ─► ┌ network and mount namespaces of one thread ───────────────────┐
//!                                    │ etcd ◄─ kube-apiserver ◄─ kube-controller-manager             │
//!                                    │             ▲ └ audit log            a process for each       │
//!                                    │          kubelet ── CRI (ours) ──►   container, at an address │
//!                                    │             └──────── probes ────►   of 10.244.0.0/16         │
//!                                    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`Binaries`] finds the programs, or builds them from their Go modules, once for each version.
//! - [`Cluster`] starts them; dropping it ends them. Each cluster has a network of its own, so that all of them have the same
//!   ports and addresses, and none meets another one or the machine's.
//! - There is no scheduler: an admission policy sets the node of every Pod. There is no proxy either: a Service has
//!   EndpointSlices, and nothing listens at its address. Pods have no file system and no network of their own: a container is
//!   a process that is told its address, and sees volumes at their paths ([`cri`]).
//! - `Binaries::helm` builds helm, for tests of charts.
//!
//! It runs on Linux, as root.

pub mod audit;
pub mod binaries;
pub mod cluster;
pub mod cri;
pub mod namespace;

mod api;
mod bind;
mod control_plane;
mod kubeconfig;
mod kubelet;
mod options;
mod process;
mod wait;

pub use audit::Audit;
pub use binaries::Binaries;
pub use cluster::Cluster;
pub use options::{Controllers, Options};
