//! The one place of the control plane that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wingbeat_core::time::{Span, Timestamp};

/// Wall time that never runs backwards: the wall clock at the start plus a monotonic clock, and
/// never below what an earlier run of the control plane has already written down.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    at_start: Timestamp,
}

impl Clock {
    /// Returns a clock whose time is at least `floor`, the latest time that was persisted.
    #[expect(clippy::disallowed_methods, reason = "this is where time enters the program")]
    pub fn start(floor: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = Timestamp::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        Self { started: Instant::now(), at_start: wall.max(floor) }
    }

    /// Returns the time.
    pub fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.at_start.plus(Span::from_nanos(elapsed))
    }

    /// Returns the moment on tokio's clock that corresponds to `at`.
    pub fn deadline(&self, at: Timestamp) -> tokio::time::Instant {
        let ahead = Duration::from_nanos(at.since(self.at_start).as_nanos());
        tokio::time::Instant::from_std(self.started)
            .checked_add(ahead)
            .unwrap_or_else(|| tokio::time::Instant::from_std(self.started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_what_was_stored() {
        let wall = Clock::start(Timestamp::EPOCH).now();
        let ahead = wall.plus(Span::from_secs(86_400));
        let clock = Clock::start(ahead);
        assert!(clock.now() >= ahead && clock.now() < ahead.plus(Span::from_secs(3_600)));
        assert!(Clock::start(wall).now() >= wall, "one that was not set back goes on too");
    }
}
