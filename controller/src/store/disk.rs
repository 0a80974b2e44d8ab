//! State in a file: `state.redb` in the folder that `--state` names.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::store::{Entries, Store, StoreError};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const FILE: &str = "state.redb";

/// An embedded transactional database.
#[derive(Debug)]
pub struct Disk {
    database: Database,
    path: PathBuf,
}

impl Disk {
    /// Opens the state in a folder; makes both if they are not there.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        std::fs::create_dir_all(folder).map_err(|error| write_error(&path, &error))?;
        match Database::create(&path) {
            Ok(database) => Ok(Self { database, path }),
            Err(error) => Err(foreign(&path, &error)),
        }
    }

    fn read(&self) -> Result<Entries, redb::Error> {
        let transaction = self.database.begin_read()?;
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

    fn write(&self, entries: &[(String, Vec<u8>)]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for (key, value) in entries {
                table.insert(key.as_str(), value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for Disk {
    fn load(&mut self) -> Result<Entries, StoreError> {
        self.read().map_err(|error| foreign(&self.path, &error))
    }

    fn put(&mut self, entries: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(entries).map_err(|error| write_error(&self.path, &error))
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
}
