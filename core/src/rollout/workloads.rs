//! What a state implies for the workloads, where a primary takes revisions over ([`Handover::Copy`]). Level-triggered, as
//! routes are: derived again whenever anything changes.
//!
//! [`Handover::Copy`]: super::plan::Handover::Copy

use super::state::{Phase, State};
use crate::id::Revision;
use crate::time::{Span, Timestamp};

/// How long a target is kept after the routes led away from it: 3 s. Requests that it has are answered by then, and those
/// of a proxy that is late find it still there (P30).
pub const DRAIN: Span = Span::from_secs(3);

/// What the workloads should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workloads {
    /// The primary's template.
    pub primary: PrimaryTemplate,
    /// How many pods the target has.
    pub target: TargetScale,
    /// Where requests by the name of the target go, of those that no route leads.
    pub apex: Apex,
}

/// What a primary's template is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryTemplate {
    /// As it is.
    Keep,
    /// That of the revision that the target asks for, whichever it is.
    Wanted,
    /// That of this revision.
    Of(Revision),
}

/// How many pods a target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetScale {
    /// As many as it has.
    Keep,
    /// Some.
    Up,
    /// None, once it is drained.
    Zero {
        /// When it is.
        from: Timestamp,
    },
}

/// Where requests by the name of the target go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apex {
    /// Where they went before there was a primary.
    Keep,
    /// To the primary.
    Primary,
}

/// Returns what the workloads should be in this state.
pub fn workloads(state: &State) -> Workloads {
    let zero = TargetScale::Zero { from: state.changed.plus(DRAIN) };
    let of = |revision: &Revision| PrimaryTemplate::Of(revision.clone());
    let (primary, target, apex) = match &state.phase {
        Phase::Initializing => (PrimaryTemplate::Wanted, TargetScale::Keep, Apex::Keep),
        Phase::Initialized { primary }
        | Phase::Succeeded { primary, .. }
        | Phase::Failed { primary, on_canary: false, .. } => (of(primary), zero, Apex::Primary),
        // The target went back to what served: so does the primary.
        Phase::Failed { primary, seen, on_canary: true, .. } if primary == seen => {
            (of(primary), TargetScale::Keep, Apex::Primary)
        }
        // It is being replaced and cannot serve. Going back would take as long as going on.
        Phase::Failed { on_canary: true, .. } => (PrimaryTemplate::Keep, TargetScale::Keep, Apex::Primary),
        Phase::Waiting(waiting) => (of(&waiting.primary), TargetScale::Keep, Apex::Primary),
        Phase::Progressing(progress) => (of(&progress.primary), TargetScale::Up, Apex::Primary),
        Phase::Promoting(promotion) => (of(&promotion.canary), TargetScale::Up, Apex::Primary),
        Phase::Finalising { primary, .. } => (of(primary), TargetScale::Keep, Apex::Primary),
    };
    Workloads { primary, target, apex }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Cause, Ended};

    fn at(phase: Phase) -> Workloads {
        workloads(&State { changed: Timestamp::from_millis(1_000), phase, ..State::default() })
    }

    #[test]
    fn a_target_that_has_no_requests_goes_once_it_is_drained() {
        let (one, two) = (Revision::new("1"), Revision::new("2"));
        let drained = TargetScale::Zero { from: Timestamp::from_millis(4_000) };
        let settled = |revision: &Revision| Workloads {
            primary: PrimaryTemplate::Of(revision.clone()),
            target: drained,
            apex: Apex::Primary,
        };
        let seen = |seen: &Revision, on_canary| Phase::Failed {
            primary: one.clone(),
            canary: two.clone(),
            seen: seen.clone(),
            reason: "r".into(),
            cause: Cause::RolledBack,
            failed_checks: 0,
            attempt: 1,
            on_canary,
            ended: Ended::Quiet,
        };
        let failed = |on_canary| seen(&two, on_canary);
        assert_eq!(at(Phase::Initialized { primary: one.clone() }), settled(&one));
        assert_eq!(at(Phase::Succeeded { primary: two.clone(), ended: Ended::Quiet }), settled(&two));
        assert_eq!(at(failed(false)), settled(&one));
        let stays = Workloads { primary: PrimaryTemplate::Keep, target: TargetScale::Keep, apex: Apex::Primary };
        assert_eq!(at(failed(true)), stays, "the canary has all requests");
        let back = Workloads { primary: PrimaryTemplate::Of(one.clone()), ..stays };
        assert_eq!(at(seen(&one, true)), back, "the target went back to what served");
        let begins = Workloads { primary: PrimaryTemplate::Wanted, target: TargetScale::Keep, apex: Apex::Keep };
        assert_eq!(at(Phase::Initializing), begins, "the target serves until there is a primary");
    }
}
