//! State in a file: `state.redb` in the folder that `--state` names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use crate::store::{Entries, Store, StoreError};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const FILE: &str = "state.redb";

/// An embedded transactional database.
#[derive(Debug)]
pub struct Disk {
    /// None after a write that failed: the database refuses everything from then on, and has to be opened anew.
    database: Option<Database>,
    path: PathBuf,
}

impl Disk {
    /// Opens the state in a folder; makes both if they are not there.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        std::fs::create_dir_all(folder).map_err(|error| write_error(&path, &error))?;
        Ok(Self { database: Some(open(&path)?), path })
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    match std::fs::metadata(path) {
        // The database would take it for a new one. None of ours is ever empty.
        Ok(metadata) if metadata.len() == 0 => return Err(foreign(path, &"it is empty")),
        Err(error) if error.kind() == ErrorKind::NotFound => begin(path)?,
        Ok(_) | Err(_) => {}
    }
    Database::create(path).map_err(|error| refused(path, &error))
}

/// Makes a new database beside its place and puts it there once it is whole: who is killed meanwhile leaves no half of
/// one.
fn begin(path: &Path) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(write_error(&beside, &error)),
        Ok(()) | Err(_) => {}
    }
    drop(Database::create(&beside).map_err(|error| refused(path, &error))?);
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

fn write(database: &Database, entries: &[(String, Vec<u8>)]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for (key, value) in entries {
            table.insert(key.as_str(), value.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

impl Store for Disk {
    fn load(&mut self) -> Result<Entries, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let entries = read(&database).map_err(|error| foreign(&self.path, &error))?;
        self.database = Some(database);
        Ok(entries)
    }

    fn put(&mut self, entries: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        write(&database, entries).map_err(|error| write_error(&self.path, &error))?;
        self.database = Some(database);
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
        disk.put(&[("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]).unwrap();
        disk.put(&[("a".into(), b"3".to_vec())]).unwrap();
        drop(disk);
        let entries = Disk::open(folder.path()).unwrap().load().unwrap();
        assert_eq!(entries, Entries::from([("a".into(), b"3".to_vec()), ("b".into(), b"2".to_vec())]));
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
        Disk::open(folder.path()).unwrap().put(&[("a".into(), vec![1; 10_000])]).unwrap();
        let path = folder.path().join(FILE);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let refused = Disk::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("move it away"), "{refused}");
    }
}
