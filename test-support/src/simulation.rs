//! Simulated rollouts: what the judge is worth where the truth is known.
//!
//! ```text
//!  World ──► Batch ──► Judge ──► what came of it ──► Line (figure, bound, PASS)
//! ```
//!
//! A world draws the counts of a window from fixed seeds; the judge is the real one. Each module below holds the worlds
//! of one question and a table of [`Line`]s. `cargo xtask simulate` prints them; tests run the same functions with
//! fewer rollouts.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of simulated requests are small"
)]

pub mod detection;
pub mod draw;
pub mod fleet;
pub mod flight;
pub mod growth;
pub mod healthy;
pub mod late;
pub mod line;
pub mod low_traffic;
pub mod missed;
pub mod past;
pub mod recordings;
pub mod rollout;
pub mod scale;
pub mod traffic;
pub mod users;
pub mod watching;

pub use line::{Effort, Line, Row};

/// All tables.
pub const TABLES: &[(&str, &[Row])] = &[
    ("judge-table", detection::ROWS),
    ("judge-false", healthy::ROWS),
    ("judge-missed", missed::ROWS),
    ("judge-scale", scale::ROWS),
    ("judge-fleet", growth::ROWS),
    ("judge-recorded", recordings::ROWS),
    ("judge-late", late::ROWS),
    ("judge-low-traffic", low_traffic::ROWS),
];
