//! Whether it is stored since when a workload is not ready.

use wingbeat_core::rollout::State;
use wingbeat_core::time::{Span, Timestamp};

/// That a workload is not ready is stored once it lasts: 5 s. Before, its deadline begins anew with a restart; most Pods are ready by
/// then, and two writes are saved.
const STORE_DELAY: Span = Span::from_secs(5);

/// What the store says of it, beside the state in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum UnreadyRecord {
    /// The same.
    #[default]
    Stored,
    /// That it is ready. It is not, since then.
    Unstored(Timestamp),
    /// Perhaps the same: a write of it was refused, and may have been carried out all the same. It is not ready since then.
    Uncertain(Timestamp),
}

impl UnreadyRecord {
    /// Returns what holds after a step that is adopted and not stored; nothing where it is to be stored, since a restart would go on
    /// otherwise than from `before`.
    pub(super) fn after(self, before: &State, next: &State, now: Timestamp) -> Option<Self> {
        if next.resumes_as(before) {
            return Some(self);
        }
        if !next.resumes_as_but_for_unready(before) {
            return None;
        }
        match (self, before.unready(), next.unready()) {
            (Self::Stored, None, Some(_)) => Some(Self::Unstored(now)),
            (Self::Unstored(_), _, Some(_)) => Some(self),
            (Self::Unstored(_) | Self::Stored, None, None) | (Self::Unstored(_), Some(_), None) => Some(Self::Stored),
            // Only why: whoever starts again finds that out.
            (_, Some(before), Some(next)) if before.since == next.since => Some(self),
            (Self::Stored, Some(_), _) | (Self::Uncertain(_), ..) => None,
        }
    }

    /// Returns true if it lasts, and is to be stored.
    pub(super) fn is_due(self, now: Timestamp) -> bool {
        match self {
            Self::Stored => false,
            Self::Unstored(since) | Self::Uncertain(since) => now.since(since) >= STORE_DELAY,
        }
    }

    /// Returns what holds after a write of this state was refused.
    pub(super) fn refused(self, written: &State) -> Self {
        match self {
            Self::Unstored(since) if written.unready().is_some() => Self::Uncertain(since),
            Self::Stored | Self::Unstored(_) | Self::Uncertain(_) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_core::id::Revision;
    use wingbeat_core::rollout::{Phase, Unready};

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Span::from_secs(secs))
    }

    fn state(unready: Option<(u64, &str)>) -> State {
        let unready = unready.map(|(since, reason)| Unready { since: at(since), reason: reason.to_owned() });
        let phase = Phase::Finalising { primary: Revision::new("1"), due: at(100), unready };
        State { phase, ..State::default() }
    }

    #[test]
    fn that_it_is_not_ready_is_stored_once_it_lasts() {
        let (ready, not) = (state(None), state(Some((10, "pulling"))));
        let record = UnreadyRecord::Stored.after(&ready, &not, at(10)).unwrap();
        assert_eq!((record.is_due(at(14)), record.is_due(at(15))), (false, true));
        let other = state(Some((10, "crashed")));
        assert_eq!(record.after(&not, &other, at(12)), Some(record), "since the same time");
        assert_eq!(record.after(&not, &ready, at(12)), Some(UnreadyRecord::Stored), "as the store says");
    }

    #[test]
    fn what_may_be_stored_is_taken_back_by_a_write() {
        let (ready, not) = (state(None), state(Some((10, "pulling"))));
        assert_eq!(UnreadyRecord::Stored.after(&not, &ready, at(20)), None);
        assert_eq!(
            UnreadyRecord::Stored.after(&not, &state(Some((10, "crashed"))), at(20)),
            Some(UnreadyRecord::Stored)
        );
        let uncertain = UnreadyRecord::Unstored(at(10)).refused(&not);
        assert_eq!((uncertain.is_due(at(15)), uncertain.after(&not, &ready, at(20))), (true, None));
        assert_eq!(UnreadyRecord::Unstored(at(10)).refused(&ready), UnreadyRecord::Unstored(at(10)));
    }
}
