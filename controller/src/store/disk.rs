//! State in a file: `state.redb` in the folder that `--state` names.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use crate::store::{Entries, Store, StoreError, Write};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const FILE: &str = "state.redb";

/// The state holds the secrets of arm headers: nobody else reads it, nor the folder if we make it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Bytes of the database that are held in memory; beyond, the file is read. It is read once, at the start, and by default
/// the database keeps up to 1 GiB of it.
const CACHE: usize = 16 << 20;

/// An embedded transactional database.
#[derive(Debug)]
pub struct Disk {
    /// None after a write that failed: the database refuses everything from then on, and has to be opened anew.
    open: Option<Open>,
    path: PathBuf,
}

#[derive(Debug)]
struct Open {
    database: Database,
    /// Device and inode: what the path names while nobody takes the file away.
    file: (u64, u64),
}

impl Disk {
    /// Opens the state in a folder; makes both if they are not there.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|error| write_error(&path, &error))?;
        Ok(Self { open: Some(open(&path)?), path })
    }

    /// Returns the database, opened anew where that is needed.
    fn database(&mut self) -> Result<Open, StoreError> {
        let Some(held) = self.open.take() else { return open(&self.path) };
        if identity(&self.path) == Some(held.file) {
            return Ok(held);
        }
        // Somebody has taken the file away. What it holds is still here, and without it a restart would know nothing.
        tracing::error!(path = %self.path.display(), "the state was deleted or replaced while in use: it is written anew");
        let anew = copy(&held, &self.path);
        if anew.is_err() {
            // The only copy, until the next attempt.
            self.open = Some(held);
        }
        anew
    }
}

/// Writes what a database holds to a new one in its place. If that fails, nothing is left there.
fn copy(held: &Open, path: &Path) -> Result<Open, StoreError> {
    let entries = read(&held.database).map_err(|error| foreign(path, &error))?;
    if identity(path).is_some() {
        let aside = path.with_extension("replaced");
        std::fs::rename(path, &aside).map_err(|error| write_error(&aside, &error))?;
    }
    let anew = open(path)?;
    let writes: Vec<Write> = entries.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
    write(&anew.database, &writes).map_err(|error| {
        // A restart would take an empty one for the state.
        let _left = std::fs::remove_file(path);
        write_error(path, &error)
    })?;
    Ok(anew)
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
    let file = identity(path).ok_or_else(|| write_error(path, &"it was deleted at once"))?;
    Ok(Open { database, file })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes a new database beside its place and puts it there once it is whole: who is killed meanwhile leaves no half of
/// one.
fn begin(path: &Path) -> Result<(), StoreError> {
    // Also where the folder was deleted.
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|error| write_error(path, &error))?;
    }
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(write_error(&beside, &error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let file: File = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&beside)
        .map_err(|error| write_error(&beside, &error))?;
    let backend = FileBackend::new(file).map_err(|error| refused(path, &error))?;
    drop(Database::builder().create_with_backend(backend).map_err(|error| refused(path, &error))?);
    std::fs::rename(&beside, path).map_err(|error| write_error(path, &error))
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

fn write(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for write in writes {
            match write {
                Write::Put(key, value) => drop(table.insert(key.as_str(), value.as_slice())?),
                Write::Delete(key) => drop(table.remove(key.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

impl Store for Disk {
    fn load(&mut self) -> Result<Entries, StoreError> {
        let open = self.database()?;
        let entries = read(&open.database).map_err(|error| foreign(&self.path, &error))?;
        self.open = Some(open);
        Ok(entries)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let open = self.database()?;
        write(&open.database, writes).map_err(|error| write_error(&self.path, &error))?;
        self.open = Some(open);
        Ok(())
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
}
