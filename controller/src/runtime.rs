//! Gives the engine a thread, a clock and a mailbox, and carries out what it says.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::watch;
use wingbeat_core::rollout::{Command, Severity};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::render::render;
use wingbeat_xds_server::store::Store as Snapshots;

use crate::clock::Clock;
use crate::engine::{Engine, Told, rfc3339};
use crate::handle::{EventLog, Handle, Message, Refusal, Verb};
use crate::setup::Setup;
use crate::view::{Board, EventView};

/// Messages that may wait for the engine; more are refused, and filters send again.
const MAILBOX: usize = 4_096;
/// After a restart in mid-rollout, proxies are answered once one has reported what it serves, or after this time:
/// an abort that was served but not stored must not be taken back (P28).
const LEARN_FIRST: Span = Span::from_secs(1);
/// What is shown is renewed at most this often.
const SHOW_EVERY: Span = Span::from_millis(50);

/// A running engine. Dropping it ends its thread.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtime {
    /// Starts the engine on a thread of its own; what is to be served goes to `snapshots`.
    pub fn start(engine: Engine, setup: Setup, snapshots: Snapshots) -> std::io::Result<Self> {
        let (mailbox, messages) = sync_channel(MAILBOX);
        let (board, shown) = watch::channel(Arc::new(Board::default()));
        let events = EventLog::default();
        let handle = Handle::new(mailbox, shown, events.clone());
        let clock = Clock::start(engine.latest_stored());
        let mut worker = Worker {
            learning: engine.resumes_rollout(),
            started: clock.now(),
            engine,
            clock,
            snapshots,
            board,
            events,
            told: 0,
            last_shown: Timestamp::EPOCH,
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let now = worker.clock.now();
            worker.engine.configure(setup, now);
            worker.run(&messages);
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

struct Worker {
    engine: Engine,
    clock: Clock,
    snapshots: Snapshots,
    board: watch::Sender<Arc<Board>>,
    events: EventLog,
    told: u64,
    learning: bool,
    started: Timestamp,
    last_shown: Timestamp,
}

impl Worker {
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            self.act();
            let now = self.clock.now();
            let wait = Duration::from_nanos(self.engine.wake_at(now).since(now).as_nanos());
            match messages.recv_timeout(wait) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Whatever else has come meanwhile goes into the same round.
            while let Ok(message) = messages.try_recv() {
                if matches!(message, Message::Stop) {
                    return;
                }
                self.take(message);
            }
            self.engine.tick(self.clock.now());
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Report { request, reply } => {
                let answer = self.engine.report(&request, now);
                self.learning &= answer.is_err();
                let _gone = reply.send(answer);
            }
            Message::Command { canary, verb, id, reply } => {
                let answer = match command(verb) {
                    Some(command) => self.engine.command(&canary, command, &id, now).map_err(Refusal::Conflict),
                    None => Err(Refusal::Conflict(format!("{canary} has no gate that waits for approval"))),
                };
                let _gone = reply.send(answer);
            }
            Message::Configure(setup) => self.engine.configure(*setup, now),
            Message::Stop => {}
        }
    }

    /// Serves and tells what the engine's state implies.
    fn act(&mut self) {
        let now = self.clock.now();
        self.learning &= now.since(self.started) < LEARN_FIRST;
        if !self.learning {
            self.snapshots.publish(render(&self.engine.model()));
        }
        let told = self.engine.told();
        if !told.is_empty() || now.since(self.last_shown) >= SHOW_EVERY {
            self.last_shown = now;
            self.board.send_replace(Arc::new(self.engine.board(!self.learning, now)));
        }
        for told in told {
            self.tell(told);
        }
    }

    fn tell(&mut self, told: Told) {
        let Told { canary, severity, text, at } = told;
        let kind = match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        tracing::info!(canary = %canary, namespace = canary.namespace, kind, "{text}");
        self.told = self.told.saturating_add(1);
        self.events.push(EventView {
            id: self.told,
            time: rfc3339(at),
            kind: kind.to_owned(),
            reason: "Synced".to_owned(),
            namespace: canary.namespace,
            name: canary.name,
            message: text,
        });
    }
}

const fn command(verb: Verb) -> Option<Command> {
    match verb {
        Verb::Pause => Some(Command::Pause),
        Verb::Resume => Some(Command::Resume),
        Verb::Abort => Some(Command::Abort),
        Verb::Promote => Some(Command::Promote),
        Verb::Retry => Some(Command::Retry),
        // Plans have no gates yet.
        Verb::Approve => None,
    }
}

/// The way into the engine's mailbox.
pub(crate) type Mailbox = SyncSender<Message>;
