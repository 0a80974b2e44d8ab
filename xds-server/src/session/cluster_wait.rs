//! How long routes wait for the clusters that they lead to.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client_event::CLUSTER_WAIT;

/// Whether a cluster can be used by routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClusterState {
    /// It can.
    Ready,
    /// The client has accepted it, and did not ask for its endpoints yet.
    Unasked,
    /// It, or its endpoints, were not sent yet: an answer to something else is outstanding. Or it was, and the client may
    /// still be resolving its names.
    Pending,
    /// The client refuses it.
    Refused,
    /// There is none.
    Missing,
}

/// Whether routes wait, and for how long.
#[derive(Debug, Default)]
pub(super) struct ClusterWait {
    waits: Waits,
    /// Clusters whose endpoints nobody asked for in time. Their routes do not wait again until somebody does.
    pub(super) unasked: BTreeSet<String>,
    /// What was on its way at the last look after patience had ended.
    overdue: BTreeSet<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nothing is waited for.
    #[default]
    Rested,
    /// Something is, since this time of the stream.
    Since(Duration),
    /// Something was, for too long, and still is not there.
    Over,
}

impl ClusterWait {
    /// Notes which clusters routes wait for.
    pub(super) fn update(&mut self, on_their_way: BTreeSet<String>, now: Duration) {
        self.waits = match self.waits {
            _ if on_their_way.is_empty() => Waits::Rested,
            Waits::Rested => Waits::Since(now),
            Waits::Since(since) => Waits::Since(since),
            Waits::Over => Waits::Over,
        };
        self.overdue = if self.is_over() { on_their_way } else { BTreeSet::new() };
    }

    /// Returns when it ends, if something is waited for.
    pub(super) fn ends(&self) -> Option<Duration> {
        match self.waits {
            Waits::Since(since) => Some(since.saturating_add(CLUSTER_WAIT)),
            Waits::Rested | Waits::Over => None,
        }
    }

    /// Ends it, if it is time.
    pub(super) fn end(&mut self, now: Duration) -> bool {
        let ends = self.ends().is_some_and(|end| end <= now);
        if ends {
            self.waits = Waits::Over;
        }
        ends
    }

    pub(super) fn is_over(&self) -> bool {
        self.waits == Waits::Over
    }

    pub(super) fn is_rested(&self) -> bool {
        self.waits == Waits::Rested
    }

    /// Returns the clusters that took, or take, too long.
    pub(super) fn overdue(&self) -> BTreeSet<String> {
        self.overdue.union(&self.unasked).cloned().collect()
    }
}
