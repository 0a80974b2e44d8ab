//! Takes changes of the files over. One that is wrong is told and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use wingbeat_controller::document::{Files, Report, Set};
use wingbeat_controller::handle::Handle;
use wingbeat_controller::setup::{InUse, Setup};
use wingbeat_core::id::CanaryName;

use crate::files::{self, Found};
use crate::names;

/// Editors write a file in several steps; what they leave behind is read once it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);
/// Where names have no address, they are asked for again this often: nobody tells when they have one.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What the files said so far.
pub(super) struct Known {
    /// Their last good texts.
    pub(super) files: Files,
    /// Their texts.
    pub(super) texts: BTreeMap<String, String>,
    /// Host names that Envoys were told.
    pub(super) hosts: BTreeSet<String>,
}

/// Follows the files until the server ends.
pub(super) async fn follow(
    paths: &[PathBuf],
    mut known: Known,
    handle: &Handle,
    filter: &Arc<[u8]>,
) -> anyhow::Result<()> {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // One that waits stands for all.
        let _one_waits = changed.try_send(());
    })
    .context("cannot watch the configuration")?;
    for path in paths {
        // A file that is replaced is another file: its folder is what stays.
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch {}", folder.display()))?;
    }
    let mut unresolved = BTreeMap::new();
    let mut missed = Vec::new();
    loop {
        // At first too: something may have changed since the files were read, and before they were watched.
        let Found { mut texts, unreadable, .. } = files::read(paths);
        // What cannot be read goes on as it was.
        for file in unreadable.iter().map(|problem| &problem.file) {
            texts.extend(known.texts.iter().filter(|(name, _)| is_in(name, file)).map(owned));
        }
        if texts != known.texts || unreadable != missed || !unresolved.is_empty() {
            // Envoys keep the addresses of names that they were told.
            let new = Set::of(&texts).host_names().difference(&known.hosts).cloned().collect();
            let without_address = names::unresolved(new).await;
            if texts != known.texts || unreadable != missed || without_address != unresolved {
                let (set, mut report) = known.files.update(&texts, &in_use(handle), &without_address);
                let is_changed = |file: &&String| texts.get(*file) != known.texts.get(*file);
                let changed: Vec<String> = texts.keys().filter(is_changed).cloned().collect();
                known = Known { files: known.files, texts, hosts: set.host_names() };
                unresolved = without_address;
                report.errors.extend(unreadable.iter().cloned());
                missed = unreadable;
                log(&report);
                let refused_files = report.by_file();
                if !refused_files.is_empty() {
                    tracing::warn!("what was right before goes on");
                }
                let is_refused = |file: &String| refused_files.iter().any(|refused| refused.file == *file);
                changed.iter().filter(|file| !is_refused(file)).for_each(|file| tracing::info!(file, "file taken"));
                handle.configure(Setup { refused_files, ..set.setup(Some(filter.clone())) })?;
            }
        }
        tokio::select! {
            changed = changes.recv() => match changed {
                Some(()) => while tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {},
                None => return Ok(()),
            },
            () = tokio::time::sleep(ASK_AGAIN), if !unresolved.is_empty() => {}
        }
    }
}

/// Logs what is wrong with files.
pub(super) fn log(report: &Report) {
    for problem in &report.errors {
        tracing::error!(file = problem.file, "file refused: {problem}");
    }
    for problem in &report.warnings {
        tracing::warn!(file = problem.file, "{problem}");
    }
}

/// Returns true for the name of this file or folder, or of a file in it.
fn is_in(name: &str, path: &str) -> bool {
    name == path || Path::new(name).parent() == Some(Path::new(path))
}

fn owned((name, text): (&String, &String)) -> (String, String) {
    (name.clone(), text.clone())
}

/// The revisions that carry users now, or are about to.
fn in_use(handle: &Handle) -> BTreeMap<CanaryName, InUse> {
    let board = handle.board();
    let canaries = board.canaries.values();
    canaries
        .map(|canary| (CanaryName::new(canary.namespace.clone(), canary.name.clone()), canary.in_use.clone()))
        .collect()
}
