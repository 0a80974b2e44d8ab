//! How much a stream may ask: a client that asks at full rate would keep a core from all others.
//!
//! Nothing is refused. A stream that has asked for more than it may is read again when it may ask anew; what it sends
//! meanwhile waits in the windows of HTTP/2. It is sent changes all the same.

use std::time::Duration;

/// A request takes so much of a stream's time; one with many names takes it once more for every [`NAMES`] of them.
/// Envoys answer responses, and name what these refer to: a few requests for each change.
const EVERY: Duration = Duration::from_millis(10);
/// See [`EVERY`].
const NAMES: usize = 1_000;
/// A stream may take so much of its time in advance: 200 requests at once. Then it waits.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What a stream has asked so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When all of it has been paid for, as time of the stream.
    paid: Duration,
}

impl Budget {
    /// Notes a request of so many names.
    pub(super) fn spend(&mut self, names: usize, now: Duration) {
        let times = u32::try_from(names / NAMES).unwrap_or(u32::MAX).saturating_add(1);
        self.paid = self.paid.max(now).saturating_add(EVERY.saturating_mul(times));
    }

    /// Returns when the next request is taken.
    pub(super) const fn opens(&self) -> Duration {
        self.paid.saturating_sub(AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_waits_and_who_does_not_never_does() {
        let mut budget = Budget::default();
        let mut now = Duration::from_mins(1);
        for _ in 0..200 {
            assert!(budget.opens() <= now);
            budget.spend(3, now);
        }
        budget.spend(0, now);
        assert_eq!(budget.opens(), now + EVERY);
        // At this rate, it waits no longer.
        for _ in 0..1_000 {
            now += EVERY;
            assert!(budget.opens() <= now);
            budget.spend(3, now);
        }
        // Many names are paid for.
        budget.spend(10_000, now);
        assert_eq!(budget.opens(), now + EVERY * 12);
        // Nothing is saved up beyond what may be asked at once.
        now += Duration::from_hours(1);
        (0..201).for_each(|_| budget.spend(0, now));
        assert!(budget.opens() > now);
        budget.spend(usize::MAX, now);
        budget.spend(usize::MAX, now);
    }
}
