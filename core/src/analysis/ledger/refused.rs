//! Why a report is not taken in.

use super::limits::{MAX_ENTRIES, MAX_SOURCES, MAX_WORKERS};
use crate::counts::{InvalidCounts, MAX_PODS_OF_WORKER};
use crate::id::{ClusterName, NodeId};

/// A report that was not taken in. Nothing of it was counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The counts contradict themselves.
    #[error("cluster {cluster}: {absurd}")]
    Absurd {
        /// The cluster in question.
        cluster: ClusterName,
        /// The contradiction.
        absurd: InvalidCounts,
    },
    /// A later report counts less than an earlier one.
    #[error("cluster {cluster}: {now} requests started, but an earlier report said {before}: counts never fall")]
    Backwards {
        /// The cluster in question.
        cluster: ClusterName,
        /// Requests according to the earlier report.
        before: u64,
        /// Requests according to this one.
        now: u64,
    },
    /// One cluster, stratum and epoch appears twice.
    #[error("cluster {cluster} appears twice in the same stratum and epoch")]
    Twice {
        /// The cluster in question.
        cluster: ClusterName,
    },
    /// More entries than a worker may have.
    #[error("{count} clusters by stratum and epoch, at most {MAX_ENTRIES} are taken from one worker")]
    TooManyEntries {
        /// Entries of the worker, with those of the report.
        count: usize,
    },
    /// More pods than a worker tells apart, with those of its earlier reports.
    #[error("cluster {cluster}: {count} pods, at most {MAX_PODS_OF_WORKER} are taken from one worker")]
    TooManyPods {
        /// The cluster in question.
        cluster: ClusterName,
        /// Pods of the worker, with those of the report.
        count: usize,
    },
    /// The worker belongs to another node.
    #[error("this worker reported as node {owner} before")]
    OtherNode {
        /// The node that it first reported for.
        owner: NodeId,
    },
    /// No room, and everyone in it reported lately.
    #[error("no room: {MAX_WORKERS} workers of at most {MAX_SOURCES} sources are known and reported lately")]
    Full,
}
