//! Where canaries stand and what happened to them, for whoever keeps their objects in a cluster: taken from the engine's thread
//! at the pace of an API server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use wingbeat_control::engine::{RolloutEvent, Standing};
use wingbeat_control::view::ConditionView;
use wingbeat_core::id::CanaryName;

/// Events that wait: 10,000. With more, the oldest are lost, which loses messages and nothing else.
const MAX_EVENTS: usize = 10_000;

/// What waits to be taken. Of each canary, the latest.
#[derive(Debug, Clone, Default)]
pub struct Standings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// What was waiting.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Where canaries stand that stand elsewhere than before.
    pub standings: BTreeMap<CanaryName, Standing>,
    /// Why routes of canaries are not in force, where that is different; nothing of those whose are again.
    pub route_blockers: BTreeMap<CanaryName, Vec<ConditionView>>,
    /// What happened, oldest first.
    pub events: VecDeque<RolloutEvent>,
}

impl Standings {
    /// Waits until there is something to take. One that is told before it waits does not wait.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Returns what waits, and forgets it.
    pub fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn put(
        &self,
        standings: Vec<(CanaryName, Standing)>,
        route_blockers: Vec<(CanaryName, Vec<ConditionView>)>,
        events: Vec<RolloutEvent>,
    ) {
        if standings.is_empty() && route_blockers.is_empty() && events.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.route_blockers.extend(route_blockers);
        waiting.standings.extend(standings);
        waiting.events.extend(events);
        while waiting.events.len() > MAX_EVENTS {
            waiting.events.pop_front();
        }
        drop(waiting);
        self.0.changed.notify_one();
    }

    // A std mutex, never held across an await.
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wingbeat_core::id::RolloutId;
    use wingbeat_core::rollout::Severity;
    use wingbeat_core::time::Timestamp;

    #[tokio::test]
    async fn what_is_put_before_somebody_waits_is_not_missed_and_is_bounded() {
        let standings = Standings::default();
        let event = |number: usize| RolloutEvent {
            canary: CanaryName::new("prod", "backend"),
            rollout: RolloutId::new(1),
            severity: Severity::Normal,
            text: number.to_string(),
            at: Timestamp::EPOCH,
        };
        let events: Vec<RolloutEvent> = (0..=MAX_EVENTS).map(event).collect();
        standings.put(Vec::new(), Vec::new(), events.clone());
        standings.changed().await;
        let waiting = standings.take();
        assert_eq!((waiting.events.len(), waiting.events.front()), (MAX_EVENTS, events.get(1)));
        assert!(standings.take().events.is_empty());
    }
}
