//! Gives the engine a thread, a clock and a mailbox, and carries out what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use wingbeat_api::desired_state::{Change, DesiredState};
use wingbeat_control::call::CallTurn;
use wingbeat_control::engine::{
    CommandTicket, Commanded, Engine, MAX_EVENTS, MAX_IDLE_REPORT_INTERVAL, RolloutEvent, rfc3339,
};
use wingbeat_control::series::Series;
use wingbeat_control::store::Store;
use wingbeat_control::view::{EventView, ProxyView, ServerStatus};
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Alert, Command, HookKind, Severity, Ticket};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::publisher::Publisher as Snapshots;
use wingbeat_xds_server::render::Renderer;

use crate::allocator::{AllocatorTrim, give_back};
use crate::clock::Clock;
use crate::committer::{Committer, Outcome};
use crate::handle::{ClientEventQueue, EventLog, Handle};
use crate::mailbox::{Mailbox, Order, ProxiesReply, Query, Report, Round};
use crate::metrics::Rollouts;
use crate::outbound::alert;
use crate::outbound::messenger::{Answered, Messenger};
use crate::proxies::Proxies;
use crate::recorder::Recorder;
use crate::standings::Standings;
use crate::verb::{Refusal, Verb};

/// After a restart in mid-rollout, proxies are answered once those that carried traffic have reported what they serve,
/// or after this time: an abort that was served but not stored must not be taken back (P28). Idle filters report within
/// [`MAX_IDLE_REPORT_INTERVAL`], and Envoy may have to connect first; of many, some report at once.
const RECOVERY_WINDOW: Span = Span::from_secs(2);
const _: () = assert!(RECOVERY_WINDOW.as_millis() > MAX_IDLE_REPORT_INTERVAL.as_millis());
/// What is shown is renewed at most this often.
const PUBLISH_INTERVAL: Span = Span::from_millis(50);
/// The view of the proxies is made anew at most this often: it takes the engine's time, and grows with their number.
const PROXIES_INTERVAL: Span = Span::from_millis(500);

/// Canaries of one round that are managed in another way, where thousands of files change at once: a few milliseconds of work.
/// The engine decides before it takes more.
const CANARIES_A_ROUND: usize = 64;

/// While there is more to manage in another way, routes are published at most this often, but for aborts: each time, all hosts
/// of a listener are sent.
const PUBLISH_EVERY: Span = Span::from_millis(250);

/// While nothing can be stored, hooks and metrics are asked this often.
const HOOK_RETRY_INTERVAL: Span = Span::from_secs(1);

/// What came of a command.
type CommandResult = Result<(), Refusal>;

/// Returns what an engine makes its secrets from.
pub fn random() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// A running engine. Dropping it ends its thread.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtime {
    /// Starts the engine on a thread of its own; what is to be served goes to `snapshots`. Must be called on a tokio
    /// runtime: hooks and alerts go out on it.
    pub fn start(
        engine: Engine,
        store: Box<dyn Store>,
        desired: DesiredState,
        snapshots: Snapshots,
    ) -> std::io::Result<Self> {
        Self::start_recording(engine, store, desired, snapshots, None)
    }

    /// Starts the engine; what its judges see goes to the recorder.
    pub fn start_recording(
        engine: Engine,
        store: Box<dyn Store>,
        desired: DesiredState,
        snapshots: Snapshots,
        recorder: Option<Recorder>,
    ) -> std::io::Result<Self> {
        Self::launch(engine, store, desired, snapshots, recorder, None)
    }

    /// Starts the engine of a cluster: where canaries stand, and what happens to them, is taken by whoever keeps their objects.
    pub fn start_in_cluster(
        engine: Engine,
        store: Box<dyn Store>,
        desired: DesiredState,
        snapshots: Snapshots,
        standings: Standings,
    ) -> std::io::Result<Self> {
        Self::launch(engine, store, desired, snapshots, None, Some(standings))
    }

    fn launch(
        mut engine: Engine,
        mut store: Box<dyn Store>,
        desired: DesiredState,
        snapshots: Snapshots,
        recorder: Option<Recorder>,
        standings: Option<Standings>,
    ) -> std::io::Result<Self> {
        if recorder.is_some() {
            engine.record();
        }
        let mailbox = Mailbox::open();
        let clock = Clock::start(engine.latest_stored());
        // What the state is known by is stored before anybody is served by it, if it can be.
        for commit in engine.commits() {
            let id = commit.id;
            match store.commit(&commit.into_writes()) {
                Ok(()) => engine.committed(id, clock.now()),
                Err(error) => engine.refused(id, error, clock.now()),
            }
        }
        let confirmed = mailbox.clone();
        let closes = mailbox.clone();
        let committer = Committer::start(store, move |outcome| confirmed.stored(outcome), move || closes.close())?;
        let (board, shown) = watch::channel(Arc::new(ServerStatus::default()));
        let remembered = engine.restored();
        let told = remembered.last().map_or(0, |event| event.id);
        let events = EventLog::begin(clock.now().as_millis(), remembered);
        let news = ClientEventQueue::default();
        let rollouts = Rollouts::default();
        let handle = Handle::new(mailbox.clone(), news.clone(), rollouts.clone(), shown, events.clone());
        let messenger = Messenger::new(tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?);
        let mut worker = EngineThread {
            started: clock.now(),
            engine,
            clock,
            snapshots,
            renderer: Renderer::default(),
            board,
            events,
            told,
            series: Series::default(),
            messenger,
            committer,
            recorder,
            standings,
            mailbox,
            news,
            proxies: Proxies::default(),
            rollouts,
            change: Change::default(),
            asked: BTreeMap::new(),
            asked_in_vain: Timestamp::EPOCH,
            answers: Vec::new(),
            commands: BTreeMap::new(),
            last_published: Timestamp::EPOCH,
            last_shown: Timestamp::EPOCH,
            latest_proxies: None,
            crowd: AllocatorTrim::default(),
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let now = worker.clock.now();
            // However the thread ends, nobody waits for it.
            let _closed = CloseOnDrop(worker.mailbox.clone());
            worker.crowd.configured(desired.canaries.len(), now);
            worker.engine.configure(desired, now);
            worker.run();
            worker.end();
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// Returns the way to talk to it.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Closes the mailbox when dropped, also by a panic.
struct CloseOnDrop(Mailbox);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct EngineThread {
    engine: Engine,
    clock: Clock,
    snapshots: Snapshots,
    renderer: Renderer,
    board: watch::Sender<Arc<ServerStatus>>,
    events: EventLog,
    told: u64,
    series: Series,
    messenger: Messenger,
    committer: Committer,
    recorder: Option<Recorder>,
    /// Whoever keeps the objects of a cluster.
    standings: Option<Standings>,
    mailbox: Mailbox,
    news: ClientEventQueue,
    proxies: Proxies,
    rollouts: Rollouts,
    /// What is to be managed in another way, and was not yet.
    change: Change,
    /// Questions that are on their way, one of a canary at a time, each with what ends it.
    asked: BTreeMap<CanaryName, (Ticket, AbortHandle)>,
    /// When somebody was asked last while nothing could be stored.
    asked_in_vain: Timestamp,
    /// What came of commands. Told once it shows: who commands and then looks sees what the command did.
    answers: Vec<(oneshot::Sender<CommandResult>, CommandResult)>,
    /// Commands that wait for something to be stored, as many as wait in the engine.
    commands: BTreeMap<CommandTicket, oneshot::Sender<CommandResult>>,
    started: Timestamp,
    last_published: Timestamp,
    last_shown: Timestamp,
    /// The latest view of the proxies, and when it was made.
    latest_proxies: Option<(Timestamp, Arc<Vec<ProxyView>>)>,
    crowd: AllocatorTrim,
}

impl EngineThread {
    fn run(&mut self) {
        loop {
            self.act();
            let now = self.clock.now();
            let wait = if self.change.is_empty() { self.engine.next_timeout(now).since(now) } else { Span::ZERO };
            let wait = Duration::from_nanos(wait.as_nanos());
            let Some(round) = self.mailbox.take(wait) else { return };
            self.take(round);
            let now = self.clock.now();
            for news in self.news.take() {
                self.engine.observe(&news, now);
                self.proxies.observe(&news, now);
            }
            self.engine.tick(now);
            if self.crowd.follow(self.engine.workers(), now) {
                give_back();
            }
        }
    }

    fn take(&mut self, round: Round) {
        let now = self.clock.now();
        if let Some(desired) = round.desired {
            self.crowd.configured(desired.canaries.len(), now);
            self.engine.configure(*desired, now);
            self.change = Change::default();
        }
        self.settle(round.stored, now);
        self.crowd.configured(round.change.canaries.len(), now);
        self.change.then(round.change);
        self.engine.apply_change(&mut self.change, CANARIES_A_ROUND, now);
        for order in round.orders {
            self.carry_out(order, now);
        }
        self.answer_queries(round.queries, now);
        for Report { peer, request, reply } in round.reports {
            let answer = self.engine.report(&peer.source(&request.node_id), &request, self.clock.now());
            let _gone = reply.send(answer);
        }
    }

    /// Tells the engine what came of commits.
    fn settle(&mut self, outcomes: Vec<Outcome>, now: Timestamp) {
        for (id, outcome) in outcomes {
            match outcome {
                Ok(()) => self.engine.committed(id, now),
                Err(error) => self.engine.refused(id, error, now),
            }
        }
    }

    fn answer_queries(&mut self, queries: Vec<Query>, now: Timestamp) {
        let mut for_proxies = Vec::new();
        for query in queries.into_iter().filter(|query| !query.is_closed()) {
            match query {
                Query::Proxies(reply) => for_proxies.push(reply),
                Query::Rollouts(canary, reply) => drop(reply.send(self.engine.rollouts(&canary, now).map(Box::new))),
            }
        }
        self.show_proxies(for_proxies, now);
    }

    /// Answers all queries for the proxies with one view. Everybody may ask, and to make it looks at all workers and nodes.
    fn show_proxies(&mut self, queries: Vec<ProxiesReply>, now: Timestamp) {
        if queries.is_empty() {
            return;
        }
        let view = match &self.latest_proxies {
            Some((made, view)) if now.since(*made) < PROXIES_INTERVAL => view.clone(),
            Some(_) | None => {
                let view = Arc::new(self.proxies.view(self.engine.reporters(now), now));
                self.latest_proxies = Some((self.clock.now(), view.clone()));
                view
            }
        };
        queries.into_iter().for_each(|reply| drop(reply.send(view.clone())));
    }

    fn carry_out(&mut self, order: Order, now: Timestamp) {
        match order {
            Order::Command { canary, verb, id, reply } => {
                if self.engine.config(&canary).is_none() {
                    self.answers.push((reply, Err(Refusal::NotFound(canary))));
                    return;
                }
                match self.engine.command(&canary, command(verb), &id, now) {
                    Commanded::Done(answer) => self.answers.push((reply, answer.map_err(Refusal::Conflict))),
                    Commanded::UnderWay(ticket) => drop(self.commands.insert(ticket, reply)),
                }
            }
            Order::Answer(Answered { canary, ticket, answer, measured }) => {
                if self.asked.get(&canary).is_some_and(|(asked, _)| *asked == ticket) {
                    self.asked.remove(&canary);
                }
                if let Some((metric, value)) = measured {
                    self.engine.measured(&canary, metric, value);
                }
                self.engine.answer(&canary, ticket, answer, now);
            }
        }
    }

    /// Serves and tells what the engine's state implies.
    fn act(&mut self) {
        let now = self.clock.now();
        if now.since(self.started) >= RECOVERY_WINDOW {
            self.engine.stop_learning();
        }
        let ready = !self.engine.is_learning();
        let is_due = self.change.is_empty()
            || now.since(self.last_published) >= PUBLISH_EVERY
            || self.engine.has_unserved_abort();
        if ready
            && is_due
            && let Some(change) = self.engine.take_route_changes()
        {
            self.last_published = now;
            self.snapshots.publish(self.renderer.render(change));
        }
        for (ticket, answer) in self.engine.replies() {
            if let Some(reply) = self.commands.remove(&ticket) {
                self.answers.push((reply, answer.map_err(Refusal::Conflict)));
            }
        }
        let told = self.engine.take_events();
        if !told.is_empty() || !self.answers.is_empty() || now.since(self.last_shown) >= PUBLISH_INTERVAL {
            self.last_shown = now;
            self.board.send_replace(Arc::new(self.engine.status(ready, now)));
        }
        if let Some(standings) = &self.standings {
            let mut events = self.engine.take_retold();
            events.extend(told.iter().cloned());
            standings.put(self.engine.standings(), self.engine.route_blockers(), events);
        }
        let events: Vec<EventView> = told.iter().map(|told| self.send_event(told)).collect();
        // Also without any: some may wait for room on the disk.
        self.engine.append(&events, now);
        self.engine.store_texts(now);
        self.engine.commits().into_iter().for_each(|commit| self.committer.put(commit));
        events.into_iter().for_each(|event| self.events.push(event));
        for (reply, answer) in self.answers.drain(..) {
            let _gone = reply.send(answer);
        }
        self.engine.ended().iter().for_each(|ended| self.rollouts.count(ended));
        for alerted in self.engine.alerts() {
            self.alert(&alerted.canary, &alerted.alert);
        }
        if let Some(recorder) = &self.recorder {
            self.engine.recorded().into_iter().for_each(|recorded| recorder.put(recorded));
            self.engine.not_recorded(recorder.losses(), now);
        }
        self.ask(now);
    }

    /// Leaves nothing behind: what is under way is waited for, taken over and told, and aborts that are served are stored.
    fn end(&mut self) {
        let now = self.clock.now();
        if let Some(mut store) = self.committer.finish() {
            self.settle(self.mailbox.take_stored(), now);
            self.engine.finish();
            self.act();
            for commit in self.committer.late() {
                let id = commit.id;
                self.settle(vec![(id, store.commit(&commit.into_writes()))], now);
            }
        }
        if let Some(recorder) = self.recorder.take() {
            self.engine.recorded_to_the_end().into_iter().for_each(|recorded| recorder.put(recorded));
        }
    }

    /// Puts the questions that are open and not on their way yet.
    fn ask(&mut self, now: Timestamp) {
        let calls = self.engine.calls(now);
        // An answer that cannot be stored is asked for again, and a hook is not to be called as fast as it answers.
        let may_ask = self.engine.stores() || now.since(self.asked_in_vain) >= HOOK_RETRY_INTERVAL;
        let mut before = std::mem::take(&mut self.asked);
        for call in calls {
            let (canary, ticket) = (call.canary.clone(), call.ticket);
            if let Some((name, (asked, asking))) = before.remove_entry(&canary) {
                if asked == ticket {
                    self.asked.insert(name, (asked, asking));
                    continue;
                }
                asking.abort();
            }
            if may_ask && call.turn == CallTurn::Now {
                if !self.engine.stores() {
                    self.asked_in_vain = now;
                }
                let mailbox = self.mailbox.clone();
                let asking = self.messenger.ask(call, move |answered| {
                    mailbox.answer(answered);
                });
                self.asked.insert(canary, (ticket, asking));
            }
        }
        // A question that is no longer open needs no answer; its ticket is not used again.
        before.values().for_each(|(_, asking)| asking.abort());
    }

    fn alert(&self, name: &CanaryName, alert: &Alert) {
        let Some(managed) = self.engine.config(name) else { return };
        let fields = if alert.described { alert::fields(&managed.plan) } else { Vec::new() };
        for channel in managed.alerts.iter().filter(|channel| channel.takes(alert.level)) {
            self.messenger.alert(channel, name, alert, &fields);
        }
    }

    /// Tells the log and the hooks. Returns the event; one that repeats another is counted there and told nobody else.
    fn send_event(&mut self, told: &RolloutEvent) -> EventView {
        let kind = match told.severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        let kept = self.told.saturating_sub(MAX_EVENTS.saturating_sub(1));
        if let Some(event) = self.series.repeat(told, kind, kept) {
            tracing::debug!(canary = event.name, namespace = event.namespace, count = event.count, "{}", event.message);
            return event;
        }
        let event = self.tell_anew(told, kind);
        self.series.begin(told, &event);
        event
    }

    fn tell_anew(&mut self, told: &RolloutEvent, kind: &str) -> EventView {
        let RolloutEvent { canary, rollout: _, severity, text, at } = told;
        match severity {
            Severity::Normal => tracing::info!(canary = &*canary.name, namespace = &*canary.namespace, "{text}"),
            Severity::Warning => tracing::warn!(canary = &*canary.name, namespace = &*canary.namespace, "{text}"),
        }
        self.told = self.told.saturating_add(1);
        let event = EventView {
            id: self.told,
            run: self.events.run(),
            t: rfc3339(*at),
            count: 1,
            last: rfc3339(*at),
            kind: kind.to_owned(),
            reason: "Synced".to_owned(),
            message: text.clone(),
            namespace: canary.namespace.to_string(),
            name: canary.name.to_string(),
        };
        if let Some(managed) = self.engine.config(canary) {
            let (phase, checksum) = self.engine.describe(canary).unwrap_or_default();
            for (place, _) in managed.plan.hooks(HookKind::Event) {
                if let Some(hook) = managed.hooks.get(place) {
                    self.messenger.send_event(hook.clone(), phase.clone(), checksum.clone(), &event, at.as_millis());
                }
            }
        }
        event
    }
}

const fn command(verb: Verb) -> Command {
    match verb {
        Verb::Pause => Command::Pause,
        Verb::Resume => Command::Resume,
        Verb::Approve => Command::Approve,
        Verb::Abort => Command::Abort,
        Verb::Promote => Command::Promote,
        Verb::Retry => Command::Retry,
    }
}
