//! How long a newcomer waits once everything is built and installed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::prove::told::told;
use crate::run::cargo;

pub(super) const NAME: &str = "warm-start";
const BOUND: Duration = Duration::from_secs(10);
/// The first one is not counted: it may have to build and to install.
const ROUNDS: usize = 4;
/// What the demo says once the first request was answered.
const ANSWERED: &str = "revision ";

/// Runs README's first command; true if a request was answered in time each time.
pub(super) fn warm(root: &Path) -> anyhow::Result<bool> {
    let args = ["run", "--release", "--quiet", "--locked", "--", "demo", "--output", "json"];
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        took.push(first_answer(root, &args)?);
    }
    let mut warm = took.split_off(1);
    warm.sort_unstable();
    let (median, worst) = (warm.get(warm.len() / 2).copied(), warm.last().copied());
    let shown =
        |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
    let figures = format!(
        "{} rounds, command to first answered request: median {}, worst {}",
        warm.len(),
        shown(median),
        shown(worst)
    );
    let holds = worst.is_some_and(|worst| worst <= BOUND);
    told(NAME, &format!("cargo {}", args.join(" ")), &figures, &format!("each ≤ {} s", BOUND.as_secs()), holds)
}

#[expect(clippy::disallowed_methods, reason = "it is the time that is proved")]
fn first_answer(root: &Path, args: &[&str]) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut demo =
        cargo(root, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut said = BufReader::new(demo.stderr.take().context("standard error")?);
    let mut answered = None;
    let mut line = String::new();
    while answered.is_none() && said.read_line(&mut line)? > 0 {
        answered = line.starts_with(ANSWERED).then(|| began.elapsed());
        line.clear();
    }
    // It is let to its end: what it has started ends with it.
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    let status = demo.wait()?;
    if !status.success() {
        bail!("the demo ended with {status}:\n{rest}");
    }
    answered.context("the demo answered no request")
}
