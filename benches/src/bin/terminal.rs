//! Pictures of `wingbeat demo` in a terminal: while it goes on and at its end, 80 and 120 columns wide.
//!
//! `terminal [FOLDER]`, `target/pictures` if none is named. The terminal is tmux; its text is drawn by Chromium.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::process::Command;
use wingbeat_benches::browser::{Browser, Look, Scheme};
use wingbeat_benches::print;
use wingbeat_benches::table::Table;

/// Lines of the terminal.
const LINES: u16 = 30;
/// The demo has ended within this time.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the terminal is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Bytes of a picture at most: they are part of the repository.
const MAX_BYTES: usize = 150_000;
/// Pixels of a cell of the picture.
const CELL: (f64, u32) = (8.28, 16);
/// Words that are there while the rollout goes on, and at its end.
const GOES_ON: &str = "no decisive harm";
const ENDED: &str = "[ended]";

/// A terminal of its own. Ended when dropped.
struct Terminal {
    socket: String,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("tmux").args(["-L", &self.socket, "kill-server"]).status();
    }
}

impl Terminal {
    /// Starts a command in a terminal of so many columns.
    async fn start(columns: u16, command: &str) -> anyhow::Result<Self> {
        let terminal = Self { socket: format!("wingbeat-pictures-{}-{columns}", std::process::id()) };
        let (columns, lines) = (columns.to_string(), LINES.to_string());
        let then_wait = format!("{command}; echo '{ENDED}'; read -r _");
        let args = ["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, &then_wait];
        terminal.tmux(&args).await?;
        Ok(terminal)
    }

    async fn tmux(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("tmux").args(["-L", &self.socket]).args(args).env("TERM", "xterm-256color").output();
        let output = output.await.context("the terminal is tmux (Debian: apt-get install tmux)")?;
        ensure!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns what it shows once these words are there, with its colours.
    async fn shows(&self, words: &str) -> anyhow::Result<String> {
        let mut poll = tokio::time::interval(POLL);
        let wait = async {
            loop {
                poll.tick().await;
                if self.tmux(&["capture-pane", "-p"]).await?.contains(words) {
                    return self.tmux(&["capture-pane", "-p", "-e"]).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("{words} is not shown"))?
    }
}

/// How a text is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Style {
    ink: Option<String>,
    ground: Option<String>,
    is_bold: bool,
    is_dim: bool,
    is_reversed: bool,
}

/// The sixteen colours of a terminal.
const COLOURS: [&str; 16] = [
    "#1c2128", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#c9d1d9", "#8b949e", "#ffa198",
    "#7ee787", "#f2cc60", "#a5d6ff", "#e2c5ff", "#b3f0ff", "#ffffff",
];
/// Text and ground where no colour is asked for.
const INK: &str = "#c9d1d9";
const GROUND: &str = "#0d1117";

fn colour(place: usize) -> String {
    match place.checked_sub(16) {
        None => COLOURS.get(place).copied().unwrap_or(INK).to_owned(),
        Some(cube) if cube < 216 => {
            let level = |step: usize| if step == 0 { 0 } else { 55 + 40 * step };
            format!("rgb({},{},{})", level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        Some(grey) => {
            let level = 8 + 10 * (grey - 216);
            format!("rgb({level},{level},{level})")
        }
    }
}

impl Style {
    /// Follows a sequence of attributes.
    fn follow(&mut self, codes: &str) {
        let mut codes = codes.split(';').map(|code| code.parse::<usize>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.is_bold = true,
                2 => self.is_dim = true,
                7 => self.is_reversed = true,
                22 => (self.is_bold, self.is_dim) = (false, false),
                27 => self.is_reversed = false,
                30..=37 => self.ink = Some(colour(code - 30)),
                90..=97 => self.ink = Some(colour(code - 90 + 8)),
                40..=47 => self.ground = Some(colour(code - 40)),
                100..=107 => self.ground = Some(colour(code - 100 + 8)),
                39 => self.ink = None,
                49 => self.ground = None,
                38 | 48 => {
                    let asked = match codes.next() {
                        Some(5) => codes.next().map(colour),
                        Some(2) => {
                            let mut level = || codes.next().unwrap_or_default();
                            Some(format!("rgb({},{},{})", level(), level(), level()))
                        }
                        Some(_) | None => None,
                    };
                    *(if code == 38 { &mut self.ink } else { &mut self.ground }) = asked;
                }
                _ => {}
            }
        }
    }

    fn css(&self) -> String {
        let ink = self.ink.as_deref().unwrap_or(INK);
        let ground = self.ground.as_deref();
        let (ink, ground) = if self.is_reversed { (ground.unwrap_or(GROUND), Some(ink)) } else { (ink, ground) };
        let mut css = format!("color:{ink};");
        if let Some(ground) = ground {
            let _infallible = write!(css, "background:{ground};");
        }
        css.push_str(if self.is_bold { "font-weight:bold;" } else { "" });
        css.push_str(if self.is_dim { "opacity:.7;" } else { "" });
        css
    }
}

/// Returns the page that looks like the terminal.
fn drawn(text: &str) -> String {
    let mut body = String::new();
    let mut style = Style::default();
    for part in text.trim_end().split('\u{1b}') {
        let rest = match part.strip_prefix('[').and_then(|part| part.split_once('m')) {
            Some((codes, rest)) if codes.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') => {
                style.follow(codes);
                rest
            }
            Some(_) | None => part,
        };
        let escaped = rest.replace('&', "&amp;").replace('<', "&lt;");
        let _infallible = write!(body, "<span style='{}'>{escaped}</span>", style.css());
    }
    format!(
        "<!doctype html><meta charset=utf-8><title>demo</title><style>body{{margin:0;padding:12px;background:{GROUND}}}\
         pre{{margin:0;font:13.75px/{}px 'DejaVu Sans Mono',monospace}}</style><pre>{body}</pre>",
        CELL.1
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let program = std::env::current_exe()?.with_file_name("wingbeat");
    ensure!(program.is_file(), "{} is not there: build the workspace with --bins", program.display());
    let mut table = Table::default();
    let mut browser = Browser::start().await?;
    for columns in [80, 120] {
        let terminal = Terminal::start(columns, &format!("'{}' demo --seed 1", program.display())).await?;
        let live = terminal.shows(GOES_ON).await?;
        let end = terminal.shows(ENDED).await?;
        for (name, text) in [("live", live), ("end", end.replace(ENDED, ""))] {
            let name = format!("demo-{columns}-{name}");
            let bytes = picture(&mut browser, &folder, &name, columns, &text).await?;
            table.row(&format!("picture of {name}"), &format!("{bytes} bytes"), "≤ 150 kB", bytes <= MAX_BYTES)?;
            let widest = plain(&text).lines().map(|line| line.chars().count()).max().unwrap_or_default();
            table.row(
                &format!("columns of {name}"),
                &widest.to_string(),
                &format!("≤ {columns}"),
                widest <= usize::from(columns),
            )?;
        }
    }
    Ok(print(&json!({"failed": table.failed()}))?)
}

/// Returns the pixels of so many columns, with what is beside them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
fn width(columns: u16) -> u32 {
    (f64::from(columns) * CELL.0).ceil() as u32 + 26
}

/// Returns the text without its colours.
fn plain(text: &str) -> String {
    text.split('\u{1b}')
        .map(|part| part.strip_prefix('[').and_then(|part| part.split_once('m')).map_or(part, |(_, rest)| rest))
        .collect()
}

async fn picture(browser: &mut Browser, folder: &Path, name: &str, columns: u16, text: &str) -> anyhow::Result<usize> {
    let page = tempfile::Builder::new().suffix(".html").tempfile()?;
    std::fs::write(page.path(), drawn(text))?;
    let look = Look { width: width(columns), height: 200, scheme: Scheme::Dark };
    browser.open(&format!("file://{}", page.path().display()), look).await?;
    browser.picture(&folder.join(format!("{name}.png")), u32::from(LINES) * CELL.1 + 24).await
}
