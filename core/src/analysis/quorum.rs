//! Who is waited for before a verdict rests on few sources (P24).
//!
//! A source is a principal or a host, whatever number of nodes it says it is. Where three carry traffic, the jackknife
//! sees to it that none decides alone. Before that, and where there are fewer, the first to report would: so it waits
//! until the others have had the time to, and a second may veto what only the first is content with.
//!
//! ```text
//!  may report │ carry traffic │ rollback                    │ a step ends
//!  ───────────┼───────────────┼─────────────────────────────┼──────────────────────────────────────────
//!  1          │ 1             │ at once                     │ at once
//!  2          │ 1             │ at once                     │ 2 s after the canary got its first share
//!  2, more    │ 2             │ with 3: 2 s after …         │ without each of the two, a broken canary
//!             │               │                             │ would have been caught, and none was
//!  3, more    │ 1             │ 2 s after …                 │ 2 s after …
//!  3, more    │ 3, more       │ the jackknife               │ the jackknife
//! ```
//!
//! Two seconds are enough on a machine that keeps up. Where it does not, reports are late, and of a source whose reports
//! have not come nobody knows whether it has traffic: so one that was there just before, and takes configuration still, is
//! waited for until it is heard, or is silent for [`LATE_FOR`].

use serde::{Deserialize, Serialize};

use super::window::NodeGroup;
use crate::time::{Span, Timestamp};

/// From its first share on, a canary is judged by few only after so much time. Filters report every second at the latest,
/// also without traffic. Where few carry all of it, a broken canary stays in for so much longer.
const QUORUM_TIMEOUT: Span = Span::from_secs(2);

/// From so many sources on, no one of them rolls back alone.
const MIN_SOURCES: usize = 3;

/// A source that takes configuration and is silent is taken to be late for so long; after that, it is taken to have no
/// traffic. So much longer a broken canary may stay in where only few of those who would see it are heard.
pub const LATE_FOR: Span = Span::from_secs(5);

/// A source that was heard so long after the canary got its first share has had the time to see it.
const AWARE_AFTER: Span = Span::from_secs(1);

/// What nodes report is in a window, and judged, after so long at most: some ticks. Until then, what they saw is not known.
pub(crate) const REPORTED_WITHIN: Span = Span::from_millis(600);

/// Those that may report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// How many take configuration or report at the moment.
    pub count: usize,
    /// When that one was heard last which is late for longest: that takes configuration, and has not reported when it was
    /// due, for [`LATE_FOR`] at most.
    pub late_since: Option<Timestamp>,
}

impl Sources {
    /// So many of which none is late.
    pub const fn prompt(count: usize) -> Self {
        Self { count, late_since: None }
    }

    /// Returns those of both.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        let late_since = [self.late_since, more.late_since].into_iter().flatten().min();
        Self { count: self.count.saturating_add(more.count), late_since }
    }
}

/// How many may report, and since when they have had something to report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quorum {
    /// When the canary got its first share.
    #[serde(default)]
    began: Option<Timestamp>,
    #[serde(skip)]
    sources: Sources,
    /// When one that is waited for was late last.
    #[serde(skip)]
    late: Option<Timestamp>,
}

/// Why few are not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThinQuorum {
    /// So many of those that may report carry traffic, up to now.
    Of {
        /// Those that carry traffic.
        carrying: usize,
        /// Those that may report.
        sources: usize,
    },
    /// Without this one, a broken canary would not have been caught yet, or is.
    One(NodeGroup),
}

impl Quorum {
    pub(crate) fn expect(&mut self, sources: Sources, now: Timestamp) {
        self.sources = sources;
        let is_aware = |last: Timestamp| self.began.is_none_or(|began| last >= began.plus(AWARE_AFTER));
        if sources.late_since.is_some_and(|last| !is_aware(last)) {
            self.late = Some(now);
        }
    }

    /// Notes that the canary has a share.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
    }

    /// Returns true while harm that fewer than three carry traffic to show is not believed.
    pub(crate) fn delays_rollback(&self, now: Timestamp) -> bool {
        self.sources.count >= MIN_SOURCES && self.is_early(now)
    }

    /// Returns why a step may not end yet, if fewer carry traffic than may.
    pub(crate) fn thin_quorum(&self, now: Timestamp, carrying: usize) -> Option<ThinQuorum> {
        let sources = self.sources.count;
        (carrying < sources.min(MIN_SOURCES) && self.is_early(now)).then_some(ThinQuorum::Of { carrying, sources })
    }

    fn is_early(&self, now: Timestamp) -> bool {
        let is_late = self.late.is_some_and(|late| now.since(late) < REPORTED_WITHIN);
        self.began.is_some_and(|began| is_late || now.since(began) < QUORUM_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_wait_for_the_others_and_not_for_ever() {
        let began = Timestamp::from_millis(1_000);
        let after = |millis| began.plus(Span::from_millis(millis));
        for (sources, carrying, rollback_waits, step_waits) in [
            (0, 1, false, false),
            (1, 1, false, false),
            (2, 1, false, true),
            (2, 2, false, false),
            (3, 1, true, true),
            (3, 2, true, true),
            (100, 2, true, true),
            // The jackknife decides.
            (3, 3, true, false),
        ] {
            let mut quorum = Quorum::default();
            quorum.expect(Sources::prompt(sources), began);
            quorum.begin(began);
            quorum.begin(after(1_000));
            let early = after(1_999);
            assert_eq!(quorum.delays_rollback(early), rollback_waits, "{sources} {carrying}");
            let few = step_waits.then_some(ThinQuorum::Of { carrying, sources });
            assert_eq!(quorum.thin_quorum(early, carrying), few, "{sources} {carrying}");
            assert!(!quorum.delays_rollback(after(2_000)) && quorum.thin_quorum(after(2_000), carrying).is_none());
        }
    }

    #[test]
    fn those_that_are_late_are_waited_for_until_they_have_seen_the_canary() {
        let began = Timestamp::from_millis(1_000);
        let after = |millis| began.plus(Span::from_millis(millis));
        for (late_since, waits) in
            [(None, false), (Some(began), true), (Some(after(999)), true), (Some(after(1_000)), false)]
        {
            let mut quorum = Quorum::default();
            quorum.begin(began);
            quorum.expect(Sources { late_since, ..Sources::prompt(3) }, after(2_500));
            for (now, waits) in [(2_500, waits), (3_099, waits), (3_100, false)] {
                assert_eq!(quorum.delays_rollback(after(now)), waits, "{late_since:?} {now}");
                assert_eq!(quorum.thin_quorum(after(now), 2).is_some(), waits, "{late_since:?} {now}");
            }
        }
    }
}
