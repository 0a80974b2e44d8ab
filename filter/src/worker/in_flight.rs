//! Requests in flight: most end before anyone looks at them.

use wingbeat_proto::v1;

use crate::cohorts::CohortOutcome;
use crate::counters::{CountedAs, CounterKey, LongRunning};
use crate::host::{Host, text};
use crate::outcome::SWITCHING_PROTOCOLS;
use crate::worker::attribution::Attribution;
use crate::worker::{Worker, is_live};

/// A response that has begun and then brings nothing for so long hangs: the time after which load balancers give up
/// by default. Event streams send something more often, if only to stay alive.
const HUNG_NS: u64 = 60_000_000_000;
/// One that brings nothing for the age at which requests are overdue has stalled, but not sooner than this: pauses of
/// some 100 ms are usual in streams.
const STALLED_NS: u64 = 1_000_000_000;
/// A request whose body stands still for so long, though it is not complete, is overdue: the upstream takes no more of
/// it, or owes an answer to what it has. Between arms that chance divides it is [`STALLED_NS`], since pauses of clients
/// count in both alike; between others it is this. Clients on bad lines pause for less.
const UPLOAD_STALLED_NS: u64 = 10_000_000_000;
/// Requests looked at in one tick, a few host calls of 3 to 4 µs each: an upstream that stalls makes all of its requests
/// old at once, and traffic waits while they are looked at. The others' turn comes a millisecond later.
const MAX_INSPECTIONS: usize = 1_000;
/// Statuses below it are informational: another one follows.
const FIRST_FINAL_STATUS: u64 = 200;

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

/// Whose request it is, as far as arms that chance alone does not divide have to know.
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
    fn is_due(&self, now: u64, soonest: u64, limit_of: impl Fn(&str) -> Option<u64>) -> bool {
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
    const fn waits_since_ns(&self) -> u64 {
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
    fn is_done(&mut self, received_now: u64, now: u64) -> bool {
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

impl Worker {
    /// Notes that a request's headers are not all of it.
    pub fn expect_body(&mut self, stream: u32) {
        let Some(request) = self.in_flight.get_mut(&stream) else { return };
        let divided = request.called.as_ref().is_some_and(|called| self.divisions.contains_key(called));
        request.upload = Upload::Coming {
            received: 0,
            changed_ns: request.started_ns,
            looked_ns: request.started_ns,
            pause_ns: if divided { UPLOAD_STALLED_NS } else { STALLED_NS },
        };
    }

    /// Notes that a request has come to its end. Only here it is exact, and it costs no host call but for the clock:
    /// whoever waits from now on waits for the upstream.
    pub fn complete(&mut self, host: &dyn Host, stream: u32) {
        if let Some(request) = self.in_flight.get_mut(&stream) {
            request.upload = Upload::Complete { since_ns: host.monotonic_nanos() };
        }
    }

    /// Looks at requests in flight that have grown old (P1). Only they cost host calls.
    pub(super) fn inspect(&mut self, host: &dyn Host, now: u64) -> Backlog {
        let Some(soonest) = self.clusters.values().filter_map(|counted| limit_ns(&counted.policy)).min() else {
            return Backlog::None;
        };
        let due = self.in_flight.iter().filter(|(_, it)| it.is_due(now, soonest, |cluster| self.limit_of(cluster)));
        // Numbers of streams rise: the oldest come first.
        let mut due: Vec<u32> = due.map(|(stream, _)| *stream).collect();
        let rest = if due.len() > MAX_INSPECTIONS { Backlog::Some } else { Backlog::None };
        due.truncate(MAX_INSPECTIONS);
        for stream in due {
            let Some(request) = self.in_flight.get_mut(&stream) else { continue };
            request.looked_ns = now;
            let request = request.clone();
            match self.look_at(host, stream, request, now) {
                Some(seen) => {
                    if let Some(request) = self.in_flight.get_mut(&stream) {
                        request.seen = seen;
                    }
                }
                // Envoy logs every stream; should it ever drop one, that is not a request which hangs.
                None => {
                    self.in_flight.remove(&stream);
                }
            }
        }
        rest
    }

    /// Returns what a request is, or nothing if it is gone.
    fn look_at(&mut self, host: &dyn Host, stream: u32, request: InFlight, now: u64) -> Option<Tracking> {
        let age = now.saturating_sub(request.waits_since_ns());
        match request.seen {
            Tracking::NotYet => {
                host.enter(stream).then_some(())?;
                let Some(cluster) = text(host, "xds\0cluster_name") else { return Some(Tracking::NotYet) };
                let place = match self.attribute(host, cluster, request.class, request.called, request.started_ns) {
                    Attribution::Counted(place) => place,
                    // A policy that names its cluster has it looked at again.
                    Attribution::Unassigned { .. } | Attribution::None => return Some(Tracking::Untracked),
                };
                let due = self.limit_of(&place.cluster).is_some_and(|limit| age >= limit);
                Some(if due {
                    self.count_old(host, stream, place, request.started_ns, now)
                } else {
                    Tracking::At(place)
                })
            }
            Tracking::At(ref place) | Tracking::Sending(ref place)
                if self.limit_of(&place.cluster).is_none_or(|limit| age < limit) =>
            {
                Some(request.seen)
            }
            Tracking::At(place) | Tracking::Sending(place) => {
                host.enter(stream).then_some(())?;
                Some(self.count_old(host, stream, place, request.started_ns, now))
            }
            Tracking::Answering { place, sent, looked_ns, again_ns, body } => {
                host.enter(stream).then_some(())?;
                let sent_now = body_size(host);
                if sent_now != sent {
                    // The longer it has lasted the rarer it is looked at: long streams are to cost little.
                    let lasted = now.saturating_sub(request.started_ns);
                    let wait = lasted.max(again_ns.saturating_sub(looked_ns)).min(HUNG_NS);
                    let again_ns = now.saturating_add(wait);
                    return Some(Tracking::Answering { place, sent: sent_now, looked_ns: now, again_ns, body });
                }
                if self.is_over(&place) {
                    return Some(Tracking::Untracked);
                }
                match body {
                    Body::Moving => {
                        self.store.old(&place, LongRunning::Stalled, self.next_sequence());
                        let again_ns = looked_ns.saturating_add(HUNG_NS);
                        Some(Tracking::Answering { place, sent, looked_ns, again_ns, body: Body::Stalled })
                    }
                    Body::Stalled => {
                        self.store.old(&place, LongRunning::Hung, self.next_sequence());
                        Some(Tracking::Overdue(place))
                    }
                }
            }
            seen @ (Tracking::Untracked | Tracking::Overdue(_) | Tracking::Stream(_) | Tracking::Forgotten) => {
                Some(seen)
            }
        }
    }

    /// Counts a request that is as old as its cluster's limit, by what there is of its response.
    fn count_old(&mut self, host: &dyn Host, stream: u32, place: CounterKey, started_ns: u64, now: u64) -> Tracking {
        if self.is_over(&place) {
            return Tracking::Untracked;
        }
        let old = match host.number("response\0code") {
            Some(SWITCHING_PROTOCOLS) => LongRunning::Stream,
            // A call of gRPC too: which ones are shows when they end.
            Some(FIRST_FINAL_STATUS..) => LongRunning::Answering,
            // Informational responses are no answer.
            Some(_) | None => LongRunning::Overdue,
        };
        if old == LongRunning::Overdue {
            if !self.is_sent(host, stream, now) {
                return Tracking::Sending(place);
            }
            if !self.has_share(host, &place.cluster, started_ns, now) {
                return Tracking::Untracked;
            }
        }
        if !self.store.old(&place, old, self.next_sequence()) {
            return Tracking::Untracked;
        }
        let mut record = |became| self.cohorts.record(&place.cluster, place.stratum, started_ns, became);
        match old {
            LongRunning::Stream => Tracking::Stream(place),
            LongRunning::Answering => {
                record(CohortOutcome::Answering);
                let wait = stalled_ns(self.limit_of(&place.cluster).unwrap_or_default());
                let again_ns = now.saturating_add(wait);
                Tracking::Answering { place, sent: body_size(host), looked_ns: now, again_ns, body: Body::Moving }
            }
            LongRunning::Overdue | LongRunning::Stalled | LongRunning::Hung => {
                record(CohortOutcome::Overdue);
                Tracking::Overdue(place)
            }
        }
    }

    /// Takes what was counted where nothing is held any more for counted. Its rollout may come back under the same epoch,
    /// and would then have more requests that end than it has in flight.
    pub(super) fn forget_dropped(&mut self) {
        for request in self.in_flight.values_mut() {
            if request.seen.counted_at().is_some_and(|place| !self.store.holds(place)) {
                request.seen = Tracking::Forgotten;
            }
        }
    }

    /// Returns true if the client's part is done.
    fn is_sent(&mut self, host: &dyn Host, stream: u32, now: u64) -> bool {
        let Some(request) = self.in_flight.get_mut(&stream) else { return true };
        match request.upload {
            Upload::Complete { .. } => true,
            Upload::Coming { .. } => request.upload.is_done(host.number("request\0size").unwrap_or_default(), now),
        }
    }

    /// Returns true if the rollout that a request was counted in is over.
    fn is_over(&self, place: &CounterKey) -> bool {
        !is_live(&self.clusters, place)
    }

    /// Returns the age at which requests of a cluster are old, in nanoseconds.
    fn limit_of(&self, cluster: &str) -> Option<u64> {
        self.clusters.get(cluster).and_then(|counted| limit_ns(&counted.policy))
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
