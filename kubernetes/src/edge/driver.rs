//! The reconciler, carried out: it is told what is observed, where canaries stand and what came of writes, and what it hands out
//! goes to the engine and to the API server.
//!
//! ```text
//!  Observations ─┐                     ┌─► engine
//!  Standings ────┼─► Reconciler ─► poll┼─► Writer ──► API server
//!  outcomes ─────┤                     ├─► States ──► CanaryState
//!  what was read ┘                     └─► Reader ◄── API server
//! ```

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use wingbeat_api::desired_state::{Change as EngineChange, DesiredState};
use wingbeat_controller::clock::Clock;
use wingbeat_controller::handle::Handle;
use wingbeat_controller::standings::Standings;
use wingbeat_controller::verb::Refusal;
use wingbeat_core::id::CanaryName;

use crate::desire::Settings;
use crate::edge::act::Writer;
use crate::edge::client::Connection;
use crate::edge::lease::Leadership;
use crate::edge::read::{Done, Reader};
use crate::edge::state::States;
use crate::edge::watch::{Observations, Scopes};
use crate::failure::Failure;
use crate::permit::Permits;
use crate::reconcile::{Carrier, Commanded, EventKey, Outcome, Reconciler, Urgency, Write, WriteKey};
use crate::slots::{Batch, Change, Readiness};
use crate::world::Kind;
use crate::writes::{Accepted, Channel, Report};

/// Keeps the objects of a cluster as they should be.
#[derive(Debug)]
pub struct Driver {
    reconciler: Reconciler,
    observations: Observations,
    readiness: Readiness,
    states: Arc<States>,
    writer: Writer,
    reader: Reader,
    outcomes: Outcomes,
    /// Notes that are being written, of each canary once, and commands that are being carried out.
    tasks: JoinSet<()>,
    answers: Answers,
    clock: Clock,
    writing: JoinHandle<()>,
}

/// What came of writes. At most as many wait as were handed out, which are as many as there are objects.
#[derive(Debug)]
struct Outcomes {
    told: mpsc::UnboundedSender<(WriteKey, Outcome)>,
    waiting: mpsc::UnboundedReceiver<(WriteKey, Outcome)>,
}

/// Answers to commands, of each canary one.
#[derive(Debug)]
struct Answers {
    told: mpsc::UnboundedSender<(CanaryName, Result<(), Refusal>)>,
    waiting: mpsc::UnboundedReceiver<(CanaryName, Result<(), Refusal>)>,
}

/// Why nothing is kept any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// What this process knows may be out of date.
    #[error("another replica leads ({0}): this one begins anew")]
    Replaced(String),
    /// The engine has ended.
    #[error("the engine ended by a fault of this program, which its log shows")]
    Engine,
}

impl Driver {
    /// Begins to watch. Nothing is written before [`Driver::begin`].
    pub fn start(
        connection: &Connection,
        clock: Clock,
        scopes: &Scopes,
        settings: Settings,
        permits: Permits,
        states: Arc<States>,
    ) -> Self {
        let (told, waiting) = mpsc::unbounded_channel();
        let outcomes = Outcomes { told: told.clone(), waiting };
        let report = move |report: Report| {
            let outcome = came_of(&report);
            let key = WriteKey::of(&report.object, &report.channel);
            let key = key.or_else(|| ends_namespace(&report, &outcome));
            if let Some(key) = key {
                // Whoever waited for it is gone.
                let _gone = told.send((key, outcome));
            }
        };
        let (answered, answers) = mpsc::unbounded_channel();
        let (writer, writing) = Writer::start(connection.clone(), clock, permits, report);
        Self {
            reconciler: Reconciler::new(settings),
            observations: Observations::start(connection, scopes),
            readiness: Readiness::default(),
            states,
            reader: Reader::new(connection.clone()),
            writer,
            outcomes,
            tasks: JoinSet::new(),
            answers: Answers { told: answered, waiting: answers },
            clock,
            writing,
        }
    }

    /// Takes what is observed, the next time that there is something. May be cancelled.
    pub async fn observe(&mut self) {
        let batch = self.observations.next().await;
        self.take(batch);
    }

    /// Returns true once everything was listed: what is not known then is not there.
    pub fn is_listed(&self) -> bool {
        self.readiness == Readiness::Listed
    }

    /// Returns what the engine is to manage at first, and begins to write. From now on it has the time of this clock, the engine's:
    /// where the clock of the machine was set back, that is ahead of it.
    pub fn begin(&mut self, filter: Arc<[u8]>, clock: Clock) -> DesiredState {
        self.clock = clock;
        // There is no command before canaries stand somewhere.
        let (EngineChange { canaries, listeners, refused_files: _, texts: _, observed }, _none) = self.poll();
        let canaries = canaries.into_iter();
        DesiredState {
            canaries: canaries.filter_map(|(name, it)| Some((name, it?.config.as_ref().clone()))).collect(),
            listeners: listeners.unwrap_or_default(),
            filter: Some(filter),
            observed,
            ..DesiredState::default()
        }
    }

    /// Keeps the objects as they should be, as long as this process may.
    pub async fn run(
        &mut self,
        handle: &Handle,
        standings: &Standings,
        leadership: &mut watch::Receiver<Leadership>,
        epoch: u64,
    ) -> Ended {
        loop {
            let (change, commands) = self.poll();
            commands.into_iter().for_each(|command| self.command(handle, command));
            if !change.is_empty() && handle.change(change).is_err() {
                return Ended::Engine;
            }
            // Evaluated so far, all that waits is at rest until one of these.
            let due = self.reconciler.next_due();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.clock.deadline(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = self.observations.next() => self.take(batch),
                () = standings.changed() => {
                    let waiting = standings.take();
                    for (name, standing) in waiting.standings {
                        self.reconciler.standing(&name, standing, self.clock.now());
                    }
                    for (name, blockers) in waiting.route_blockers {
                        self.reconciler.route_blockers(&name, blockers, self.clock.now());
                    }
                    waiting.events.iter().for_each(|event| self.reconciler.event(event));
                }
                Some((key, outcome)) = self.outcomes.waiting.recv() => {
                    self.written(&key, outcome);
                    while let Ok((key, outcome)) = self.outcomes.waiting.try_recv() {
                        self.written(&key, outcome);
                    }
                }
                done = self.reader.next() => match done {
                    Done::Object(key, result) => self.reconciler.read(&key, result, self.clock.now()),
                    Done::Pods(query, result) => self.reconciler.pods(&query, result, self.clock.now()),
                },
                Some(_done) = self.tasks.join_next() => {}
                Some((canary, answer)) = self.answers.waiting.recv() => {
                    self.reconciler.answered(&canary, &answer, self.clock.now());
                }
                () = due => {}
                changed = leadership.changed() => {
                    let now = leadership.borrow().clone();
                    match now {
                        // What cannot be written for a time is derived anew when it can be: nobody else wrote meanwhile.
                        Leadership::Waiting => {}
                        Leadership::Leading { epoch: now } if now == epoch => {}
                        Leadership::Leading { .. } => return Ended::Replaced("for a time".to_owned()),
                        Leadership::Following { leader } => return Ended::Replaced(leader),
                    }
                    if changed.is_err() {
                        return Ended::Replaced("the election has ended".to_owned());
                    }
                }
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        let Batch { changes, problems: _, readiness } = batch;
        self.readiness = readiness;
        for (key, change) in changes {
            if key.kind == Kind::CanaryState {
                let object = match &change {
                    Change::Applied(object) => Some(object),
                    Change::Deleted => None,
                };
                self.states.observed(&CanaryName::new(&*key.namespace, &*key.name), object);
            }
            match change {
                Change::Applied(object) => self.reconciler.apply(key.kind, &object),
                Change::Deleted => self.reconciler.delete(&key),
            }
        }
    }

    fn written(&mut self, key: &WriteKey, outcome: Outcome) {
        self.reconciler.written(key, outcome, self.clock.now());
    }

    /// Has the engine carry a command out.
    fn command(&mut self, handle: &Handle, command: Commanded) {
        let (handle, told) = (handle.clone(), self.answers.told.clone());
        self.tasks.spawn(async move {
            let Commanded { canary, verb, id } = command;
            let answer = handle.command(canary.clone(), verb, id).await;
            let _gone = told.send((canary, answer));
        });
    }

    /// Hands writes out, and returns what is for the engine.
    fn poll(&mut self) -> (EngineChange, Vec<Commanded>) {
        let output = self.reconciler.poll(self.clock.now());
        self.reader.put(output.reads, output.pods);
        for write in output.writes {
            self.carry_out(write);
        }
        (output.change, output.commands)
    }

    fn carry_out(&mut self, write: Write) {
        let key = write.key();
        let basis = self.reconciler.version(&write);
        match write.into_carrier(basis) {
            Carrier::Call(call) => match self.writer.put(call) {
                Accepted::Queued(_) | Accepted::UnderWay => {}
                Accepted::Repeated => self.written(&key, Outcome::Written),
                Accepted::Full => self.written(&key, Outcome::Failed),
            },
            Carrier::Notes(name, fields, urgency) => {
                let (states, told) = (self.states.clone(), self.outcomes.told.clone());
                self.tasks.spawn(async move {
                    let noted = match urgency {
                        Urgency::AtOnce => states.note(&name, &fields).await.map(drop),
                        Urgency::WithNext => {
                            states.stage(&name, &fields).await;
                            Ok(())
                        }
                    };
                    let outcome = match noted {
                        Ok(()) => Outcome::Written,
                        Err(error) => {
                            tracing::debug!(canary = %name, %error, "what is kept of it cannot be written yet");
                            Outcome::Failed
                        }
                    };
                    let _gone = told.send((key, outcome));
                });
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

/// Returns what a write came to, and tells what is not going to pass by itself.
fn came_of(report: &Report) -> Outcome {
    let Err(error) = &report.result else { return Outcome::Written };
    match &error.failure {
        // The leader writes it, or this replica will once it is the leader again.
        Failure::NoPermit => {}
        // It is gone already.
        Failure::NotFound(_) if matches!(report.channel, Channel::Merge(_)) => return Outcome::Written,
        // It rested on what was there before, and is derived anew from what is.
        Failure::Conflict(_) if matches!(report.channel, Channel::Merge(_)) => tracing::debug!("{error}"),
        Failure::Terminating => {
            tracing::debug!("{error}");
            return Outcome::NamespaceEnds;
        }
        // An event that was told before a restart, or whose time is up.
        Failure::Exists | Failure::NotFound(_) if WriteKey::of(&report.object, &report.channel).is_none() => {}
        Failure::Exists | Failure::NotFound(_) | Failure::Forbidden(_) | Failure::Invalid(_) => {
            tracing::warn!("{error}");
            return Outcome::Refused(error.to_string());
        }
        Failure::Conflict(_)
        | Failure::Gone
        | Failure::Throttled { .. }
        | Failure::Server { .. }
        | Failure::Unreachable(_)
        | Failure::Timeout => tracing::warn!("{error}"),
    }
    Outcome::Failed
}

/// Returns the key of an event that was refused since its namespace ends. Of events, nothing else is waited for.
fn ends_namespace(report: &Report, outcome: &Outcome) -> Option<WriteKey> {
    let (namespace, name) = (report.object.namespace.clone(), report.object.name.clone());
    matches!(outcome, Outcome::NamespaceEnds).then_some(WriteKey::Event(EventKey { namespace, name }))
}
