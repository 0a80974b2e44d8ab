//! Where to go when a revision is bad: the table of P27.
//!
//! "No traffic to the canary" is not always safe. While a canary is judged, the revision that served before still
//! can; in the middle of a promotion it may be half replaced.

use super::state::{Phase, State};

/// What a rollout is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutStage {
    /// The canary is judged; the primary is the revision that served before.
    Judging,
    /// The canary becomes the primary; the revision that served before is still complete.
    PromotingIntact,
    /// The canary becomes the primary; the revision that served before is partly gone.
    Promoting,
}

/// How a revision does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It serves, as far as is known.
    Good,
    /// It does not.
    Bad,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing stands in the way.
    GoOn,
    /// All requests go back to the revision that served before.
    Rollback,
    /// All requests go to the canary: it serves, and the primary does not.
    StayOnCanary,
    /// Nothing moves, and people are told: no way leads to something better.
    Freeze,
}

/// Returns what is to be done.
pub const fn act(moment: RolloutStage, primary: Health, canary: Health) -> Action {
    match (moment, primary, canary) {
        (
            RolloutStage::Judging | RolloutStage::PromotingIntact | RolloutStage::Promoting,
            Health::Good,
            Health::Good,
        ) => Action::GoOn,
        // In a promotion, primary means the new one, which runs the canary's template; the old one is still there.
        (RolloutStage::Judging | RolloutStage::PromotingIntact, Health::Good, Health::Bad)
        | (RolloutStage::PromotingIntact, Health::Bad, Health::Good | Health::Bad) => Action::Rollback,
        (RolloutStage::Promoting, Health::Bad, Health::Good) => Action::StayOnCanary,
        // While judging, going back would mean going to the one that is known to be bad. In a promotion, the new
        // primary runs what is bad in the canary, and the roll is halted (P18).
        (RolloutStage::Judging, Health::Bad, Health::Good | Health::Bad)
        | (RolloutStage::Promoting, Health::Good | Health::Bad, Health::Bad) => Action::Freeze,
    }
}

/// Returns true if an abort may be served before it is stored: going back is safe whatever happens to the store,
/// because the revision that served before is unmodified and complete.
pub const fn may_abort_unstored(before: &State, after: &State) -> bool {
    before.may_be_aborted_unstored() && matches!(after.phase, Phase::Failed { on_canary: false, .. })
}

#[cfg(test)]
mod tests {
    use super::Action::{Freeze, GoOn, Rollback, StayOnCanary};
    use super::Health::{Bad, Good};
    use super::RolloutStage::{Judging, Promoting, PromotingIntact};
    use super::*;

    #[test]
    fn every_cell_of_the_table() {
        let table = [
            (Judging, Good, Good, GoOn),
            (Judging, Good, Bad, Rollback),
            (Judging, Bad, Good, Freeze),
            (Judging, Bad, Bad, Freeze),
            (PromotingIntact, Good, Good, GoOn),
            (PromotingIntact, Good, Bad, Rollback),
            (PromotingIntact, Bad, Good, Rollback),
            (PromotingIntact, Bad, Bad, Rollback),
            (Promoting, Good, Good, GoOn),
            (Promoting, Good, Bad, Freeze),
            (Promoting, Bad, Good, StayOnCanary),
            (Promoting, Bad, Bad, Freeze),
        ];
        for (moment, primary, canary, action) in table {
            assert_eq!(act(moment, primary, canary), action, "{moment:?}, {primary:?} primary, {canary:?} canary");
        }
    }
}
