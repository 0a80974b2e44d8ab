//! Which ended rollouts are still shown over time.

use std::collections::VecDeque;

use wingbeat_core::id::CanaryName;

/// Ended rollouts whose points are kept, of all canaries: 4 MiB. The one that ended longest ago loses its points.
const MAX_CHARTED: usize = 256;

/// Canaries that are between two rollouts and have points of the latest one, the one that ended last at the end.
#[derive(Debug, Default)]
pub(super) struct Charted(VecDeque<CanaryName>);

impl Charted {
    /// Takes a canary in. Returns the one that has to make room.
    pub(super) fn push(&mut self, name: &CanaryName) -> Option<CanaryName> {
        self.0.retain(|other| other != name);
        self.0.push_back(name.clone());
        if self.0.len() > MAX_CHARTED { self.0.pop_front() } else { None }
    }
}
