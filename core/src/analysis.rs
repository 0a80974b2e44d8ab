//! What the measurements mean: ledger, sequential tests, verdicts.
//!
//! ```text
//!  report ──► Ledger ──► Delta ──► Windows ──► Batch ──► Judge ──► Assessment
//!               (what is new)   (200 ms, both arms)  (e-processes)   (verdict, why)
//! ```

pub mod assessment;
mod baseline;
pub mod closed_cohorts;
pub mod config;
mod convex;
pub mod dispersion;
mod explain;
pub mod guard;
pub mod interval;
mod jackknife;
pub mod judge;
pub mod latency;
pub mod ledger;
mod node_groups;
mod outcome_mix;
mod pairing;
mod power;
mod presence;
pub mod propagation;
pub mod quantile;
mod quorum;
mod rate_comparison;
mod recent_counts;
pub mod replay;
pub mod sample_ratio;
pub mod sequential;
pub mod signal;
mod spread;
mod test_suite;
pub mod threshold;
mod users;
mod weighted_evidence;
pub mod window;
