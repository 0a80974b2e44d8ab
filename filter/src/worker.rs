//! One Envoy worker: requests in flight, what they come to, and when it is reported.

use std::collections::BTreeMap;

use prost::Message as _;
use wingbeat_core::matching::assignment::{ARM_HEADER, Assignment, BUCKET_HEADER, RouteMark};
use wingbeat_core::matching::bucket::{group_of, mix};
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_core::matching::request::Request;
use wingbeat_core::outcome::Outcome;
use wingbeat_proto::{convert, v1};

use crate::cohorts::{CohortOutcome, OpenCohorts};
use crate::counters::{CounterKey, Counters, FinishedRequest};
use crate::host::{Host, text};
use crate::worker::attributes::{AttributeSet, Timing};
use crate::worker::attribution::{Attribution, CountedCluster, PendingAttribution, is_live, virtual_host};
use crate::worker::in_flight::{Backlog, InFlight, RequestClass, Tracking, Upload};

mod attribute;
mod attributes;
mod attribution;
mod in_flight;
mod inspect;
mod read;

/// How often a worker asks for policy when it has nothing to say. Jitter keeps workers apart.
const IDLE_TICK_MS: u64 = 1_000;
/// The controller may not ask for ticks shorter or longer than these.
const TICK_BOUNDS_MS: (u64, u64) = (20, 60_000);
/// A canary's error is reported at once, but at most this often.
const URGENT_APART_NS: u64 = 20_000_000;
/// A cluster of ours that the policy lacks makes a worker ask again, but at most this often.
const ASK_APART_NS: u64 = 100_000_000;
/// Requests in flight that a worker keeps in view. Beyond it, new ones are counted only when they finish.
const MAX_IN_FLIGHT: usize = 100_000;
/// Ticks are longer than granted by up to an eighth, each worker's by another part of it: workers that were answered
/// at the same time do not report at the same time for ever.
const JITTER_PARTS: u64 = 1_024;

/// What a worker knows and has counted. Lives as long as its VM.
#[derive(Debug)]
pub struct Worker {
    /// Random numbers: of the Envoy process, and of this worker.
    ids: (u64, u64),
    node: Option<(String, String)>,
    store: Counters,
    cohorts: OpenCohorts,
    in_flight: BTreeMap<u32, InFlight>,
    /// Requests that began when there was no room to keep them in view.
    unfollowed: u64,
    policy_version: u64,
    clusters: BTreeMap<String, CountedCluster>,
    /// What ended before the policy named its cluster.
    waiting: PendingAttribution,
    /// How virtual hosts are divided, where chance alone does not do it.
    divisions: BTreeMap<String, Assignment>,
    /// Random numbers drawn so far.
    drawn: u64,
    /// Sequence of the last report that was sent, and of the last that the controller has written down.
    sent: u64,
    durable: u64,
    last_sent_ns: u64,
    last_urgent_ns: u64,
    tick_ms: u64,
    urgent: bool,
    /// The last report that was sent had news. The next one is sent at the next tick, with or without: silence after news
    /// would not tell a node without traffic from one whose reports are late.
    had_news: bool,
    logged: u64,
}

impl Worker {
    /// Returns a worker that has counted nothing. The ids are random: they tell it from all others.
    pub fn new(boot_id: u64, worker_id: u64) -> Self {
        Self {
            ids: (boot_id, worker_id),
            node: None,
            store: Counters::default(),
            cohorts: OpenCohorts::default(),
            in_flight: BTreeMap::new(),
            unfollowed: 0,
            policy_version: 0,
            clusters: BTreeMap::new(),
            waiting: PendingAttribution::default(),
            divisions: BTreeMap::new(),
            drawn: 0,
            sent: 0,
            durable: 0,
            last_sent_ns: 0,
            last_urgent_ns: 0,
            tick_ms: IDLE_TICK_MS,
            urgent: false,
            had_news: false,
            logged: 0,
        }
    }

    /// Starts ticking: called whenever Envoy makes a plugin context.
    pub fn configure(&mut self, host: &dyn Host) {
        // The first tick comes soon: until it does there is no policy.
        host.set_tick(1);
        self.urgent = true;
    }

    /// Notes that a request has started, and marks it for the routes where rules or users decide.
    pub fn begin(&mut self, host: &dyn Host, stream: u32) {
        // Which host was called is read once: it does not change when a mark has the route chosen anew.
        let called = if self.divisions.is_empty() { None } else { virtual_host(host) };
        let class = called.as_deref().map_or(RequestClass::Unclassified, |called| self.mark(host, called));
        let started_ns = host.monotonic_nanos();
        if self.in_flight.len() < MAX_IN_FLIGHT {
            let upload = Upload::Complete { since_ns: started_ns };
            let request = InFlight { started_ns, looked_ns: 0, seen: Tracking::NotYet, upload, class, called };
            self.in_flight.insert(stream, request);
        } else {
            self.unfollowed = self.unfollowed.saturating_add(1);
            self.cohorts.spoil(started_ns);
        }
    }

    /// Counts a request that Envoy logs.
    pub fn end(&mut self, host: &dyn Host, stream: u32) {
        let mut request = self.in_flight.remove(&stream);
        if request.is_none() {
            // One that never began was answered by a filter before this one, as what browsers ask before requests of
            // other origins is: it has a cluster, but nobody sent it there.
            let Some(left) = self.unfollowed.checked_sub(1) else { return };
            self.unfollowed = left;
        }
        let class = request.as_ref().map_or_else(RequestClass::default, |request| request.class);
        let called = request.as_mut().and_then(|request| request.called.take());
        let timing = request.as_ref().map(|request| Timing::of(request, host));
        // One that was not followed has no cohort, and nothing is known of it but what is logged.
        let (seen, started_ns) =
            request.map_or((Tracking::Untracked, None), |request| (request.seen, Some(request.started_ns)));
        let (in_cohort, before) = (seen.is_open(), seen.before());
        let named = text(host, "xds\0cluster_name");
        let place = match (seen, named) {
            (Tracking::NotYet | Tracking::Untracked | Tracking::At(_) | Tracking::Sending(_), Some(name)) => {
                // Nobody knows when one began that was not followed: its route says whose it is.
                match self.attribute(host, name, class, called.clone(), started_ns.unwrap_or_default()) {
                    Attribution::Counted(place) => place,
                    Attribution::Unassigned { cluster, rev } => {
                        if self.asks_for_policy(host, &cluster, rev) {
                            self.hurry(host);
                        }
                        let timing = timing.unwrap_or_else(|| Timing::logged(host));
                        self.await_policy(host, cluster, rev, class, called, timing);
                        return;
                    }
                    Attribution::None => return,
                }
            }
            (Tracking::NotYet | Tracking::Untracked, None) | (Tracking::Forgotten, _) => return,
            // One that was counted at a cluster while it ran finishes there.
            (Tracking::At(place) | Tracking::Sending(place), None)
            | (Tracking::Overdue(place) | Tracking::Stream(place) | Tracking::Answering { place, .. }, _) => place,
        };
        // Of a rollout that is over, nothing is counted any more.
        let Some(counted) = self.clusters.get_mut(&place.cluster).filter(|it| it.policy.epoch == place.epoch) else {
            return;
        };
        let reading = AttributeSet::of(&counted.policy);
        let read_rev = counted.is_routed_by(place.stratum, called.as_deref())
            && !std::mem::replace(&mut counted.rev_is_known, true);
        let timing = timing.unwrap_or_else(|| Timing::logged(host));
        let finished = FinishedRequest {
            group: class.group(),
            ..self.read(host, &place.cluster, reading, timing, before, read_rev)
        };
        self.store.finish(&place, &finished, self.next_sequence());
        if let Some(started_ns) = started_ns.filter(|_| self.cohorts.on()) {
            self.count_in_cohort(&place, &finished, started_ns, in_cohort);
        }
        let failed = finished.abandoned || finished.stalled || finished.outcome.is_some_and(Outcome::is_error);
        if failed && reading.canary {
            self.hurry(host);
        }
    }

    /// Looks at old requests, and reports if there is news or it is time to ask for policy.
    pub fn tick(&mut self, host: &dyn Host) {
        let now = host.monotonic_nanos();
        let rest = self.inspect(host, now);
        self.close_cohorts(now);
        self.clusters.values_mut().for_each(|counted| counted.rev_is_known = false);
        let idle_ns = IDLE_TICK_MS.saturating_mul(1_000_000);
        // One in a hurry may want an answer rather than have news.
        let urgent = std::mem::take(&mut self.urgent);
        let idle = now.saturating_sub(self.last_sent_ns) >= idle_ns || self.sent == 0;
        // While there is more to look at, ticks are short, and would each make a report.
        let due = rest == Backlog::None && (self.had_news || self.store.has_changes(self.sent));
        if urgent || idle || due {
            self.report(host, now, urgent);
        }
        if urgent {
            self.last_urgent_ns = now;
        }
        // Set in each: of several plugin contexts in one VM, each has ticks of its own, and any of them may be the one
        // that was asked to hurry.
        host.set_tick(match rest {
            Backlog::None => self.period_ms(),
            Backlog::Some => 1,
        });
    }

    /// Takes the controller's answer. What cannot be read changes nothing: the last good policy stays.
    pub fn reply(&mut self, host: &dyn Host, body: &[u8]) {
        let Ok(reply) = v1::ReportResponse::decode(body) else { return };
        self.durable = self.durable.max(reply.durable.min(self.sent));
        if reply.send_all {
            self.durable = 0;
            self.hurry(host);
        }
        let mut dropped = false;
        if let Some(policy) = reply.policy
            && let Ok(divisions) = convert::policy::divisions(&policy)
        {
            self.divisions = divisions.into_iter().collect();
            self.policy_version = policy.version;
            let now = host.monotonic_nanos();
            self.cohorts.switch(policy.cohorts, now);
            // What ended at a cluster before it was known is in no cohort: those that are open are not whole there.
            if policy.clusters.iter().any(|cluster| !self.clusters.contains_key(&cluster.cluster)) {
                self.cohorts.spoil(now);
            }
            let mut before = std::mem::take(&mut self.clusters);
            let counted = |policy: v1::ClusterPolicy| {
                let before = before.get_mut(&policy.cluster);
                (policy.cluster.clone(), CountedCluster::new(policy, before, now))
            };
            self.clusters = policy.clusters.into_iter().map(counted).collect();
            // What was none of ours may be now.
            for request in self.in_flight.values_mut().filter(|request| request.seen == Tracking::Untracked) {
                (request.seen, request.looked_ns) = (Tracking::NotYet, 0);
            }
            let clusters = &self.clusters;
            let is_live = |place: &CounterKey| is_live(clusters, place);
            dropped = self.store.make_room(is_live);
            self.assign(host);
        }
        let clusters = &self.clusters;
        dropped |= self.store.retain(self.durable, |place| is_live(clusters, place));
        if dropped {
            self.forget_dropped();
        }
        let tick_ms = match reply.next_tick_ms {
            0 => self.tick_ms,
            millis => u64::from(millis).clamp(TICK_BOUNDS_MS.0, TICK_BOUNDS_MS.1),
        };
        if tick_ms != self.tick_ms {
            self.tick_ms = tick_ms;
            if !self.urgent {
                host.set_tick(self.period_ms());
            }
        }
    }

    /// Returns the time from one tick to the next.
    const fn period_ms(&self) -> u64 {
        period_ms(self.tick_ms, self.ids.1)
    }

    fn next_sequence(&self) -> u64 {
        self.sent.saturating_add(1)
    }

    /// Sets the headers that the routes of this virtual host decide by. Returns whose request it is.
    fn mark(&mut self, host: &dyn Host, called: &str) -> RequestClass {
        let Some(division) = self.divisions.get(called) else { return RequestClass::Unclassified };
        self.drawn = self.drawn.wrapping_add(1);
        let request = Request::from_pairs(host.request_headers());
        let mark = division.mark(&request, mix(self.ids.1, self.drawn));
        let (name, value) = match mark {
            RouteMark::Canary(token) => (ARM_HEADER, Some(token.to_owned())),
            RouteMark::Primary | RouteMark::HeldBack => (ARM_HEADER, None),
            RouteMark::Bucket(bucket) => (BUCKET_HEADER, Some(bucket.to_string())),
            RouteMark::Unassigned => (BUCKET_HEADER, None),
        };
        // What a client sent in its place is overwritten; nothing is removed that is not there, which would cost a
        // call for nothing.
        if value.is_some() || request.headers.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(name)) {
            host.set_request_header(name, value.as_deref().map(str::as_bytes));
        }
        match mark {
            RouteMark::HeldBack => RequestClass::HeldBack,
            RouteMark::Bucket(bucket) => RequestClass::Group(group_of(bucket)),
            RouteMark::Canary(_) | RouteMark::Primary | RouteMark::Unassigned => RequestClass::Unclassified,
        }
    }

    /// Returns true if the policy should be asked for before the tick: it is old, and lacks a cluster that routes of this
    /// rev lead to. Once asked for those, it is no more often than granted: they may be of a rollout that is over.
    fn asks_for_policy(&mut self, host: &dyn Host, cluster: &str, rev: u64) -> bool {
        let since = host.monotonic_nanos().saturating_sub(self.last_sent_ns);
        if since < ASK_APART_NS {
            return false;
        }
        self.waiting.is_new(cluster, rev) || since >= self.tick_ms.saturating_mul(1_000_000)
    }

    fn count_in_cohort(&mut self, place: &CounterKey, finished: &FinishedRequest, started_ns: u64, in_cohort: bool) {
        let Some(CountedCluster { policy, .. }) = self.clusters.get(&place.cluster) else { return };
        if let Some(rev) = finished.rev {
            self.cohorts.routed(&policy.canary, rev, started_ns);
        }
        let judged = finished.outcome.filter(|outcome| outcome.is_judged() && !finished.stream && in_cohort);
        if let Some(outcome) = judged {
            let became = CohortOutcome::Finished { micros: finished.micros, error: outcome.is_error() };
            self.cohorts.record(&place.cluster, place.stratum, started_ns, became);
        }
    }

    fn close_cohorts(&mut self, now: u64) {
        if !self.cohorts.on() {
            return;
        }
        let sequence = self.next_sequence();
        let (in_flight, clusters) = (&self.in_flight, &self.clusters);
        let still_open = in_flight.values().filter(|request| request.seen.is_open()).map(|request| request.started_ns);
        let canary_of = |cluster: &str| clusters.get(cluster).map(|counted| counted.policy.canary.as_str());
        for closed in self.cohorts.close(now, still_open, canary_of) {
            let Some(counted) = clusters.get(&closed.cluster) else { continue };
            let place = CounterKey { epoch: counted.policy.epoch, stratum: closed.stratum, cluster: closed.cluster };
            self.store.close(&place, &closed.results, sequence);
        }
    }

    /// Reports soon: by a tick, since a call made while logging never gets its reply.
    fn hurry(&mut self, host: &dyn Host) {
        if self.urgent {
            return;
        }
        self.urgent = true;
        let since = host.monotonic_nanos().saturating_sub(self.last_urgent_ns);
        let wait_ms = URGENT_APART_NS.saturating_sub(since) / 1_000_000;
        host.set_tick(wait_ms.max(1));
    }

    fn report(&mut self, host: &dyn Host, now: u64, urgent: bool) {
        let (node_id, node_cluster) = self.node(host);
        let sequence = self.next_sequence();
        let has_news = self.store.has_changes(self.sent);
        let request = v1::ReportRequest {
            node_id,
            node_cluster,
            boot_id: self.ids.0,
            worker_id: self.ids.1,
            sequence,
            policy_version: self.policy_version,
            filter_version: env!("CARGO_PKG_VERSION").to_owned(),
            automaton_format: AUTOMATON_FORMAT,
            clusters: self.store.changes(self.durable, sequence),
            urgent,
            since: self.durable,
        };
        // What Envoy does not take stays news: the sequence goes on only with a report that went out.
        if host.send(&request.encode_to_vec()) {
            self.sent = sequence;
            self.last_sent_ns = now;
            self.had_news = has_news;
        }
    }

    fn node(&mut self, host: &dyn Host) -> (String, String) {
        if self.node.is_none() {
            let id = text(host, "xds\0node\0id");
            self.node = id.map(|id| (id, text(host, "xds\0node\0cluster").unwrap_or_default()));
        }
        self.node.clone().unwrap_or_default()
    }
}

/// Returns the time from one tick to the next of a worker that is granted this tick, in milliseconds.
pub const fn period_ms(tick_ms: u64, worker: u64) -> u64 {
    let part = worker % (JITTER_PARTS / 8);
    tick_ms.saturating_add(tick_ms.saturating_mul(part) / JITTER_PARTS)
}

#[cfg(test)]
mod tests;
