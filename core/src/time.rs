//! Points in time and stretches of it, as integers of nanoseconds.
//!
//! There is no `now()` here: whoever decides something is told the time.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since the Unix epoch (reaches to the year 2554).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// A length of time in nanoseconds (up to 584 years).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

impl Timestamp {
    /// The Unix epoch, which also serves as "long ago".
    pub const EPOCH: Self = Self(0);

    /// Returns the point `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the point `millis` milliseconds after the Unix epoch, or the end of time.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Returns the point `span` later, or the end of time.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Returns the point `span` earlier, or the epoch.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// Returns how long ago `earlier` was: zero if it lies in the future.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Returns the start of the aligned window of this length that holds the point.
    #[must_use]
    pub const fn window_start(self, length: Span) -> Self {
        match self.0.checked_rem(length.0) {
            Some(into) => Self(self.0 - into),
            None => self,
        }
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than anything that is waited for.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns a span of nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns a span of microseconds, or the longest one.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Returns a span of milliseconds, or the longest one.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns a span of seconds, or the longest one.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Returns the span in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole microseconds in the span.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Returns the whole milliseconds in the span.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Returns the span in seconds, rounded to the nearest float.
    #[expect(clippy::cast_precision_loss, reason = "53 bits hold 104 days of nanoseconds; longer spans are for people")]
    pub const fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns both lengths together, or the longest span.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns what is left after `other`: zero if that is longer.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Returns the span `n` times over, or the longest one.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// Returns true for a span of no length.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Writes the span as Kubernetes and Flagger do: `1m30s`, `500ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (hours, rest) = (self.0 / 3_600_000_000_000, self.0 % 3_600_000_000_000);
        let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
        let (secs, rest) = (rest / 1_000_000_000, rest % 1_000_000_000);
        let (millis, rest) = (rest / 1_000_000, rest % 1_000_000);
        let (micros, nanos) = (rest / 1_000, rest % 1_000);
        for (amount, unit) in [(hours, "h"), (minutes, "m"), (secs, "s"), (millis, "ms"), (micros, "µs"), (nanos, "ns")]
        {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn spans_read_as_in_flagger() {
        let shown =
            [Span::ZERO, Span::from_secs(90), Span::from_millis(1_500), Span::from_secs(3_600), Span::from_micros(5)]
                .map(|span| span.to_string());
        assert_eq!(shown, ["0s", "1m30s", "1s500ms", "1h", "5µs"]);
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::EPOCH.minus(Span::from_secs(1)), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Span::ZERO);
        assert_eq!(Timestamp::from_nanos(u64::MAX).plus(Span::from_secs(1)).as_nanos(), u64::MAX);
        assert_eq!(Timestamp::from_millis(1_234).window_start(Span::from_millis(200)), Timestamp::from_millis(1_200));
        assert_eq!(Timestamp::from_millis(7).window_start(Span::ZERO), Timestamp::from_millis(7));
    }
}
