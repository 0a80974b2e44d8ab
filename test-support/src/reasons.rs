//! What the reasons of rollbacks claim, read back from their words.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a text of another form fails the test")]

/// Returns the numbers of a text, with their thousands put together.
pub fn numbers(text: &str) -> Vec<f64> {
    let text = text.replace("none of", "0 of");
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','));
    words.filter_map(|word| word.replace(',', "").trim_end_matches('.').parse().ok()).collect()
}

/// Returns the share of the canary's requests that a reason tells, and the primary's or the limit.
pub fn shares(reason: &str) -> (f64, f64) {
    let reason = reason.split_once("in the last ").map_or_else(
        || reason.to_owned(),
        |(before, after)| {
            let (_, after) = after.split_once(' ').unwrap();
            let (_, after) = after.split_once(' ').unwrap();
            format!("{before}{after}")
        },
    );
    let waits = |told: &&str| told.contains("have been waiting");
    let slower = reason.strip_prefix("the canary is slower: ").filter(waits);
    if let Some(told) = reason.strip_prefix("hard guard: ").or(slower) {
        let told = told.split_once("more than ").map_or_else(
            || told.to_owned(),
            |(before, after)| format!("{before}{}", after.split_once(", ").unwrap().1),
        );
        let numbers = numbers(&told);
        return (numbers[0] / numbers[1], numbers[2] / numbers[3].max(1.0));
    }
    let percents: Vec<f64> =
        reason.match_indices(" %").map(|(at, _)| *numbers(reason.split_at(at).0).last().unwrap()).collect();
    (percents[0], *percents.get(1).unwrap_or(&1.0))
}

/// Returns true if the numbers of a rollback's reason show what it claims: the canary's share is above the primary's or the
/// limit, also beyond a threshold of its own, which is no lower; the ratio of both lies where the reason says.
pub fn supports_its_claim(reason: &str) -> bool {
    let (canary, other) = shares(reason);
    if reason.contains("which sums do not show") {
        return canary <= other;
    }
    let thresholds = reason.split_once("take longer than ").and_then(|(_, told)| told.split_once("primary's"));
    let is_slower =
        thresholds.is_none_or(|(own, others)| millis(own) >= millis(others.rsplit_once("than ").unwrap().1));
    let times = reason.split_once(": between ").or_else(|| reason.split_once(": at least "));
    let is_within = times.is_none_or(|(_, times)| {
        let (bounds, ratio) = (numbers(times), canary / other);
        // What is told is rounded.
        ratio >= bounds[0] * 0.9 && bounds.get(1).is_none_or(|most| ratio <= most * 1.1)
    });
    canary > other && is_slower && is_within
}

/// Returns the length of time at the beginning of a text, in milliseconds.
fn millis(text: &str) -> f64 {
    let mut words = text.split([' ', ',']);
    let number: f64 = words.next().unwrap().parse().unwrap();
    match words.next() {
        Some("ms") => number,
        Some("s") => number * 1_000.0,
        other => panic!("a unit: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written() {
        assert_eq!(
            shares("in the last 2 s the canary fails 30.0 % of 1,030 requests, the primary 1.0 % of 570"),
            (30.0, 1.0)
        );
        assert_eq!(
            shares("hard guard: 6 of 12 canary requests fail or hang, none of 2,495 at the primary"),
            (0.5, 0.0)
        );
        assert_eq!(
            shares("hard guard: 6 of 12 canary requests have been waiting for more than 0.4 s, 1 of 10 at the primary"),
            (0.5, 0.1)
        );
        assert_eq!(
            shares(
                "the canary is slower: in the last 1 s 6 of 12 canary requests have been waiting for more than 0.4 s, none of 9 at the primary"
            ),
            (0.5, 0.0)
        );
    }

    #[test]
    fn numbers_that_show_something_else_are_found() {
        for (reason, supports) in [
            ("the canary fails 30.0 % of 30 requests, the primary 1.1 % of 570: at least 4.0 times as often", true),
            ("the canary fails 1.0 % of 30 requests, the primary 1.1 % of 570", false),
            ("the canary fails 3.0 % of 30 requests, the primary 1.0 % of 570: at least 4.0 times as often", false),
            (
                "the canary fails 30.0 % of 30 requests, the primary 1.0 % of 570: between 2.0 and 20.0 times as often",
                false,
            ),
            ("in the last 2 s the canary fails 20.0 % of 110 requests, above the limit of 5.0 %", true),
            ("in the last 2 s the canary fails 4.0 % of 110 requests, above the limit of 5.0 %", false),
            ("20.0 % of 30 canary requests take longer than 75 ms, 0.0 % of the primary's 570 longer than 60 ms", true),
            ("20.0 % of 30 canary requests take longer than 0.4 s, 0.0 % of the primary's 570 longer than 60 ms", true),
            (
                "20.0 % of 30 canary requests take longer than 50 ms, 0.0 % of the primary's 570 longer than 60 ms",
                false,
            ),
            ("hard guard: 6 of 12 canary responses began and then stood still, 7 of 14 at the primary", false),
            (
                "same moments, which sums do not show: the canary fails 1.0 % of 30 requests, the primary 2.0 % of 9",
                true,
            ),
            (
                "same moments, which sums do not show: the canary fails 3.0 % of 30 requests, the primary 2.0 % of 9",
                false,
            ),
        ] {
            assert_eq!(supports_its_claim(reason), supports, "{reason}");
        }
    }
}
