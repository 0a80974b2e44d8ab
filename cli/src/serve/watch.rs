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

/// Watches the folders that files and the links to them are in.
#[derive(Debug)]
pub(super) struct Watch {
    /// Nothing if the system has none.
    watcher: Option<RecommendedWatcher>,
    places: Arc<Mutex<Places>>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<()>,
    /// Keeps the way open where there is no watcher.
    _changed: mpsc::Sender<()>,
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
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let may_matter = match &event {
                Ok(event) => matters(event, &concerned.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(_) => true,
            };
            if may_matter {
                let _one_waits = tell.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files cannot be watched: they are looked at every few seconds");
        }
        Self { watcher: watcher.ok(), places, watched: BTreeSet::new(), changes, _changed: changed }
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
    let concerns = |path: &PathBuf| {
        let is_document = || {
            path.parent().is_some_and(|folder| places.folders.contains(folder))
                && path.file_name().is_some_and(is_of_documents)
        };
        places.names.contains(path) || places.folders.contains(path) || is_document()
    };
    event.need_rescan() || event.paths.iter().any(concerns)
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
