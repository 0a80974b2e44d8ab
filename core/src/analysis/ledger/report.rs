//! What a worker reports, as the ledger takes it.

use crate::analysis::ledger::worker_key::WorkerKey;
use crate::counts::Counts;
use crate::id::{ClusterName, Epoch, NodeId};
use crate::outcome::Stratum;

/// Whether everything that was ever taken in of an epoch is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is: what is not held is new.
    Complete,
    /// It is not: who is not held may have been counted before.
    Baseline,
}

/// A report of one worker.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Who the worker is authenticated as, or where it connects from: what one source may occupy is bounded.
    pub source: &'a str,
    /// The Envoy that it says it is.
    pub node: &'a NodeId,
    /// The worker.
    pub key: WorkerKey,
    /// Raised by one with every report.
    pub sequence: u64,
    /// The report leaves out bins and keys that did not change after this sequence; 0 leaves out nothing.
    pub since: u64,
    /// What it counted in epochs that are open.
    pub entries: &'a [Reported],
}

/// Cumulative counts of one cluster, stratum and epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The cluster that requests went to.
    pub cluster: ClusterName,
    /// Where they came from.
    pub stratum: Stratum,
    /// The rollout that they belong to.
    pub epoch: Epoch,
    /// The first report that told of these counts. Higher than before: the worker counts from zero again.
    pub first_sequence: u64,
    /// How many, and how they ended.
    pub counts: Counts,
}
