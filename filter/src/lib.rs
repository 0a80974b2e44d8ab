//! The proxy-wasm filter: it counts, exactly, how the requests of primary and canary end.
//!
//! ```text
//!  request starts ─► Worker::begin     in flight, with its start
//!  Envoy logs it  ─► Worker::end       cluster, code, flags, duration ─► Counters (cumulative)
//!  tick           ─► Worker::tick      old requests in flight, closed cohorts; a report, if there is news
//!  reply          ─► Worker::reply     durable mark, policy, next tick
//! ```
//!
//! There is one [`worker::Worker`] per Envoy worker, held by the VM and not by a plugin context: a configuration push
//! makes a new context but keeps the VM, and with it every count.
//!
//! Only `abi.rs` names `proxy_wasm`, and decides nothing. All else runs on any target against [`host::Host`].
//! Nothing in here panics: one panic would disable a worker for good.

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "functions that Envoy calls by name, and one that it is called by")]
mod abi;
pub mod clients;
pub mod cohorts;
pub mod counters;
pub mod host;
pub mod outcome;
pub mod worker;
