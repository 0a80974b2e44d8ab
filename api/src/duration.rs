//! Durations as Go writes them.

use std::time::Duration;

use wingbeat_core::time::Span;

/// Returns it as a span; one that is too long is the longest.
pub(super) fn span(duration: Duration) -> Span {
    Span::from_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Takes what Go does: `1m30s`, `500ms`, `3.5s`, `1h`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(times(number, nanos)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// Returns so many units, each of `nanos`; what is left of a nanosecond is cut off.
fn times(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Finer than a nanosecond of an hour is nothing.
    let fraction = fraction.get(..fraction.len().min(13))?;
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
    let numerator: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u64::try_from(u128::from(nanos).checked_mul(numerator)? / scale).ok()?;
    let seconds = u128::from(whole).checked_mul(u128::from(nanos))?.checked_add(u128::from(part))?;
    Some(Duration::new(u64::try_from(seconds / 1_000_000_000).ok()?, u32::try_from(seconds % 1_000_000_000).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("3.5s", 3_500),
            ("0.25h", 900_000),
            (".5s", 500),
            ("1500us", 1),
            ("1.0000000000000000001s", 1_000),
        ] {
            assert_eq!(parse_duration(text).map(|it| it.as_millis()), Some(millis), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1.5",
            ".s",
            "1..5s",
            "1.2.3s",
            "-1s",
            "99999999999999999999s",
            "9999999999999999999h",
            "1s ",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
