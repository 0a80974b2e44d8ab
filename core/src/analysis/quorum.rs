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

use serde::{Deserialize, Serialize};

use super::window::NodeGroup;
use crate::time::{Span, Timestamp};

/// From its first share on, a canary is judged by few only after so much time. Filters report every second at the latest,
/// also without traffic. Where few carry all of it, a broken canary stays in for so much longer.
const QUORUM_TIMEOUT: Span = Span::from_secs(2);

/// From so many sources on, no one of them rolls back alone.
const MIN_SOURCES: usize = 3;

/// How many may report, and since when they have had something to report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quorum {
    /// When the canary got its first share.
    #[serde(default)]
    began: Option<Timestamp>,
    /// Sources that take configuration or report at the moment.
    #[serde(skip)]
    sources: usize,
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
    pub(crate) const fn expect(&mut self, sources: usize) {
        self.sources = sources;
    }

    /// Notes that the canary has a share.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
    }

    /// Returns true while harm that fewer than three carry traffic to show is not believed.
    pub(crate) fn delays_rollback(&self, now: Timestamp) -> bool {
        self.sources >= MIN_SOURCES && self.is_early(now)
    }

    /// Returns why a step may not end yet, if fewer carry traffic than may.
    pub(crate) fn thin_quorum(&self, now: Timestamp, carrying: usize) -> Option<ThinQuorum> {
        let sources = self.sources;
        (carrying < sources.min(MIN_SOURCES) && self.is_early(now)).then_some(ThinQuorum::Of { carrying, sources })
    }

    fn is_early(&self, now: Timestamp) -> bool {
        self.began.is_some_and(|began| now.since(began) < QUORUM_TIMEOUT)
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
            quorum.expect(sources);
            quorum.begin(began);
            quorum.begin(after(1_000));
            let early = after(1_999);
            assert_eq!(quorum.delays_rollback(early), rollback_waits, "{sources} {carrying}");
            let few = step_waits.then_some(ThinQuorum::Of { carrying, sources });
            assert_eq!(quorum.thin_quorum(early, carrying), few, "{sources} {carrying}");
            assert!(!quorum.delays_rollback(after(2_000)) && quorum.thin_quorum(after(2_000), carrying).is_none());
        }
    }
}
