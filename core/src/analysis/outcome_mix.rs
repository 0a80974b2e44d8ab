//! Whether the canary answers with other kinds of answers than the primary (P4).
//!
//! A canary that answers 401, 404 or 302 to everything, or 200 with nothing in it, is fast and makes no errors. So the
//! share of every kind of answer is compared. A kind that becomes rarer is no harm by itself: what takes its place is
//! another kind, or a success.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rate_comparison::RateComparison;
use super::sequential::{Split, ln_add};
use super::window::Arms;
use crate::outcome::Outcome;
use crate::time::Span;

/// A kind of answer may be so many times as frequent as at the primary: revisions differ on purpose.
const TOLERATED: f64 = 2.0;

/// Below this share of requests a kind of answer is nobody's harm.
const FLOOR: f64 = 0.01;

/// Statuses of gRPC beyond "ok", with one for those that do not exist.
const GRPC_STATUSES: f64 = 17.0;

/// A kind of answer that is not simply a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u32", from = "u32")]
pub(crate) enum Kind {
    Redirect,
    ClientFault,
    /// A success without a body, of those whose bodies were looked at.
    Empty,
    /// A status of gRPC other than 0.
    Grpc(u32),
}

impl Kind {
    /// Returns its share of the mixture: a quarter for each kind, and one for all statuses of gRPC.
    fn ln_weight(self) -> f64 {
        match self {
            Self::Redirect | Self::ClientFault | Self::Empty => -libm::log(4.0),
            Self::Grpc(_) => -libm::log(4.0 * GRPC_STATUSES),
        }
    }

    fn weight(self) -> f64 {
        libm::exp(self.ln_weight())
    }
}

impl From<Kind> for u32 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Redirect => 0,
            Kind::ClientFault => 1,
            Kind::Empty => 2,
            Kind::Grpc(status) => status.saturating_add(3),
        }
    }
}

impl From<u32> for Kind {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Redirect,
            1 => Self::ClientFault,
            2 => Self::Empty,
            status => Self::Grpc(status.saturating_sub(3)),
        }
    }
}

/// Evidence on all kinds of answers: a mixture, which is an e-process itself.
///
/// A kind has a test from the first time that it is seen; before that, its evidence is 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutcomeMix {
    kinds: BTreeMap<Kind, RateComparison>,
}

impl OutcomeMix {
    /// Takes in a batch that lasted `span`.
    pub(crate) fn observe(&mut self, arms: &Arms, span: Span) {
        let splits = splits(arms);
        for (kind, split) in &splits {
            if split.canary_bad > 0 || split.primary_bad > 0 {
                self.kinds.entry(*kind).or_insert_with(|| RateComparison::new(&[TOLERATED], Some(FLOOR)));
            }
        }
        for (kind, test) in &mut self.kinds {
            test.observe(splits.get(kind).copied().unwrap_or_else(|| absent(arms)), span);
        }
    }

    /// Returns ln E.
    pub(crate) fn evidence(&self) -> f64 {
        let spoken: f64 = self.kinds.keys().map(|kind| kind.weight()).sum();
        let silent = libm::log((1.0 - spoken).max(1e-300));
        self.kinds.iter().fold(silent, |sum, (kind, test)| ln_add(sum, kind.ln_weight() + test.evidence(0)))
    }

    /// Returns the kind that speaks loudest, if any speaks.
    pub(crate) fn dominant(&self) -> Option<Kind> {
        let evidence = |kind: &Kind, test: &RateComparison| kind.ln_weight() + test.evidence(0);
        self.kinds.iter().max_by(|(a, x), (b, y)| evidence(a, x).total_cmp(&evidence(b, y))).map(|(kind, _)| *kind)
    }

    /// Returns the statuses of gRPC that were seen, without 0.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = u32> + '_ {
        self.kinds.keys().filter_map(|kind| match kind {
            Kind::Grpc(status) => Some(*status),
            Kind::Redirect | Kind::ClientFault | Kind::Empty => None,
        })
    }
}

fn splits(arms: &Arms) -> BTreeMap<Kind, Split> {
    let (canary, primary) = (&arms.canary, &arms.primary);
    let of = |outcome: Outcome| Split {
        canary_bad: canary.outcome(outcome),
        canary: canary.judged(),
        primary_bad: primary.outcome(outcome),
        primary: primary.judged(),
    };
    let bodies =
        Split { canary_bad: canary.empty, canary: canary.sized, primary_bad: primary.empty, primary: primary.sized };
    let mut splits = BTreeMap::from([
        (Kind::Redirect, of(Outcome::Redirect)),
        (Kind::ClientFault, of(Outcome::ClientFault)),
        (Kind::Empty, bodies),
    ]);
    for status in canary.grpc_statuses.keys().chain(primary.grpc_statuses.keys()).filter(|status| **status != 0) {
        let bad = |counts: &crate::counts::Counts| counts.grpc_statuses.get(status).copied().unwrap_or(0);
        let split = Split { canary_bad: bad(canary), primary_bad: bad(primary), ..absent(arms) };
        splits.insert(Kind::Grpc(*status), split);
    }
    splits
}

/// A batch in which a kind of answer did not occur.
fn absent(arms: &Arms) -> Split {
    Split { canary_bad: 0, canary: arms.canary.judged(), primary_bad: 0, primary: arms.primary.judged() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;

    const TICK: Span = Span::from_millis(200);

    fn answers(outcome: Outcome, count: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[outcome.index()] = count;
        Counts { started: count, finished: count, outcomes, ..Counts::default() }
    }

    fn evidence(canary: &Counts, batches: u64) -> f64 {
        let mut mix = OutcomeMix::default();
        let mut primary = answers(Outcome::Success, 185);
        primary.outcomes[Outcome::ClientFault.index()] = 5;
        (primary.sized, primary.empty) = (12, 0);
        for _ in 0..batches {
            mix.observe(&Arms { primary: primary.clone(), canary: canary.clone() }, TICK);
        }
        mix.evidence()
    }

    #[test]
    fn answers_of_another_kind_speak_at_once() {
        for outcome in [Outcome::ClientFault, Outcome::Redirect] {
            assert!(evidence(&answers(outcome, 10), 2) > 9.7, "{outcome:?}: {}", evidence(&answers(outcome, 10), 2));
        }
        let mut empty = answers(Outcome::Success, 10);
        (empty.sized, empty.empty) = (10, 10);
        assert!(evidence(&empty, 3) > 9.7, "{}", evidence(&empty, 3));
        let mut status = answers(Outcome::ServerFault, 10);
        status.grpc_statuses = [(12, 10)].into();
        assert!(evidence(&status, 3) > 9.7);
    }

    #[test]
    fn the_same_answers_say_nothing() {
        let mut same = answers(Outcome::Success, 39);
        same.outcomes[Outcome::ClientFault.index()] = 1;
        assert!(evidence(&same, 500) < 1.0);
        assert!(OutcomeMix::default().evidence().abs() < 1e-9);
        assert!(evidence(&answers(Outcome::Success, 10), 500) < 1.0, "fewer faults are no harm");
    }

    #[test]
    fn kinds_are_written_as_numbers() {
        for kind in [Kind::Redirect, Kind::ClientFault, Kind::Empty, Kind::Grpc(0), Kind::Grpc(17)] {
            assert_eq!(Kind::from(u32::from(kind)), kind);
        }
    }
}
