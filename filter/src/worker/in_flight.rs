//! Requests in flight: most end before anyone looks at them.

use wingbeat_proto::v1;

use crate::counters::{CountedAs, CounterKey};
use crate::host::Host;

/// A response that has begun and then brings nothing for so long hangs: the time after which load balancers give up
/// by default. Event streams send something more often, if only to stay alive.
pub(super) const HUNG_NS: u64 = 60_000_000_000;
/// One that brings nothing for the age at which requests are overdue has stalled, but not sooner than this: pauses of
/// some 100 ms are usual in streams.
pub(super) const STALLED_NS: u64 = 1_000_000_000;
/// A request whose body stands still for so long, though it is not complete, is overdue: the upstream takes no more of
/// it, or owes an answer to what it has. Between arms that chance divides it is [`STALLED_NS`], since pauses of clients
/// count in both alike; between others it is this. Clients on bad lines pause for less.
pub(super) const UPLOAD_STALLED_NS: u64 = 10_000_000_000;
/// Requests looked at in one tick, a few host calls of 3 to 4 µs each: an upstream that stalls makes all of its requests
/// old at once, and traffic waits while they are looked at. The others' turn comes a millisecond later.
pub(super) const MAX_INSPECTIONS: usize = 1_000;
/// Statuses below it are informational: another one follows.
pub(super) const FIRST_FINAL_STATUS: u64 = 200;

/// A request in flight.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) started_ns: u64,
    /// When it was looked at last.
    pub(super) looked_ns: u64,
    pub(super) seen: Tracking,
    pub(super) upload: Upload,
    pub(super) class: RequestClass,
    /// The virtual host that it called, where that was read.
    pub(super) called: Option<String>,
}

/// Whether there are more requests to look at than one tick has time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backlog {
    None,
    Some,
}

/// The class of a request, where arms are not divided by chance alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// Anybody's.
    #[default]
    Unclassified,
    /// A rule matches, and it stays with the primary to be compared with the canary.
    HeldBack,
    /// A user's of this group.
    Group(u8),
}

/// What is known of a request in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tracking {
    /// Nobody has looked.
    NotYet,
    /// Not at one of our clusters, or there is no room to count it: there is nothing to look at.
    Untracked,
    /// It grew old enough to look at, and runs at this cluster.
    At(CounterKey),
    /// It is as old, but the client has not sent all of it.
    Sending(CounterKey),
    /// Counted as overdue there.
    Overdue(CounterKey),
    /// Its response had begun when it was old enough to be overdue. What it is shows when it ends: content types cannot
    /// be read before.
    Answering {
        place: CounterKey,
        /// Bytes of its body when it was looked at, when that was, and when to look again.
        sent: u64,
        looked_ns: u64,
        again_ns: u64,
        body: Body,
    },
    /// Counted as a stream there.
    Stream(CounterKey),
    /// Counted as one of these in a rollout whose counts are gone: how it ends is counted nowhere.
    Forgotten,
}

/// How a response that is not complete goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// As far as is known it comes.
    Moving,
    /// It stood still, and was counted as stalled.
    Stalled,
}

/// How far the client has come with sending the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// Nothing of it is missing.
    Complete {
        /// Since when: where there is no body, since it began.
        since_ns: u64,
    },
    /// Its body is coming.
    Coming {
        /// Bytes of it when it was looked at, and when they had changed last, as far as is known.
        received: u64,
        changed_ns: u64,
        /// When it was looked at.
        looked_ns: u64,
        /// How long it may stand still.
        pause_ns: u64,
    },
}

impl RequestClass {
    /// Returns the group of the request's user, where users keep their arm.
    pub(super) const fn group(self) -> Option<u8> {
        match self {
            Self::Group(group) => Some(group),
            Self::Unclassified | Self::HeldBack => None,
        }
    }
}

impl Tracking {
    /// Returns true while its cohort has to wait for it.
    pub(super) const fn is_open(&self) -> bool {
        match self {
            Self::NotYet | Self::At(_) => true,
            Self::Untracked
            | Self::Sending(_)
            | Self::Overdue(_)
            | Self::Answering { .. }
            | Self::Stream(_)
            | Self::Forgotten => false,
        }
    }

    /// Returns what it was counted as.
    pub(super) const fn before(&self) -> CountedAs {
        match *self {
            Self::NotYet | Self::Untracked | Self::At(_) | Self::Sending(_) | Self::Forgotten => CountedAs::Nothing,
            Self::Overdue(_) => CountedAs::Overdue,
            Self::Answering { body: Body::Moving, sent, looked_ns, .. } => CountedAs::Answering { sent, looked_ns },
            Self::Answering { body: Body::Stalled, .. } => CountedAs::Stalled,
            Self::Stream(_) => CountedAs::Stream,
        }
    }

    /// Returns where it was counted while it ran.
    pub(super) const fn counted_at(&self) -> Option<&CounterKey> {
        match self {
            Self::Overdue(place) | Self::Stream(place) | Self::Answering { place, .. } => Some(place),
            Self::NotYet | Self::Untracked | Self::At(_) | Self::Sending(_) | Self::Forgotten => None,
        }
    }
}

impl InFlight {
    /// Returns true if it should be looked at, given the shortest age at which requests are overdue.
    pub(super) fn is_due(&self, now: u64, soonest: u64, limit_of: impl Fn(&str) -> Option<u64>) -> bool {
        let age = now.saturating_sub(self.waits_since_ns());
        match &self.seen {
            // One that has no cluster yet is not looked at in every tick.
            Tracking::NotYet => age >= soonest && now.saturating_sub(self.looked_ns) >= soonest,
            Tracking::At(place) | Tracking::Sending(place) => {
                age >= soonest && limit_of(&place.cluster).is_some_and(|limit| age >= limit)
            }
            Tracking::Answering { again_ns, .. } => now >= *again_ns,
            Tracking::Untracked | Tracking::Overdue(_) | Tracking::Stream(_) | Tracking::Forgotten => false,
        }
    }
}

impl InFlight {
    /// Returns when the client's part was done, as far as is known: it is not the upstream that took longer (P3).
    pub(super) const fn waits_since_ns(&self) -> u64 {
        match self.upload {
            Upload::Complete { since_ns } => since_ns,
            Upload::Coming { looked_ns, .. } => looked_ns,
        }
    }

    /// Returns how long the client took to send the request, as far as is known.
    pub(super) const fn sending_ns(&self) -> u64 {
        let until_ns = match self.upload {
            Upload::Complete { since_ns } => since_ns,
            Upload::Coming { changed_ns, .. } => changed_ns,
        };
        until_ns.saturating_sub(self.started_ns)
    }
}

impl Upload {
    /// Takes a look at a body that is coming. Returns true if the upstream has it, or may be waited for.
    pub(super) fn is_done(&mut self, received_now: u64, now: u64) -> bool {
        match self {
            Self::Complete { .. } => true,
            Self::Coming { received, changed_ns, looked_ns, pause_ns } => {
                *looked_ns = now;
                if received_now != *received {
                    (*received, *changed_ns) = (received_now, now);
                    return false;
                }
                now.saturating_sub(*changed_ns) >= *pause_ns
            }
        }
    }
}

/// Returns the age at which requests are old, in nanoseconds, if they ever are.
pub(super) fn limit_ns(policy: &v1::ClusterPolicy) -> Option<u64> {
    (policy.overdue_ms > 0).then(|| u64::from(policy.overdue_ms).saturating_mul(1_000_000))
}

/// Returns for how long a response that has begun may bring nothing, given the age at which requests are old.
pub(super) fn stalled_ns(limit_ns: u64) -> u64 {
    limit_ns.clamp(STALLED_NS, HUNG_NS)
}

pub(super) fn body_size(host: &dyn Host) -> u64 {
    host.number("response\0size").unwrap_or_default()
}
