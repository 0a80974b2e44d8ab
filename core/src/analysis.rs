//! What the measurements mean: ledger, sequential tests, verdicts.
//!
//! ```text
//!  report ──► Ledger ──► Delta ──► Window ──► Batch ──► Judge ──► Assessment
//!               (what is new)   (200 ms, both arms)  (e-processes)   (verdict, why)
//! ```

pub mod ledger;
