//! Takes changes of the files over. One that is wrong is told and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use wingbeat_api::desired_state::{DesiredState, InUse};
use wingbeat_api::files::{Extent, Files, InForce, Moment, Part, Removal};
use wingbeat_api::{Problem, Report};
use wingbeat_controller::handle::Handle;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;

use super::watch::{Changed, Followed, Watch};
use crate::files::{self, Found, Pipes};
use crate::names;

/// Where nobody tells when it changes (names without an address, files that cannot be read or watched), it is looked at
/// again this often.
const RESCAN_INTERVAL: Duration = Duration::from_secs(10);

/// What the files said so far.
pub(super) struct Known {
    /// Their texts, and what of them is in force; of those that could not be read, what they were before.
    files: Files,
    /// Files that could not be read.
    unreadable: Vec<Problem>,
    /// What is in folders and was not read, and folders without any document.
    left_out: Vec<Problem>,
    /// Folders of documents, links resolved, each with the paths that name it.
    folders: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Host names that Envoys were told.
    pub(super) hosts: BTreeSet<String>,
    /// Host names without an address.
    unresolved: BTreeMap<String, String>,
    /// Revisions in use for which something was refused.
    rests_on: BTreeMap<CanaryName, InUse>,
    /// When documents have been missed for long enough.
    again: Option<Instant>,
    /// What was logged and holds, by file: it is not logged again.
    logged: BTreeMap<String, BTreeSet<Problem>>,
    began: Instant,
}

impl Known {
    /// Begins with what was in force when the state was stored, as far as it is from these paths: whoever names others does
    /// not mean it.
    pub(super) fn restore(stored: BTreeMap<String, Vec<Part>>, paths: &[PathBuf]) -> Self {
        let is_named = |file: &str| paths.iter().any(|path| is_in(file, &path.display().to_string()));
        let stored = stored.into_iter().filter(|(file, _)| is_named(file)).collect();
        let (files, report) = Files::restore(stored, Timestamp::EPOCH);
        for problem in report.errors {
            tracing::error!(file = problem.file, "the stored text is not used: {problem}");
        }
        Self {
            files,
            unreadable: Vec::new(),
            left_out: Vec::new(),
            folders: BTreeMap::new(),
            hosts: BTreeSet::new(),
            unresolved: BTreeMap::new(),
            rests_on: BTreeMap::new(),
            again: None,
            logged: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    /// Notes all that was found; what could not be read is what it was before. Returns true if something is different.
    pub(super) fn note(&mut self, found: Found) -> bool {
        let Found { texts, unreadable, left_out, empty, places: _, folders } = found;
        let is_unreadable = |name: &str| unreadable.iter().any(|problem| is_in(name, &problem.file));
        let gone = self.files.names().filter(|file| !texts.contains_key(*file) && !is_unreadable(file));
        let gone: Vec<String> = gone.cloned().collect();
        gone.iter().for_each(|file| self.files.change(file, None));
        self.note_texts(texts);
        let is_other = self.unreadable != unreadable;
        (self.unreadable, self.left_out, self.folders) = (unreadable, left_out, folders);
        self.left_out.extend(empty);
        is_other || self.files.is_changed()
    }

    /// Notes the texts of some files.
    fn note_texts(&mut self, texts: impl IntoIterator<Item = (String, String)>) {
        for (file, text) in texts {
            if self.files.text(&file) != Some(text.as_str()) {
                self.files.change(&file, Some(&text));
            }
        }
    }

    /// Takes what was noted. Returns what is in force now; with `report.errors`, all that is wrong with files.
    pub(super) fn take(
        &mut self,
        in_use: &dyn Fn(&CanaryName) -> Option<InUse>,
        unresolved: BTreeMap<String, String>,
        absence: Removal,
    ) -> InForce {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let changed = self.files.changed();
        let moment = Moment { in_use, unresolved: &unresolved, absence, now: Timestamp::from_nanos(now) };
        let mut taken = self.files.settle(moment);
        self.hosts = taken.set.host_names();
        self.rests_on = taken.rests_on.iter().filter_map(|name| Some((name.clone(), in_use(name)?))).collect();
        self.again = taken.again.map(|again| self.began + Duration::from_nanos(again.as_nanos()));
        taken.report.errors.extend(self.unreadable.iter().cloned());
        taken.report.warnings.extend(self.left_out.iter().cloned());
        self.unresolved = unresolved;
        self.log(&taken, &changed);
        taken
    }

    /// Logs what came of it: what is wrong once, as long as the file is not changed.
    fn log(&mut self, taken: &InForce, changed: &BTreeSet<String>) {
        let is_logged = |problem: &Problem| self.logged.get(&problem.file).is_some_and(|it| it.contains(problem));
        let is_new = |problem: &&Problem| !is_logged(problem) || changed.contains(&problem.file);
        let InForce { report, missed, removed, .. } = taken;
        let mut refused = false;
        for problem in report.errors.iter().filter(is_new) {
            refused = true;
            tracing::error!(file = problem.file, "file refused: {problem}");
        }
        for problem in missed.iter().filter(is_new) {
            tracing::warn!(file = problem.file, "{problem}");
        }
        for problem in report.warnings.iter().filter(is_new) {
            tracing::warn!(file = problem.file, "{problem}");
        }
        if refused {
            tracing::warn!("what was right before goes on");
        }
        for document in removed {
            tracing::warn!("{document} is removed: it is in no file");
        }
        let errors: BTreeSet<&str> = report.errors.iter().map(|problem| problem.file.as_str()).collect();
        let is_there = |file: &&String| self.files.text(file).is_some() && !errors.contains(file.as_str());
        changed.iter().filter(is_there).for_each(|file| tracing::info!(file, "file taken"));
        match &taken.extent {
            Extent::Everything => self.logged.clear(),
            Extent::Files(files) => self.logged.retain(|file, _| !files.contains(file)),
        }
        for problem in report.errors.iter().chain(missed).chain(&report.warnings) {
            self.logged.entry(problem.file.clone()).or_default().insert(problem.clone());
        }
    }

    /// Returns what is to be managed.
    pub(super) fn desired_state(&self, taken: &InForce, filter: &Arc<[u8]>) -> DesiredState {
        let errors = taken.report.errors.iter().chain(&taken.missed).cloned().collect();
        let refused_files = Report { errors, warnings: Vec::new() }.by_file();
        DesiredState { refused_files, texts: self.files.parts(), ..taken.set.desired_state(Some(filter.clone())) }
    }

    /// Returns the host names that Envoys were not told yet and that have no address. They keep the addresses that they have.
    async fn without_address(&self) -> BTreeMap<String, String> {
        // Those that had none are looked for again.
        let asked = self.files.host_names_of(&self.files.changed()).into_iter().chain(self.unresolved.keys().cloned());
        names::unresolved(asked.filter(|name| !self.hosts.contains(name)).collect()).await
    }
}

/// Follows the files until the server ends.
pub(super) async fn follow(paths: &[PathBuf], mut known: Known, handle: &Handle) -> anyhow::Result<()> {
    // What is in use is shown from then on.
    if handle.watch().wait_for(|board| board.ready).await.is_err() {
        return Ok(());
    }
    let mut watch = Watch::start();
    let mut told = signal(SignalKind::hangup()).context("cannot take signals")?;
    let mut absence = Removal::Deferred;
    // At first too: something may have changed since the files were read, and before they were watched.
    let (mut changed, mut is_blind) = (Changed::Anything, false);
    loop {
        let (read, folders) = (changed, known.folders.clone());
        let files = match read {
            Changed::Files(files) if absence == Removal::Deferred && !is_blind => {
                tokio::task::spawn_blocking(move || files::reread(&files, &folders)).await?
            }
            Changed::Files(_) | Changed::Anything => None,
        };
        let mut is_other = absence == Removal::Confirmed || known.again.is_some_and(|again| again <= Instant::now());
        if let Some(files) = files {
            known.note_texts(files);
            is_other |= known.files.is_changed();
        } else {
            let paths = paths.to_vec();
            // What changes from now on is read once more.
            drop(watch.take_changed());
            let found = tokio::task::spawn_blocking(move || files::read(&paths, Pipes::Refuse)).await?;
            let followed = watch.follow(&found.places);
            if followed == Followed::Anew {
                changed = Changed::Anything;
                continue;
            }
            is_blind = followed == Followed::InPart || !found.unreadable.is_empty();
            is_other |= known.note(found);
        }
        if is_other || !known.unresolved.is_empty() || rests_on_other(&known.rests_on, handle) {
            let unresolved = known.without_address().await;
            if is_other || unresolved != known.unresolved || rests_on_other(&known.rests_on, handle) {
                let taken = known.take(&|name| in_use(handle, name), unresolved, absence);
                handle.change(taken.change())?;
            }
        }
        absence = Removal::Deferred;
        let again = known.again.unwrap_or_else(Instant::now);
        tokio::select! {
            () = watch.changed() => {}
            Some(()) = told.recv() => absence = Removal::Confirmed,
            () = tokio::time::sleep_until(again), if known.again.is_some() => {}
            is_running = other_in_use(&known.rests_on, handle), if !known.rests_on.is_empty() => {
                if !is_running {
                    return Ok(());
                }
            }
            () = tokio::time::sleep(RESCAN_INTERVAL), if is_blind || !known.unresolved.is_empty() => {}
        }
        changed = watch.take_changed();
    }
}

/// Waits until other revisions are in use than those that something was refused for. False if the server ends.
async fn other_in_use(rests_on: &BTreeMap<CanaryName, InUse>, handle: &Handle) -> bool {
    let mut board = handle.watch();
    while !rests_on_other(rests_on, handle) {
        if board.changed().await.is_err() {
            return false;
        }
    }
    true
}

fn rests_on_other(rests_on: &BTreeMap<CanaryName, InUse>, handle: &Handle) -> bool {
    let board = handle.status();
    rests_on.iter().any(|(name, before)| {
        let canary = board.canaries.get(&(name.namespace.to_string(), name.name.to_string()));
        canary.is_some_and(|canary| canary.in_use != *before)
    })
}

/// Returns true for the name of this file or folder, or of a file in it.
fn is_in(name: &str, path: &str) -> bool {
    Path::new(name) == Path::new(path) || Path::new(name).parent() == Some(Path::new(path))
}

/// The revisions of a canary that carry users now, or are about to.
fn in_use(handle: &Handle, name: &CanaryName) -> Option<InUse> {
    let board = handle.status();
    let canary = board.canaries.get(&(name.namespace.to_string(), name.name.to_string()))?;
    Some(canary.in_use.clone())
}
