//! An engine over a store that answers at once: for simulations, benches and tests.

use std::ops::{Deref, DerefMut};

use wingbeat_api::desired_state::DesiredState;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Answer, Command, Ticket};
use wingbeat_core::time::Timestamp;
use wingbeat_proto::v1::{ReportRequest, ReportResponse};
use wingbeat_xds_server::client_event::ClientEvent;
use wingbeat_xds_server::report_refusal::ReportRefusal;

use crate::engine::{Commanded, Commit, CommitId, Engine, OpenError};
use crate::store::{Store, StoreError};
use crate::view::EventView;

/// Rounds of one tick at most: each step that is stored may make the next one due.
const ROUNDS: usize = 16;

/// See the module's documentation. Its methods are those of the [`Engine`], with what is to be stored stored when they
/// return.
pub struct Immediate {
    engine: Engine,
    carrier: Box<dyn Carrier>,
}

/// Carries commits to where state is kept.
pub(crate) trait Carrier {
    /// Takes commits, and returns what is known by now of these and of earlier ones.
    fn carry(&mut self, commits: Vec<Commit>, now: Timestamp) -> Vec<(CommitId, Result<(), StoreError>)>;
}

/// A store that answers at once.
struct AtOnce(Box<dyn Store>);

impl Carrier for AtOnce {
    fn carry(&mut self, commits: Vec<Commit>, _now: Timestamp) -> Vec<(CommitId, Result<(), StoreError>)> {
        commits.into_iter().map(|commit| (commit.id, self.0.commit(&commit.into_writes()))).collect()
    }
}

impl std::fmt::Debug for Immediate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.engine.fmt(f)
    }
}

impl Deref for Immediate {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Immediate {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Immediate {
    /// See [`Engine::open`].
    pub fn open(mut store: Box<dyn Store>, random: [u8; 32]) -> Result<Self, OpenError> {
        let engine = Engine::load(store.as_mut(), random)?;
        Ok(Self::over(engine, Box::new(AtOnce(store))))
    }

    pub(crate) fn over(engine: Engine, carrier: Box<dyn Carrier>) -> Self {
        let mut this = Self { engine, carrier };
        this.settle(Timestamp::EPOCH);
        this
    }

    /// Has commits carried in another way from now on.
    #[cfg(test)]
    pub(crate) fn carry_by(&mut self, carrier: Box<dyn Carrier>) {
        self.carrier = carrier;
    }

    /// Stores what is to be stored. Returns true if anything became known of it.
    pub fn settle(&mut self, now: Timestamp) -> bool {
        let mut any = false;
        loop {
            let outcomes = self.carrier.carry(self.engine.commits(), now);
            if outcomes.is_empty() {
                return any;
            }
            any = true;
            for (id, outcome) in outcomes {
                match outcome {
                    Ok(()) => self.engine.committed(id, now),
                    Err(error) => self.engine.refused(id, error, now),
                }
            }
        }
    }

    /// See [`Engine::configure`].
    pub fn configure(&mut self, desired: DesiredState, now: Timestamp) {
        self.engine.configure(desired, now);
        self.settle(now);
    }

    /// See [`Engine::command`].
    pub fn command(&mut self, name: &CanaryName, command: Command, id: &str, now: Timestamp) -> Result<(), String> {
        let commanded = self.engine.command(name, command, id, now);
        self.settle(now);
        match commanded {
            Commanded::Done(answer) => answer,
            Commanded::UnderWay(ticket) => {
                let reply = self.engine.replies().into_iter().find(|(replied, _)| *replied == ticket);
                reply.map_or_else(|| Err("it was not answered".to_owned()), |(_, answer)| answer)
            }
        }
    }

    /// See [`Engine::answer`].
    pub fn answer(&mut self, name: &CanaryName, ticket: Ticket, answer: Answer, now: Timestamp) {
        self.engine.answer(name, ticket, answer, now);
        self.settle(now);
    }

    /// See [`Engine::observe`].
    pub fn observe(&mut self, news: &ClientEvent, now: Timestamp) {
        self.engine.observe(news, now);
        self.settle(now);
    }

    /// See [`Engine::report`].
    pub fn report(
        &mut self,
        source: &str,
        request: &ReportRequest,
        now: Timestamp,
    ) -> Result<ReportResponse, ReportRefusal> {
        let answer = self.engine.report(source, request, now);
        self.settle(now);
        answer
    }

    /// See [`Engine::tick`]. Steps that are stored make others due: these are taken, too.
    pub fn tick(&mut self, now: Timestamp) {
        for _ in 0..ROUNDS {
            self.engine.tick(now);
            if !self.settle(now) {
                return;
            }
        }
    }

    /// See [`Engine::append`].
    pub fn append(&mut self, events: &[EventView], now: Timestamp) {
        self.engine.append(events, now);
        self.settle(now);
    }

    /// See [`Engine::store_texts`].
    pub fn store_texts(&mut self, now: Timestamp) {
        self.engine.store_texts(now);
        self.settle(now);
    }
}
