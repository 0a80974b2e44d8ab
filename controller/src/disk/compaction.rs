//! Gives back what the file holds beyond the entries: the pages of entries that are gone are used again, and stay in the file.
//!
//! ```text
//!  commit ─► large beside what it holds? ─► thread: copies a snapshot to state.compact
//!  commit, commit, … ─► noted ──────────────┐          │
//!  commit ─► the copy is ready ─► adds what was noted ◄┘ ─► takes the place of state.redb
//! ```
//!
//! No commit waits for the copy: who stores an abort does not wait behind it.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use wingbeat_control::store::{StoreError, Write};

use super::database::{ENTRIES, Open, StateFile, create, place, refused, write, write_error};

/// Bytes of a file that is never too large. A new one takes a tenth.
const MIN_BYTES: u64 = 1 << 20;
/// A file is too large when it is so many times what it holds. One that was just copied is twice that, about; where all
/// entries are written anew at each commit, three versions of them are there at a time, and the file grows by doubling.
const MAX_GROWTH_FACTOR: u64 = 8;
/// Bytes that may be committed while a copy is made; beyond, it is given up: the last commit would take long to add them.
const MAX_PENDING_WRITES: usize = 4 << 20;
/// A copy is not begun sooner after the last one. If it failed, the disk is full, and fails again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Of the name of a copy.
pub(super) const EXTENSION: &str = "compact";
/// What is logged when a copy cannot be made.
const NOT_COMPACTED: &str = "the state is not compacted now: it takes more of the disk than it needs";

/// A copy that may be under way.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    copying: Option<Copying>,
    begun: Option<Instant>,
}

#[derive(Debug)]
struct Copying {
    thread: JoinHandle<Result<Copy, StoreError>>,
    since: Since,
}

/// What was committed since the snapshot that is copied.
#[derive(Debug)]
enum Since {
    Noted {
        writes: Vec<Write>,
        bytes: usize,
    },
    /// Not everything is known: the copy is of no use.
    Lost,
}

/// A database of its own that holds what the first one did at some time.
#[derive(Debug)]
struct Copy {
    open: Open,
    /// Bytes of its entries.
    bytes: u64,
    path: PathBuf,
}

impl Compaction {
    /// Begins to copy a database of which the file has become large beside the bytes of its entries.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long ago a copy was begun is real time, and decides nothing else"
    )]
    pub(super) fn consider(&mut self, from: &Open, bytes: u64, path: &Path) {
        if !self.is_due(bytes, path) {
            return;
        }
        self.begun = Some(Instant::now());
        let Ok(snapshot) = from.database.begin_read() else { return };
        let beside = path.with_extension(EXTENSION);
        let thread = std::thread::Builder::new().name("compaction".to_owned());
        match thread.spawn(move || copy(&snapshot, beside)) {
            Ok(thread) => {
                self.copying = Some(Copying { thread, since: Since::Noted { writes: Vec::new(), bytes: 0 } });
            }
            Err(error) => tracing::warn!(%error, "{NOT_COMPACTED}"),
        }
    }

    /// Returns true if a copy would begin now.
    pub(super) fn is_due(&self, bytes: u64, path: &Path) -> bool {
        let is_early = self.begun.is_some_and(|begun| begun.elapsed() < RETRY_INTERVAL);
        let length = || std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.copying.is_none() && !is_early && is_too_large(length(), bytes)
    }

    /// Returns true while a copy is made, and until it is put in its place.
    pub(super) const fn is_under_way(&self) -> bool {
        self.copying.is_some()
    }

    /// Notes what was committed.
    pub(super) fn note(&mut self, more: &[Write]) {
        let Some(Copying { since, .. }) = &mut self.copying else { return };
        let Since::Noted { writes, bytes } = since else { return };
        *bytes = more.iter().map(Write::bytes).fold(*bytes, usize::saturating_add);
        if *bytes > MAX_PENDING_WRITES {
            *since = Since::Lost;
        } else {
            writes.extend_from_slice(more);
        }
    }

    /// Notes that the database is not the one that is copied, or that nobody knows what was committed.
    pub(super) fn lose(&mut self) {
        if let Some(copying) = &mut self.copying {
            copying.since = Since::Lost;
        }
    }

    /// If a copy is ready, carries these out in it, after what was committed meanwhile, and puts it in the database's place.
    /// Returns it with the bytes of its entries; nothing if there is none, and then nothing was carried out.
    pub(super) fn finish(&mut self, more: &[Write], path: &Path) -> Option<(Open, u64)> {
        let Copying { thread, since } = self.copying.take_if(|copying| copying.thread.is_finished())?;
        let copied = thread.join().ok()?;
        let placed = copied.and_then(|copy| {
            let beside = copy.path.clone();
            copy.put_in_place(since, more, path).inspect_err(|_| drop(std::fs::remove_file(beside)))
        });
        placed.inspect_err(|error| tracing::warn!(%error, "{NOT_COMPACTED}")).ok()
    }
}

impl Copy {
    fn put_in_place(self, since: Since, more: &[Write], path: &Path) -> Result<(Open, u64), StoreError> {
        let Since::Noted { mut writes, .. } = since else {
            return Err(write_error(&self.path, &"what was stored meanwhile is too much, or not known"));
        };
        writes.extend_from_slice(more);
        let bytes = write(&self.open.database, self.bytes, &writes).map_err(|error| write_error(&self.path, &error))?;
        place(&self.path, path)?;
        Ok((self.open, bytes))
    }
}

const fn is_too_large(file: u64, entries: u64) -> bool {
    file >= MIN_BYTES && file >= entries.saturating_mul(MAX_GROWTH_FACTOR)
}

/// If it fails, nothing is left there.
fn copy(snapshot: &ReadTransaction, path: PathBuf) -> Result<Copy, StoreError> {
    let database = create(&path).map_err(|error| refused(&path, &error))?;
    let copied = copy_entries(snapshot, &database).map_err(|error| write_error(&path, &error));
    match copied.and_then(|bytes| Ok((bytes, StateFile::at(&path)?))) {
        Ok((bytes, file)) => Ok(Copy { open: Open { database, file }, bytes, path }),
        Err(error) => {
            let _none = std::fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Returns the bytes of the entries.
fn copy_entries(snapshot: &ReadTransaction, to: &Database) -> Result<u64, redb::Error> {
    let from = snapshot.open_table(ENTRIES)?;
    let transaction = to.begin_write()?;
    let mut bytes = 0_usize;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for entry in from.iter()? {
            let (key, value) = entry?;
            table.insert(key.value(), value.value())?;
            bytes = bytes.saturating_add(key.value().len()).saturating_add(value.value().len());
        }
    }
    transaction.commit()?;
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

#[cfg(test)]
impl Compaction {
    /// A copy that fails once this has returned.
    pub(super) fn of(work: impl FnOnce() + Send + 'static) -> Self {
        let thread = std::thread::spawn(move || {
            work();
            Err(write_error(Path::new("copy"), &"it was told to fail"))
        });
        let since = Since::Noted { writes: Vec::new(), bytes: 0 };
        Self { copying: Some(Copying { thread, since }), begun: None }
    }

    /// Waits until the copy is ready, or has failed.
    pub(super) fn wait(&self) {
        while self.copying.as_ref().is_some_and(|copying| !copying.thread.is_finished()) {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_too_much_was_stored_beside_is_given_up() {
        let (ready, wait) = std::sync::mpsc::channel();
        let mut compaction = Compaction::of(move || wait.recv().unwrap());
        let noted = |compaction: &Compaction| {
            compaction.copying.as_ref().is_some_and(|copying| matches!(copying.since, Since::Noted { .. }))
        };
        let half = [Write::Put(String::new(), vec![0; MAX_PENDING_WRITES / 2])];
        compaction.note(&half);
        compaction.note(&half);
        assert!(noted(&compaction));
        compaction.note(&[Write::Delete("a".into())]);
        assert!(!noted(&compaction));
        ready.send(()).unwrap();
    }
}
