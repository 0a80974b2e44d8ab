//! Events, as an API server keeps them: one object for each text of a rollout, so that none is folded into another, and a
//! series where it comes again.

use std::collections::VecDeque;

use serde_json::{Value, json};
use wingbeat_core::rollout::Severity;
use wingbeat_core::time::{Span, Timestamp};

use super::time::micros;
use super::write::{EventKey, Write};
use crate::object::text;
use crate::revision;

/// Bytes of a text that an API server takes; the rest is cut off.
const MAX_NOTE_LEN: usize = 1_024;
/// Texts of a canary that are known to have been told, so that the next one is a repetition: the latest. Of one that comes
/// again after that many others, a new series begins.
const MAX_KNOWN: usize = 64;
/// An API server keeps an event for an hour, by default. One that comes again after this time, 50 minutes, is made anew: it may be
/// gone.
const MAX_SERIES: Span = Span::from_secs(50 * 60);
/// A text that comes again is written this often at most, with how often it came by then: 10 s, the shortest interval at which Flagger
/// looks. A canary that looks twice a second would cost as many calls.
const REPEAT_INTERVAL: Span = Span::from_secs(10);
/// Bytes of a canary's name that the name of an event begins with: with the hash behind it, it is shorter than 253.
const MAX_PREFIX_LEN: usize = 200;
/// Whose events these are.
const CONTROLLER: &str = "wingbeat";
/// The same with Flagger's API: what filters events by it goes on to work.
const FLAGGER: &str = "flagger";

/// The texts of a canary that were told.
#[derive(Debug, Default)]
pub(super) struct Events {
    known: VecDeque<Known>,
    /// When the latest one was, and how many were before it in the same millisecond: who sorts them by time has them in order.
    latest: (Timestamp, u64),
}

#[derive(Debug)]
struct Known {
    key: EventKey,
    count: u64,
    /// When it was made.
    since: Timestamp,
    /// When it was written last.
    written: Timestamp,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occurrence<'a> {
    pub(super) severity: Severity,
    pub(super) text: &'a str,
    /// What tells it from the same text at another time, as a rollout.
    pub(super) context: &'a str,
    pub(super) at: Timestamp,
}

impl Events {
    /// Returns what is to be written for something that happened to a Canary; nothing where the same was written a moment ago.
    pub(super) fn write(&mut self, canary: &Value, event: &Occurrence<'_>) -> Option<Write> {
        let of = |field: &str| text(canary, &format!("/metadata/{field}")).unwrap_or_default();
        let hash = revision::hash(&json!([of("uid"), event.context, event.text]));
        let prefix: String = of("name").chars().take(MAX_PREFIX_LEN).collect();
        let key = EventKey { namespace: of("namespace").to_owned(), name: format!("{prefix}.{}", hash.as_str()) };
        let place = if self.latest.0 == event.at { self.latest.1.saturating_add(1) } else { 0 };
        self.latest = (event.at, place);
        self.known.retain(|known| known.key != key || event.at.since(known.since) < MAX_SERIES);
        if let Some(known) = self.known.iter_mut().find(|known| known.key == key) {
            known.count = known.count.saturating_add(1);
            if event.at.since(known.written) < REPEAT_INTERVAL {
                return None;
            }
            known.written = event.at;
            let series = json!({"count": known.count, "lastObservedTime": micros(event.at, place)});
            return Some(Write::Repeat(key, json!({"series": series})));
        }
        self.known.push_back(Known { key: key.clone(), count: 1, since: event.at, written: event.at });
        while self.known.len() > MAX_KNOWN {
            self.known.pop_front();
        }
        let version = text(canary, "/apiVersion").unwrap_or_default();
        let controller = if version.starts_with("flagger.app/") { FLAGGER } else { CONTROLLER };
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "eventTime": micros(event.at, place),
            "reportingController": controller,
            "reportingInstance": controller,
            "action": "Rollout",
            "reason": "Synced",
            "type": match event.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            },
            "note": cut(event.text),
            "regarding": {
                "apiVersion": version, "kind": "Canary",
                "namespace": key.namespace, "name": of("name"), "uid": of("uid"),
            },
        });
        Some(Write::Event(key, object))
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_NOTE_LEN)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Occurrence<'_> {
        Occurrence { severity: Severity::Warning, text, context: "2", at: Timestamp::from_millis(1_764_500_000_123) }
    }

    #[test]
    fn each_text_is_an_event_and_the_same_again_is_a_series() {
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": "backend", "namespace": "prod", "uid": "u"},
        });
        let mut events = Events::default();
        let Some(Write::Event(key, object)) = events.write(&canary, &event("Halt backend.prod")) else {
            panic!("it is new")
        };
        assert_eq!(object["note"], "Halt backend.prod");
        assert_eq!((&object["reportingController"], &object["type"]), (&json!("flagger"), &json!("Warning")));
        assert_eq!(object["reason"], "Synced");
        assert_eq!(events.write(&canary, &event("Halt backend.prod")), None, "a moment ago");
        let again = Occurrence { at: event("").at.plus(REPEAT_INTERVAL), ..event("Halt backend.prod") };
        let series = json!({"series": {"count": 3, "lastObservedTime": "2025-11-30T10:53:30.123000Z"}});
        assert_eq!(events.write(&canary, &again), Some(Write::Repeat(key.clone(), series)));
        let later = Occurrence { at: event("").at.plus(MAX_SERIES), ..event("Halt backend.prod") };
        assert!(matches!(events.write(&canary, &later), Some(Write::Event(it, _)) if it == key), "it may be gone");
        let Some(Write::Event(other, _)) = events.write(&canary, &event("Advance backend.prod")) else {
            panic!("another one")
        };
        assert_ne!(other, key);
        // In another rollout it is another event; after a restart, the same one.
        let next = Occurrence { context: "3", ..event("Halt backend.prod") };
        assert!(matches!(events.write(&canary, &next), Some(Write::Event(it, _)) if it != key));
        assert!(
            matches!(Events::default().write(&canary, &event("Halt backend.prod")), Some(Write::Event(it, _)) if it == key)
        );
        for number in 0..1_000 {
            events.write(&canary, &event(&number.to_string()));
        }
        assert_eq!(events.known.len(), MAX_KNOWN);
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ä".repeat(1_000);
        assert_eq!(cut(&long).len(), MAX_NOTE_LEN);
    }
}
