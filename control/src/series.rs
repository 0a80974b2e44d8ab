//! Repeated events, counted as Kubernetes does: what happens again and again pushes nothing else out of the log.

use std::collections::BTreeMap;

use wingbeat_core::id::{CanaryName, RolloutId};
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::{RolloutEvent, rfc3339};
use crate::view::EventView;

/// A series that had no new event for so long is over, as in Kubernetes; the next one is an event of its own.
const SERIES_GAP: Span = Span::from_secs(360);
/// Most series at a time; beyond, the one that was quiet for longest is over.
const MAX_SERIES: usize = 1_024;

/// The series that are not over.
#[derive(Debug, Default)]
pub struct Series {
    open: BTreeMap<Key, Open>,
}

/// The same text in another rollout is another event: who waits for one of this rollout would miss it.
type Key = (CanaryName, RolloutId, String);

#[derive(Debug)]
struct Open {
    event: EventView,
    last: Timestamp,
}

impl Series {
    /// Returns the event that this one repeats, with one more counted. `kept` is the oldest event that is kept.
    pub fn repeat(&mut self, told: &RolloutEvent, kind: &str, kept: u64) -> Option<EventView> {
        let open = self.open.get_mut(&key(told))?;
        if told.at.since(open.last) > SERIES_GAP || open.event.id < kept || open.event.kind != kind {
            return None;
        }
        open.last = told.at;
        open.event.count = open.event.count.saturating_add(1);
        open.event.last = rfc3339(told.at);
        Some(open.event.clone())
    }

    /// Notes an event that others may repeat.
    pub fn begin(&mut self, told: &RolloutEvent, event: &EventView) {
        let key = key(told);
        if self.open.len() >= MAX_SERIES && !self.open.contains_key(&key) {
            self.open.retain(|_, open| told.at.since(open.last) <= SERIES_GAP);
            let quiet = self.open.iter().min_by_key(|(_, open)| open.last).map(|(key, _)| key.clone());
            if let Some(quiet) = quiet.filter(|_| self.open.len() >= MAX_SERIES) {
                self.open.remove(&quiet);
            }
        }
        self.open.insert(key, Open { event: event.clone(), last: told.at });
    }
}

fn key(told: &RolloutEvent) -> Key {
    (told.canary.clone(), told.rollout, told.text.clone())
}

#[cfg(test)]
mod tests {
    use wingbeat_core::rollout::Severity;

    use super::*;

    /// Tells these texts of one rollout, as the runtime does. Returns the events, each as it was last.
    fn take_events<'a>(texts: impl IntoIterator<Item = (u64, &'a str)>) -> Vec<(u64, String, u64)> {
        told_of(texts.into_iter().map(|(second, text)| (1, second, text)))
    }

    /// The same, of several rollouts.
    fn told_of<'a>(texts: impl IntoIterator<Item = (u64, u64, &'a str)>) -> Vec<(u64, String, u64)> {
        let (mut series, mut events): (Series, Vec<EventView>) = Default::default();
        for (rollout, second, text) in texts {
            let (canary, at) = (CanaryName::new("prod", "backend"), Timestamp::from_millis(second * 1_000));
            let rollout = RolloutId::new(rollout);
            let told = RolloutEvent { canary, rollout, severity: Severity::Normal, text: text.to_owned(), at };
            let id = u64::try_from(events.len()).unwrap() + 1;
            match series.repeat(&told, "Normal", id.saturating_sub(1_000)) {
                Some(event) => {
                    let place = usize::try_from(event.id).unwrap() - 1;
                    events[place] = event;
                }
                None => {
                    let message = text.to_owned();
                    let event = EventView { id, message, kind: "Normal".to_owned(), count: 1, ..EventView::default() };
                    series.begin(&told, &event);
                    events.push(event);
                }
            }
        }
        events.into_iter().map(|event| (event.id, event.message, event.count)).collect()
    }

    /// A hook that writes at every look, between others (B21).
    #[test]
    fn what_repeats_is_one_event_that_is_counted() {
        let looks = (0..5_000).flat_map(|second| [(second, "not signaling"), (second, "halt")]);
        let events = take_events([(0, "begins")].into_iter().chain(looks).chain([(5_000, "ends")]));
        let expected = [(1, "begins", 1), (2, "not signaling", 5_000), (3, "halt", 5_000), (4, "ends", 1)];
        assert_eq!(events, expected.map(|(id, text, count)| (id, text.to_owned(), count)));
    }

    #[test]
    fn a_series_ends_when_nothing_comes_for_some_minutes() {
        let events = take_events([(0, "a"), (360, "a"), (721, "a")]);
        assert_eq!(events.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [2, 1]);
    }

    /// A retry that ends as the attempt before it.
    #[test]
    fn each_rollout_has_events_of_its_own() {
        let events = told_of([(1, 0, "rolled back"), (1, 1, "rolled back"), (2, 60, "rolled back")]);
        assert_eq!(events.iter().map(|(id, _, count)| (*id, *count)).collect::<Vec<_>>(), [(1, 2), (2, 1)]);
    }

    #[test]
    fn series_are_bounded() {
        let texts: Vec<String> = (0..3_000).map(|n| n.to_string()).collect();
        let events = take_events(texts.iter().chain(&texts).map(|text| (1, text.as_str())));
        assert!(events.len() > 5_000, "{}", events.len());
    }
}
