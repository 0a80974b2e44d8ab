//! How long silence means nothing.

use wingbeat_core::time::Span;

/// A node without a report for this time carries no traffic that counts.
pub(super) const NODE_TIMEOUT: Span = Span::from_secs(5);

/// Idle workers report every second, or, where there are many, as often as all of them together may: some report comes in
/// each second. When none has for so long, nothing is known any more.
pub(super) const REPORTS_LOST_AFTER: Span = Span::from_secs(10);
