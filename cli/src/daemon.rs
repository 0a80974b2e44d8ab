//! What the verbs that serve have in common.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::output::Wrong;

pub(crate) mod allocator;
pub(crate) mod ports;
mod room;

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for a person
    Text,
    /// A JSON object a line
    Json,
}

/// Returns where the state is kept. There is always one: without it, a revision that was rolled back would be taken for
/// the one that serves after a restart.
pub(crate) fn state_folder(chosen: Option<PathBuf>) -> Result<PathBuf, Wrong> {
    // What systemd makes for a service with `StateDirectory=`; the first if there are several.
    let of_service = std::env::var_os("STATE_DIRECTORY").filter(|folders| !folders.is_empty());
    let of_service = of_service.and_then(|folders| std::env::split_paths(&folders).next());
    let of_user = || dirs::state_dir().or_else(dirs::data_local_dir).map(|folder| folder.join("wingbeat"));
    chosen.or(of_service).or_else(of_user).ok_or_else(|| {
        Wrong("this user has no home, so there is no default for the state: name a folder by --state".to_owned())
    })
}

/// Waits until this process is told to stop.
pub(crate) async fn stop_signal() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        let _interrupted = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
