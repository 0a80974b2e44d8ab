//! State in a file: `state.redb` in the folder that `--state` names.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Seek as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use wingbeat_control::store::{Entries, Store, StoreError, Write};

use crate::disk::compaction::Compaction;

mod compaction;

/// The table of all entries, by key.
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// Name of the file in the folder of the state.
const FILE: &str = "state.redb";

/// Mode of the file. The state holds the secrets of arm headers: nobody else reads it.
const FILE_MODE: u32 = 0o600;
/// Mode of the folder, if we make it.
const FOLDER_MODE: u32 = 0o700;

/// Bytes of the database that are held in memory; beyond, the file is read. It is read once, at the start, and by default
/// the database keeps up to 1 GiB of it.
const CACHE: usize = 16 << 20;

/// What is logged when the file is not there any more.
const TAKEN_AWAY: &str = "the state was deleted or replaced while in use: it is written anew";

/// Bytes of entries from which on each commit writes down which pages are free, and syncs the file twice. Below, who opens the
/// database after a crash reads all of it to find out, which takes as long as a few commits.
const SLOW_TO_REPAIR: u64 = 4 << 20;

/// An embedded transactional database.
#[derive(Debug)]
pub struct Disk {
    /// None after a write that failed: the database refuses everything from then on, and has to be opened anew.
    open: Option<Open>,
    /// The file of the database that failed, until it is opened anew.
    left: Option<Kept>,
    path: PathBuf,
    /// Bytes of the entries, as of the last [`Store::load`] and what was committed since.
    bytes: u64,
    compaction: Compaction,
}

#[derive(Debug)]
struct Open {
    database: Database,
    file: Kept,
}

/// A file that can be read as long as this is held, whoever takes it away.
#[derive(Debug)]
struct Kept {
    file: File,
    /// Device and inode: what the path names while nobody takes the file away.
    identity: (u64, u64),
}

impl Kept {
    fn at(path: &Path) -> Result<Self, StoreError> {
        let kept = File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
        });
        kept.map_err(|error| write_error(path, &error))
    }

    /// Returns true while the path names it.
    fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    /// Puts a copy of it in the place that it was taken from. Returns that.
    fn restored(&self, path: &Path) -> Result<Self, StoreError> {
        set_aside(path)?;
        make_folder(path)?;
        let beside = path.with_extension("new");
        let copied = std::fs::remove_file(&beside).or_else(absent).and_then(|()| {
            let mut options = OpenOptions::new();
            let mut to = options.write(true).create_new(true).mode(FILE_MODE).open(&beside)?;
            let mut from = &self.file;
            from.rewind()?;
            std::io::copy(&mut from, &mut to)?;
            to.sync_all()
        });
        copied.map_err(|error| write_error(&beside, &error))?;
        place(&beside, path)?;
        Self::at(path)
    }
}

impl Disk {
    /// Opens the state in a folder; makes both if they are not there.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|error| write_error(&path, &error))?;
        let open = open(&path)?;
        // Of a process that was killed meanwhile.
        let _none = std::fs::remove_file(path.with_extension(compaction::EXTENSION));
        Ok(Self { open: Some(open), left: None, path, bytes: 0, compaction: Compaction::default() })
    }

    /// Returns the database, opened anew where that is needed.
    fn database(&mut self) -> Result<Open, StoreError> {
        let Some(held) = self.open.take() else { return self.open_anew() };
        if held.file.is_at(&self.path) {
            return Ok(held);
        }
        // Somebody has taken the file away. What it holds is still here, and without it a restart would know nothing.
        tracing::error!(path = %self.path.display(), "{TAKEN_AWAY}");
        self.compaction.lose();
        let anew = copy(&held, &self.path);
        if anew.is_err() {
            // The only copy, until the next attempt.
            self.open = Some(held);
        }
        anew
    }

    /// Opens the database that a write has failed in, also if its file was taken away since: an empty one would be taken for
    /// the state by whoever starts again.
    fn open_anew(&mut self) -> Result<Open, StoreError> {
        if let Some(left) = self.left.as_ref().filter(|left| !left.is_at(&self.path)) {
            tracing::error!(path = %self.path.display(), "{TAKEN_AWAY}");
            // Once it is there, it is there: if it cannot be opened yet, it is not put there again.
            self.left = Some(left.restored(&self.path)?);
        }
        let open = open(&self.path)?;
        self.left = None;
        Ok(open)
    }
}

/// Writes what a database holds to a new one in its place. If that fails, nothing is left there.
fn copy(held: &Open, path: &Path) -> Result<Open, StoreError> {
    let entries = read(&held.database).map_err(|error| foreign(path, &error))?;
    set_aside(path)?;
    let anew = open(path)?;
    let writes: Vec<Write> = entries.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
    match write(&anew.database, 0, &writes) {
        Ok(_bytes) => Ok(anew),
        Err(error) => {
            // A restart would take an empty one for the state.
            let _left = std::fs::remove_file(path);
            Err(write_error(path, &error))
        }
    }
}

fn open(path: &Path) -> Result<Open, StoreError> {
    match std::fs::metadata(path) {
        // The database would take it for a new one. None of ours is ever empty.
        Ok(metadata) if metadata.len() == 0 => return Err(foreign(path, &"it is empty")),
        // Written by a version that did not see to it.
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            std::fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
                .map_err(|error| write_error(path, &error))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => begin(path)?,
        Ok(_) | Err(_) => {}
    }
    let database = Database::builder().set_cache_size(CACHE).open(path).map_err(|error| refused(path, &error))?;
    Ok(Open { database, file: Kept::at(path)? })
}

/// Moves away what lies in the place of the state and is not ours.
fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("replaced");
    std::fs::rename(path, &aside).or_else(absent).map_err(|error| write_error(&aside, &error))
}

/// Also where the folder was deleted.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.map_err(|error| write_error(path, &error))
}

/// What is not there need not be taken away.
fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Makes a new database beside its place and puts it there once it is whole: who is killed meanwhile leaves no half of
/// one.
fn begin(path: &Path) -> Result<(), StoreError> {
    make_folder(path)?;
    let beside = path.with_extension("new");
    drop(create(&beside).map_err(|error| refused(&beside, &error))?);
    place(&beside, path)
}

/// Makes a new database in the place of what is there.
fn create(path: &Path) -> Result<Database, DatabaseError> {
    let failed = |error: std::io::Error| DatabaseError::Storage(StorageError::Io(error));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path).map_err(failed)?;
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

/// Puts a file in the place of another one, for good.
fn place(file: &Path, path: &Path) -> Result<(), StoreError> {
    let placed = std::fs::rename(file, path).and_then(|()| match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    });
    placed.map_err(|error| write_error(path, &error))
}

fn refused(path: &Path, error: &DatabaseError) -> StoreError {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        return StoreError::InUse { path: path.display().to_string() };
    }
    if let DatabaseError::Storage(StorageError::Io(cause)) = error
        && is_about_writing(cause.kind())
    {
        return write_error(path, cause);
    }
    foreign(path, error)
}

/// Returns true for errors that say nothing about what the file holds.
fn is_about_writing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

fn read(database: &Database) -> Result<Entries, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(ENTRIES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Entries::new()),
        Err(error) => return Err(error.into()),
    };
    let mut entries = Entries::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        entries.insert(key.value().to_owned(), value.value().to_vec());
    }
    Ok(entries)
}

/// Returns the bytes of the entries after it, of so many before.
fn write(database: &Database, before: u64, writes: &[Write]) -> Result<u64, redb::Error> {
    let mut transaction = database.begin_write()?;
    let mut bytes = before;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for write in writes {
            let (gone, more) = match write {
                Write::Put(key, value) => (table.insert(key.as_str(), value.as_slice())?, write.bytes()),
                Write::Delete(key) => (table.remove(key.as_str())?, 0),
            };
            let gone = gone.map_or(0, |gone| write.key().len().saturating_add(gone.value().len()));
            bytes = bytes.saturating_sub(length(gone)).saturating_add(length(more));
        }
    }
    transaction.set_quick_repair(bytes >= SLOW_TO_REPAIR);
    transaction.commit()?;
    Ok(bytes)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Store for Disk {
    fn load(&mut self) -> Result<Entries, StoreError> {
        let open = self.database()?;
        let entries = read(&open.database).map_err(|error| foreign(&self.path, &error))?;
        self.open = Some(open);
        let bytes = entries.iter().map(|(key, value)| length(key.len().saturating_add(value.len())));
        self.bytes = bytes.fold(0, u64::saturating_add);
        Ok(entries)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let open = self.database()?;
        if let Some((compacted, bytes)) = self.compaction.finish(writes, &self.path) {
            (self.open, self.bytes) = (Some(compacted), bytes);
            // Closing writes to it once more, and nobody needs it: where there is no thread, it is closed here.
            let _closed = std::thread::Builder::new().spawn(move || drop(open));
            return Ok(());
        }
        self.bytes = match write(&open.database, self.bytes, writes) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.compaction.lose();
                self.left = Some(open.file);
                return Err(write_error(&self.path, &error));
            }
        };
        self.compaction.note(writes);
        self.compaction.consider(&open, self.bytes, &self.path);
        self.open = Some(open);
        Ok(())
    }

    fn awaits_commit(&self) -> bool {
        self.compaction.is_under_way() || self.compaction.is_due(self.bytes, &self.path)
    }
}

fn foreign(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), why: why.to_string() }
}

fn write_error(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Write { path: path.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(disk: &Disk) -> (u64, u64) {
        Kept::at(&disk.path).unwrap().identity
    }

    #[test]
    fn what_is_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path()).unwrap();
        assert_eq!(disk.load().unwrap(), Entries::new());
        let put = |key: &str, value: &[u8]| Write::Put(key.into(), value.to_vec());
        disk.commit(&[put("a", b"1"), put("b", b"2"), put("c", b"4")]).unwrap();
        disk.commit(&[put("a", b"3"), Write::Delete("c".into()), Write::Delete("never there".into())]).unwrap();
        drop(disk);
        let entries = Disk::open(folder.path()).unwrap().load().unwrap();
        assert_eq!(entries, Entries::from([("a".into(), b"3".to_vec()), ("b".into(), b"2".to_vec())]));
    }

    #[test]
    fn nobody_else_reads_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        drop(Disk::open(&inner).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&inner.join(FILE))), (FOLDER_MODE, FILE_MODE));
        // As an earlier version left it.
        std::fs::set_permissions(inner.join(FILE), Permissions::from_mode(0o644)).unwrap();
        drop(Disk::open(&inner).unwrap());
        assert_eq!(mode(&inner.join(FILE)), FILE_MODE);
    }

    #[test]
    fn a_state_that_is_taken_away_while_in_use_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let put = |key: &str| Write::Put(key.into(), b"1".to_vec());
        let mut disk = Disk::open(&inner).unwrap();
        disk.commit(&[put("a")]).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        disk.commit(&[put("b")]).unwrap();
        // One that somebody puts in its place is not lost either.
        std::fs::rename(inner.join(FILE), inner.join("backup")).unwrap();
        std::fs::write(inner.join(FILE), "of someone else").unwrap();
        disk.commit(&[put("c")]).unwrap();
        assert_eq!(std::fs::read(inner.join("state.replaced")).unwrap(), b"of someone else");
        drop(disk);
        let keys: Vec<String> = Disk::open(&inner).unwrap().load().unwrap().into_keys().collect();
        assert_eq!(keys, ["a", "b", "c"]);
    }

    #[test]
    fn what_was_taken_away_is_held_until_it_can_be_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let put = |key: &str| Write::Put(key.into(), b"1".to_vec());
        let mut disk = Disk::open(&inner).unwrap();
        disk.commit(&[put("a")]).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        std::fs::write(&inner, "a file where the folder was").unwrap();
        for _ in 0..2 {
            disk.commit(&[put("b")]).unwrap_err();
        }
        std::fs::remove_file(&inner).unwrap();
        disk.commit(&[put("b")]).unwrap();
        drop(disk);
        let keys: Vec<String> = Disk::open(&inner).unwrap().load().unwrap().into_keys().collect();
        assert_eq!(keys, ["a", "b"]);
    }

    /// Who makes room on a full disk may take away what a write has just failed in.
    #[test]
    fn what_was_taken_away_after_a_write_failed_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let put = |key: &str| Write::Put(key.into(), b"1".to_vec());
        let mut disk = Disk::open(&inner).unwrap();
        for (key, stranger) in [("a", None), ("b", Some("of someone else"))] {
            disk.commit(&[put(key)]).unwrap();
            // As after a write that failed.
            disk.left = disk.open.take().map(|open| open.file);
            std::fs::remove_dir_all(&inner).unwrap();
            if let Some(stranger) = stranger {
                std::fs::create_dir(&inner).unwrap();
                std::fs::write(inner.join(FILE), stranger).unwrap();
            }
        }
        disk.commit(&[put("c")]).unwrap();
        assert_eq!(std::fs::read(inner.join("state.replaced")).unwrap(), b"of someone else");
        drop(disk);
        let keys: Vec<String> = Disk::open(&inner).unwrap().load().unwrap().into_keys().collect();
        assert_eq!(keys, ["a", "b", "c"]);
    }

    #[test]
    fn a_file_of_someone_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), vec![7; 100_000]).unwrap();
        let refused = Disk::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(FILE) && refused.contains("move it away"), "{refused}");
        assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap().len(), 100_000, "nothing was lost");
    }

    #[test]
    fn an_empty_file_is_not_taken_for_a_new_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "").unwrap();
        let refused = Disk::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("it is empty") && refused.contains("move it away"), "{refused}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        // What is left of a first start that was killed is in nobody's way.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path.with_extension("new"), "half").unwrap();
        Disk::open(folder.path()).unwrap();
    }

    #[test]
    fn two_processes_do_not_share_a_state() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Disk::open(folder.path()).unwrap();
        let refused = Disk::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
    }

    #[test]
    fn half_of_a_state_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Disk::open(folder.path()).unwrap().commit(&[Write::Put("a".into(), vec![1; 10_000])]).unwrap();
        let path = folder.path().join(FILE);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let refused = Disk::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("move it away"), "{refused}");
    }

    /// Key and content of so many workers.
    fn many(workers: std::ops::Range<u32>) -> Vec<Write> {
        workers.map(|worker| Write::Put(format!("ledger/{worker:08}"), vec![7; 2_000])).collect()
    }

    fn gone(workers: std::ops::Range<u32>) -> Vec<Write> {
        workers.map(|worker| Write::Delete(format!("ledger/{worker:08}"))).collect()
    }

    /// Commits small entries until a copy is in place.
    fn compact(disk: &mut Disk) {
        let before = identity(disk);
        for number in 0_u64..100_000 {
            disk.commit(&[Write::Put("clock".into(), number.to_le_bytes().to_vec())]).unwrap();
            if identity(disk) != before {
                return;
            }
        }
        panic!("it is not compacted");
    }

    fn size(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().len()
    }

    #[test]
    fn the_file_of_many_that_are_gone_is_as_small_as_a_new_one() {
        let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut disk = Disk::open(folder.path()).unwrap();
        let mut new = Disk::open(fresh.path()).unwrap();
        new.commit(&many(0..10)).unwrap();
        disk.commit(&many(0..5_000)).unwrap();
        let large = size(&disk.path);
        assert!(!disk.awaits_commit());
        disk.commit(&gone(10..5_000)).unwrap();
        assert!(disk.awaits_commit());
        compact(&mut disk);
        assert!(!disk.awaits_commit());
        let (small, new) = (size(&disk.path), size(&new.path));
        assert!(small <= new + new / 10 && large > 20 * small, "{large}, {small}, new {new}");
        // What was committed while the copy was made is there, and what came after.
        disk.commit(&[Write::Put("after".into(), b"1".to_vec()), Write::Delete("ledger/00000000".into())]).unwrap();
        let expected = disk.load().unwrap();
        drop(disk);
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, [FILE], "nothing is left beside it");
        let entries = Disk::open(folder.path()).unwrap().load().unwrap();
        assert_eq!(entries, expected);
        let keys: Vec<&str> = entries.keys().map(String::as_str).filter(|key| !key.starts_with("ledger/")).collect();
        assert_eq!((keys, entries.len()), (vec!["after", "clock"], 9 + 2));
    }

    #[test]
    fn a_file_that_is_as_large_as_what_it_holds_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path()).unwrap();
        for round in 0..3 {
            disk.commit(&many(0..2_000)).unwrap();
            disk.commit(&many(1_000 * round..1_000 * (round + 1))).unwrap();
            assert!(!disk.compaction.is_under_way());
        }
    }

    /// Whoever commits meanwhile waits for nothing: the copy is not ready before the test lets it.
    #[test]
    fn no_commit_waits_for_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path()).unwrap();
        let (ready, wait) = std::sync::mpsc::channel();
        disk.compaction = Compaction::of(move || wait.recv().unwrap());
        for _ in 0..3 {
            disk.commit(&many(0..10)).unwrap();
            assert!(disk.compaction.is_under_way());
        }
        ready.send(()).unwrap();
        let before = identity(&disk);
        disk.compaction.wait();
        disk.commit(&many(10..20)).unwrap();
        assert!(!disk.compaction.is_under_way(), "it failed");
        assert_eq!((identity(&disk), disk.load().unwrap().len()), (before, 20), "the old one goes on");
    }

    #[test]
    fn a_copy_of_what_was_taken_away_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path()).unwrap();
        disk.commit(&many(0..2_000)).unwrap();
        disk.commit(&gone(1..2_000)).unwrap();
        assert!(disk.compaction.is_under_way());
        std::fs::rename(&disk.path, folder.path().join("backup")).unwrap();
        disk.commit(&[Write::Put("a".into(), b"1".to_vec())]).unwrap();
        disk.compaction.wait();
        disk.commit(&[Write::Put("b".into(), b"1".to_vec())]).unwrap();
        drop(disk);
        let keys: Vec<String> = Disk::open(folder.path()).unwrap().load().unwrap().into_keys().collect();
        assert_eq!(keys, ["a", "b", "ledger/00000000"]);
        assert!(!folder.path().join(FILE).with_extension(compaction::EXTENSION).exists());
    }

    /// As a process leaves it that is killed.
    #[test]
    fn a_large_state_is_open_at_once_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path()).unwrap();
        disk.commit(&many(0..4_000)).unwrap();
        for round in 0..3 {
            disk.commit(&many(round..round + 1)).unwrap();
        }
        let left = folder.path().join("left");
        std::fs::copy(&disk.path, &left).unwrap();
        let repaired = std::rc::Rc::<std::cell::Cell<u32>>::default();
        let count = repaired.clone();
        let open = Database::builder().set_repair_callback(move |_| count.set(count.get() + 1)).open(left).unwrap();
        assert_eq!((repaired.get(), read(&open).unwrap().len()), (0, 4_000));
    }
}
