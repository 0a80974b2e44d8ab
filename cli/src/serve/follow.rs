//! Takes changes of the files over. One that is wrong is told and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use wingbeat_api::desired_state::{DesiredState, InUse};
use wingbeat_api::files::{Files, InForce, Observation, Part, Removal};
use wingbeat_api::{Problem, Report, Set};
use wingbeat_controller::handle::Handle;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Timestamp;

use super::watch::{Followed, Watch};
use crate::files::{self, Found, Pipes};
use crate::names;

/// Where nobody tells when it changes (names without an address, files that cannot be read or watched), it is looked at
/// again this often.
const RESCAN_INTERVAL: Duration = Duration::from_secs(10);

/// What the files said so far.
pub(super) struct Known {
    /// What of them is in force.
    files: Files,
    /// Their texts when they were read last; of those that could not be read, what they were before.
    pub(super) texts: BTreeMap<String, String>,
    /// Files that could not be read.
    unreadable: Vec<Problem>,
    /// Host names that Envoys were told.
    pub(super) hosts: BTreeSet<String>,
    /// Host names without an address.
    unresolved: BTreeMap<String, String>,
    /// Revisions in use for which something was refused.
    rests_on: BTreeMap<CanaryName, InUse>,
    /// When documents have been missed for long enough.
    again: Option<Instant>,
    /// What was logged and holds: it is not logged again.
    logged: BTreeSet<Problem>,
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
            texts: files.texts().clone(),
            files,
            unreadable: Vec::new(),
            hosts: BTreeSet::new(),
            unresolved: BTreeMap::new(),
            rests_on: BTreeMap::new(),
            again: None,
            logged: BTreeSet::new(),
            began: Instant::now(),
        }
    }

    /// Returns the texts that were found, and of what could not be read, what it was before.
    fn present(&self, found: &Found) -> BTreeMap<String, String> {
        let mut texts = found.texts.clone();
        for file in found.unreadable.iter().map(|problem| &problem.file) {
            let before = self.texts.iter().filter(|(name, _)| is_in(name, file));
            texts.extend(before.map(|(name, text)| (name.clone(), text.clone())));
        }
        texts
    }

    /// Takes what was found. Returns what is in force now; with `report.errors`, all that is wrong with files.
    pub(super) fn take(
        &mut self,
        found: Found,
        in_use: &BTreeMap<CanaryName, InUse>,
        unresolved: BTreeMap<String, String>,
        absence: Removal,
    ) -> InForce {
        let texts = self.present(&found);
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let seen =
            Observation { texts: &texts, in_use, unresolved: &unresolved, absence, now: Timestamp::from_nanos(now) };
        let mut taken = self.files.update(seen);
        self.hosts = taken.set.host_names();
        let of = |name: &CanaryName| Some((name.clone(), in_use.get(name)?.clone()));
        self.rests_on = taken.rests_on.iter().filter_map(of).collect();
        self.again = taken.again.map(|again| self.began + Duration::from_nanos(again.as_nanos()));
        taken.report.errors.extend(found.unreadable.iter().cloned());
        taken.report.warnings.extend(found.left_out.into_iter().chain(found.empty));
        let before = std::mem::replace(&mut self.texts, texts);
        self.unreadable = found.unreadable;
        self.unresolved = unresolved;
        self.log(&taken, &before);
        taken
    }

    /// Logs what came of it: what is wrong once, as long as the file is not changed.
    fn log(&mut self, taken: &InForce, before: &BTreeMap<String, String>) {
        let is_changed = |file: &String| self.texts.get(file) != before.get(file);
        let is_new = |problem: &&Problem| !self.logged.contains(*problem) || is_changed(&problem.file);
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
        let is_refused = |file: &String| report.errors.iter().any(|problem| problem.file == *file);
        let changed = self.texts.keys().filter(|file| is_changed(file) && !is_refused(file));
        changed.for_each(|file| tracing::info!(file, "file taken"));
        self.logged = report.errors.iter().chain(missed).chain(&report.warnings).cloned().collect();
    }

    /// Returns what is to be managed.
    pub(super) fn desired_state(&self, taken: &InForce, filter: &Arc<[u8]>) -> DesiredState {
        let errors = taken.report.errors.iter().chain(&taken.missed).cloned().collect();
        let refused_files = Report { errors, warnings: Vec::new() }.by_file();
        DesiredState { refused_files, texts: self.files.parts(), ..taken.set.desired_state(Some(filter.clone())) }
    }

    /// Returns true if what can be read is no longer what it was.
    fn differs_from(&self, found: &Found) -> bool {
        self.present(found) != self.texts || found.unreadable != self.unreadable
    }

    /// Returns the host names that Envoys were not told yet and that have no address. They keep the addresses that they have.
    async fn without_address(&self, found: &Found) -> BTreeMap<String, String> {
        let names = Set::of(&self.present(found)).host_names();
        names::unresolved(names.difference(&self.hosts).cloned().collect()).await
    }
}

/// Follows the files until the server ends.
pub(super) async fn follow(
    paths: &[PathBuf],
    mut known: Known,
    handle: &Handle,
    filter: &Arc<[u8]>,
) -> anyhow::Result<()> {
    // What is in use is shown from then on.
    if handle.watch().wait_for(|board| board.ready).await.is_err() {
        return Ok(());
    }
    let mut watch = Watch::start();
    let mut told = signal(SignalKind::hangup()).context("cannot take signals")?;
    let mut absence = Removal::Deferred;
    loop {
        let paths = paths.to_vec();
        // At first too: something may have changed since the files were read, and before they were watched.
        let found = tokio::task::spawn_blocking(move || files::read(&paths, Pipes::Refuse)).await?;
        let followed = watch.follow(&found.places);
        if followed == Followed::Anew {
            continue;
        }
        let is_blind = followed == Followed::InPart || !found.unreadable.is_empty();
        let is_due = known.again.is_some_and(|again| again <= Instant::now());
        let is_other = known.differs_from(&found) || is_due || absence == Removal::Confirmed;
        if is_other || !known.unresolved.is_empty() || rests_on_other(&known.rests_on, handle) {
            let unresolved = known.without_address(&found).await;
            if is_other || unresolved != known.unresolved || rests_on_other(&known.rests_on, handle) {
                let taken = known.take(found, &in_use(handle), unresolved, absence);
                handle.configure(known.desired_state(&taken, filter))?;
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
        let canary = board.canaries.get(&(name.namespace.clone(), name.name.clone()));
        canary.is_some_and(|canary| canary.in_use != *before)
    })
}

/// Returns true for the name of this file or folder, or of a file in it.
fn is_in(name: &str, path: &str) -> bool {
    Path::new(name) == Path::new(path) || Path::new(name).parent() == Some(Path::new(path))
}

/// The revisions that carry users now, or are about to.
fn in_use(handle: &Handle) -> BTreeMap<CanaryName, InUse> {
    let board = handle.status();
    let canaries = board.canaries.values();
    canaries
        .map(|canary| (CanaryName::new(canary.namespace.clone(), canary.name.clone()), canary.in_use.clone()))
        .collect()
}
