//! Tells when files may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::files::{Places, is_of_documents};

/// Editors write a file in several steps; what they leave behind is read once it has been quiet for so long, …
const DEBOUNCE: Duration = Duration::from_millis(100);
/// … or, where it is never quiet, after so long.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// Files that are noted one by one as changed. Beyond, all are read.
const MAX_FILES: usize = 16_384;

/// Watches the folders that files and the links to them are in.
#[derive(Debug)]
pub(super) struct Watch {
    /// Nothing if the system has none.
    watcher: Option<RecommendedWatcher>,
    places: Arc<Mutex<Places>>,
    /// What changed since it was asked last.
    changed: Arc<Mutex<Changed>>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<()>,
    /// Keeps the way open where there is no watcher.
    _changed: mpsc::Sender<()>,
}

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    /// Anything.
    Anything,
    /// Files of documents in folders, and nothing else. At most [`MAX_FILES`].
    Files(BTreeSet<PathBuf>),
}

impl Default for Changed {
    fn default() -> Self {
        Self::Files(BTreeSet::new())
    }
}

impl Changed {
    /// Adds what an event tells of.
    fn note(&mut self, event: &notify::Result<Event>, places: &Places) {
        let Self::Files(files) = self else { return };
        let is_file = |path: &PathBuf| places.is_file_of_folder(path) && !places.names.contains(path);
        // A file that takes the place of another one may come from where nothing is read.
        let is_told = |path: &PathBuf| is_file(path) || !places.concern(path);
        match event {
            Ok(event) if !event.need_rescan() && event.paths.iter().all(is_told) => {
                files.extend(event.paths.iter().filter(|path| is_file(path)).cloned());
                if files.len() > MAX_FILES {
                    *self = Self::Anything;
                }
            }
            Ok(_) | Err(_) => *self = Self::Anything,
        }
    }
}

/// What came of following places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// All of them are watched, and were before.
    Already,
    /// Some are watched from now on: what changed there since they were read was not told.
    Anew,
    /// Some cannot be watched.
    InPart,
}

impl Watch {
    pub(super) fn start() -> Self {
        // One that waits stands for all.
        let (changed, changes) = mpsc::channel(1);
        let places: Arc<Mutex<Places>> = Arc::default();
        let (tell, concerned) = (changed.clone(), places.clone());
        let noted = Arc::<Mutex<Changed>>::default();
        let notes = noted.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let places = concerned.lock().unwrap_or_else(PoisonError::into_inner);
            if event.as_ref().is_ok_and(|event| !matters(event, &places)) {
                return;
            }
            notes.lock().unwrap_or_else(PoisonError::into_inner).note(&event, &places);
            let _one_waits = tell.try_send(());
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files cannot be watched: they are looked at every few seconds");
        }
        let watched = BTreeSet::new();
        Self { watcher: watcher.ok(), places, changed: noted, watched, changes, _changed: changed }
    }

    /// Returns what changed since it was asked last.
    pub(super) fn take_changed(&self) -> Changed {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches these places from now on, and no others.
    pub(super) fn follow(&mut self, places: &Places) -> Followed {
        let Some(watcher) = &mut self.watcher else { return Followed::InPart };
        let parents = places.names.iter().filter_map(|name| name.parent().map(Path::to_owned));
        let wanted: BTreeSet<PathBuf> = parents.chain(places.folders.iter().cloned()).collect();
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places.clone();
        for gone in self.watched.difference(&wanted) {
            // It may be gone from the disk, too.
            let _gone = watcher.unwatch(gone);
        }
        let (mut watched, mut followed) = (BTreeSet::new(), Followed::Already);
        for folder in wanted {
            // Also where it is watched already: another folder may have taken its place.
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    if !self.watched.contains(&folder) && followed == Followed::Already {
                        followed = Followed::Anew;
                    }
                    watched.insert(folder);
                }
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "cannot be watched");
                    followed = Followed::InPart;
                }
            }
        }
        self.watched = watched;
        followed
    }

    /// Waits until something may have changed, and has come to rest.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_some() {
            settle(&mut self.changes).await;
        }
    }
}

/// Waits until nothing came for a while, or for the longest wait.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let first = Instant::now();
    let mut rest = rest_after(first, first);
    while Instant::now() < rest {
        if timeout_at(rest, changes.recv()).await.is_err() {
            return;
        }
        rest = rest_after(first, Instant::now());
    }
}

/// Returns when to read after the first and the latest of several changes.
fn rest_after(first: Instant, latest: Instant) -> Instant {
    (latest + DEBOUNCE).min(first + MAX_DEBOUNCE)
}

/// Returns true if what is read may be different after this. That somebody reads is no change: we read.
fn matters(event: &Event, places: &Places) -> bool {
    if matches!(event.kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    event.need_rescan() || event.paths.iter().any(|path| places.concern(path))
}

impl Places {
    /// Returns true if what is read may be different when there is something else in this place.
    fn concern(&self, path: &Path) -> bool {
        self.names.contains(path) || self.folders.contains(path) || self.is_file_of_folder(path)
    }

    fn is_file_of_folder(&self, path: &Path) -> bool {
        path.parent().is_some_and(|folder| self.folders.contains(folder))
            && path.file_name().is_some_and(is_of_documents)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind, RenameMode};

    use super::*;

    #[test]
    fn only_what_is_read_matters() {
        let path = |name: &str| PathBuf::from(name);
        let places = Places { names: [path("/c/..data"), path("/d/one")].into(), folders: [path("/c")].into() };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for (kind, name, is_told) in [
            (written, "/c/a.yaml", true),
            (closed, "/c/a.yml", true),
            (read, "/c/a.yaml", false),
            (opened, "/c/a.yaml", false),
            (written, "/c/access.log", false),
            (written, "/c/.a.yaml.swp", false),
            (renamed, "/c/..data", true),
            (EventKind::Create(CreateKind::Folder), "/c", true),
            (written, "/d/one", true),
            (written, "/d/other.yaml", false),
        ] {
            let event = Event::new(kind).add_path(path(name));
            assert_eq!(matters(&event, &places), is_told, "{event:?}");
        }
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(matters(&lost, &places));
    }

    #[test]
    fn files_are_noted_one_by_one_as_long_as_nothing_else_changes() {
        let path = |name: &str| PathBuf::from(name);
        let places = Places { names: [path("/c/link.yaml")].into(), folders: [path("/c")].into() };
        let event = |kind: EventKind, names: &[&str]| {
            let paths = names.iter().fold(Event::new(kind), |event, name| event.add_path(path(name)));
            Ok(paths)
        };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        let mut changed = Changed::default();
        changed.note(&event(written, &["/c/a.yaml"]), &places);
        changed.note(&event(renamed, &["/tmp/next", "/c/b.yaml"]), &places);
        assert_eq!(changed, Changed::Files([path("/c/a.yaml"), path("/c/b.yaml")].into()));
        for other in [event(written, &["/c/link.yaml"]), event(written, &["/c"]), Err(notify::Error::generic("lost"))] {
            let mut changed = changed.clone();
            changed.note(&other, &places);
            assert_eq!(changed, Changed::Anything, "{other:?}");
        }
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        changed.note(&Ok(lost), &places);
        assert_eq!(changed, Changed::Anything);
        let mut changed = Changed::default();
        for number in 0..=MAX_FILES {
            changed.note(&event(written, &[&format!("/c/{number}.yaml")]), &places);
        }
        assert_eq!(changed, Changed::Anything);
    }

    #[test]
    fn a_folder_that_is_never_quiet_is_read_all_the_same() {
        let first = Instant::now();
        let (mut latest, mut changes) = (first, 0);
        while latest < rest_after(first, latest) {
            latest = (latest + DEBOUNCE / 10).min(rest_after(first, latest));
            changes += 1;
        }
        assert_eq!((latest - first, changes), (MAX_DEBOUNCE, 100));
        assert_eq!(rest_after(first, first) - first, DEBOUNCE);
    }
}
