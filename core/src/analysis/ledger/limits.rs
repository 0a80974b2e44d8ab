//! How much a ledger holds.

use crate::time::Span;

/// Entries (clusters by stratum and epoch) that one worker may report: 64 rollouts at a time with two clusters of two
/// strata each. A report beyond it is refused.
pub const MAX_ENTRIES: usize = 256;

/// Workers that are held, over all sources. Beyond it the source with the most of them gives one up.
pub const MAX_WORKERS: usize = 65_536;

/// Workers that are held of one source. Beyond it, the source gives up the one of its own that is silent longest.
pub const MAX_WORKERS_OF_SOURCE: usize = 4_096;

/// Sources that are held. Beyond it, a new one is refused until an old one expires.
pub const MAX_SOURCES: usize = 10_000;

/// Bytes that the counts of one source take, about. Beyond it, the source gives up the workers of its own that are silent
/// longest; the largest worker takes half of it. A usual one takes 10 KiB a rollout.
pub const MAX_BYTES_OF_SOURCE: usize = 64 << 20;

/// Bytes that the counts of all sources take, about. Beyond it, the source with the most gives up workers.
pub const MAX_BYTES: usize = 1 << 30;

/// A worker that reported nothing for so long is given up. Should it come back within the same rollout, its first
/// complete report is a baseline.
pub const EXPIRE_AFTER: Span = Span::from_secs(600);

/// Records that one checkpoint deletes at most; the next ones delete the rest. A rollout that ends forgets tens of thousands
/// of workers at once, and who stores them all in one transaction takes no report meanwhile.
pub const MAX_REMOVED: usize = 4_096;
