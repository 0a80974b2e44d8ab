//! The way into the engine: a lane for each kind of message, so that none waits behind another kind.
//!
//! Reports come by the thousand and may be refused, since filters send again; commands, answers and configuration are few
//! and must get through. The engine takes them in rounds: everything of the other lanes and a bounded number of reports,
//! and decides between two rounds. Reports that can wait are gathered for some milliseconds: a round costs more than a
//! report.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wingbeat_api::desired_state::{Change, DesiredState};
use wingbeat_control::view::{ProxyView, RolloutsView};
use wingbeat_core::id::CanaryName;
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::server::{Peer, Share, Shares};

use crate::committer::Outcome;
use crate::outbound::messenger::Answered;
use crate::verb::{Refusal, Verb};

/// Reports that may wait: two seconds of all that is granted. More are refused, and so are those of a source that would
/// have more in here than there is room left for all others: half of it, if it is alone.
const MAX_REPORTS: usize = 4_096;
/// Reports of one round, from all sources in turn: a few milliseconds of work. The engine decides before it takes more.
const REPORTS_PER_ROUND: usize = 256;
/// So long a report waits for others to share its round with, unless a canary fails in it or something else is to be done.
const GATHER_FOR: Duration = Duration::from_millis(5);
/// Commands that may wait. More are refused as too many.
const MAX_COMMANDS: usize = 1_024;
/// Queries that may wait; of those for the proxies, one answer is for all. More are refused as too many.
const MAX_QUERIES: usize = 1_024;
/// An engine that has not begun a round for so long hangs: it begins several a second. A slow disk may take seconds.
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(30);

/// A report, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) peer: Peer,
    pub(crate) request: Box<ReportRequest>,
    pub(crate) reply: oneshot::Sender<Result<ReportResponse, ReportRefusal>>,
}

/// What a person or a script wants, or somebody outside has answered.
#[derive(Debug)]
pub(crate) enum Order {
    Command { canary: CanaryName, verb: Verb, id: String, reply: oneshot::Sender<Result<(), Refusal>> },
    Answer(Answered),
}

/// Where the answer to a query for the proxies goes.
pub(crate) type ProxiesReply = oneshot::Sender<Arc<Vec<ProxyView>>>;

/// Where the answer to a query for a canary's rollouts goes: nothing if there is no such canary.
pub(crate) type RolloutsReply = oneshot::Sender<Option<Box<RolloutsView>>>;

/// What somebody wants to see that is made only for who asks.
#[derive(Debug)]
pub(crate) enum Query {
    Proxies(ProxiesReply),
    Rollouts(CanaryName, RolloutsReply),
}

impl Query {
    /// Returns true if nobody waits for the answer any more.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Proxies(reply) => reply.is_closed(),
            Self::Rollouts(_, reply) => reply.is_closed(),
        }
    }
}

/// What the engine takes at once. Configuration first: it is older than what was said of it.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) desired: Option<Box<DesiredState>>,
    pub(crate) stored: Vec<Outcome>,
    /// Of what is in the setup, if there is one.
    pub(crate) change: Change,
    pub(crate) orders: Vec<Order>,
    pub(crate) queries: Vec<Query>,
    pub(crate) reports: Vec<Report>,
}

/// A cheap, cloneable end of all lanes.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    places: Shares,
    filled: Condvar,
    opened: Instant,
    /// When the latest round began, in milliseconds since it was opened.
    beat: AtomicU64,
}

#[derive(Debug, Default)]
struct Lanes {
    reports: Reports,
    /// At most [`MAX_COMMANDS`] commands, and an answer for each question that is open.
    orders: VecDeque<Order>,
    /// What came of each commit.
    stored: Vec<Outcome>,
    queries: Vec<Query>,
    /// The latest: one that was not looked at yet is out of date.
    desired: Option<Box<DesiredState>>,
    /// All that changed since: as much as there are canaries and files, however often they change.
    change: Change,
    /// Something is there that is to be taken at once.
    is_pressing: bool,
    waits_for: WaitsFor,
    is_closed: bool,
}

/// What the engine is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum WaitsFor {
    /// It is at work, and looks by itself.
    #[default]
    Nothing,
    Anything,
    /// It has reports that can wait.
    Pressing,
}

/// Whether something can wait for others to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Pressing,
    CanWait,
}

/// Reports that wait, by source. One that sends thousands waits behind itself: others would be heard a tick later.
#[derive(Debug, Default)]
struct Reports {
    /// Each with its place, of which its source has so many.
    waiting: BTreeMap<String, VecDeque<(Share, Report)>>,
    /// The sources that have some, in the order of their turns.
    turns: VecDeque<String>,
    /// All of them.
    count: usize,
}

impl Reports {
    fn put(&mut self, source: String, place: Share, report: Report) {
        let waiting = self.waiting.entry(source.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(source);
        }
        waiting.push_back((place, report));
        self.count = self.count.saturating_add(1);
    }

    /// Takes at most so many, one of each source after the other.
    fn take(&mut self, most: usize) -> Vec<Report> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(source) = self.turns.pop_front()
        {
            let Some(waiting) = self.waiting.get_mut(&source) else { continue };
            taken.extend(waiting.pop_front().map(|(_, report)| report));
            if waiting.is_empty() {
                self.waiting.remove(&source);
            } else {
                self.turns.push_back(source);
            }
        }
        self.count = self.count.saturating_sub(taken.len());
        taken
    }
}

impl Mailbox {
    #[expect(clippy::disallowed_methods, reason = "the pulse is real time")]
    pub(crate) fn open() -> Self {
        let (lanes, filled, places) = (Mutex::default(), Condvar::new(), Shares::new(MAX_REPORTS));
        Self(Arc::new(Shared { lanes, places, filled, opened: Instant::now(), beat: AtomicU64::new(0) }))
    }

    /// Hands a report in. False if there is no room for it, or none for more of this source.
    pub(crate) fn report(&self, report: Report) -> bool {
        let source = report.peer.source(&report.request.node_id);
        let Some(place) = self.0.places.take(&source, 1) else { return false };
        let urgency = if report.request.urgent { Urgency::Pressing } else { Urgency::CanWait };
        self.put(urgency, |lanes| {
            lanes.reports.put(source, place, report);
            true
        })
    }

    /// Hands a command in. False if there is no room.
    pub(crate) fn command(
        &self,
        canary: CanaryName,
        verb: Verb,
        id: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) -> bool {
        self.order(Order::Command { canary, verb, id, reply })
    }

    /// Asks for something to see. False if there is no room.
    pub(crate) fn query(&self, query: Query) -> bool {
        self.put(Urgency::Pressing, |lanes| {
            lanes.queries.retain(|query| !query.is_closed());
            let fits = lanes.queries.len() < MAX_QUERIES;
            if fits {
                lanes.queries.push(query);
            }
            fits
        })
    }

    fn order(&self, order: Order) -> bool {
        self.put(Urgency::Pressing, |lanes| {
            let is_bounded = |order: &&Order| match order {
                Order::Command { .. } => true,
                Order::Answer(_) => false,
            };
            let fits = lanes.orders.iter().filter(is_bounded).count() < MAX_COMMANDS;
            if fits {
                lanes.orders.push_back(order);
            }
            fits
        })
    }

    /// Hands in what somebody outside has answered: one to a question, so that there is always room.
    pub(crate) fn answer(&self, answered: Answered) {
        self.put(Urgency::Pressing, |lanes| {
            lanes.orders.push_back(Order::Answer(answered));
            true
        });
    }

    /// Hands in what came of a commit: one to a commit, so that there is always room. It is kept though nothing else is
    /// taken any more.
    pub(crate) fn stored(&self, outcome: Outcome) {
        let mut lanes = self.lock();
        lanes.stored.push(outcome);
        self.wake(lanes, Urgency::Pressing);
    }

    /// Returns what came of commits and was not taken yet.
    pub(crate) fn take_stored(&self) -> Vec<Outcome> {
        std::mem::take(&mut self.lock().stored)
    }

    /// Hands in what is to be managed from now on. False if the engine has ended.
    pub(crate) fn configure(&self, desired: DesiredState) -> bool {
        self.put(Urgency::Pressing, |lanes| {
            lanes.desired = Some(Box::new(desired));
            lanes.change = Change::default();
            true
        })
    }

    /// Hands in what is to be managed in another way from now on. False if the engine has ended.
    pub(crate) fn change(&self, change: Change) -> bool {
        self.put(Urgency::Pressing, |lanes| {
            lanes.change.then(change);
            true
        })
    }

    /// Nothing more is taken.
    pub(crate) fn close(&self) {
        let mut lanes = self.lock();
        *lanes = Lanes { is_closed: true, stored: std::mem::take(&mut lanes.stored), ..Lanes::default() };
        self.0.filled.notify_all();
    }

    /// Waits for something to do, at most for so long. Returns nothing once the lanes are closed.
    pub(crate) fn take(&self, wait: Duration) -> Option<Round> {
        let ends = self.0.opened.elapsed().saturating_add(wait);
        let mut lanes = self.wait(self.lock(), WaitsFor::Anything, wait);
        if !lanes.is_pressing && lanes.reports.count > 0 {
            let left = ends.saturating_sub(self.0.opened.elapsed());
            lanes = self.wait(lanes, WaitsFor::Pressing, left.min(GATHER_FOR));
        }
        if lanes.is_closed {
            return None;
        }
        self.0.beat.store(self.age(), Ordering::Relaxed);
        let reports = lanes.reports.take(REPORTS_PER_ROUND);
        lanes.is_pressing = lanes.reports.count > 0;
        Some(Round {
            desired: lanes.desired.take(),
            stored: std::mem::take(&mut lanes.stored),
            change: std::mem::take(&mut lanes.change),
            orders: lanes.orders.drain(..).collect(),
            queries: std::mem::take(&mut lanes.queries),
            reports,
        })
    }

    fn wait<'a>(&self, mut lanes: MutexGuard<'a, Lanes>, what: WaitsFor, wait: Duration) -> MutexGuard<'a, Lanes> {
        let is_there = |lanes: &Lanes| {
            let suits = match what {
                WaitsFor::Nothing => true,
                WaitsFor::Anything => lanes.reports.count > 0,
                WaitsFor::Pressing => false,
            };
            suits || lanes.is_pressing || lanes.is_closed
        };
        lanes.waits_for = what;
        let waited = self.0.filled.wait_timeout_while(lanes, wait, |lanes| !is_there(lanes));
        let (mut lanes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        lanes.waits_for = WaitsFor::Nothing;
        lanes
    }

    /// Returns true if the engine takes what comes: it has not ended, and does not hang.
    pub(crate) fn is_alive(&self) -> bool {
        let since = self.age().saturating_sub(self.0.beat.load(Ordering::Relaxed));
        !self.lock().is_closed && u128::from(since) < WATCHDOG_TIMEOUT.as_millis()
    }

    fn put(&self, urgency: Urgency, put: impl FnOnce(&mut Lanes) -> bool) -> bool {
        let mut lanes = self.lock();
        let done = !lanes.is_closed && put(&mut lanes);
        if done {
            self.wake(lanes, urgency);
        }
        done
    }

    /// Wakes the engine if it waits for this.
    fn wake(&self, mut lanes: MutexGuard<'_, Lanes>, urgency: Urgency) {
        lanes.is_pressing |= urgency == Urgency::Pressing || lanes.reports.count >= REPORTS_PER_ROUND;
        let wakes = match lanes.waits_for {
            WaitsFor::Nothing => false,
            WaitsFor::Anything => true,
            WaitsFor::Pressing => lanes.is_pressing,
        };
        if wakes {
            // Once: it takes all that comes until it is awake.
            lanes.waits_for = WaitsFor::Nothing;
        }
        drop(lanes);
        if wakes {
            self.0.filled.notify_one();
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // A std mutex, never held across an await: moves within queues are all there is.
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn report(mailbox: &Mailbox) -> bool {
        report_of([10, 0, 0, 9], mailbox)
    }

    fn report_of(host: [u8; 4], mailbox: &Mailbox) -> bool {
        let (reply, _) = oneshot::channel();
        mailbox.report(Report { peer: Peer::Uncertified(host.into()), request: Box::default(), reply })
    }

    fn command(mailbox: &Mailbox) -> bool {
        let (reply, _) = oneshot::channel();
        mailbox.command(CanaryName::new("prod", "backend"), Verb::Abort, "1".to_owned(), reply)
    }

    #[test]
    fn a_flood_of_reports_keeps_nothing_else_out() {
        let mailbox = Mailbox::open();
        while report(&mailbox) {}
        assert!(
            command(&mailbox)
                && mailbox.configure(DesiredState::default())
                && mailbox.configure(DesiredState::default())
        );
        let round = mailbox.take(NOW).unwrap();
        assert_eq!((round.reports.len(), round.orders.len(), round.desired.is_some()), (REPORTS_PER_ROUND, 1, true));
        let round = mailbox.take(NOW).unwrap();
        assert_eq!((round.reports.len(), round.orders.len(), round.desired.is_some()), (REPORTS_PER_ROUND, 0, false));
        assert!(report(&mailbox), "there is room again");
    }

    /// One source that sends all it can, and others that send what they have to.
    #[test]
    fn a_flood_of_one_voice_leaves_room_for_the_others() {
        let mailbox = Mailbox::open();
        while report(&mailbox) {}
        for host in 10..20 {
            assert!((0..20).all(|_| report_of([10, 0, 0, host], &mailbox)), "host {host} gets in");
        }
        assert!(!report(&mailbox), "the flood has more than its share still");
        let (mut rounds, mut taken) = (0, 0);
        while let Some(round) = mailbox.take(NOW).filter(|round| !round.reports.is_empty()) {
            (rounds, taken) = (rounds + 1, taken + round.reports.len());
        }
        assert!((MAX_REPORTS / 2..MAX_REPORTS).contains(&taken), "{taken} in {rounds} rounds");
        assert!(report(&mailbox), "places are given back");
    }

    /// Who sends as much as there is room for delays nobody else: the others are in the next round.
    #[test]
    fn a_flood_of_one_voice_is_taken_in_turn_with_the_others() {
        let mailbox = Mailbox::open();
        while report(&mailbox) {}
        for host in 10..20 {
            assert!(report_of([10, 0, 0, host], &mailbox) && report_of([10, 0, 0, host], &mailbox));
        }
        let round = mailbox.take(NOW).unwrap();
        let flood = Peer::Uncertified([10, 0, 0, 9].into());
        let others = round.reports.iter().filter(|report| report.peer != flood).count();
        assert_eq!((round.reports.len(), others), (REPORTS_PER_ROUND, 20));
        let mut left = 0;
        while let Some(round) = mailbox.take(NOW).filter(|round| !round.reports.is_empty()) {
            left += round.reports.len();
        }
        assert!(left >= MAX_REPORTS / 2 - REPORTS_PER_ROUND, "what waits is not lost: {left}");
    }

    /// However many ask for the proxies: commands have a lane of their own, and a query whose client has left goes.
    #[test]
    fn queries_take_no_place_of_commands_and_are_dropped_with_who_asked() {
        let mailbox = Mailbox::open();
        let mut waiting = Vec::new();
        for number in 0..=MAX_QUERIES {
            let (reply, shown) = oneshot::channel();
            assert_eq!(mailbox.query(Query::Proxies(reply)), number < MAX_QUERIES);
            waiting.push(shown);
        }
        assert!(command(&mailbox));
        drop(waiting);
        let (reply, _shown) = oneshot::channel();
        assert!(mailbox.query(Query::Proxies(reply)));
        let round = mailbox.take(NOW).unwrap();
        assert_eq!((round.queries.len(), round.orders.len()), (1, 1));
    }

    /// Reports share a round; one in which a canary fails waits for nobody, and neither does anything else.
    #[test]
    fn reports_are_gathered_and_what_presses_is_not() {
        let long = Duration::from_mins(1);
        let urgent = |mailbox: &Mailbox| {
            let (reply, _) = oneshot::channel();
            let request = Box::new(ReportRequest { urgent: true, ..ReportRequest::default() });
            mailbox.report(Report { peer: Peer::Uncertified([10, 0, 0, 9].into()), request, reply })
        };
        let mailbox = Mailbox::open();
        let engine = mailbox.clone();
        let (told, taken) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Some(round) = engine.take(long) {
                if told.send((round.reports.len(), round.orders.len())).is_err() {
                    break;
                }
            }
        });
        let next = || taken.recv_timeout(long).unwrap();
        assert!(report(&mailbox));
        assert_eq!(next(), (1, 0), "it is taken, alone too");
        assert!(urgent(&mailbox));
        assert_eq!(next(), (1, 0));
        assert!(command(&mailbox));
        assert_eq!(next(), (0, 1));
        mailbox.close();
        thread.join().unwrap();

        let mailbox = Mailbox::open();
        let all = REPORTS_PER_ROUND + 1;
        assert!((0..all).all(|_| report(&mailbox)));
        let reports = |wait| mailbox.take(wait).unwrap().reports.len();
        assert_eq!([reports(long), reports(long)], [REPORTS_PER_ROUND, 1], "a full round, and what is left of it");
        assert!(report(&mailbox) && urgent(&mailbox));
        assert_eq!(reports(long), 2, "what waited goes along");
        assert!(report(&mailbox));
        assert_eq!(reports(NOW), 1, "what is due is not late for it");
    }

    #[test]
    fn commands_are_bounded_and_an_end_is_seen_by_all() {
        let mailbox = Mailbox::open();
        for _ in 0..MAX_COMMANDS {
            assert!(command(&mailbox));
        }
        assert!(!command(&mailbox) && mailbox.is_alive());
        mailbox.close();
        assert!(!command(&mailbox) && !report(&mailbox) && !mailbox.configure(DesiredState::default()));
        assert!(mailbox.take(NOW).is_none() && !mailbox.is_alive());
    }
}
