//! The page in a real browser: what it shows of real rollouts, by keys alone, to a reader of the screen, on a phone, with
//! 1,000 canaries, and while the server is away, slow or old. Pictures of what it shows are written to a folder.
//!
//! `page [FOLDER]`, `target/pictures` if none is named.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use wingbeat_benches::browser::{Browser, axe};
use wingbeat_benches::print;
use wingbeat_benches::table::Table;

mod checks;
mod crowd;
mod documents;
mod rollouts;

/// Bytes of a picture at most: they are part of the repository.
const MAX_BYTES: usize = 150_000;
/// The highest picture, in pixels: of what is longer, its beginning is shown.
const MAX_HEIGHT: u32 = 1_600;

/// The browser, and what came of it.
pub(crate) struct Bench {
    pub(crate) browser: Browser,
    pub(crate) table: Table,
    axe: String,
    folder: PathBuf,
}

impl Bench {
    /// Takes a picture.
    pub(crate) async fn picture(&mut self, name: &str) -> anyhow::Result<()> {
        let file = self.folder.join(format!("{name}.png"));
        let bytes = self.browser.picture(&file, MAX_HEIGHT).await?;
        self.table.row(&format!("picture of {name}"), &format!("{bytes} bytes"), "≤ 150 kB", bytes <= MAX_BYTES)?;
        Ok(())
    }

    /// Notes whether something holds.
    pub(crate) fn row(&mut self, what: &str, figure: &str, bound: &str, holds: bool) -> anyhow::Result<()> {
        Ok(self.table.row(what, figure, bound, holds)?)
    }

    /// Waits until an expression is true in the page, and notes whether it became.
    pub(crate) async fn shows(&mut self, what: &str, expression: &str) -> anyhow::Result<()> {
        let shown = self.browser.until(what, expression).await;
        let figure = shown.as_ref().map_or_else(|error| format!("{error:#}"), |()| "shown".to_owned());
        self.row(what, &figure, "shown", shown.is_ok())?;
        shown
    }

    /// Notes what keeps people out of what is shown now.
    pub(crate) async fn is_open_to_all(&mut self, what: &str) -> anyhow::Result<()> {
        let barriers = self.browser.barriers(&self.axe).await?;
        let figure = if barriers.is_empty() { "none".to_owned() } else { barriers.join("; ") };
        self.row(&format!("axe-core, serious or critical: {what}"), &figure, "none", barriers.is_empty())
    }

    /// Notes whether the page complained of anything.
    pub(crate) fn is_content(&mut self, what: &str) -> anyhow::Result<()> {
        let complaints = self.browser.complaints();
        let figure = if complaints.is_empty() { "none".to_owned() } else { complaints.join("; ") };
        self.row(&format!("errors in the browser's console: {what}"), &figure, "none", complaints.is_empty())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let browser = Browser::start().await?;
    let mut bench = Bench { browser, table: Table::default(), axe: axe().await?, folder };
    rollouts::show(&mut bench).await?;
    crowd::show(&mut bench).await?;
    Ok(print(&json!({"failed": bench.table.failed()}))?)
}

/// Until users and tests have settled.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
