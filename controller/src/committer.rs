//! Carries out what the engine wants stored, on a thread of its own: a disk may take its time, or hang.
//!
//! ```text
//!  engine ─► Commit ─► queue ─► thread ─► Store ─► mailbox ─► Engine::committed, Engine::refused
//! ```
//!
//! What waits together is stored together, in one transaction: one more commit costs the disk nothing.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wingbeat_control::engine::{Commit, CommitId};
use wingbeat_control::store::{Store, StoreError, Write};

/// Bytes of what is stored in one transaction; what waits beyond is stored in the next one. A checkpoint alone may be larger.
const MAX_BYTES: usize = 4 << 20;
/// A store that gives room back with its next commit gets one within this time.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// What came of a commit.
pub(crate) type Outcome = (CommitId, Result<(), StoreError>);

/// The thread that stores. Dropping it waits until what was handed in is stored.
#[derive(Debug)]
pub(crate) struct Committer {
    /// Bounded by the engine, which has a commit of each canary and purpose under way at most.
    queue: Option<Sender<Commit>>,
    thread: Option<JoinHandle<Box<dyn Store>>>,
    /// What was handed in after the thread ended.
    late: Vec<Commit>,
}

impl Committer {
    /// Starts the thread. Neither `confirm` nor `panicked` may block.
    pub(crate) fn start(
        store: Box<dyn Store>,
        confirm: impl Fn(Outcome) + Send + 'static,
        panicked: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, commits) = channel();
        let thread = std::thread::Builder::new().name("committer".to_owned());
        let thread = thread.spawn(move || {
            let _guard = Guard(panicked);
            run(store, &commits, confirm)
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), late: Vec::new() })
    }

    /// Waits until what was handed in is carried out. Returns the store, unless its thread has panicked.
    pub(crate) fn finish(&mut self) -> Option<Box<dyn Store>> {
        self.queue = None;
        self.thread.take()?.join().ok()
    }

    /// Hands a commit in. It is carried out after those before it.
    pub(crate) fn put(&mut self, commit: Commit) {
        match &self.queue {
            // A thread that has panicked has told it.
            Some(queue) => drop(queue.send(commit)),
            None => self.late.push(commit),
        }
    }

    /// Returns what was handed in after the thread ended.
    pub(crate) fn late(&mut self) -> Vec<Commit> {
        std::mem::take(&mut self.late)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// Tells that the thread panicked.
struct Guard<F: Fn()>(F);

impl<F: Fn()> Drop for Guard<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

fn run(mut store: Box<dyn Store>, commits: &Receiver<Commit>, confirm: impl Fn(Outcome)) -> Box<dyn Store> {
    loop {
        let first = match commits.recv_timeout(TIDY_EVERY) {
            Ok(commit) => commit,
            Err(RecvTimeoutError::Timeout) => {
                if store.awaits_commit()
                    && let Err(error) = store.commit(&[])
                {
                    tracing::debug!(%error, "room on the disk is not given back yet");
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return store,
        };
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(commit) = next {
            let (id, writes) = (commit.id, commit.into_writes());
            bytes = writes.iter().map(Write::bytes).fold(bytes, usize::saturating_add);
            batch.push((id, writes));
            next = if bytes < MAX_BYTES { commits.try_recv().ok() } else { None };
        }
        carry_out(store.as_mut(), batch, &confirm);
    }
}

/// Carries commits out, all at once; where that fails, one by one, since a small one may find room where all do not.
fn carry_out(store: &mut dyn Store, batch: Vec<(CommitId, Vec<Write>)>, confirm: &impl Fn(Outcome)) {
    if batch.len() > 1 {
        let writes: Vec<Write> = batch.iter().flat_map(|(_, writes)| writes).cloned().collect();
        if store.commit(&writes).is_ok() {
            batch.into_iter().for_each(|(id, _)| confirm((id, Ok(()))));
            return;
        }
    }
    for (id, writes) in batch {
        confirm((id, store.commit(&writes)));
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_control::engine::Engine;
    use wingbeat_control::store::Entries;
    use wingbeat_control::store::memory::Memory;

    use super::*;

    /// A store that holds each commit up until it is let go, and takes more room than it needs until it had two.
    struct Slow {
        memory: Memory,
        let_go: Receiver<()>,
        done: Sender<()>,
        transactions: u64,
    }

    impl Store for Slow {
        fn load(&mut self) -> Result<Entries, StoreError> {
            self.memory.load()
        }

        fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
            let _over = self.let_go.recv();
            self.transactions += 1;
            let _nobody_waits = self.done.send(());
            self.memory.commit(writes)
        }

        fn awaits_commit(&self) -> bool {
            self.transactions < 2
        }
    }

    /// Commits of an engine that nobody has confirmed: ids cannot be made up.
    fn commits(count: u64) -> Vec<Commit> {
        let ids = (0..count).map(|number| {
            let mut engine = Engine::open(&Entries::default(), [0; 32]).unwrap();
            let mut commit = engine.commits().remove(0);
            commit.writes = vec![Write::Put(number.to_string(), Vec::new())];
            commit
        });
        ids.collect()
    }

    fn slow() -> (Memory, Sender<()>, Receiver<()>, Slow) {
        let (go, let_go) = channel();
        let (done, transactions_done) = channel();
        let memory = Memory::default();
        let store = Slow { memory: memory.clone(), let_go, done, transactions: 0 };
        (memory, go, transactions_done, store)
    }

    #[test]
    fn what_waits_together_is_stored_together_and_in_order() {
        let (mut memory, go, done, store) = slow();
        let (confirm, outcomes) = channel();
        let mut committer =
            Committer::start(Box::new(store), move |outcome| confirm.send(outcome).unwrap(), || {}).unwrap();
        for commit in commits(10) {
            committer.put(commit);
        }
        // However many of them the first transaction found.
        (0..11).for_each(|_| go.send(()).unwrap());
        let stored = outcomes.iter().take(10).filter(|(_, result)| result.is_ok()).count();
        assert_eq!((stored, memory.load().unwrap().len()), (10, 10));
        drop(committer);
        assert!((1..=2).contains(&done.iter().count()));
    }

    #[test]
    fn a_batch_that_fails_is_carried_out_one_by_one() {
        let memory = Memory::default();
        memory.set_full(true);
        let confirm = std::cell::RefCell::new(Vec::new());
        let batch = commits(3).into_iter().map(|commit| (commit.id, commit.into_writes())).collect();
        carry_out(&mut memory.clone(), batch, &|(_, result): Outcome| confirm.borrow_mut().push(result.is_ok()));
        assert_eq!(confirm.into_inner(), [false; 3], "each is answered");
    }

    #[test]
    fn room_on_the_disk_is_given_back_though_nothing_happens() {
        let (_, go, done, store) = slow();
        let committer = Committer::start(Box::new(store), |_| {}, || {}).unwrap();
        drop(go);
        (0..2).for_each(|_| done.recv_timeout(Duration::from_secs(10)).unwrap());
        drop(committer);
    }
}
