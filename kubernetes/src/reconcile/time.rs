//! Times as an API server takes them.

use wingbeat_control::engine::rfc3339;
use wingbeat_core::time::Timestamp;

/// Returns a time to the second, as in a status.
pub(super) fn seconds(at: Timestamp) -> String {
    let text = rfc3339(at);
    format!("{}Z", text.split(['.', 'Z']).next().unwrap_or_default())
}

/// Returns a time to the microsecond, as in an event: one without them is refused. They tell its place in a millisecond; of more than
/// a thousand, all others have the last one.
pub(super) fn micros(at: Timestamp, place: u64) -> String {
    format!("{}{:03}Z", rfc3339(at).trim_end_matches('Z'), place.min(999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_forms_of_an_api_server() {
        let at = Timestamp::from_millis(1_764_500_000_123);
        assert_eq!(seconds(at), "2025-11-30T10:53:20Z");
        assert_eq!(micros(at, 0), "2025-11-30T10:53:20.123000Z");
        assert_eq!(micros(at, 1_000), "2025-11-30T10:53:20.123999Z");
    }
}
