//! What the measurements mean: ledger, sequential tests, verdicts.
//!
//! ```text
//!  report ──► Ledger ──► Delta ──► Windows ──► Batch ──► Judge ──► Assessment
//!               (what is new)   (200 ms, both arms)  (e-processes)   (verdict, why)
//! ```

mod account;
pub mod assessment;
mod baseline;
pub mod config;
mod convex;
pub mod dispersion;
pub mod flow;
pub mod guard;
pub mod interval;
mod jackknife;
pub mod judge;
pub mod latency;
pub mod ledger;
mod outcome_mix;
mod pairing;
mod power;
mod presence;
pub mod quantile;
mod quorum;
pub mod replay;
pub mod safety;
pub mod sample_ratio;
mod seats;
pub mod sequential;
pub mod signal;
mod soft;
mod spread;
pub mod threshold;
mod trial;
mod users;
mod voices;
pub mod window;
mod words;
