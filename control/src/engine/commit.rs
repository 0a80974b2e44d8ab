//! What is to be stored, and what follows once it is.
//!
//! ```text
//!  event ─► step ─► Commit ─► whoever drives the engine ─► committed: adopted, published, told
//!                                                    └───► refused: dropped; what led to it comes again
//! ```
//!
//! Storing may take its time: until it is confirmed, what was adopted before is served, and its canary takes no other step.
//! An abort is the exception: it is adopted, and so published, before it is stored (P27), whatever is under way.

use std::collections::BTreeMap;

use wingbeat_core::id::{CanaryName, Rev};
use wingbeat_core::rollout::Effect;
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::checkpoint::Checkpoint;
use crate::engine::pending::{CommandTicket, CommitId};
use crate::engine::persisted::PersistedCanary;
use crate::engine::unconfigured;
use crate::store::{StoreError, Write};

/// Commands of a canary that wait while a step of it is stored. More are refused.
pub(super) const MAX_WAITING_COMMANDS: usize = 16;

/// After a commit that failed, the next one is handed in this much later: a disk that is full refuses as fast as it is asked.
const RETRY_INTERVAL: Span = Span::from_millis(50);

/// What is refused of one canary though others are stored is handed in again after so long at most, or later where it is one of
/// many: the time doubles with each refusal, from [`RETRY_INTERVAL`].
const MAX_RETRY_INTERVAL: Span = Span::from_secs(1);

/// A change of what is stored: carried out whole or not at all, after those that were handed out before it.
#[derive(Debug)]
pub struct Commit {
    /// Comes back with what came of it.
    pub id: CommitId,
    /// What is to be stored, but for a checkpoint.
    pub writes: Vec<Write>,
    /// What is stored with them, and not encoded yet.
    checkpoint: Option<Box<Checkpoint>>,
}

impl Commit {
    /// Returns all that is to be stored. Of a checkpoint it is encoded now, which takes its time.
    pub fn into_writes(self) -> Vec<Write> {
        let mut writes = self.writes;
        writes.extend(self.checkpoint.map(|checkpoint| checkpoint.encode()).unwrap_or_default());
        writes
    }
}

/// What comes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commanded {
    /// It was carried out, or the error says why it cannot be.
    Done(Result<(), String>),
    /// Something has to be stored first. The answer is among the engine's replies then.
    UnderWay(CommandTicket),
}

/// A step that is adopted once it is stored.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) canary: CanaryName,
    pub(super) record: PersistedCanary,
    pub(super) effects: Vec<Effect>,
    /// The command that led to it.
    pub(super) command: Option<CommandTicket>,
}

/// What a checkpoint wrote down.
#[derive(Debug)]
pub(super) struct Checkpointed {
    /// The ledger's checkpoint.
    pub(super) ledger: u64,
    /// Keys that it deleted.
    pub(super) obsolete: Vec<String>,
    pub(super) unconfigured: unconfigured::Writing,
    /// Windows up to this one are in the evidence.
    pub(super) recorded: u64,
}

/// What follows once a commit is carried out.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Nothing.
    Note,
    Step(Box<Proposal>),
    /// The aborts with these revs are stored.
    Aborts(Vec<(CanaryName, Rev)>),
    Checkpoint(Box<Checkpointed>),
    Events(BTreeMap<String, Write>),
    Texts(Vec<Write>),
}

/// The commits that are not confirmed: a step of each canary at most, and one of each other purpose.
#[derive(Debug, Default)]
pub(super) struct Commits {
    given: u64,
    tickets: u64,
    ready: Vec<Commit>,
    under_way: BTreeMap<CommitId, Purpose>,
    /// When storing failed, and why, until it works again.
    failed: Option<(Timestamp, StoreError)>,
    /// Canaries of which something was refused by itself: it may be they that cannot be stored.
    refused: BTreeMap<CanaryName, Backoff>,
    /// How aborts are handed in next.
    aborts: AbortBatch,
    /// The state's lineage, in each commit until one is carried out.
    lineage: Option<Write>,
    replies: Vec<(CommandTicket, Result<(), String>)>,
}

/// When something of a canary that was refused may be handed in again.
#[derive(Debug)]
struct Backoff {
    delay: Span,
    until: Timestamp,
    error: StoreError,
}

/// How many aborts one commit stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum AbortBatch {
    /// All: a fault that many canaries share takes one write.
    #[default]
    All,
    /// One, until it is known which of them is refused.
    One,
}

impl Commits {
    /// Returns the commits of a state whose lineage is not stored yet, if one is given.
    pub(super) fn beginning_with(lineage: Option<Write>) -> Self {
        let mut commits = Self { lineage, ..Self::default() };
        if commits.lineage.is_some() {
            commits.put(Purpose::Note, Vec::new());
        }
        commits
    }

    /// Hands a commit in.
    pub(super) fn put(&mut self, purpose: Purpose, writes: Vec<Write>) -> CommitId {
        self.hand_in(purpose, writes, None)
    }

    /// Hands a checkpoint in.
    pub(super) fn put_checkpoint(&mut self, purpose: Purpose, checkpoint: Checkpoint) -> CommitId {
        self.hand_in(purpose, Vec::new(), Some(Box::new(checkpoint)))
    }

    fn hand_in(&mut self, purpose: Purpose, writes: Vec<Write>, checkpoint: Option<Box<Checkpoint>>) -> CommitId {
        self.given = self.given.saturating_add(1);
        let id = CommitId(self.given);
        let writes = self.lineage.iter().cloned().chain(writes).collect();
        self.ready.push(Commit { id, writes, checkpoint });
        self.under_way.insert(id, purpose);
        id
    }

    /// Returns why nothing should be handed in at the moment. Where storing has just failed it is not tried again for
    /// [`RETRY_INTERVAL`], and one attempt is made at a time until one succeeds: each takes its time, and there may be
    /// thousands of canaries.
    pub(super) fn refuse(&self, now: Timestamp) -> Option<&StoreError> {
        let (failed, error) = self.failed.as_ref()?;
        (now.since(*failed) < RETRY_INTERVAL || !self.under_way.is_empty()).then_some(error)
    }

    /// Returns why nothing of this canary should be handed in at the moment, whatever is of others.
    pub(super) fn refuse_of(&self, name: &CanaryName, now: Timestamp) -> Option<&StoreError> {
        let backoff = self.refused.get(name)?;
        // After a failure, the others are tried first.
        let others_first = self.failed.as_ref().is_some_and(|(failed, _)| now.since(*failed) < RETRY_INTERVAL.times(2));
        (others_first || now < backoff.until).then_some(&backoff.error)
    }

    /// Returns how many of these aborts the next commit takes.
    pub(super) const fn abort_batch(&self, aborts: usize) -> usize {
        match self.aborts {
            AbortBatch::All => aborts,
            AbortBatch::One => 1,
        }
    }

    /// Takes it that something of this canary was refused by itself: others go before it.
    pub(super) fn back_off(&mut self, name: &CanaryName, error: StoreError, now: Timestamp) {
        let before = self.refused.get(name).map(|backoff| backoff.delay);
        // While storing fails, one commit is tried in each [`RETRY_INTERVAL`]: those that are refused, however many they are,
        // take half of them at most.
        let refused = u64::try_from(self.refused.len()).unwrap_or(u64::MAX);
        let most = MAX_RETRY_INTERVAL.max(RETRY_INTERVAL.times(refused.saturating_mul(2)));
        let delay = before.map_or(RETRY_INTERVAL, |delay| delay.times(2).min(most));
        self.refused.insert(name.clone(), Backoff { delay, until: now.plus(delay), error });
    }

    /// Takes it that no abort waits to be stored.
    pub(super) const fn reset_abort_batch(&mut self) {
        self.aborts = AbortBatch::All;
    }

    /// Takes it that these aborts were refused.
    pub(super) fn note_refused_aborts(&mut self, aborts: &[(CanaryName, Rev)]) {
        self.aborts = if aborts.len() > 1 { AbortBatch::One } else { AbortBatch::All };
    }

    /// Takes it that something of this canary was stored. If it was refused before, so were others for the same reason, as
    /// with a disk that was full: they need not wait.
    pub(super) fn end_backoff(&mut self, name: &CanaryName) {
        if self.refused.contains_key(name) {
            self.refused.clear();
        }
    }

    /// Takes it that there is nothing left of this canary to store.
    pub(super) fn forget(&mut self, name: &CanaryName) {
        self.refused.remove(name);
    }

    /// Returns why nothing can be stored, as far as is known.
    pub(super) fn failure(&self) -> Option<&StoreError> {
        self.failed.as_ref().map(|(_, error)| error)
    }

    /// Returns true if it is not known what came of a commit.
    pub(super) fn is_under_way(&self, id: CommitId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// Returns true if a commit of this kind is under way.
    pub(super) fn has(&self, is_one: impl Fn(&Purpose) -> bool) -> bool {
        self.under_way.values().any(is_one)
    }

    /// Returns what is to be carried out, and forgets it.
    pub(super) fn take(&mut self) -> Vec<Commit> {
        std::mem::take(&mut self.ready)
    }

    /// Takes it that a commit was carried out. Returns what follows, once, and whether this is the first one after a failure.
    pub(super) fn committed(&mut self, id: CommitId) -> Option<(Purpose, Recovery)> {
        let purpose = self.under_way.remove(&id)?;
        self.lineage = None;
        let recovery = if self.failed.take().is_some() { Recovery::Recovered } else { Recovery::None };
        Some((purpose, recovery))
    }

    /// Takes it that a commit was not carried out. Returns what does not follow, once, and whether it is the first failure.
    pub(super) fn refused(&mut self, id: CommitId, error: StoreError, now: Timestamp) -> Option<(Purpose, Recovery)> {
        let purpose = self.under_way.remove(&id)?;
        let recovery = if self.failed.replace((now, error)).is_none() { Recovery::Failed } else { Recovery::None };
        Some((purpose, recovery))
    }

    pub(super) fn ticket(&mut self) -> CommandTicket {
        self.tickets = self.tickets.saturating_add(1);
        CommandTicket(self.tickets)
    }

    /// Answers a command.
    pub(super) fn reply(&mut self, ticket: CommandTicket, answer: Result<(), String>) {
        self.replies.push((ticket, answer));
    }

    pub(super) fn replies(&mut self) -> Vec<(CommandTicket, Result<(), String>)> {
        std::mem::take(&mut self.replies)
    }
}

/// Whether storing works again, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// As before.
    None,
    Failed,
    Recovered,
}
