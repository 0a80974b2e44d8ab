//! Requests in flight: most end before anyone looks at them.

use wingbeat_proto::v1;

use crate::cohorts::Became;
use crate::host::{Host, number, text};
use crate::outcome::SWITCHING_PROTOCOLS;
use crate::store::{Before, Old, Place};
use crate::worker::Worker;
use crate::worker::attribution::Attribution;

/// A response that has begun and then brings nothing for so long hangs: the time after which load balancers give up
/// by default. Event streams send something more often, if only to stay alive.
const STALLED_NS: u64 = 60_000_000_000;
/// Statuses below it are informational: another one follows.
const FINAL: u64 = 200;

/// A request in flight.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) started_ns: u64,
    pub(super) seen: Seen,
    pub(super) whose: Whose,
    /// The virtual host that it called, where that was read.
    pub(super) called: Option<String>,
}

/// Whose request it is, as far as arms that chance alone does not divide have to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Whose {
    /// Anybody's.
    #[default]
    Anybody,
    /// A rule matches, and it stays with the primary to be compared with the canary.
    HeldBack,
    /// A user's of this group.
    Group(u8),
}

/// What is known of a request in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody has looked.
    NotYet,
    /// Not at one of our clusters, or there is no room to count it: there is nothing to look at.
    Elsewhere,
    /// It grew old enough to look at, and runs at this cluster.
    At(Place),
    /// Counted as overdue there.
    Overdue(Place),
    /// Its response had begun when it was old enough to be overdue. What it is shows when it ends: content types cannot
    /// be read before.
    Answering {
        place: Place,
        /// Bytes of its body when it was looked at, and when that was.
        sent: u64,
        looked_ns: u64,
    },
    /// Counted as a stream there.
    Stream(Place),
}

impl Whose {
    /// Returns the group of the request's user, where users keep their arm.
    pub(super) const fn group(self) -> Option<u8> {
        match self {
            Self::Group(group) => Some(group),
            Self::Anybody | Self::HeldBack => None,
        }
    }
}

impl Seen {
    /// Returns true while its cohort has to wait for it.
    pub(super) const fn is_open(&self) -> bool {
        match self {
            Self::NotYet | Self::At(_) => true,
            Self::Elsewhere | Self::Overdue(_) | Self::Answering { .. } | Self::Stream(_) => false,
        }
    }

    /// Returns what it was counted as.
    pub(super) const fn before(&self) -> Before {
        match self {
            Self::NotYet | Self::Elsewhere | Self::At(_) => Before::Nothing,
            Self::Overdue(_) => Before::Overdue,
            Self::Answering { .. } => Before::Answering,
            Self::Stream(_) => Before::Stream,
        }
    }
}

impl InFlight {
    /// Returns true if it should be looked at, given the shortest age at which requests are overdue.
    const fn is_due(&self, now: u64, soonest: u64) -> bool {
        match self.seen {
            Seen::NotYet | Seen::At(_) => now.saturating_sub(self.started_ns) >= soonest,
            Seen::Answering { looked_ns, .. } => now.saturating_sub(looked_ns) >= STALLED_NS,
            Seen::Elsewhere | Seen::Overdue(_) | Seen::Stream(_) => false,
        }
    }
}

impl Worker {
    /// Looks at requests in flight that have grown old (P1). Only they cost host calls.
    pub(super) fn look(&mut self, host: &dyn Host, now: u64) {
        let Some(soonest) = self.clusters.values().filter_map(|counted| limit_ns(&counted.policy)).min() else {
            return;
        };
        let due = self.in_flight.iter().filter(|(_, request)| request.is_due(now, soonest));
        let due: Vec<u32> = due.map(|(stream, _)| *stream).collect();
        for stream in due {
            let Some(request) = self.in_flight.get(&stream).cloned() else { continue };
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
    }

    /// Returns what a request is, or nothing if it is gone.
    fn look_at(&mut self, host: &dyn Host, stream: u32, request: InFlight, now: u64) -> Option<Seen> {
        let age = now.saturating_sub(request.started_ns);
        match request.seen {
            Seen::NotYet => {
                host.enter(stream).then_some(())?;
                let Some(cluster) = text(host, "xds\0cluster_name") else { return Some(Seen::NotYet) };
                let place = match self.attribute(host, &cluster, request.whose, request.called, request.started_ns) {
                    Attribution::Counted(place) => place,
                    // A policy that names its cluster has it looked at again.
                    Attribution::Unassigned(_) | Attribution::None => return Some(Seen::Elsewhere),
                };
                let due = self.limit_of(&place.cluster).is_some_and(|limit| age >= limit);
                Some(if due { self.count_old(host, place, request.started_ns, now) } else { Seen::At(place) })
            }
            Seen::At(place) => {
                if self.limit_of(&place.cluster).is_none_or(|limit| age < limit) {
                    return Some(Seen::At(place));
                }
                host.enter(stream).then_some(())?;
                Some(self.count_old(host, place, request.started_ns, now))
            }
            Seen::Answering { place, sent, .. } => {
                host.enter(stream).then_some(())?;
                let sent_now = body_size(host);
                if sent_now != sent {
                    return Some(Seen::Answering { place, sent: sent_now, looked_ns: now });
                }
                if self.is_over(&place) {
                    return Some(Seen::Elsewhere);
                }
                self.store.old(&place, Old::Stalled, self.next_sequence());
                Some(Seen::Overdue(place))
            }
            seen @ (Seen::Elsewhere | Seen::Overdue(_) | Seen::Stream(_)) => Some(seen),
        }
    }

    /// Counts a request that is as old as its cluster's limit, by what there is of its response.
    fn count_old(&mut self, host: &dyn Host, place: Place, started_ns: u64, now: u64) -> Seen {
        if self.is_over(&place) {
            return Seen::Elsewhere;
        }
        let grpc = self.clusters.get(&place.cluster).is_some_and(|counted| counted.policy.grpc);
        let old = match number(host, "response\0code") {
            Some(SWITCHING_PROTOCOLS) => Old::Stream,
            Some(FINAL..) if grpc => Old::Stream,
            Some(FINAL..) => Old::Answering,
            // Informational responses are no answer.
            Some(_) | None => Old::Overdue,
        };
        if !self.store.old(&place, old, self.next_sequence()) {
            return Seen::Elsewhere;
        }
        let mut record = |became| self.cohorts.record(&place.cluster, place.stratum, started_ns, became);
        match old {
            Old::Stream => Seen::Stream(place),
            Old::Answering => {
                record(Became::Answering);
                Seen::Answering { place, sent: body_size(host), looked_ns: now }
            }
            Old::Overdue | Old::Stalled => {
                record(Became::Overdue);
                Seen::Overdue(place)
            }
        }
    }

    /// Returns true if the rollout that a request was counted in is over.
    fn is_over(&self, place: &Place) -> bool {
        self.clusters.get(&place.cluster).is_none_or(|counted| counted.policy.epoch != place.epoch)
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

fn body_size(host: &dyn Host) -> u64 {
    number(host, "response\0size").unwrap_or_default()
}
