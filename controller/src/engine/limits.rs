//! From which age or length on the filters look closer at a request: it follows what the primary does.

use serde::{Deserialize, Serialize};
use wingbeat_core::counts::Counts;
use wingbeat_core::time::Span;

/// Requests of a canary that nothing is known about are overdue after this time …
const OVERDUE_AT_FIRST: Span = Span::from_secs(1);
/// … and later after so many times the primary's p99, within bounds.
const OVERDUE_TIMES_P99: u64 = 4;
const OVERDUE_BOUNDS: (Span, Span) = (Span::from_millis(250), Span::from_secs(30));
/// Requests may have waited for a connection if they are longer than the primary's median by a quarter, and by this
/// much: what is known of connections before there is a median.
const SLOW_ABOVE: Span = Span::from_millis(5);

/// What is told to the filters of a canary's clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// Age at which requests in flight are looked at.
    pub(super) overdue: Span,
    /// What it was before: some workers may not know better yet.
    overdue_before: Span,
    /// Length above which the time that a request waited for a connection is read.
    pub(super) slow: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self { overdue: OVERDUE_AT_FIRST, overdue_before: OVERDUE_AT_FIRST, slow: SLOW_ABOVE }
    }
}

impl Limits {
    /// Follows what is known of the primary.
    pub(super) fn follow(&mut self, primary: &Counts) {
        let micros = |q| primary.latency.quantile(q).map(|(_, high)| high);
        if let Some(p99) = micros(0.99) {
            let overdue = Span::from_micros(p99.saturating_mul(OVERDUE_TIMES_P99));
            let before = self.overdue;
            shift(&mut self.overdue, overdue.clamp(OVERDUE_BOUNDS.0, OVERDUE_BOUNDS.1));
            if self.overdue != before {
                self.overdue_before = before;
            }
        }
        if let Some(p50) = micros(0.5) {
            let above = (p50 / 4).max(SLOW_ABOVE.as_micros());
            shift(&mut self.slow, Span::from_micros(p50.saturating_add(above)));
        }
    }

    /// Returns the age that every request has which a worker called overdue.
    pub(super) fn surely_overdue(&self) -> Span {
        self.overdue.min(self.overdue_before)
    }
}

/// Every change is a new policy for all filters: small ones are not worth it.
fn shift(limit: &mut Span, wanted: Span) {
    let (small, large) = (wanted.min(*limit), wanted.max(*limit));
    if large.as_nanos() > small.as_nanos().saturating_mul(3) / 2 {
        *limit = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(micros: u64) -> Counts {
        let mut counts = Counts::default();
        counts.latency.record(micros);
        counts
    }

    #[test]
    fn limits_follow_the_primary_in_large_steps() {
        let mut limits = Limits::default();
        limits.follow(&Counts::default());
        assert_eq!(limits, Limits::default(), "nothing is known");
        // Half a millisecond: a quarter more is nothing, 5 ms more are near enough to what is told already.
        limits.follow(&primary(500));
        assert_eq!((limits.overdue, limits.slow), (Span::from_millis(250), SLOW_ABOVE));
        limits.follow(&primary(100_000));
        assert!((125_000..128_000).contains(&limits.slow.as_micros()), "{limits:?}");
        assert!((400_000..410_000).contains(&limits.overdue.as_micros()), "{limits:?}");
        let before = limits;
        limits.follow(&primary(140_000));
        assert_eq!(limits, before);
        limits.follow(&primary(20_000));
        assert_eq!(limits.surely_overdue(), Span::from_millis(250));
        assert!((25_000..25_300).contains(&limits.slow.as_micros()), "{limits:?}");
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let written = serde_json::json!({"overdue": Span::from_millis(300)});
        let limits: Limits = serde_json::from_value(written).unwrap();
        assert_eq!(limits, Limits { overdue: Span::from_millis(300), ..Limits::default() });
    }
}
