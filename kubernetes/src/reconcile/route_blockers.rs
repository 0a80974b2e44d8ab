//! Why the routes of a canary are not in force, once that lasts: what mends itself while proxies connect is written nowhere.

use std::collections::BTreeMap;

use serde_json::Value;
use wingbeat_control::engine::{CONNECTED, PROGRAMMED, ROUTE_CONDITIONS};
use wingbeat_control::view::ConditionView;
use wingbeat_core::time::{Span, Timestamp};

use crate::object::{list, text};

/// A condition lasts for this time before it is written: 5 s. A proxy that is sent other routes answers in a tenth of one.
const DELAY: Span = Span::from_secs(5);
/// One that says that no Envoy is connected lasts for this time, 60 s, and what was written before a restart stays as long: an Envoy
/// tries again after 30 s at most, and says then what it refuses.
const CONNECTED_DELAY: Span = Span::from_secs(60);

/// What the engine says of the routes, and since when.
#[derive(Debug, Default)]
pub(super) struct RouteBlockers {
    conditions: BTreeMap<String, (Timestamp, ConditionView)>,
    /// When it was asked for first.
    begun: Option<Timestamp>,
}

impl RouteBlockers {
    /// Takes what the engine says now. What it said before, in whichever words, lasts since then.
    pub(super) fn take(&mut self, conditions: Vec<ConditionView>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.conditions);
        self.conditions = conditions
            .into_iter()
            .map(|condition| {
                let since = before.remove(&condition.kind).map_or(now, |(since, _)| since);
                (condition.kind.clone(), (since, condition))
            })
            .collect();
    }

    /// Returns what lasts: also what a status says already, from before a restart.
    pub(super) fn lasting(&self, status: &Value, now: Timestamp) -> Vec<&ConditionView> {
        let is_there = |kind: &str| list(status, "/conditions").iter().any(|it| text(it, "/type") == Some(kind));
        let lasts = |since: Timestamp, kind: &str| since.plus(delay(kind)) <= now || is_there(kind);
        let lasting = self.conditions.values().filter(|(since, it)| lasts(*since, &it.kind));
        lasting.map(|(_, condition)| condition).collect()
    }

    /// Returns what a status says of the routes and is to stay: while Envoys come back to a new leader, and what the last of them said
    /// until it is written that there is none.
    pub(super) fn kept(&mut self, status: &Value, now: Timestamp) -> Vec<Value> {
        let begins = now < self.begun.get_or_insert(now).plus(CONNECTED_DELAY);
        let nobody_says = self.conditions.get(CONNECTED).is_some_and(|(since, _)| now < since.plus(CONNECTED_DELAY));
        let is_kept = |condition: &&Value| {
            let kind = text(condition, "/type").filter(|kind| ROUTE_CONDITIONS.contains(kind));
            kind.is_some_and(|kind| {
                !self.conditions.contains_key(kind) && (begins || (nobody_says && kind == PROGRAMMED))
            })
        };
        list(status, "/conditions").iter().filter(is_kept).cloned().collect()
    }

    /// Returns when there will be more to write, or less, without anything happening before.
    pub(super) fn due(&self, kept: &[Value], now: Timestamp) -> Option<Timestamp> {
        let begun = self.begun.unwrap_or(now).plus(CONNECTED_DELAY);
        let waiting = self.conditions.values().map(|(since, it)| since.plus(delay(&it.kind)));
        waiting.chain((!kept.is_empty()).then_some(begun)).filter(|at| *at > now).min()
    }
}

/// Returns conditions without the messages of those that are about the routes: an Envoy's errors may be other ones each time.
pub(super) fn without_messages(conditions: &[Value]) -> Vec<Value> {
    let bare = |condition: &Value| {
        let mut condition = condition.clone();
        if let Some(fields) = condition.as_object_mut()
            && fields.get("type").and_then(Value::as_str).is_some_and(|kind| ROUTE_CONDITIONS.contains(&kind))
        {
            fields.retain(|field, _| field != "message" && field != "lastUpdateTime");
        }
        condition
    };
    conditions.iter().map(bare).collect()
}

fn delay(kind: &str) -> Span {
    if kind == CONNECTED { CONNECTED_DELAY } else { DELAY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(kind: &str, message: &str) -> ConditionView {
        ConditionView {
            kind: kind.to_owned(),
            status: "False".to_owned(),
            reason: "Refused".to_owned(),
            message: message.to_owned(),
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Span::from_secs(secs))
    }

    fn shown(blockers: &RouteBlockers, secs: u64) -> Vec<&str> {
        blockers.lasting(&Value::Null, at(secs)).into_iter().map(|it| it.message.as_str()).collect()
    }

    #[test]
    fn only_what_lasts_is_written_and_other_words_do_not_begin_anew() {
        let mut blockers = RouteBlockers::default();
        blockers.take(vec![condition("Programmed", "one"), condition("Connected", "none")], at(100));
        assert_eq!((shown(&blockers, 104).len(), blockers.due(&[], at(104))), (0, Some(at(105))));
        blockers.take(vec![condition("Programmed", "two"), condition("Connected", "none")], at(104));
        assert_eq!((shown(&blockers, 105), blockers.due(&[], at(105))), (vec!["two"], Some(at(160))));
        assert_eq!((shown(&blockers, 160), blockers.due(&[], at(160))), (vec!["none", "two"], None));
        blockers.take(Vec::new(), at(161));
        assert_eq!(shown(&blockers, 161).len(), 0, "what ended is not written any more");
    }

    #[test]
    fn what_was_written_before_a_restart_stays_until_it_would_be_known() {
        let mut blockers = RouteBlockers::default();
        let status = json!({"conditions": [{"type": "Programmed"}, {"type": "Connected"}, {"type": "Ready"}]});
        let kept = blockers.kept(&status, at(100));
        assert_eq!((kept.len(), blockers.due(&kept, at(100))), (2, Some(at(160))));
        blockers.take(vec![condition("Programmed", "still")], at(130));
        let kept = blockers.kept(&status, at(130));
        assert_eq!((kept.len(), blockers.lasting(&status, at(130)).len()), (1, 1), "the engine knows it already");
        assert_eq!(blockers.due(&kept, at(135)), Some(at(160)));
        assert_eq!(blockers.kept(&status, at(160)).len(), 0);
    }

    #[test]
    fn what_an_envoy_refuses_stays_until_it_is_written_that_none_is_there() {
        let mut blockers = RouteBlockers::default();
        let status = json!({"conditions": [{"type": "Programmed"}]});
        assert_eq!(blockers.kept(&status, at(0)).len(), 1);
        blockers.take(vec![condition("Connected", "none")], at(100));
        assert_eq!((blockers.kept(&status, at(159)).len(), blockers.kept(&status, at(160)).len()), (1, 0));
        blockers.take(Vec::new(), at(161));
        assert_eq!(blockers.kept(&status, at(161)).len(), 0, "they are in force");
    }

    #[test]
    fn only_messages_about_routes_are_left_out() {
        let conditions = |message: &str| {
            let of = |kind: &str| json!({"type": kind, "status": "False", "reason": "R", "message": message});
            [of("Programmed"), of("Ready")]
        };
        let (one, other) = (without_messages(&conditions("one")), without_messages(&conditions("other")));
        assert_eq!((one[0] == other[0], one[1] == other[1]), (true, false));
    }
}
