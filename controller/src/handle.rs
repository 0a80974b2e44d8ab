//! How the outside talks to the running control plane.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, oneshot, watch};
use wingbeat_api::desired_state::{Change, DesiredState};
use wingbeat_control::view::{EventId, EventView, ProxyView, RolloutsView, ServerStatus};
use wingbeat_core::id::CanaryName;
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_xds_server::client_event::ClientEvent;
use wingbeat_xds_server::report_refusal::ReportRefusal;
use wingbeat_xds_server::server::{Cause, Intake, Peer};

use crate::mailbox::{Mailbox, Query, Report};
use crate::metrics::Rollouts;
use crate::refused_peers::RefusedPeers;
use crate::verb::{Refusal, Verb};

/// Events that are kept for those who ask later: as many as are stored.
#[expect(clippy::cast_possible_truncation, reason = "a small number")]
const MAX_EVENTS: usize = wingbeat_control::engine::MAX_EVENTS as usize;

/// A cheap, cloneable way to the running control plane.
#[derive(Debug, Clone)]
pub struct Handle {
    mailbox: Mailbox,
    news: ClientEventQueue,
    refused: RefusedPeers,
    rollouts: Rollouts,
    board: watch::Receiver<Arc<ServerStatus>>,
    events: EventLog,
}

/// News of clients, until the engine looks. None may get lost, or a client that left would stay for ever; there are
/// few: a client answers one response of a type at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientEventQueue(Arc<Mutex<Vec<ClientEvent>>>);

impl ClientEventQueue {
    /// Returns what came since it was looked at last, oldest first.
    pub(crate) fn take(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.lock())
    }

    fn put(&self, news: ClientEvent) {
        self.lock().push(news);
    }

    // A std mutex, never held across an await: a push and a take are all there is.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ClientEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    pub(crate) fn new(
        mailbox: Mailbox,
        news: ClientEventQueue,
        rollouts: Rollouts,
        board: watch::Receiver<Arc<ServerStatus>>,
        events: EventLog,
    ) -> Self {
        Self { mailbox, news, refused: RefusedPeers::default(), rollouts, board, events }
    }

    /// Returns what is shown at this moment.
    pub fn status(&self) -> Arc<ServerStatus> {
        self.board.borrow().clone()
    }

    /// Returns a receiver that wakes whenever what is shown changes.
    pub fn watch(&self) -> watch::Receiver<Arc<ServerStatus>> {
        self.board.clone()
    }

    /// Returns how many peers were refused since the start.
    pub const fn refused_peers(&self) -> &RefusedPeers {
        &self.refused
    }

    /// Returns the rollouts that ended since the start.
    pub const fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// Returns the log of events.
    pub const fn events(&self) -> &EventLog {
        &self.events
    }

    /// Carries a command out. The same id acts once, however often it is sent.
    pub async fn command(&self, canary: CanaryName, verb: Verb, id: String) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        if !self.mailbox.command(canary, verb, id, reply) {
            return Err(Refusal::Unavailable);
        }
        answer.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Returns who takes configuration or reports.
    pub async fn proxies(&self) -> Result<Arc<Vec<ProxyView>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        if !self.mailbox.query(Query::Proxies(reply)) {
            return Err(Refusal::Unavailable);
        }
        answer.await.map_err(|_| Refusal::Unavailable)
    }

    /// Returns what there is to see of a canary's rollouts.
    pub async fn rollouts_of(&self, canary: CanaryName) -> Result<RolloutsView, Refusal> {
        let (reply, answer) = oneshot::channel();
        if !self.mailbox.query(Query::Rollouts(canary.clone(), reply)) {
            return Err(Refusal::Unavailable);
        }
        let rollouts = answer.await.map_err(|_| Refusal::Unavailable)?;
        rollouts.map(|rollouts| *rollouts).ok_or(Refusal::NotFound(canary))
    }

    /// Manages this from now on. Fails only if the engine has ended.
    pub fn configure(&self, desired: DesiredState) -> Result<(), Refusal> {
        if self.mailbox.configure(desired) { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    /// Manages what is different in another way from now on. Fails only if the engine has ended.
    pub fn change(&self, change: Change) -> Result<(), Refusal> {
        if self.mailbox.change(change) { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    /// Returns true while the engine takes what comes: it has not ended, and does not hang.
    pub fn is_alive(&self) -> bool {
        self.mailbox.is_alive()
    }

    /// Resolves when the engine has ended, for whatever reason.
    pub async fn ended(&self) {
        let mut board = self.board.clone();
        while board.changed().await.is_ok() {}
    }

    pub(crate) fn stop(&self) {
        self.mailbox.close();
    }

    /// Takes the report of a filter, from this peer. One that the engine ended over is as one that it had no room for.
    pub async fn report(&self, peer: Peer, request: ReportRequest) -> Result<ReportResponse, ReportRefusal> {
        let (reply, answer) = oneshot::channel();
        if !self.mailbox.report(Report { peer, request: Box::new(request), reply }) {
            return Err(ReportRefusal::Busy);
        }
        answer.await.unwrap_or(Err(ReportRefusal::Busy))
    }
}

/// The latest events, and a way to follow new ones. Bounded: who reads too slowly misses some.
#[derive(Debug, Clone)]
pub struct EventLog {
    /// When this run began.
    run: u64,
    kept: Arc<Mutex<VecDeque<Arc<EventView>>>>,
    live: broadcast::Sender<Arc<EventView>>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { run: 0, kept: Arc::default(), live: broadcast::Sender::new(MAX_EVENTS) }
    }
}

impl EventLog {
    /// Returns the log of a run that begins with these events of earlier ones, oldest first.
    pub(crate) fn begin(started_ms: u64, remembered: Vec<EventView>) -> Self {
        // Whatever the clock says, this run is later than those before it.
        let after = remembered.iter().map(|event| event.run.saturating_add(1)).max().unwrap_or(0);
        let log = Self { run: started_ms.max(after), ..Self::default() };
        remembered.into_iter().for_each(|event| log.push(event));
        log
    }

    /// Returns when this run began: its events carry it.
    pub(crate) const fn run(&self) -> u64 {
        self.run
    }

    /// Returns the kept events, oldest first.
    pub fn retained(&self) -> Vec<Arc<EventView>> {
        self.retained_after(None)
    }

    /// Returns the kept events after the one that a reader had last, oldest first.
    pub fn retained_after(&self, had: Option<EventId>) -> Vec<Arc<EventView>> {
        self.after(&self.lock(), had)
    }

    /// Returns a receiver of events from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.live.subscribe()
    }

    /// Returns the kept events after the one that a reader had last, together with a receiver of all that come then.
    pub fn retained_and_follow(
        &self,
        had: Option<EventId>,
    ) -> (Vec<Arc<EventView>>, broadcast::Receiver<Arc<EventView>>) {
        let kept = self.lock();
        (self.after(&kept, had), self.live.subscribe())
    }

    fn after(&self, kept: &VecDeque<Arc<EventView>>, had: Option<EventId>) -> Vec<Arc<EventView>> {
        // One of a later run is not of this server, or its state is lost: nothing of this log is known to that reader.
        let had = had.filter(|had| had.run <= self.run);
        kept.iter().filter(|event| had.is_none_or(|had| event.place() > had)).cloned().collect()
    }

    /// Takes an event. One that is kept already, under the same id, takes its place and is not sent to followers: they
    /// have it, and it has happened again.
    pub(crate) fn push(&self, event: EventView) {
        let event = Arc::new(event);
        let mut kept = self.lock();
        if let Ok(place) = kept.binary_search_by_key(&event.id, |known| known.id) {
            if let Some(known) = kept.get_mut(place) {
                *known = event;
            }
            return;
        }
        if kept.len() >= MAX_EVENTS {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody following is fine.
        let _followers = self.live.send(event).unwrap_or(0);
    }

    // A std mutex, never held across an await: pushes and copies of a short list are all there is.
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<EventView>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake for Handle {
    /// The server has checked that the peer may speak for the node.
    async fn report(&self, peer: Peer, request: ReportRequest) -> Result<ReportResponse, ReportRefusal> {
        Self::report(self, peer, request).await
    }

    fn refused(&self, cause: Cause) {
        self.refused.count(cause);
    }

    fn news(&self, news: ClientEvent) {
        self.news.put(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_counted_again_takes_its_own_place() {
        let log = EventLog::default();
        let mut live = log.follow();
        let event = |id, count| EventView { id, count, ..EventView::default() };
        for event in [event(1, 1), event(2, 1), event(1, 2)] {
            log.push(event);
        }
        let kept: Vec<(u64, u64)> = log.retained().iter().map(|event| (event.id, event.count)).collect();
        assert_eq!(kept, [(1, 2), (2, 1)]);
        let sent = [live.try_recv(), live.try_recv(), live.try_recv()].map(|event| event.ok().map(|event| event.id));
        assert_eq!(sent, [Some(1), Some(2), None], "who follows has it already");
    }

    /// A reader comes back after the server was killed: it gets what it has not had, and nothing twice.
    #[test]
    fn a_reader_goes_on_where_it_was_over_restarts() {
        let event = |run, id| EventView { id, run, ..EventView::default() };
        let had = |run, number| Some(EventId { run, number });
        let log = EventLog::begin(100, vec![event(0, 1), event(50, 2), event(50, 3)]);
        // The run before told of 4 to 6, which were not stored; this one gives their numbers again.
        [4, 5].into_iter().for_each(|id| log.push(event(log.run(), id)));
        let after = |had| log.retained_after(had).iter().map(|event| event.id).collect::<Vec<_>>();
        for (had, expected) in [
            (None, &[1, 2, 3, 4, 5][..]),
            (had(0, 1), &[2, 3, 4, 5]),
            (had(50, 2), &[3, 4, 5]),
            (had(50, 3), &[4, 5]),
            (had(50, 6), &[4, 5]),
            (had(100, 4), &[5]),
            (had(100, 5), &[]),
            // Of another server.
            (had(200, 3), &[1, 2, 3, 4, 5]),
        ] {
            assert_eq!(after(had), expected, "{had:?}");
        }
        // A clock that was set back makes no run an earlier one.
        assert_eq!(EventLog::begin(7, vec![event(50, 3)]).run(), 51);
        assert_eq!(
            ("100-5".parse(), "17".parse()),
            (Ok(EventId { run: 100, number: 5 }), Ok(EventId { run: 0, number: 17 }))
        );
        assert!("x-5".parse::<EventId>().is_err() && "".parse::<EventId>().is_err());
    }
}
