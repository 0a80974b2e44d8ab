//! Reports that are not taken.

/// Why a report was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// It cannot be, for this reason; sent again it would be refused again.
    #[error("{0}")]
    Malformed(String),
    /// More reports wait than are taken at a time, or more of this source than are left for others. Nothing is wrong with it:
    /// filters send it again.
    #[error(
        "more reports wait than are taken at a time, or more of this voice than are left for others: send it again"
    )]
    Busy,
}
