//! What is stored under which key, beside canaries, events and texts.

use wingbeat_core::analysis::ledger::{Ledger, Trust, Worker, WorkerKey};
use wingbeat_xds_server::lineage::{Lineage, Unmarked};
use wingbeat_xds_server::version::Version;

use crate::engine::persisted::{OpenError, encode, read, read_or_leave_aside};
use crate::store::{Entries, Write};

/// What is held of a worker is stored under this and its key.
pub(super) const LEDGER_PREFIX: &str = "ledger/";

/// Where versions before the third stored the whole ledger. Nothing can be made of it: it knew no rollouts.
pub(super) const OLD_LEDGER_KEY: &str = "ledger";

/// The windows of the judge that are open.
pub(super) const WINDOWS_KEY: &str = "windows";

/// The epochs of which the ledger does not hold everything.
pub(super) const BASELINES_KEY: &str = "baselines";

/// When the last checkpoint was written.
pub(super) const CLOCK_KEY: &str = "clock";

/// What workers reported at once, and waits for their next regular reports.
pub(super) const HELD_KEY: &str = "held";

/// Where the state's lineage is stored.
pub(super) const LINEAGE_KEY: &str = "lineage";

/// Returns the lineage of a stored state, and what is to be stored of it: one that has none gets one, and what it served
/// until now counts as its own.
pub(super) fn lineage(entries: &Entries, random: &[u8; 32]) -> Result<(Lineage, Option<Write>), OpenError> {
    if let Some(lineage) = read::<Lineage>(entries, LINEAGE_KEY)? {
        return Ok((lineage, None));
    }
    let unmarked = if entries.is_empty() { Unmarked::Foreign } else { Unmarked::Own };
    let lineage = Lineage { id: Version::of([LINEAGE_KEY.as_bytes(), random]).get(), unmarked };
    Ok((lineage, encode(LINEAGE_KEY, &lineage)))
}

/// Returns the entry that names a state which lives in a cluster, whichever process has it and whatever its disk has kept: proxies
/// that one leader configured are the next one's. The seed is the cluster's and the installation's.
pub fn cluster_lineage(seed: &[u8]) -> Option<(String, Vec<u8>)> {
    let lineage = Lineage { id: Version::of([LINEAGE_KEY.as_bytes(), seed]).get(), unmarked: Unmarked::Foreign };
    match encode(LINEAGE_KEY, &lineage)? {
        Write::Put(key, entry) => Some((key, entry)),
        Write::Delete(_) => None,
    }
}

/// Reads what is held of workers. A damaged entry is left aside: who reports may then have been counted before.
pub(super) fn read_ledger(entries: &Entries) -> Result<(Ledger, Trust), OpenError> {
    let mut trust = if entries.contains_key(OLD_LEDGER_KEY) { Trust::Baseline } else { Trust::Complete };
    let mut workers = Vec::new();
    for key in entries.keys() {
        let Some(worker) = key.strip_prefix(LEDGER_PREFIX) else { continue };
        match (WorkerKey::parse(worker), read_or_leave_aside::<Worker>(entries, key)?) {
            (Some(worker), Some(held)) => workers.push((worker, held)),
            (_, _) => trust = Trust::Baseline,
        }
    }
    Ok((Ledger::restore(workers), trust))
}
