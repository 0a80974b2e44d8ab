//! Why a workload is not ready, as often as it is of use: a Deployment goes through half a dozen reasons in a second.

use wingbeat_core::rollout::Readiness;
use wingbeat_core::time::{Span, Timestamp};

/// A reason is given for this time at least, whatever it would be by then: 10 s, the shortest interval at which Flagger looks.
/// Each is an event and a write.
const REASON_INTERVAL: Span = Span::from_secs(10);

/// The reason that was given last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reasons(Option<Given>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    reason: String,
    /// What its Pods say.
    blocker: Option<String>,
    since: Timestamp,
}

impl Reasons {
    /// Has a workload that is not ready keep the reason that was given, for its time. Returns when that is over, if another one
    /// waits for it. Whether it is ready, or never will be, and what its Pods say, is never kept back.
    pub(super) fn keep(
        &mut self,
        readiness: &mut Readiness,
        blocker: Option<&str>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let (reason, hopeless) = match readiness {
            Readiness::Ready => {
                self.0 = None;
                return None;
            }
            Readiness::NotReady { reason, hopeless } => (reason, *hopeless),
        };
        let is_news = |given: &Given| hopeless || given.blocker.as_deref() != blocker;
        let due = match &self.0 {
            Some(given) if !is_news(given) && given.reason == *reason => None,
            Some(given) if !is_news(given) && now.since(given.since) < REASON_INTERVAL => {
                reason.clone_from(&given.reason);
                Some(given.since.plus(REASON_INTERVAL))
            }
            Some(_) | None => {
                self.0 = Some(Given { reason: reason.clone(), blocker: blocker.map(str::to_owned), since: now });
                None
            }
        };
        if let Some(blocker) = blocker {
            *reason = format!("{reason}: {blocker}");
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_ready(reason: &str, hopeless: bool) -> Readiness {
        Readiness::NotReady { reason: reason.to_owned(), hopeless }
    }

    #[test]
    fn a_reason_is_given_for_its_time() {
        let at = |secs: u64| Timestamp::EPOCH.plus(Span::from_secs(secs));
        let mut reasons = Reasons::default();
        let mut kept = |mut readiness: Readiness, secs: u64| {
            let due = reasons.keep(&mut readiness, None, at(secs));
            (readiness, due)
        };
        assert_eq!(kept(not_ready("first", false), 100), (not_ready("first", false), None));
        assert_eq!(kept(not_ready("second", false), 101), (not_ready("first", false), Some(at(110))));
        assert_eq!(kept(not_ready("first", false), 102), (not_ready("first", false), None));
        assert_eq!(kept(not_ready("third", false), 110), (not_ready("third", false), None));
        assert_eq!(kept(not_ready("never", true), 111), (not_ready("never", true), None), "at once");
        assert_eq!(kept(Readiness::Ready, 112), (Readiness::Ready, None), "at once");
        assert_eq!(kept(not_ready("fourth", false), 113), (not_ready("fourth", false), None), "it was ready between");
    }

    #[test]
    fn what_pods_say_comes_at_once() {
        let (mut reasons, at) = (Reasons::default(), |secs: u64| Timestamp::EPOCH.plus(Span::from_secs(secs)));
        let mut kept = |reason: &str, blocker: Option<&str>, secs: u64| {
            let mut readiness = not_ready(reason, false);
            reasons.keep(&mut readiness, blocker, at(secs));
            readiness
        };
        assert_eq!(kept("first", None, 100), not_ready("first", false));
        assert_eq!(kept("second", Some("no image"), 101), not_ready("second: no image", false));
        assert_eq!(kept("third", Some("no image"), 102), not_ready("second: no image", false));
        assert_eq!(kept("third", None, 103), not_ready("third", false));
    }
}
