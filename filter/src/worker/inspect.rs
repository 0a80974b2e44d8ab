//! Looks at requests in flight that have grown old.

use crate::cohorts::CohortOutcome;
use crate::counters::{CounterKey, LongRunning};
use crate::host::{Host, text};
use crate::outcome::SWITCHING_PROTOCOLS;
use crate::worker::Worker;
use crate::worker::attribution::{Attribution, is_live};
use crate::worker::in_flight::{
    Backlog, Body, FIRST_FINAL_STATUS, HUNG_NS, InFlight, MAX_INSPECTIONS, STALLED_NS, Tracking, UPLOAD_STALLED_NS,
    Upload, body_size, limit_ns, stalled_ns,
};

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
