//! Why a workload is not ready and, of one that stays so, what its Pods say.

use serde_json::Value;
use wingbeat_api::desired_state::ObservedArms;
use wingbeat_core::id::{Arm, CanaryName};
use wingbeat_core::rollout::Readiness;
use wingbeat_core::time::{Span, Timestamp};

use super::pods::{has_made_pods, replicas};
use super::reasons::Reasons;
use crate::pod_status::{Blocker, PodQuery};

/// A workload is unready for this time before its Pods are listed: 5 s. Most rollouts take less, and cost no call.
const LIST_DELAY: Span = Span::from_secs(5);
/// They are listed again after this time, which doubles: 10 s.
const FIRST_INTERVAL: Span = Span::from_secs(10);
/// What the Pods say is waited for this long before it is told that the workload is not ready: 5 s. Where many are listed, it is told
/// without a reason, which comes later.
const REASON_TIMEOUT: Span = Span::from_secs(5);
/// What the time doubles to: 5 min. A workload that is broken for days costs a call in that time.
const MAX_INTERVAL: Span = Span::from_secs(300);

/// What is known of target and primary, while they are not ready.
#[derive(Debug, Default)]
pub(super) struct UnreadyWorkloads {
    target: Unready,
    primary: Unready,
}

#[derive(Debug, Default)]
struct Unready {
    listing: Listing,
    blocker: Option<Blocker>,
    reasons: Reasons,
}

/// When Pods are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Listing {
    /// Not at all: the workload is ready, or has none.
    #[default]
    Never,
    /// At this time, and then after an interval.
    At(Timestamp, Span),
    /// They are being listed, since then; after that, they are again after an interval.
    UnderWay(Timestamp, Span),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// To look again at this time.
    At(Timestamp),
    Now,
}

impl UnreadyWorkloads {
    /// Has both, as they are, give their reasons. Adds the Pods that are to be listed. Returns when there is more to say.
    pub(super) fn follow(
        &mut self,
        canary: &CanaryName,
        [target, primary]: [Option<&Value>; 2],
        arms: &mut ObservedArms,
        pods: &mut Vec<PodQuery>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut due = Vec::new();
        let workloads = [
            (&mut self.target, Arm::Canary, target, &mut arms.target.readiness),
            (&mut self.primary, Arm::Primary, primary, &mut arms.primary.readiness),
        ];
        for (unready, arm, workload, readiness) in workloads {
            match workload.filter(|it| !readiness.is_ready() && replicas(it) > 0) {
                Some(workload) => match unready.waits(now) {
                    Next::Nothing => {}
                    Next::At(at) => due.push(at),
                    Next::Now if has_made_pods(workload) => pods.extend(PodQuery::of(canary, arm, workload)),
                    // There is nothing to list: why none was made, its conditions say.
                    Next::Now => {
                        let _was_asked = unready.end_list(now);
                        due.extend(unready.next_list());
                    }
                },
                None => unready.is_over(),
            }
            due.extend(unready.tell(readiness, now));
        }
        due.into_iter().min()
    }

    /// Takes what the Pods of one say; nothing: they say nothing.
    pub(super) fn take(&mut self, arm: Arm, blocker: Option<Blocker>, now: Timestamp) {
        self.of(arm).take(blocker, now);
    }

    /// Takes it that the Pods of one cannot be listed. What they said before counts.
    pub(super) fn fail(&mut self, arm: Arm, now: Timestamp) {
        let _was_asked = self.of(arm).end_list(now);
    }

    const fn of(&mut self, arm: Arm) -> &mut Unready {
        match arm {
            Arm::Canary => &mut self.target,
            Arm::Primary => &mut self.primary,
        }
    }

    /// Returns true if one is not ready, and it is not known yet whether that lasts: so it is after a restart, too.
    pub(super) fn is_unsettled(&self, arms: &ObservedArms, now: Timestamp) -> bool {
        let workloads = [(&self.primary, &arms.primary.readiness), (&self.target, &arms.target.readiness)];
        workloads.iter().any(|(unready, readiness)| {
            !readiness.is_ready() && unready.listing != Listing::Never && !unready.lasts(now)
        })
    }

    /// Returns the one that has not been ready for some time, and why; the primary first. A primary that serves and has
    /// no Pods is late at once.
    pub(super) fn late<'a>(&self, arms: &'a ObservedArms, is_served: bool, now: Timestamp) -> Option<(Arm, &'a str)> {
        let workloads = [
            (Arm::Primary, &self.primary, &arms.primary.readiness),
            (Arm::Canary, &self.target, &arms.target.readiness),
        ];
        workloads.into_iter().find_map(|(arm, unready, readiness)| match readiness {
            Readiness::NotReady { reason, .. }
                if unready.lasts(now) || (is_served && arm == Arm::Primary && unready.listing == Listing::Never) =>
            {
                Some((arm, reason.as_str()))
            }
            Readiness::NotReady { .. } | Readiness::Ready => None,
        })
    }
}

impl Unready {
    /// Takes it that the workload has Pods and is not ready. Returns what is to be done.
    fn waits(&mut self, now: Timestamp) -> Next {
        match self.listing {
            Listing::Never => {
                let at = now.plus(LIST_DELAY);
                self.listing = Listing::At(at, FIRST_INTERVAL);
                Next::At(at)
            }
            Listing::At(at, _) if now < at => Next::At(at),
            Listing::At(_, interval) => {
                self.listing = Listing::UnderWay(now, interval);
                Next::Now
            }
            Listing::UnderWay(since, _) if now < since.plus(REASON_TIMEOUT) => Next::At(since.plus(REASON_TIMEOUT)),
            Listing::UnderWay(..) => Next::Nothing,
        }
    }

    /// Returns when its Pods are to be listed next, where that is known.
    const fn next_list(&self) -> Option<Timestamp> {
        match self.listing {
            Listing::At(at, _) => Some(at),
            Listing::Never | Listing::UnderWay(..) => None,
        }
    }

    /// Takes it that the workload is ready, or has no Pods.
    fn is_over(&mut self) {
        (self.listing, self.blocker) = (Listing::Never, None);
    }

    /// Takes what the Pods say; nothing: they say nothing. The same reason is told once: a message counts seconds.
    fn take(&mut self, blocker: Option<Blocker>, now: Timestamp) {
        if !self.end_list(now) {
            return;
        }
        let is_same =
            self.blocker.as_ref().zip(blocker.as_ref()).is_some_and(|(one, other)| one.reason == other.reason);
        if !is_same {
            self.blocker = blocker;
        }
    }

    /// Takes it that a list has come to its end. Returns false if none was asked for.
    fn end_list(&mut self, now: Timestamp) -> bool {
        let Listing::UnderWay(_, interval) = self.listing else { return false };
        self.listing = Listing::At(now.plus(interval), interval.times(2).min(MAX_INTERVAL));
        true
    }

    /// Has it give its reason for a time, with what its Pods say. Returns when there is another one to give.
    fn tell(&mut self, readiness: &mut Readiness, now: Timestamp) -> Option<Timestamp> {
        self.reasons.keep(readiness, self.blocker.as_ref().map(|blocker| blocker.text.as_str()), now)
    }

    /// Returns true once it was unready for some time, and its Pods were asked why, if they answer soon.
    fn lasts(&self, now: Timestamp) -> bool {
        match self.listing {
            Listing::Never => false,
            Listing::At(_, interval) => interval > FIRST_INTERVAL,
            Listing::UnderWay(since, interval) => interval > FIRST_INTERVAL || now >= since.plus(REASON_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(reason: &str, text: &str) -> Blocker {
        Blocker { reason: reason.to_owned(), text: text.to_owned() }
    }

    fn text(unready: &Unready) -> Option<&str> {
        unready.blocker.as_ref().map(|blocker| blocker.text.as_str())
    }

    #[test]
    fn pods_are_listed_after_a_time_and_then_later_and_later() {
        let at = |secs: u64| Timestamp::EPOCH.plus(Span::from_secs(secs));
        let mut unready = Unready::default();
        assert_eq!(unready.waits(at(100)), Next::At(at(105)));
        assert_eq!((unready.waits(at(104)), unready.lasts(at(104))), (Next::At(at(105)), false));
        assert_eq!((unready.waits(at(105)), unready.lasts(at(105))), (Next::Now, false));
        assert_eq!(unready.waits(at(106)), Next::At(at(110)), "one list at a time");
        assert_eq!((unready.waits(at(110)), unready.lasts(at(110))), (Next::Nothing, true), "it waits for others");
        unready.take(Some(blocker("ImagePullBackOff", "first")), at(106));
        assert_eq!((unready.waits(at(107)), text(&unready)), (Next::At(at(116)), Some("first")));
        assert!(unready.lasts(at(107)));
        assert_eq!(unready.waits(at(116)), Next::Now);
        unready.take(Some(blocker("ImagePullBackOff", "second")), at(116));
        assert_eq!((unready.waits(at(117)), text(&unready)), (Next::At(at(136)), Some("first")));
        let mut now = at(136);
        for _ in 0..10 {
            assert_eq!(unready.waits(now), Next::Now);
            unready.take(Some(blocker("CrashLoopBackOff", "third")), now);
            let Next::At(next) = unready.waits(now) else { panic!("it is listed again") };
            assert!(next.since(now) <= MAX_INTERVAL);
            now = next;
        }
        assert_eq!((text(&unready), unready.lasts(now)), (Some("third"), true));
        unready.is_over();
        unready.take(Some(blocker("late", "late")), now);
        assert_eq!((text(&unready), unready.lasts(now)), (None, false), "what comes late is not taken");
    }
}
