//! The database, and its file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Seek as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use wingbeat_control::store::{Entries, StoreError, Write};

/// The table of all entries, by key.
pub(super) const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");

/// Mode of the file. The state holds the secrets of arm headers: nobody else reads it.
pub(super) const FILE_MODE: u32 = 0o600;

/// Mode of the folder, if we make it.
pub(super) const FOLDER_MODE: u32 = 0o700;

/// Bytes of the database that are held in memory; beyond, the file is read. It is read once, at the start, and by default
/// the database keeps up to 1 GiB of it.
pub(super) const CACHE: usize = 16 << 20;

/// Bytes of entries from which on each commit writes down which pages are free, and syncs the file twice. Below, who opens the
/// database after a crash reads all of it to find out, which takes as long as a few commits.
pub(super) const SLOW_TO_REPAIR: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) database: Database,
    pub(super) file: StateFile,
}

/// A file that can be read as long as this is held, whoever takes it away.
#[derive(Debug)]
pub(super) struct StateFile {
    pub(super) file: File,
    /// Device and inode: what the path names while nobody takes the file away.
    pub(super) identity: (u64, u64),
}

impl StateFile {
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let kept = File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
        });
        kept.map_err(|error| write_error(path, &error))
    }

    /// Returns true while the path names it.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    /// Puts a copy of it in the place that it was taken from. Returns that.
    pub(super) fn restored(&self, path: &Path) -> Result<Self, StoreError> {
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

/// Writes what a database holds to a new one in its place. If that fails, nothing is left there.
pub(super) fn copy(held: &Open, path: &Path) -> Result<Open, StoreError> {
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

pub(super) fn open(path: &Path) -> Result<Open, StoreError> {
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
    Ok(Open { database, file: StateFile::at(path)? })
}

/// Moves away what lies in the place of the state and is not ours.
pub(super) fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("replaced");
    std::fs::rename(path, &aside).or_else(absent).map_err(|error| write_error(&aside, &error))
}

/// Also where the folder was deleted.
pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.map_err(|error| write_error(path, &error))
}

/// What is not there need not be taken away.
pub(super) fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Makes a new database beside its place and puts it there once it is whole: who is killed meanwhile leaves no half of
/// one.
pub(super) fn begin(path: &Path) -> Result<(), StoreError> {
    make_folder(path)?;
    let beside = path.with_extension("new");
    drop(create(&beside).map_err(|error| refused(&beside, &error))?);
    place(&beside, path)
}

/// Makes a new database in the place of what is there.
pub(super) fn create(path: &Path) -> Result<Database, DatabaseError> {
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
pub(super) fn place(file: &Path, path: &Path) -> Result<(), StoreError> {
    let placed = std::fs::rename(file, path).and_then(|()| match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    });
    placed.map_err(|error| write_error(path, &error))
}

pub(super) fn refused(path: &Path, error: &DatabaseError) -> StoreError {
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
pub(super) fn is_about_writing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

pub(super) fn read(database: &Database) -> Result<Entries, redb::Error> {
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
pub(super) fn write(database: &Database, before: u64, writes: &[Write]) -> Result<u64, redb::Error> {
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

pub(super) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

pub(super) fn foreign(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), why: why.to_string() }
}

pub(super) fn write_error(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Write { path: path.display().to_string(), why: why.to_string() }
}
