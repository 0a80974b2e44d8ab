//! State in a file: `state.redb` in the folder that `--state` names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use wingbeat_control::store::{Entries, Store, StoreError, Write};

use crate::disk::compaction::Compaction;
use crate::disk::database::{FOLDER_MODE, Open, StateFile, copy, foreign, length, open, read, write, write_error};

mod compaction;
mod database;

/// Name of the file in the folder of the state.
const FILE: &str = "state.redb";

/// What is logged when the file is not there any more.
const FILE_REPLACED: &str = "the state was deleted or replaced while in use: it is written anew";

/// An embedded transactional database.
#[derive(Debug)]
pub struct Disk {
    /// None after a write that failed: the database refuses everything from then on, and has to be opened anew.
    open: Option<Open>,
    /// The file of the database that failed, until it is opened anew.
    left: Option<StateFile>,
    path: PathBuf,
    /// Bytes of the entries, as of the last [`Store::load`] and what was committed since.
    bytes: u64,
    compaction: Compaction,
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
        tracing::error!(path = %self.path.display(), "{FILE_REPLACED}");
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
            tracing::error!(path = %self.path.display(), "{FILE_REPLACED}");
            // Once it is there, it is there: if it cannot be opened yet, it is not put there again.
            self.left = Some(left.restored(&self.path)?);
        }
        let open = open(&self.path)?;
        self.left = None;
        Ok(open)
    }
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

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use redb::Database;

    use super::*;
    use crate::disk::database::FILE_MODE;

    fn identity(disk: &Disk) -> (u64, u64) {
        StateFile::at(&disk.path).unwrap().identity
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

    fn put(key: &str) -> Write {
        Write::Put(key.into(), b"1".to_vec())
    }

    /// Returns the keys that are found once a disk was closed.
    fn keys_after(disk: Disk, folder: &Path) -> Vec<String> {
        drop(disk);
        Disk::open(folder).unwrap().load().unwrap().into_keys().collect()
    }

    #[test]
    fn a_state_that_is_taken_away_while_in_use_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let mut disk = Disk::open(&inner).unwrap();
        disk.commit(&[put("a")]).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        disk.commit(&[put("b")]).unwrap();
        // One that somebody puts in its place is not lost either.
        std::fs::rename(inner.join(FILE), inner.join("backup")).unwrap();
        std::fs::write(inner.join(FILE), "of someone else").unwrap();
        disk.commit(&[put("c")]).unwrap();
        assert_eq!(std::fs::read(inner.join("state.replaced")).unwrap(), b"of someone else");
        assert_eq!(keys_after(disk, &inner), ["a", "b", "c"]);
    }

    #[test]
    fn what_was_taken_away_is_held_until_it_can_be_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let mut disk = Disk::open(&inner).unwrap();
        disk.commit(&[put("a")]).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        std::fs::write(&inner, "a file where the folder was").unwrap();
        for _ in 0..2 {
            disk.commit(&[put("b")]).unwrap_err();
        }
        std::fs::remove_file(&inner).unwrap();
        disk.commit(&[put("b")]).unwrap();
        assert_eq!(keys_after(disk, &inner), ["a", "b"]);
    }

    /// Who makes room on a full disk may take away what a write has just failed in.
    #[test]
    fn what_was_taken_away_after_a_write_failed_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
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
        assert_eq!(keys_after(disk, &inner), ["a", "b", "c"]);
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
