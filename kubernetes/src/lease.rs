//! Who leads: one of several replicas, by a Lease, in the protocol of client-go.
//!
//! ```text
//!  action(now) ─► read, create, update ─► API server ─► read, written, failed ─► permit(now)
//! ```
//!
//! A machine that is told the time. What another replica's clock says is never compared with ours: a Lease is out of date when
//! it has not changed for its duration by our own clock. It leads from the moment at which the last renewal was *sent*, and
//! for less than others wait: between the end of the permit and a takeover are three seconds, in which what was sent before
//! is answered or given up.

use serde_json::{Value, json};
use wingbeat_core::time::{Span, Timestamp};

use crate::failure::Failure;
use crate::object::{number, put, text};
use crate::permit::Permit;
use crate::resource::Resource;

/// How long others wait, in whole seconds, after a Lease changed for the last time. Then they take it. With what it takes to see that
/// and to begin, the next one leads within 15 s after the last one was killed.
const DURATION_SECS: u64 = 13;
/// How often a leader renews its Lease.
const RENEW_INTERVAL: Span = Span::from_secs(2);
/// How long a leader writes after it sent its last successful renewal. Beyond, it leads no more until it has renewed.
pub const PERMIT_DURATION: Span = Span::from_secs(10);
/// Time for one attempt to read or write the Lease. Two fit into a permit, so that one slow answer costs nothing.
pub const ATTEMPT_TIMEOUT: Span = Span::from_secs(4);
/// How often a replica that waits reads the Lease: what was released is taken within a second.
const POLL_INTERVAL: Span = Span::from_millis(750);
/// After a failed attempt, a leader tries again this much later.
const RETRY_INTERVAL: Span = Span::from_millis(500);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing before this moment.
    Wait(Timestamp),
    /// The Lease is to be read.
    Read,
    /// It is to be created.
    Create(Value),
    /// It is to be replaced. The version in it is the one that was read.
    Update(Value),
}

/// A Lease as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    object: Value,
    /// When it was first found like this, by our clock.
    at: Timestamp,
}

impl Observed {
    fn holder(&self) -> &str {
        text(&self.object, "/spec/holderIdentity").unwrap_or_default()
    }

    fn transitions(&self) -> u64 {
        number(&self.object, "/spec/leaseTransitions").unwrap_or_default()
    }

    /// Returns when its holder leads no more, unless it changes before.
    fn end(&self) -> Timestamp {
        let duration = number(&self.object, "/spec/leaseDurationSeconds").unwrap_or(DURATION_SECS);
        self.at.plus(Span::from_secs(duration))
    }

    /// Returns true if its holder may still lead.
    fn is_valid(&self, now: Timestamp) -> bool {
        !self.holder().is_empty() && now < self.end()
    }
}

/// What is done at the next moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    Write,
}

/// One replica's part in an election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    namespace: String,
    name: String,
    /// What no other replica is called.
    identity: String,
    /// What the identities of earlier processes of this replica begin with, which have all ended.
    predecessors: Option<String>,
    observed: Option<Observed>,
    /// When the last successful renewal was sent, while we lead.
    renewed: Option<Timestamp>,
    next: (Next, Timestamp),
    /// No leader to come has a lower epoch, also where somebody has deleted the Lease.
    floor: u64,
}

impl Election {
    /// Returns the part of a replica of this identity, which no other one has, also not an earlier process of the same Pod.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        let (namespace, name, identity) = (namespace.to_owned(), name.to_owned(), identity.to_owned());
        Self {
            namespace,
            name,
            identity,
            predecessors: None,
            observed: None,
            renewed: None,
            next: (Next::Read, Timestamp::EPOCH),
            floor: 0,
        }
    }

    /// Takes it that leaders of lower epochs have written: where the Lease was deleted, it does not begin anew.
    pub fn set_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// Takes it that processes whose identities begin like this have ended: a Lease of theirs is taken at once. Of a Pod, that holds
    /// for its former containers. Should one of them go on nevertheless, it finds another holder and a higher epoch.
    pub fn set_predecessors(&mut self, prefix: &str) {
        self.predecessors = Some(prefix.to_owned());
    }

    /// Returns the leave to write, if there is any.
    pub fn permit(&self, now: Timestamp) -> Option<Permit> {
        let until = self.renewed?.plus(PERMIT_DURATION);
        let epoch = self.observed.as_ref()?.transitions();
        (now < until).then_some(Permit { epoch, until })
    }

    /// Returns who had the Lease when it was read last, where that was another replica.
    pub fn other(&self) -> Option<&str> {
        let holder = self.observed.as_ref().map(Observed::holder);
        holder.filter(|holder| !holder.is_empty() && *holder != self.identity)
    }

    /// Returns what is to be done now.
    pub fn action(&self, now: Timestamp) -> Action {
        match self.next {
            (_, at) if now < at => {
                // The end of a permit is noticed when it comes.
                let end = self.permit(now).map(|permit| permit.until);
                Action::Wait(end.map_or(at, |end| end.min(at)))
            }
            // Whoever was paused for longer than its permit may have lost the Lease, and writes nothing before it knows.
            (Next::Write, _) if self.renewed.is_some() && self.permit(now).is_none() => Action::Read,
            (Next::Read, _) => Action::Read,
            (Next::Write, _) => match &self.observed {
                None => Action::Create(self.lease(None, now)),
                Some(observed) => Action::Update(self.lease(Some(observed), now)),
            },
        }
    }

    /// Takes the Lease as it was read; nothing: there is none.
    pub fn read(&mut self, lease: Option<Value>, now: Timestamp) {
        let Some(object) = lease else {
            (self.observed, self.renewed, self.next) = (None, None, (Next::Write, now));
            return;
        };
        let at = match &self.observed {
            Some(before) if before.object == object => before.at,
            Some(_) | None => now,
        };
        let observed = Observed { object, at };
        let is_ours = observed.holder() == self.identity;
        let is_predecessors = |prefix: &String| observed.holder().starts_with(prefix) && !is_ours;
        let is_free = !observed.is_valid(now) || self.predecessors.as_ref().is_some_and(is_predecessors);
        self.set_floor(observed.transitions().saturating_add(1));
        self.observed = Some(observed);
        if !is_ours || self.permit(now).is_none() {
            self.renewed = None;
        }
        let poll = now.plus(POLL_INTERVAL);
        let end = self.observed.as_ref().map_or(poll, Observed::end);
        self.next = if is_ours || is_free { (Next::Write, now) } else { (Next::Read, poll.min(end)) };
    }

    /// Takes it that the Lease was written, by an attempt that was sent at this moment.
    pub fn written(&mut self, lease: Value, sent: Timestamp) {
        let observed = Observed { object: lease, at: sent };
        self.set_floor(observed.transitions().saturating_add(1));
        self.observed = Some(observed);
        self.renewed = Some(sent);
        self.next = (Next::Write, sent.plus(RENEW_INTERVAL));
    }

    /// Takes it that an attempt failed. A leader that got no answer renews once more: if the first attempt was carried out after
    /// all, the second one is a conflict, and the Lease is read.
    pub fn failed(&mut self, failure: &Failure, now: Timestamp) {
        let is_stale = matches!(failure, Failure::Conflict(_) | Failure::Exists | Failure::NotFound(_));
        self.next = match self.permit(now) {
            Some(_) if !is_stale => (Next::Write, now.plus(RETRY_INTERVAL)),
            Some(_) => (Next::Read, now.plus(RETRY_INTERVAL)),
            None => (Next::Read, now.plus(POLL_INTERVAL)),
        };
    }

    /// Ends the leadership. Returns the Lease that lets the next one lead at once; nothing where we do not lead.
    pub fn release(&mut self, now: Timestamp) -> Option<Value> {
        let leads = self.permit(now).is_some();
        self.renewed = None;
        self.next = (Next::Read, now);
        let observed = self.observed.as_ref().filter(|observed| leads && observed.holder() == self.identity)?;
        let mut lease = observed.object.clone();
        let spec = lease.pointer_mut("/spec").and_then(Value::as_object_mut)?;
        put(spec, "holderIdentity", Some(json!("")));
        put(spec, "leaseDurationSeconds", Some(json!(1)));
        put(spec, "renewTime", Some(json!(micros(now))));
        put(spec, "acquireTime", Some(json!(micros(now))));
        Some(lease)
    }

    /// Returns the Lease as we hold it. What others have written beside stays.
    fn lease(&self, observed: Option<&Observed>, now: Timestamp) -> Value {
        let mut lease = observed.map_or_else(
            || {
                json!({
                    "apiVersion": Resource::LEASE.api_version(),
                    "kind": Resource::LEASE.kind,
                    "metadata": {"namespace": self.namespace, "name": self.name},
                })
            },
            |observed| observed.object.clone(),
        );
        let is_ours = observed.is_some_and(|observed| observed.holder() == self.identity);
        let transitions = match observed {
            Some(observed) if is_ours => observed.transitions(),
            Some(_) | None => self.floor,
        };
        if lease.pointer("/spec").is_none_or(|spec| !spec.is_object())
            && let Some(lease) = lease.as_object_mut()
        {
            lease.insert("spec".to_owned(), json!({}));
        }
        if let Some(spec) = lease.pointer_mut("/spec").and_then(Value::as_object_mut) {
            put(spec, "holderIdentity", Some(json!(self.identity)));
            put(spec, "leaseDurationSeconds", Some(json!(DURATION_SECS)));
            put(spec, "renewTime", Some(json!(micros(now))));
            put(spec, "leaseTransitions", Some(json!(transitions)));
            if !is_ours {
                put(spec, "acquireTime", Some(json!(micros(now))));
            }
        }
        lease
    }
}

/// Returns a time as Leases have it. It is for people and for others' eyes: nobody compares it.
fn micros(at: Timestamp) -> String {
    let micros = i64::try_from(at.as_nanos() / 1_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    /// As much of an API server as an election needs.
    #[derive(Debug, Default)]
    struct Server {
        lease: Option<Value>,
        version: u64,
    }

    impl Server {
        fn write(&mut self, mut lease: Value) -> Result<Value, ()> {
            let version = |lease: &Value| lease.pointer("/metadata/resourceVersion").cloned();
            if version(&lease) != self.lease.as_ref().and_then(version) {
                return Err(());
            }
            self.version += 1;
            let metadata = lease.pointer_mut("/metadata").unwrap().as_object_mut().unwrap();
            metadata.insert("resourceVersion".into(), json!(self.version.to_string()));
            self.lease = Some(lease.clone());
            Ok(lease)
        }

        /// Carries out what a replica wants, until it waits. Returns until when.
        fn serve(&mut self, election: &mut Election, now: Timestamp) -> Timestamp {
            for _ in 0..10 {
                match election.action(now) {
                    Action::Wait(until) => return until,
                    Action::Read => election.read(self.lease.clone(), now),
                    Action::Create(lease) | Action::Update(lease) => match self.write(lease) {
                        Ok(lease) => election.written(lease, now),
                        Err(()) => election.failed(&Failure::Conflict(String::new()), now),
                    },
                }
            }
            panic!("it never waits: {election:?}")
        }
    }

    #[test]
    fn a_process_that_is_started_again_does_not_wait_for_itself() {
        let (mut server, mut first, mut next) = (Server::default(), replica("pod_uid_1"), replica("pod_uid_2"));
        let mut other = replica("pod_other_1");
        next.set_predecessors("pod_uid_");
        server.serve(&mut first, at(0));
        other.set_predecessors("pod_other_");
        server.serve(&mut other, at(1));
        server.serve(&mut next, at(2));
        assert_eq!((epoch(&other, at(2)), epoch(&first, at(2)), epoch(&next, at(2))), (None, Some(0), Some(1)));
        // One that was not dead after all finds out at its next renewal.
        server.serve(&mut first, at(2_500));
        server.serve(&mut first, at(4_000));
        assert_eq!((epoch(&first, at(4_000)), first.other()), (None, Some("pod_uid_2")));
        server.serve(&mut next, at(4_100));
        assert_eq!(epoch(&next, at(4_100)), Some(1));
    }

    fn replica(identity: &str) -> Election {
        Election::new("wingbeat", "wingbeat", identity)
    }

    fn epoch(election: &Election, now: Timestamp) -> Option<u64> {
        election.permit(now).map(|permit| permit.epoch)
    }

    #[test]
    fn the_first_one_leads_and_renews() {
        let (mut server, mut a) = (Server::default(), replica("a"));
        assert_eq!(server.serve(&mut a, at(0)), at(2_000));
        assert_eq!(a.permit(at(0)), Some(Permit { epoch: 0, until: at(10_000) }));
        let first = server.lease.clone().unwrap();
        assert_eq!(
            first.pointer("/spec").unwrap(),
            &json!({
                "holderIdentity": "a", "leaseDurationSeconds": 13, "leaseTransitions": 0,
                "acquireTime": "2027-01-15T08:00:00.000000Z", "renewTime": "2027-01-15T08:00:00.000000Z",
            })
        );
        assert_eq!(server.serve(&mut a, at(2_001)), at(4_001));
        let renewed = server.lease.clone().unwrap();
        assert_eq!(renewed.pointer("/spec/renewTime").unwrap(), "2027-01-15T08:00:02.001000Z");
        assert_eq!(renewed.pointer("/spec/acquireTime"), first.pointer("/spec/acquireTime"));
        assert_eq!(a.permit(at(2_001)).unwrap().until, at(12_001));
    }

    #[test]
    fn who_waits_takes_over_after_the_duration_by_its_own_clock() {
        let (mut server, mut a, mut b) = (Server::default(), replica("a"), replica("b"));
        server.serve(&mut a, at(0));
        // Its clock is an hour ahead: that is no reason.
        let ahead = 3_600_000;
        assert_eq!(server.serve(&mut b, at(ahead)), at(ahead + 750));
        assert_eq!((b.other(), b.permit(at(ahead))), (Some("a"), None));
        assert_eq!(server.serve(&mut b, at(ahead + 12_999)), at(ahead + 13_000), "not a moment later than it may");
        assert_eq!(b.permit(at(ahead + 12_999)), None);
        server.serve(&mut b, at(ahead + 13_000));
        assert_eq!(epoch(&b, at(ahead + 13_000)), Some(1));
        server.serve(&mut a, at(17_000));
        assert_eq!((a.permit(at(17_000)), a.other()), (None, Some("b")));
    }

    #[test]
    fn what_is_released_is_taken_within_a_second() {
        let (mut server, mut a, mut b) = (Server::default(), replica("a"), replica("b"));
        server.serve(&mut a, at(0));
        let until = server.serve(&mut b, at(100));
        let released = a.release(at(200)).unwrap();
        assert_eq!(a.permit(at(200)), None);
        server.write(released).unwrap();
        server.serve(&mut b, until);
        assert!(until.since(at(200)) < Span::from_secs(1));
        assert_eq!(epoch(&b, until), Some(1));
        assert_eq!(a.release(at(300)), None, "it does not lead");
    }

    #[test]
    fn one_slow_attempt_costs_nothing_and_ten_seconds_without_success_end_it() {
        let (mut server, mut a) = (Server::default(), replica("a"));
        server.serve(&mut a, at(0));
        let Action::Update(_) = a.action(at(2_000)) else { panic!("it renews") };
        a.failed(&Failure::Timeout, at(6_000));
        assert_eq!(a.action(at(6_000)), Action::Wait(at(6_500)));
        assert!(matches!(a.action(at(6_500)), Action::Update(_)));
        assert!(a.permit(at(9_999)).is_some());
        a.failed(&Failure::Timeout, at(9_999));
        assert_eq!(a.action(at(9_999)), Action::Wait(at(10_000)), "the end of the permit is noticed when it comes");
        assert_eq!(a.permit(at(10_000)), None);
        // Nobody took it meanwhile: nobody else led, and it goes on under the same epoch.
        server.serve(&mut a, at(14_000));
        assert_eq!(epoch(&a, at(14_000)), Some(0));
    }

    /// What was written though no answer came is read, and not mistaken for somebody else's.
    #[test]
    fn an_attempt_without_an_answer_may_have_been_carried_out() {
        let (mut server, mut a) = (Server::default(), replica("a"));
        server.serve(&mut a, at(0));
        let Action::Update(lease) = a.action(at(2_000)) else { panic!("it renews") };
        server.write(lease).unwrap();
        a.failed(&Failure::Timeout, at(6_000));
        // A conflict with itself, which it finds out by reading.
        server.serve(&mut a, at(6_500));
        server.serve(&mut a, at(7_000));
        assert_eq!(a.permit(at(7_000)), Some(Permit { epoch: 0, until: at(17_000) }));
    }

    #[test]
    fn who_was_paused_writes_nothing_before_it_has_read() {
        let (mut server, mut a, mut b) = (Server::default(), replica("a"), replica("b"));
        server.serve(&mut a, at(0));
        server.serve(&mut b, at(0));
        server.serve(&mut b, at(15_000));
        assert_eq!(epoch(&b, at(15_000)), Some(1));
        assert_eq!((a.permit(at(60_000)), a.action(at(60_000))), (None, Action::Read));
        a.read(server.lease.clone(), at(60_000));
        assert!(matches!(a.action(at(60_000)), Action::Wait(_)));
    }

    #[test]
    fn what_others_wrote_beside_stays() {
        let mut a = replica("a");
        let lease = json!({
            "metadata": {"name": "wingbeat", "resourceVersion": "7", "labels": {"team": "a"}},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 4, "strategy": "OldestEmulationVersion"},
        });
        a.read(Some(lease), at(0));
        let Action::Update(lease) = a.action(at(0)) else { panic!("it is free") };
        assert_eq!(lease.pointer("/metadata/labels/team").unwrap(), "a");
        assert_eq!(lease.pointer("/spec/strategy").unwrap(), "OldestEmulationVersion");
        assert_eq!(lease.pointer("/spec/leaseTransitions").unwrap(), 5);
    }

    #[test]
    fn a_deleted_lease_is_made_anew_under_a_higher_epoch() {
        let (mut server, mut a) = (Server::default(), replica("a"));
        a.set_floor(7);
        server.serve(&mut a, at(0));
        assert_eq!(epoch(&a, at(0)), Some(7));
        server.lease = None;
        server.serve(&mut a, at(2_000));
        server.serve(&mut a, at(2_500));
        assert_eq!(epoch(&a, at(2_500)), Some(8));
    }

    proptest! {
        /// Replicas that run at random moments, lose answers and are paused: two never have a permit at the same time, and a
        /// later leader has a higher epoch.
        #[test]
        fn two_never_lead_at_the_same_time(
            steps in prop::collection::vec((0_usize..3, 1_u64..4_000, 0_u8..8), 1..300)
        ) {
            let mut server = Server::default();
            let mut replicas = ["a", "b", "c"].map(replica);
            let (mut now, mut last) = (0, None::<(usize, u64)>);
            for (index, pause, fault) in steps {
                now += pause;
                let (sent, election) = (at(now), &mut replicas[index]);
                match (election.action(sent), fault) {
                    (Action::Wait(_), _) => {}
                    (_, 0) => election.failed(&Failure::Timeout, sent),
                    (Action::Read, _) => election.read(server.lease.clone(), sent),
                    (Action::Create(lease) | Action::Update(lease), fault) => {
                        // An answer takes up to an attempt's time, in which the process may stand still.
                        now += u64::from(fault) * 500;
                        match server.write(lease) {
                            Ok(_) if fault == 1 => election.failed(&Failure::Timeout, at(now)),
                            Ok(lease) => election.written(lease, sent),
                            Err(()) => election.failed(&Failure::Conflict(String::new()), at(now)),
                        }
                    }
                }
                let leads: Vec<(usize, u64)> = replicas
                    .iter()
                    .enumerate()
                    .filter_map(|(index, replica)| Some((index, epoch(replica, at(now))?)))
                    .collect();
                prop_assert!(leads.len() <= 1, "{leads:?}");
                if let Some(leader) = leads.first() {
                    if let Some(last) = last.filter(|last| last.0 != leader.0) {
                        prop_assert!(leader.1 > last.1, "{last:?}, {leader:?}");
                    }
                    last = Some(*leader);
                }
            }
        }
    }
}
