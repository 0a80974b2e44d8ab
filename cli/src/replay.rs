//! `wingbeat replay`.

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::replay::{Line, Replay};

use crate::check::look;
use crate::output::{Outcome, Wrong, say};

/// What is replayed, and how it is judged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat replay recorded.jsonl --canary deploy/examples/backend.yaml")]
pub(crate) struct Args {
    /// One batch a line: {"t_ms","weight","primary":{"requests","errors","latency_us"},"canary":{…}}
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// A document with one Canary, whose judge is used; otherwise the defaults, without warm-up
    #[arg(long, value_name = "FILE")]
    canary: Option<PathBuf>,
}

/// Judges a recording: a line of JSON for each of its lines.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let config = match args.canary.as_deref() {
        None => JudgeConfig::default(),
        Some(file) => match judge_of(file)? {
            Some(config) => config,
            None => return Ok(Outcome::BadInput),
        },
    };
    let file = std::fs::File::open(&args.file)
        .map_err(|error| Wrong(format!("cannot read {}: {error}", args.file.display())))?;
    let mut replay = Replay::new(config);
    let mut outcome = Outcome::Done;
    for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read {}", args.file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let judged = serde_json::from_str::<Line>(&line).map_err(|error| error.to_string()).and_then(|line| {
            let told = |problems: Vec<_>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            replay.step(&line).map_err(|problems: Vec<wingbeat_core::analysis::replay::Problem>| told(problems))
        });
        match judged {
            Ok(row) => say(&serde_json::to_string(&row)?)?,
            Err(error) => {
                say(&serde_json::json!({"line": number, "error": error}).to_string())?;
                outcome = Outcome::BadInput;
            }
        }
    }
    Ok(outcome)
}

/// Returns how the canary of a file is judged; nothing if something is wrong with the file, which is told.
fn judge_of(path: &Path) -> anyhow::Result<Option<JudgeConfig>> {
    let Some(set) = look(path)? else { return Ok(None) };
    let mut canaries = set.canaries();
    match (canaries.next(), canaries.next()) {
        (Some((_, canary)), None) => Ok(Some(JudgeConfig { attempt: Some(NonZeroU32::MIN), ..canary.judge.clone() })),
        (None, _) => Err(Wrong(format!("{} has no Canary", path.display())).into()),
        (Some(_), Some(_)) => {
            Err(Wrong(format!("{} has several canaries, give a file with one", path.display())).into())
        }
    }
}
