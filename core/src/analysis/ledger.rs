//! Exactly-once bookkeeping of what workers report.
//!
//! Reports are cumulative, so the ledger keeps the highest count seen of everything and hands on
//! differences. A report that is lost, repeated or late then costs nothing; a restart costs what
//! came in since the last checkpoint, and workers send that again until it is durable.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::counts::{Absurd, Cohorts, Counts};
use crate::id::{BootId, ClusterName, NodeId, WorkerId};
use crate::outcome::Stratum;
use crate::time::{Span, Timestamp};

/// Clusters that one worker may report.
pub const MAX_CLUSTERS: usize = 64;

/// Envoys that may report.
pub const MAX_NODES: usize = 10_000;

/// Workers over all nodes; beyond it the ones that are silent longest are folded.
pub const MAX_WORKERS: usize = 65_536;

/// A worker that reported within this time is never folded to make room.
pub const FOLD_AFTER: Span = Span::from_secs(600);

/// Checkpoints that may be under way to the disk at once.
const MAX_PENDING: usize = 8;

/// Takes reports in and tells apart what is new.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    workers: BTreeMap<WorkerKey, Worker>,
    /// How many workers each node has.
    nodes: BTreeMap<NodeId, usize>,
    /// Workers whose state was given up; what they say can no longer be told apart from old news.
    folded: BTreeSet<WorkerKey>,
    last_checkpoint: u64,
    /// Checkpoints not known to be on disk: their number and what they contain of each worker.
    pending: VecDeque<(u64, Vec<(WorkerKey, u64)>)>,
}

/// What one report added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// What was not known before, by cluster and stratum. Empty for repeated and late reports.
    pub deltas: Vec<Delta>,
    /// The highest sequence received of this worker.
    pub received: u64,
    /// The highest one whose contents survive a restart.
    pub durable: u64,
}

/// New requests of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The cluster that they went to.
    pub cluster: ClusterName,
    /// Where they came from.
    pub stratum: Stratum,
    /// The Envoy that sent them.
    pub node: NodeId,
    /// How many, and how they ended.
    pub counts: Counts,
}

/// A report that was not taken in. Nothing of it was counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The counts contradict themselves.
    #[error("cluster {cluster}: {absurd}")]
    Absurd {
        /// The cluster in question.
        cluster: ClusterName,
        /// The contradiction.
        absurd: Absurd,
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
    /// One cluster and stratum appears twice.
    #[error("cluster {cluster} appears twice in the same stratum")]
    Twice {
        /// The cluster in question.
        cluster: ClusterName,
    },
    /// More clusters than a worker may have.
    #[error("{count} clusters, at most {MAX_CLUSTERS} are taken from one worker")]
    TooManyClusters {
        /// Clusters of the worker, with those of the report.
        count: usize,
    },
    /// The worker belongs to another node.
    #[error("this worker reported as node {owner} before")]
    OtherNode {
        /// The node that it first reported for.
        owner: NodeId,
    },
    /// No room, and everyone in it reported lately.
    #[error("no room: {MAX_NODES} nodes and {MAX_WORKERS} workers are known and reported lately")]
    Full,
    /// The worker was silent for so long that its place was given away.
    #[error(
        "this worker was silent for over {FOLD_AFTER} and its counts were given up: restart the Envoy to be counted again"
    )]
    Folded,
}

/// The ledger at one moment, to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Number of the checkpoint, for [`Ledger::mark_durable`].
    pub id: u64,
    workers: Vec<(WorkerKey, Worker)>,
    folded: BTreeSet<WorkerKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct WorkerKey {
    boot: BootId,
    worker: WorkerId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Worker {
    node: NodeId,
    received: u64,
    durable: u64,
    last_report: Timestamp,
    clusters: Vec<(ClusterName, Stratum, Counts)>,
}

impl Ledger {
    /// Returns a ledger that knows no one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the ledger as it was at a checkpoint that survived.
    pub fn restore(checkpoint: Checkpoint) -> Self {
        let mut workers: BTreeMap<_, _> = checkpoint.workers.into_iter().collect();
        for worker in workers.values_mut() {
            worker.durable = worker.received;
        }
        let mut nodes = BTreeMap::new();
        for worker in workers.values() {
            *nodes.entry(worker.node.clone()).or_insert(0) += 1;
        }
        Self { workers, nodes, folded: checkpoint.folded, last_checkpoint: checkpoint.id, pending: VecDeque::new() }
    }

    /// Takes in a report: all of it, or nothing if any part is refused.
    ///
    /// A jump is never refused for its size: a worker that could not reach the control plane for an
    /// hour has an hour to tell.
    pub fn ingest(
        &mut self,
        node: &NodeId,
        boot: BootId,
        worker: WorkerId,
        sequence: u64,
        clusters: &[(ClusterName, Stratum, Counts)],
        now: Timestamp,
    ) -> Result<Ingested, Refused> {
        let key = WorkerKey { boot, worker };
        check_report(clusters)?;
        if self.folded.contains(&key) {
            return Err(Refused::Folded);
        }
        if let Some(known) = self.workers.get(&key) {
            known.check(node, sequence, clusters)?;
        } else {
            self.make_room(node, now)?;
            *self.nodes.entry(node.clone()).or_insert(0) += 1;
        }
        let entry = self.workers.entry(key).or_insert_with(|| Worker {
            node: node.clone(),
            received: 0,
            durable: 0,
            last_report: now,
            clusters: Vec::new(),
        });
        entry.received = entry.received.max(sequence);
        entry.last_report = entry.last_report.max(now);
        let deltas = clusters
            .iter()
            .filter_map(|(cluster, stratum, counts)| {
                let counts = entry.take_in(cluster, *stratum, counts)?;
                Some(Delta { cluster: cluster.clone(), stratum: *stratum, node: node.clone(), counts })
            })
            .collect();
        Ok(Ingested { deltas, received: entry.received, durable: entry.durable })
    }

    /// Returns the state to be written down. Call [`Ledger::mark_durable`] with its number when it
    /// is on disk; of checkpoints never confirmed the oldest are forgotten.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.last_checkpoint = self.last_checkpoint.saturating_add(1);
        let contained = self.workers.iter().map(|(&key, worker)| (key, worker.received)).collect();
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((self.last_checkpoint, contained));
        Checkpoint {
            id: self.last_checkpoint,
            workers: self.workers.iter().map(|(&key, worker)| (key, worker.clone())).collect(),
            folded: self.folded.clone(),
        }
    }

    /// Notes that a checkpoint is on disk: what it contains need not be sent again.
    pub fn mark_durable(&mut self, checkpoint: u64) {
        while let Some((id, _)) = self.pending.front() {
            if *id > checkpoint {
                break;
            }
            let Some((id, contained)) = self.pending.pop_front() else {
                break;
            };
            if id < checkpoint {
                continue;
            }
            for (key, sequence) in contained {
                if let Some(worker) = self.workers.get_mut(&key) {
                    worker.durable = worker.durable.max(sequence);
                }
            }
        }
    }

    /// Returns the highest sequence of a worker whose contents survive a restart; 0 if there is none.
    pub fn durable(&self, boot: BootId, worker: WorkerId) -> u64 {
        self.workers.get(&WorkerKey { boot, worker }).map_or(0, |worker| worker.durable)
    }

    /// Returns how many workers are known.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns the workers that had requests to report, and reported at most `span` before the latest that did.
    pub fn active(&self, span: Span) -> BTreeSet<(BootId, WorkerId)> {
        let latest = self.workers.values().map(|worker| worker.last_report).max().unwrap_or_default();
        let active = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.clusters.is_empty() && latest.since(worker.last_report) <= span);
        active.map(|(key, _)| (key.boot, key.worker)).collect()
    }

    /// Returns every node with the time of its last report.
    pub fn nodes(&self) -> BTreeMap<&NodeId, Timestamp> {
        let mut nodes = BTreeMap::new();
        for worker in self.workers.values() {
            let last = nodes.entry(&worker.node).or_insert(worker.last_report);
            *last = worker.last_report.max(*last);
        }
        nodes
    }

    /// Returns the nodes that said nothing for longer than `span`: what they do is unknown, which
    /// is not the same as healthy.
    pub fn silent(&self, now: Timestamp, span: Span) -> Vec<(NodeId, Timestamp)> {
        self.nodes()
            .into_iter()
            .filter(|&(_, last)| now.since(last) > span)
            .map(|(node, last)| (node.clone(), last))
            .collect()
    }

    /// Makes room for one more worker of `node`, at the cost of those that are silent longest.
    fn make_room(&mut self, node: &NodeId, now: Timestamp) -> Result<(), Refused> {
        while self.workers.len() >= MAX_WORKERS || (self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(node)) {
            let oldest = self
                .workers
                .iter()
                .min_by_key(|(_, worker)| worker.last_report)
                .filter(|(_, worker)| now.since(worker.last_report) > FOLD_AFTER)
                .map(|(&key, _)| key)
                .ok_or(Refused::Full)?;
            self.fold(oldest);
        }
        Ok(())
    }

    fn fold(&mut self, key: WorkerKey) {
        if let Some(worker) = self.workers.remove(&key)
            && let Some(left) = self.nodes.get_mut(&worker.node)
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.nodes.remove(&worker.node);
            }
        }
        if self.folded.len() >= MAX_WORKERS {
            self.folded.pop_first();
        }
        self.folded.insert(key);
    }
}

impl Worker {
    fn check(&self, node: &NodeId, sequence: u64, clusters: &[(ClusterName, Stratum, Counts)]) -> Result<(), Refused> {
        if self.node != *node {
            return Err(Refused::OtherNode { owner: self.node.clone() });
        }
        let mut count = self.clusters.len();
        for (cluster, stratum, counts) in clusters {
            match self.known(cluster, *stratum) {
                Some(held) if sequence > self.received && fell(held, counts) => {
                    return Err(Refused::Backwards {
                        cluster: cluster.clone(),
                        before: held.started,
                        now: counts.started,
                    });
                }
                Some(_) => {}
                None => count += 1,
            }
        }
        if count > MAX_CLUSTERS * Stratum::ALL.len() {
            return Err(Refused::TooManyClusters { count });
        }
        Ok(())
    }

    fn known(&self, cluster: &ClusterName, stratum: Stratum) -> Option<&Counts> {
        self.clusters.iter().find(|(name, known, _)| name == cluster && *known == stratum).map(|(_, _, counts)| counts)
    }

    /// Returns what was not known before, if anything.
    fn take_in(&mut self, cluster: &ClusterName, stratum: Stratum, counts: &Counts) -> Option<Counts> {
        let held = self
            .clusters
            .iter_mut()
            .find(|(name, known, _)| name == cluster && *known == stratum)
            .map(|(_, _, counts)| counts);
        let Some(held) = held else {
            self.clusters.push((cluster.clone(), stratum, counts.clone()));
            return Some(counts.clone());
        };
        let before = held.clone();
        held.max_merge(counts);
        (*held != before).then(|| held.since(&before))
    }
}

/// Checks what needs no knowledge of earlier reports.
fn check_report(clusters: &[(ClusterName, Stratum, Counts)]) -> Result<(), Refused> {
    if clusters.len() > MAX_CLUSTERS * Stratum::ALL.len() {
        return Err(Refused::TooManyClusters { count: clusters.len() });
    }
    let mut seen = BTreeSet::new();
    for (cluster, stratum, counts) in clusters {
        if !seen.insert((cluster, stratum)) {
            return Err(Refused::Twice { cluster: cluster.clone() });
        }
        counts.check().map_err(|absurd| Refused::Absurd { cluster: cluster.clone(), absurd })?;
    }
    Ok(())
}

/// Returns true if a count that only ever rises is lower than it was.
fn fell(before: &Counts, now: &Counts) -> bool {
    now.started < before.started
        || now.finished < before.finished
        || now.overdue < before.overdue
        || now.streams < before.streams
        || now.sized < before.sized
        || cohorts_fell(&before.cohorts, &now.cohorts)
        || now.outcomes.iter().zip(before.outcomes).any(|(&now, before)| now < before)
}

fn cohorts_fell(before: &Cohorts, now: &Cohorts) -> bool {
    match now.rev.cmp(&before.rev) {
        Ordering::Less => true,
        Ordering::Equal => now.finished < before.finished || now.errors < before.errors || now.overdue < before.overdue,
        // At a new rev they start again.
        Ordering::Greater => false,
    }
}
