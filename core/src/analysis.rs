//! What the measurements mean: ledger, sequential tests, verdicts.
//!
//! ```text
//!  report ──► Ledger ──► Delta ──► Windows ──► Batch ──► Judge ──► Assessment
//!               (what is new)   (200 ms, both arms)  (e-processes)   (verdict, why)
//! ```

pub mod flow;
pub mod guard;
pub mod judge;
pub mod latency;
pub mod ledger;
mod power;
pub mod replay;
pub mod sample_ratio;
pub mod sequential;
pub mod threshold;
pub mod window;
mod words;
